"""Caches of texts that are over, found by the beginning of another text."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from helpers import examples, native

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


# Few tokens, so that texts have much in common.
TEXTS = st.lists(st.integers(0, 1), min_size=1, max_size=11)
WHICH = st.integers(0, 99)
LENGTHS = st.integers(0, 11)


class Trees(RuleBasedStateMachine):
    """A tree beside a list of all texts that are kept, the one used longest ago first. None of them
    is the beginning of another."""

    def __init__(self):
        super().__init__()
        self.arena, self.tree, self.kept = kv.Arena(), kv.PrefixTree(), []

    def text(self, which, n, new):
        """Goes on from a beginning of another one."""
        return (self.kept[which % len(self.kept)][:n] if self.kept else []) + new

    def look_for(self, text):
        best = max((common(text, old) for old in self.kept), default=0)
        found = self.tree.find(text)
        if best == 0:
            assert found is None
            return
        length, cache = found
        assert length == best == cache.length()
        assert cache.read(0, length) == text[:length]
        self.use_those_that_have(text, best)

    def use_those_that_have(self, text, best):
        """Any of those that have as much of a text as it could have been the one that was found."""
        for old in [old for old in self.kept if common(text, old) == best > 0]:
            assert self.tree.find(old)[0] == len(old)
            self.kept.remove(old)
            self.kept.append(old)

    @rule(which=WHICH, n=LENGTHS, new=TEXTS)
    def insert(self, which, n, new):
        text = self.text(which, n, new)
        self.tree.insert(text, cache_of(self.arena, text))
        best = max((common(text, old) for old in self.kept), default=0)
        if best < len(text):
            self.kept = [old for old in self.kept if common(text, old) < len(old)]
        self.use_those_that_have(text, best)
        if best < len(text):
            self.kept.append(text)
            self.look_for(text)

    @rule(which=WHICH, n=LENGTHS, new=TEXTS)
    def find(self, which, n, new):
        self.look_for(self.text(which, n, new))

    @precondition(lambda self: self.kept)
    @rule()
    def evict(self):
        assert self.tree.evict()
        self.look_for(self.kept.pop(0))

    @invariant()
    def no_more_is_kept(self):
        assert self.tree.size() == len(self.kept)
        assert self.arena.stats()["n_used_pages"] == len(self.kept)


TestTrees = Trees.TestCase
TestTrees.settings = settings(max_examples=examples(12), stateful_step_count=25)


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
