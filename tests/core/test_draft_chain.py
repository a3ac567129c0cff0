"""Draft models that find several tokens at once: what they propose is what single steps propose."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from test_decode import run

from helpers import native

decode = native("decode")

VOCAB = 40
TEXT = [int(t) for t in np.random.default_rng(7).integers(0, VOCAB, 120)]


def session(chain_steps: int, n_ctx: int = 300, **drafter: Any) -> Any:
    toy = {"vocab_size": VOCAB, "n_ctx": n_ctx, "seed": 5, "order": 3, "chain_steps": chain_steps}
    target = {"vocab_size": VOCAB, "n_ctx": n_ctx, "seed": 4, "order": 3, "mix_seed": 5, "mix": 0.7}
    return decode.Session(
        target, {"kind": "model", "toy": {**toy, **drafter.pop("toy", {})}, **drafter}
    )


def proposals(s: Any, max_tokens: list[int], **begin: Any) -> list[Any]:
    """Of a text that goes on, now as proposed, now otherwise; and what the rule was asked."""
    s.begin(TEXT[:20], **begin)
    committed = TEXT[:20]
    found: list[Any] = []
    for i, n in enumerate(max_tokens):
        tokens, parents, _ = s.propose_tree(committed, n)
        found.append((tokens, parents, s.probabilities(), s.sibling_questions()))
        chain = [t for t, _ in itertools.groupby(tokens)][: i % 3]
        committed = [*committed, *chain, TEXT[30 + i]]
        s.align(committed)
        cached = s.draft_cache()
        first = s.n_unread()
        assert cached == committed[first : first + len(cached)]
        assert first + len(cached) < len(committed)
    return found


@pytest.mark.parametrize("chain_steps", [2, 8])
@pytest.mark.parametrize(
    "begin",
    [
        {},
        {"eog": [3, 11, 17, 30]},
        {"min_probability": 0.08},
        {"min_probability": 0.08, "trees": True, "n_siblings": 2, "eog": [3, 11]},
        {"first_window": 8},
    ],
)
def test_proposals_are_those_of_single_steps(chain_steps: int, begin: dict[str, Any]) -> None:
    lengths = [5, 1, 8, 3, 12, 7, 7, 9, 2, 15, 6, 4] * 2
    single, chained = session(1), session(chain_steps)
    expected = proposals(single, lengths, **begin)
    assert proposals(chained, lengths, **begin) == expected
    steps = chained.chains()
    assert steps
    assert max(steps) == chain_steps or "min_probability" in begin
    # Every chain saves the host a way back.
    assert len(chained.batches("draft")) < len(single.batches("draft"))


def test_without_a_rule_a_draft_is_one_chain() -> None:
    s = session(8)
    s.begin(TEXT[:20])
    assert len(s.propose(TEXT[:20], 6)) == 6
    assert (s.batches("draft"), s.chains()) == ([20], [6])
    # Rows behind what was proposed are used when the text comes that way.
    assert len(s.propose(TEXT[:20], 8)) == 8
    assert len(s.propose(TEXT[:21], 11)) == 11
    assert (s.batches("draft"), s.chains()) == ([1, 1, 1], [8, 8, 3])


def test_a_rule_that_stops_early_gets_short_chains() -> None:
    s = session(8)
    s.begin(TEXT[:20], min_probability=2.0)  # never goes on
    for i in range(6):
        assert len(s.propose(TEXT[: 20 + i], 8)) == 1
    assert s.chains() == []
    s.begin(TEXT[:20], min_probability=0.0)  # always does
    for i in range(9):
        assert len(s.propose(TEXT[: 40 + i], 8)) == 8
    assert s.chains() == [2, 3, 4, 5, 6, 7, 8, 8]
    s.begin(TEXT[:20], min_probability=2.0)
    for i in range(3):
        s.propose(TEXT[: 60 + i], 8)
    assert s.chains() == [8]  # one was too long


def test_a_token_that_is_not_the_best_ends_a_chain() -> None:
    """Of banned tokens: the chain has gone another way than the draft."""
    request: dict[str, Any] = {"prompt": TEXT[:10], "max_tokens": 40, "gamma": 6}
    request["eog"] = list(range(0, VOCAB, 3))
    bans = [(t, -np.inf) for t in range(1, VOCAB, 3)]
    for extra in (
        {},
        {"ignore_eos": True},
        {"ignore_eos": True, "sampling": {"logit_bias": bans}},
    ):
        sessions = [session(n) for n in (1, 8)]
        results = [run(s, **request, **extra) for s in sessions]
        assert results[0]["token_ids"] == results[1]["token_ids"]
        assert results[0]["rounds"] == results[1]["rounds"]
        assert sessions[1].chains()
        # What is banned is never proposed.
        drafted = {t for tokens, _, _ in results[1]["rounds"] for t in tokens}
        if extra:
            assert not drafted & set(request["eog"])
    # A bias that is no ban needs whole rows, which are not chained.
    s = session(8)
    run(s, **request, sampling={"logit_bias": [(0, -1.0)]})
    assert s.chains() == []


def test_the_context_ends_where_it_ends() -> None:
    for n_ctx in (26, 27, 30, 33):
        found = []
        for steps in (1, 8):
            s = session(steps, n_ctx=n_ctx)
            s.begin(TEXT[:20])
            found.append([s.propose(TEXT[:n], 8) for n in (20, 22, 25, n_ctx - 1, n_ctx)])
        assert found[0] == found[1]


@pytest.mark.parametrize("mode", ["sampled", "coupled"])
def test_drawn_tokens_are_not_chained(mode: str) -> None:
    s = session(8, mode=mode)
    out = run(
        s, prompt=TEXT[:10], max_tokens=20, gamma=4, sampling={"temperature": 1.0, "seed": 2},
        verifier="match" if mode == "coupled" else "standard",
    )  # fmt: skip
    assert out["stats"]["drafted"] > 0
    assert s.chains() == []


@pytest.mark.parametrize("what", ["fail", "nan"])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 9])
def test_what_goes_wrong_inside_a_chain_goes_wrong_as_in_single_steps(what: str, at: int) -> None:
    request: dict[str, Any] = {"prompt": TEXT[:10], "max_tokens": 30, "gamma": 5}
    plain = run(session(8), **request, speculate=False)["token_ids"]
    for steps in (1, 8):
        s = session(steps)
        s.inject("draft", what, at)
        out = run(s, **request)
        assert out["token_ids"] == plain
        assert out["stats"]["speculation"].startswith("off: the drafter failed")
        s.inject("draft", "fail", 0)
        again = run(s, **request)
        assert again["token_ids"] == plain
        assert again["stats"]["speculation"] == "on"


def test_a_cancelled_request_leaves_both_caches_in_line() -> None:
    s = session(8)
    s.inject("target", "cancel", 3)
    out = run(s, prompt=TEXT[:10], max_tokens=20, gamma=6)
    assert out["finish_reason"] == "cancelled"
    s.inject("target", "cancel", 0)
    again = run(s, prompt=TEXT[:10], max_tokens=20, gamma=6)
    assert again["token_ids"] == run(session(1), prompt=TEXT[:10], max_tokens=20)["token_ids"]
