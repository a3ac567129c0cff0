"""Tensors as the converter sees them: sources that give rows as float32, targets that want them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

BLOCK_ELEMENTS = 4 << 20  # rows are handled in blocks of about 16 MiB as float32

Rows = np.ndarray  # float32 [n_rows, row_length]


def n_rows(shape: tuple[int, ...]) -> int:
    return shape[0] if shape else 1


def row_length(shape: tuple[int, ...]) -> int:
    """Elements per row; a vector is a column of rows of one element."""
    return math.prod(shape[1:])


class Source(Protocol):
    """A tensor of a checkpoint. The first dimension counts rows."""

    name: str
    shape: tuple[int, ...]
    dtype: str  # F64, F32, F16 or BF16

    def read(self, first: int, count: int) -> Rows: ...


@dataclass
class Computed:
    """A tensor that no file holds."""

    name: str
    values: np.ndarray
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, first: int, count: int) -> Rows:
        rows = self.values.astype(np.float32).reshape(n_rows(self.shape), -1)
        return rows[first : first + count]


@dataclass(frozen=True)
class Change:
    """Of every number of a tensor, on its way into a GGUF file and back."""

    there: Callable[[Rows], Rows]
    back: Callable[[Rows], Rows]


@dataclass
class Target:
    """A tensor of the GGUF file: row i is row `row_order[i]` of the source, plus a number."""

    name: str
    source: Source
    row_order: np.ndarray | None = None
    dtype: str = field(default="F32")
    plus: float = 0
    column_order: np.ndarray | None = None
    change: Callable[[Rows], Rows] | None = None
    new_shape: tuple[int, ...] | None = None  # None: the source's
    plain: bool = False  # stays F32 whatever is chosen for matrices

    @property
    def shape(self) -> tuple[int, ...]:
        return self.new_shape or self.source.shape

    @property
    def n_elements(self) -> int:
        return math.prod(self.shape)

    def blocks(self, elements: int = BLOCK_ELEMENTS) -> Iterator[Rows]:
        """All rows in order, in blocks of a bounded size."""
        total = n_rows(self.shape)
        step = max(1, elements // max(1, row_length(self.shape)))
        for first in range(0, total, step):
            rows = self._read(first, min(total, first + step))
            if self.column_order is not None:
                rows = rows[:, self.column_order]
            if self.change is not None:
                rows = self.change(rows)
            yield rows + np.float32(self.plus) if self.plus else rows

    def _read(self, first: int, end: int) -> Rows:
        if self.row_order is None:
            return self.source.read(first, end - first)
        order = self.row_order[first:end]
        low, high = int(order.min()), int(order.max()) + 1
        if high - low > 4 * (end - first) and end - first > 1:
            # The rows come from far apart; reading all between them would need much memory.
            middle = (first + end) // 2
            return np.concatenate([self._read(first, middle), self._read(middle, end)])
        return self.source.read(low, high - low)[order - low]


def rope_pairs_order(n_heads: int, head_dim: int) -> np.ndarray:
    """Row order that turns rotated halves into neighbouring pairs, as llama files store q and k."""
    order = np.arange(n_heads * head_dim).reshape(n_heads, 2, head_dim // 2)
    return order.swapaxes(1, 2).reshape(-1)


def fused_qkv_order(n_heads: int, head_dim: int) -> np.ndarray:
    """Row order that turns GPT-NeoX's per-head [q; k; v] into [Q; K; V]."""
    order = np.arange(3 * n_heads * head_dim).reshape(n_heads, 3, head_dim)
    return order.swapaxes(0, 1).reshape(-1)
