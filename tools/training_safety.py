"""What trainings share: an end on request with everything saved, files that are whole or absent."""

from __future__ import annotations

import contextlib
import io
import pathlib
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any, TextIO

from gguf_convert.atomic_file import Terminated, signals_as_exceptions, write_atomically
from gguf_convert.errors import ConvertError


class ToolError(Exception):
    """One message for the user."""


class NotSaved(ToolError):
    """A file could not be written; what was there before is unchanged."""


def tell(text: str, stream: TextIO) -> None:
    """A terminal that went away must not end hours of work before they are saved."""
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


class StopRequest:
    """Ctrl-C, SIGTERM and SIGHUP as a question that a loop asks after each step."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        return self.number != 0

    def raise_again(self) -> None:
        """After saving: ends the program as the signal would have."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number:
            raise Terminated(self.number)


@contextlib.contextmanager
def stop_on_request(say: Callable[[str], None]) -> Iterator[StopRequest]:
    """The first signal asks, a second one ends at once."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def ask(number: int, _frame: FrameType | None) -> None:
        if request.number:
            request.number = number
            request.raise_again()
        request.number = number
        say("stops after this step and saves; once more ends at once, without")

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def save_torch(path: pathlib.Path, content: Any) -> None:
    """Through memory: PyTorch's own writer does not survive a full disk."""
    import torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    save_bytes(path, buffer.getvalue())


def save_bytes(path: pathlib.Path, content: bytes) -> None:
    try:
        write_atomically(path, content)
    except ConvertError as error:
        raise NotSaved(str(error)) from None
    except OSError as error:
        raise NotSaved(f"{path}: cannot be written: {error.strerror}") from None


def check_finite(tensors: Iterable[Any], what: str) -> None:
    """Before a good state is replaced: a training that has diverged saves nothing."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise ToolError(
            f"{what} has diverged: weights are no longer numbers. What was saved before is kept; "
            "train anew with a lower learning rate"
        )


def run_tool(name: str, action: Callable[[], None], interrupted: str) -> int:
    """The exit code; a foreseeable end is one line on stderr. `interrupted`: what to do then."""
    try:
        with signals_as_exceptions():
            action()
    except (ToolError, ConvertError) as error:
        text = str(error)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; {interrupted}", file=sys.stderr)
        return 130
    except Terminated as error:
        print(f"{name}: terminated; {interrupted}", file=sys.stderr)
        return 128 + error.number
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, MemoryError) and "can't allocate memory" not in text:
            raise
        text = (
            f"not enough memory: {text.splitlines()[0][:200] if text else 'an allocation failed'}"
        )
    else:
        return 0
    print(f"{name}: {text}", file=sys.stderr)
    return 1
