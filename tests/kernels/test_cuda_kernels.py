"""The CUDA kernels' products against the CPU backend, bit for bit: on the emulator of the grid and,
with ``-m cuda``, on the first GPU."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from test_matmul import FORMATS, random_weights

from helpers import native

gpu = native("cuda_kernels")
matmul = native("matmul")
pytestmark = pytest.mark.usefixtures("kernel_device")

QUANTISED = [name for name, (_, block, _) in FORMATS.items() if block > 1]


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    """Equal bits; NaNs may differ in theirs."""
    nan = np.isnan(a)
    return bool(
        np.array_equal(nan, np.isnan(b))
        and np.array_equal(a[~nan].view(np.uint32), b[~nan].view(np.uint32))
    )


def product(name: str, n_out: int, data: bytes, **more: object) -> object:
    return gpu.Product(FORMATS[name][0], n_out, data, **more)


def one(x: np.ndarray, name: str, n_out: int, data: bytes, **more: object) -> np.ndarray:
    return gpu.linear(x, [product(name, n_out, data)], **more)[0]


def rows_of_x(n_rows: int, n_in: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.standard_normal((n_rows, n_in)).astype(np.float32)
    if n_rows > 2:
        x[1] *= 100
        x[2, :: max(1, n_in // 4)] = 50
    return x


def small_n_in(name: str) -> int:
    """As many weights as fit one piece of k, so that the CPU's order is the whole order."""
    block = FORMATS[name][1]
    return {1: 16, 32: 64, 256: 256}[block]


