"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import tempfile
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from .errors import ConvertError

SUFFIX = ".partial"  # what only SIGKILL or a power cut can leave behind


class Terminated(BaseException):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind the stack like Ctrl-C, so that temporary files go away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def raise_terminated(number: int, _frame: FrameType | None) -> None:
        raise Terminated(number)

    before: dict[int, Any] = {}
    for number in (signal.SIGTERM, signal.SIGHUP):
        before[number] = signal.signal(number, raise_terminated)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _create(final: pathlib.Path) -> pathlib.Path:
    try:
        handle, name = tempfile.mkstemp(prefix=final.name + ".", suffix=SUFFIX, dir=final.parent)
    except OSError as error:
        raise ConvertError(f"{final}: cannot write there: {error.strerror}") from None
    try:
        umask = os.umask(0)
        os.umask(umask)
        os.fchmod(handle, 0o666 & ~umask)
    finally:
        os.close(handle)
    return pathlib.Path(name)


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def temporary_beside(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path in the same folder, removed at the end unless it was moved away."""
    path = _create(final)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def complete_or_nothing(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Write to the path this gives; it takes the final name, on disk, if no exception leaves."""
    with temporary_beside(final) as path:
        yield path
        _sync(path)
        path.replace(final)
        _sync(final.parent)
