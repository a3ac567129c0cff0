"""Memories of earlier texts: what is found, what is stored, what is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_decode import plain_greedy, run

from helpers import examples, native

m = native("decode")
LEVELS = (3, 5, 8, 16, 32)
LONGEST = 64


def memory(*texts: Sequence[int], **options: Any) -> Any:
    made = m.DraftMemory(**options)
    for text in texts:
        made.add(list(text))
    return made


def numbers(seed: int, n: int, vocab: int = 1000) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(0, vocab, n)]


def contains(text: Sequence[int], part: Sequence[int]) -> bool:
    return any(
        list(text[i : i + len(part)]) == list(part) for i in range(len(text) - len(part) + 1)
    )


KEYS = st.sampled_from([0, 1, 2**64 - 1])
ROOM = 1 << 16  # of a memory that forgets nothing here
PIECES = st.one_of(
    st.lists(st.integers(0, 2), max_size=12),
    st.builds(
        lambda first, n: list(range(first, first + n)), st.integers(0, 99), st.integers(1, 90)
    ),
    st.builds(lambda n, m: [n] * m, st.integers(0, 2), st.integers(1, 70)),
    st.tuples(st.integers(0, 99), st.integers(0, 300), st.integers(1, 90)),  # of an earlier text
)


class Memories(RuleBasedStateMachine):
    """A memory beside a list of its texts, in which everything is looked for."""

    @initialize(room=st.sampled_from([ROOM, ROOM, 1024]), first=st.sampled_from([1, 2**32 - 400]))
    def begin(self, room: int, first: int) -> None:
        self.room = room
        self.memory = m.DraftMemory(max_tokens=room, first_position=first)
        self.texts: list[tuple[int, list[int]]] = []  # in the order in which they came
        self.rows: dict[tuple[int, int], list[int]] = {}
        self.seen = [[1, 2, 3, 4, 5]]

    def text(self, pieces: list[Any]) -> list[int]:
        text: list[int] = []
        for piece in pieces:
            if isinstance(piece, tuple):
                which, at, n = piece
                text += self.seen[which % len(self.seen)][at:][:n]
            else:
                text += piece
        return text

    def find(self, key: int, text: list[int], least: int = 0) -> tuple[list[int], int, int] | None:
        """(a text, where what follows begins, length of the match): the last place of as many
        tokens of the end as there is a level for."""
        for level in reversed(LEVELS):
            if level < least or level > len(text):
                continue
            for owner, other in reversed(self.texts):
                for at in range(len(other) - 1, level - 1, -1) if owner == key else ():
                    if other[at - level : at] == text[-level:]:
                        n = level
                        while n < min(at, len(text), LONGEST) and other[at - 1 - n] == text[-1 - n]:
                            n += 1
                        return other, at, n
        return None

    def n_known(self, key: int, text: list[int]) -> int:
        """Tokens at the beginning that need not be stored again."""
        if len(text) <= LEVELS[-1]:
            place = self.find(key, text[:-1])
            known = place is not None and place[2] == len(text) - 1
            return len(text) if known and place[0][place[1]] == text[-1] else 0
        known = 0
        while known < len(text):
            end = max(known, LEVELS[-1])
            place = self.find(key, text[:end], LEVELS[-1])
            if place is None:
                break
            n = 0
            while end + n < len(text) and place[0][place[1] :][n : n + 1] == [text[end + n]]:
                n += 1
            if end + n == known:
                break
            known = end + n
            if n == 0:
                break
        return known

    @rule(key=KEYS, pieces=st.lists(PIECES, min_size=1, max_size=5))
    def add(self, key: int, pieces: list[Any]) -> None:
        text = self.text(pieces)
        before = self.memory.texts()
        self.memory.add(text, key=key)
        self.seen = [*self.seen, text][-8:]
        if self.room == ROOM:
            known = self.n_known(key, text) if len(text) > LEVELS[0] else len(text)
            end = text[max(0, known - LEVELS[-1]) :]
            place = self.find(key, end[:-1], LEVELS[-1]) if known < len(text) else None
            held = place is not None and place[0][: place[1] + 1][-len(end) :] == end
            if known < len(text) and not held:
                self.texts.append((key, end))
            return
        after = self.memory.texts()
        gone = [one for one in before if one not in after]
        new = [one for one in after if one not in before]
        assert len(new) <= 1
        assert not gone or sum(len(one) for _, one in [*after, gone[-1]]) > self.room
        assert all(owner == key and text[-len(one) :] == one for owner, one in new)
        self.texts = after

    @rule(key=KEYS, pieces=st.lists(PIECES, min_size=1, max_size=3), n=st.integers(0, 90))
    def look_up(self, key: int, pieces: list[Any], n: int) -> None:
        text = self.text(pieces)
        length, found = self.memory.look_up(text, n, key=key)
        if self.room < ROOM:
            assert len(found) <= n
            assert bool(found) == (length > 0)
            if found:
                stored = [other for owner, other in self.texts if owner == key]
                assert any(contains(other, [*text[-length:], found[0]]) for other in stored)
            return
        place = self.find(key, text) if n > 0 else None
        assert length == (place[2] if place else 0)
        expected: list[int] = []
        for _ in range(4):
            if place is None:
                break
            expected += place[0][place[1] :][: n - len(expected)]
            if len(expected) == n:
                break
            place = self.find(key, text[-LONGEST:] + expected, 8)
        assert found == expected

    @rule(key=KEYS, after=st.integers(0, 5), best=st.lists(st.integers(0, 9), max_size=8))
    def note_successors(self, key: int, after: int, best: list[int]) -> None:
        self.memory.add_successors(after, best, key=key)
        self.rows[key, after] = best

    @rule(key=KEYS, after=st.integers(0, 5))
    def find_successors(self, key: int, after: int) -> None:
        known, row = self.memory.successors(after, key=key)
        if known:  # another may have taken its place
            best = self.rows[key, after]
            assert row == best + [-1] * (8 - len(best))
        else:
            assert self.room < ROOM or (key, after) not in self.rows

    @rule()
    def clear(self) -> None:
        self.memory.clear()
        self.texts, self.rows = [], {}

    @invariant()
    def it_holds_what_the_list_holds(self) -> None:
        n_tokens, n_texts, *_ = self.memory.stats()
        assert n_texts == len(self.texts)
        assert n_tokens == sum(len(text) for _, text in self.texts) <= self.room
        assert sorted(self.memory.texts()) == sorted(self.texts)


TestMemories = Memories.TestCase
TestMemories.settings = settings(max_examples=examples(20), stateful_step_count=25)


def test_the_most_recent_of_two_continuations_is_found() -> None:
    head = numbers(1, 20)
    made = memory([*head, 1, 2, 3], [*numbers(2, 5), *head, 7, 8, 9])
    assert made.look_up(head, 3) == (20, [7, 8, 9])
    made.add([*head, 4, 5, 6])  # only its end is new
    assert made.look_up(head, 3)[1] == [4, 5, 6]


def test_a_text_that_is_there_is_not_stored_again() -> None:
    text = numbers(3, 500)
    made = memory(text, text, text[:300], text[:33])
    assert made.stats()[:2] == (500, 1)
    for short in ([1, 2, 3, 4], [1, 2, 3, 4, 5, 6]):
        before = made.stats()[0]
        made.add(short)
        assert made.stats()[0] == before + len(short)
        made.add(short)
        assert made.stats()[0] == before + len(short)


def test_a_conversation_that_grows_is_stored_once() -> None:
    text: list[int] = []
    made = m.DraftMemory()
    for turn in range(20):
        text += numbers(turn, 100)
        made.add(text)
    n_tokens, n_texts, *_ = made.stats()
    assert n_texts == 20
    assert n_tokens <= 20 * 132
    for at in range(40, 1990, 50):  # across the ends of turns too
        length, found = made.look_up(text[:at], 10)
        assert length >= 32
        assert found == text[at : at + 10]


def test_ends_of_a_common_beginning_are_stored_once_each() -> None:
    head = numbers(1, 200)
    ends = [numbers(seed, 60) for seed in range(2, 7)]
    made = memory(*([*head, *end] for end in ends))
    texts = made.texts()
    assert made.stats()[:2] == (200 + 60 + 4 * 92, 5)
    for end in ends * 2:
        made.add([*head, *end])
    for key, text in texts * 2:  # as they are read from a file
        made.add(text, key=key)
    assert sorted(made.texts()) == sorted(texts)
    made.add([*head, *ends[2], 7, 8, 9])
    assert made.look_up([*head, *ends[2]], 3)[1] == [7, 8, 9]


def test_the_texts_that_were_of_use_least_recently_are_forgotten() -> None:
    first, second, third = (numbers(seed, 400) for seed in (1, 2, 3))
    made = memory(first, second, max_tokens=1024)
    assert made.look_up(first[:40], 1)[0] > 0
    made.add(third)
    assert made.stats()[:2] == (800, 2)
    assert made.look_up(first[:40], 5)[1] == first[40:45]
    assert made.look_up(second[:40], 5) == (0, [])
    made.add(first)  # of use again
    made.add(numbers(4, 400))
    assert made.look_up(first[:40], 5)[1] == first[40:45]
    assert made.look_up(third[:40], 5) == (0, [])


def test_of_a_text_longer_than_the_memory_the_end_stays() -> None:
    text = numbers(5, 3000)
    made = memory(text, max_tokens=1024)
    assert made.stats()[0] == 1024
    assert made.look_up(text[2900:2950], 4)[1] == text[2950:2954]
    assert made.look_up(text[100:150], 4)[0] == 0


def test_keys_do_not_see_each_other() -> None:
    text = numbers(6, 60)
    made = m.DraftMemory()
    made.add(text, key=1)
    assert made.look_up(text[:40], 3, key=1)[1] == text[40:43]
    for key in (0, 2, 2**64 - 1):
        assert made.look_up(text[:40], 3, key=key) == (0, [])
    made.add(text, key=2)
    assert made.stats()[:2] == (120, 2)
    made.add_successors(5, [6, 7], key=1)
    assert made.successors(5, 3, key=1) == (True, [6, 7, -1])
    assert made.successors(5, 3, key=2) == (False, [-2] * 3)


def test_positions_may_run_out() -> None:
    made = m.DraftMemory(max_tokens=2048, first_position=2**32 - 1500)
    texts = [numbers(seed, 200) for seed in range(40)]
    for text in texts:
        made.add(text)
        assert made.look_up(text[:50], 3)[1] == text[50:53]
    assert made.stats()[:2] == (2000, 10)
    for text in texts[-10:]:
        assert made.look_up(text[:50], 3)[1] == text[50:53]
    for text in texts[:-10]:
        assert made.look_up(text[:50], 3)[0] == 0


def test_all_is_bounded() -> None:
    made = m.DraftMemory(max_tokens=4096)
    sizes = set()
    for seed in range(400):
        made.add(numbers(seed, 50 + seed % 200))
        made.add_successors(seed, [1, 2, 3])
        assert made.stats()[0] <= 4096
        sizes.add(made.stats()[3] // (1 << 20))
    assert max(sizes) == 0  # 4096 x 90 bytes


def test_nothing_is_found_after_clear() -> None:
    text = numbers(8, 100)
    made = memory(text)
    made.add_successors(1, [2])
    made.clear()
    assert made.stats() == (0, 0, 0, 0)
    assert made.look_up(text[:50], 3) == (0, [])
    assert not made.successors(1)[0]
    made.add(text)
    assert made.look_up(text[:50], 3)[1] == text[50:53]


@pytest.mark.parametrize("n", [0, 1023, 2**24 + 1])
def test_a_size_out_of_range_is_refused(n: int) -> None:
    with pytest.raises(m.Error, match=f"max_tokens must be 1024 to 16777216, got {n}"):
        m.DraftMemory(max_tokens=n)


def test_threads_may_share_it() -> None:
    made = m.DraftMemory(max_tokens=2048)
    texts = [numbers(seed, 300, 50) for seed in range(12)]
    wrong: list[Any] = []

    def work(first: int) -> None:
        for i in range(60):
            text = texts[(first + i) % len(texts)]
            made.add(text)
            length, found = made.look_up(text[:100], 8)
            if length > 64 or len(found) > 8 or not all(0 <= token < 50 for token in found):
                wrong.append((length, found))

    threads = [threading.Thread(target=work, args=(3 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert made.stats()[0] <= 2048


# --- in the decoding loop; enumeration and chi-square are in test_verifier_loops


TARGET = {"vocab_size": 8, "seed": 3, "n_ctx": 128}
PROMPT = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]


def drafts(texts: Sequence[Sequence[int]], **options: Any) -> Any:
    return {"kind": "memory", "texts": [list(t) for t in texts], **options}


def test_greedy_text_is_plain_whatever_the_memory_holds() -> None:
    plain = plain_greedy(m.Session(TARGET), PROMPT, 60)
    whole = [*PROMPT, *plain]
    wrong = [(token + 1) % 8 for token in whole]
    mixed = [token if i % 7 else (token + 3) % 8 for i, token in enumerate(whole)]
    accepted = []
    for texts in ([whole], [wrong], [mixed], [whole[::-1]], [numbers(1, 500, 8)], []):
        for lengths in ({}, {"gamma": 5}, {"draft_max": 2}, {"min_match": 8}):
            session = m.Session(TARGET, drafts(texts, **lengths))
            out = run(session, prompt=PROMPT, max_tokens=60)
            assert out["token_ids"] == plain
            accepted.append(out["stats"]["accepted"])
    assert accepted[0] > 45  # of the text itself


def test_what_others_used_earlier_takes_no_place_of_what_was_used_since() -> None:
    texts = [numbers(seed, 200) for seed in range(12)]
    a = memory(texts[0], texts[1], max_tokens=1024)
    time = a.leave_free()
    a.look_up(texts[1][:50], 4)
    a.add(texts[2])
    for n, text in enumerate(texts[3:9]):
        a.add_at(time + n, text)
    # The first own one went, and those of the others that came first.
    assert [text for _, text in a.texts()] == [*texts[6:9], texts[1], texts[2]]
    for text in texts[9:12]:
        a.add(text)
    a.add_at(time, texts[0])  # older than everything that fills the memory
    assert [text for _, text in a.texts()] == [*texts[1:3], *texts[9:12]]


def test_rows_of_others_are_older_too() -> None:
    a = memory(max_tokens=1024)
    a.add_successors(3, [1, 2])
    time = a.leave_free()
    a.add_successors(4, [1, 2])
    for after in (3, 4, 5):
        a.add_successors(after, [8], time=time)
    found = [a.successors(after, 2)[1] for after in (3, 4, 5)]
    assert found == [[8, -1], [1, 2], [8, -1]]
