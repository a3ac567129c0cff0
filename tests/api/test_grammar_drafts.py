"""Drafts that a grammar cuts, and rows of a pass that no token may come from."""

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


@pytest.fixture
def guided():
    pytest.importorskip("llguidance", reason="llguidance is not installed")


@pytest.mark.parametrize("drafter", [None, "ngram", "suffix", "model", "auto"])
@pytest.mark.parametrize("verifier", ["auto", "match", "standard", "block", "topk_importance"])
def test_a_stop_ends_a_text_before_what_is_banned_behind_it(
    guided, tiny, tiny_draft, drafter, verifier
):
    """Behind the last token of a draft only the end of the text is allowed, and that is banned."""
    grammar = sd.Grammar.gbnf('root ::= "yes."')
    draft = tiny_draft if drafter in ("model", "auto") else None
    options = {"grammar": grammar, "max_tokens": 20, "ignore_eos": True}
    for temperature in (0.0, 1.0):
        sampling = {"temperature": temperature, "seed": 3}
        with sd.Decoder(
            tiny, drafter=drafter, draft=draft, verifier=verifier, n_ctx=128
        ) as decoder:
            result = decoder.generate(PROMPT, stop=["."], logprobs=1, **options, **sampling)
            assert (result.text, result.finish_reason) == ("yes", "stop")
            with pytest.raises(sd.InvalidArgumentError, match="are banned, by ignore_eos"):
                decoder.generate(PROMPT, **options, **sampling)
            # What failed leaves nothing behind.
            again = decoder.generate(PROMPT, stop=["."], **options, **sampling)
            assert again.token_ids == result.token_ids