def sliced_reference(name: str, n_out: int, n_in: int, data: bytes, x: np.ndarray) -> np.ndarray:
    """The CPU's product of each piece of k, added in ascending order."""
    type_id, block, size = FORMATS[name]
    rows = np.frombuffer(data, np.uint8).reshape(n_out, -1)
    begins = gpu.k_slice_begins(type_id, n_in)
    engine = matmul.Matmul("scalar", 1)
    total = None
    for begin, end in zip(begins, [*begins[1:-1], n_in], strict=False):
        part = np.ascontiguousarray(rows[:, begin // block * size : end // block * size])
        y = engine.linear(
            type_id, n_out, end - begin, part.tobytes(), np.ascontiguousarray(x[:, begin:end])
        )
        total = y if total is None else total + y
    assert total is not None
    return total


def shapes_of(name: str) -> list[tuple[int, int]]:
    block = FORMATS[name][1]
    if block == 256:
        return [(16, 256), (37, 1280), (16, 2560)]
    if block == 32:
        return [(16, 32), (37, 96), (5, 576), (16, 1088)]
    return [(5, 7), (16, 16), (37, 300)]


@pytest.mark.parametrize("name", FORMATS)
def test_packing_keeps_every_weight(name: str) -> None:
    rng = np.random.default_rng(1)
    type_id = FORMATS[name][0]
    for n_out, n_in in shapes_of(name):
        data = random_weights(name, n_out, n_in, rng)
        got = gpu.embed(product(name, n_out, data), n_in, np.arange(n_out, dtype=np.int32))
        want = matmul.dequantize(type_id, data, n_out * n_in).reshape(n_out, n_in)
        assert np.array_equal(got, want), (n_out, n_in)


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_head_finds_is_embedded_and_no_token_reads_no_memory(name: str) -> None:
    rng = np.random.default_rng(15)
    n_out, n_in = shapes_of(name)[1]
    data = random_weights(name, n_out, n_in, rng)
    matrix = product(name, n_out, data)
    want = gpu.embed(matrix, n_in, np.arange(n_out, dtype=np.int32))
    for token in (0, 3, n_out - 1):
        found = gpu.embed_found(matrix, n_in, token, 1.5)
        assert same_bits(found, want[token]), token
    # Not finite logits have no best token: any row will do, and the emulator sees every access.
    for token in (-1, n_out, 2**31 - 1, -(2**31)):
        assert same_bits(gpu.embed_found(matrix, n_in, token, np.nan), want[0]), token


@pytest.mark.parametrize("n_rows", [1, 9, 32, 45])
def test_tokens_of_a_head_take_the_places_of_those_that_were_unknown(n_rows: int) -> None:
    rng = np.random.default_rng(16)
    tokens = rng.integers(0, 1000, n_rows).astype(np.int32)
    found = rng.integers(-1, 1000, 24).astype(np.int32)
    sources = rng.integers(-1, 24, n_rows).astype(np.int32)
    want = np.where(sources < 0, tokens, found[sources])
    assert np.array_equal(gpu.take_tokens(tokens, sources, found), want)


@pytest.mark.parametrize("name", FORMATS)
def test_products_have_the_bits_of_the_cpu_for_every_row_count(name: str) -> None:
    rng = np.random.default_rng(2)
    for n_out, n_in in shapes_of(name):
        data = random_weights(name, n_out, n_in, rng)
        x = rows_of_x(21, n_in, rng)
        want = sliced_reference(name, n_out, n_in, data, x)
        counts = (1, 2, 4, 5, 9, 16, 21) if n_in < 1000 else (1, 3, 16)
        for n_rows in counts:
            got = one(x[:n_rows], name, n_out, data)
            assert same_bits(got, want[:n_rows]), (n_out, n_in, n_rows)


@pytest.mark.parametrize("name", ["F16", "Q5_1", "Q6_K"])
def test_prompts_have_the_bits_of_single_rows(name: str) -> None:
    rng = np.random.default_rng(12)
    n_in = small_n_in(name)
    data = random_weights(name, 33, n_in, rng)
    x = rows_of_x(70, n_in, rng)  # three groups of 32 columns
    got = one(x, name, 33, data)
    for row in (0, 15, 31, 32, 64, 69):
        assert same_bits(got[row], one(x[row : row + 1], name, 33, data)[0]), row


@pytest.mark.parametrize("name", QUANTISED)
def test_the_plain_path_has_the_bits_of_the_tensor_cores(name: str) -> None:
    rng = np.random.default_rng(3)
    n_out, n_in = shapes_of(name)[1]
    data = random_weights(name, n_out, n_in, rng)
    x = rows_of_x(9, n_in, rng)
    want = one(x, name, n_out, data)
    assert same_bits(one(x, name, n_out, data, use_dp4a=True), want)


@pytest.fixture
def processors(kernel_device: str) -> Iterator[Callable[[int], None]]:
    """Sets how many processors kernels and grids are chosen for."""
    yield gpu.set_processors
    gpu.set_processors(1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_warp_for_a_tile_has_the_bits_of_a_warp_for_a_piece(
    name: str, processors: Callable[[int], None]
) -> None:
    rng = np.random.default_rng(16)
    for n_out, n_in in (shapes_of(name)[1], (490, small_n_in(name))):
        data = random_weights(name, n_out, n_in, rng)
        for n_rows in (1, 4, 9, 33):
            x = rows_of_x(n_rows, n_in, rng)
            processors(100)  # too many for the tiles: all slice
            want = one(x, name, n_out, data)
            for n_processors in (0, 1):  # none slices, large matrices do not
                processors(n_processors)
                assert same_bits(one(x, name, n_out, data), want), (n_out, n_rows, n_processors)


@pytest.mark.parametrize("name", FORMATS)
def test_gated_pairs_have_the_same_bits_by_tiles_and_by_pieces(
    name: str, processors: Callable[[int], None]
) -> None:
    rng = np.random.default_rng(17)
    n_out, n_in = 300, shapes_of(name)[1][1]
    pair = [product(name, n_out, random_weights(name, n_out, n_in, rng)) for _ in range(2)]
    for n_rows in (3, 12):
        x = rows_of_x(n_rows, n_in, rng)
        processors(100)
        want = gpu.gated(x, *pair)
        for n_processors in (0, 1):
            processors(n_processors)
            assert same_bits(gpu.gated(x, *pair), want), (n_rows, n_processors)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_does_not_depend_on_its_neighbours_or_the_order_of_blocks(name: str) -> None:
    rng = np.random.default_rng(4)
    n_out, n_in = shapes_of(name)[1]
    data = random_weights(name, n_out, n_in, rng)
    x = rows_of_x(16, n_in, rng)
    want = one(x, name, n_out, data)
    order = rng.permutation(16)
    assert same_bits(one(np.ascontiguousarray(x[order]), name, n_out, data), want[order])
    poisoned = x.copy()
    poisoned[5] = np.nan
    kept = np.arange(16) != 5
    got = one(poisoned, name, n_out, data)
    assert same_bits(got[kept], want[kept])
    assert np.isnan(got[5]).all()
    gpu.set_backwards(True)  # of the emulator; a GPU has its own order
    try:
        assert same_bits(one(x, name, n_out, data), want)
    finally:
        gpu.set_backwards(False)


def test_the_cut_of_k_is_one_of_the_shape_only_and_covers_it() -> None:
    for name, (type_id, block, _) in FORMATS.items():
        for n_in in (32, 64, 256, 576, 896, 1536, 2560, 4864, 8960, 18944):
            if n_in % block != 0:
                continue
            begins = gpu.k_slice_begins(type_id, n_in)
            assert begins[0] == 0
            assert begins[-1] >= n_in
            assert 1 <= len(begins) - 1 <= 16, name
            assert all(a < b for a, b in itertools.pairwise(begins)), (name, n_in)


@pytest.mark.parametrize("kind", ["none", "rms", "layer"])
@pytest.mark.parametrize("name", ["F16", "Q4_1", "Q8_0", "Q4_K", "Q6_K"])
def test_norm_bias_activation_and_accumulation_are_those_of_the_cpu(kind: str, name: str) -> None:
    rng = np.random.default_rng(5)
    n_in, n_out = small_n_in(name), 37
    x = rows_of_x(6, n_in, rng)
    weight = rng.standard_normal(n_in).astype(np.float32)
    norm_bias = rng.standard_normal(n_in).astype(np.float32) if kind == "layer" else None
    norm = gpu.Norm(kind, weight, norm_bias, 1e-5) if kind != "none" else gpu.Norm()
    index = np.array([4, 0, 5, 5], dtype=np.int32)
    for activation in ("none", "silu", "gelu_erf", "gelu_tanh"):
        products = [
            product(
                name,
                n,
                random_weights(name, n, n_in, rng),
                bias=rng.standard_normal(n).astype(np.float32),
                activation=activation,
                onto=rng.standard_normal((4, n)).astype(np.float32) if n == 16 else None,
            )
            for n in (n_out, 16)
        ]
        got = gpu.linear(x, products, norm=norm, row_index=index)
        want = gpu.cpu_linear(x, products, norm=norm, row_index=index)
        for a, b in zip(got, want, strict=True):
            assert same_bits(a, b), activation


@pytest.mark.parametrize("n_in", [1, 5, 63, 64, 65, 100, 900])
def test_norms_have_the_bits_of_the_cpu_for_every_length(n_in: int) -> None:
    """Seen through a matrix that picks single elements."""
    rng = np.random.default_rng(6)
    picks = rng.choice(n_in, min(n_in, 16), replace=False)
    matrix = np.zeros((len(picks), n_in), np.float32)
    matrix[np.arange(len(picks)), picks] = 1
    x = rows_of_x(3, n_in, rng)
    weight = rng.standard_normal(n_in).astype(np.float32)
    for kind, bias in (("rms", None), ("layer", weight * 2), ("layer", None)):
        norm = gpu.Norm(kind, weight, bias, 1e-6)
        products = [product("F32", len(picks), matrix.tobytes())]
        got = gpu.linear(x, products, norm=norm)[0]
        assert same_bits(got, gpu.cpu_linear(x, products, norm=norm)[0]), kind


def test_formats_that_want_different_inputs_share_one_preparation() -> None:
    rng = np.random.default_rng(7)
    x = rows_of_x(3, 256, rng)
    products = [
        product(name, n, random_weights(name, n, 256, rng))
        for name, n in (("Q4_K", 33), ("Q4_K", 16), ("Q5_0", 16), ("F16", 5))
    ]
    got = gpu.linear(x, products)
    for i, (y, spec) in enumerate(zip(got, products, strict=True)):
        assert same_bits(y, gpu.linear(x, [spec])[0]), i
    # Q4_K: one piece of k, so the CPU's bits.
    assert same_bits(got[0], gpu.cpu_linear(x, products[:1])[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e-42, 3e38, 0.0])
@pytest.mark.parametrize("name", ["Q4_0", "Q5_1", "Q6_K", "F32"])
def test_extreme_activations_end_as_on_the_cpu(name: str, bad: float) -> None:
    rng = np.random.default_rng(8)
    n_in = small_n_in(name)
    x = np.zeros((2, n_in), np.float32)
    x[0, 3] = bad
    x[1] = rng.standard_normal(n_in)
    products = [product(name, 16, random_weights(name, 16, n_in, rng))]
    assert same_bits(gpu.linear(x, products)[0], gpu.cpu_linear(x, products)[0])


@pytest.mark.parametrize("activation", ["silu", "gelu_erf", "gelu_tanh"])
@pytest.mark.parametrize("names", [("Q4_0", "Q4_0"), ("Q5_1", "Q5_1"), ("Q8_0", "Q4_0"),
                                   ("Q4_K", "Q4_K"), ("Q6_K", "Q4_K"), ("F16", "F16")])  # fmt: skip
def test_gated_products_have_the_bits_of_the_cpu(names: tuple[str, str], activation: str) -> None:
    rng = np.random.default_rng(9)
    n_in, n_out = small_n_in(names[0]), 37
    x = rows_of_x(17, n_in, rng)
    weight = rng.standard_normal(n_in).astype(np.float32)
    norm = gpu.Norm("rms", weight, None, 1e-5)
    pair = [product(name, n_out, random_weights(name, n_out, n_in, rng)) for name in names]
    for n_rows in (1, 4, 9, 17):
        part = x[:n_rows]
        want = gpu.gated(part, *pair, norm=norm, activation=activation, on_cpu=True)
        for use_dp4a in (False, True):
            got = gpu.gated(part, *pair, norm=norm, activation=activation, use_dp4a=use_dp4a)
            assert same_bits(got, want), (n_rows, use_dp4a)


@pytest.mark.parametrize("kind", ["rms", "layer"])
@pytest.mark.parametrize("n", [1, 16, 80, 128, 200])
@pytest.mark.parametrize("adds", [False, True])
def test_norm_of_groups_has_the_bits_of_the_cpu(kind: str, n: int, adds: bool) -> None:
    rng = np.random.default_rng(n)
    weight, bias = rng.standard_normal((2, n)).astype(np.float32)
    spec = gpu.Norm(kind, weight, bias if kind == "layer" else None, 1e-5)
    for n_rows, n_groups in ((1, 1), (3, 4), (40, 3)):
        x, to = rng.standard_normal((2, n_rows, n_groups * n)).astype(np.float32)
        to = to if adds else None
        got = gpu.norm(x, n_groups, spec, to)
        want = gpu.norm(x, n_groups, spec, to, on_cpu=True)
        assert same_bits(got, want)
        wide = x.astype(np.float64).reshape(n_rows, n_groups, n)
        mean = wide.mean(-1, keepdims=True) if kind == "layer" else 0.0
        expected = (wide - mean) / np.sqrt(((wide - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
        expected = expected * weight + (bias if kind == "layer" else 0.0)
        expected = expected.reshape(n_rows, -1) + (to if adds else 0.0)
        np.testing.assert_allclose(want, expected, rtol=2e-6, atol=4e-6)


FAULTS = {
    1: "a race on shared memory",
    2: "a store 256 bytes into a buffer of 256",
    3: "a misaligned load",
    4: "shared memory at 256 of 256",
    5: "wait for others of their block or warp",
    6: "wait for others of their block or warp",
    7: "a race on shared memory",
    8: "lanes of a warp meet in",
    9: "a load before wait_for_previous()",
    10: "the end of a thread before wait_for_previous()",
    11: "a second wait_for_previous()",
    12: "a prefetch 256 bytes into a buffer of 256",
    13: "a load of what block 0 of the launch writes",
    14: "a store that changes what block 0 of the launch writes",
    15: "a store to what another block of the launch has read",
    17: "a load before wait_for_previous() of what an earlier kernel stored",
    18: "a load before wait_for_previous() of what an earlier kernel stored",
    20: "no fence() was between that and an atomic_add()",
    21: "no fence() was between that and an atomic_add()",
    22: "with no fence() behind an atomic_add(), or no sync() behind that",
    24: "a launch of 96 threads of a kernel for 64",
    25: "bytes of shared memory at a time, of which a processor of sm_75 holds 7",
    26: "a store 160 bytes into a buffer of 128",
    23: "with no fence() behind an atomic_add(), or no sync() behind that",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_emulator_finds_mistakes(fault: int, device: str) -> None:
    if device == "cuda":
        pytest.skip("about the emulator")
    error, _ = gpu.run_faulty(fault)
    assert FAULTS[fault] in error


def test_the_emulator_runs_what_is_right(device: str) -> None:
    if device == "cuda":
        pytest.skip("about the emulator")
    error, data = gpu.run_faulty(0)
    assert error == ""
    assert np.array_equal(data, np.roll(np.arange(64, dtype=np.float32), -1))
    error, data = gpu.run_faulty(19)
    assert error == ""
    assert np.array_equal(data, np.tile(-np.arange(32, dtype=np.float32), 2))


@pytest.mark.parametrize(
    ("fault", "closed", "says"),
    [
        (0, False, ""),
        (2, False, "a store 256 bytes into a buffer of 256"),  # the first of its neighbour
        (
            0,
            True,
            "outside of device memory|bytes into a buffer of",
        ),  # nobody's, or behind another's
    ],
)
def test_parts_of_a_block_of_the_emulated_device_are_kept_apart(
    fault: int, closed: bool, says: str
) -> None:
    error = gpu.run_in_part(fault, closed)
    assert re.search(says, error)
    assert bool(says) == bool(error)
