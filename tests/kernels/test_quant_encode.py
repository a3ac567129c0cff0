"""The encoders: valid blocks, closer to the weights than rounding once, the same bits always."""

from __future__ import annotations

import hashlib

import gguf
import numpy as np
import pytest
from gguf import quants

import weight_formats
from helpers import native

m = native("quant")
PLAIN = ("F32", "F16", "BF16")
BLOCKED = [name for name in weight_formats.WRITTEN if name not in PLAIN]
# Those that the gguf package makes as well.
LEGACY = [name for name, *_, quantises, _ in m.dtypes() if quantises and name not in PLAIN]
BITS = {name: 4 if name in ("MXFP4", "IQ4_NL", "IQ4_XS") else int(name[1]) for name in BLOCKED}
# Codes that stand for the values of a list.
VALUES = {"IQ4_NL": quants.IQ4_NL.kvalues, "IQ4_XS": quants.IQ4_NL.kvalues}


def decoded(name: str, packed: bytes) -> np.ndarray:
    """By the gguf package, not by our own decoder."""
    blocks = np.frombuffer(packed, np.uint8).reshape(1, -1)
    return quants.dequantize(blocks, gguf.GGMLQuantizationType[name]).reshape(-1)


def encode(name: str, x: np.ndarray) -> np.ndarray:
    packed = m.encode(name, x.astype(np.float32))
    return decoded(name, packed)


def relative_error(x: np.ndarray, y: np.ndarray) -> float:
    x = x.astype(np.float64)
    return float(np.sqrt(((y - x) ** 2).sum() / (x**2).sum()))


