"""The drafter `eagle` over toys that refuse a feature of another position, token or text."""

from __future__ import annotations

from typing import Any

import pytest

from helpers import native

m = native("decode")

TARGET = {"vocab_size": 8, "seed": 1, "n_ctx": 256}
DRAFT = {"vocab_size": 8, "seed": 2, "n_ctx": 256, "mix_seed": 1, "mix": 0.8}
HEAD = {"kind": "eagle", "toy": DRAFT}
PROMPT = [1, 2, 3, 4, 5, 6, 7, 1, 2]


def sessions(**options: Any) -> tuple[Any, Any]:
    return m.Session(TARGET, None), m.Session(TARGET, {**HEAD, **options})


def head_text(session: Any) -> list[int]:
    """Raises where a row is left that the head fed to itself."""
    text: list[int] = session.draft_cache()
    return text


@pytest.mark.parametrize("known", [[], [0, 3, 5]])
@pytest.mark.parametrize("gamma", [1, 2, 4, 7])
def test_tokens_are_those_of_plain_decoding_and_the_head_follows(
    gamma: int, known: list[int]
) -> None:
    plain, session = sessions(known=known)
    for n in (1, 2, 3, 20, 41):
        options = {"prompt": PROMPT, "max_tokens": n}
        out = session.run(**options, gamma=gamma)
        assert out["token_ids"] == plain.run(**options)["token_ids"]
        text = PROMPT + out["token_ids"]
        held = head_text(session)
        assert held == text[: len(held)]
        session.reset()
        plain.reset()
    assert out["stats"]["accepted"] > 0


def test_the_head_reads_the_rows_that_were_accepted_and_no_others() -> None:
    """One pass over those, then one row a token; the prompt before, without its last row."""
    _, session = sessions()
    out = session.run(prompt=PROMPT, max_tokens=30, gamma=3)
    passes = session.batches("draft")
    # The toy keeps the first token of the text, too.
    assert passes[0] == len(PROMPT) - 1
    new = [1] + [len(accepted) + 1 for _, accepted, _ in out["rounds"]]
    expected = []
    for (drafted, _, _), rows in zip(out["rounds"], new, strict=False):
        if drafted:
            expected += [rows] + [1] * (len(drafted) - 1)
    assert passes[1 : 1 + len(expected)] == expected


def by_position(prompt: list[int], out: dict[str, Any]) -> dict[int, list[int]]:
    """What was drafted behind so many tokens."""
    drafts, n = {}, len(prompt)
    for drafted, accepted, _ in out["rounds"]:
        if drafted:
            drafts[n] = drafted
        n += len(accepted) + 1
    return drafts


@pytest.mark.parametrize("gamma", [2, 5])
def test_a_text_that_goes_on_drafts_as_a_fresh_one(gamma: int) -> None:
    """What was rejected, and what another text said, leaves no trace in the head's cache."""
    _, session = sessions()
    first = session.run(prompt=PROMPT, max_tokens=25, gamma=gamma)["token_ids"]
    text = PROMPT + first
    for prompt in ([*text, 3, 3, 1], [*text[:20], 0, 1], text[:11], [*text[:15], 7], [6, 6]):
        out = session.run(prompt=prompt, max_tokens=12, gamma=gamma)
        fresh = m.Session(TARGET, HEAD)
        expected = fresh.run(prompt=prompt, max_tokens=12, gamma=gamma)
        assert out["token_ids"] == expected["token_ids"]
        # Where every row was read before, drafts begin one pass later.
        found, wanted = by_position(prompt, out), by_position(prompt, expected)
        assert len(found.keys() & wanted.keys()) > 0
        assert all(found[n] == wanted[n] for n in found.keys() & wanted.keys())
        assert head_text(session) == (prompt + out["token_ids"])[: len(head_text(session))]


def test_rows_that_the_target_had_read_for_others_are_read_again_where_they_are_few() -> None:
    _, session = sessions()
    out = session.run(prompt=PROMPT, max_tokens=8, speculate=False)
    text = PROMPT + out["token_ids"]
    session.batches("target")
    out = session.run(prompt=[*text, 3], max_tokens=20, gamma=3)
    assert out["stats"]["reused_prompt_tokens"] == 0
    assert out["stats"]["accepted"] > 0
    held = head_text(session)
    assert held == [*text, 3, *out["token_ids"]][: len(held)]


