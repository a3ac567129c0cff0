"""The native program `specdec`, which comes with the package."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import signal
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from typing import NoReturn

from .errors import UnsupportedModelError

PROGRAM = "specdec"

# Its subcommands, as `specdec --help` lists them.
NATIVE_COMMANDS = {
    "generate": "continue a prompt",
    "chat": "talk with a chat model",
    "bench": "time forward passes of M rows",
    "inspect": "show what a GGUF file holds, without reading its weights",
    "tokenize": "show the tokens of a text",
    "perplexity": "measure how well a model predicts a text",
    "quantize": "write a model again in a smaller type",
}


def find_program() -> pathlib.Path:
    """The program that was installed together with this package."""
    tried = []
    for path in _places():
        if os.access(path, os.X_OK) and path.is_file():
            return path
        tried.append(str(path))
    where = ", ".join(dict.fromkeys(tried))
    raise UnsupportedModelError(
        f"the program `{PROGRAM}` is missing, looked for at {where}; install the package again"
    )


def _places() -> Iterator[pathlib.Path]:
    package = pathlib.Path(__file__).resolve().parent
    try:
        distribution = importlib.metadata.distribution("specdec-native")
    except importlib.metadata.PackageNotFoundError:
        distribution = None
    if distribution is not None:
        home = pathlib.Path(str(distribution.locate_file("specdec_native"))).resolve()
        for file in distribution.files or () if home == package else ():
            if file.name == PROGRAM:
                yield pathlib.Path(str(file.locate())).resolve()
    started = pathlib.Path(sys.argv[0])
    if started.name == "specdec-native":
        yield started.absolute().parent / PROGRAM
    yield pathlib.Path(sysconfig.get_path("scripts")) / PROGRAM
    yield pathlib.Path(sys.executable).parent / PROGRAM


def run_program(arguments: Sequence[str]) -> NoReturn:
    """Becomes `specdec` with these arguments: its output, exit code and signals are its own."""
    path = find_program()
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores these; the program is to see what it would see from a shell.
    for name in ("SIGPIPE", "SIGXFZ", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execv(path, [PROGRAM, *arguments])
    except OSError as error:
        raise UnsupportedModelError(f"{path} cannot be run: {error.strerror}") from None
