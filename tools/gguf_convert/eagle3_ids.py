"""Which of its target's ids an EAGLE-3 head drafts: the tensors d2t and t2d."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .errors import ConvertError, short
from .safetensors_file import SafeTensor
from .tensors import Source
from .torch_file import TorchTensor


@dataclass
class Ids:
    """The tensor d2t: int64 as they are."""

    values: np.ndarray
    name: str = "d2t"
    dtype: str = "I64"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def read(self, first: int, count: int) -> np.ndarray:
        part = np.ascontiguousarray(self.values[first : first + count], "<i8")
        return part.view(np.uint8).reshape(count, 8)


def read_whole_numbers(source: Source) -> np.ndarray:
    """int64 [n] of a vector of integers or booleans."""
    kinds = {"I64": "<i8", "I32": "<i4", "BOOL": "u1", "U8": "u1"}
    if isinstance(source, TorchTensor):
        tensor = source.file.tensor(source.name)
        if not tensor.is_floating_point() and not tensor.is_complex():
            found: np.ndarray = tensor.long().reshape(-1).numpy()
            return found
    elif isinstance(source, SafeTensor) and source.dtype in kinds and len(source.shape) == 1:
        raw = source.file.read_bytes(source.begin, source.n_bytes)
        return np.frombuffer(raw, kinds[source.dtype]).astype(np.int64)
    raise ConvertError(
        f"tensor '{short(source.name)}' should be a vector of whole numbers, found {source.dtype} "
        f"{list(source.shape)}"
    )


def target_ids(
    tensors: dict[str, Source], n_draft: int, n_vocab: int, where: str, notes: list[str]
) -> np.ndarray | None:
    """The target's id of each of the head's; None: they are the same.

    Checkpoints hold the distances id - i. Files that hold the ids themselves are told apart by
    t2d, which marks the ids that the head has.
    """
    if "d2t" not in tensors:
        if n_draft != n_vocab:
            raise ConvertError(
                f"{where}: tensor 'd2t' [{n_draft}] is missing: the head has {n_draft} ids and its "
                f"target {n_vocab}"
            )
        return None
    found = read_whole_numbers(tensors["d2t"])
    if found.shape != (n_draft,):
        raise ConvertError(
            f"{where}: tensor 'd2t' should have the shape [{n_draft}] by config.json, found "
            f"{list(found.shape)}"
        )
    marked = None
    if "t2d" in tensors:
        marks = read_whole_numbers(tensors["t2d"])
        marked = np.flatnonzero(marks)
        if marks.shape != (n_vocab,):
            raise ConvertError(
                f"{where}: tensor 't2d' should have the shape [{n_vocab}] as the target's "
                f"vocabulary, found {list(marks.shape)}"
            )
    readings = {"offsets": found + np.arange(n_draft), "ids": found}
    fitting = {
        name: ids for name, ids in readings.items() if _problem(ids, n_vocab, marked) is None
    }
    if "offsets" in fitting:
        ids = fitting["offsets"]
    elif "ids" in fitting and marked is not None:
        ids = fitting["ids"]
        notes.append("'d2t' holds ids, not offsets: written as they are")
    else:
        raise ConvertError(
            f"{where}: tensor 'd2t' should hold the offsets of {n_draft} different ids of the "
            f"target's {n_vocab}; but {_problem(readings['offsets'], n_vocab, marked)}"
        )
    return None if n_draft == n_vocab and bool((ids == np.arange(n_vocab)).all()) else ids


def _problem(ids: np.ndarray, n_vocab: int, marked: np.ndarray | None) -> str | None:
    outside = np.flatnonzero((ids < 0) | (ids >= n_vocab))
    if len(outside):
        return f"the head's id {outside[0]} would be {ids[outside[0]]}"
    if len(np.unique(ids)) != len(ids):
        values, counts = np.unique(ids, return_counts=True)
        return f"{values[counts > 1][0]} would occur twice"
    if marked is not None and not np.array_equal(np.sort(ids), marked):
        return "the ids are not those that 't2d' marks"
    return None
