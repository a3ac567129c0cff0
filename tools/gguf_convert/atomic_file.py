"""A file that appears under its name only when it is complete.

Until then it is `NAME.XXXXXXXX.partial` beside it, locked by its writer. SIGKILL or a power cut can
leave that behind; the next writer of the same name removes what nobody holds a lock on.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import re
import secrets
import signal
import stat
import string
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from .errors import ConvertError

SUFFIX = ".partial"
LETTERS = string.ascii_lowercase + string.digits + "_"
NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
LOCK = fcntl.LOCK_EX | fcntl.LOCK_NB


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


def refuse_special(final: pathlib.Path) -> None:
    """A device, a FIFO or a symbolic link would be replaced by the file, not written to."""
    try:
        mode = final.lstat().st_mode
    except OSError:
        return
    if stat.S_ISDIR(mode):
        raise ConvertError(f"{final}: is a folder, expected the name of a file")
    if not stat.S_ISREG(mode):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "not a regular file"
        raise ConvertError(f"{final}: is {kind}, which would be replaced; give another name")


def _try_lock(handle: int) -> bool:
    """False where another writer holds the lock, or where the file system has no locks."""
    try:
        fcntl.flock(handle, LOCK)
    except OSError:
        return False
    return True


def remove_stale(final: pathlib.Path) -> list[pathlib.Path]:
    """Removes partial files of `final` whose writers are dead; none while one of them lives."""
    name = re.compile(re.escape(final.name) + r"\.[a-z0-9_]{8}" + re.escape(SUFFIX))
    held: list[tuple[int, pathlib.Path]] = []
    alive = False
    try:
        for path in final.parent.iterdir():
            if not name.fullmatch(path.name):
                continue
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            held.append((handle, path))
            found = os.fstat(handle)
            is_ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
            alive |= not (is_ours and _try_lock(handle))
        if alive:
            return []
        for _, path in held:
            path.unlink(missing_ok=True)
        return [path for _, path in held]
    except OSError:  # tidying up is no reason to fail
        return []
    finally:
        for handle, _ in held:
            os.close(handle)


class _Partial:
    """The file of `temporary_beside`. Its name is known before it exists, so that a signal between
    two steps of its making leaves nothing behind."""

    def __init__(self) -> None:
        self.path: pathlib.Path | None = None
        self.handle: int | None = None

    def create(self, final: pathlib.Path) -> pathlib.Path:
        """The lock lasts as long as the handle is open, and no longer than the process."""
        while True:
            random = "".join(secrets.choice(LETTERS) for _ in range(8))
            self.path = final.with_name(f"{final.name}.{random}{SUFFIX}")
            try:
                self.handle = os.open(self.path, NEW, 0o600)
            except FileExistsError:  # another writer's
                self.path = None
                continue
            except OSError as error:
                self.path = None
                raise ConvertError(f"{final}: cannot write there: {error.strerror}") from None
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(self.handle, 0o666 & ~umask)
            _try_lock(self.handle)
            if os.fstat(self.handle).st_nlink > 0:
                return self.path
            self.close()  # another writer took it for stale before it was locked

    def close(self) -> None:
        handle, self.handle = self.handle, None
        if handle is not None:
            os.close(handle)

    def remove(self) -> None:
        if self.path is not None:
            self.path.unlink(missing_ok=True)
        self.close()


def _sync(path: pathlib.Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def temporary_beside(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary path in the same folder, removed at the end unless it was moved away."""
    refuse_special(final)
    remove_stale(final)
    partial = _Partial()
    try:
        yield partial.create(final)
    finally:
        partial.remove()


@contextlib.contextmanager
def complete_or_nothing(final: pathlib.Path) -> Iterator[pathlib.Path]:
    """Write to the path this gives; it takes the final name, on disk, if no exception leaves."""
    with temporary_beside(final) as path:
        yield path
        _sync(path)
        path.replace(final)
        _sync(final.parent)


@contextlib.contextmanager
def all_complete_or_nothing(finals: list[pathlib.Path]) -> Iterator[list[pathlib.Path]]:
    """The same for files that belong together, of which the first says so: it comes last, and an
    older one goes first, so that those of two sets are never taken for one."""
    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(temporary_beside(final)) for final in finals]
        yield paths
        for path in paths:
            _sync(path)
        if len(finals) > 1:
            finals[0].unlink(missing_ok=True)
        for path, final in reversed(list(zip(paths, finals, strict=True))):
            path.replace(final)
        _sync(finals[0].parent)


class OutputFile:
    """A file to write, whose errors name the file that it will be."""

    def __init__(self, path: pathlib.Path, final: pathlib.Path) -> None:
        self._final = final
        self._file = self._named(lambda: path.open("wb", buffering=1 << 20))

    def _named(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            raise ConvertError(
                f"{self._final}: cannot be written: {error.strerror}; a file that was there "
                "before is unchanged"
            ) from None

    def write(self, content: bytes | bytearray) -> None:
        self._named(lambda: self._file.write(content))

    def __enter__(self) -> OutputFile:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._named(self._file.close)
        else:
            with contextlib.suppress(OSError):  # the error that matters is on its way
                self._file.close()


def write_atomically(final: pathlib.Path, content: bytes) -> None:
    with complete_or_nothing(final) as path, OutputFile(path, final) as file:
        file.write(content)
