"""Caches of texts that are over, found by the beginning of another text."""

from __future__ import annotations

import random

import pytest

from helpers import native

kv = native("kv")

SHAPE = ("f16", 1, 1, 4)


def cache_of(arena, tokens, **shape):
    """Each position holds its token."""
    cache = kv.Cache(arena, *SHAPE, 4096, **shape)
    for first in range(0, len(tokens), 100):
        piece = tokens[first : first + 100]
        cache.reserve(len(piece))
        cache.write_rows(piece)
        cache.advance(len(piece))
        cache.forget()
    return cache


def common(a, b):
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


def test_a_text_finds_the_cache_that_has_most_of_it():
    """Against a list of all texts that are kept."""
    rng = random.Random(3)
    arena, tree, kept = kv.Arena(), kv.PrefixTree(), []
    for _ in range(400):
        # Few tokens, so that texts have much in common.
        text = [rng.randrange(2) for _ in range(rng.randrange(1, 12))]
        if kept and rng.random() < 0.5:
            text = rng.choice(kept)[: rng.randrange(1, 12)] + text
        action = rng.random()
        if action < 0.5:
            if not any(common(text, old) == len(text) for old in kept):
                kept = [old for old in kept if common(text, old) < len(old)] + [text]
            tree.insert(text, cache_of(arena, text))
        elif action < 0.6 and kept:
            assert tree.evict()
            # Who it was shows in what is found no more.
            gone = [old for old in kept if (tree.find(old) or (0,))[0] < len(old)]
            assert len(gone) == 1
            kept.remove(gone[0])
        best = max((common(text, old) for old in kept), default=0)
        found = tree.find(text)
        if best == 0:
            assert found is None
        else:
            length, cache = found
            assert length == best == cache.length()
            assert cache.read(0, length) == text[:length]
        assert tree.size() == len(kept)


def test_what_was_used_longest_ago_goes_first():
    arena, tree = kv.Arena(), kv.PrefixTree()
    texts = [[n, n + 1, n + 2] for n in (10, 20, 30)]
    for text in texts:
        tree.insert(text, cache_of(arena, text))
    assert tree.find([10, 11, 5])[0] == 2
    assert tree.evict()
    assert tree.find(texts[1]) is None
    assert tree.evict()
    assert tree.find(texts[2]) is None
    assert tree.find(texts[0])[0] == 3
    assert tree.evict()
    assert not tree.evict()
    assert arena.stats()["n_used_pages"] == 0


def test_pages_are_shared_and_given_back():
    arena, tree = kv.Arena(), kv.PrefixTree()
    text = [n % 1000 for n in range(600)]
    tree.insert(text, cache_of(arena, text))
    assert arena.stats()["n_used_pages"] == 3
    length, cache = tree.find([*text[:520], 7])
    assert length == 520
    assert arena.stats()["n_used_pages"] == 4, "two whole pages are shared"
    tree.evict()
    assert arena.stats()["n_used_pages"] == 3
    assert cache.read(0, 520) == text[:520]
    del cache
    assert arena.stats()["n_used_pages"] == 0


@pytest.mark.parametrize("insert_first", ["short", "long"])
def test_caches_with_windows_are_found_where_they_can_be_gone_back_to(insert_first):
    """What has forgotten its beginning serves those who go on from its end; a shorter one that has
    not is kept beside it."""
    arena, tree = kv.Arena(), kv.PrefixTree()
    text = [n % 1000 for n in range(1500)]
    lengths = [300, 1500] if insert_first == "short" else [1500, 300]
    for n in lengths:
        tree.insert(text[:n], cache_of(arena, text[:n], windowed=[True], window=40))
    assert tree.size() == 2
    assert tree.find([*text, 1])[0] == 1500
    assert tree.find([*text[:1400], 1])[0] == 1400, "drafts are taken back so far"
    assert tree.find([*text[:600], 1])[0] == 300
    assert tree.find([*text[:200], 1])[0] == 200
