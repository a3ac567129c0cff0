"""Verifiers and combs through the public Python API."""

from __future__ import annotations

import warnings

import pytest

sd = pytest.importorskip("specdec_native")

import tiny_models  # noqa: E402

PROMPT = "the cat in the hat the cat in the hat the cat in the "


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    config = tiny_models.TinyConfig(head_dim=32, n_heads=2, n_kv_heads=2)
    path = tiny_models.write_tiny(
        tmp_path_factory.mktemp("verifier_api") / "model.gguf", config, dtype="Q8_0", seed=1
    )
    with sd.Model(path) as opened:
        yield opened


def decoder(model, verifier, **options):
    drafter = sd.DraftModel(model, gamma=3, **options)
    return sd.Decoder(model, drafter=drafter, verifier=verifier, n_ctx=256)


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
def test_every_verifier_is_offered_and_keeps_greedy_text(model, verifier):
    plain = sd.Decoder(model, n_ctx=256).generate(PROMPT, max_tokens=30)
    result = decoder(model, verifier).generate(PROMPT, max_tokens=30)
    assert result.token_ids == plain.token_ids
    assert result.stats.accepted > 15


def test_combs_report_candidates(model):
    sampled = decoder(model, "topk_importance", draft_top_k=8, branch=3)
    stats = sampled.generate(PROMPT, max_tokens=30, temperature=1.0, seed=2).stats
    assert stats.drafted_per_position[0] == 3 * stats.rounds
    assert 0 < stats.in_set < 1
    assert 0 < stats.candidate_acceptance <= 1
    assert stats.candidate_positions > 0
    plain = decoder(model, "standard").generate(PROMPT, max_tokens=5).stats
    assert plain.in_set is plain.candidate_acceptance is None
    assert plain.candidate_positions == 0


def test_the_lossy_verifier_warns_and_says_so(model):
    with pytest.warns(UserWarning, match="not lossless"):
        lossy = decoder(model, "topk_importance_published", draft_top_k=8)
    assert "not lossless" in lossy.generate(PROMPT, max_tokens=5).stats.note
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exact = decoder(model, "topk_importance")
    assert exact.generate(PROMPT, max_tokens=5).stats.note == ""


def test_comb_options_are_checked(model):
    for options, message in [
        ({"branch": 0}, "branch must be"),
        ({"branch": 17}, "branch must be"),
        ({"draft_top_k": 0}, "draft_top_k must be"),
        ({"branch": 4, "draft_top_k": 3}, "draft_top_k must be"),
        ({"sampling": "greedy", "temperature": 0.5}, "no effect on greedy drafts"),
    ]:
        with pytest.raises(sd.InvalidArgumentError, match=message):
            sd.DraftModel(model, **options)
    with pytest.raises(sd.InvalidArgumentError, match="no effect on greedy drafts"):
        sd.LayerSkip(sampling="greedy", temperature=0.5)
    sd.DraftModel(model, sampling="greedy", temperature=0.0)
    with pytest.raises(sd.InvalidArgumentError, match="takes trees"):
        decoder(model, "standard", branch=2).generate(PROMPT, max_tokens=5)
