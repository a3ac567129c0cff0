"""Drafts that the target takes unseen: what is proposed, and what becomes of the other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_decode import check_caches, run
from test_draft_chain import TEXT, VOCAB

from helpers import native

decode = native("decode")


def session(follows: bool, n_ctx: int = 300, **drafter: Any) -> Any:
    toy = {"vocab_size": VOCAB, "n_ctx": n_ctx, "seed": 5, "order": 3, "chain_steps": 8}
    target = {
        "vocab_size": VOCAB, "n_ctx": n_ctx, "seed": 4, "order": 3, "mix_seed": 5, "mix": 0.7,
        "follows": follows,
    }  # fmt: skip
    return decode.Session(
        target, {"kind": "model", "toy": {**toy, **drafter.pop("toy", {})}, **drafter}
    )


def both(request: dict[str, Any], **drafter: Any) -> tuple[dict[str, Any], Any]:
    """The result of a target that follows, which is that of one that waits for the draft."""
    waiting, ahead = session(False, **drafter), session(True, **drafter)
    expected, found = run(waiting, **request), run(ahead, **request)
    for key in ("token_ids", "from_draft", "finish_reason", "rounds", "logprobs", "stop_token"):
        assert found[key] == expected[key], key
    for key, value in expected["stats"].items():
        assert key.endswith(("_ms", "_per_second")) or found["stats"][key] == value, key
    assert waiting.followed() == []
    check_caches(ahead, request["prompt"], found)
    assert ahead.draft_cache() == waiting.draft_cache()
    return found, ahead


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"gamma": 1},
        {"gamma": 8},
        {"n_logprobs": 2},
        {"eog": [3, 11, 17, 30]},
        {"draft_min": 3},
        {"sampling": {"temperature": 0.9, "seed": 3}, "verifier": "match"},
        {"sampling": {"temperature": 0.9, "seed": 3}, "verifier": "standard"},
        {"sampling": {"temperature": 0.9, "seed": 4, "top_k": 5}, "verifier": "block"},
        {"sampling": {"repetition_penalty": 1.3}},
    ],
)
def test_rounds_are_those_of_a_target_that_waits(request_: dict[str, Any]) -> None:
    request: dict[str, Any] = {"prompt": TEXT[:20], "max_tokens": 60, "gamma": 5, **request_}
    found, ahead = both(request, mode="greedy")
    followed = ahead.followed()
    if "repetition_penalty" in request.get("sampling", {}):
        assert followed == []  # every token needs the ones before
        return
    # Every pass but those with nothing left to draft.
    assert len(followed) >= found["stats"]["rounds"] > 0
    n_fed = [rows - 1 for rows, _ in followed]
    assert max(n_fed) == request["gamma"]
    assert sum(used - 1 for _, used in followed) == found["stats"]["drafted"]


def test_what_is_proposed_ends_with_the_text() -> None:
    found, ahead = both({"prompt": TEXT[:20], "max_tokens": 80, "gamma": 6, "eog": [3, 11, 17, 30]})
    cut = [(rows, used) for rows, used in ahead.followed() if used < rows]
    assert cut
    assert found["finish_reason"] in ("stop", "length")


def test_longer_drafts_than_a_chain_wait() -> None:
    _, ahead = both({"prompt": TEXT[:20], "max_tokens": 40, "gamma": 9})
    # But for those cut short by the end of the request.
    assert all(rows - 1 <= 8 for rows, _ in ahead.followed())
    assert len(ahead.followed()) <= 1


def test_drawn_tokens_are_not_taken_unseen() -> None:
    for mode, verifier in (("sampled", "standard"), ("coupled", "match")):
        request = {
            "prompt": TEXT[:20], "max_tokens": 40, "gamma": 4, "verifier": verifier,
            "sampling": {"temperature": 1.0, "seed": 2},
        }  # fmt: skip
        assert both(request, mode=mode)[1].followed() == []


@pytest.mark.parametrize("eog", [[3, 11], list(range(0, VOCAB, 3))])
def test_banned_tokens_end_a_draft_and_are_never_proposed(eog: list[int]) -> None:
    request: dict[str, Any] = {
        "prompt": TEXT[:10], "max_tokens": 60, "gamma": 6, "ignore_eos": True, "eog": eog,
    }  # fmt: skip
    plain = run(session(True), **request, speculate=False)["token_ids"]
    s = session(True)
    found = run(s, **request)
    assert found["token_ids"] == plain
    assert not {t for tokens, _, _ in found["rounds"] for t in tokens} & set(eog)
    followed = s.followed()
    assert any(used < rows for rows, used in followed)
    # The draft behind one that met a ban is watched, and goes round it.
    assert len(followed) < found["stats"]["rounds"]
    check_caches(s, request["prompt"], found)


@pytest.mark.parametrize("n_ctx", [26, 27, 30, 33])
def test_the_context_ends_where_it_ends(n_ctx: int) -> None:
    found, ahead = both({"prompt": TEXT[:20], "gamma": 8}, n_ctx=n_ctx)
    assert len(found["token_ids"]) == n_ctx - 20
    assert ahead.followed()


def test_a_draft_with_a_shorter_context_ends_where_it_ends() -> None:
    for n_ctx in (30, 33):
        both({"prompt": TEXT[:20], "max_tokens": 40, "gamma": 6}, toy={"n_ctx": n_ctx})


@pytest.mark.parametrize("what", ["fail", "nan"])
@pytest.mark.parametrize("at", [1, 2, 3, 5, 9])
def test_a_draft_that_fails_ends_speculation_and_nothing_else(what: str, at: int) -> None:
    request: dict[str, Any] = {"prompt": TEXT[:10], "max_tokens": 30, "gamma": 5}
    plain = run(session(True), **request, speculate=False)["token_ids"]
    s = session(True)
    s.inject("draft", what, at)
    out = run(s, **request)
    assert out["token_ids"] == plain
    check_caches(s, request["prompt"], out)
    # A failure inside a chain cuts it; it comes again, or not, at the head of the next one.
    if at == 1:
        assert out["stats"]["speculation"].startswith("off: the drafter failed")
        assert out["stats"]["drafted"] == 0
    s.inject("draft", "fail", 0)
    again = run(s, **request)
    assert again["token_ids"] == plain
    assert again["stats"]["speculation"] == "on"


@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_target_that_fails_behind_a_draft_leaves_both_caches_in_line(at: int) -> None:
    request: dict[str, Any] = {"prompt": TEXT[:10], "max_tokens": 30, "gamma": 5}
    plain = run(session(True), **request, speculate=False)["token_ids"]
    s = session(True)
    s.inject("target", "fail", at)
    with pytest.raises(Exception, match="toy failure"):
        s.run(**request)
    s.inject("target", "fail", 0)
    cached = s.target_cache()
    assert cached == (TEXT[:10] + plain)[: len(cached)]
    draft = s.draft_cache()
    assert draft == (TEXT[:10] + plain)[: len(draft)]
    assert len(draft) <= len(cached)
    out = run(s, **request)
    assert out["token_ids"] == plain
    assert s.followed()


@pytest.mark.parametrize("at", [2, 3, 5])
def test_rows_that_nobody_uses_may_be_anything(at: int) -> None:
    """Not finite rows of the target matter where they are used, as without a draft."""
    request: dict[str, Any] = {"prompt": TEXT[:10], "max_tokens": 30, "gamma": 5}
    s = session(True)
    s.inject("target", "nan", at)
    with pytest.raises(Exception, match="finite"):
        s.run(**request)
    s.inject("target", "nan", 0)
    assert run(s, **request)["token_ids"] == run(session(False), **request)["token_ids"]


def test_a_cancelled_request_leaves_both_caches_in_line() -> None:
    request: dict[str, Any] = {"prompt": TEXT[:10], "max_tokens": 40, "gamma": 6}
    plain = run(session(False), **request)["token_ids"]
    for at in (2, 3, 4):
        s = session(True)
        s.inject("target", "cancel", at)
        out = run(s, **request)
        assert out["finish_reason"] == "cancelled"
        assert out["token_ids"] == plain[: len(out["token_ids"])]
        check_caches(s, request["prompt"], out)
        s.inject("target", "cancel", 0)
        assert run(s, **request)["token_ids"] == plain


# ---------------------------------------------------------------- under a rule


def ahead(s: Any, n_committed: int, max_tokens: int) -> tuple[int, bool]:
    """Length of a draft, and whether the target could take it unseen."""
    tokens, _, planned = s.propose_ahead(TEXT[:n_committed], max_tokens)
    return len(tokens), planned


def test_the_length_a_rule_wants_is_learnt() -> None:
    s = session(True)
    s.begin(TEXT[:20], min_probability=0.0)  # always goes on
    assert ahead(s, 20, 4) == (4, False)  # nothing is known yet
    assert ahead(s, 21, 8) == (4, True)  # it wanted more ...
    assert [ahead(s, 22 + i, 8) for i in range(3)] == [(6, True), (8, True), (8, True)]
    # More than a chain: it gets them, with more waits.
    assert ahead(s, 25, 12) == (8, True)
    assert ahead(s, 26, 12) == (12, False)
    assert ahead(s, 27, 12) == (12, False)
    s.begin(TEXT[:20], min_probability=2.0)  # never goes on
    assert ahead(s, 40, 12) == (1, False)
    lengths = []
    for i in range(5):
        s.chains()
        assert ahead(s, 41 + i, 12) == (1, True)
        lengths += s.chains()
    assert lengths == [5, 3, 2, 1, 1]


def test_the_rule_is_asked_as_by_single_steps() -> None:
    waiting, s = session(False), session(True)
    for drafting in (waiting, s):
        drafting.begin(TEXT[:20], min_probability=0.06)
    for i in range(30):
        expected, _, _ = waiting.propose_tree(TEXT[: 20 + i], 8)
        found, _, planned = s.propose_ahead(TEXT[: 20 + i], 8)
        # The same draft, but for its end where the guess was too short.
        assert found == expected[: len(found)]
        assert len(found) == len(expected) or planned
        assert s.probabilities() == waiting.probabilities()[: len(s.probabilities())]
        waiting.begin(TEXT[:20], min_probability=0.06)
        s.begin(TEXT[:20], min_probability=0.06)
    assert s.followed()


def test_second_choices_stand_beside_the_chain() -> None:
    s = session(True)
    s.begin(TEXT[:20], min_probability=0.0, trees=True, n_siblings=1)
    s.propose_ahead(TEXT[:20], 3)
    tokens, parents, planned = s.propose_ahead(TEXT[:21], 3)
    assert planned
    assert parents == [-1, -1, 0, 0, 2, 2]
    for at in (0, 2, 4):
        logits = np.array(s.logits("draft", TEXT[:21] + [tokens[i] for i in range(0, at, 2)]))
        assert list(np.argsort(-logits, kind="stable")[:2]) == tokens[at : at + 2]
    depths = [n for n, _, _, _ in s.sibling_questions()]
    assert depths[-3:] == [1, 2, 3]
    conditional = [c for *_, c in s.sibling_questions()]
    assert all(0 < c <= 1 for c in conditional)