def weights(kind: str, n: int = 64 * 256) -> np.ndarray:
    rng = np.random.default_rng(5)
    x = rng.standard_normal(n)
    if kind == "heavy tails":
        x = rng.standard_t(4, n)
    if kind == "rows of their own size":
        x *= 10 ** rng.uniform(-2, 1, n // 256).repeat(256)
    if kind == "off centre":
        x += 1.5
    if kind == "one sided":
        x = np.abs(x)
    return (0.02 * x).astype(np.float32)


KINDS = ["normal", "heavy tails", "rows of their own size", "off centre", "one sided"]


def rounded_once(name: str, x: np.ndarray) -> np.ndarray:
    """A plain quantiser: scale and offset from the extremes, kept in full precision.

    The groups are those of the format, without its rounding of scales: a handicap for ours."""
    if name == "MXFP4":
        packed = quants.quantize(x.reshape(1, -1), gguf.GGMLQuantizationType.MXFP4)
        return quants.dequantize(packed, gguf.GGMLQuantizationType.MXFP4).reshape(-1)
    bits = BITS[name]
    size = 16 if name in ("Q2_K", "Q3_K", "Q6_K") else 32
    groups = x.reshape(-1, size).astype(np.float64)
    if name in ("Q4_1", "Q5_1", "Q2_K", "Q4_K", "Q5_K"):
        low = groups.min(axis=1, keepdims=True)
        if name.endswith("K"):
            low = np.minimum(low, 0)
        scale = (groups.max(axis=1, keepdims=True) - low) / (2**bits - 1)
        scale[scale == 0] = 1
        return (np.rint((groups - low) / scale) * scale + low).reshape(-1)
    at = np.abs(groups).argmax(axis=1)[:, None]
    half = 127 if name == "Q8_0" else 2 ** (bits - 1)
    scale = np.take_along_axis(groups, at, axis=1) / -half
    scale[scale == 0] = 1
    if name in VALUES:
        values = np.array(VALUES[name])
        scale *= half / 127  # the largest becomes -127
        nearest = np.abs((groups / scale)[..., None] - values).argmin(axis=-1)
        return (values[nearest] * scale).reshape(-1)
    top = 127 if name == "Q8_0" else half - 1
    return (np.clip(np.rint(groups / scale), -half, top) * scale).reshape(-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", BLOCKED)
def test_every_encoder_is_closer_than_rounding_once(name: str, kind: str) -> None:
    x = weights(kind)
    ours = relative_error(x, encode(name, x))
    # Q4_0 is that on purpose (docs/quantize.md), with a scale in half precision.
    limit = {"Q4_0": 1.002}.get(name, 1.0)
    assert ours < limit * relative_error(x, rounded_once(name, x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LEGACY)
def test_every_encoder_is_closer_than_the_gguf_package(name: str, kind: str) -> None:
    x = weights(kind)
    theirs = quants.quantize(x.reshape(1, -1), gguf.GGMLQuantizationType[name])
    theirs = quants.dequantize(theirs, gguf.GGMLQuantizationType[name]).reshape(-1)
    limit = 1.0 if name in ("Q4_0", "MXFP4") else 0.97
    assert relative_error(x, encode(name, x)) <= limit * relative_error(x, theirs)


@pytest.mark.parametrize("name", BLOCKED)
def test_our_decoder_reads_what_the_gguf_package_reads(name: str) -> None:
    packed = m.encode(name, weights("heavy tails"))
    assert np.array_equal(np.asarray(m.dequantize(name, packed)), decoded(name, packed))


@pytest.mark.parametrize("name", BLOCKED)
def test_zeros_stay_zeros(name: str) -> None:
    assert not encode(name, np.zeros(512)).any()
    one = np.zeros(512)
    one[300] = 0.25
    back = encode(name, one)
    assert back[300] == pytest.approx(0.25, rel=0.01)
    assert np.abs(np.delete(back, 300)).max() < 0.01


@pytest.mark.parametrize("name", BLOCKED)
def test_a_constant_block_stays_constant(name: str) -> None:
    for value in (0.37, -0.37):
        # Of one value MXFP4 has the nearest of eight steps to a power of two.
        rel = 0.15 if name == "MXFP4" else 0.01
        assert encode(name, np.full(256, value)) == pytest.approx(value, rel=rel)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_formats_are_rounded_to_nearest(name: str) -> None:
    x = weights("heavy tails")
    assert m.encode(name, x) == m.quantize(name, x)


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1e-4, 1e3, 6e4])
def test_any_size_of_weights_gives_blocks_without_nan(name: str, scale: float) -> None:
    rng = np.random.default_rng(8)
    x = np.clip(rng.uniform(-1, 1, 2048) * scale, -65504, 65504).astype(np.float32)
    back = encode(name, x)
    assert np.isfinite(back).all()
    assert relative_error(x, back) < 1.2  # half precision has no scales for the smallest ones
    if scale >= 1e-4:
        assert relative_error(x, back) < {2: 0.4, 3: 0.25, 4: 0.12, 5: 0.06, 6: 0.03, 8: 0.01}[
            BITS[name]
        ] * (1.5 if name == "MXFP4" else 1)


@pytest.mark.parametrize("name", BLOCKED)
def test_strange_values_do_no_harm(name: str) -> None:
    x = weights("normal", 2048)
    x[3], x[300], x[600], x[900:1000] = np.nan, np.inf, -np.inf, 3e38
    size = len(m.encode(name, x))
    assert size == len(m.encode(name, np.zeros(2048, np.float32)))


@pytest.mark.parametrize("name", BLOCKED)
def test_blocks_are_encoded_by_themselves(name: str) -> None:
    x = weights("rows of their own size", 1024)
    parts = b"".join(m.encode(name, x[i : i + 256]) for i in range(0, 1024, 256))
    assert m.encode(name, x) == parts


# SHA-256 of what every encoder makes of the same weights, so that a compiler or an instruction set
# that rounds otherwise is noticed. A deliberate change of an encoder changes its line.
DIGESTS = {
    "Q4_0": "143bbbc96d7f4594",
    "Q4_1": "2894420a62e85eee",
    "Q5_0": "3c464c630c1dbecf",
    "Q5_1": "eeb668e06b2f17a0",
    "Q8_0": "532db2a7bbcaf403",
    "Q2_K": "ae5123b5836cf735",
    "Q3_K": "ef0f99c2264fd673",
    "Q4_K": "bb0954793f6eb3bd",
    "Q5_K": "0204fae86c42ac86",
    "Q6_K": "2e5c70aed8def0a2",
    "IQ4_NL": "671ad159e6603cac",
    "IQ4_XS": "571c3a51e42d6492",
    "MXFP4": "889ee6ade089b4cc",
}


@pytest.mark.parametrize("name", BLOCKED)
def test_the_bits_are_the_same_on_every_machine(name: str) -> None:
    # Not from numpy's generator, whose stream may change: a congruential one.
    state = np.uint64(1)
    values = np.empty(4096)
    for i in range(values.size):
        state = np.uint64((int(state) * 6364136223846793005 + 1442695040888963407) % 2**64)
        values[i] = (int(state) >> 40) / 2**24 - 0.5
    x = (values * np.abs(values)).astype(np.float32)
    digest = hashlib.sha256(m.encode(name, x)).hexdigest()[:16]
    assert digest == DIGESTS.get(name), (name, digest)
