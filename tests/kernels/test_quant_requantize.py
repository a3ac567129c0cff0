"""Weights rewritten in a coarser format at load."""

from __future__ import annotations

import numpy as np
import pytest

from helpers import native

m = native("quant")
IDS = {name: dtype for name, dtype, *_ in m.dtypes()}
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]


def weights(seed: int, shape: tuple[int, int] = (37, 96)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) * 10 ** rng.uniform(-3, 3, (shape[0], 1))).astype(np.float32)


def requantize(x: np.ndarray, to: str, n_threads: int = 2) -> tuple[bytes, np.ndarray]:
    packed = m.requantize(IDS["F32"], x.tobytes(), *x.shape, to, n_threads)
    return packed, np.asarray(m.dequantize(to.upper(), packed)).reshape(x.shape)


@pytest.mark.parametrize("to", TYPES)
def test_every_row_is_written_whatever_the_number_of_threads(to: str) -> None:
    x = weights(1)
    packed, back = requantize(x, to)
    assert packed == requantize(x, to, 1)[0]
    error = np.sqrt(((back - x) ** 2).mean(axis=1) / (x**2).mean(axis=1))
    assert error.max() < {"q4": 0.15, "q5": 0.08, "q8": 0.01}[to[:2]]


def test_q4_0_blocks_are_closer_than_the_reference_ones() -> None:
    x = np.random.default_rng(2).standard_normal((200, 256)).astype(np.float32)
    _, best = requantize(x, "q4_0")
    plain = np.asarray(m.dequantize("Q4_0", m.quantize("Q4_0", x.reshape(-1)))).reshape(x.shape)
    mean = [((y - x) ** 2).mean() for y in (best, plain)]
    assert mean[0] < 0.95 * mean[1]
    # Of one block at a time too, but for the rounding of the scale.
    blocks = [((y - x) ** 2).reshape(-1, 32).sum(axis=1) for y in (best, plain)]
    assert (blocks[0] <= 1.02 * blocks[1]).all()


def test_values_that_fit_exactly_stay() -> None:
    x = (np.random.default_rng(3).integers(-8, 8, (4, 64)) * 0.25).astype(np.float32)
    x[:, ::32] = -2.0  # the extreme of each block is -8 steps
    assert np.array_equal(requantize(x, "q4_0")[1], x)
    assert not requantize(np.zeros((2, 32), np.float32), "q4_0")[1].any()


def test_strange_values_do_no_harm() -> None:
    x = weights(4, (6, 32))
    x[0, 3] = np.nan
    x[1, 5] = np.inf
    x[2, 7] = -np.inf
    x[3] = 1e-44
    x[4] = 3e38
    for to in TYPES:
        packed, _ = requantize(x, to)
        assert len(packed) > 0


def test_only_what_becomes_smaller_is_rewritten() -> None:
    assert m.requantize_pays(IDS["Q8_0"], 64, "q4_0")
    assert m.requantize_pays(IDS["F16"], 64, "q8_0")
    assert m.requantize_pays(IDS["Q6_K"], 256, "q4_0")
    assert not m.requantize_pays(IDS["Q4_0"], 64, "q4_0")
    assert not m.requantize_pays(IDS["Q4_K"], 256, "q4_0")
    assert not m.requantize_pays(IDS["Q4_0"], 64, "q8_0")
    assert not m.requantize_pays(IDS["F32"], 48, "q4_0")
