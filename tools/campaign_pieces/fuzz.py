"""Builds the fuzz targets of tests/fuzz, makes their seeds, and runs them one after the other.

What a fuzzer learns stays in build/campaign/corpus, so that each run goes on where the last one
stopped; nothing of it is kept in the repository. Inputs that end a target are in
build/campaign/findings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "campaign"
BUILD = ROOT / "build" / "fuzz"
NATIVE = ("load", "tokenizer", "template", "grammar", "kept")
PYTHON = ("safetensors", "tokenizer_json", "sentencepiece", "server")
LONGEST = {"load": 60_000, "kept": 40_000, "template": 4000, "grammar": 600, "tokenizer": 600,
           "safetensors": 2000, "tokenizer_json": 12_000, "sentencepiece": 12_000,
           "server": 600}  # fmt: skip
SANITIZERS = {
    "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0"
    ":quarantine_size_mb=8",
    "UBSAN_OPTIONS": "print_stacktrace=1",
}


@dataclass
class Outcome:
    name: str
    executions: int = 0
    hours: float = 0.0
    findings: list[str] = field(default_factory=list)


def compiler() -> str:
    """A Clang that has libFuzzer; the newest."""
    names = [os.environ.get("CXX", ""), "clang++", *(f"clang++-{n}" for n in range(25, 13, -1))]
    for name in names:
        path = shutil.which(name) if "clang" in name else None
        if path is None:
            continue
        command = [path, "-fsanitize=fuzzer", "-x", "c++", "-", "-o", "/dev/null"]
        source = 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
        done = subprocess.run(command, input=source, text=True, capture_output=True, check=False)
        if done.returncode == 0:
            return path
    sys.exit("no clang++ with libFuzzer here: apt-get install clang libclang-rt-dev")


def build(targets: list[str]) -> None:
    launcher = ["-DCMAKE_CXX_COMPILER_LAUNCHER=ccache"] if shutil.which("ccache") else []
    configure = ["cmake", "--preset", "fuzz", f"-DCMAKE_CXX_COMPILER={compiler()}", *launcher]
    if not (BUILD / "build.ninja").exists():
        subprocess.run(configure, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    names = [f"specdec_fuzz_{target}" for target in targets]
    command = ["cmake", "--build", str(BUILD), "--parallel", os.environ.get("JOBS", "1")]
    subprocess.run([*command, "--target", *names], check=True, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------- seeds

GRAMMARS = [
    b'\x00root ::= "a" [b-d]{1,3} (x | "y")* .\nx ::= [^\\n] x? # c\n',
    b'\x00root ::= "\\x41" | item+\nitem ::= "- " [\\u0100-\\u0200]* "\\n"\n',
    b'\x01{"type":"object","properties":{"a":{"type":"integer","minimum":-3,"maximum":12},'
    b'"b":{"enum":["x",1,null]}},"required":["a"],"additionalProperties":false}',
    b'\x01{"$defs":{"n":{"type":"object","properties":{"n":{"$ref":"#/$defs/n"}}}},'
    b'"$ref":"#/$defs/n"}',
    b'\x01{"type":"array","items":{"anyOf":[{"type":"number","exclusiveMinimum":0.5},'
    b'{"type":"string","format":"date-time"}]},"minItems":1,"maxItems":3}',
    b'\x01{"allOf":[{"type":"string","minLength":2},{"maxLength":5,"pattern":"^[a-z]+$"}]}',
    b"\x02^(a|b){2,4}[^c-e]\\d+\\.?$",
    b"\x02(?:x|\\w\\s)*\\u00e9",
]
BODIES = [
    b'\x00{"prompt":"the cat","max_tokens":4,"temperature":0.5,"seed":1,"stop":["e"],"n":2,'
    b'"logprobs":1}',
    b'\x00{"prompt":[1,2,3],"max_tokens":2,"stream":true,"logit_bias":{"5":-100},"echo":true}',
    b'\x01{"messages":[{"role":"user","content":"hi"}],"max_tokens":3,"tools":[{"type":"function",'
    b'"function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"auto"}',
    b'\x01{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]}],"max_tokens":2,'
    b'"response_format":{"type":"json_object"},"stream":true,'
    b'"stream_options":{"include_usage":true}}',
    b'\x01{"messages":[{"role":"system","content":"s"},{"role":"assistant","content":"x"}],'
    b'"max_completion_tokens":2,"logprobs":true,"top_logprobs":2,"grammar":"root ::= \\"a\\""}',
    b'\x02{"input_prefix":"a","input_suffix":"b","n_predict":2}',
    b'\x03{"content":"the cat","add_special":true,"with_pieces":true}',
    b'\x04{"tokens":[1,2,3]}',
]
TEXTS = ["the the  aaaa 12345", "  \n\n the\tcat's <|im_end|> <tool> x",
         "é\u0301 日本語 🙂\u200d🙂", "\x00\x01\xff", "a" * 300, "don't 3.14 {}()[]"]  # fmt: skip


def _models(folder: pathlib.Path) -> Iterator[bytes]:
    import tiny_models

    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    for i, arch in enumerate(("llama", "qwen2", "gptneox", "qwen3", "gemma3", "phi3")):
        config = tiny_models.TinyConfig(
            arch=arch, n_layers=1, hidden_size=32, n_heads=2, n_kv_heads=2, intermediate_size=32
        )
        path = folder / f"{arch}.gguf"
        try:
            extra = {"tokenizer.chat_template": template}
            tiny_models.write_tiny(path, config, dtype="Q8_0", seed=i, extra=extra)
        except (KeyError, ValueError, AssertionError):
            continue  # not one that the tests write
        yield path.read_bytes()
    yield path.read_bytes()[:-512] + b"\xff" * 512  # NaN


def _kept(folder: pathlib.Path) -> Iterator[bytes]:
    import specdec_native as sd

    path = folder / "kept"
    with sd.Model(folder / "tiny.gguf", n_threads=1) as model:
        for n_tokens in (2, 20, 40):
            with sd.Decoder(model, drafter=None, n_ctx=64, kv_type="f16") as decoder:
                decoder.generate([1] * n_tokens, max_tokens=0)
                decoder.save(path)
                yield b"\x01" + path.read_bytes()
    yield b"\x01" + path.read_bytes()[:-600] + b"\x7e" * 600  # NaN


def _safetensors() -> Iterator[bytes]:
    import numpy as np

    import hf_checkpoints as hf

    state = {"a": np.ones((2, 3), np.float32), "b.c": np.zeros(4, np.float32)}
    for dtype in ("F32", "F16", "BF16"):
        yield hf.safetensors_bytes(state, dtype)


def _tokenizers() -> Iterator[bytes]:
    import hf_checkpoints as hf

    yield hf.trained_bpe(262).encode()
    shorter = json.loads(hf.trained_bpe(262))
    shorter["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
                   {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0],
                                             "tokens": ["<|endoftext|>"]}},
    }  # fmt: skip
    yield json.dumps(shorter).encode()


def _pieces() -> Iterator[bytes]:
    import hf_checkpoints as hf

    yield hf.trained_spm(420)


def seeds(target: str, models: pathlib.Path) -> list[bytes]:
    if target == "load":
        return list(_models(models))
    if target == "kept":
        return list(_kept(models))
    if target == "template":
        folder = ROOT / "tests" / "data" / "chat_templates"
        texts = [path.read_bytes() for path in sorted(folder.glob("**/*.jinja"))]
        return [text for text in texts if len(text) <= LONGEST["template"]]
    if target == "tokenizer":
        texts = [text.encode("utf-8", "surrogateescape") for text in TEXTS]
        return [bytes([i, flags]) + t for i, t in enumerate(texts) for flags in (0, 3)]
    if target in ("safetensors", "tokenizer_json", "sentencepiece"):
        made = {"safetensors": _safetensors, "tokenizer_json": _tokenizers}
        return list(made.get(target, _pieces)())
    return BODIES if target == "server" else GRAMMARS


def dictionary(target: str) -> list[bytes]:
    """Words that inputs are made of, from those of the seeds and of the code that reads them."""
    sources = {
        "template": ["tests/native/fuzz_chat_template.cc"],
        "grammar": ["cpp/grammar/json_schema.cc", "cpp/grammar/schema_keywords.cc"],
        "server": ["python/specdec_native/server/schemas.py"],
        "tokenizer_json": ["tools/gguf_convert/tokenizer_json.py"],
        "load": ["cpp/tokenizer/from_gguf.cc", "cpp/model/hparams.cc"],
    }
    found: set[bytes] = set()
    for name in sources.get(target, []):
        text = (ROOT / name).read_text("utf-8")
        found |= {word.encode() for word in re.findall(r'"([^"\\\n]{2,24})"', text)}
        if name.endswith(".py"):
            found |= {b'"%s":' % word.encode() for word in re.findall(r"^    (\w+):", text, re.M)}
    return sorted(found)


def prepare(target: str) -> tuple[list[str], dict[str, str]]:
    """The arguments of the target, and its environment."""
    if str(ROOT / "tests") not in sys.path:
        sys.path.insert(0, str(ROOT / "tests"))
    import tiny_models

    models = WORK / "models"
    models.mkdir(parents=True, exist_ok=True)
    if not (models / "tiny.gguf").exists():
        config = tiny_models.TinyConfig(hidden_size=32, n_heads=2, head_dim=16, n_layers=1)
        tiny_models.write_tiny(models / "tiny.gguf", config, dtype="Q8_0", seed=1)
    given, learnt = WORK / "seeds" / target, WORK / "corpus" / target
    shutil.rmtree(given, ignore_errors=True)
    given.mkdir(parents=True)
    learnt.mkdir(parents=True, exist_ok=True)
    for i, seed in enumerate(seeds(target, models)):
        (given / str(i)).write_bytes(seed)
    arguments = [str(learnt), str(given)]
    if words := dictionary(target):
        path = WORK / f"{target}.dict"
        lines = ('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words)
        path.write_text("\n".join(lines) + "\n", encoding="ascii")
        arguments.append(f"-dict={path}")
    env = {
        **os.environ,
        **SANITIZERS,
        "SPECDEC_FUZZ_MODEL": str(models / "tiny.gguf"),
        "SPECDEC_FUZZ_MODELS": str(models),
        "SPECDEC_CALIBRATION": str(WORK),
        "OPENBLAS_NUM_THREADS": "1",
    }
    return arguments, env


def run_target(target: str, seconds: float) -> Outcome:
    outcome = Outcome(target)
    findings = WORK / "findings"
    findings.mkdir(parents=True, exist_ok=True)
    arguments, env = prepare(target)
    command = [str(BUILD / "tests" / "fuzz" / f"specdec_fuzz_{target}")]
    if target in PYTHON:
        command = [sys.executable, str(ROOT / "tests/fuzz/python_targets.py"), target]
    command += [*arguments, f"-max_total_time={max(5, round(seconds))}", "-print_final_stats=1"]
    command += [f"-max_len={LONGEST[target]}", "-timeout=60", "-rss_limit_mb=3000"]
    command += [f"-artifact_prefix={findings}/{target}-", "-verbosity=1"]
    start = time.monotonic()
    done = subprocess.run(command, env=env, capture_output=True, check=False, cwd=WORK)
    outcome.hours = (time.monotonic() - start) / 3600
    text = done.stderr.decode("utf-8", "replace") + done.stdout.decode("utf-8", "replace")
    (WORK / f"{target}.log").write_text(text, encoding="utf-8")
    counted = re.findall(r"stat::number_of_executed_units:\s*(\d+)|^#(\d+)\s", text, re.M)
    outcome.executions = max((int(a or b) for a, b in counted), default=0)
    if done.returncode != 0:
        outcome.findings.append(_what(text, done.returncode))
    return outcome


def _what(text: str, code: int) -> str:
    """The line that says what was found."""
    if match := re.search(r"Uncaught Python exception: ===\n(.*)", text):
        return match[1][:300]
    patterns = (r"finding: .*", r"ERROR: .*", r".*runtime error: .*", r"^\w*(Error|Exception).*")
    for pattern in patterns:
        if match := re.search(pattern, text, re.M):
            return match[0][:300]
    return f"it ended with {code}: {text[-300:]}"


def run(
    minutes: float,
    *,
    targets: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """The same time for each target."""
    chosen = list(targets or (*NATIVE, *PYTHON))
    if importlib.util.find_spec("atheris") is None:
        left = [target for target in chosen if target in PYTHON]
        say(f"atheris is not installed, left out: {', '.join(left)}" if left else "")
        chosen = [target for target in chosen if target not in PYTHON]
    if native := [target for target in chosen if target in NATIVE]:
        build(native)
    outcomes = []
    for target in chosen:
        outcome = run_target(target, 60 * minutes / len(chosen))
        say(f"{outcome}")
        outcomes.append(outcome)
    return outcomes
