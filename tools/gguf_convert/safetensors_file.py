"""Reads safetensors files that nobody vouches for, a few rows at a time.

The header is checked completely before the first byte of data is read: size, types, shapes against
lengths, offsets against the file, overlaps and gaps. Rows are read with ordinary reads, not through
a mapping, so that memory stays small.
"""

from __future__ import annotations

import math
import pathlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ConvertError, short
from .safe_json import parse_object
from .tensors import Rows, n_rows, row_length

MAX_HEADER = 100_000_000  # the format's own limit
MAX_DIMENSION = 1 << 40
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2},
    **{"F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8},
}
FLOATS = {"F16": "<f2", "BF16": "<u2", "F32": "<f4", "F64": "<f8"}


def to_float32(raw: bytes | bytearray, dtype: str) -> np.ndarray:
    values = np.frombuffer(raw, FLOATS[dtype])
    if dtype == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


@dataclass
class SafeTensor:
    file: SafetensorsFile
    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int  # in the file
    n_bytes: int

    def read_bytes(self, first: int, count: int) -> np.ndarray:
        """Rows of a tensor of bytes."""
        length = row_length(self.shape)
        raw = self.file.read_bytes(self.begin + first * length, count * length)
        return np.frombuffer(raw, np.uint8).reshape(count, length)

    def read(self, first: int, count: int) -> Rows:
        length = row_length(self.shape)
        if self.dtype not in FLOATS:
            raise ConvertError(
                f"{self.file.path}: tensor '{short(self.name)}' has the type {self.dtype}; "
                f"only {', '.join(FLOATS)} can be converted (not checkpoints quantised already)"
            )
        if first < 0 or count < 0 or first + count > n_rows(self.shape):
            raise IndexError(f"rows {first}..{first + count} of {self.shape}")
        row_bytes = length * ITEM_BYTES[self.dtype]
        raw = self.file.read_bytes(self.begin + first * row_bytes, count * row_bytes)
        return to_float32(raw, self.dtype).reshape(count, length)


class SafetensorsFile:
    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            self._file = path.open("rb")
            self._size = path.stat().st_size
        except OSError as error:
            raise ConvertError(f"{path}: cannot be read: {error.strerror}") from None
        try:
            self.tensors = self._read_header()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def read_bytes(self, begin: int, count: int) -> bytes:
        self._file.seek(begin)
        raw = self._file.read(count)
        if len(raw) != count:
            raise ConvertError(
                f"{self.path}: the file ends at {begin + len(raw)} while {begin + count} bytes "
                "are needed; it was shortened while being read"
            )
        return raw

    def _fail(self, what: str) -> ConvertError:
        return ConvertError(f"{self.path}: {what}")

    def _read_header(self) -> dict[str, SafeTensor]:
        if self._size < 8:
            raise self._fail(f"{self._size} bytes are too few for a safetensors file")
        (header_bytes,) = struct.unpack("<Q", self.read_bytes(0, 8))
        if header_bytes > MAX_HEADER:
            raise self._fail(
                f"the header claims {header_bytes} bytes, at most {MAX_HEADER} are allowed"
            )
        if header_bytes > self._size - 8:
            raise self._fail(
                f"the header claims {header_bytes} bytes but the file has {self._size}: truncated?"
            )
        header = parse_object(self.read_bytes(8, header_bytes), f"{self.path}: header")
        header.pop("__metadata__", None)
        data_begin = 8 + header_bytes
        found = {name: self._parse(name, entry, data_begin) for name, entry in header.items()}
        self._check_layout(found, data_begin)
        return found

    def _parse(self, name: str, entry: Any, data_begin: int) -> SafeTensor:
        def whole(value: Any) -> bool:
            return isinstance(value, int) and not isinstance(value, bool) and value >= 0

        label = f"tensor '{short(name)}'"
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            raise self._fail(f"{label} should have dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
            raise self._fail(f"{label} has the unknown type '{short(dtype)}'")
        if (
            not isinstance(shape, list)
            or len(shape) > 8
            or not all(whole(size) and size < MAX_DIMENSION for size in shape)
        ):
            raise self._fail(f"{label} has the shape {short(shape)}, expected whole numbers")
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(whole, offsets)):
            raise self._fail(f"{label} has the offsets {short(offsets)}, expected two numbers")
        begin, end = offsets
        expected = math.prod(shape) * ITEM_BYTES[dtype]
        if end - begin != expected:
            raise self._fail(
                f"{label} {dtype} {shape} needs {expected} bytes, its offsets span {end - begin}"
            )
        if data_begin + end > self._size:
            raise self._fail(
                f"{label} ends at byte {data_begin + end} but the file has {self._size}: truncated?"
            )
        return SafeTensor(self, name, dtype, tuple(shape), data_begin + begin, expected)

    def _check_layout(self, tensors: dict[str, SafeTensor], data_begin: int) -> None:
        at, previous = data_begin, "the header"
        for tensor in sorted(tensors.values(), key=lambda t: (t.begin, t.n_bytes)):
            if tensor.begin != at:
                kind = "overlaps" if tensor.begin < at else "leaves a gap after"
                raise self._fail(f"tensor '{short(tensor.name)}' {kind} {short(previous)}")
            at, previous = tensor.begin + tensor.n_bytes, f"tensor '{tensor.name}'"
        if at != self._size:
            raise self._fail(f"{self._size - at} bytes follow the last tensor")
