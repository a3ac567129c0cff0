"""Soft caps of scores and logits: right against NumPy, and the same bits everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from test_cuda_kernels import product, rows_of_x, small_n_in
from test_cuda_kernels_attention import check_heads, fill, heads, pair_of_caches, same_bits
from test_matmul import random_weights
from test_ops_attention import FAST, ISAS, TYPES, Rows, equal_bits, paths, random_tree

from helpers import native

ops = native("ops")
CAP = 2.5  # scores here are a few times larger


def test_a_soft_cap_is_accurate_to_float_rounding() -> None:
    x = np.concatenate([np.linspace(-40, 40, 40001), np.geomspace(1e-30, 1e30, 2000)])
    x = np.concatenate([x, -x]).astype(np.float32)
    outs = [ops.soft_cap(isa, 1.0, x) for isa in ISAS]
    expected = np.tanh(x.astype(np.float64))
    assert (np.abs(outs[0] - expected) <= 2.5e-7 * np.abs(expected)).all()
    assert all(equal_bits(outs[0], out) for out in outs)
    for isa in ISAS:
        found = ops.soft_cap(isa, 30.0, np.array([np.nan, np.inf, -np.inf, 0], np.float32))
        np.testing.assert_array_equal(found, np.array([np.nan, 30, -30, 0], np.float32))


def expected_capped(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    group = q.shape[0] // k.shape[1]
    out = np.empty(q.shape)
    for h in range(q.shape[0]):
        scores = k[:, h // group].astype(np.float64) @ q[h].astype(np.float64) * scale
        scores = CAP * np.tanh(scores / CAP)
        weights = np.exp(scores - scores.max())
        out[h] = weights @ v[:, h // group].astype(np.float64) / weights.sum()
    return out


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", [0, 1, 15, 17, 250, 256, 511, 600])
def test_scores_are_capped_before_the_window_hides_some(kind: str, context: int) -> None:
    n_rows = 5
    rows = Rows(context + n_rows, 6, 2, 64)
    cache = rows.cache(kind, np.arange(context + n_rows))
    keys, values = cache.keys(), cache.values()
    for window in (0, 1, 40, 256):
        outs = {
            (isa, n_threads): cache.attention(
                isa, n_threads, rows.q[context:], context, None, rows.scale, window, CAP
            )
            for isa in ISAS
            for n_threads in (1, 3)
        }
        out = outs[FAST, 1]
        assert all(equal_bits(out, other) for other in outs.values())
        for r in range(n_rows):
            n = context + r + 1
            seen = slice(max(0, n - window) if window else 0, n)
            expected = expected_capped(rows.q[context + r], keys[seen], values[seen], rows.scale)
            np.testing.assert_allclose(out[r], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("window", [0, 20])
def test_a_capped_row_has_the_same_bits_in_every_batch_and_tree(kind: str, window: int) -> None:
    rng = np.random.default_rng(window)
    for trial, context in enumerate([0, 250, 511]):
        n_rows = [7, 16, 33][trial]
        rows = Rows(context + n_rows, 6, 2, 32, seed=trial)
        cache = rows.cache(kind, np.arange(context + n_rows), context + n_rows + 40)
        options = (rows.scale, window, CAP)
        whole = cache.attention(FAST, 2, rows.q[context:], context, None, *options)
        for r in range(n_rows):
            q = rows.q[context + r][None]
            assert equal_bits(cache.attention(FAST, 1, q, context + r, None, *options)[0], whole[r])
        parents = random_tree(rng, n_rows)
        for isa in ISAS:
            out = cache.attention(isa, 3, rows.q[context:], context, parents, *options)
            for r, path in enumerate(paths(parents)):
                tokens = np.r_[0:context, np.array(path) + context].astype(int)
                linear = rows.cache(kind, tokens, len(tokens) + 40)
                q = rows.q[context + r][None]
                alone = linear.attention(FAST, 1, q, len(tokens) - 1, None, *options)
                assert equal_bits(out[r], alone[0]), (isa, r, path)


@pytest.mark.usefixtures("kernel_device")
@pytest.mark.parametrize("kind", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("window", [0, 5, 300])
def test_the_device_has_the_bits_of_the_cpu(kind: str, window: int) -> None:
    rng = np.random.default_rng(window)
    caches = pair_of_caches(kind, 2, 32, 768)
    fill(caches, 0, 620, 6, (2, 32), rng)
    tree = np.array([-1, 0, 1, 0, 3, -1, 5], dtype=np.int32)
    options = {"scale": 2.0, "window": window, "soft_cap": CAP}
    for first, n_rows, parents in (
        (0, 1, None), (3, 5, None), (250, 16, None), (600, 3, None), (250, 7, tree), (20, 7, tree),
    ):  # fmt: skip
        q = rng.standard_normal((n_rows, 6, 32)).astype(np.float32)
        want = caches[1].attention("scalar", 1, q, first, parents=parents, **options)
        plain = caches[1].attention("scalar", 1, q, first, parents=parents, scale=2.0)
        assert (first + n_rows > 1) != same_bits(want, plain)
        for n_chunks in ((first + n_rows + 255) // 256, 3):
            got = caches[0].attention(q, first, parents=parents, max_chunks=n_chunks, **options)
            assert same_bits(got, want), (first, n_rows, n_chunks)


@pytest.mark.usefixtures("kernel_device")
@pytest.mark.parametrize("name", ["F16", "Q4_0", "Q6_K"])
def test_capped_logits_have_the_bits_of_the_cpu(name: str) -> None:
    rng = np.random.default_rng(10)
    n_in, n_out = small_n_in(name), 2200
    x = rows_of_x(3, n_in, rng)
    spec = product(name, n_out, random_weights(name, n_out, n_in, rng))
    options = {"n_tokens": 2195, "wants_logits": True, "soft_cap": CAP}
    for more in ({"top_k": 1}, {"top_k": 30}, {"top_k": 9, "blocks": [0, 7, 44, 137]}):
        got, want = heads(x, spec, **options, **more)
        check_heads(got, want)
        plain = heads(x, spec, **(options | {"soft_cap": 0.0}), **more)[1]
        seen = plain[3] > -np.inf
        assert (want[3][~seen] == -np.inf).all()
        expected = CAP * np.tanh(plain[3][seen].astype(np.float64) / CAP)
        np.testing.assert_allclose(want[3][seen], expected, rtol=5e-7)
        best = np.take_along_axis(want[3], want[0].astype(int), 1)
        assert same_bits(best, want[1])
        sums = np.log(np.exp(want[3].astype(np.float64)).sum(1))
        np.testing.assert_allclose(want[2], sums, rtol=1e-6)
