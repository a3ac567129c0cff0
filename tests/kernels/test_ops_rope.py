"""Rotary embedding and what lands in the cache."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import native

ops = native("ops")
ISAS = ops.isas()
TYPES = ["f32", "f16", "q8_0"]


def cos_sin(positions: np.ndarray, n_rot: int) -> np.ndarray:
    frequencies = 10000.0 ** (-np.arange(n_rot // 2) / (n_rot // 2))
    angles = positions[:, None] * frequencies[None, :]
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def rotated(x: np.ndarray, table: np.ndarray, interleaved: bool) -> np.ndarray:
    """x [n_rows, n_heads, head_dim] in double precision."""
    n_rot = table.shape[1]
    out = x.astype(np.float64).copy()
    cos = table[:, None, : n_rot // 2].astype(np.float64)
    sin = table[:, None, n_rot // 2 :].astype(np.float64)
    if interleaved:
        first, second = slice(0, n_rot, 2), slice(1, n_rot, 2)
    else:
        first, second = slice(0, n_rot // 2), slice(n_rot // 2, n_rot)
    a, b = out[..., first].copy(), out[..., second].copy()
    out[..., first] = a * cos - b * sin
    out[..., second] = a * sin + b * cos
    return out


def stored(x: np.ndarray, kind: str) -> np.ndarray:
    """What a cache of this type holds for float32 x."""
    if kind == "f32":
        return x
    if kind == "f16":
        return x.astype(np.float16).astype(np.float32)
    groups = x.reshape(*x.shape[:-1], -1, 32)
    scale = (np.abs(groups).max(-1, keepdims=True) / np.float32(127)).astype(np.float16)
    scale = scale.astype(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.where(scale == 0, 0, np.clip(np.rint(groups / scale), -127, 127))
    return (q.astype(np.float32) * scale).reshape(x.shape)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("head_dim,n_rot", [(32, 32), (64, 64), (128, 128), (96, 24), (64, 0)])
def test_rope_store_rotates_and_stores(
    kind: str, interleaved: bool, head_dim: int, n_rot: int
) -> None:
    rng = np.random.default_rng(head_dim + n_rot)
    n_rows, n_heads, n_kv_heads, first = 19, 6, 2, 250
    q = rng.standard_normal((n_rows, n_heads, head_dim)).astype(np.float32)
    k, v = rng.standard_normal((2, n_rows, n_kv_heads, head_dim)).astype(np.float32)
    table = cos_sin(np.arange(first, first + n_rows), n_rot) if n_rot else None
    contents, queries = set(), set()
    for isa in ISAS:
        for n_threads in (1, 2, 3):
            cache = ops.Cache(kind, n_kv_heads, head_dim, 300)
            out = cache.rope_store(isa, n_threads, q, k, v, first, table, interleaved)
            contents.add(cache.content())
            queries.add(out.tobytes())
    assert len(contents) == 1
    assert len(queries) == 1
    expected_q = rotated(q, table, interleaved) if n_rot else q
    np.testing.assert_allclose(out, expected_q, rtol=0, atol=1e-6)
    # The exact bits of the rotation, in float32 without fused operations.
    if n_rot:
        float_cache = ops.Cache("f32", n_kv_heads, head_dim, 300)
        float_cache.rope_store("scalar", 1, q, k, v, first, table, interleaved)
        k_rotated = float_cache.keys()[first : first + n_rows]
        np.testing.assert_allclose(k_rotated, rotated(k, table, interleaved), rtol=0, atol=1e-6)
    else:
        k_rotated = k
    slots = slice(first, first + n_rows)
    assert np.array_equal(cache.keys()[slots], stored(k_rotated, kind))
    assert np.array_equal(cache.values()[slots], stored(v, kind))
    # No other slot is touched: they still hold NaN.
    others = np.r_[0:first, first + n_rows : 300]
    assert np.isnan(cache.keys()[others]).all()
    assert np.isnan(cache.values()[others]).all()


@pytest.mark.parametrize("head_dim", [1, 2, 8, 20, 40, 80])
def test_rope_store_takes_any_head_dim(head_dim: int) -> None:
    rng = np.random.default_rng(head_dim)
    q = rng.standard_normal((5, 2, head_dim)).astype(np.float32)
    k, v = rng.standard_normal((2, 5, 1, head_dim)).astype(np.float32)
    n_rot = head_dim // 2 // 2 * 2
    table = cos_sin(np.arange(5), n_rot) if n_rot else None
    for isa in ISAS:
        cache = ops.Cache("f16", 1, head_dim, 20)
        cache.rope_store(isa, 2, q, k, v, 3, table, True)
        expected = rotated(k, table, True) if n_rot else k
        np.testing.assert_allclose(cache.keys()[3:8], expected, rtol=1e-3, atol=1e-3)
        assert np.array_equal(cache.values()[3:8], v.astype(np.float16).astype(np.float32))


def test_q8_0_store_handles_extreme_values() -> None:
    rows = np.zeros((6, 1, 32), np.float32)
    rows[1] = 1e-9  # the scale rounds to zero
    rows[2] = np.linspace(-1e-5, 1e-5, 32)  # a subnormal scale
    rows[3] = np.linspace(-3e6, 3e6, 32)
    rows[4, 0, 5] = np.nan
    rows[5, 0, 6] = -np.inf
    for isa in ISAS:
        cache = ops.Cache("q8_0", 1, 32, 16)
        cache.rope_store(isa, 1, rows, rows, rows, 0)
        for got in (cache.keys()[:6], cache.values()[:6]):
            assert np.array_equal(got[:4], stored(rows[:4], "q8_0"))
            assert (got[:2] == 0).all()
            # Shows up as an error in the logits instead of being lost.
            assert np.isnan(got[4:]).all()
