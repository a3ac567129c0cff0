"""The output while it is made."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from ..errors import InvalidArgumentError
from .lines import Line


def partials(output: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """The output while it is made, and what it is of."""
    return (
        output.with_name(output.name + ".partial"),
        output.with_name(output.name + ".partial.json"),
    )


class Work:
    """The output while it is made: beside its place, under a name of its own.

    A run that was stopped leaves `OUT.partial`, whose whole lines the next one keeps, and
    `OUT.partial.json`, which says of what they are.
    """

    def __init__(self, output: pathlib.Path, fingerprint: dict[str, Any], *, restart: bool) -> None:
        self._output = output
        self._partial, self._note = partials(output)
        self.n_done = 0
        self.n_failed = 0
        # A note that was not written to its end goes with no lines.
        there = self._note.exists() and self._partial.exists() and self._partial.stat().st_size > 0
        anew = restart or not there
        self._file = self._partial.open("a+b")
        try:
            self._lock()
            self._begin(fingerprint, anew=anew)
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        """Of two runs that write one output the second one ends here."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(self._file.fileno()), self._partial.stat()):
                raise FileNotFoundError  # finished, and renamed, in between
        except (BlockingIOError, FileNotFoundError):
            raise InvalidArgumentError(
                f"another run is writing {self._partial}: let it finish, or give another OUT"
            ) from None

    def _begin(self, fingerprint: dict[str, Any], *, anew: bool) -> None:
        size = 0
        if anew:
            self._file.truncate(0)
            with self._named(self._note):
                self._note.write_text(json.dumps(fingerprint), encoding="utf-8")
        else:
            if self._read_note() != fingerprint:
                raise InvalidArgumentError(
                    f"{self._partial} is of another input, model or options; --restart begins anew"
                )
            self._file.seek(0)
            for raw in self._file:
                if not _is_line(raw, self.n_done):
                    break  # cut off, or what a power failure has left
                size += len(raw)
                self._count(raw)
        self._file.truncate(size)
        self._file.seek(size)

    def _read_note(self) -> object:
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))
        except ValueError:
            return None

    def _count(self, raw: bytes) -> None:
        self.n_done += 1
        self.n_failed += b'"error": {"message"' in raw

    def skip_done(self, lines: Iterator[Line]) -> Iterator[Line]:
        return (line for line in lines if line.index >= self.n_done)

    def add(self, text: bytes) -> None:
        left = memoryview(text)
        with self._named(self._partial):
            while left:  # past Python's buffer, which would be tried again at the end
                left = left[os.write(self._file.fileno(), left) :]
        self._count(text)

    def finish(self) -> None:
        with self._named(self._partial):
            os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._output)
        self._note.unlink()

    @staticmethod
    @contextlib.contextmanager
    def _named(path: pathlib.Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None


def _is_line(raw: bytes, index: int) -> bool:
    if not raw.endswith(b"\n"):
        return False
    try:
        return bool(json.loads(raw)["line"] == index)
    except (ValueError, TypeError, KeyError):
        return False