def test_a_long_text_that_it_has_not_followed_is_followed_from_there_on() -> None:
    _, session = sessions()
    out = session.run(prompt=PROMPT * 9, max_tokens=20, speculate=False)
    text = PROMPT * 9 + out["token_ids"]
    out = session.run(prompt=text, max_tokens=40, gamma=3)
    assert out["stats"]["reused_prompt_tokens"] == len(text) - 1
    assert out["stats"]["drafted"] > 0
    whole = text + out["token_ids"]
    held = head_text(session)
    assert held[0] == whole[len(text) - 1]
    assert held == whole[len(text) - 1 :][: len(held)]


@pytest.mark.parametrize(
    ("what", "at"), [("fail", 1), ("fail", 2), ("fail", 3), ("fail", 5), ("nan", 2), ("nan", 5)]
)
def test_a_head_that_fails_ends_drafting_and_nothing_else(what: str, at: int) -> None:
    plain, session = sessions()
    session.inject("draft", what, at)
    out = session.run(prompt=PROMPT, max_tokens=20, gamma=3)
    assert out["token_ids"] == plain.run(prompt=PROMPT, max_tokens=20)["token_ids"]
    assert out["stats"]["speculation"].startswith("off: the drafter failed")
    session.inject("draft", what, 0)
    again = session.run(prompt=[*PROMPT, *out["token_ids"], 4], max_tokens=20, gamma=3)
    assert again["stats"]["speculation"] == "on"
    assert again["stats"]["drafted"] > 0


@pytest.mark.parametrize("at", [1, 2, 4, 9])
def test_a_call_that_was_cancelled_leaves_the_head_in_line(at: int) -> None:
    plain, session = sessions()
    session.inject("target", "cancel", at)
    out = session.run(prompt=PROMPT, max_tokens=30, gamma=3)
    assert out["finish_reason"] == "cancelled"
    session.inject("target", "cancel", 0)
    out = session.run(prompt=PROMPT, max_tokens=30, gamma=3)
    assert out["token_ids"] == plain.run(prompt=PROMPT, max_tokens=30)["token_ids"]
    held = head_text(session)
    assert held == (PROMPT + out["token_ids"])[: len(held)]


@pytest.mark.parametrize("n_prompts", [1, 9])
@pytest.mark.parametrize("gamma", [1, 3, 7])
def test_a_head_without_room_begins_anew(gamma: int, n_prompts: int) -> None:
    plain = m.Session(TARGET, None)
    session = m.Session(TARGET, {**HEAD, "toy": {**DRAFT, "n_ctx": 24}})
    prompt = PROMPT * n_prompts
    out = session.run(prompt=prompt, max_tokens=90, gamma=gamma)
    assert out["token_ids"] == plain.run(prompt=prompt, max_tokens=90)["token_ids"]
    assert out["stats"]["speculation"] == "on"
    assert all(drafted for drafted, _, _ in out["rounds"][:-1])
    text = prompt + out["token_ids"]
    held = head_text(session)
    assert 0 < len(held) <= 23
    assert any(text[at : at + len(held)] == held for at in range(len(text)))


def test_requests_by_turns_get_what_they_get_alone() -> None:
    pairs = [(m.Session(TARGET, HEAD), {"prompt": PROMPT[:n], "max_tokens": 20, "gamma": 3})
             for n in (2, 5, 9)]  # fmt: skip
    together = m.Session.by_turns(pairs)
    for (_, options), tokens in zip(pairs, together, strict=True):
        assert tokens == m.Session(TARGET, None).run(
            prompt=options["prompt"], max_tokens=20
        )["token_ids"]  # fmt: skip


def test_a_head_is_needed() -> None:
    with pytest.raises(m.Error, match="drafter 'eagle' needs a head"):
        m.Session(TARGET, {"kind": "eagle"})
    with pytest.raises(m.Error, match="needs a draft model"):
        m.Session(TARGET, {"kind": "model"})
