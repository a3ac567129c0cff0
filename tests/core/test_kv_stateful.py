"""Any sequence of operations on caches agrees with lists: contents, pages, what is refused."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_kv_cache import CHUNK, TYPES

from helpers import examples, native

kv = native("kv")
WINDOW = 24
SLACK = 256  # behind a window
N_CTX = 5 * CHUNK - 5
MOST = 4  # caches at once
WHICH = st.integers(0, MOST - 1)
ROWS = st.one_of(st.integers(1, 20), st.sampled_from([CHUNK - 1, CHUNK, CHUNK + 1, 300]))


@dataclasses.dataclass
class Model:
    """What a cache is meant to be."""

    tags: list[float]
    n_pages: int = 0  # it may hold one behind its length
    lowest: int = 0  # that it can be cut to, beside 0
    n_forgotten: int = 0  # pages of layers with a window
    base: int = 0  # where the last pass began

    def cut(self, n: int) -> None:
        del self.tags[n:]
        self.n_pages = pages_for(n)
        self.base = min(self.base, n)
        if n == 0:
            self.lowest = self.n_forgotten = 0


def pages_for(n: int) -> int:
    return -(-n // CHUNK)


class Caches(RuleBasedStateMachine):
    """Some caches of one arena."""

    @initialize(
        kind=st.sampled_from(TYPES),
        windowed=st.sampled_from([[False], [True], [False, True], [True, True]]),
        n_pages=st.sampled_from([None, None, None, 6]),
        n=st.sampled_from([0, 250, 600, 1000]),
    )
    def begin(self, kind: str, windowed: list[bool], n_pages: int | None, n: int) -> None:
        self.windowed = windowed
        self.groups = [g for g in (False, True) if g in windowed]
        self.page = {g: kv.page_bytes(kind, windowed.count(g), 1, 32) for g in self.groups}
        budget = 0 if n_pages is None else n_pages * sum(self.page.values())
        self.is_bounded = n_pages is not None
        self.arena = kv.Arena(budget, poison=True)
        window = WINDOW if True in windowed else 0
        self.shape = (kind, len(windowed), 1, 32, N_CTX, windowed, window)
        self.caches = [(kv.Cache(self.arena, *self.shape), Model([]))]
        self.feed(0, n, 1, True)

    def tried(self, operation: Any) -> bool:
        """Whether it was not refused for want of memory, which changes nothing."""
        try:
            operation()
        except kv.KvError as error:
            if not self.is_bounded or not str(error).startswith("resource: "):
                raise
            return False
        return True

    def at(self, which: int) -> tuple[Any, Model]:
        return self.caches[which % len(self.caches)]

    @rule(
        which=WHICH,
        n=ROWS,
        first=st.integers(1, 1500),
        advance=st.sampled_from([True, True, False]),
    )
    def feed(self, which: int, n: int, first: int, advance: bool) -> None:
        """A pass; without `advance` one that was cancelled."""
        cache, model = self.at(which)
        if n > N_CTX - len(model.tags):
            with pytest.raises(kv.KvError, match="context_full"):
                cache.reserve(n)
            return
        if not self.tried(lambda: cache.reserve(n)):
            return
        model.n_pages = max(model.n_pages, pages_for(len(model.tags) + n))
        tags = [float(first + i) for i in range(n)]
        cache.write_rows(tags)
        if advance:
            cache.advance(n)
            model.base = len(model.tags)
            model.tags += tags

    @rule(which=WHICH, drawn=st.data())
    def keep_path(self, which: int, drawn: st.DataObject) -> None:
        cache, model = self.at(which)
        n = len(model.tags) - model.base
        rows = sorted(drawn.draw(st.sets(st.integers(0, max(0, n - 1)), max_size=min(n, 12))))
        n_kept = model.base + len(rows)
        if not self.tried(lambda: cache.keep_path(model.base, rows)):
            return
        model.tags[model.base :] = [model.tags[model.base + row] for row in rows]
        model.cut(n_kept)

    @rule(which=WHICH, n=st.one_of(st.integers(0, 40), st.integers(0, 300)), drawn=st.data())
    def truncate(self, which: int, n: int, drawn: st.DataObject) -> None:
        cache, model = self.at(which)
        to = drawn.draw(st.sampled_from([len(model.tags) - n, model.lowest, n, 0]))
        if 0 <= to <= len(model.tags) and (to == 0 or to >= model.lowest):
            cache.truncate(to)
            model.cut(to)
        else:
            with pytest.raises(kv.KvError, match="invalid: cannot truncate"):
                cache.truncate(to)

    @rule(which=WHICH)
    def forget(self, which: int) -> None:
        cache, model = self.at(which)
        cache.forget()
        model.base = len(model.tags)  # no row of the last pass is dropped after that
        n = (len(model.tags) - SLACK - WINDOW) // CHUNK if True in self.windowed else 0
        if n > 0:
            model.n_forgotten = max(model.n_forgotten, n)
            model.lowest = model.n_forgotten * CHUNK + WINDOW - 1

    @precondition(lambda self: len(self.caches) < MOST)
    @rule(which=WHICH)
    def fork(self, which: int) -> None:
        cache, model = self.at(which)
        made: list[Any] = []
        if self.tried(lambda: made.append(cache.fork())):
            n_pages = pages_for(len(model.tags))
            copied = dataclasses.replace(model, tags=model.tags.copy(), n_pages=n_pages)
            self.caches.append((made[0], copied))

    @precondition(lambda self: len(self.caches) > 1)
    @rule(which=WHICH)
    def drop(self, which: int) -> None:
        del self.caches[which % len(self.caches)]

    @precondition(lambda self: len(self.caches) < MOST)
    @rule(which=WHICH)
    def save_and_load(self, which: int) -> None:
        cache, model = self.at(which)
        if not model.tags:
            return
        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "kept")
            tokens = [int(tag) for tag in model.tags]
            kv.save(path, tokens, [cache])
            read: list[Any] = []
            if not self.tried(lambda: read.append(kv.load(path, self.arena))):
                return
        assert read[0][0] == tokens
        n_pages = pages_for(len(model.tags))
        base = len(model.tags)
        copied = dataclasses.replace(model, tags=model.tags.copy(), n_pages=n_pages, base=base)
        self.caches.append((read[0][1][0], copied))

    @invariant()
    def contents_are_those_of_the_lists(self) -> None:
        for cache, model in self.caches:
            assert cache.length() == len(model.tags)
            first = model.n_forgotten * CHUNK
            assert cache.read(first, cache.length()) == model.tags[first:]
            assert cache.lowest() == model.lowest

    @invariant()
    def no_page_is_lost_or_counted_twice(self) -> None:
        pages: set[tuple[bool, int]] = set()
        for cache, model in self.caches:
            n_bytes = 0
            for group in self.groups:
                first = model.n_forgotten if group else 0
                addresses = {
                    cache.page_address(self.windowed.index(group), page)
                    for page in range(first, model.n_pages)
                }
                assert len(addresses) == model.n_pages - first
                n_bytes += len(addresses) * self.page[group]
                pages |= {(group, address) for address in addresses}
            assert cache.n_bytes() == n_bytes
        stats = self.arena.stats()
        assert stats["n_used_pages"] == len(pages)
        assert stats["used_bytes"] == sum(self.page[group] for group, _ in pages)
        held = stats["used_bytes"] + stats["free_bytes"]
        assert stats["peak_bytes"] >= held
        assert not self.is_bounded or held <= stats["budget_bytes"]

    def teardown(self) -> None:
        if hasattr(self, "arena"):
            self.caches.clear()
            assert self.arena.stats()["used_bytes"] == 0


TestCaches = Caches.TestCase
TestCaches.settings = settings(max_examples=examples(20), stateful_step_count=40)
