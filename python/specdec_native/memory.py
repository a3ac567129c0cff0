"""Memories: what drafters know of earlier requests."""

from __future__ import annotations

import os
from typing import Any

from . import _core
from ._checks import check_all
from ._option_table import CHECKS
from .model import Model, StrPath, check_model, flush_log, path_bytes


class Memory:
    """Texts of earlier requests, in which drafters look up what comes next.

    Decoders and engines that are given the same memory share it, in any threads. It belongs to one
    vocabulary: that of the first model that uses it. It never changes a text, only how fast it
    comes. That can be measured: who may send requests can find out whether a text came up before.
    `memory_key` of a request keeps users apart, and `remember=False` leaves a request out.

    Args:
        path: the file that it is kept in, readable for its owner only, read when a first model
            uses it. An idle engine writes it within ten seconds of a change, a decoder with the
            first request that ends ten seconds after the last time or later; what is left is
            written at the end of the process. None: it lives in this process.
        max_tokens: 1024 to 16777216; tokens that it holds, about 90 bytes each; beyond that the
            texts that were of use least recently are forgotten; a file that holds more keeps as
            much.

    Raises:
        InvalidArgumentError: names the option and its range.
    """

    def __init__(
        self,
        path: StrPath | None = None,
        *,
        max_tokens: int = 262144,
    ) -> None:
        checked = check_all(CHECKS["Memory"], {"max_tokens": max_tokens})
        self._path = None if path is None else os.fsdecode(path_bytes("path", path))
        name = b"" if path is None else path_bytes("path", path)
        self._native = _core.Memory(name, checked["max_tokens"])

    def use(self, model: Model) -> None:
        """Reads the file, as the first decoder with this memory does.

        Raises:
            InvalidArgumentError: it holds texts of another vocabulary.
            ModelFormatError: the file is damaged, or something else.
            UnsupportedModelError: another version wrote it.
        """
        check_model("model", model)
        self._native.bind(model._native)
        flush_log()

    @property
    def path(self) -> str | None:
        """The file; None: there is none."""
        return self._path

    @property
    def max_tokens(self) -> int:
        """Tokens that it holds at most."""
        return int(self._stats["max_tokens"])

    @property
    def n_tokens(self) -> int:
        """Tokens that it holds."""
        return int(self._stats["tokens"])

    @property
    def n_texts(self) -> int:
        """Texts, or parts of texts, that it holds: common beginnings are stored once."""
        return int(self._stats["texts"])

    @property
    def n_bytes(self) -> int:
        """Bytes of this process that it takes."""
        return int(self._stats["bytes"])

    def save(self) -> None:
        """Writes the file now, with what other processes have written to it since.

        Raises:
            OSError: it cannot be written; the old file is as it was.
        """
        self._native.save()

    def clear(self) -> None:
        """Forgets everything; the file is emptied when it is written next."""
        self._native.clear()

    @property
    def _stats(self) -> dict[str, Any]:
        return self._native.stats()

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process opens the same file; what both write is merged."""
        if self._path is None:
            raise TypeError(
                "a memory without a file cannot be pickled or copied: share it between threads"
            )
        return _opened, (self._path, self.max_tokens)

    def __repr__(self) -> str:
        where = "" if self._path is None else f"{self._path!r}, "
        return f"Memory({where}max_tokens={self.max_tokens}) of {self.n_tokens} tokens"


def _opened(path: str, max_tokens: int) -> Memory:
    return Memory(path, max_tokens=max_tokens)


def native_memory(memory: object) -> _core.Memory | None:
    """Of the option `memory`."""
    if memory is None:
        return None
    if isinstance(memory, Memory):
        return memory._native
    return _core.Memory(path_bytes("memory", memory), 1 << 18)
