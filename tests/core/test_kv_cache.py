"""The paged KV cache against a naive model: a list of tags, one per position."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from helpers import native

kv = native("kv")
TYPES = ["f32", "f16", "q8_0"]
CHUNK = kv.CHUNK
SHAPE = (2, 2, 32)  # layers, kv heads, head_dim


def feed(cache, tags: list[float]) -> None:
    """As a forward does: reserve, write, advance."""
    cache.reserve(len(tags))
    cache.write_rows(tags)
    cache.advance(len(tags))


def content(cache) -> list[float]:
    return cache.read(0, cache.length())


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("head_dim", [32, 64])
def test_keep_path_moves_every_element(kind: str, head_dim: int) -> None:
    for base in (0, 5, 15, 16, 250, 255, 256):
        cache = kv.Cache(kv.Arena(poison=True), kind, 3, 2, head_dim, 400)
        feed(cache, [float(i % 1000) for i in range(base)])
        feed(cache, [1000.0 + r for r in range(20)])
        cache.keep_path(base, [0, 1, 4, 9, 19])
        expected = [float(i % 1000) for i in range(base)] + [1000.0, 1001.0, 1004.0, 1009.0, 1019.0]
        assert content(cache) == expected
        cache.reserve(20)
        assert np.isnan(cache.read(base + 5, base + 20)).all()  # rejected rows are gone


def test_keep_path_of_nothing_truncates_and_of_everything_changes_nothing() -> None:
    cache = kv.Cache(kv.Arena(), "f16", *SHAPE, 100)
    feed(cache, [1, 2, 3, 4])
    cache.keep_path(2, [0, 1])
    assert content(cache) == [1, 2, 3, 4]
    cache.keep_path(2, [])
    assert content(cache) == [1, 2]


def test_a_fork_shares_full_pages_and_copies_the_last() -> None:
    arena = kv.Arena()
    cache = kv.Cache(arena, "f16", *SHAPE, 2000)
    feed(cache, [float(i) for i in range(2 * CHUNK + 10)])
    fork = cache.fork()
    assert arena.stats()["n_used_pages"] == 4
    for page in (0, 1):
        assert fork.page_address(0, page) == cache.page_address(0, page)
    assert fork.page_address(0, 2) != cache.page_address(0, 2)
    feed(fork, [7.0])
    feed(cache, [8.0, 9.0])
    assert content(fork) == [float(i) for i in range(2 * CHUNK + 10)] + [7.0]
    assert content(cache) == [float(i) for i in range(2 * CHUNK + 10)] + [8.0, 9.0]


def test_writing_into_a_shared_page_copies_it_first() -> None:
    arena = kv.Arena()
    cache = kv.Cache(arena, "f32", *SHAPE, 2000)
    feed(cache, [float(i) for i in range(CHUNK)])
    fork = cache.fork()
    assert arena.stats()["n_used_pages"] == 1
    fork.truncate(100)
    assert arena.stats()["n_used_pages"] == 1
    feed(fork, [1.0, 2.0])
    assert arena.stats()["n_used_pages"] == 2
    assert content(cache) == [float(i) for i in range(CHUNK)]
    assert content(fork) == [float(i) for i in range(100)] + [1.0, 2.0]
    # Once the other owner is gone nothing is copied.
    fork = cache.fork()
    address = cache.page_address(0, 0)
    del cache
    fork.truncate(50)
    feed(fork, [3.0])
    assert fork.page_address(0, 0) == address


def test_keep_path_in_a_page_that_a_fork_shares_leaves_the_fork_alone() -> None:
    cache = kv.Cache(kv.Arena(), "f16", *SHAPE, 2000)
    feed(cache, [float(i) for i in range(CHUNK - 4)])
    feed(cache, [900.0, 901.0, 902.0, 903.0])
    fork = cache.fork()
    cache.keep_path(CHUNK - 4, [1, 3])
    assert content(cache)[-2:] == [901.0, 903.0]
    assert content(fork)[-4:] == [900.0, 901.0, 902.0, 903.0]


def test_a_full_context_is_an_error_with_numbers_and_changes_nothing() -> None:
    cache = kv.Cache(kv.Arena(), "f16", *SHAPE, 20)
    feed(cache, [float(i) for i in range(18)])
    with pytest.raises(kv.KvError, match=r"context_full: .*holds 18 of 20 positions .* 3 more"):
        cache.reserve(3)
    assert content(cache) == [float(i) for i in range(18)]
    feed(cache, [18.0, 19.0])
    with pytest.raises(kv.KvError, match="context_full"):
        cache.reserve(2**31 - 1)
    cache.reserve(0)


def test_the_budget_is_kept_and_the_error_names_the_numbers() -> None:
    page = kv.page_bytes("f16", *SHAPE)
    arena = kv.Arena(budget_bytes=2 * page + 1)
    cache = kv.Cache(arena, "f16", *SHAPE, 5000)
    feed(cache, [1.0] * (CHUNK + 7))
    with pytest.raises(kv.KvError, match=f"resource: .*{page} bytes.*{2 * page + 1} bytes"):
        cache.reserve(2 * CHUNK)
    with pytest.raises(kv.KvError, match="resource"):
        cache.fork()
    assert content(cache) == [1.0] * (CHUNK + 7)
    assert arena.stats()["n_used_pages"] == 2
    feed(cache, [2.0])  # fits the page it has
    cache.truncate(10)
    assert arena.stats()["n_free_pages"] == 1
    fork = cache.fork()  # reuses the free page
    assert content(fork) == [1.0] * 10
    assert arena.stats()["peak_bytes"] == 2 * page


def test_free_pages_of_another_size_make_room() -> None:
    small, large = kv.page_bytes("f16", 1, 1, 32), kv.page_bytes("f16", 4, 1, 32)
    arena = kv.Arena(budget_bytes=large + small)
    draft = kv.Cache(arena, "f16", 1, 1, 32, 5000)
    feed(draft, [1.0] * (3 * CHUNK))
    target = kv.Cache(arena, "f16", 4, 1, 32, 5000)
    with pytest.raises(kv.KvError, match="resource"):
        target.reserve(1)
    draft.truncate(CHUNK)
    feed(target, [2.0])
    assert content(target) == [2.0]
    assert content(draft) == [1.0] * CHUNK
    stats = arena.stats()
    assert stats["used_bytes"] + stats["free_bytes"] <= stats["budget_bytes"]
    arena.release_free()
    assert arena.stats()["free_bytes"] == 0


def test_pages_are_aligned_and_reused() -> None:
    arena = kv.Arena()
    cache = kv.Cache(arena, "q8_0", 3, 2, 96, 5000)
    cache.reserve(CHUNK + 1)
    for page in (0, 1):
        for layer in range(3):
            assert cache.page_address(layer, page) % 64 == 0
    before = {cache.page_address(0, page) for page in (0, 1)}
    cache.truncate(0)
    assert arena.stats()["n_free_pages"] == 2
    cache.reserve(CHUNK + 1)
    assert {cache.page_address(0, page) for page in (0, 1)} == before


def test_misuse_is_refused_and_changes_nothing() -> None:
    arena = kv.Arena()
    cache = kv.Cache(arena, "f16", *SHAPE, 100)
    feed(cache, [1.0, 2.0, 3.0])
    for n in (-1, 4):
        with pytest.raises(kv.KvError, match="invalid: cannot truncate"):
            cache.truncate(n)
    for base, rows in [(1, [1, 0]), (1, [0, 0]), (1, [2]), (1, [-1]), (4, []), (-1, [0])]:
        with pytest.raises(kv.KvError, match="invalid: keep_path"):
            cache.keep_path(base, rows)
    with pytest.raises(kv.KvError, match="invalid"):
        cache.reserve(-1)
    with pytest.raises(kv.KvError, match="internal"):
        cache.advance(300)
    assert content(cache) == [1.0, 2.0, 3.0]
    for shape in [("q8_0", 1, 1, 40, 10), ("f16", 0, 1, 32, 10), ("f16", 1, 1, 32, 0)]:
        with pytest.raises(kv.KvError, match="invalid"):
            kv.Cache(arena, *shape)
    with pytest.raises(kv.KvError, match="resource"):
        kv.Cache(arena, "f32", 2**31 - 1, 2**31 - 1, 65536, 10)


def test_an_arena_serves_several_threads() -> None:
    arena = kv.Arena(poison=True)
    root = kv.Cache(arena, "f16", 1, 1, 32, 5000)
    feed(root, [5.0] * CHUNK)
    forks = [root.fork() for _ in range(4)]
    failures: list[str] = []

    def work(cache, tag: float) -> None:
        for _ in range(5):
            cache.truncate(CHUNK - 3)
            feed(cache, [tag] * 40)
            if content(cache) != [5.0] * (CHUNK - 3) + [tag] * 40:
                failures.append(f"thread {tag}")

    threads = [threading.Thread(target=work, args=(fork, float(i))) for i, fork in enumerate(forks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert content(root) == [5.0] * CHUNK
