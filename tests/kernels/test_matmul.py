"""The CPU matmul against a double-precision reference, and the bits it promises."""

from __future__ import annotations

import hashlib
import zlib

import numpy as np
import pytest

import weight_formats
from helpers import native

matmul = native("matmul")

FORMATS = {name: f.sizes for name, f in weight_formats.FORMATS.items()}


def random_weights(name: str, n_out: int, n_in: int, rng: np.random.Generator) -> bytes:
    """Random bytes with sane scales: every code, scale and sign occurs."""
    type_id, block, size = FORMATS[name]
    del type_id
    if name == "F32":
        return rng.standard_normal((n_out, n_in)).astype(np.float32).tobytes()
    if name == "F16":
        return rng.standard_normal((n_out, n_in)).astype(np.float16).tobytes()
    if name == "BF16":
        bits = rng.standard_normal((n_out, n_in)).astype(np.float32).view(np.uint32)
        return (bits >> 16).astype(np.uint16).tobytes()
    blocks = rng.integers(0, 256, (n_out * n_in // block, size), dtype=np.uint8)
    if name == "MXFP4":
        blocks[:, 0] = rng.integers(118, 128, len(blocks))  # exponents
    for offset in weight_formats.FORMATS[name].halves:
        weight_formats.set_halves(blocks, offset, rng.uniform(-1, 1, len(blocks)).astype("f2"))
    return blocks.tobytes()


def steady_weights(name: str, n_out: int, n_in: int) -> bytes:
    """Likewise, the same bytes with every version of numpy."""
    _, block, size = FORMATS[name]
    n_bytes = n_out * n_in // block * size
    some = np.frombuffer(hashlib.shake_128(name.encode()).digest(n_bytes), dtype=np.uint8)
    if block == 1:
        values = (some[: n_out * n_in].astype(np.float32) - 128) / 64
        bits = values.view(np.uint32) >> 16
        return {"F32": values, "F16": values.astype(np.float16), "BF16": bits.astype(np.uint16)}[
            name
        ].tobytes()
    blocks = some.reshape(-1, size).copy()
    if name == "MXFP4":
        blocks[:, 0] = 118 + blocks[:, 0] % 10
    for offset in weight_formats.FORMATS[name].halves:
        scales = (np.arange(len(blocks)) % 200 - 100) / 128
        weight_formats.set_halves(blocks, offset, scales.astype("f2"))
    return blocks.tobytes()


def dequantised(name: str, data: bytes, n_out: int, n_in: int) -> np.ndarray:
    flat = matmul.dequantize(FORMATS[name][0], data, n_out * n_in)
    return flat.reshape(n_out, n_in).astype(np.float64)


def quantised_activations(name: str, x: np.ndarray) -> np.ndarray:
    """What the kernel really multiplies with, as float64."""
    block = FORMATS[name][1]
    if block == 1:
        return x.astype(np.float64)
    grouped = x.reshape(x.shape[0], -1, block)
    amax = np.abs(grouped).max(axis=2, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(amax > 0, np.float32(127) / amax, np.float32(0)).astype(np.float32)
    codes = np.rint(grouped * inverse)
    scale = (amax / np.float32(127)).astype(np.float32)
    return (codes.astype(np.float64) * scale.astype(np.float64)).reshape(x.shape)


# kTileLayout, and the checksum of steady_weights() as it packs them.
TILES = {
    "F32": (1, 1092661493),
    "F16": (1, 3941223081),
    "BF16": (1, 3881541387),
    "Q4_0": (1, 3359923863),
    "Q4_1": (1, 2542567267),
    "Q5_0": (1, 3216397267),
    "Q5_1": (1, 1143805682),
    "Q8_0": (1, 4144378925),
    "Q2_K": (1, 3753292537),
    "Q3_K": (1, 1799126594),
    "Q4_K": (1, 3857102415),
    "Q5_K": (1, 68454055),
    "Q6_K": (1, 1319196283),
    "IQ4_NL": (1, 1096357676),
    "IQ4_XS": (1, 3778256778),
    "MXFP4": (1, 858955544),
    "IQ3_S": (1, 2744788668),
    "IQ3_XXS": (1, 793673876),
    "IQ2_S": (1, 4038050103),
    "IQ2_XS": (1, 1671444132),
    "IQ2_XXS": (1, 2716792132),
    "IQ1_S": (1, 3999044928),
    "IQ1_M": (1, 3238647132),
}

SHAPES = [(1, 256), (15, 512), (16, 768), (40, 1536), (33, 256)]


@pytest.mark.parametrize("name", FORMATS)
def test_matmul_equals_the_double_reference(name: str) -> None:
    rng = np.random.default_rng(1)
    type_id, block, _ = FORMATS[name]
    shapes = list(SHAPES)
    if block <= 32:
        shapes += [(17, 32), (16, 96), (31, 576)]
    if block == 1:
        shapes += [(5, 7), (16, 33)]
    engines = {isa: matmul.Matmul(isa, 2) for isa in matmul.isas()}
    for n_out, n_in in shapes:
        data = random_weights(name, n_out, n_in, rng)
        weights = dequantised(name, data, n_out, n_in)
        x = rng.standard_normal((9, n_in)).astype(np.float32)
        x[3] *= 100
        x[4] = 0
        x[5, :: max(1, n_in // 4)] = 50
        exact = quantised_activations(name, x)
        want = exact @ weights.T
        # K-quants subtract mins after the sum: bound by the magnitude of both parts.
        size = np.abs(exact) @ np.abs(weights).T + 1e-30
        slack = 40.0 if name in ("Q2_K", "Q4_K", "Q5_K") else 1.0
        bound = 4e-7 * slack if block > 1 else 2e-7 * np.sqrt(n_in)
        for isa, engine in engines.items():
            got = engine.linear(type_id, n_out, n_in, data, x)
            assert np.max(np.abs(got - want) / size) < bound, (isa, n_out, n_in)


@pytest.mark.parametrize("name", FORMATS)
def test_a_row_has_the_same_bits_for_every_isa_row_count_and_thread_count(name: str) -> None:
    rng = np.random.default_rng(2)
    type_id, block, _ = FORMATS[name]
    shapes = [(83, 512), (200, 1536)]
    shapes += [(33, 608)] if block <= 32 else []  # half a unit at the end
    for n_out, n_in in shapes:
        data = random_weights(name, n_out, n_in, rng)
        x = rng.standard_normal((33, n_in)).astype(np.float32)
        reference = matmul.Matmul("scalar", 1).linear(type_id, n_out, n_in, data, x)
        for isa in matmul.isas():
            for n_threads in (1, 2, 3, 7):
                engine = matmul.Matmul(isa, n_threads)
                counts = [*range(1, 18), 33] if n_threads == 2 else [1, 5, 16, 33]
                counts = [1, 9, 33] if n_threads == 7 else counts
                for rows in counts:
                    got = engine.linear(type_id, n_out, n_in, data, x[:rows])
                    assert np.array_equal(got.view(np.uint32), reference[:rows].view(np.uint32)), (
                        isa,
                        n_threads,
                        rows,
                    )


@pytest.mark.parametrize("name", FORMATS)
def test_matrices_that_are_not_repacked_give_the_same_bits(name: str) -> None:
    rng = np.random.default_rng(5)
    type_id, block, _ = FORMATS[name]
    shapes = [(96, 512), (83, 1536)] + ([(33, 96)] if block <= 32 else [])
    shapes += [(37, 45)] if block == 1 else []
    for n_out, n_in in shapes:
        data = random_weights(name, n_out, n_in, rng)
        x = rng.standard_normal((17, n_in)).astype(np.float32)
        for isa in matmul.isas():
            repacked = matmul.Matmul(isa, 2)
            view = matmul.Matmul(isa, 2, repack=False)
            for rows in (1, 8, 17):
                want = repacked.linear(type_id, n_out, n_in, data, x[:rows])
                got = view.linear(type_id, n_out, n_in, data, x[:rows])
                assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), (isa, rows)


@pytest.mark.parametrize("name", FORMATS)
def test_packed_weights_are_the_same_bytes_everywhere(name: str) -> None:
    """Files of packed weights go from one processor to another, and from one version to the next.

    Where the digest differs, packing has changed: raise kTileLayout, then write the new digests.
    """
    type_id, block, _ = FORMATS[name]
    n_out, n_in = 83, 1536 if block > 1 else 45
    data = steady_weights(name, n_out, n_in)
    x = np.random.default_rng(11).standard_normal((5, n_in)).astype(np.float32)
    packed = {isa: matmul.Matmul(isa, 2).pack(type_id, n_out, n_in, data) for isa in matmul.isas()}
    first = packed["scalar"]
    layout = matmul.tile_layout("scalar")
    assert {packed[isa] for isa in packed if matmul.tile_layout(isa) == layout} == {first}
    assert (layout, zlib.crc32(first)) == TILES[name]
    for isa in matmul.isas():
        kernels = matmul.Matmul(isa, 2)
        want = kernels.linear(type_id, n_out, n_in, data, x)
        got = kernels.linear_packed(type_id, n_out, n_in, packed[isa], x)
        assert np.array_equal(got.view(np.uint32), want.view(np.uint32)), isa
    assert matmul.Matmul("scalar", 2, repack=False).pack(type_id, n_out, n_in, data) == b""


# Of each format of blocks: bytes of a tile and of its header, low and high bits of a code.
LINES = {
    "Q4_0": (64, 4, 0), "Q4_1": (128, 4, 0), "Q5_0": (64, 4, 1), "Q5_1": (128, 4, 1),
    "Q8_0": (64, 8, 0), "Q2_K": (320, 2, 0), "Q3_K": (320, 2, 1), "Q4_K": (320, 4, 0),
    "Q5_K": (320, 4, 1), "Q6_K": (320, 4, 2), "IQ4_NL": (64, 4, 0), "IQ4_XS": (192, 4, 0),
    "MXFP4": (64, 4, 0),
}  # fmt: skip


def vectors_of(lines: np.ndarray, bits: int) -> np.ndarray:
    """[blocks, bits, 64] lines as [blocks, vector, row, 4] codes."""
    shifts = np.arange(0, 8, bits)
    codes = lines[:, :, None, :] >> shifts[None, None, :, None] & (1 << bits) - 1
    return codes.reshape(len(lines), 8, 16, 4)


@pytest.mark.parametrize("name", LINES)
def test_row_pairs_exchange_words_of_two_vectors_within_four_rows(name: str) -> None:
    header, *both_bits = LINES[name]
    type_id, block, _ = FORMATS[name]
    n_blocks = 2 if block == 32 else 8
    plain = matmul.Matmul("scalar", 1).pack(type_id, 16, 1024, steady_weights(name, 16, 1024))
    paired = matmul.pair_rows(type_id, plain)
    size = header + n_blocks * 64 * sum(both_bits)
    a, b = (np.frombuffer(x, dtype=np.uint8).reshape(-1, size) for x in (plain, paired))
    assert np.array_equal(a[:, :header], b[:, :header])
    a, b = (x[:, header:].reshape(-1, sum(both_bits), 64) for x in (a, b))
    first = 0
    for bits in filter(None, both_bits):
        was = vectors_of(a[:, first : first + bits], bits)
        now = vectors_of(b[:, first : first + bits], bits)
        first += bits
        for v in range(8):
            for lane in range(16):
                row = lane // 4 * 4 + v % 2 * 2 + lane % 4 // 2
                word = was[:, v // 2 * 2 + lane % 2, row]
                assert np.array_equal(now[:, v, lane], word), (bits, v, lane)


@pytest.mark.parametrize("name", [n for n in FORMATS if FORMATS[n][1] > 1])
def test_extreme_codes_do_not_overflow(name: str) -> None:
    """All-ones codes and activations at +-127: the worst case of every integer sum."""
    type_id, block, size = FORMATS[name]
    n_in = 1024
    for fill in (0x00, 0xFF, 0x80, 0x7F, 0x55):
        blocks = np.full((16 * n_in // block, size), fill, dtype=np.uint8)
        if name == "MXFP4":
            blocks[:, 0] = 128
        for offset in weight_formats.FORMATS[name].halves:
            weight_formats.set_halves(blocks, offset, np.float16(1))
        data = blocks.tobytes()
        weights = dequantised(name, data, 16, n_in)
        alternating = np.where(np.arange(n_in) % 2, 127.0, -127.0)
        x = np.stack([np.full(n_in, 127.0), np.full(n_in, -127.0), alternating]).astype(np.float32)
        want = x.astype(np.float64) @ weights.T
        size_of = np.abs(x).astype(np.float64) @ np.abs(weights).T + 1e-30
        for isa in matmul.isas():
            got = matmul.Matmul(isa, 1).linear(type_id, 16, n_in, data, x)
            assert np.max(np.abs(got - want) / size_of) < 1e-5, (name, isa, fill)


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("isa", matmul.isas())
def test_activations_are_quantised_to_the_nearest_code(kind: int, isa: str) -> None:
    rng = np.random.default_rng(3)
    block = 32 if kind == 1 else 256
    x = rng.standard_normal(2048).astype(np.float32)
    x[:block] = 0
    x[block] = 1e30
    q, d = matmul.Matmul(isa, 1).quantize(kind, x, isa)
    amax = np.abs(x.reshape(-1, block)).max(axis=1)
    assert np.array_equal(d, (amax / np.float32(127)).astype(np.float32))
    inverse = np.where(amax > 0, np.float32(127) / np.where(amax > 0, amax, 1), 0)
    inverse = inverse.astype(np.float32)
    want = np.rint(x.reshape(-1, block) * inverse[:, None]).astype(np.int8)
    assert np.array_equal(q.reshape(-1, block), want)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_activations_reach_the_output(name: str, bad: float) -> None:
    rng = np.random.default_rng(4)
    type_id = FORMATS[name][0]
    data = random_weights(name, 16, 512, rng)
    x = rng.standard_normal((2, 512)).astype(np.float32)
    x[1, 300] = bad
    for isa in matmul.isas():
        y = matmul.Matmul(isa, 1).linear(type_id, 16, 512, data, x)
        assert np.isfinite(y[0]).all()
        assert not np.isfinite(y[1]).any()


@pytest.mark.parametrize("isa", matmul.isas())
def test_no_other_set_takes_the_place_of_one_that_is_tested(isa):
    """As it would where a processor's products are not those of the scalar kernels."""
    assert matmul.working_isa(isa) == isa
