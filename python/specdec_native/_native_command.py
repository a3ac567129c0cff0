"""The native program `specdec`, which comes with the package."""

from __future__ import annotations

import importlib.metadata
import itertools
import os
import pathlib
import re
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from typing import NoReturn

from ._names import find_draft, find_model, is_there
from .errors import UnsupportedModelError

PROGRAM = "specdec"

# Its subcommands, as `specdec --help` lists them.
NATIVE_COMMANDS = {
    "generate": "continue a prompt",
    "chat": "talk with a chat model",
    "bench": "time forward passes of M rows",
    "inspect": "show what a GGUF file or a kept prompt holds, without its weights",
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


# Those that draft; and those whose first argument that is no option is a model.
_DRAFTING = ("generate", "chat")
_POSITIONAL = ("inspect", "quantize")
_MODEL = ("-m", "--model")
_DRAFT = ("-md", "--model-draft")


def with_files(program: pathlib.Path, arguments: Sequence[str]) -> list[str]:
    """Arguments of the program with files in the place of models' names, and the draft that suits
    beside a model's; ``-md none``: no draft. The program itself knows no names, and no network.

    Raises:
        InvalidArgumentError: a name that means nothing.
        DownloadError: what is named could not be fetched.
    """
    command, given = arguments[0], list(arguments[1:])
    if not _may_hold_names(command, given):
        return [command, *given]
    made: list[str] = []
    takes_value = _options_with_values(program, command)
    model, names_draft = "", False
    is_first = command in _POSITIONAL
    while given:
        option, equals, value = given[0].partition("=")
        if not option.startswith("-"):  # "=" may be a part of it
            made.append(_file_of(given.pop(0)) if is_first else given.pop(0))
            is_first = False
            continue
        if option not in takes_value or (not equals and len(given) == 1):
            made.append(given.pop(0))
            continue
        value = value if equals else given[1]
        given = given[1 if equals else 2 :]
        names_draft = names_draft or option in _DRAFT or (option == "--drafter" and value != "auto")
        if option in _DRAFT and value == "none":
            continue
        if option in _MODEL:
            model, is_first = value, False
        made += [option, _file_of(value) if option in (*_MODEL, *_DRAFT) else value]
    draft = find_draft(model) if command in _DRAFTING and not names_draft else None
    return [command, *made] if draft is None else [command, *made, "-md", str(draft)]


def _may_hold_names(command: str, given: Sequence[str]) -> bool:
    if command in _POSITIONAL and any(_may_be_name(value) for value in given):
        return True
    options = (*_MODEL, *_DRAFT)
    pairs = itertools.pairwise(given)
    return any(option in options and _may_be_name(value) for option, value in pairs) or any(
        value.startswith(("--model=", "--model-draft=")) for value in given
    )


def _may_be_name(value: str) -> bool:
    is_file = value.endswith(".gguf") and not value.startswith("hf:")
    return bool(value) and not value.startswith("-") and not is_file and not is_there(value)


def _file_of(value: str) -> str:
    return str(find_model(value, notify=_tell)) if _may_be_name(value) else value


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options_with_values(program: pathlib.Path, command: str) -> frozenset[str]:
    """As the program's own help has them: "-m, --model FILE    The model, a GGUF file."."""
    done = subprocess.run([program, command, "--help"], capture_output=True, text=True, check=False)
    found: set[str] = set()
    for line in done.stdout.splitlines():
        line_found = re.fullmatch(r"  (-[^ ,]+(?:, -[^ ,]+)*) [^ ].*", line)
        if line_found is not None:
            found.update(line_found[1].split(", "))
    return frozenset(found)


def run_program(arguments: Sequence[str]) -> NoReturn:
    """Becomes `specdec` with these arguments: its output, exit code and signals are its own."""
    path = find_program()
    arguments = with_files(path, arguments)
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
