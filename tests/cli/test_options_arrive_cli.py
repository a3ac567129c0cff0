"""Every flag of every command reaches the native side and changes something.

As `test_options_arrive.py` does for Python: a case is a flag of a command with two ways to give it
(or to leave it out); the same way twice gives the same, the two give something else. What is
compared is all that the command prints and its exit code, but for times.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

from options_schema import OPTIONS  # noqa: E402

BINARY = specdec_binary()
CODE = (
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n\n\ndef mul(a, b):\n"
)
# What a chat about code begins with, and how the small model goes on.
MESSAGE = "class Inventory: def add(self, part, count): self.parts"
ANSWER = "[0] = part\n        self.smtp = self.smtptptp_type\n\n    def _smtp_type(self, name"
PROMPT = "the cat in the hat the cat in the hat the cat in the "
SHOW = "{{ messages[0].content }}{{ tools }}{{ extra }}"
TIMES = re.compile(
    r"(_ms|_per_second|gb_s|gmac_s|bandwidth_share|bytes_per_second|^ratio|^seed"
    r"|^spread|^stolen_share|^noisy)$"
)


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_path, tiny_draft_path):
    """What words in braces stand for."""
    folder = tmp_path_factory.mktemp("flags")
    pair = sd.embedded("pycode")
    config = tiny_models.TinyConfig(n_layers=4)
    tensors = tiny_models.random_tensors(config, seed=4)
    tensors["output_norm.weight"][3] = np.nan
    keys = {**tiny_models.metadata(config), **tiny_models.byte_tokenizer()}
    tokenizer = tiny_models.byte_tokenizer()
    kinds = list(tokenizer["tokenizer.ggml.token_type"])
    kinds[kinds.index(5)] = 3  # [PAD0] is a control token
    found = {
        "tiny": tiny_path,
        "tinydraft": tiny_draft_path,
        "code": pair.target,
        "codedraft": pair.draft,
        "deep": tiny_models.write_tiny(folder / "deep.gguf", config, seed=3),
        "nan": tiny_models.write_gguf(folder / "nan.gguf", keys, tensors),
        "marked": tiny_models.write_tiny(
            folder / "marked.gguf", seed=5, extra={"tokenizer.ggml.token_type": kinds}
        ),
        "bos": tiny_models.write_tiny(
            folder / "bos.gguf", seed=5, extra={"tokenizer.ggml.add_bos_token": True}
        ),
        "f32": tiny_models.write_tiny(folder / "f32.gguf", seed=6),
        "out": folder / "out.gguf",
        "kept": folder / "a.kept",
        "texts": folder / "texts.memory",
        "memory": folder / "copy.memory",
        "corpus": folder / "corpus.txt",
        "prompt": folder / "prompt.txt",
        "text": folder / "text.txt",
        "template": folder / "template.jinja",
        "tools": folder / "tools.json",
        "schema": folder / "schema.json",
        "grammar": folder / "list.gbnf",
        "kwargs": json.dumps({"extra": "more"}),
        "messages": json.dumps([{"role": "user", "content": "ab"}]),
        "code_prompt": CODE,
        "cat": PROMPT,
        "long": "abcdefg"
        + "".join(chr(33 + (7 * i + i * i // 11) % 90) for i in range(1500))
        + "abc",
    }
    with sd.Model(tiny_path) as model, sd.Decoder(model, drafter=None) as decoder:
        decoder.generate(PROMPT, max_tokens=0)
        decoder.save(found["kept"])
    # What is drafted is found in the older of two texts.
    memory = sd.Memory(found["texts"])
    with sd.Model(pair.target) as model, sd.Decoder(model, drafter=None, memory=memory) as decoder:
        for text, n in ((CODE, 40), (f"{MESSAGE}\n", 80)):
            decoder.generate(text, max_tokens=n)
        for step in (1, 3, 7):
            decoder.generate([(step * i) % 400 + 1 for i in range(400)], max_tokens=0)
        memory.save()
    found["corpus"].write_text(CODE + "    return a * b\n\n\n" + MESSAGE + ANSWER)
    found["prompt"].write_text("x" + PROMPT)
    found["text"].write_text(PROMPT * 12)
    found["template"].write_text(SHOW)
    found["schema"].write_text('{"const": "ab"}')
    found["grammar"].write_text('root ::= "b" [0-9]{3}')
    found["tools"].write_text(json.dumps([{"name": "f"}]))
    return {name: str(value) for name, value in found.items()}


def pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: sorted(item) if key == "t_ms" else pruned(item)
            for key, item in value.items()
            if key == "t_ms" or not TIMES.search(key)
        }
    return [pruned(item) for item in value] if isinstance(value, list) else value


def without_times(line: str) -> str:
    if "tokens/s" in line or re.search(r"error .* on \d+ thread", line):
        kept = re.findall(r"prompt \d+|\d+ read again|speculation[^|]*|on \d+ thread", line)
        return "figures: " + " ".join(kept)
    return "" if "loading" in line or "GB/s" in line else line


SEEN: dict[tuple[str, ...], Any] = {}


def output(files: dict[str, str], arguments: tuple[str, ...], stdin: str = "") -> Any:
    """Exit code and all that was printed, but for times; of an earlier run where there was one."""
    key = (*arguments, stdin)
    if key in SEEN:
        return SEEN[key]
    SEEN[key] = run(files, arguments, stdin)
    return SEEN[key]


def run(files: dict[str, str], arguments: tuple[str, ...], stdin: str) -> Any:
    pathlib.Path(files["out"]).unlink(missing_ok=True)
    if "{old}" in arguments:
        pathlib.Path(files["out"]).write_bytes(b"old")
    if "{memory}" in arguments:
        shutil.copy(files["texts"], files["memory"])
    filled = [files.get(a[1:-1], files["out"]) if a[:1] == "{" else a for a in arguments]
    done = subprocess.run(
        [BINARY, *filled], input=stdin, capture_output=True, text=True, timeout=240,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, errors="replace", check=False,
    )  # fmt: skip
    text: Any = [without_times(line) for line in done.stdout.split("\n")]
    if "--json" in filled and done.returncode == 0:
        text = pruned(json.loads(done.stdout))
    stderr = [without_times(line) for line in re.split(r"[\r\n]", done.stderr)]
    left = pathlib.Path(files["out"]).exists()
    return done.returncode, text, [line for line in stderr if line], left


# ---------------------------------------------------------------- cases: before, a, b

# The controller follows the clock: no drafter, or one of fixed length.
PLAIN = ("--drafter", "none")
GENERATE = ("generate", "-m", "{tiny}", "-p", "{cat}", "-n", "16", "--json", *PLAIN)
WARM = ("--temp", "1.5", "-s", "1")
TWO = ("--logit-bias", "97+60", "--logit-bias", "98+50")
DRAFT = ("generate", "-m", "{code}", "-p", "{code_prompt}", "-n", "40", "--trace", "--json")
MODEL_DRAFT = (*DRAFT, "-md", "{codedraft}", "--drafter", "model")
SAMPLED = (*MODEL_DRAFT, *WARM, "--verify", "standard")
NGRAM, SUFFIX = (*DRAFT, "--drafter", "ngram"), (*DRAFT, "--drafter", "suffix")
RECYCLING = (*DRAFT, "--drafter", "recycling")
SKIP = ("generate", "-m", "{deep}", "-p", "{cat}", "-n", "20", "--trace", "--json",
        "--drafter", "layerskip")  # fmt: skip

SAMPLING: dict[str, tuple[Any, Any, Any]] = {
    "SamplingParams.logit_bias": ((), (), ("--logit-bias", "97+1000")),
    "SamplingParams.repetition_penalty": (TWO, (), ("--repeat-penalty", "90")),
    "SamplingParams.presence_penalty": (TWO, (), ("--presence-penalty", "90")),
    "SamplingParams.frequency_penalty": (TWO, (), ("--frequency-penalty", "90")),
    "SamplingParams.penalty_last_n": (
        (*TWO, "--presence-penalty", "90"), (), ("--repeat-last-n", "0"),
    ),
    "SamplingParams.temperature": (("-s", "1"), (), ("--temp", "1.5")),
    "SamplingParams.top_k": (WARM, (), ("--top-k", "1")),
    "SamplingParams.top_p": (WARM, (), ("--top-p", "0.01")),
    "SamplingParams.min_p": (WARM, (), ("--min-p", "0.99")),
    "SamplingParams.noise_scale": (WARM, (), ("--noise-scale", "20")),
    "SamplingParams.seed": (("--temp", "1.5"), ("-s", "1"), ("-s", "18446744073709551615")),
    "call.max_tokens": ((), ("-n", "3"), ("-n", "5")),
}  # fmt: skip

DRAFTING: dict[str, tuple[Any, Any, Any]] = {
    "Decoder.drafter": (DRAFT, ("--drafter", "ngram"), ("--drafter", "suffix")),
    "Decoder.verifier": (
        (*MODEL_DRAFT, *WARM), ("--verify", "standard"), ("--verify", "match"),
    ),
    "Decoder.memory": ((*NGRAM, "--gamma", "3"), (), ("--memory", "{memory}")),
    "Memory.max_tokens": (
        (*NGRAM, "--gamma", "3", "--memory", "{memory}"), (), ("--memory-tokens", "1024"),
    ),
    "Decoder.use_cache": (MODEL_DRAFT, (), ("--no-cache",)),
    "DraftModel.draft_max": (NGRAM, (), ("--draft-max", "2")),
    "DraftModel.draft_min": ((*NGRAM, "-n", "6", "--draft-max", "3"), (), ("--draft-min", "3")),
    "DraftModel.gamma": (NGRAM, ("--gamma", "1"), ("--gamma", "2")),
    "DraftModel.sampling": (
        SAMPLED, ("--draft-sampling", "greedy"), ("--draft-sampling", "sampled"),
    ),
    "DraftModel.temperature": (
        (*SAMPLED, "--draft-sampling", "sampled"), ("--draft-temp", "0.1"), ("--draft-temp", "5"),
    ),
    "DraftModel.head_tokens": (MODEL_DRAFT, ("--draft-head", "0"), ("--draft-head", "30")),
    "DraftModel.draft_top_k": (
        (*SAMPLED, "--draft-sampling", "sampled"), ("--draft-top-k", "1"), ("--draft-top-k", "50"),
    ),
    "DraftModel.branch": (MODEL_DRAFT, (), ("--draft-branch", "3")),
    "NGram.n": (NGRAM, ("--ngram-n", "2"), ("--ngram-n", "6")),
    "NGram.min_count": (NGRAM, (), ("--ngram-min-count", "3")),
    "NGram.filler_top_k": (NGRAM, (), ("--filler-top-k", "8")),
    "SuffixAutomaton.min_match": (SUFFIX, (), ("--suffix-min-match", "6")),
    "SuffixAutomaton.corpus": (SUFFIX, (), ("--suffix-corpus", "{corpus}")),
    "SuffixAutomaton.max_store": (
        ("generate", "-m", "{tiny}", "-p", "{long}", "-n", "3", "--trace", "--json",
         "--drafter", "suffix"),
        (), ("--suffix-max-store", "1024"),
    ),
    "TokenRecycling.top_k": (RECYCLING, (), ("--recycling-top-k", "1")),
    "TokenRecycling.tree": (RECYCLING, (), ("--recycling-chain",)),
    "LayerSkip.n_layers": (SKIP, ("--draft-layers", "1"), ("--draft-layers", "3")),
}  # fmt: skip

# Of commands that load a model; `{tiny}` and so on as below.
LOADING: dict[str, tuple[Any, Any, Any]] = {
    "files.model": ((), ("-m", "{tiny}"), ("-m", "{code}")),
    "Model.device": (("-m", "{tiny}"), (), ("--device", "cuda")),
    "Model.n_threads": (("-m", "{tiny}", "-v"), ("-t", "1"), ("-t", "2")),
    "Model.n_gpu_layers": (("-m", "{tiny}"), (), ("-ngl", "1")),
    "Model.vram_budget": (("-m", "{tiny}", "-v"), (), ("--vram-budget", "4GiB")),
    "Model.kv_type": (("-m", "{tiny}", "-v"), (), ("--kv-type", "q8_0")),
    "Model.repack": (("-m", "{tiny}", "-v"), (), ("--repack", "off")),
    "Model.check_tensors": (("-m", "{nan}"), (), ("--check-tensors",)),
    "output.quiet": (("-m", "{tiny}"), (), ("-q",)),
    "output.verbose": (("-m", "{tiny}"), (), ("-v",)),
}
DRAFT_LOADING: dict[str, tuple[Any, Any, Any]] = {
    "files.n_gpu_layers_draft": ((), (), ("-ngld", "1")),
    "Model.requantize": (("-v",), (), ("--draft-quant", "q4_0")),
}

GENERATING: dict[str, tuple[Any, Any, Any]] = {
    "Decoder.n_ctx": (("-n", "-1", "--ignore-eos"), ("-c", "80"), ("-c", "90")),
    "call.stop": (("--logit-bias", "97+1000"), (), ("--stop", "aaa")),
    "call.ignore_eos": (("--logit-bias", "271+1000"), (), ("--ignore-eos",)),
    "call.logprobs": ((), (), ("--logprobs", "2")),
    "call.render_special": (
        ("-m", "{marked}", "--logit-bias", "261+1000"), (), ("--special",),
    ),
    "call.parse_special": (("-p", "a<|endoftext|>b"), (), ("--no-special",)),
    "call.on_round": ((), (), ("--trace",)),
    "call.verify_output": ((), (), ("--check",)),
    "prompt.prompt": ((), ("-p", "ab"), ("-p", "abc")),
    "prompt.escape": (("-p", r"a\nb"), (), ("-e",)),
    "prompt.chat": ((), (), ("--chat",)),
    "prompt.messages": (("-p", "{messages}", "--chat"), (), ("--messages",)),
    "output.json": ((), (), ("--json",)),
}  # fmt: skip

TEMPLATES: dict[str, tuple[Any, Any, Any]] = {
    "prompt.chat_template": ((), ("--chat-template", "chatml"), ("--chat-template", "zephyr")),
    "prompt.template_file": ((), (), ("--chat-template-file", "{template}")),
    "prompt.system": ((), (), ("-sys", "Be brief.")),
    "prompt.tools_file": (
        ("--chat-template-file", "{template}"), (), ("--tools", "{tools}"),
    ),
    "prompt.arguments": (
        ("--chat-template-file", "{template}"), (), ("--chat-template-kwargs", "{kwargs}"),
    ),
}  # fmt: skip

GENERATE_TEXT = ("generate", "-m", "{tiny}", "-p", "{cat}", "-n", "16", *PLAIN)
INSPECT = ("inspect", "{tiny}")
BUDGET = (*INSPECT, "--vram-budget", "64MiB")
BENCH = ("bench", "--rows", "1", "--rounds", "1", "--ctx", "8", "--json")
PERPLEXITY = ("perplexity", "-f", "{text}", "-c", "64", "--json")
TOKENIZE = ("tokenize", "-m", "{bos}", "-p", r"ab\n<|endoftext|>")
QUANTIZE = ("quantize", "{f32}", "{new}", "q4_k_m", "--json")

CHAT_NGRAM = ("chat", "-m", "{code}", "--chat-template", "raw", "--drafter", "ngram",
              "--message", "{code_prompt}")  # fmt: skip

OTHERS: dict[tuple[str, str], tuple[Any, Any, Any]] = {
    ("generate", "files.draft"): (
        (*DRAFT, "-m", "{tiny}", "--drafter", "model"), ("-md", "{tinydraft}"), ("-md", "{tiny}"),
    ),
    ("generate", "prompt.file"): (
        ("generate", "-m", "{tiny}", "-n", "8", "--json"), ("-f", "{prompt}"), ("-f", "{text}"),
    ),
    ("generate", "text.schema"): (GENERATE, (), ("-j", '{"enum": [1]}')),
    ("generate", "text.schema_file"): (GENERATE, (), ("-jf", "{schema}")),
    ("generate", "text.grammar"): (GENERATE, (), ("--grammar", 'root ::= "ab"')),
    ("generate", "text.grammar_file"): (GENERATE, (), ("--grammar-file", "{grammar}")),
    ("chat", "files.draft"): (
        ("chat", "-m", "{tiny}", "-n", "16", "-v", "--drafter", "model"),
        ("-md", "{tinydraft}"), ("-md", "{tiny}"),
    ),
    ("chat", "DraftModel.draft_min"): (
        (*CHAT_NGRAM, "-n", "27", "--draft-max", "3"), (), ("--draft-min", "3"),
    ),
    ("chat", "DraftModel.head_tokens"): (
        ("chat", "-m", "{tiny}", "-md", "{tiny}", "-n", "40", "--drafter", "model", "--message",
         "{cat}"),
        ("--draft-head", "0"), ("--draft-head", "90"),
    ),
    ("chat", "NGram.n"): ((*CHAT_NGRAM, "-n", "80"), ("--ngram-n", "2"), ("--ngram-n", "6")),
    ("chat", "NGram.filler_top_k"): (
        (*CHAT_NGRAM, "-n", "120", "--temp", "0.7", "-s", "3"), (), ("--filler-top-k", "8"),
    ),
    ("chat", "Decoder.n_ctx"): (("chat", "-m", "{tiny}", *PLAIN), ("-c", "80"), ("-c", "90")),
    ("bench", "files.draft"): ((*BENCH, "-m", "{tiny}"), (), ("-md", "{tinydraft}")),
    ("bench", "bench.rows"): ((*BENCH, "-m", "{tiny}"), (), ("--rows", "1,2")),
    ("bench", "bench.ctx"): ((*BENCH, "-m", "{tiny}"), (), ("--ctx", "9")),
    ("bench", "bench.rounds"): ((*BENCH, "-m", "{tiny}"), (), ("--rounds", "2")),
    ("bench", "bench.kernels"): ((*BENCH, "-m", "{tiny}"), (), ("--kernels",)),
    ("bench", "output.json"): ((*BENCH[:-1], "-m", "{tiny}"), ("--json",), ()),
    ("perplexity", "perplexity.window"): (
        (*PERPLEXITY, "-m", "{tiny}"), (), ("-c", "96"),
    ),
    ("perplexity", "perplexity.chunks"): ((*PERPLEXITY, "-m", "{tiny}"), (), ("--chunks", "1")),
    ("perplexity", "prompt.file"): (
        ("perplexity", "-m", "{tiny}", "-c", "32"), ("-f", "{prompt}"), ("-f", "{text}"),
    ),
    ("generate", "prompt.cache"): (GENERATE, (), ("--prompt-cache", "{kept}")),
    ("generate", "prompt.cache_ro"): (
        (*GENERATE, "--prompt-cache", "{new}"), (), ("--prompt-cache-ro",),
    ),
    ("perplexity", "prompt.prompt"): (
        ("perplexity", "-m", "{tiny}", "-c", "16"), ("-p", "{cat}"), ("-p", "{code_prompt}"),
    ),
    ("perplexity", "prompt.escape"): (
        ("perplexity", "-m", "{tiny}", "-c", "8", "-p", r"\n\t\n\t\n\t\n\t\n\t\n\t\n\t\n\t\n"),
        (), ("-e",),
    ),
    ("perplexity", "output.json"): (("perplexity", "-m", "{tiny}", "-f", "{text}", "-c", "64"),
                                    (), ("--json",)),
    ("tokenize", "files.model"): (("tokenize", "-p", "{cat}"), ("-m", "{tiny}"), ("-m", "{code}")),
    ("tokenize", "prompt.prompt"): (("tokenize", "-m", "{tiny}"), ("-p", "a"), ("-p", "b")),
    ("tokenize", "prompt.file"): (
        ("tokenize", "-m", "{tiny}"), ("-f", "{prompt}"), ("-f", "{text}"),
    ),
    ("tokenize", "prompt.escape"): (TOKENIZE, (), ("-e",)),
    ("tokenize", "call.parse_special"): (TOKENIZE, (), ("--no-special",)),
    ("tokenize", "prompt.chat"): (("tokenize", "-m", "{tiny}", "-p", "a"), (), ("--chat",)),
    ("tokenize", "prompt.messages"): (
        ("tokenize", "-m", "{tiny}", "-p", "{messages}", "--chat"), (), ("--messages",),
    ),
    ("tokenize", "tokenize.show_prompt"): (TOKENIZE, (), ("--show-prompt",)),
    ("tokenize", "tokenize.bos"): (TOKENIZE, (), ("--no-bos",)),
    ("tokenize", "tokenize.ids"): (TOKENIZE, (), ("--ids",)),
    ("tokenize", "output.json"): (TOKENIZE, (), ("--json",)),
    ("inspect", "files.model"): (("inspect",), ("-m", "{tiny}"), ("-m", "{code}")),
    ("inspect", "files.draft"): (INSPECT, (), ("-md", "{tinydraft}")),
    ("inspect", "Model.n_gpu_layers"): (BUDGET, (), ("-ngl", "1")),
    ("inspect", "files.n_gpu_layers_draft"): (
        (*BUDGET, "-md", "{tinydraft}"), (), ("-ngld", "0"),
    ),
    ("inspect", "Model.vram_budget"): (INSPECT, (), ("--vram-budget", "1MiB")),
    ("inspect", "Model.kv_type"): (BUDGET, (), ("--kv-type", "f32")),
    ("inspect", "inspect.n_ctx"): (INSPECT, (), ("-c", "100")),
    ("inspect", "inspect.keys"): (INSPECT, (), ("--keys",)),
    ("inspect", "inspect.tensors"): (INSPECT, (), ("--tensors",)),
    ("inspect", "inspect.chat_template"): (INSPECT, (), ("--chat-template",)),
    ("inspect", "output.json"): (INSPECT, (), ("--json",)),
    ("quantize", "Model.n_threads"): (QUANTIZE, ("-t", "1"), ("-t", "2")),
    ("quantize", "quantize.dry_run"): (QUANTIZE, (), ("--dry-run",)),
    ("quantize", "quantize.overwrite"): (
        ("quantize", "{f32}", "{old}", "q4_k_m", "--json"), (), ("--force",),
    ),
    ("quantize", "quantize.pure"): (QUANTIZE, (), ("--pure",)),
    ("quantize", "quantize.allow_requantize"): (
        ("quantize", "{tiny}", "{new}", "q4_0", "--json"), (), ("--allow-requantize",),
    ),
    ("quantize", "quantize.leave_output_tensor"): (QUANTIZE, (), ("--leave-output-tensor",)),
    ("quantize", "quantize.output_tensor_type"): (QUANTIZE, (), ("--output-tensor-type", "q5_1")),
    ("quantize", "quantize.token_embedding_type"): (
        QUANTIZE, (), ("--token-embedding-type", "q5_1"),
    ),
    ("quantize", "quantize.split_max_size"): (QUANTIZE, (), ("--split-max-size", "20K")),
    ("quantize", "quantize.split_max_tensors"): (QUANTIZE, (), ("--split-max-tensors", "5")),
    ("quantize", "output.json"): (QUANTIZE[:-1], (), ("--json",)),
    ("quantize", "output.quiet"): (QUANTIZE[:-1], (), ("-q",)),
    ("quantize", "output.verbose"): (QUANTIZE[:-1], (), ("-v",)),
}  # fmt: skip

STARTS = {
    "generate": ("generate", "-p", "{cat}", "-n", "4", "--json", *PLAIN),
    "chat": ("chat", "-n", "4", "--chat-template", "raw", *PLAIN),
    "bench": BENCH,
    "perplexity": PERPLEXITY,
}


def cases() -> dict[tuple[str, str], tuple[Any, Any, Any]]:
    found = {("generate", i): ((*GENERATE, *before), a, b)
             for i, (before, a, b) in SAMPLING.items()}  # fmt: skip
    for i, (before, a, b) in SAMPLING.items():
        found["chat", i] = (("chat", "-m", "{tiny}", "-n", "16", *PLAIN, *before), a, b)
    for i, (before, a, b) in DRAFTING.items():
        found["generate", i] = (before, a, b)
        dropped = ("--trace", "--json")
        plain = tuple(word for word in before[1:] if word not in dropped)
        at = plain.index("-p")  # a chat's message comes from standard input
        plain = ("--chat-template", "raw", *plain[:at], *plain[at + 2 :])
        found["chat", i] = (("chat", *plain, "--message", before[at + 2]), a, b)
    for i, (before, a, b) in LOADING.items():
        for command, start in STARTS.items():
            found[command, i] = ((*start, *before), a, b)
    for i, (before, a, b) in DRAFT_LOADING.items():
        for command in ("generate", "chat", "bench"):
            drafter = () if command == "bench" else ("--drafter", "model")
            models = ("-m", "{tiny}", "-md", "{tinydraft}")
            found[command, i] = ((*STARTS[command], *models, *drafter, *before), a, b)
    for i, (before, a, b) in TEMPLATES.items():
        found["generate", i] = ((*GENERATE, "--chat", *before), a, b)
        found["tokenize", i] = (
            ("tokenize", "-m", "{tiny}", "-p", "{cat}", "--chat", *before),
            a,
            b,
        )
        found["chat", i] = (("chat", "-m", "{tiny}", "-n", "9", *PLAIN, *before), a, b)
    for i, (before, a, b) in GENERATING.items():
        found["generate", i] = ((*GENERATE_TEXT, *before), a, b)
    for command in ("bench", "chat"):
        del found[command, "output.quiet"]
    return {**found, **OTHERS}


CASES = cases()


# Loads and runs 200 MB of weights in each of the formats.
SLOW = [("bench", "bench.kernels")]


@pytest.mark.parametrize(
    ("command", "option"),
    [pytest.param(*case, marks=pytest.mark.slow) if case in SLOW else case for case in CASES],
)
def test_another_value_of_a_flag_changes_something(files, command, option):
    before, a, b = CASES[command, option]
    arguments = list(before)
    stdin = "ab\nabc\n/stats\n" if command == "chat" else ""
    if "--message" in arguments:
        at = arguments.index("--message")
        message = MESSAGE if arguments[at + 1] == "{code_prompt}" else files["long"]
        message = files["cat"] if arguments[at + 1] == "{cat}" else message
        arguments[at : at + 2] = []
        stdin = f"{message}\n/stats\n"
    start = tuple(arguments)
    seen = output(files, (*start, *a), stdin)
    assert run(files, (*start, *a), stdin) == seen, "the observation itself varies"
    other = output(files, (*start, *b), stdin)
    assert other != seen, f"{a} or {b}: all the same"
    if command == "chat" and option.startswith(("SamplingParams", "call", "prompt")):
        assert other[0] == seen[0] == 0, (seen, other)


def test_every_flag_of_every_command_has_a_case():
    wanted = {
        (command, option.id)
        for option in OPTIONS
        if option.flag is not None
        for command in option.flag.commands.split()
    }
    # Need a terminal: test_accepted_drafts_are_coloured_on_a_terminal_only.
    wanted -= {(command, "output.no_color") for command in ("generate", "chat")}
    # test_cli_chat.py::test_history_can_be_elsewhere_or_nowhere
    wanted -= {("chat", "chat.history"), ("chat", "chat.no_history")}
    # test_prompt_cache.py::test_a_chat_keeps_what_comes_before_the_question
    wanted -= {("chat", "prompt.cache"), ("chat", "prompt.cache_ro")}
    # On a terminal no progress bar; here nothing.
    wanted -= {(command, "output.quiet") for command in ("bench", "chat")}
    assert set(CASES) == wanted
