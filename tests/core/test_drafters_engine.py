"""Every drafter on whole models: the plain text, real drafts, caches as if nothing had happened."""

from __future__ import annotations

from typing import Any

import pytest

import tiny_models
from helpers import model_path, native

engine = native("engine")

CONFIGS = {
    "llama": tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2, n_layers=4),
    "qwen35": tiny_models.TinyConfig(
        arch="qwen35", head_dim=32, n_heads=2, n_kv_heads=2, n_layers=4, n_rot=8
    ),
}
PROMPT = "the cat in the hat the cat in the hat the cat in the "
# The bytes that a random model writes with this bias repeat soon.
LETTERS = [(token, 6.0) for token in (32, 97, 98, 99, 100, 101, 116, 104)]

DRAFTERS: list[dict[str, Any]] = [
    {"drafter": "ngram"},
    {"drafter": "suffix"},
    {"drafter": "suffix", "suffix_min_match": 1, "suffix_corpus": "in the hat the cat"},
    {"drafter": "recycling"},
    {"drafter": "recycling", "recycling_tree": False},
    {"drafter": "model"},
    {"drafter": "layerskip"},
    {"drafter": "layerskip", "draft_layers": 3},
]


def name_of(options: dict[str, Any]) -> str:
    return "-".join(str(v) for v in options.values())


@pytest.fixture(scope="module", params=list(CONFIGS))
def paths(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drafters")
    one_layer = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2, n_layers=1)
    return {
        "target": tiny_models.write_tiny(
            folder / "target.gguf", CONFIGS[request.param], dtype="Q8_0", seed=1
        ),
        "draft": tiny_models.write_tiny(folder / "draft.gguf", one_layer, seed=2),
    }


@pytest.fixture(scope="module")
def target(paths):
    return engine.load(str(paths["target"]), n_threads=1)


@pytest.fixture(scope="module")
def draft(paths):
    """The target with coarser weights: often right, not always."""
    return engine.load(str(paths["target"]), n_threads=1, requantize="q4_0")


def session(target, draft=None, **options):
    given = draft if options.get("drafter") == "model" else None
    return engine.Session(target, given, **{"n_ctx": 512, **options})


@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_greedy_text_is_the_plain_text_and_drafts_are_used(target, draft, options):
    request = {"prompt": PROMPT, "max_tokens": 120, "ignore_eos": True}
    plain = session(target, drafter="none").generate(**request)
    accepted = 0
    for length in (1, 3, 8):
        result = session(target, draft, gamma=length, **options).generate(**request)
        assert result["token_ids"] == plain["token_ids"]
        assert result["text"] == plain["text"]
        assert result["speculation"] == "on"
        assert result["drafted"] > 10
        assert result["accepted"] == sum(result["from_draft"])
        accepted += result["accepted"]
    assert accepted > 5


@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_one_seed_gives_one_text(target, draft, options):
    request = {"prompt": PROMPT, "max_tokens": 60, "temperature": 0.8, "seed": 11}
    plain = session(target, drafter="none").generate(**request)
    result = session(target, draft, **options).generate(**request)
    assert result["token_ids"] == plain["token_ids"]


@pytest.mark.parametrize("kv_type", ["f32", "q8_0"])
@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_after_rollbacks_the_cache_is_that_of_a_fresh_prefill(target, draft, options, kv_type):
    """Bitwise: log-probabilities of a continuation depend on every entry of the cache."""
    options = {**options, "kv_type": kv_type, "draft_sampling": "greedy"}
    first = {"prompt": PROMPT, "max_tokens": 50, "logit_bias": LETTERS}
    first |= {"temperature": 1.5, "seed": 2}
    used = session(target, draft, gamma=3, **options)
    result = used.generate(**first)
    assert result["accepted"] < result["drafted"]  # there was something to roll back
    text = target.encode([(PROMPT, True)]) + result["token_ids"]
    assert used.cached_tokens() == text[:-1]
    then = {"prompt_ids": text, "max_tokens": 6, "n_logprobs": 5}
    again = used.generate(**then)
    assert again["n_reused_tokens"] == len(text) - 1
    fresh = session(target, drafter="none", kv_type=kv_type).generate(**then)
    assert fresh["n_reused_tokens"] == 0
    assert again["logprobs"] == fresh["logprobs"]


@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_forks_go_on_alike(target, draft, options):
    whole = session(target, draft, **options)
    first = whole.generate(prompt=PROMPT, max_tokens=20, logit_bias=LETTERS)
    fork = whole.fork()
    then = {
        "prompt_ids": target.encode([(PROMPT, True)]) + first["token_ids"],
        "max_tokens": 30,
        "logit_bias": LETTERS,
    }
    assert fork.generate(**then)["token_ids"] == whole.generate(**then)["token_ids"]


@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_the_context_can_be_filled_to_its_end(target, draft, options):
    request = {"prompt": PROMPT, "ignore_eos": True}
    plain = session(target, drafter="none", n_ctx=90).generate(**request)
    result = session(target, draft, **{**options, "n_ctx": 90, "gamma": 6}).generate(**request)
    assert result["token_ids"] == plain["token_ids"]
    assert result["n_prompt_tokens"] + len(result["token_ids"]) == 90


