"""The program `specdec`: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import time

import pytest

import tiny_models
from helpers import native, specdec_binary

BINARY = specdec_binary()
PROMPT = "the cat in the hat the cat in the hat the cat in the "
COMMANDS = ["generate", "chat", "inspect", "tokenize", "perplexity"]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"


def specdec(*arguments, stdin="", code=0, env=None, timeout=120):
    """Runs it; by default it must succeed. Surrogates stand for bytes that are not UTF-8."""
    done = subprocess.run(
        [BINARY, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=timeout,
        env={**os.environ, **(env or {})},
        check=False,
    )
    if code is not None:
        assert done.returncode == code, (done.returncode, done.stdout[-300:], done.stderr[-600:])
    return done


def generate_json(model, *arguments, **options):
    return json.loads(specdec("generate", "-m", model, "--json", *arguments, **options).stdout)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli")
    keys = {"tokenizer.chat_template": CHATML}
    return tiny_models.write_tiny(folder / "tiny.gguf", dtype="Q8_0", seed=1, extra=keys)


@pytest.fixture(scope="module")
def draft(tmp_path_factory):
    config = tiny_models.TinyConfig(n_layers=1)
    return tiny_models.write_tiny(tmp_path_factory.mktemp("cli") / "draft.gguf", config, seed=2)


# ---------------------------------------------------------------- help and usage


def test_help_lists_every_command():
    text = specdec("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\S", text, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_goes_to_stdout(command):
    done = specdec(command, "--help")
    assert done.stdout.startswith(f"Usage: specdec {command} ")
    assert done.stderr == ""
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert specdec(command, "-h").stdout == done.stdout


def test_generate_has_the_promised_flags():
    text = specdec("generate", "--help").stdout
    flags = """-m --model -md --model-draft -p --prompt -f --file -e --escape -n --n-predict -c
    --ctx-size -t --threads -s --seed --temp --top-k --top-p --min-p --noise-scale --repeat-penalty
    --repeat-last-n --presence-penalty --frequency-penalty --logit-bias -ngl -ngld --ignore-eos
    --device --vram-budget
    --draft-max --draft --draft-n --spec-draft-n-max --draft-min --spec-draft-n-min --gamma
    --drafter --verify --draft-temp --ngram-n --filler-top-k --kv-type -ctk --stop -r
    --reverse-prompt --chat --chat-format --system -sys --logprobs --no-color --json --quiet"""
    for flag in flags.split():
        assert re.search(rf"(^|[ ,]){flag}([ ,\n]|$)", text, re.MULTILINE), flag


def test_version():
    assert re.fullmatch(r"specdec \d+\.\d+\.\d+\S* \(\w+\)\n", specdec("--version").stdout)


XP = ["-m", "x", "-p", "a"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Usage"]),
        (["fly"], ["fly", "generate", "inspect"]),
        (["generate"], ["-m"]),
        (["generate", "-m", "x.gguf"], ["-p", "-f"]),
        (["generate", "-m", "x", "-p", "a", "-f", "b"], ["-p", "-f"]),
        (["generate", "-m"], ["-m", "value"]),
        (["generate", "--promt", "a"], ["--promt", "did you mean --prompt"]),
        (["generate", "stray"], ["stray"]),
        (["generate", "-n", "many"], ["--max-tokens", "many"]),
        (["generate", "--temp", "-1"], ["--temp", "-1"]),
        (["generate", "--temp", "nan"], ["--temp"]),
        (["generate", "--top-p", "2"], ["--top-p", "2"]),
        (["generate", "--top-p", "0"], ["--top-p must be 0 to 1, without 0, got 0"]),
        (["generate", "--min-p", "1"], ["--min-p must be 0 to 1, without 1, got 1"]),
        (["generate", "--temp", "2e6"], ["--temperature must be 0 to 1000000, got 2e6"]),
        (["generate", "--top-k", "9999999999"], ["--top-k must be 0 to 2147483647, got"]),
        (["generate", "-n", "-2"], ["--max-tokens must be 0 to 2147483647, or -1, got -2"]),
        (["generate", "-s", "18446744073709551616"], ["--seed", "2^64 - 1"]),
        (
            ["generate", *XP, "--draft-min", "3", "--draft-max", "2"],
            ["--draft-min must be at most --draft-max, 2, got 3"],
        ),
        (["generate", *XP, "--drafter", "ngram", "--draft-min", "8"], ["--draft-max, 7, got 8"]),
        (["chat", *XP[:2], "--gamma", "3", "--draft-max", "2"], ["either --gamma, or --draft-max"]),
        (["chat", *XP[:2], "--gamma", "3", "--draft-min", "2"], ["either --gamma, or --draft-max"]),
        (["generate", *XP, "--draft-quant", "q4_0"], ["--draft-quant needs a draft model: -md"]),
        (["bench", *XP[:2], "--draft-quant", "q4_0"], ["--draft-quant needs a draft model: -md"]),
        (["generate", *XP, "-ngld", "3"], ["--n-gpu-layers-draft needs a draft model: -md FILE"]),
        (["inspect", "x", "-ngld", "3"], ["--n-gpu-layers-draft needs a draft model: -md FILE"]),
        (["inspect", "x", "-m", "y"], ["FILE", "-m"]),
        (["inspect", "x", "-ngl", "1"], ["--n-gpu-layers needs --vram-budget"]),
        (["inspect", "x", "--chat-template", "--json"], ["--chat-template", "--json"]),
        (
            ["generate", *XP, "--draft-top-k", "5"],
            ["--draft-top-k is for the drafters model, eagle and mtp", "auto without -md FILE"],
        ),
        (["generate", *XP, "--drafter", "eagle"], ["--drafter eagle needs a head: -md FILE"]),
        (
            ["generate", *XP, "--drafter", "suffix", "--draft-temp", "1"],
            [
                "--draft-temp is for the drafters model, layerskip, eagle and mtp",
                "--drafter is suffix",
            ],
        ),
        (["generate", *XP, "--drafter", "suffix", "--ngram-n", "3"], ["--ngram-n is for"]),
        (["generate", *XP, "--recycling-top-k", "3"], ["drafter recycling, and --drafter is auto"]),
        (["generate", *XP, "--draft-layers", "3"], ["--draft-layers is for the drafter layerskip"]),
        (
            ["generate", *XP, "-md", "y", "--draft-top-k", "2", "--draft-branch", "3"],
            ["--draft-top-k must be at least --draft-branch, 3, got 2"],
        ),
        (
            ["generate", *XP, "-md", "y", "--draft-sampling", "greedy", "--draft-temp", "0.5"],
            ["--draft-temp has no effect on --draft-sampling greedy"],
        ),
        (["generate", "-m", "x", "-f", "y", "-e"], ["--escape is for -p, not for -f"]),
        (["generate", *XP, "--memory", ""], ["--memory is empty; expected a FILE"]),
        (["chat", "-m", "x", "--memory="], ["--memory is empty"]),
        (["generate", *XP, "--suffix-corpus", ""], ["--suffix-corpus is empty; expected a PATH"]),
        (["generate", *XP, "--model-draft", ""], ["--model-draft is empty; expected a FILE"]),
        (["generate", "--gamma", "65"], ["--gamma", "0 to 64"]),
        (["generate", "--json=yes"], ["--json"]),
        (["generate", "--drafter", "hope"], ["none", "model", "ngram", "auto", "suffix", "hope"]),
        (["generate", "--drafter", "ngram,auto"], ["several", "ngram,auto"]),
        (["generate", "--verify", "hope"], ["greedy", "match", "standard", "hope"]),
        (["generate", "--logit-bias", "5"], ["--logit-bias", "ID"]),
        (["generate", "--logit-bias", "5+x"], ["--logit-bias"]),
        (["generate", "-m", "x", "-p", "a", "--logprobs", "3"], ["--json"]),
        (["generate", "-m", "x", "-p", "a", "--drafter", "model"], ["-md"]),
        (["inspect"], ["file"]),
        (["tokenize", "-m", "x", "-p", "a", "--ids", "--json"], ["--ids"]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) and v and v[0] in COMMANDS else "",
)
def test_usage_errors_exit_2_and_say_what_is_wrong(arguments, words):
    done = specdec(*arguments, code=2)
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    assert "--help" in done.stderr


def test_values_may_follow_an_equals_sign(model):
    a = specdec("generate", "--model", model, "--prompt=x=1", "-n", "5", "--seed=3").stdout
    b = specdec("generate", "-m", model, "-p", "x=1", "-n", "5", "-s", "3").stdout
    assert a == b


# ---------------------------------------------------------------- bad files


def test_a_missing_file_exits_3(tmp_path, model):
    for command in COMMANDS:
        prompt = [] if command in ("chat", "inspect") else ["-p", "a"]
        done = specdec(command, "-m", tmp_path / "no.gguf", *prompt, code=3)
        assert "no.gguf" in done.stderr
    done = specdec("generate", "-m", model, "-f", tmp_path / "no.txt", code=3)
    assert "no.txt" in done.stderr
    done = specdec("generate", "-m", model, "-md", tmp_path / "no.gguf", "-p", "a", code=3)
    assert "no.gguf" in done.stderr


def test_unsupported_models_exit_4(tmp_path):
    rwkv = tiny_models.write_tiny(tmp_path / "rwkv.gguf", extra={"general.architecture": "rwkv9"})
    assert "rwkv9" in specdec("generate", "-m", rwkv, "-p", "a", code=4).stderr
    assert "rwkv9" in specdec("inspect", rwkv).stdout  # it can still be looked at
    other = tiny_models.write_tiny(tmp_path / "pre.gguf", extra={"tokenizer.ggml.pre": "klingon"})
    assert "klingon" in specdec("tokenize", "-m", other, "-p", "a", code=4).stderr


def test_a_draft_of_another_vocabulary_exits_4(model, tmp_path):
    tokens = tiny_models.byte_tokenizer()["tokenizer.ggml.tokens"].copy()
    tokens[70], tokens[71] = tokens[71], tokens[70]
    other = tiny_models.write_tiny(tmp_path / "other.gguf", extra={"tokenizer.ggml.tokens": tokens})
    done = specdec("generate", "-m", model, "-md", other, "-p", "a", code=4)
    assert "70" in done.stderr
    assert done.stdout == ""


def test_too_long_prompts_exit_5(model):
    done = specdec("generate", "-m", model, "-c", "16", "-p", "x" * 100, code=5)
    assert "16" in done.stderr
    assert done.stdout == ""


def test_hostile_files_are_refused_and_never_crash(tmp_path):
    """Every malformed file ends with 3, 4 or 5 in `generate`, with a message and no result."""
    from gguf_malformed_cases import FIXTURES

    codes = {"model_format": 3, "unsupported": 4, "resource": 5}
    n = 0
    for fixture in FIXTURES:
        if fixture.limits or len(content := fixture.make()) > 1 << 20:
            continue
        path = tmp_path / "hostile.gguf"
        path.write_bytes(content)
        inspected = specdec("inspect", path, "--tensors", "--keys", code=None)
        if fixture.outcome == "refuse" and fixture.step == "open":
            assert inspected.returncode == codes[fixture.code], fixture.id
            assert inspected.stdout == "", fixture.id
        else:
            assert inspected.returncode in (0, 3, 4), fixture.id
        done = specdec("generate", "-m", path, "-p", "a", code=None)
        assert done.returncode in (3, 4, 5), (fixture.id, done.returncode, done.stderr)
        assert done.stdout == ""
        assert done.stderr.startswith("specdec: error: "), fixture.id
        assert all(c == "\n" or " " <= c < "\x7f" for c in done.stderr), fixture.id
        n += 1
    assert n > 100


def test_truncated_models_exit_3(model, tmp_path):
    content = pathlib.Path(model).read_bytes()
    cut = tmp_path / "cut.gguf"
    for size in (0, 3, 24, 1000, len(content) // 2, len(content) - 1):
        cut.write_bytes(content[:size])
        done = specdec("generate", "-m", cut, "-p", "a", code=3)
        assert "cut.gguf" in done.stderr


def test_weights_that_are_not_numbers_exit_3(tmp_path):
    tensors = tiny_models.random_tensors(tiny_models.TinyConfig())
    tensors["blk.1.ffn_down.weight"][3, 5] = float("nan")
    keys = tiny_models.metadata(tiny_models.TinyConfig()) | tiny_models.byte_tokenizer()
    path = tiny_models.write_gguf(tmp_path / "nan.gguf", keys, tensors)
    done = specdec("generate", "-m", path, "-p", "a", "--check-tensors", code=3)
    assert "blk.1.ffn_down.weight" in done.stderr
    specdec("generate", "-m", path, "-p", "a", code=3)


# ---------------------------------------------------------------- generate


def test_results_go_to_stdout_and_the_rest_to_stderr(model):
    done = specdec("generate", "-m", model, "-p", PROMPT, "-n", "12")
    result = generate_json(model, "-p", PROMPT, "-n", "12")
    assert done.stdout == result["text"] + "\n"
    (line,) = done.stderr.splitlines()
    for words in ("12 tokens", "tokens/s", "ms/token", "speculation", "draft", "verify"):
        assert words in line
    assert "GB/s" not in line  # caches hold its weights
    quiet = specdec("generate", "-m", model, "-p", PROMPT, "-n", "12", "--quiet")
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")


def test_of_weights_that_no_cache_holds_the_share_of_the_memory_s_speed_is_told(tmp_path):
    config = tiny_models.TinyConfig(n_layers=1, intermediate_size=46_080)
    path = tiny_models.write_tiny(tmp_path / "large.gguf", config, dtype="F32", seed=1)
    assert path.stat().st_size > 33 << 20
    done = specdec("generate", "-m", path, "-p", "ab", "-n", "3", "--ignore-eos")
    assert re.search(r"\d+ % of \d+\.\d GB/s", done.stderr), done.stderr


def test_json_is_one_object_with_every_key(model, draft):
    # Named, because `auto` need not draft on a machine that is busy.
    options = ("-md", draft, "--drafter", "model", "--logprobs", "2")
    result = generate_json(model, *options, "-p", PROMPT, "-n", "20")
    assert {
        "model", "draft_model", "prompt", "seed", "text", "token_ids", "from_draft",
        "finish_reason", "logprobs", "stats",
    } <= result.keys()  # fmt: skip
    stats = result["stats"]
    assert {
        "tokens_per_second", "decode_ms", "prompt_ms", "total_ms", "load_ms", "rounds",
        "plain_steps", "drafted", "accepted", "accepted_per_position", "acceptance_rate",
        "mean_acceptance_length", "draft_ms", "verify_ms", "sample_ms", "speculation",
        "candidate_positions", "candidate_acceptance", "in_set",
        "prompt_tokens", "reused_prompt_tokens",
    } <= stats.keys()  # fmt: skip
    assert result["prompt"] == PROMPT
    assert result["finish_reason"] == "length"
    assert len(result["token_ids"]) == 20 == stats["emitted"]
    assert stats["emitted"] == (
        stats["accepted"] + stats["rounds"] + stats["plain_steps"] - stats["cut"]
    )
    assert sum(stats["accepted_per_position"]) == stats["accepted"] == sum(result["from_draft"])
    assert stats["speculation"] == "on"
    assert [entry["id"] for entry in result["logprobs"]] == result["token_ids"]
    assert all(len(entry["top"]) == 2 for entry in result["logprobs"])


def test_json_is_valid_whatever_the_model_says(model):
    for seed in range(3):
        out = specdec(
            "generate", "-m", model, "-p", 'q"\\\n\x01\x7f', "-n", "60", "--json",
            "--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-s", seed,
        ).stdout  # fmt: skip
        assert not re.search("[\udc80-\udcff]", out)  # the bytes themselves are UTF-8
        assert out.count("\n") == 1
        result = json.loads(out)
        assert "\ufffd" in result["text"]
        assert (result["seed"], result["prompt"]) == (seed, 'q"\\\n\x01\x7f')
        assert result["draft_model"] is None


def test_an_empty_result_has_null_rates(model):
    stats = generate_json(model, "-p", "a", "-n", "0")["stats"]
    assert stats["tokens_per_second"] is None
    assert stats["acceptance_rate"] is None
    assert stats["mean_acceptance_length"] is None


@pytest.mark.parametrize("sampling", [[], ["--temp", "0.8", "--seed", "7", "--verify", "match"]])
def test_every_drafter_gives_the_plain_tokens(model, draft, sampling):
    def tokens(*arguments):
        return generate_json(model, "-p", PROMPT, "-n", "48", *sampling, *arguments)["token_ids"]

    plain = tokens("--drafter", "none")
    assert len(plain) == 48
    assert tokens() == plain
    for draft_max in (1, 3, 8):
        assert tokens("--drafter", "ngram", "--draft-max", draft_max) == plain
        assert tokens("-md", draft, "--drafter", "model", "--draft-max", draft_max) == plain
    assert tokens("-md", draft, "--spec-draft-n-max", "2", "--draft-min", "1") == plain
    assert tokens("--drafter", "none", "--draft-max", "2", "--draft-top-k", "3") == plain
    assert tokens("-md", draft, "--gamma", "5") == plain


def test_draft_options_reach_the_drafter(model, draft):
    def stats(*arguments):
        return generate_json(model, "-md", draft, "-p", PROMPT, "-n", "30", *arguments)["stats"]

    assert len(stats("--gamma", "6")["accepted_per_position"]) == 6
    fixed = stats("--drafter", "model", "--draft-max", "2")
    assert len(fixed["accepted_per_position"]) == 2
    assert len(stats("--draft-max", "2")["accepted_per_position"]) <= 2
    none = stats("--drafter", "none")
    assert (none["rounds"], none["plain_steps"]) == (0, 30)
    assert none["speculation"].startswith("off")


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance", "match"])
@pytest.mark.parametrize("drafter", ["model", "layerskip"])
def test_sampled_drafts_at_temperature_zero_are_the_best_tokens(model, draft, drafter, verifier):
    done = generate_json(
        *(model, "-md", draft, "-p", PROMPT, "-n", "20", "--temp", "0", "--drafter", drafter),
        *("--draft-sampling", "sampled", "--verify", verifier),
    )
    plain = generate_json(model, "-p", PROMPT, "-n", "20", "--temp", "0", "--drafter", "none")
    assert done["token_ids"] == plain["token_ids"]
    assert done["stats"]["drafted"] > 10


def test_a_draft_model_that_is_not_used_is_mentioned(model, draft):
    arguments = ["generate", "-m", model, "-md", draft, "-p", "a", "-n", "1", "--drafter", "none"]
    assert "-md" in specdec(*arguments).stderr
    assert specdec(*arguments, "--quiet").stderr == ""


def test_seeds_make_a_run_repeatable(model):
    def run(*arguments):
        return specdec("generate", "-m", model, "-p", "a", "-n", "20", "--temp", "1", *arguments)

    first = run()
    seeds = {re.findall(r"seed (\d+)$", run().stderr, re.MULTILINE)[0] for _ in range(3)}
    assert len(seeds) > 1
    (seed,) = re.findall(r"^specdec: seed (\d+)$", first.stderr, re.MULTILINE)
    assert run("-s", seed).stdout == first.stdout
    assert run("-s", int(seed) + 1).stdout != first.stdout


def test_prompts_from_files_lose_one_final_newline(model, tmp_path):
    path = tmp_path / "prompt.txt"

    def prompt(content):
        path.write_bytes(content)
        return generate_json(model, "-f", path, "-n", "1")["prompt"]

    assert prompt(b"a b") == "a b"
    assert prompt(b"a b\n") == "a b"
    assert prompt(b"a b\n\n") == "a b\n"
    assert prompt(b"a b\r\n") == "a b"
    assert generate_json(model, "-f", "-", "-n", "1", stdin="from a pipe\n")["prompt"] == (
        "from a pipe"
    )
    assert prompt("\u2603".encode()) == "\u2603"


def test_escapes_are_understood_on_request(model):
    text = r"a\n\t\\\"\x41\q\xZ"
    assert generate_json(model, "-p", text, "-n", "1")["prompt"] == text
    assert generate_json(model, "-e", "-p", text, "-n", "1")["prompt"] == 'a\n\t\\"A\\q\\xZ'


def test_logit_bias_bans_and_forces(model):
    def ids(*biases):
        flags = [flag for bias in biases for flag in ("--logit-bias", bias)]
        return generate_json(model, "-p", "a", "-n", "4", *flags)["token_ids"]

    assert ids("72+100") == [72] * 4
    assert 72 not in ids("72+100", "72-inf")
    assert ids("72-100", "73+100") == [73] * 4


def test_stop_strings_end_the_text(model):
    force = ["--logit-bias", "72+100"]
    result = generate_json(model, "-p", "a", "-n", "9", *force, "--stop", "never", "-r", "HHH")
    assert result["text"] == ""
    assert (result["finish_reason"], result["stop_reason"]) == ("stop", "HHH")


def test_end_of_sequence_and_ignore_eos(model):
    end = ["--logit-bias", "271+1000"]
    result = generate_json(model, "-p", "a", "-n", "9", *end)
    assert (result["finish_reason"], result["token_ids"]) == ("stop", [])
    result = generate_json(model, "-p", "a", "-n", "9", *end, "--ignore-eos")
    assert (result["finish_reason"], len(result["token_ids"])) == ("length", 9)


def test_no_gpu_layers_and_auto_run_everywhere(model):
    for layers in ("0", "auto"):
        done = specdec("generate", "-m", model, "-p", "a", "-n", "1", "-ngl", layers, "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
    done = specdec("generate", "-m", model, "-p", "a", "-ngl", "-2", code=2)
    assert "-ngl" in done.stderr
    done = specdec("generate", "-m", model, "-p", "a", "--vram-budget", "4 apples", code=2)
    assert "--vram-budget" in done.stderr


def test_a_build_without_cuda_says_how_to_get_one(model):
    _, reason = native("engine").cuda_devices()
    if reason != "this build has no CUDA":
        pytest.skip("this build has CUDA: tests/kernels/test_cuda_build.py")
    for flags in (["-ngl", "2"], ["--device", "cuda"]):
        done = specdec("generate", "-m", model, "-p", "a", "-n", "1", *flags, code=4)
        assert "SPECDEC_CUDA=ON" in done.stderr
        assert "cpu" in done.stderr


def test_inspect_tells_the_plan_for_a_budget(model):
    text = specdec("inspect", model, "--vram-budget", "1GiB").stdout
    assert "and the head on the GPU" in text
    assert "in the budget" in text
    text = specdec("inspect", model, "--vram-budget", "1KiB").stdout
    assert "layers on the CPU" in text
    assert "on a GPU" not in specdec("inspect", model).stdout
    found = json.loads(specdec("inspect", model, "--json", "--vram-budget", "1GiB").stdout)
    assert len(found["placement"]) == 2


def test_chat_formats_wrap_the_prompt(model):
    plain = generate_json(model, "-p", "hi", "-n", "1")["n_prompt_tokens"]
    chat = generate_json(model, "--chat", "-p", "hi", "-n", "1")
    assert chat["n_prompt_tokens"] > plain
    assert chat["prompt"] == "hi"
    # A named format is not the file's own template.
    named = generate_json(model, "--chat-template", "chatml", "-p", "hi", "-n", "1")
    assert named["n_prompt_tokens"] > chat["n_prompt_tokens"]
    system = generate_json(model, "--chat", "-sys", "Be brief.", "-p", "hi", "-n", "1")
    assert system["n_prompt_tokens"] > chat["n_prompt_tokens"]
    raw = generate_json(model, "--chat-format", "raw", "-p", "hi", "-n", "1")
    assert raw["n_prompt_tokens"] == plain


def test_a_model_without_a_template_needs_a_format(draft):
    done = specdec("generate", "-m", draft, "--chat", "-p", "hi", code=4)
    assert "--chat-template" in done.stderr
    done = specdec("chat", "-m", draft, code=4)
    assert "--chat-template" in done.stderr
    done = specdec("chat", "-m", draft, "--chat-template", "morse", code=2)
    assert "chatml" in done.stderr
    assert "morse" in done.stderr


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
def test_every_instruction_set_gives_the_same_tokens(model, isa):
    env = {"SPECDEC_CPU_ISA": isa}
    if specdec("--version", env=env, code=None).returncode == 2:
        pytest.skip(f"this machine cannot run {isa}")
    assert isa in specdec("--version", env=env).stdout
    arguments = ["-p", PROMPT, "-n", "24"]
    assert (
        generate_json(model, *arguments, env=env)["token_ids"]
        == (generate_json(model, *arguments)["token_ids"])
    )


# ---------------------------------------------------------------- terminals and interrupts


def on_terminal(*arguments, env=None):
    """Runs with stdout and stderr on a pseudo-terminal; returns what was printed."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [BINARY, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave,
        env={**os.environ, "TERM": "xterm", **(env or {})},
    )  # fmt: skip
    os.close(slave)
    out = b""
    try:
        while True:
            ready, _, _ = select.select([master], [], [], 120)
            assert ready, "no output and no end"
            try:
                piece = os.read(master, 65536)
            except OSError:  # the other side is closed
                break
            if not piece:
                break
            out += piece
    finally:
        process.wait(120)
        os.close(master)
    assert process.returncode == 0, out
    return out.decode(errors="replace")


