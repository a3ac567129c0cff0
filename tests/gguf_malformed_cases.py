"""Malformed GGUF files as data: how each is made and what must become of it.

    python tests/gguf_malformed_cases.py FOLDER

writes the small ones into a folder, as the corpus of the fuzz replay.
"""

from __future__ import annotations

import dataclasses
import pathlib
import struct
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import weight_formats
from gguf_fixtures import ARCH, TENSOR_TYPES, Tensor, array, build, small, string


@dataclasses.dataclass(frozen=True)
class Fixture:
    """A file and what must become of it."""

    id: str
    make: Callable[[], bytes]
    outcome: str  # "accept" | "warn" | "refuse"
    reason: str = ""
    code: str = "model_format"  # of a refusal
    limits: tuple[tuple[str, int], ...] = ()
    step: str = "open"  # the call that decides: "open" | "architecture" | "check_values"
    key: bytes | None = None  # that the error must name
    tensor: bytes | None = None


def refuse(name: str, reason: str, make: Callable[[], bytes], **more: Any) -> Fixture:
    return Fixture(name, make, "refuse", reason, **more)


def unsupported(name: str, reason: str, make: Callable[[], bytes], **more: Any) -> Fixture:
    return Fixture(name, make, "refuse", reason, code="unsupported", **more)


def accept(name: str, make: Callable[[], bytes], **more: Any) -> Fixture:
    return Fixture(name, make, "accept", **more)


def warn(name: str, reason: str, make: Callable[[], bytes], **more: Any) -> Fixture:
    return Fixture(name, make, "warn", reason, **more)


def _one(*item: Any, **more: Any) -> Callable[[], bytes]:
    """A file with the architecture and one more key."""
    return lambda: build([ARCH, item[0] if len(item) == 1 else item], **more)


def _infinite_scale(dtype: str, at: int) -> bytes:
    """Two blocks, the second with infinity."""
    blocks = np.zeros((2, TENSOR_TYPES[dtype][2]), np.uint8)
    weight_formats.set_halves(blocks[1], at, 0x7C00)
    return blocks.tobytes()


def _tensor(*args: Any, **more: Any) -> Callable[[], bytes]:
    return lambda: build([ARCH], [Tensor(*args, **more)])


def _tensors(*records: Tensor, **more: Any) -> Callable[[], bytes]:
    return lambda: build([ARCH], records, **more)


def _nested(depth: int) -> bytes:
    return (
        string("k")
        + struct.pack("<I", 9)
        + struct.pack("<IQ", 9, 1) * depth
        + struct.pack("<IQB", 0, 1, 0)
    )


def _cut(make: Callable[[], bytes], n: int) -> Callable[[], bytes]:
    return lambda: make()[:-n]


U64 = 2**64 - 1
_F32 = struct.pack("<8f", *range(8))

