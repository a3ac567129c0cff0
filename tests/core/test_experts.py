"""Experts: which are chosen, what they add, and that rows share their reading but no bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_matmul import FORMATS, random_weights

from helpers import native

experts = native("experts")

N_EXPERTS = 6
HIDDEN, SIZE = 512, 256  # of whole blocks in every format


def layer(
    name: str = "F32",
    isa: str = "",
    n_threads: int = 2,
    n_mapped: int = 0,
    seed: int = 5,
    biased: bool = False,
) -> Any:
    """`biased`: as gpt-oss, which also clamps what it activates."""
    rng = np.random.default_rng(seed)
    gate, up, down = (
        random_weights(name, N_EXPERTS * n_out, n_in, rng)
        for n_out, n_in in ((SIZE, HIDDEN), (SIZE, HIDDEN), (HIDDEN, SIZE))
    )
    return experts.Experts(
        isa or experts.isas()[-1],
        n_threads,
        FORMATS[name][0],
        N_EXPERTS,
        HIDDEN,
        SIZE,
        gate,
        up,
        down,
        n_mapped,
        *(biases() if biased else ()),
    )


def biases() -> list[np.ndarray]:
    rng = np.random.default_rng(6)
    return [
        (4 * rng.standard_normal((N_EXPERTS, n))).astype(np.float32) for n in (SIZE, SIZE, HIDDEN)
    ]


def rows(n: int, n_used: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, choices and weights; most rows choose the first experts."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, HIDDEN)).astype(np.float32)
    favour = np.array([8, 4, 2, 1, 1, 0.2])
    chosen = np.stack(
        [rng.choice(N_EXPERTS, n_used, replace=False, p=favour / favour.sum()) for _ in range(n)]
    ).astype(np.int32)
    return x, chosen, rng.uniform(0.05, 1, (n, n_used)).astype(np.float32)


@pytest.mark.parametrize("biased", [False, True])
def test_experts_equal_their_definition(biased: bool) -> None:
    rng = np.random.default_rng(5)
    shapes = ((SIZE, HIDDEN), (SIZE, HIDDEN), (HIDDEN, SIZE))
    gate, up, down = (
        np.frombuffer(random_weights("F32", N_EXPERTS * a, b, rng), np.float32)
        .reshape(N_EXPERTS, a, b)
        .astype(np.float64)
        for a, b in shapes
    )
    gate_bias, up_bias, down_bias = biases()
    x, chosen, weights = rows(5)
    want = np.zeros((5, HIDDEN))
    for r in range(5):
        for e, w in zip(chosen[r], weights[r], strict=True):
            g, u = gate[e] @ x[r], up[e] @ x[r]
            if not biased:
                want[r] += w * (down[e] @ (g / (1 + np.exp(-g)) * u))
                continue
            g, u = np.minimum(g + gate_bias[e], 7), np.clip(u + up_bias[e], -7, 7)
            want[r] += w * (down[e] @ (g / (1 + np.exp(-1.702 * g)) * (u + 1)) + down_bias[e])
    scale = np.abs(want).max()
    for isa in ("reference", experts.isas()[-1]):
        got = layer(isa=isa, biased=biased).run(x, chosen, weights)
        assert np.abs(got - want).max() < 2e-6 * scale


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ["F32", "F16", "Q8_0", "Q4_K", "Q6_K", "MXFP4"])
@pytest.mark.parametrize("isa", [*experts.isas(), *experts.standins()])
def test_rows_that_share_experts_have_the_bits_they_have_alone(
    name: str, isa: str, biased: bool
) -> None:
    x, chosen, weights = rows(41)
    whole = layer(name, isa, biased=biased).run(x, chosen, weights)
    assert np.isfinite(whole).all()
    for r in (0, 7, 40):
        alone = layer(name, isa, biased=biased).run(
            x[r : r + 1], chosen[r : r + 1], weights[r : r + 1]
        )
        np.testing.assert_array_equal(whole[r], alone[0])
    few = layer(name, isa, n_threads=1, biased=biased).run(x[3:8], chosen[3:8], weights[3:8])
    np.testing.assert_array_equal(whole[3:8], few)


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ["F32", "Q8_0", "Q4_K", "MXFP4"])
def test_fused_composed_and_mapped_experts_give_the_same_bits(name: str, biased: bool) -> None:
    x, chosen, weights = rows(19)
    packed = layer(name, biased=biased)
    mapped = layer(name, n_mapped=4, biased=biased)
    assert packed.n_views == 0
    assert mapped.n_views == 12
    want = packed.run(x, chosen, weights)
    np.testing.assert_array_equal(packed.run(x, chosen, weights, composed=True), want)
    np.testing.assert_array_equal(mapped.run(x, chosen, weights), want)


def test_quantised_experts_have_the_same_bits_on_every_instruction_set() -> None:
    x, chosen, weights = rows(41)
    isas = [*experts.isas(), *experts.standins()]
    results = [layer("Q4_K", isa).run(x, chosen, weights) for isa in isas]
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_experts_are_summed_in_the_order_of_their_rank() -> None:
    x, chosen, weights = rows(4, n_used=4)
    one = np.ones((4, 1), np.float32)
    parts = [layer().run(x, chosen[:, k : k + 1], one) for k in range(4)]
    sum_up = weights[:, :1] * parts[0]
    for k in range(1, 4):
        sum_up = sum_up + weights[:, k : k + 1] * parts[k]
    got = layer().run(x, chosen, weights)
    np.testing.assert_array_equal(got, sum_up)
    other = layer().run(x, chosen[:, ::-1].copy(), weights[:, ::-1].copy())
    assert (other != got).any()  # the order is seen in the bits


def route(logits: np.ndarray, n_used: int, isa: str = "", **options: Any) -> Any:
    """Routes by given logits: the input of each row picks a column of the router."""
    n_rows, n_experts = logits.shape
    x = np.zeros((n_rows, HIDDEN), np.float32)
    router = np.zeros((n_experts, HIDDEN), np.float32)
    for r in range(n_rows):
        x[r, r] = 1
        router[:, r] = logits[r]
    return layer(isa=isa).route(x, router, n_used, **options)


@pytest.mark.parametrize("isa", ["reference", *experts.isas()])
def test_the_best_experts_are_chosen_and_of_equal_ones_the_first(isa: str) -> None:
    logits = np.random.default_rng(3).standard_normal((20, 33)).astype(np.float32)
    logits[1] = 0.5
    logits[2, 20:] = logits[2, 20]
    chosen, weights = route(logits, 4, isa)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(chosen, order)
    np.testing.assert_array_equal(chosen[1], [0, 1, 2, 3])
    p = np.exp(logits - logits.max(axis=1, keepdims=True).astype(np.float64))
    best = np.take_along_axis(p, order, axis=1)
    np.testing.assert_allclose(weights, best / best.sum(axis=1, keepdims=True), rtol=1e-6)
    _, of_all = route(logits, 4, isa, of_chosen=False)
    np.testing.assert_allclose(of_all, best / p.sum(axis=1, keepdims=True), rtol=1e-6)


def test_a_row_is_routed_alone_as_among_others() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((37, HIDDEN)).astype(np.float32)
    router = rng.standard_normal((64, HIDDEN)).astype(np.float32) * 1e-3
    results = {}
    for isa in experts.isas():
        chosen, weights = layer(isa=isa).route(x, router, 8)
        for r in range(0, 37, 6):
            one, of_one = layer(isa=isa, n_threads=1).route(x[r : r + 1], router, 8)
            np.testing.assert_array_equal(chosen[r], one[0])
            np.testing.assert_array_equal(weights[r], of_one[0])
        results[isa] = (chosen, weights)
    for chosen, weights in results.values():
        np.testing.assert_array_equal(chosen, results["scalar"][0])
        np.testing.assert_array_equal(weights, results["scalar"][1])


def test_logits_that_are_not_finite_make_the_weights_nan() -> None:
    x = np.ones((3, HIDDEN), np.float32)
    x[0, 3] = np.nan
    x[1] = 1e38
    chosen, weights = layer().route(x, np.ones((8, HIDDEN), np.float32), 2)
    assert np.isnan(weights[:2]).all()
    assert ((chosen >= 0) & (chosen < 8)).all()
    np.testing.assert_array_equal(weights[2], [0.5, 0.5])
