"""Attention: right against NumPy, and bit for bit the same however the work is arranged."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import native

ops = native("ops")
ISAS = ops.isas()
FAST = ISAS[-1]
TYPES = ["f32", "f16", "q8_0"]
CONTEXTS = [0, 1, 15, 16, 17, 255, 256, 257, 511, 512, 700]


def equal_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


class Rows:
    """Random q, k, v for a sequence of n tokens."""

    def __init__(self, n: int, n_heads: int, n_kv_heads: int, head_dim: int, seed: int = 0) -> None:
        rng = np.random.default_rng([seed, n, n_heads, head_dim])
        self.q = rng.standard_normal((n, n_heads, head_dim)).astype(np.float32)
        self.k, self.v = rng.standard_normal((2, n, n_kv_heads, head_dim)).astype(np.float32)
        self.shape = (n_kv_heads, head_dim)
        self.scale = float(2 / np.sqrt(head_dim))

    def cache(self, kind: str, tokens: np.ndarray, n_slots: int | None = None, isa: str = FAST):
        """A cache whose slots hold these tokens; everything else is NaN."""
        tokens = np.asarray(tokens, dtype=int)
        cache = ops.Cache(kind, *self.shape, max(n_slots or 0, len(tokens), 1))
        if len(tokens) > 0:
            cache.rope_store(isa, 1, self.q[tokens], self.k[tokens], self.v[tokens], 0)
        return cache


def expected_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    """One row: q [n_heads, head_dim], k and v [length, n_kv_heads, head_dim]."""
    group = q.shape[0] // k.shape[1]
    out = np.empty(q.shape)
    for h in range(q.shape[0]):
        scores = k[:, h // group].astype(np.float64) @ q[h].astype(np.float64) * scale
        weights = np.exp(scores - scores.max())
        out[h] = weights @ v[:, h // group].astype(np.float64) / weights.sum()
    return out


def paths(parents: np.ndarray) -> list[list[int]]:
    out: list[list[int]] = []
    for r, parent in enumerate(parents):
        out.append((out[parent] if parent >= 0 else []) + [r])
    return out


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_attention_agrees_with_numpy(kind: str, context: int) -> None:
    n_rows = 5
    for n_heads, n_kv_heads, head_dim in [(6, 2, 64), (7, 1, 32), (4, 4, 96), (12, 2, 128)]:
        rows = Rows(context + n_rows, n_heads, n_kv_heads, head_dim)
        cache = rows.cache(kind, np.arange(context + n_rows))
        out = cache.attention(FAST, 2, rows.q[context:], context, None, rows.scale)
        keys, values = cache.keys(), cache.values()
        for r in range(n_rows):
            n = context + r + 1
            expected = expected_attention(rows.q[context + r], keys[:n], values[:n], rows.scale)
            # Scores of size ~10 carry about 1e-6 of rounding into the exponent.
            np.testing.assert_allclose(out[r], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("head_dim", [1, 3, 8, 16, 17, 40, 80, 256])
@pytest.mark.parametrize("kind", ["f32", "f16"])
def test_attention_takes_any_head_dim(kind: str, head_dim: int) -> None:
    rows = Rows(40, 4, 2, head_dim)
    outs = []
    for isa in ISAS:
        cache = rows.cache(kind, np.arange(40), isa=isa)
        outs.append(cache.attention(isa, 2, rows.q[30:], 30, None, rows.scale))
    assert all(equal_bits(outs[0], out) for out in outs)
    keys, values = cache.keys(), cache.values()
    for r in range(10):
        expected = expected_attention(rows.q[30 + r], keys[: 31 + r], values[: 31 + r], rows.scale)
        np.testing.assert_allclose(outs[0][r], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_every_isa_and_thread_count_gives_the_same_bits(kind: str, context: int) -> None:
    n_rows = 4
    rows = Rows(context + n_rows, 6, 3, 32)
    cache = rows.cache(kind, np.arange(context + n_rows))
    outs = {
        cache.attention(isa, n_threads, rows.q[context:], context, None, rows.scale).tobytes()
        for isa in ISAS
        for n_threads in (1, 2, 3, 8)
    }
    assert len(outs) == 1


@pytest.mark.parametrize("n_rows", [1, 4, 33])
@pytest.mark.parametrize("context", CONTEXTS)
def test_fewer_threads_than_memory_is_there_for_give_the_same_bits(
    context: int, n_rows: int
) -> None:
    """As the pool has it where others want the processors."""
    rows = Rows(context + n_rows, 6, 3, 32)
    cache = rows.cache("f16", np.arange(context + n_rows))
    for n_threads in (2, 3, 4, 8):
        outs = set()
        for limit in (0, *range(1, n_threads)):
            ops.limit_threads(limit)
            try:
                out = cache.attention(FAST, n_threads, rows.q[context:], context, None, rows.scale)
            finally:
                ops.limit_threads(0)
            outs.add(out.tobytes())
        assert len(outs) == 1


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", [0, 13, 250, 256, 700])
def test_a_row_has_the_same_bits_in_every_batch(kind: str, context: int) -> None:
    total = context + 40
    rows = Rows(total, 14, 2, 64)
    cache = rows.cache(kind, np.arange(total))
    alone = [
        cache.attention(FAST, 1, rows.q[t : t + 1], t, None, rows.scale)[0]
        for t in range(context, total)
    ]
    for isa in ISAS[1:]:
        for n_rows in [*range(1, 18), 33]:
            for n_threads in (1, 2, 3):
                batch = rows.q[context : context + n_rows]
                out = cache.attention(isa, n_threads, batch, context, None, rows.scale)
                assert all(equal_bits(out[r], alone[r]) for r in range(n_rows))


@pytest.mark.parametrize("kind", ["f16", "q8_0"])
@pytest.mark.parametrize("shape", [(9, 3, 64), (12, 2, 128), (8, 8, 32), (16, 1, 64)])
def test_a_prefill_has_the_bits_of_single_steps(kind: str, shape: tuple[int, int, int]) -> None:
    rows = Rows(600, *shape)
    cache = rows.cache(kind, np.arange(600))
    whole = cache.attention(FAST, 2, rows.q[88:], 88, None, rows.scale)
    for t in [88, 89, 255, 256, 257, 300, 511, 512, 513, 599]:
        alone = cache.attention(FAST, 3, rows.q[t : t + 1], t, None, rows.scale)
        assert equal_bits(whole[t - 88], alone[0])


def random_tree(rng: np.random.Generator, n_rows: int) -> np.ndarray:
    parents = np.empty(n_rows, np.int32)
    for r in range(n_rows):
        choices = [r - 1, r - 1, int(rng.integers(-1, r)) if r else -1, -1 if r < 6 else r // 2]
        parents[r] = rng.choice(choices)
    return parents


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_tree_row_has_the_bits_of_its_linear_path(kind: str, context: int) -> None:
    rng = np.random.default_rng(context)
    for trial, n_rows in enumerate([1, 2, 7, 16, 33]):
        rows = Rows(context + n_rows, *[(6, 2, 32), (3, 1, 64), (9, 3, 64)][trial % 3], seed=trial)
        parents = random_tree(rng, n_rows)
        # The tree's rows lie in its own slots in batch order; all other slots hold NaN.
        tree = rows.cache(kind, np.arange(context + n_rows), context + n_rows + 40)
        out = tree.attention(FAST, 2, rows.q[context:], context, parents, rows.scale)
        for isa in ISAS if n_rows < 8 else ISAS[1:]:
            for n_threads in (1, 3):
                again = tree.attention(
                    isa, n_threads, rows.q[context:], context, parents, rows.scale
                )
                assert equal_bits(again, out)
        for r, path in enumerate(paths(parents)):
            tokens = np.r_[0:context, np.array(path) + context].astype(int)
            linear = rows.cache(kind, tokens, len(tokens) + 40)
            n = len(tokens)
            alone = linear.attention(FAST, 1, rows.q[context + r][None], n - 1, None, rows.scale)
            assert equal_bits(out[r], alone[0]), (r, path)


def test_a_chain_given_as_parents_equals_no_parents() -> None:
    rows = Rows(300, 6, 2, 64)
    cache = rows.cache("f16", np.arange(300))
    for first in (0, 250, 283):
        n = 300 - first
        parents = np.arange(-1, n - 1, dtype=np.int32)
        chain = cache.attention(FAST, 2, rows.q[first:], first, None, rows.scale)
        assert equal_bits(
            cache.attention(FAST, 2, rows.q[first:], first, parents, rows.scale), chain
        )


@pytest.mark.parametrize("kind", TYPES)
def test_a_sibling_with_nan_does_not_spoil_the_others(kind: str) -> None:
    context, n_rows = 20, 6
    rows = Rows(context + n_rows, 4, 2, 32)
    parents = np.array([-1, 0, 0, 2, -1, 4], np.int32)
    clean = rows.cache(kind, np.arange(context + n_rows))
    expected = clean.attention(FAST, 2, rows.q[context:], context, parents, rows.scale)
    rows.k[context + 2] = np.nan
    rows.v[context + 2] = np.inf
    for isa in ISAS:
        for n_threads in (1, 2):
            dirty = rows.cache(kind, np.arange(context + n_rows), isa=isa)
            out = dirty.attention(isa, n_threads, rows.q[context:], context, parents, rows.scale)
            for r in (0, 1, 4, 5):
                assert equal_bits(out[r], expected[r])
            for r in (2, 3):
                assert not np.isfinite(out[r]).any()  # and where it is seen, it shows


def test_a_later_row_of_a_chain_with_nan_does_not_spoil_the_earlier() -> None:
    rows = Rows(60, 12, 2, 128)
    expected = rows.cache("f16", np.arange(60)).attention(
        FAST, 2, rows.q[44:], 44, None, rows.scale
    )
    rows.k[50:] = np.nan
    rows.v[50:] = np.nan
    for isa in ISAS[1:]:
        out = rows.cache("f16", np.arange(60)).attention(isa, 2, rows.q[44:], 44, None, rows.scale)
        assert equal_bits(out[:6], expected[:6])
        assert np.isnan(out[6:]).all()


def test_huge_scores_neither_overflow_nor_vanish() -> None:
    rows = Rows(300, 2, 1, 32)
    rows.q *= 100
    rows.k *= 100
    cache = rows.cache("f32", np.arange(300))
    for isa in ISAS:
        out = cache.attention(isa, 1, rows.q[296:], 296, None, 1.0)
        for r in range(4):
            n = 297 + r
            expected = expected_attention(rows.q[296 + r], rows.k[:n], rows.v[:n], 1.0)
            np.testing.assert_allclose(out[r], expected, rtol=0, atol=0.05)


# ---------------------------------------------------------------- windows

WINDOWS = [1, 2, 16, 17, 40, 255, 256, 257, 400]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", CONTEXTS)
def test_a_window_hides_what_is_further_back(kind: str, context: int) -> None:
    n_rows = 5
    for n_heads, n_kv_heads, head_dim in [(6, 2, 64), (4, 1, 32)]:
        rows = Rows(context + n_rows, n_heads, n_kv_heads, head_dim)
        cache = rows.cache(kind, np.arange(context + n_rows))
        keys, values = cache.keys(), cache.values()
        for window in WINDOWS:
            for n_threads in (1, 3):  # 3: chunks are shared out
                out = cache.attention(
                    FAST, n_threads, rows.q[context:], context, None, rows.scale, window
                )
                for r in range(n_rows):
                    n = context + r + 1
                    seen = slice(max(0, n - window), n)
                    expected = expected_attention(
                        rows.q[context + r], keys[seen], values[seen], rows.scale
                    )
                    np.testing.assert_allclose(out[r], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("window", [1, 17, 100, 256, 300])
def test_a_row_in_a_window_has_the_same_bits_in_every_batch(kind: str, window: int) -> None:
    total = 620
    rows = Rows(total, 6, 2, 64)
    cache = rows.cache(kind, np.arange(total))
    for context in (0, 13, 250, 256, 580):
        alone = [
            cache.attention(FAST, 1, rows.q[t : t + 1], t, None, rows.scale, window)[0]
            for t in range(context, context + 33)
        ]
        for isa in ISAS:
            for n_rows, n_threads in ((1, 2), (3, 1), (16, 1), (16, 5), (33, 1), (33, 2)):
                batch = rows.q[context : context + n_rows]
                out = cache.attention(isa, n_threads, batch, context, None, rows.scale, window)
                assert all(equal_bits(out[r], alone[r]) for r in range(n_rows))
    whole = cache.attention(FAST, 2, rows.q[88:], 88, None, rows.scale, window)
    for t in (88, 255, 256, 257, 511, 512, 600):
        one = cache.attention(FAST, 3, rows.q[t : t + 1], t, None, rows.scale, window)
        assert equal_bits(whole[t - 88], one[0])


def test_a_window_that_reaches_the_beginning_changes_no_bit() -> None:
    rows = Rows(300, 6, 2, 64)
    cache = rows.cache("f16", np.arange(300))
    for n_threads in (1, 3):
        plain = cache.attention(FAST, n_threads, rows.q[280:], 280, None, rows.scale)
        assert equal_bits(
            cache.attention(FAST, n_threads, rows.q[280:], 280, None, rows.scale, 300), plain
        )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("window", [1, 3, 20, 256])
def test_a_tree_row_in_a_window_has_the_bits_of_its_linear_path(kind: str, window: int) -> None:
    rng = np.random.default_rng(window)
    for trial, context in enumerate([0, 17, 250, 256, 511]):
        n_rows = [7, 16, 33][trial % 3]
        rows = Rows(context + n_rows, *[(6, 2, 32), (9, 3, 64)][trial % 2], seed=trial)
        parents = random_tree(rng, n_rows)
        tree = rows.cache(kind, np.arange(context + n_rows), context + n_rows + 40)
        expected = []
        for r, path in enumerate(paths(parents)):
            tokens = np.r_[0:context, np.array(path) + context].astype(int)
            linear = rows.cache(kind, tokens, len(tokens) + 40)
            q = rows.q[context + r][None]
            args = (FAST, 1, q, len(tokens) - 1, None, rows.scale, window)
            expected.append(linear.attention(*args)[0])
        for isa in ISAS:
            for n_threads in (1, 3):
                out = tree.attention(
                    isa, n_threads, rows.q[context:], context, parents, rows.scale, window
                )
                for r, row in enumerate(expected):
                    assert equal_bits(out[r], row), (isa, r)


@pytest.mark.parametrize("kind", TYPES)
def test_nan_behind_a_window_does_not_reach_it(kind: str) -> None:
    rows = Rows(300, 4, 2, 32)
    clean = rows.cache(kind, np.arange(300))
    rows.k[:270] = np.nan
    rows.v[:270] = np.inf
    for isa in ISAS:
        dirty = rows.cache(kind, np.arange(300), isa=isa)
        for n_threads in (1, 3):
            # Row 290 sees positions from 271 on.
            args = (n_threads, rows.q[290:], 290, None, rows.scale, 20)
            assert equal_bits(dirty.attention(isa, *args), clean.attention(FAST, *args))
