"""The reference codecs give the bits that the gguf package gives."""

from __future__ import annotations

import pathlib
import re

import gguf
import numpy as np
import pytest
from gguf import quants

from helpers import native
from weight_formats import BLOCKED, FORMATS, halves_at, set_halves

quant = native("quant")

DTYPES = quant.dtypes()
NAMES = [name for name, *_ in DTYPES]
TRAITS = {name: rest for name, *rest in DTYPES}
QUANTISABLE = [name for name, *_, quantises, _ in DTYPES if quantises]


def qtype(name: str) -> gguf.GGMLQuantizationType:
    return gguf.GGMLQuantizationType[name]


def finite_scales(name: str, blocks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Replaces scales that are NaN or infinite; keeps subnormal and zero ones."""
    for at in FORMATS[name].halves:
        scale = halves_at(blocks, at)
        scale[(scale & 0x7C00) == 0x7C00] &= 0xBFFF
        scale[rng.random(scale.shape) < 0.1] &= 0x83FF  # subnormal
        set_halves(blocks, at, scale)
    if name in ("F32", "BF16"):
        blocks[(blocks[:, -1] & 0x7F) == 0x7F, -1] ^= 0x40
    return blocks


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.reshape(-1).view(np.uint32))


def test_every_format_is_listed_with_the_sizes_of_the_gguf_package():
    assert list(FORMATS) == NAMES
    assert len(NAMES) >= 13
    for name, type_id, block_elements, block_bytes, *_ in DTYPES:
        assert qtype(name) == type_id
        assert gguf.GGML_QUANT_SIZES[qtype(name)] == (block_elements, block_bytes)
    sizes = dict(quant.block_sizes())
    assert sizes == {n: TRAITS[n][2] for n in BLOCKED}


def test_the_readme_names_every_format():
    readme = (pathlib.Path(__file__).parents[2] / "README.md").read_text("utf-8")
    line = re.search(r"^\* \*\*Weights\*\*: (.*?)\.$", readme, re.M | re.S)
    assert line is not None
    assert re.split(r",\s+", line[1]) == NAMES


def test_every_type_of_the_gguf_package_has_its_name():
    for theirs in gguf.GGMLQuantizationType:
        assert quant.gguf_type_name(int(theirs)) == theirs.name
    assert quant.gguf_type_name(1000) == ""


@pytest.mark.parametrize("name", NAMES)
def test_dequantising_random_blocks_is_bit_exact(name):
    rng = np.random.default_rng(7)
    blocks = rng.integers(0, 256, (4000, TRAITS[name][2]), dtype=np.uint8)
    blocks = finite_scales(name, blocks, rng)
    assert_same_bits(
        quant.dequantize(name, blocks.tobytes()), quants.dequantize(blocks, qtype(name))
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x0F, 0xF0, 0x80, 0x7F, 0x55, 0xAA])
def test_dequantising_edge_bytes_is_bit_exact(name, fill):
    scales = [0x0000, 0x8000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF]
    blocks = np.full((len(scales), TRAITS[name][2]), fill, dtype=np.uint8)
    for row, scale in zip(blocks, scales, strict=True):
        for at in FORMATS[name].halves:
            set_halves(row, at, scale)
    if name in ("F32", "BF16"):
        blocks = finite_scales(name, blocks, np.random.default_rng(1))
    assert_same_bits(
        quant.dequantize(name, blocks.tobytes()), quants.dequantize(blocks, qtype(name))
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_of_a_block_matters_or_is_a_scale(name):
    """No byte is read twice in place of another: each one changes the result."""
    rng = np.random.default_rng(3)
    block = finite_scales(name, rng.integers(0, 256, (1, TRAITS[name][2]), dtype=np.uint8), rng)
    for at in FORMATS[name].halves:
        set_halves(block, at, 0x3C00)
    base = quant.dequantize(name, block.tobytes())
    for at in range(block.shape[1]):
        changed = block.copy()
        changed[0, at] ^= 0x08
        assert not np.array_equal(quant.dequantize(name, changed.tobytes()), base), at


def quantise_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(11)
    normal = rng.standard_normal((2000, 256)).astype(np.float32)
    ties = (rng.integers(-16, 17, (200, 256)) / 2).astype(np.float32)
    constant = np.repeat(rng.standard_normal((100, 1)).astype(np.float32), 256, axis=1)
    return {
        "normal": normal,
        "wide": normal * (10.0 ** rng.integers(-6, 4, (2000, 256))).astype(np.float32),
        "ties": ties,
        "constant": constant,
        "zeros": np.zeros((2, 256), np.float32),
        "minus_zeros": np.full((2, 256), -0.0, np.float32),
        "tiny": normal[:200] * np.float32(1e-6),
        "one_sided": np.abs(normal[:200]),
        "f16_range": normal[:200] * np.float32(20000),
    }


@pytest.mark.parametrize("name", QUANTISABLE)
@pytest.mark.parametrize("kind", sorted(quantise_inputs()))
def test_quantising_is_bit_exact(name, kind):
    values = quantise_inputs()[kind]
    with np.errstate(over="ignore", invalid="ignore"):
        theirs = quants.quantize(values, qtype(name))
    assert quant.quantize(name, values) == theirs.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_quantiser_exists_exactly_where_the_registry_says(name):
    assert TRAITS[name][3] == (quant.quantize(name, np.zeros(256, np.float32)) is not None)
    assert TRAITS[name][3] or name not in QUANTISABLE


def test_all_half_precision_values_decode_as_numpy_decodes_them():
    halves = np.arange(65536, dtype=np.uint16)
    halves = halves[(halves & 0x7C00) != 0x7C00]
    ours = quant.dequantize("F16", halves.tobytes())
    assert_same_bits(ours, halves.view(np.float16).astype(np.float32))
    assert quant.quantize("F16", ours) == halves.tobytes()


@pytest.mark.parametrize("name", QUANTISABLE)
def test_quantising_nan_and_infinity_does_not_fault(name):
    values = np.array([np.nan, np.inf, -np.inf, 1.0] * 64, np.float32)
    assert len(quant.quantize(name, values)) == 256 // TRAITS[name][1] * TRAITS[name][2]
