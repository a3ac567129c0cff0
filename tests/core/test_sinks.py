"""Sinks of attention: right against NumPy, and the same bits however the work is arranged."""

from __future__ import annotations

import numpy as np
import pytest
from test_ops_attention import FAST, ISAS, TYPES, Rows, equal_bits, paths, random_tree

from helpers import native

ops = native("ops")
SINKS = np.array([-30.0, -1.0, 0.0, 1.5, 6.0, 40.0], np.float32)  # of almost no weight to all


def expected_with_sinks(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float) -> np.ndarray:
    group = q.shape[0] // k.shape[1]
    out = np.empty(q.shape)
    for h in range(q.shape[0]):
        scores = k[:, h // group].astype(np.float64) @ q[h].astype(np.float64) * scale
        sink = float(SINKS[h])
        top = max(scores.max(), sink)
        weights = np.exp(scores - top)
        out[h] = weights @ v[:, h // group].astype(np.float64)
        out[h] /= weights.sum() + np.exp(sink - top)
    return out


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("context", [0, 1, 15, 17, 250, 256, 511, 600])
def test_a_sink_takes_its_share_of_each_head(kind: str, context: int) -> None:
    n_rows = 5
    rows = Rows(context + n_rows, 6, 2, 64)
    cache = rows.cache(kind, np.arange(context + n_rows))
    keys, values = cache.keys(), cache.values()
    for window in (0, 1, 40, 256):
        options = (rows.scale, window, 0.0, SINKS)
        outs = {
            (isa, n_threads): cache.attention(
                isa, n_threads, rows.q[context:], context, None, *options
            )
            for isa in ISAS
            for n_threads in (1, 3)  # 3: chunks are shared out
        }
        out = outs[FAST, 1]
        assert all(equal_bits(out, other) for other in outs.values())
        for r in range(n_rows):
            n = context + r + 1
            seen = slice(max(0, n - window) if window else 0, n)
            expected = expected_with_sinks(
                rows.q[context + r], keys[seen], values[seen], rows.scale
            )
            np.testing.assert_allclose(out[r], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("window", [0, 20])
def test_a_row_with_sinks_has_the_same_bits_in_every_batch_and_tree(kind: str, window: int) -> None:
    rng = np.random.default_rng(window)
    for trial, context in enumerate([0, 250, 511]):
        n_rows = [7, 16, 33][trial]
        rows = Rows(context + n_rows, 6, 2, 32, seed=trial)
        cache = rows.cache(kind, np.arange(context + n_rows), context + n_rows + 40)
        options = (rows.scale, window, 0.0, SINKS)
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


def test_a_sink_that_is_no_number_is_seen() -> None:
    rows = Rows(20, 6, 2, 32)
    cache = rows.cache("f32", np.arange(20))
    sinks = np.where(np.arange(6) == 2, np.nan, SINKS).astype(np.float32)
    for isa in ISAS:
        out = cache.attention(isa, 1, rows.q[19:], 19, None, rows.scale, 0, 0.0, sinks)
        assert np.isnan(out[0, 2]).all()
        assert np.isfinite(np.delete(out[0], 2, axis=0)).all()


def test_a_clamped_swiglu_is_accurate_to_float_rounding() -> None:
    gate, up = np.meshgrid(np.linspace(-90, 12, 401), np.linspace(-12, 12, 97))
    gate, up = (x.astype(np.float32).ravel() for x in (gate, up))
    x, y = np.minimum(gate, 7).astype(np.float64), np.clip(up, -7, 7).astype(np.float64)
    expected = x / (1 + np.exp(-1.702 * x)) * (y + 1)
    outs = [ops.activate_multiply(isa, "clamped_swiglu", gate, up) for isa in ISAS]
    assert all(equal_bits(outs[0], out) for out in outs)
    # 1.702 x is rounded, which e^x makes |x| times as large.
    np.testing.assert_allclose(outs[0], expected, rtol=2e-5, atol=1e-30)
    common = gate > -5
    np.testing.assert_allclose(outs[0][common], expected[common], rtol=2e-6)
