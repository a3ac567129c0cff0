"""Weight types of a GGUF file: which tensor gets which, their sizes, rows to bytes."""

from __future__ import annotations

import math
import pathlib
import re
from dataclasses import dataclass

import numpy as np

from .errors import ConvertError
from .stacks import PACKED
from .tensors import Rows, Target, n_rows, row_length


@dataclass(frozen=True)
class ElementType:
    id: int
    block_elements: int
    block_bytes: int


# The list that everything is made from; this file runs from a checkout.
LIST = pathlib.Path(__file__).resolve().parents[2] / "cpp" / "tensor" / "formats.def"
LINE = re.compile(
    r"^SPECDEC_(PLAIN|BLOCK32|BLOCK256|READ256)"
    r"\((\w+), \w+, (\d+), (\d+), -?\d+, -?\d+, (-?\d+)\)$",
    re.M,
)
ELEMENTS = {"PLAIN": 1, "BLOCK32": 32, "BLOCK256": 256, "READ256": 256}
LINES = LINE.findall(LIST.read_text("utf-8"))

TYPES = {
    name: ElementType(int(number), ELEMENTS[kind], int(n_bytes))
    for kind, name, number, n_bytes, _ in LINES
}
IDS = "I64"  # of a head's ids, which are not weights
TYPES.setdefault(IDS, ElementType(27, 1, 8))
# general.file_type of what is written here; the others are made by the native quantiser from a file
# with unquantised weights.
WRITTEN = ("F32", "F16", "Q4_0", "Q4_1", "Q8_0", "Q5_0", "Q5_1", "BF16")
ALL_FILE_TYPES = {name: int(number) for *_, name, _, _, number in LINES if int(number) >= 0}
FILE_TYPES = {name: ALL_FILE_TYPES[name] for name in WRITTEN}
MIXES = (
    "Q2_K",
    "Q3_K",
    "Q3_K_S",
    "Q3_K_M",
    "Q3_K_L",
    "Q4_K",
    "Q5_K",
    "Q4_K_S",
    "Q4_K_M",
    "Q5_K_S",
    "Q5_K_M",
)
NATIVE_OUTTYPES = (*(name for name in ALL_FILE_TYPES if name not in WRITTEN), *MIXES)
OUTTYPES = (*FILE_TYPES, *NATIVE_OUTTYPES)
FP16_MAX = 65504.0


def is_matrix(target: Target) -> bool:
    """Or a stack of some. Routers of experts are kept exact: near ties would turn over."""
    exact = target.plain or target.name.endswith(".ffn_gate_inp.weight")
    return len(target.shape) >= 2 and not exact


def choose_types(targets: list[Target], outtype: str, *, keeps_head: bool = True) -> None:
    """Matrices get `outtype`; vectors stay F32. A row that is no whole number of blocks stays F16.

    `keeps_head`: the matrix that makes the logits is the most sensitive one: Q8_0 at least, as the
    formats of fewer bits would cost it too much. Of one that only drafts it is the most expensive.
    """
    names = {target.name for target in targets}
    head = "output.weight" if "output.weight" in names else "token_embd.weight"
    for target in targets:
        if target.source.dtype in (PACKED, IDS):
            target.dtype = target.source.dtype
            continue
        dtype = "F32"
        if is_matrix(target):
            raised = keeps_head and target.name == head and outtype.startswith(("Q4", "Q5"))
            dtype = "Q8_0" if raised else outtype
            if target.shape[-1] % TYPES[dtype].block_elements:
                dtype = "F16"
        target.dtype = dtype


def lossless_type(targets: list[Target]) -> str:
    """The smallest plain type that holds the matrices of a checkpoint exactly."""
    dtypes = {target.source.dtype for target in targets if is_matrix(target)} - {PACKED}
    return dtypes.pop() if dtypes in ({"F16"}, {"BF16"}) else "F32"


def tensor_bytes(target: Target) -> int:
    kind = TYPES[target.dtype]
    if len(target.shape) < 2:
        return math.prod(target.shape) * kind.block_bytes
    return (
        n_rows(target.shape) * (row_length(target.shape) // kind.block_elements) * kind.block_bytes
    )


def _to_bf16(rows: Rows) -> bytes:
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))  # to the nearest, ties to even
    return (rounded >> 16).astype("<u2").tobytes()


def encode_rows(rows: Rows, dtype: str, name: str) -> bytes:
    """`name` is the tensor's, for messages. Bytes are of that type already."""
    if rows.dtype == np.uint8:
        return rows.tobytes()
    largest = float(np.abs(rows).max(initial=0.0))
    if not math.isfinite(largest):
        raise ConvertError(f"tensor '{name}' holds numbers that are infinite or not numbers")
    if dtype == "F32":
        return rows.astype("<f4").tobytes()
    if dtype == "BF16":
        return _to_bf16(rows)
    if dtype == "F16":
        if largest > FP16_MAX:
            raise ConvertError(
                f"tensor '{name}' holds {largest:g}, too large for F16: use bf16 or f32"
            )
        return rows.astype("<f2").tobytes()
    import gguf  # numpy codecs of the quantised formats

    packed = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[dtype])
    return np.ascontiguousarray(packed).tobytes()
