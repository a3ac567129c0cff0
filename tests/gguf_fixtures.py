"""Builds GGUF files byte by byte, valid and invalid.

    build(kv=[("general.architecture", "llama"), ("llama.block_count", 2)],
          tensors=[Tensor("token_embd.weight", (64, 32))])

A key/value pair is (key, value), with the type inferred (str string, bool bool, int u32, float
f32, list array of the type of its first item), (key, type, value) with a type of VALUE_TYPES or
"[type]" for arrays, or bytes that go into the file as they are.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import weight_formats

VALUE_TYPES = {
    "u8": 0, "i8": 1, "u16": 2, "i16": 3, "u32": 4, "i32": 5, "f32": 6, "bool": 7,
    "string": 8, "array": 9, "u64": 10, "i64": 11, "f64": 12,
}  # fmt: skip
FORMATS = {
    "u8": "B", "i8": "b", "u16": "H", "i16": "h", "u32": "I", "i32": "i", "f32": "f", "bool": "B",
    "u64": "Q", "i64": "q", "f64": "d",
}  # fmt: skip
# name -> (id, elements per block, bytes per block)
TENSOR_TYPES = {name: f.sizes for name, f in weight_formats.FORMATS.items()}


def string(text: str | bytes, length: int | None = None) -> bytes:
    """A length-prefixed string; `length` claims another length."""
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def _scalar(kind: str, value: Any) -> bytes:
    if kind == "string":
        return string(value)
    return struct.pack("<" + FORMATS[kind], value)


def _infer(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (str, bytes)):
        return "string"
    if isinstance(value, int):
        return "u32"
    if isinstance(value, float):
        return "f32"
    return f"[{_infer(value[0])}]"


def value(kind: str, content: Any) -> bytes:
    """A value with its type in front."""
    if kind.startswith("["):
        return array(
            VALUE_TYPES[kind[1:-1]], len(content), b"".join(_scalar(kind[1:-1], v) for v in content)
        )
    return struct.pack("<I", VALUE_TYPES[kind]) + _scalar(kind, content)


def array(type_id: int, count: int, content: bytes = b"") -> bytes:
    return struct.pack("<IIQ", VALUE_TYPES["array"], type_id, count) + content


def key_value(item: bytes | tuple[Any, ...]) -> bytes:
    if isinstance(item, bytes):
        return item
    if len(item) == 2:
        return string(item[0]) + value(_infer(item[1]), item[1])
    return string(item[0]) + value(item[1], item[2])


@dataclasses.dataclass
class Tensor:
    """One tensor record and its data; shape innermost first. None: what is right."""

    name: str | bytes
    shape: Sequence[int]
    dtype: str = "F32"
    data: bytes | None = None
    offset: int | None = None
    n_dims: int | None = None
    type_id: int | None = None

    def n_bytes(self) -> int:
        n = 1
        for size in self.shape:
            n *= size
        _, elements, block = TENSOR_TYPES[self.dtype]
        return n // elements * block

    def content(self) -> bytes:
        if self.data is not None:
            return self.data
        # Finite as F32, F16, BF16 and as any block scale.
        return (bytes(range(0x30, 0x40)) * (self.n_bytes() // 16 + 1))[: self.n_bytes()]


def _pad(size: int, alignment: int) -> int:
    return -size % alignment


def build(
    kv: Iterable[bytes | tuple[Any, ...]] = (),
    tensors: Iterable[Tensor | tuple[Any, ...]] = (),
    *,
    alignment: int = 32,
    alignment_key: bool = True,
    magic: bytes = b"GGUF",
    version: int = 3,
    n_kv: int | None = None,
    n_tensors: int | None = None,
    pad_last: bool = True,
    tail: bytes = b"",
) -> bytes:
    """The bytes of a file. `n_kv` and `n_tensors` claim other counts; an `alignment` other than 32
    adds general.alignment unless `alignment_key` is false."""
    pairs = [key_value(item) for item in kv]
    if alignment != 32 and alignment_key:
        pairs.append(key_value(("general.alignment", "u32", alignment)))
    records = [item if isinstance(item, Tensor) else Tensor(*item) for item in tensors]
    out = magic + struct.pack(
        "<IQQ",
        version,
        len(records) if n_tensors is None else n_tensors,
        len(pairs) if n_kv is None else n_kv,
    )
    out += b"".join(pairs)
    data = b""
    for i, record in enumerate(records):
        n_dims = len(record.shape) if record.n_dims is None else record.n_dims
        type_id = TENSOR_TYPES[record.dtype][0] if record.type_id is None else record.type_id
        offset = len(data) if record.offset is None else record.offset
        out += string(record.name) + struct.pack("<I", n_dims)
        out += b"".join(struct.pack("<Q", size) for size in record.shape)
        out += struct.pack("<IQ", type_id, offset)
        data += record.content()
        if pad_last or i + 1 < len(records):
            data += bytes(_pad(len(data), alignment))
    if records:
        out += bytes(_pad(len(out), alignment))
    return out + data + tail


ARCH = ("general.architecture", "llama")


def small() -> bytes:
    """A valid file with a key of every type and array type and a tensor of every type."""
    kv: list[Any] = [ARCH]
    for kind in FORMATS:
        kv.append((f"test.{kind}", kind, 1))
        kv.append((f"test.{kind}.array", f"[{kind}]", [0, 1, 1]))
    kv += [
        ("test.text", "caf\xe9"),
        ("tokenizer.ggml.tokens", ["a", "", "b\xe9"]),
        ("test.empty", "[u32]", []),
    ]
    shapes = {1: (3, 2), 32: (64,), 256: (256, 1, 1, 1)}
    tensors = [Tensor(f"t.{name}", shapes[spec[1]], name) for name, spec in TENSOR_TYPES.items()]
    return build(kv, tensors)