HEADER_FIXTURES = [
    refuse("G01 zero bytes", "truncated", lambda: b""),
    refuse("G02 one byte of magic", "truncated", lambda: b"G"),
    refuse("G02 three bytes of magic", "truncated", lambda: b"GGU"),
    refuse("G02 magic only", "truncated", lambda: b"GGUF"),
    refuse("G03 wrong magic", "bad_magic", lambda: build(magic=b"GGUX")),
    refuse("G03 old GGML file", "bad_magic", lambda: b"tjgg" + bytes(60)),
    refuse("G03 zip file", "bad_magic", lambda: b"PK\x03\x04" + bytes(60)),
    refuse("G03 web page", "bad_magic", lambda: b"<!doctype html><html></html>"),
    refuse("G03 LFS pointer", "bad_magic", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
    refuse("G03 safetensors", "bad_magic", lambda: struct.pack("<Q", 64) + b'{"a":{}}' + bytes(60)),
    *(
        refuse(f"G04 version {v}", "bad_version", lambda v=v: build([ARCH], version=v))
        for v in (0, 1, 4, 2**32 - 1)
    ),
    accept("G04 version 2", lambda: build([ARCH], version=2)),
    unsupported("G05 big-endian", "big_endian", lambda: b"GGUF" + struct.pack(">IQQ", 3, 0, 0)),
    unsupported(
        "G05 big-endian version 2", "big_endian", lambda: b"GGUF" + struct.pack(">IQQ", 2, 0, 0)
    ),
    refuse("G05 no version swapped", "bad_version", lambda: b"GGUF" + struct.pack(">IQQ", 9, 0, 0)),
    refuse("G07 n_kv 2^64-1", "count_exceeds_file", lambda: build([ARCH], n_kv=U64)),
    refuse("G07 n_kv 2^63", "count_exceeds_file", lambda: build([ARCH], n_kv=2**63)),
    refuse("G07 n_kv just above", "count_exceeds_file", lambda: build([bytes(13 * 4)], n_kv=5)),
    refuse("G07 n_kv one too many", "truncated", lambda: build([ARCH], n_kv=2)),
    refuse("G07 n_tensors 2^64-1", "count_exceeds_file", lambda: build([ARCH], n_tensors=U64)),
    refuse("G07 n_tensors 2^61", "count_exceeds_file", lambda: build([ARCH], n_tensors=2**61)),
    refuse("G07 n_tensors one too many", "truncated", lambda: build([ARCH] * 1, n_tensors=1)),
    refuse("G07 max_keys", "limit", lambda: build([ARCH, ("a", 1)]), limits=(("max_keys", 1),)),
    refuse(
        "G07 max_tensors",
        "limit",
        _tensors(Tensor("a", (8,)), Tensor("b", (8,))),
        limits=(("max_tensors", 1),),
    ),
    refuse(
        "G08 no keys",
        "missing_key",
        lambda: build(),
        step="architecture",
        key=b"general.architecture",
    ),
    refuse(
        "G10 ends before the data",
        "truncated",
        lambda: build([ARCH], [Tensor("t", (8,), data=b"")])[
            : len(build([ARCH], [Tensor("t", (8,), data=b"")])) // 32 * 32 - 1
        ],
    ),
    accept("G10 no tensors, no padding", lambda: build([ARCH])),
    refuse(
        "G11 key length 2^64-1",
        "string_exceeds_file",
        lambda: build([string("k", U64) + bytes(64)]),
    ),
    refuse(
        "G11 key length 2^63",
        "string_exceeds_file",
        lambda: build([string("k", 2**63) + bytes(64)]),
    ),
    refuse(
        "G11 key length one too many", "string_exceeds_file", lambda: build([string("k" * 40, 41)])
    ),
    refuse(
        "G11 value length 2^64-1",
        "string_exceeds_file",
        lambda: build([string("k") + struct.pack("<IQ", 8, U64)]),
        key=b"k",
    ),
    refuse(
        "G11 value over the limit",
        "limit",
        _one("k", "x" * 100),
        limits=(("max_string_bytes", 99),),
        key=b"k",
    ),
    refuse("G12 empty key", "bad_key", _one("", 1)),
    refuse(
        "G12 the 37-byte file", "bad_key", lambda: build([string("") + struct.pack("<IB", 0, 0)])
    ),
    refuse("G12 key of 65536 bytes", "bad_key", _one("k" * 65536, 1)),
    accept("G12 key of 65535 bytes", _one("k" * 65535, 1)),
    refuse("G13 key with NUL", "bad_key", _one("a\0b", 1), key=b"a\0b"),
    refuse("G13 key with newline", "bad_key", _one("a\nb", 1)),
    refuse("G13 key with escape code", "bad_key", _one("a\x1b[31mb", 1)),
    refuse("G14 key not UTF-8", "bad_utf8", _one(b"a\xff\xfe", 1)),
    refuse("G14 key overlong", "bad_utf8", _one(b"a\xc0\xaf", 1)),
    refuse("G14 key surrogate", "bad_utf8", _one(b"a\xed\xa0\x80", 1)),
    refuse("G14 key cut", "bad_utf8", _one(b"a\xe2\x82", 1)),
    refuse("G14 key above U+10FFFF", "bad_utf8", _one(b"a\xf4\x90\x80\x80", 1)),
    accept("G14 key in UTF-8", _one("cl\xe9 \u20ac \U0001f600", 1)),
    refuse(
        "G16 duplicate key, same value",
        "duplicate_key",
        lambda: build([ARCH, ARCH]),
        key=b"general.architecture",
    ),
    refuse(
        "G16 duplicate key, other value",
        "duplicate_key",
        lambda: build([ARCH, ("a", 1), ("a", "x")]),
        key=b"a",
    ),
    refuse(
        "G18 value type 13", "bad_type", _one(string("k") + struct.pack("<IQ", 13, 0)), key=b"k"
    ),
    refuse(
        "G18 value type 2^32-1",
        "bad_type",
        _one(string("k") + struct.pack("<IQ", 2**32 - 1, 0)),
        key=b"k",
    ),
    refuse(
        "G19 array element type 13",
        "bad_type",
        _one(string("k") + array(13, 1, bytes(8))),
        key=b"k",
    ),
    refuse(
        "G19 array element type 2^32-1",
        "bad_type",
        _one(string("k") + array(2**32 - 1, 0, bytes(8))),
    ),
    unsupported("G20 nested array", "nested_array", lambda: build([_nested(1)]), key=b"k"),
    unsupported(
        "G20 nested 100000 deep", "nested_array", lambda: build([_nested(100_000)]), key=b"k"
    ),
    refuse(
        "G21 array length 2^64-1",
        "count_exceeds_file",
        _one(string("k") + array(4, U64, bytes(64))),
        key=b"k",
    ),
    refuse(
        "G21 array length 2^62",
        "count_exceeds_file",
        _one(string("k") + array(4, 2**62, bytes(64))),
    ),
    refuse(
        "G21 array one too long", "count_exceeds_file", _one(string("k") + array(12, 5, bytes(39)))
    ),
    refuse(
        "G21 string array 2^61",
        "count_exceeds_file",
        _one(string("k") + array(8, 2**61, bytes(64))),
    ),
    refuse(
        "G22 array over the limit",
        "limit",
        _one("k", [1] * 9),
        limits=(("max_array_elements", 8),),
        key=b"k",
    ),
    accept("G22 array at the limit", _one("k", [1] * 8), limits=(("max_array_elements", 8),)),
    refuse(
        "G23 last string of an array cut", "truncated", _cut(_one("k", ["ab", "cd"]), 1), key=b"k"
    ),
    refuse(
        "G23 string of an array 2^64-1",
        "truncated",
        _one(string("k") + array(8, 2, string("a") + string("", U64) + bytes(9))),
    ),
    refuse("G24 bool 2", "bad_bool", _one("k", "bool", 2), key=b"k"),
    refuse("G24 bool 255 in an array", "bad_bool", _one("k", "[bool]", [0, 1, 255]), key=b"k"),
    refuse(
        "G25 architecture with NUL",
        "bad_architecture",
        lambda: build([("general.architecture", "ll\0ma")]),
        step="architecture",
    ),
    accept(
        "G25 tokens that are not UTF-8", _one("tokenizer.ggml.tokens", [b"\xff\xfe", b"a\0b", b""])
    ),
    refuse(
        "G26 alignment as f32",
        "wrong_type",
        _one("general.alignment", "f32", 32.0),
        key=b"general.alignment",
    ),
    refuse(
        "G26 alignment as u64",
        "wrong_type",
        _one("general.alignment", "u64", 32),
        key=b"general.alignment",
    ),
    refuse(
        "G26 alignment as string",
        "wrong_type",
        _one("general.alignment", "32"),
        key=b"general.alignment",
    ),
    refuse(
        "G26 alignment as array",
        "wrong_type",
        _one("general.alignment", [32]),
        key=b"general.alignment",
    ),
    refuse("G26 split count as string", "wrong_type", _one("split.count", "2"), key=b"split.count"),
    *(
        refuse(
            f"G28 alignment {a}",
            "bad_alignment",
            _one("general.alignment", "u32", a),
            key=b"general.alignment",
        )
        for a in (0, 1, 2, 3, 4, 12, 33)
    ),
    *(
        unsupported(
            f"G28 alignment {a}",
            "bad_alignment",
            _one("general.alignment", "u32", a),
            key=b"general.alignment",
        )
        for a in (24, 48, 65528)
    ),
    *(
        accept(
            f"G28 alignment {a}",
            lambda a=a: build([ARCH], [Tensor("a", (3,)), Tensor("b", (5,))], alignment=a),
        )
        for a in (8, 16, 64, 4096, 65536)
    ),
    *(
        refuse(f"G29 alignment {a}", "bad_alignment", _one("general.alignment", "u32", a))
        for a in (2**17, 2**31, 2**32 - 1, 2**32 - 8)
    ),
    refuse("G30 part without its number", "missing_key", _one("split.count", "u16", 3)),
    accept("G30 split into one", _one("split.count", "u16", 1)),
    refuse(
        "G31 architecture missing",
        "missing_key",
        lambda: build([("a", 1)]),
        step="architecture",
        key=b"general.architecture",
    ),
    refuse(
        "G31 architecture empty",
        "bad_architecture",
        lambda: build([("general.architecture", "")]),
        step="architecture",
    ),
    refuse(
        "G31 architecture is a number",
        "wrong_type",
        lambda: build([("general.architecture", 1)]),
        step="architecture",
    ),
    refuse(
        "G31 architecture 1 MiB long",
        "limit",
        lambda: build([("general.architecture", "a" * 2**20)]),
        step="architecture",
    ),
    refuse(
        "G31 architecture with a slash",
        "bad_architecture",
        lambda: build([("general.architecture", "../a")]),
        step="architecture",
    ),
    warn("G32 trailing byte", "trailing_bytes", _tensors(Tensor("t", (8,)), tail=b"\0")),
    warn("G32 trailing data", "trailing_bytes", _tensors(Tensor("t", (8,)), tail=b"x" * 1000)),
    warn(
        "G32 trailing data, no tensors", "trailing_bytes", lambda: build([ARCH], tail=b"x" * 1000)
    ),
]

TENSOR_FIXTURES = [
    refuse("T01 n_dims 0", "bad_ndims", _tensor("t", (), data=_F32, n_dims=0), tensor=b"t"),
    refuse("T01 n_dims 5", "bad_ndims", _tensor("t", (1,) * 5), tensor=b"t"),
    refuse("T01 n_dims 2^32-1", "bad_ndims", _tensor("t", (8,), n_dims=2**32 - 1), tensor=b"t"),
    refuse("T02 dimension 0", "bad_dim", _tensor("t", (8, 0), data=_F32), tensor=b"t"),
    refuse("T02 first dimension 0", "bad_dim", _tensor("t", (0,), data=_F32), tensor=b"t"),
    refuse(
        "T02 dimension 0 of a block type",
        "bad_dim",
        _tensor("t", (0, 4), "Q4_0", data=_F32),
        tensor=b"t",
    ),
    refuse("T03 dimension -1", "bad_dim", _tensor("t", (U64,), data=_F32), tensor=b"t"),
    refuse("T03 dimension 2^63", "bad_dim", _tensor("t", (2**63,), data=_F32), tensor=b"t"),
    refuse(
        "T04 product wraps 2^64",
        "size_overflow",
        _tensor("t", (2**32, 2**32), data=_F32),
        tensor=b"t",
    ),
    refuse(
        "T04 product wraps 2^64 to 0",
        "size_overflow",
        _tensor("t", (2**16,) * 4, data=_F32),
        tensor=b"t",
    ),
    refuse(
        "T04 product wraps 2^63",
        "size_overflow",
        _tensor("t", (2**32, 2**31), data=_F32),
        tensor=b"t",
    ),
    refuse(
        "T04 product wraps 2^32",
        "exceeds_file",
        _tensor("t", (2**16, 2**16), data=_F32),
        tensor=b"t",
    ),
    refuse(
        "T04 elements wrap 2^63, bytes do not",
        "size_overflow",
        _tensor("t", (2**32, 2**31), "Q2_K", data=_F32),
        tensor=b"t",
    ),
    refuse(
        "T04 four wrapping sizes",
        "size_overflow",
        _tensor("t", (2**62, 2**62, 2**62, 4), data=_F32),
        tensor=b"t",
    ),
    refuse("T05 bytes wrap 2^64", "size_overflow", _tensor("t", (2**62,), data=_F32), tensor=b"t"),
    refuse("T05 bytes wrap 2^63", "size_overflow", _tensor("t", (2**61,), data=_F32), tensor=b"t"),
    refuse(
        "T05 block bytes wrap",
        "size_overflow",
        _tensor("t", (2**63 - 32,), "Q8_0", data=_F32),
        tensor=b"t",
    ),
    refuse(
        "T06 sum of sizes wraps",
        "exceeds_file",
        _tensors(Tensor("a", (2**60,), data=b""), Tensor("b", (2**60,), data=b"", offset=2**62)),
        tensor=b"a",
    ),
    refuse(
        "T07 dimension 2^42+1", "exceeds_file", _tensor("t", (2**42 + 1,), data=_F32), tensor=b"t"
    ),
    refuse(
        "T08 Q4_0 with rows of 33", "bad_block", _tensor("t", (33,), "Q4_0", data=_F32), tensor=b"t"
    ),
    refuse(
        "T08 Q4_K with rows of 32",
        "bad_block",
        _tensor("t", (32, 8), "Q4_K", data=_F32),
        tensor=b"t",
    ),
    *(
        refuse(f"T10 type {i}", "bad_type", _tensor("t", (32,), type_id=i), tensor=b"t")
        for i in (1000, 2**32 - 1)
    ),
    *(
        unsupported(f"T11 type {i}", "tensor_type", _tensor("t", (256,), type_id=i), tensor=b"t")
        for i in (4, 5, 9, 15, 24, 28, 31, 33, 34, 36, 38, 40)
    ),
    refuse("T12 empty name", "bad_name", _tensor("", (8,))),
    refuse("T12 name of 64 bytes", "bad_name", _tensor("t" * 64, (8,)), tensor=b"t" * 64),
    accept("T12 name of 63 bytes", _tensor("t" * 63, (8,))),
    refuse("T12 name with NUL", "bad_name", _tensor("a\0b", (8,))),
    refuse("T12 name with escape code", "bad_name", _tensor("a\x1b[2Jb", (8,))),
    refuse("T12 name not UTF-8", "bad_utf8", _tensor(b"a\xff", (8,))),
    refuse(
        "T12 name length 2^64-1",
        "string_exceeds_file",
        lambda: build([ARCH], [Tensor("t", (8,))]).replace(string("t"), string("t", U64)),
    ),
    refuse(
        "T13 duplicate tensor",
        "duplicate_tensor",
        _tensors(Tensor("t", (8,)), Tensor("t", (8,))),
        tensor=b"t",
    ),
    refuse("T14 offset not aligned", "bad_offset", _tensor("t", (8,), offset=4), tensor=b"t"),
    refuse(
        "T14 second offset not aligned",
        "bad_offset",
        _tensors(Tensor("a", (4,)), Tensor("b", (8,), offset=16)),
        tensor=b"b",
    ),
    refuse(
        "T15 gap",
        "bad_offset",
        _tensors(Tensor("a", (8,)), Tensor("b", (8,), offset=64), tail=bytes(64)),
        tensor=b"b",
    ),
    refuse("T15 first offset not 0", "bad_offset", _tensor("t", (8,), offset=32), tensor=b"t"),
    refuse(
        "T15 other order",
        "bad_offset",
        _tensors(Tensor("a", (8,), offset=32), Tensor("b", (8,), offset=0)),
    ),
    refuse("T15 offset 2^64-32", "bad_offset", _tensor("t", (8,), offset=2**64 - 32), tensor=b"t"),
    refuse("T16 one byte short", "exceeds_file", _cut(_tensor("t", (8,)), 1), tensor=b"t"),
    refuse(
        "T16 one block short", "exceeds_file", _cut(_tensor("t", (32, 16), "Q4_0"), 18), tensor=b"t"
    ),
    refuse(
        "T16 second tensor missing",
        "exceeds_file",
        _tensors(Tensor("a", (8,)), Tensor("b", (8,), data=b"")),
        tensor=b"b",
    ),
    refuse(
        "T17 same offset",
        "bad_offset",
        _tensors(Tensor("a", (8,)), Tensor("b", (8,), offset=0)),
        tensor=b"b",
    ),
    refuse(
        "T17 partial overlap",
        "bad_offset",
        _tensors(Tensor("a", (64,)), Tensor("b", (8,), offset=32)),
        tensor=b"b",
    ),
    refuse(
        "T19 laid out with another alignment",
        "bad_offset",
        lambda: build(
            [ARCH, ("general.alignment", "u32", 64)], [Tensor("a", (8,)), Tensor("b", (8,))]
        ),
        tensor=b"b",
    ),
    refuse(
        "T19 key missing for the layout",
        "bad_offset",
        _tensors(Tensor("a", (8,)), Tensor("b", (8,)), alignment=64, alignment_key=False),
        tensor=b"b",
    ),
    accept(
        "T20 last tensor not padded", _tensors(Tensor("a", (8,)), Tensor("b", (3,)), pad_last=False)
    ),
    *(
        refuse(
            f"T23 {text} in {dtype}",
            "non_finite",
            _tensor("t", (8,), dtype, data=raw * 7 + bad),
            step="check_values",
            tensor=b"t",
        )
        for dtype, text, raw, bad in (
            ("F32", "NaN", bytes(4), struct.pack("<f", float("nan"))),
            ("F32", "-Inf", bytes(4), struct.pack("<f", float("-inf"))),
            ("F16", "NaN", bytes(2), struct.pack("<e", float("nan"))),
            ("F16", "Inf", bytes(2), struct.pack("<e", float("inf"))),
            ("BF16", "NaN", bytes(2), b"\xc0\x7f"),
            ("BF16", "-Inf", bytes(2), b"\x80\xff"),
        )
    ),
    *(
        refuse(
            f"T23 Inf scale of {dtype} at {at}",
            "non_finite",
            _tensor(
                "t",
                (TENSOR_TYPES[dtype][1], 2),
                dtype,
                data=_infinite_scale(dtype, at),
            ),
            step="check_values",
            tensor=b"t",
        )
        for dtype in weight_formats.BLOCKED
        for at in weight_formats.FORMATS[dtype].halves
    ),
    accept("T23 NaN without the check", _tensor("t", (1,), data=struct.pack("<f", float("nan")))),
    *(
        accept(
            f"T25 all zero {dtype}",
            _tensor("t", (256,), dtype, data=bytes(256 // spec[1] * spec[2])),
            step="check_values",
        )
        for dtype, spec in TENSOR_TYPES.items()
    ),
    accept("T26 a tensor of every type", small, step="check_values"),
]

FIXTURES = HEADER_FIXTURES + TENSOR_FIXTURES


def main() -> None:
    """Writes the small fixtures into a folder, as the corpus of the fuzz replay."""
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for fixture in FIXTURES:
        content = fixture.make()
        if len(content) < 1 << 16:
            name = "".join(c if c.isalnum() else "_" for c in fixture.id)
            (folder / f"{name}.gguf").write_bytes(content)


if __name__ == "__main__":
    main()
