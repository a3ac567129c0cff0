"""Mixtures of experts on the device: the choice, the sorting and the products of the CPU, bit for
bit, without the host: on the emulator of the grid and, with ``-m cuda``, on the first GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_cuda_kernels import small_n_in
from test_experts import route
from test_matmul import FORMATS, random_weights

from helpers import native

gpu = native("cuda_kernels")
cpu = native("experts")
pytestmark = pytest.mark.usefixtures("kernel_device")


@pytest.mark.parametrize("of_chosen", [True, False])
@pytest.mark.parametrize(("n_experts", "n_used"), [(1, 1), (5, 2), (33, 4), (128, 8), (300, 64)])
def test_rows_choose_what_they_choose_on_the_cpu(n_experts, n_used, of_chosen):
    rng = np.random.default_rng(n_experts)
    logits = rng.standard_normal((9, n_experts)).astype(np.float32)
    logits[1] = 0.5  # all equal
    logits[2] = np.round(logits[2])  # many are
    logits[3] *= 60  # e^(x - max) is 0 for most
    logits[4, 1:] = -logits[4, 0]
    chosen, weights = gpu.choose(logits, n_used, of_chosen)
    want, want_weights = route(logits, n_used, of_chosen=of_chosen)
    np.testing.assert_array_equal(chosen, want)
    np.testing.assert_array_equal(weights.view(np.uint32), want_weights.view(np.uint32))


def test_logits_that_are_not_finite_choose_some_experts_with_weights_that_are_nan():
    logits = np.zeros((4, 40), np.float32)
    logits[0, 39], logits[1, 0], logits[2] = np.nan, np.inf, -np.inf
    chosen, weights = gpu.choose(logits, 3, True)
    assert np.isnan(weights[:3]).all()
    assert np.isfinite(weights[3]).all()
    for row in chosen:
        assert len(set(row)) == 3
        assert ((row >= 0) & (row < 40)).all()


@pytest.mark.parametrize(
    ("n_rows", "n_used", "n_experts"),
    [(1, 1, 1), (1, 8, 128), (5, 3, 7), (16, 8, 64), (64, 2, 300)],
)
def test_rows_are_sorted_by_expert_in_tiles_of_one_expert(n_rows, n_used, n_experts):
    rng = np.random.default_rng(n_rows)
    favour = rng.uniform(0, 1, n_experts) ** 3
    chosen = np.argsort(-favour - rng.uniform(0, 0.5, (n_rows, n_experts)))[:, :n_used]
    experts, rows, slots, slot_of = map(np.array, gpu.group(chosen.astype(np.int32), n_experts))
    assert len(rows) == len(slots) == 8 * len(experts)
    assert len(set(slot_of)) == n_rows * n_used
    for pair, slot in enumerate(slot_of):
        assert rows[slot] == pair // n_used
        assert experts[slot // 8] == chosen.reshape(-1)[pair]
        assert slots[slot] == slot
    empty = np.setdiff1d(np.arange(len(rows)), slot_of)
    assert (rows[empty] == -1).all()
    assert (slots[empty] == -1).all()
    used = np.zeros(len(experts), bool)
    used[slot_of // 8] = True
    np.testing.assert_array_equal(experts[~used], -1)
    # No expert is read more often than its rows need.
    counts = np.bincount(chosen.reshape(-1), minlength=n_experts)
    np.testing.assert_array_equal(
        np.bincount(experts[used], minlength=n_experts), (counts + 7) // 8
    )


class Mixture:
    """Of one piece of k, so that the CPU's order of a sum is the whole order."""

    def __init__(self, name: str, n_experts: int = 6) -> None:
        self.type, self.n_experts = FORMATS[name][0], n_experts
        self.hidden = self.size = small_n_in(name)
        rng = np.random.default_rng(7)
        self.stacks = [
            random_weights(name, n_experts * self.size, self.hidden, rng) for _ in range(3)
        ]

    def rows(self, n: int, n_used: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rng = np.random.default_rng(n)
        x = rng.standard_normal((n, self.hidden)).astype(np.float32)
        chosen = np.stack([rng.permutation(self.n_experts)[:n_used] for _ in range(n)])
        return x, chosen.astype(np.int32), rng.uniform(0, 1, (n, n_used)).astype(np.float32)

    def on_cpu(self, *rows: np.ndarray) -> Any:
        isa = cpu.isas()[-1]
        shape = (self.type, self.n_experts, self.hidden, self.size)
        return cpu.Experts(isa, 1, *shape, *self.stacks, 0).run(*rows)

    def on_device(self, *rows: np.ndarray) -> Any:
        return gpu.experts(self.type, self.n_experts, self.size, *self.stacks, *rows)


@pytest.mark.parametrize("name", FORMATS)
def test_experts_have_the_bits_of_the_cpu_alone_and_among_others(name):
    mixture = Mixture(name)
    x, chosen, weights = mixture.rows(21, 3)
    got = mixture.on_device(x, chosen, weights)
    want = mixture.on_cpu(x, chosen, weights)
    np.testing.assert_array_equal(got.view(np.uint32), want.view(np.uint32))
    for r in (0, 20):
        alone = mixture.on_device(x[r : r + 1], chosen[r : r + 1], weights[r : r + 1])
        np.testing.assert_array_equal(alone[0].view(np.uint32), got[r].view(np.uint32))


@pytest.mark.parametrize("processors", [1, 1000])
def test_both_kinds_of_products_compute_experts_alike(processors):
    """Few processors take the wide kernel, many the sliced one."""
    mixture = Mixture("Q8_0")
    rows = mixture.rows(9, 2)
    gpu.set_processors(processors)
    try:
        got = mixture.on_device(*rows)
    finally:
        gpu.set_processors(1)
    np.testing.assert_array_equal(got.view(np.uint32), mixture.on_cpu(*rows).view(np.uint32))


def test_a_row_that_is_not_finite_spoils_no_other():
    mixture = Mixture("Q4_0")
    x, chosen, weights = mixture.rows(10, 2)
    want = mixture.on_device(x, chosen, weights)
    x[4, 3] = np.nan
    got = mixture.on_device(x, chosen, weights)
    assert np.isnan(got[4]).all()
    kept = np.arange(10) != 4
    np.testing.assert_array_equal(got[kept].view(np.uint32), want[kept].view(np.uint32))