@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_a_cancelled_call_leaves_a_cache_that_can_be_used(target, draft, options):
    options = {**options, "gamma": 4}
    used = session(target, draft, **options)
    polls = iter([False] * 12 + [True] * 1000)
    request = {"prompt": PROMPT, "max_tokens": 60, "ignore_eos": True}
    cut = used.generate(**request, should_cancel=lambda: next(polls))
    assert cut["finish_reason"] == "cancelled"
    text = target.encode([(PROMPT, True)]) + cut["token_ids"]
    assert used.cached_tokens() == text[: len(used.cached_tokens())]
    whole = session(target, drafter="none").generate(**request, n_logprobs=2)
    again = used.generate(**request, n_logprobs=2)
    assert again["logprobs"] == whole["logprobs"]


def test_a_requantised_draft_is_smaller_and_the_text_the_same(paths, target):
    whole = engine.load(str(paths["draft"]), n_threads=1)
    itself = engine.load(str(paths["target"]), n_threads=1, requantize="q4_0")
    small = engine.load(str(paths["draft"]), n_threads=1, requantize="q4_0")
    assert small.bytes_per_step < 0.3 * whole.bytes_per_step  # F32 before
    request = {"prompt": PROMPT, "max_tokens": 60, "logit_bias": LETTERS}
    plain = session(target, drafter="none").generate(**request)
    for model in (small, itself):
        result = engine.Session(target, model, drafter="model", gamma=3, n_ctx=512)
        result = result.generate(**request)
        assert result["token_ids"] == plain["token_ids"]
    # The target in Q4_0 still mostly agrees with itself in Q8_0.
    assert result["accepted"] > 0.2 * result["drafted"]
    with pytest.raises(engine.Error, match="requantize must be one of q4_0"):
        engine.load(str(paths["draft"]), requantize="q3_k")


# ---------------------------------------------------------------- real models

STARTS = (
    'def {}(items):\n    """Returns',
    "A short story about {} begins like this:",
    "Question: what is {}?\nAnswer:",
    "| {} | price | stock |\n|---|---|---|\n|",
    "import {}\n\nclass Reader:\n    def __init__(self",
)
TOPICS = ("sorting", "rivers", "json", "a bakery", "music", "winter", "numbers", "trains")
PROMPTS = [start.format(topic) for start in STARTS for topic in TOPICS]  # 40
LENGTHS = (1, 3, 8)


def count_unequal(target, draft, options, prompts, max_tokens) -> tuple[int, int, int]:
    """Texts that differ from plain decoding; drafted and accepted tokens of all."""
    unequal = drafted = accepted = 0
    for prompt in prompts:
        request = {"prompt": prompt, "max_tokens": max_tokens, "ignore_eos": True}
        plain = session(target, drafter="none").generate(**request)
        for length in LENGTHS:
            result = session(target, draft, gamma=length, **options).generate(**request)
            unequal += result["token_ids"] != plain["token_ids"]
            drafted += result["drafted"]
            accepted += result["accepted"]
    return unequal, drafted, accepted


@pytest.mark.slow
@pytest.mark.parametrize("options", [o for o in DRAFTERS if o["drafter"] != "model"], ids=name_of)
def test_smollm2_writes_the_plain_text(options):
    model = engine.load(str(model_path("SmolLM2-135M-Instruct.Q4_1.gguf")))
    unequal, drafted, accepted = count_unequal(model, None, options, PROMPTS, 64)
    print(f"{name_of(options)}: {accepted} of {drafted} accepted, {unequal} texts differ")
    assert unequal == 0
    # Its first layers alone say little.
    assert accepted > (0 if options["drafter"] == "layerskip" else 400)


@pytest.mark.slow
@pytest.mark.parametrize("requantize", ["", "q4_0"])
@pytest.mark.parametrize("options", DRAFTERS, ids=name_of)
def test_the_qwen_pair_writes_the_plain_text(options, requantize):
    if requantize and options["drafter"] != "model":
        pytest.skip("needs no draft model")
    name = "qwen2.5-coder-{}-instruct-q4_k_m.gguf"
    target = engine.load(str(model_path(name.format("1.5b"))))
    draft = None
    if options["drafter"] == "model":
        draft = engine.load(str(model_path(name.format("0.5b"))), requantize=requantize)
    unequal, drafted, accepted = count_unequal(target, draft, options, PROMPTS[::4], 48)
    print(f"{name_of(options)}: {accepted} of {drafted} accepted, {unequal} texts differ")
    assert unequal == 0
    if options["drafter"] == "model":
        assert accepted > 0.3 * drafted > 0


# The part of it that every run does.
def test_smollm2_writes_the_plain_text_in_short():
    model = engine.load(str(model_path("SmolLM2-135M-Instruct.Q4_1.gguf")), n_threads=1)
    for i, drafter in enumerate(("ngram", "suffix", "recycling", "ngram,suffix,recycling")):
        request = {"prompt": PROMPTS[8 * i], "max_tokens": 48, "ignore_eos": True}
        plain = session(model, drafter="none").generate(**request)
        result = session(model, drafter=drafter).generate(**request)
        assert result["token_ids"] == plain["token_ids"]