def test_accepted_drafts_are_coloured_on_a_terminal_only(model):
    arguments = ["generate", "-m", model, "-md", model, "--drafter", "model", "-p", PROMPT]
    arguments += ["-n", "20"]
    green = "\x1b[32m"
    environment = {"NO_COLOR": ""}
    assert green in on_terminal(*arguments, env=environment)
    assert "\x1b[" not in on_terminal(*arguments, "--no-color", env=environment)
    assert "\x1b[" not in on_terminal(*arguments, env={"NO_COLOR": "1"})
    assert "\x1b[" not in on_terminal(*arguments, env={**environment, "TERM": "dumb"})
    assert "\x1b[" not in specdec(*arguments, env=environment).stdout
    assert green not in on_terminal(*arguments, "--drafter", "none", env=environment)


def interrupt(model, *arguments, after):
    """Starts a long generation, sends SIGINT once `after` bytes came, returns it and its end."""
    process = subprocess.Popen(
        [BINARY, "generate", "-m", str(model), *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    head = process.stdout.read(after)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, head + out, err


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    config = tiny_models.TinyConfig(context_length=1 << 16)
    return tiny_models.write_tiny(tmp_path_factory.mktemp("cli") / "endless.gguf", config, seed=1)


@pytest.mark.parametrize("drafter", ["none", "ngram"])
def test_ctrl_c_prints_what_there_is_and_exits_130(endless, drafter):
    arguments = ["-p", PROMPT, "--ignore-eos", "-c", 1 << 16, "--drafter", drafter]
    code, out, err = interrupt(endless, *arguments, after=64)
    assert code == 130
    assert out.endswith(b"\n")
    assert b"tokens/s" in err


def test_ctrl_c_with_json_gives_a_cancelled_result(endless):
    process = subprocess.Popen(
        [BINARY, "generate", "-m", endless, "-p", PROMPT, "--ignore-eos", "-c", str(1 << 16),
         "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    if out:  # else it was still loading
        assert json.loads(out)["finish_reason"] == "cancelled"
    else:
        assert b"interrupted" in err


def test_a_closed_pipe_ends_the_program(endless):
    process = subprocess.Popen(
        [BINARY, "generate", "-m", endless, "-p", PROMPT, "--ignore-eos", "-c", str(1 << 16)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    process.stdout.read(8)
    process.stdout.close()
    assert process.wait(60) != 0


# ---------------------------------------------------------------- chat


def test_chat_answers_every_line_of_a_pipe(model):
    arguments = ["chat", "-m", model, "-n", "6", "--temp", "0"]
    done = specdec(*arguments, stdin="hello\n\nand now\n")
    assert done.stdout.count("\n") >= 2
    one = specdec(*arguments, stdin="hello")  # no newline at the end
    assert done.stdout.startswith(one.stdout)
    again = specdec(*arguments, stdin="hello\n/reset\nand now\n")
    alone = specdec(*arguments, stdin="and now\n")
    assert again.stdout == one.stdout + alone.stdout


def test_chat_commands(model):
    done = specdec("chat", "-m", model, "-n", "4", stdin="/stats\nhi\n/stats\n/what\n/exit\nno\n")
    assert "nothing was generated" in done.stderr
    assert "tokens/s" in done.stderr
    assert "/what" in done.stderr
    assert done.stderr.count("tokens/s") == 1


def test_chat_does_not_read_again_what_was_said(model):
    lines = "hello there\ntell me more\n/stats\n"
    done = specdec("chat", "-m", model, "-n", "8", "--temp", "0", stdin=lines)
    (known,) = re.findall(r"\((\d+) known\)", done.stderr)
    assert int(known) > 15


def test_a_full_chat_says_so_and_goes_on(model):
    lines = "x" * 60 + "\n" + "y" * 60 + "\n/reset\nhi\n"
    done = specdec("chat", "-m", model, "-c", "128", "-n", "8", "--temp", "0", stdin=lines)
    assert "the context of 128 tokens is full" in done.stderr
    alone = specdec("chat", "-m", model, "-c", "128", "-n", "8", "--temp", "0", stdin="hi\n")
    assert done.stdout.endswith(alone.stdout)


# ---------------------------------------------------------------- inspect, tokenize, perplexity


def test_inspect_tells_the_memory_of_a_pair(model, draft):
    found = json.loads(specdec("inspect", model, "-md", draft, "-c", "100", "--json").stdout)
    for part in (found["memory"], found["draft_memory"]):
        assert part["n_ctx"] == 100
        assert part["total_bytes"] == part["weights_bytes"] + 100 * part["cache_bytes_per_token"]
    assert found["memory"]["cache_bytes_per_token"] > found["draft_memory"]["cache_bytes_per_token"]
    text = specdec("inspect", model, "-md", draft).stdout
    assert "together" in text
    assert "F16 cache for 4096 tokens" in text


def test_inspect_shows_the_model(model):
    text = specdec("inspect", model).stdout
    for words in ("tiny", "llama", "Q8_0", "272", "gpt2"):
        assert words in text
    assert "blk.0.attn_q.weight" in specdec("inspect", model, "--tensors").stdout
    assert "llama.rope.freq_base" in specdec("inspect", "-m", model, "--keys").stdout
    assert specdec("inspect", model, "--chat-template").stdout == CHATML + "\n"


def test_inspect_json_holds_metadata_and_tensors(model):
    info = json.loads(specdec("inspect", model, "--json", "--tensors").stdout)
    assert info["architecture"] == "llama"
    assert info["metadata"]["llama.block_count"] == 2
    assert info["metadata"]["tokenizer.ggml.tokens"]["count"] == 272
    assert info["metadata"]["tokenizer.ggml.add_bos_token"] is False
    assert info["n_params"] == sum(_product(tensor["shape"]) for tensor in info["tensors"])
    assert info["size_bytes"] == pathlib.Path(model).stat().st_size
    assert info["chat_template"] == CHATML


def _product(shape):
    n = 1
    for size in shape:
        n *= size
    return n


def test_inspect_reads_no_weights(tmp_path):
    """A model of 40 GB, all of it a hole, is shown at once."""
    import gguf_fixtures as fx

    n = 20_000_000_000 // 256 * 256
    head = fx.build([fx.ARCH], [fx.Tensor("token_embd.weight", (256, n // 256), "F16", data=b"")])
    path = tmp_path / "hole.gguf"
    path.write_bytes(head)
    os.truncate(path, len(head) + 2 * n)
    assert "40.0 GB" in specdec("inspect", path).stdout


def test_tokenize_shows_ids_and_texts(model):
    arguments = ["tokenize", "-m", model]
    assert specdec(*arguments, "-p", "hi", "--ids").stdout == "104 105\n"
    lines = specdec(*arguments, "-p", 'a"\n').stdout.splitlines()
    assert [line.split(maxsplit=1)[1] for line in lines] == ['"a"', '"\\""', '"\\n"']
    end = "<|endoftext|>"
    assert specdec(*arguments, "-p", end, "--ids").stdout == "271\n"
    assert len(specdec(*arguments, "-p", end, "--ids", "--no-special").stdout.split()) == len(end)
    result = json.loads(specdec(*arguments, "-p", "\u2603", "--json").stdout)
    assert result["n_tokens"] == 3 == len(result["token_ids"]) == len(result["tokens"])
    assert specdec(*arguments, "-f", "-", "--ids", stdin="hi\n").stdout == "104 105\n"
    assert specdec(*arguments, "-p", "", "--ids").stdout == "\n"


def test_tokenize_adds_bos_as_the_file_says(tmp_path):
    keys = {"tokenizer.ggml.add_bos_token": True}
    path = tiny_models.write_tiny(tmp_path / "bos.gguf", extra=keys)
    assert specdec("tokenize", "-m", path, "-p", "hi", "--ids").stdout == "271 104 105\n"
    assert specdec("tokenize", "-m", path, "-p", "hi", "--ids", "--no-bos").stdout == "104 105\n"
    assert generate_json(path, "-p", "hi", "-n", "1")["n_prompt_tokens"] == 3


def test_perplexity_scores_windows(model, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(PROMPT * 20)
    arguments = ["perplexity", "-m", model, "-f", path, "-c", "64"]
    result = json.loads(specdec(*arguments, "--chunks", "3", "--json").stdout)
    assert (result["chunks"], result["n_tokens_scored"]) == (3, 3 * 31)
    assert result["perplexity"] > 1
    assert result["tokens_per_second"] > 0
    done = specdec(*arguments, "--chunks", "3")
    assert f"perplexity {result['perplexity']:.4f}" in done.stdout
    assert specdec(*arguments[:-1], "5000", code=2).stderr  # more than the model's context
    path.write_text("short")
    assert "64" in specdec(*arguments, code=2).stderr
