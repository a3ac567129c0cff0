"""Every verifier on a real model: combs and trees through the engine's own batches and caches."""

from __future__ import annotations

import pytest

import tiny_models
from helpers import native

engine = native("engine")
VERIFIERS = ["auto", "greedy", "match", "standard", "block", "topk_importance"]
TREES = ["auto", "greedy", "match", "topk_importance"]
PROMPT = "the cat in the hat the cat in the hat the cat in the "
CASES = [(v, b) for v in VERIFIERS for b in (1, 3) if b == 1 or v in TREES]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("verifiers")
    config = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2)
    one_layer = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2, n_layers=1)
    target = tiny_models.write_tiny(folder / "target.gguf", config, dtype="Q8_0", seed=1)
    draft = tiny_models.write_tiny(folder / "draft.gguf", one_layer, seed=2)
    return [engine.load(str(path), n_threads=2) for path in (target, draft)]


def generate(target, draft, verifier, branch=1, n_ctx=256, gamma=4, draft_top_k=0, **request):
    session = engine.Session(
        target,
        draft,
        drafter="none" if draft is None else "model",
        verifier=verifier,
        draft_branch=branch,
        draft_top_k=draft_top_k,
        gamma=gamma,
        n_ctx=n_ctx,
    )
    return session.generate(**{"prompt": PROMPT, "max_tokens": 40, "seed": 5, **request})


@pytest.mark.parametrize(("verifier", "branch"), CASES)
def test_greedy_text_is_the_plain_text_with_every_verifier(models, verifier, branch):
    target, draft = models
    plain = generate(target, None, "auto")["token_ids"]
    for drafting in (draft, target):
        result = generate(target, drafting, verifier, branch)
        assert result["token_ids"] == plain
        assert result["drafted"] > 0
        assert drafting is draft or result["accepted"] > 20


@pytest.mark.parametrize("branch", [1, 3])
def test_match_gives_the_plain_text_of_the_seed(models, branch):
    target, draft = models
    plain = generate(target, None, "match", temperature=0.9)["token_ids"]
    result = generate(target, draft, "match", branch, temperature=0.9)
    assert result["token_ids"] == plain


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
@pytest.mark.parametrize("draft_top_k", [0, 100_000])
def test_a_model_that_samples_for_itself_is_always_right(models, verifier, draft_top_k):
    target, _ = models
    options = {"temperature": 0.9} if draft_top_k else {"temperature": 0.9, "top_k": 20}
    result = generate(target, target, verifier, draft_top_k=draft_top_k, **options)
    # Only if every row, law and position fits is nothing ever rejected.
    assert result["drafted"] > 20
    assert result["accepted"] + result["accepted_cut"] == result["drafted"]


@pytest.mark.parametrize(("verifier", "branch"), CASES)
def test_every_verifier_reaches_the_end_of_the_context(models, verifier, branch):
    target, draft = models
    for temperature in (0.0,) if verifier == "greedy" else (0.0, 0.9):
        result = generate(
            target, draft, verifier, branch, n_ctx=80, max_tokens=-1, temperature=temperature
        )
        if result["finish_reason"] == "length":
            assert result["n_prompt_tokens"] + len(result["token_ids"]) == 80
