"""Norms, activations, addition and argmax against NumPy, the same bits on every ISA."""

from __future__ import annotations

import math

import numpy as np
import pytest

from helpers import native

ops = native("ops")
ISAS = ops.isas()
LENGTHS = [1, 2, 15, 16, 17, 63, 64, 65, 127, 576, 896, 1000, 1536]


def equal_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.tobytes() == b.tobytes()


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("n", LENGTHS)
def test_norm_agrees_with_numpy_on_every_isa(kind: str, n: int) -> None:
    rng = np.random.default_rng(n)
    x = (rng.standard_normal(n) * 3 + 0.5).astype(np.float32)
    weight = rng.standard_normal(n).astype(np.float32)
    bias = rng.standard_normal(n).astype(np.float32) if kind == "layer" else None
    wide = x.astype(np.float64)
    mean = wide.mean() if kind == "layer" else 0.0
    expected = (wide - mean) / np.sqrt(((wide - mean) ** 2).mean() + 1e-5) * weight
    if bias is not None:
        expected = expected + bias
    outs = [ops.norm(isa, kind, x, weight, bias, 1e-5) for isa in ISAS]
    # A handful of roundings of values of size |expected| (and of the bias).
    np.testing.assert_allclose(outs[0], expected, rtol=1e-6, atol=2e-6)
    assert all(equal_bits(outs[0], out) for out in outs)


def test_layer_norm_without_bias_adds_nothing() -> None:
    x = np.arange(20, dtype=np.float32)
    ones, zeros = np.ones(20, np.float32), np.zeros(20, np.float32)
    for isa in ISAS:
        with_zeros = ops.norm(isa, "layer", x, ones, zeros, 1e-5)
        assert equal_bits(ops.norm(isa, "layer", x, ones, None, 1e-5), with_zeros)


def activation_inputs() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate(
        [
            np.linspace(-110, 110, 20001),
            np.linspace(-6, 6, 20001),
            rng.standard_normal(5000) * 1e-3,
            [0.0, -0.0, 1e-30, -1e-30, 87.5, 88.5, 88.8, -88.5, 3e38, -3e38],
        ]
    ).astype(np.float32)


def exact_activation(name: str, x: np.ndarray) -> np.ndarray:
    if name == "silu":
        return np.array([v * math.exp(min(v, 0)) / (1 + math.exp(-abs(v))) for v in x.tolist()])
    if name == "gelu_tanh":  # as x times the logistic function of twice the tanh's argument
        twice = tanh_argument(x)
        low = np.exp(np.minimum(twice, 0))
        return x * low / (1 + np.exp(-np.abs(twice)))
    return np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])


def tanh_argument(x: np.ndarray) -> np.ndarray:
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)


def test_the_tanh_gelu_is_that_of_its_definition() -> None:
    x = np.linspace(-6, 6, 201)
    expected = [
        0.5 * v * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x
    ]
    np.testing.assert_allclose(exact_activation("gelu_tanh", x), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", ["silu", "gelu_erf", "gelu_tanh"])
def test_activation_is_accurate_to_float_rounding(name: str) -> None:
    x = activation_inputs()
    expected = exact_activation(name, x.astype(np.float64))
    outs = [ops.activate(isa, name, x) for isa in ISAS]
    # Relative to the exact value also in the negative tail, until e^-x overflows.
    bound = 4e-7
    if name == "gelu_tanh":  # the argument's rounding counts where it is large and negative
        bound += 2e-7 * np.clip(-tanh_argument(x.astype(np.float64)), 0, 100)
    excess = np.abs(outs[0] - expected) - 3e-37 - bound * np.abs(expected)
    assert excess.max() <= 0, x[excess.argmax()]
    assert all(equal_bits(outs[0], out) for out in outs)


@pytest.mark.parametrize("name", ["silu", "gelu_erf", "gelu_tanh"])
@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_gated_activation_is_activation_times_up(name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    gate, up = rng.standard_normal((2, n)).astype(np.float32)
    for isa in ISAS:
        product = ops.activate(isa, name, gate) * up
        assert equal_bits(ops.activate_multiply(isa, name, gate, up), product)


def test_activation_keeps_nan() -> None:
    x = np.array([1.0, np.nan, -1.0], np.float32)
    for isa in ISAS:
        for name in ("silu", "gelu_erf", "gelu_tanh"):
            assert np.isnan(ops.activate(isa, name, x)).tolist() == [False, True, False]


@pytest.mark.parametrize("n", [1, 15, 16, 17, 100])
def test_add_is_float_addition(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, n)).astype(np.float32)
    for isa in ISAS:
        assert equal_bits(ops.add(isa, x, y), x + y)


@pytest.mark.parametrize("n", [1, 15, 16, 17, 128, 1025])
def test_the_largest_of_a_row(n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_normal(n).astype(np.float32)
    for isa in ISAS:
        assert ops.max(isa, x) == x.max()
        for position in {0, n // 2, n - 1}:
            lone = np.full(n, -np.inf, np.float32)
            lone[position] = -5
            assert ops.max(isa, lone) == -5
            for bad in (np.nan, np.inf):
                spoiled = x.copy()
                spoiled[position] = bad
                assert np.isnan(ops.max(isa, spoiled))
        assert ops.max(isa, np.full(n, -np.inf, np.float32)) == -np.inf


@pytest.mark.parametrize("n", [1, 15, 16, 17, 128, 1025])
def test_sums_of_exponentials_have_the_same_bits_on_every_isa(n: int) -> None:
    rng = np.random.default_rng(n)
    x = (5 * rng.standard_normal(n)).astype(np.float32)
    x[0] = -np.inf
    top = x.max() if n > 1 else np.float32(0)
    found = {ops.sum_exp(isa, x, float(top)) for isa in ISAS}
    assert len(found) == 1
    expected = np.exp(x.astype(np.float64) - float(top)).sum()
    assert found.pop() == pytest.approx(expected, rel=1e-6, abs=1e-40)
