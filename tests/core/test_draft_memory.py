"""Memories of earlier texts: what is found, what is stored, what is forgotten."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from test_decode import plain_greedy, run

from helpers import native

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


def longest_match(stored: Sequence[Sequence[int]], text: Sequence[int]) -> int:
    """Of an end of `text` that something follows in a stored text."""
    best = 0
    for other in stored:
        for end in range(1, len(other)):
            n = 0
            while n < min(end, len(text), LONGEST) and other[end - 1 - n] == text[-1 - n]:
                n += 1
            best = max(best, n)
    return best


def contains(text: Sequence[int], part: Sequence[int]) -> bool:
    return any(
        list(text[i : i + len(part)]) == list(part) for i in range(len(text) - len(part) + 1)
    )


@pytest.mark.parametrize("vocab", [2, 4, 30])
def test_what_is_found_followed_the_longest_known_end(vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    for case in range(12):
        made = m.DraftMemory()
        for i in range(4):
            made.add(numbers(100 * case + i, int(rng.integers(4, 90)), vocab))
        stored = [text for _, text in made.texts()]
        for _ in range(30):
            text = numbers(int(rng.integers(1 << 30)), int(rng.integers(1, 40)), vocab)
            if rng.random() < 0.7:
                other = stored[int(rng.integers(len(stored)))]
                end = int(rng.integers(1, len(other)))
                text += other[max(0, end - int(rng.integers(1, 50))) : end]
            length, found = made.look_up(text, 6)
            longest = longest_match(stored, text)
            level = max((n for n in LEVELS if n <= longest), default=0)
            assert level <= length <= longest
            assert (level == 0) == (length == 0)
            assert len(found) <= 6
            assert bool(found) == (length > 0)
            if length:
                assert any(contains(other, [*text[-length:], found[0]]) for other in stored)


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
