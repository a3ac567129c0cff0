"""Which element of a matrix is in which byte of which lane's register, for the int8 products of
tensor cores: stated here on its own and compared with what the emulator computes and, with
``-m cuda``, what a GPU does.

A layout is a list of modes (size, stride): the digits of (lane, byte) in mixed radix, lowest first,
times the strides give an index into a matrix stored by columns. That is how CUTLASS writes its
thread-value layouts; the numbers were derived from the tables of the PTX manual (mma.m16n8k32,
m16n8k16 and m8n8k16 with .s8) and agree with CUTLASS's traits of sm_75 and sm_80.
"""

from __future__ import annotations

import numpy as np
import pytest

from helpers import native

gpu = native("cuda_kernels")

pytestmark = pytest.mark.usefixtures("kernel_device")

Modes = list[tuple[int, int]]


def places(modes: Modes, n: int) -> np.ndarray:
    """The index that each of 0 .. n - 1 stands for."""
    number = np.arange(n)
    index = np.zeros(n, dtype=np.int64)
    for size, stride in modes:
        index += number % size * stride
        number = number // size
    return index


def layout(lane: Modes, value: Modes, n_values: int) -> np.ndarray:
    """[32 lanes, values]: indices into the matrix, by columns."""
    return places(lane, 32)[:, None] + places(value, n_values)[None, :]


# A is [rows, k] and B [columns, k]; C is [rows, columns]. Four lanes share a row of A and a column
# of B; a lane's word has four k, and further words go on by 8 rows (of A), then by 16 k.
SHAPES = {
    "m16n8k32": {
        "k": 32,
        "a": layout([(4, 4 * 16), (8, 1)], [(4, 16), (2, 8), (2, 16 * 16)], 16),
        "b": layout([(4, 4 * 8), (8, 1)], [(4, 8), (2, 16 * 8)], 8),
    },
    "m16n8k16": {
        "k": 16,
        "a": layout([(4, 4 * 16), (8, 1)], [(4, 16), (2, 8)], 8),
        "b": layout([(4, 4 * 8), (8, 1)], [(4, 8)], 4),
    },
}
C_PLACES = layout([(4, 2 * 16), (8, 1)], [(2, 16), (2, 8)], 4)


def registers(matrix: np.ndarray, where: np.ndarray, n_words: int) -> np.ndarray:
    """The words of every lane: four int8 each, the first in the lowest byte; zeros behind."""
    flat = matrix.flatten(order="F").astype(np.int8)
    out = np.zeros((32, n_words * 4), dtype=np.int8)
    out[:, : where.shape[1]] = flat[where]
    return out.view("<u4").view(np.int32)


@pytest.mark.parametrize("name", SHAPES)
def test_every_element_has_its_own_place(name: str) -> None:
    shape = SHAPES[name]
    for where, n in ((shape["a"], 16 * shape["k"]), (shape["b"], 8 * shape["k"]), (C_PLACES, 128)):
        assert sorted(where.flatten()) == list(range(n))


@pytest.mark.parametrize("name", SHAPES)
def test_products_of_random_matrices(name: str) -> None:
    shape = SHAPES[name]
    rng = np.random.default_rng(1)
    for _ in range(4):
        a = rng.integers(-128, 128, (16, shape["k"]))
        b = rng.integers(-128, 128, (8, shape["k"]))
        c = rng.integers(-(1 << 20), 1 << 20, (16, 8))
        got = gpu.multiply_fragments(
            shape["k"],
            registers(a, shape["a"], 4),
            registers(b, shape["b"], 2),
            c.flatten(order="F")[C_PLACES].astype(np.int32),
        )
        assert np.array_equal(got, (c + a @ b.T).flatten(order="F")[C_PLACES])


@pytest.mark.parametrize("name", SHAPES)
def test_single_elements_meet_where_they_should(name: str) -> None:
    """Names the first wrong place, where a whole product would only differ."""
    shape = SHAPES[name]
    rng = np.random.default_rng(2)
    for _ in range(40):
        row, column, k = rng.integers(16), rng.integers(8), rng.integers(shape["k"])
        a = np.zeros((16, shape["k"]))
        b = np.zeros((8, shape["k"]))
        a[row, k] = 3
        b[column, k] = -5
        got = gpu.multiply_fragments(
            shape["k"],
            registers(a, shape["a"], 4),
            registers(b, shape["b"], 2),
            np.zeros((32, 4), dtype=np.int32),
        )
        product = np.zeros(128, dtype=np.int64)
        product[C_PLACES] = got
        found = [(int(i % 16), int(i // 16), int(product[i])) for i in np.flatnonzero(product)]
        assert found == [(int(row), int(column), -15)], (row, column, k)


def test_the_older_shape_is_half_of_the_newer_one() -> None:
    """sm_75 has m8n8k16 alone; cuda_grid.h makes m16n8k16 of two and m16n8k32 of four of them."""
    a = layout([(4, 4 * 8), (8, 1)], [(4, 8)], 4)  # [8, 16]
    b = layout([(4, 4 * 8), (8, 1)], [(4, 8)], 4)
    c = layout([(4, 2 * 8), (8, 1)], [(2, 8)], 2)  # [8, 8]

    def coordinates(where: np.ndarray, n_rows: int) -> tuple[np.ndarray, np.ndarray]:
        return where % n_rows, where // n_rows

    row, k = coordinates(a, 8)
    wide = SHAPES["m16n8k32"]
    for word in range(4):  # of a: rows + 8 in odd ones, k + 16 in the last two
        wide_row, wide_k = coordinates(wide["a"][:, 4 * word : 4 * word + 4], 16)
        assert np.array_equal(wide_row, row + word % 2 * 8)
        assert np.array_equal(wide_k, k + word // 2 * 16)
    column, k = coordinates(b, 8)
    for word in range(2):
        wide_column, wide_k = coordinates(wide["b"][:, 4 * word : 4 * word + 4], 8)
        assert np.array_equal(wide_column, column)
        assert np.array_equal(wide_k, k + word * 16)
    row, column = coordinates(c, 8)
    for half in range(2):
        wide_row, wide_column = coordinates(C_PLACES[:, 2 * half : 2 * half + 2], 16)
        assert np.array_equal(wide_row, row + 8 * half)
        assert np.array_equal(wide_column, column)
