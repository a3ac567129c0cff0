"""Writes a GGUF version 3 file: keys, tensor directory, then each tensor's data as it comes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .element_types import TYPES, tensor_bytes
from .errors import ConvertError, short
from .tensors import Target

ALIGNMENT = 32
# Value types of the format: number, code of struct.
KINDS: dict[str, tuple[int, str]] = {
    "uint8": (0, "B"),
    "int8": (1, "b"),
    "uint16": (2, "H"),
    "int16": (3, "h"),
    "uint32": (4, "I"),
    "int32": (5, "i"),
    "float32": (6, "f"),
    "bool": (7, "?"),
    "string": (8, ""),
    "array": (9, ""),
    "uint64": (10, "Q"),
    "int64": (11, "q"),
    "float64": (12, "d"),
}
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True)
class Typed:
    """A value whose type is not left to Python's."""

    kind: str  # a name of KINDS
    value: Any
    item: str | None = None  # of an array


def _string(text: str | bytes, key: str) -> bytes:
    try:
        raw = text if isinstance(text, bytes) else text.encode()
    except UnicodeEncodeError:
        raise ConvertError(
            f"the value of '{key}' holds text that is not Unicode: {short(text)}"
        ) from None
    return struct.pack("<Q", len(raw)) + raw


def _array(key: str, values: Sequence[Any]) -> bytes:
    kinds = {type(value) for value in values}
    if kinds <= {str, bytes}:
        kind, content = STRING, b"".join(_string(value, key) for value in values)
    elif kinds == {int}:
        kind, content = INT32, struct.pack(f"<{len(values)}i", *values)
    elif kinds == {float}:
        kind, content = FLOAT32, struct.pack(f"<{len(values)}f", *values)
    else:
        raise TypeError(f"{key}: an array of {kinds}")
    return struct.pack("<IIQ", ARRAY, kind, len(values)) + content


def _typed_items(key: str, kind: str, values: Sequence[Any]) -> bytes:
    if kind == "string":
        return b"".join(_string(value, key) for value in values)
    wanted = {"bool": bool, "float32": (int, float), "float64": (int, float)}.get(kind, int)
    if not all(isinstance(v, wanted) and isinstance(v, bool) == (kind == "bool") for v in values):
        raise TypeError(f"{key}: not all {kind}")
    return struct.pack(f"<{len(values)}{KINDS[kind][1]}", *values)


def _typed(key: str, typed: Typed) -> bytes:
    number = struct.pack("<I", KINDS[typed.kind][0])
    if typed.item is None:
        return number + _typed_items(key, typed.kind, [typed.value])
    head = number + struct.pack("<IQ", KINDS[typed.item][0], len(typed.value))
    return head + _typed_items(key, typed.item, typed.value)


def encode_key(key: str, value: Any) -> bytes:
    """The Python type chooses the GGUF type: int u32 or u64, float f32, lists of one kind."""
    name = _string(key, key)
    if isinstance(value, Typed):
        return name + _typed(key, value)
    if isinstance(value, bool):
        return name + struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        kind, code = (UINT32, "I") if 0 <= value < 1 << 32 else (UINT64, "Q")
        return name + struct.pack(f"<I{code}", kind, value)
    if isinstance(value, float):
        return name + struct.pack("<If", FLOAT32, value)
    if isinstance(value, (str, bytes)):
        return name + struct.pack("<I", STRING) + _string(value, key)
    if isinstance(value, (list, tuple)):
        return name + _array(key, value)
    raise TypeError(f"{key}: {type(value).__name__}")


def padded(n_bytes: int) -> int:
    return (n_bytes + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


def header(keys: dict[str, Any], targets: list[Target]) -> bytes:
    """All bytes before the data, padded."""
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(targets), len(keys))]
    parts += [encode_key(key, value) for key, value in keys.items()]
    offset = 0
    for target in targets:
        shape = tuple(reversed(target.shape))
        parts.append(_string(target.name, target.name))
        parts.append(struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        parts.append(struct.pack("<IQ", TYPES[target.dtype].id, offset))
        offset += padded(tensor_bytes(target))
    raw = b"".join(parts)
    return raw.ljust(padded(len(raw)), b"\0")


def file_bytes(keys: dict[str, Any], targets: list[Target]) -> int:
    return len(header(keys, targets)) + sum(padded(tensor_bytes(t)) for t in targets)


def padding(n_bytes: int) -> bytes:
    """What follows the data of a tensor of so many bytes."""
    return b"\0" * (padded(n_bytes) - n_bytes)
