"""Drafters that need no model: suffix automaton and token recycling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode import LOOPING, TARGET, plain_greedy, run

from helpers import examples, native

m = native("decode")


# --- suffix automaton ---


def longest_earlier_suffix(text: Sequence[int]) -> tuple[int, int]:
    """Length of the longest suffix that occurred before, and where its last occurrence ended."""
    n = len(text)
    best = (0, 0)
    for end in range(1, n):  # an occurrence that ends before `end`
        length = 0
        while length < end and text[end - 1 - length] == text[n - 1 - length]:
            length += 1
        if length >= best[0] and length > 0:
            best = (length, end)
    return best


def suffix_draft(text: Sequence[int], limit: int, min_match: int) -> tuple[list[int], int]:
    length, at = longest_earlier_suffix(text)
    if length < min_match:
        return [], 0
    grown = list(text)
    for i in range(min(limit, 2 * length - 1)):
        grown.append(grown[at + i])
    return grown[len(text) :], length


def suffix(target: dict[str, Any] | None = None, **options: Any) -> Any:
    return m.Session(target or {"vocab_size": 64}, {"kind": "suffix", **options})


@given(
    vocab=st.sampled_from([1, 2, 3, 8]),
    min_match=st.sampled_from([1, 2, 4]),
    text=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    # Tokens, repetitions of several lengths, and how many are asked for.
    rounds=st.lists(
        st.tuples(
            st.lists(st.integers(0, 7), min_size=1, max_size=3),
            st.integers(0, 3),
            st.integers(1, 15),
        ),
        max_size=40,
    ),
)
@settings(max_examples=examples(40))
def test_suffix_drafts_follow_the_most_recent_longest_match(
    vocab: int, min_match: int, text: list[int], rounds: list[tuple[list[int], int, int]]
) -> None:
    session = suffix(min_match=min_match)
    text = [token % vocab for token in text]
    session.begin(text)
    for tokens, n_copied, limit in rounds:
        draft, _, strength = session.propose_tree(text, limit)
        assert (draft, strength) == suffix_draft(text, limit, min_match)
        copied = text[-5:][:n_copied]
        new = [*copied, *(token % vocab for token in tokens)]
        text = [*text, *new]
        session.commit(text, len(new))


def test_suffix_drafts_grow_with_the_match_and_go_round_in_circles() -> None:
    session = suffix(min_match=2)
    session.begin([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
    text = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 3]
    assert session.propose(text, 64) == []  # one token is not enough
    assert session.propose([*text, 4], 64) == [5, 6, 7]
    assert session.propose([*text, 4, 5], 64) == [6, 7, 8, 9, 10]
    assert session.propose([*text, 4, 5, 6], 64) == [7, 8, 9, 10, 11, 12, 3]
    assert session.propose([*text, 4, 5, 6, 7, 8, 9], 9) == [10, 11, 12, 3, 4, 5, 6, 7, 8]
    session.begin([1, 2] * 4)
    assert session.propose([1, 2] * 4, 64) == ([1, 2] * 6)[:11]
    fixed = suffix(min_match=2, gamma=20)  # whatever is expected of it
    fixed.begin([1, 2, 3, 4])
    assert fixed.propose([1, 2, 3, 4, 1, 2], 20) == [3, 4, 1, 2] * 5


def test_suffix_drafts_end_with_an_end_of_sequence_token() -> None:
    session = suffix()
    text = [1, 2, 3, 4, 5, 6, 1, 2, 3]
    session.begin(text, [5])
    assert session.propose(text, 8) == [4, 5]


def test_suffix_drafts_stay_inside_the_vocabulary() -> None:
    session = suffix({"vocab_size": 8})
    session.begin([1, 2, 3, 9, 4, 1, 2, 3])
    assert session.propose([1, 2, 3, 9, 4, 1, 2, 3], 8) == []


def test_a_static_text_is_used_when_it_matches_longer() -> None:
    corpus = [9, 1, 2, 3, 4, 5, 1, 2, 3, 6, 7]
    session = suffix(corpus=corpus)
    session.begin([1, 2, 8])
    assert session.propose([1, 2, 8, 1, 2], 1) == [8]  # a tie goes to the text at hand
    assert session.propose([1, 2, 8, 1, 2, 3], 8) == [6, 7]  # the corpus: its last place
    assert session.propose([1, 2, 8, 1, 2, 3, 4], 8) == [5, 1, 2, 3, 6, 7]
    assert session.propose([1, 2, 8, 1, 2, 3, 4, 50], 8) == []
    session.begin([2, 3])
    assert session.propose([2, 3], 8) == [6, 7]  # a new request has the static text still
    session.reset()
    session.begin([2, 3])
    assert session.propose([2, 3], 8) == [6, 7]


@given(
    corpus=st.lists(st.integers(0, 2), min_size=1, max_size=120),
    texts=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=8),
)
def test_a_static_text_gives_the_last_place_of_every_match(
    corpus: list[int], texts: list[list[int]]
) -> None:
    session = suffix(corpus=corpus, min_match=1)
    for text in texts:
        session.begin(text)
        best = (0, 0)
        for end in range(1, len(corpus) + 1):
            n = 0
            while n < min(end, len(text)) and corpus[end - 1 - n] == text[len(text) - 1 - n]:
                n += 1
            if n >= best[0]:
                best = (n, end)
        own, _ = longest_earlier_suffix(text)
        if best[0] > own:
            assert session.propose(text, 1) == corpus[best[1] : best[1] + 1]


def test_suffix_forgets_between_requests_unless_asked_to_keep() -> None:
    for keep, want in ((False, []), (True, [3, 4, 5])):
        session = suffix(keep_store=keep)
        session.begin([1, 2, 3, 4, 5])
        session.begin([7, 1, 2])
        assert session.propose([7, 1, 2], 8) == want
        session.reset()
        session.begin([7, 1, 2])
        assert session.propose([7, 1, 2], 8) == []


def test_no_match_reaches_from_one_request_into_another() -> None:
    session = suffix(keep_store=True)
    session.begin([1, 2])
    session.begin([3, 4])
    session.begin([9, 1, 2])
    assert session.propose([9, 1, 2], 8) == []


def test_a_conversation_that_goes_on_is_not_stored_twice() -> None:
    session = suffix(keep_store=True)
    session.begin([1, 2, 3])
    session.commit([1, 2, 3, 4], 1)
    session.begin([1, 2, 3, 4, 9])
    # Were it stored twice, all of it would match.
    _, _, strength = session.propose_tree([1, 2, 3, 4, 9], 4)
    assert strength == 0


def test_a_full_store_keeps_the_newer_half() -> None:
    rng = np.random.default_rng(1)
    text = rng.permutation(3000).tolist()  # no repetition
    session = suffix({"vocab_size": 3000}, max_store=1024)
    session.begin(text)
    assert session.propose([*text, *text[-10:-8]], 3) == text[-8:-5]
    assert session.propose([*text, *text[-10:-8], *text[:2]], 3) == []
    session = suffix({"vocab_size": 3000}, max_store=1024, keep_store=True)
    for i in range(30):
        session.begin(text[100 * i : 100 * i + 100])
    session.begin([0, *text[2800:2802]])
    assert session.propose([0, *text[2800:2802]], 3) == text[2802:2805]


def test_long_texts_of_every_kind_are_indexed() -> None:
    # With quadratic work anywhere this would take minutes.
    rng = np.random.default_rng(1)
    for text in ([7] * 100_000, ([1, 2, 3] * 40_000)[:100_000], rng.integers(0, 9, 100_000)):
        ids = list(map(int, text))
        session = suffix()
        session.begin(ids)
        assert session.propose([*ids, *ids[-50:]], 1)


@pytest.mark.parametrize(("option", "bad"), [("min_match", 0), ("min_match", 65), ("max_store", 5)])
def test_suffix_options_are_named_with_their_range(option: str, bad: int) -> None:
    with pytest.raises(m.Error, match=f"invalid_argument: suffix {option} must be in"):
        suffix(**{option: bad})


@pytest.mark.parametrize("gamma", [None, 1, 3, 8])
@pytest.mark.parametrize("options", [{}, {"min_match": 1}, {"corpus": [0, 1, 2, 3] * 8}])
def test_suffix_text_is_the_plain_text(options: dict[str, Any], gamma: int | None) -> None:
    for target in (TARGET, LOOPING):
        session = m.Session(target, {"kind": "suffix", **options})
        want = plain_greedy(session, [3, 2, 1, 0], 60)
        out = run(session, prompt=[3, 2, 1, 0], max_tokens=60, gamma=gamma)
        assert out["token_ids"] == want
        if target is LOOPING:
            assert out["stats"]["accepted"] > 15


# --- token recycling ---


def recycling(target: dict[str, Any] | None = None, **options: Any) -> Any:
    return m.Session(target or {"vocab_size": 64}, {"kind": "recycling", **options})


def test_recycling_starts_with_what_followed_in_the_prompt() -> None:
    session = recycling()
    session.begin([1, 2, 1, 3, 4])
    assert session.propose([1, 2, 1], 1) == [3]  # the most recent follower
    assert session.propose([1, 2, 1], 9) == [3, 4]
    assert session.propose([9], 9) == []


def test_recycling_chains_the_targets_best_tokens() -> None:
    session = recycling()
    session.begin([1])
    session.commit([1, 2, 3], 2, [[2, 5], [3, 6]])
    assert session.propose([1], 9) == [2, 3]
    assert session.propose([1], 1) == [2]
    # The next time a token comes up its successors are replaced.
    session.commit([1, 2, 3, 1, 7], 2, [[1, 9], [7, 2]])
    assert session.propose([1], 1) == [7]
    assert session.propose([2], 2) == [3, 1]


def test_recycling_learns_from_rejected_rows_too() -> None:
    session = recycling()
    session.begin([1])
    session.commit([1, 2], 1, [[2, 3]], [1, 40, 41], [[2, 3], [41, 9], [42, 8]])
    assert session.propose([40], 9) == [41, 42]


def test_recycling_builds_a_tree_of_the_likeliest_paths() -> None:
    session = recycling()
    session.begin([1], [], True)
    session.commit([1, 2], 1, [[2, 3, 4]], [1, 2, 3], [[2, 3, 4], [5, 6], [7, 8]])
    tokens, parents, _ = session.propose_tree([1], 6)
    paths = []
    for i, parent in enumerate(parents):
        assert -1 <= parent < i
        paths.append([*(paths[parent] if parent >= 0 else []), tokens[i]])
    assert len(paths) == 6
    assert paths[0] == [2]
    assert [2, 5] in paths
    assert [3] in paths
    assert len({tuple(p) for p in paths}) == 6  # no path twice
    # The same where only chains are taken.
    session.begin([1], [], False)
    session.commit([1, 2], 1, [[2, 3, 4]], [1, 2, 3], [[2, 3, 4], [5, 6], [7, 8]])
    assert session.propose_tree([1], 9)[:2] == ([2, 5], [])


def test_recycling_trees_widen_where_the_second_best_is_right() -> None:
    def children_of_the_root(right: int) -> int:
        session = recycling()
        session.begin([0], [], True)
        text = [0]
        for _ in range(200):
            text += [[2, 3, 4][right], 0]
            session.commit(text, 2, [[2, 3, 4], [0, 1]])
        return session.propose_tree([0], 15)[1].count(-1)

    assert children_of_the_root(1) > children_of_the_root(0)


def test_a_recycled_draft_ends_with_an_end_of_sequence_token() -> None:
    session = recycling()
    session.begin([1, 2, 3, 4], [3])
    assert session.propose([1], 9) == [2, 3]


def test_recycling_forgets_between_requests_unless_asked_to_keep() -> None:
    for keep, want in ((False, []), (True, [2, 3])):
        session = recycling(keep_store=keep)
        session.begin([1, 2, 3])
        session.begin([9])
        assert session.propose([1], 9) == want
        session.reset()
        session.begin([9])
        assert session.propose([1], 9) == []


@pytest.mark.parametrize(("option", "bad"), [("successors", 0), ("successors", 33)])
def test_recycling_options_are_named_with_their_range(option: str, bad: int) -> None:
    name = "top_k" if option == "successors" else option
    with pytest.raises(m.Error, match=f"invalid_argument: recycling {name} must be in"):
        recycling(**{option: bad})


@pytest.mark.parametrize("gamma", [None, 1, 3, 8])
@pytest.mark.parametrize("verifier", ["auto", "match", "standard"])
def test_recycled_text_is_the_plain_text(verifier: str, gamma: int | None) -> None:
    for target in (TARGET, {**LOOPING, "order": 1, "vocab_size": 8}):
        session = m.Session(target, {"kind": "recycling"})
        want = plain_greedy(session, [3, 2, 1, 0], 60)
        out = run(session, prompt=[3, 2, 1, 0], max_tokens=60, gamma=gamma, verifier=verifier)
        assert out["token_ids"] == want
        if target is not TARGET:
            assert out["stats"]["accepted"] > 20


@pytest.mark.parametrize("verifier", ["match", "auto"])
def test_recycled_trees_find_more_than_chains(verifier: str) -> None:
    target = {**LOOPING, "order": 1, "vocab_size": 8, "scale": 1.5}
    accepted = {}
    for tree in (True, False):
        found = []
        for seed in range(8):
            session = m.Session(target, {"kind": "recycling", "tree": tree, "keep_store": True})
            out = run(
                session,
                prompt=[3, 2, 1, 0],
                max_tokens=100,
                verifier=verifier,
                sampling={"temperature": 0.7, "seed": seed},
            )
            found.append(out["stats"]["accepted"])
        accepted[tree] = sum(found)
    assert accepted[True] > accepted[False] > 0
