"""Stacks of matrices as checkpoints hold them: turned, two in one, or packed as MXFP4."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .tensors import Rows, Source, n_rows


@dataclass(frozen=True)
class Piece:
    """Where a checkpoint has the rows of each matrix: among those of a larger one, or turned, as
    columns. A vector counts as a matrix of one column, a matrix as a stack of vectors."""

    first: int = 0
    step: int = 1
    turned: bool = False

    def rows(self, count: int) -> slice:
        return slice(self.first, self.first + count * self.step, self.step)


@dataclass
class PieceSource:
    """Of each matrix of a checkpoint's stack, some rows. A row here is all of a matrix."""

    name: str
    whole: Source
    piece: Piece
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.whole.dtype

    def read(self, first: int, count: int) -> Rows:
        matrices = []
        for number in range(first, first + count):
            matrix = self.whole.read(number, 1).reshape(self.whole.shape[1:])
            matrix = matrix.T if self.piece.turned else matrix
            matrices.append(matrix[self.piece.rows(self.shape[1])].reshape(-1))
        return np.stack(matrices)


@dataclass
class JoinedSource:
    """The way back: a checkpoint's stack, of pieces in any number."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "F32"
    pieces: list[tuple[Piece, Source]] = field(default_factory=list)

    def read(self, first: int, count: int) -> Rows:
        turned = self.pieces[0][0].turned
        one = self.shape[:0:-1] if turned else self.shape[1:]
        out = []
        for number in range(first, first + count):
            matrix = np.empty(one, np.float32)
            for piece, source in self.pieces:
                part = source.read(number, 1).reshape(source.shape[1:])
                matrix[piece.rows(len(part))] = part
            out.append((matrix.T if turned else matrix).reshape(-1))
        return np.stack(out)


@dataclass
class Reshaped:
    """The same numbers as another shape, in few rows."""

    name: str
    whole: Source
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.whole.dtype

    def read(self, first: int, count: int) -> Rows:
        numbers = self.whole.read(0, n_rows(self.whole.shape))
        return numbers.reshape(n_rows(self.shape), -1)[first : first + count]


@dataclass
class JoinedRows:
    """The way back of a matrix whose rows went to several."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "F32"
    parts: list[tuple[np.ndarray, Source]] = field(default_factory=list)

    def read(self, first: int, count: int) -> Rows:
        matrix = np.empty(self.shape, np.float32)
        for order, source in self.parts:
            matrix[order] = source.read(0, len(order))
        return matrix[first : first + count]


# ---------------------------------------------------------------- MXFP4

PACKED = "MXFP4"
BLOCK = 32  # elements, of one scale


def packed_names(name: str) -> tuple[str, str]:
    return f"{name}_blocks", f"{name}_scales"


def packed_shapes(n: int, n_rows: int, n_in: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (n, n_rows, n_in // BLOCK, BLOCK // 2), (n, n_rows, n_in // BLOCK)


@dataclass
class PackedSource:
    """The same of a checkpoint in MXFP4, as the bytes of a GGUF file: each block its scale, then
    codes, of which a checkpoint has neighbours in a byte and a GGUF file those half a block
    apart."""

    name: str
    blocks: Any  # sources that also give bytes
    scales: Any
    piece: Piece
    shape: tuple[int, ...]
    dtype: str = PACKED

    def read(self, first: int, count: int) -> Rows:
        rows = self.piece.rows(self.shape[1])
        n_blocks = self.shape[2] // BLOCK
        out = np.empty((count, self.shape[1], n_blocks, 1 + BLOCK // 2), np.uint8)
        for i in range(count):
            one = self.blocks.read_bytes(first + i, 1).reshape(self.blocks.shape[1:])[rows]
            scales = self.scales.read_bytes(first + i, 1).reshape(self.scales.shape[1:])
            codes = np.stack([one & 15, one >> 4], axis=-1).reshape(*one.shape[:-1], BLOCK)
            out[i, :, :, 0] = scales[rows]
            out[i, :, :, 1:] = codes[..., : BLOCK // 2] | codes[..., BLOCK // 2 :] << 4
        return out.reshape(count, -1)
