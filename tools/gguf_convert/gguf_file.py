"""Writes a GGUF version 3 file: keys, tensor directory, then each tensor's data as it comes."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, BinaryIO

from .element_types import TYPES, tensor_bytes
from .errors import ConvertError, short
from .tensors import Target

ALIGNMENT = 32
# Value types of the format.
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 5, 6, 7, 8, 9, 10


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


def encode_key(key: str, value: Any) -> bytes:
    """The Python type chooses the GGUF type: int u32 or u64, float f32, lists of one kind."""
    name = _string(key, key)
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


def pad_tensor(file: BinaryIO, n_bytes: int) -> None:
    file.write(b"\0" * (padded(n_bytes) - n_bytes))
