"""Drafts that a grammar cuts."""

from __future__ import annotations

import pytest

from rule_grammar import PROMPT, N, Rule, constrained

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

SET_VERIFIERS = ["topk_importance", "topk_importance_published"]


@pytest.mark.parametrize("verifier", SET_VERIFIERS)
def test_chosen_drafts_with_distributions_are_cut_whole(tiny, tiny_draft, verifier):
    """The best candidates carry what the draft model thought of them."""
    plain = constrained(tiny)
    fast = constrained(tiny, drafter=sd.DraftModel(tiny_draft, gamma=6), verifier=verifier)
    assert fast.token_ids == plain.token_ids
    assert fast.stats.drafted > 0
    for seed in range(4):
        drafter = sd.DraftModel(tiny_draft, sampling="greedy", gamma=6)
        drawn = constrained(tiny, drafter=drafter, verifier=verifier, temperature=1.2, seed=seed)
        rule = Rule(tiny.info.vocab_size, tiny._native.eog_ids())
        assert rule.try_consume_tokens(list(drawn.token_ids)) == N
        assert drawn.stats.drafted > 0
