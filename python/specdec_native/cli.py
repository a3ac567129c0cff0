"""The `specdec-native` command: what needs Python; the rest is passed on to `specdec`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from . import __version__, demo, info
from ._embedded import (
    embedded,
    embedded_draft,
    embedded_drafts,
    embedded_heads,
    embedded_models,
)
from ._names import own_model, own_names
from ._native_command import NATIVE_COMMANDS, run_program
from .download import KNOWN_MODELS, models_dir, pull
from .errors import (
    ContextFullError,
    DownloadError,
    InvalidArgumentError,
    ModelFileError,
    ModelFileNotFoundError,
    ModelFormatError,
    ResourceLimitError,
    SpecdecError,
    UnsupportedModelError,
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_BAD_FILE = 3
EXIT_UNSUPPORTED = 4
EXIT_RESOURCES = 5
EXIT_INTERRUPTED = 130


def exit_code(error: SpecdecError) -> int:
    """The same codes as those of `specdec`."""
    if isinstance(error, InvalidArgumentError):
        return EXIT_USAGE
    if isinstance(error, (ModelFormatError, ModelFileError)):
        return EXIT_BAD_FILE
    if isinstance(error, UnsupportedModelError):
        return EXIT_UNSUPPORTED
    if isinstance(error, (ResourceLimitError, ContextFullError)):
        return EXIT_RESOURCES
    return EXIT_FAILED


class _Terminated(BaseException):
    """SIGTERM or SIGHUP: cleans up on its way, as KeyboardInterrupt does."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number


def _end_at_next() -> None:
    """The next signal ends the process: what it raised while things are closed would leave them
    half closed, and be told as an error in some destructor."""
    for number, _, own in _HANDLERS:
        if signal.getsignal(number) is own:
            signal.signal(number, signal.SIG_DFL)


def _terminate(number: int, frame: object) -> NoReturn:
    _end_at_next()
    raise _Terminated(number)


def _interrupt(number: int, frame: object) -> NoReturn:
    _end_at_next()
    raise KeyboardInterrupt


_HANDLERS: Sequence[tuple[int, Any, Any]] = (
    (signal.SIGINT, signal.default_int_handler, _interrupt),
    (signal.SIGTERM, signal.SIG_DFL, _terminate),
    (signal.SIGHUP, signal.SIG_DFL, _terminate),
)


@contextlib.contextmanager
def _terminable(*, last: bool) -> Iterator[None]:
    """Signals end what runs in here on its way out. `last`: the process ends behind it, so that
    a signal which was received stays what it is then."""
    changed: list[tuple[int, Any, Any]] = []
    try:
        if threading.current_thread() is threading.main_thread():
            for number, usual, own in _HANDLERS:
                if signal.getsignal(number) is usual:
                    changed.append((number, usual, own))
                    signal.signal(number, own)
        yield
    finally:
        for number, usual, own in changed:
            if not last or signal.getsignal(number) is own:
                signal.signal(number, usual)


def run_guarded(program: str, action: Callable[[], int], *, last: bool = False) -> int:
    """The exit code of `action`; what ends it early is said in one line on standard error.

    `last`: nothing but the end of the process follows.
    """
    try:
        with _terminable(last=last):
            return _guarded(program, action)
    except _Terminated as stop:
        print("terminated", file=sys.stderr)
        return stop.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _guarded(program: str, action: Callable[[], int]) -> int:
    try:
        code = action()
        sys.stdout.flush()
        return code
    except SpecdecError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return exit_code(error)
    except BrokenPipeError:
        # The reader went away; keep Python from complaining when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        print(f"{program}: {where}{error.strerror or error}", file=sys.stderr)
        return EXIT_BAD_FILE


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else arguments
    return run_guarded("specdec-native", lambda: _run(given), last=arguments is None)


def _run(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] in NATIVE_COMMANDS:
        run_program(arguments)
    if arguments and arguments[0] == "study":
        return _study(arguments[1:])
    if arguments and arguments[0] == "serve":
        return _serve(arguments[1:])
    if arguments and arguments[0] == "batch":
        return _batch(arguments[1:])
    args = _parser().parse_args(arguments)
    code: int = args.run(args)
    return code


def _study(arguments: Sequence[str]) -> int:
    from .studies.command import main  # imports much

    return main(arguments)


def _serve(arguments: Sequence[str]) -> int:
    from .server.command import main  # names what is missing, if the extra is

    return main(arguments)


def _batch(arguments: Sequence[str]) -> int:
    from .batch.command import main

    return main(arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="specdec-native",
        description="Fetch models, see a demonstration, describe the installation; or run a "
        "command of the native program `specdec`.",
        epilog="exit codes: 0 ok, 1 failed, 2 usage, 3 bad file, 4 unsupported, 5 resources, "
        "130 interrupted, 143 terminated",
    )
    parser.add_argument("--version", action="version", version=f"specdec-native {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "pull",
        help="fetch a model",
        description="Fetches a model into the folder $SPECDEC_MODELS, or "
        "~/.cache/specdec-native/models, and prints its path.",
    )
    command.add_argument(
        "name",
        help=f"{', '.join(KNOWN_MODELS)}, hf:ORG/REPO[/FILE.gguf] for the Hugging Face Hub, or a "
        "model that comes with the package and needs no download: " + ", ".join(own_names()),
    )
    command.add_argument("-q", "--quiet", action="store_true", help="no messages, no progress bar")
    command.set_defaults(run=_pull)

    command = commands.add_parser(
        "demo",
        help="answer a prompt plainly and speculatively and compare",
        description="Fetches SmolLM2-135M-Instruct (98 MB) if needed, answers a prompt with and "
        "without speculation, and compares text and speed. Fails if the texts differ. Without a "
        "connection it shows a small pair of the project's own models.",
    )
    command.add_argument(
        "--offline",
        action="store_true",
        help="use a small target and draft of the package specdec-native-models, or of the "
        "checkout that was installed; fetches nothing",
    )
    command.add_argument(
        "--pair",
        choices=[*(pair.name for pair in embedded_models()), "llama", "neox"],
        help="which of them; implies --offline (default pycode, a LLaMA that writes Python)",
    )
    command.add_argument("-n", "--max-tokens", type=int, default=demo.MAX_TOKENS, metavar="N")
    command.add_argument("-t", "--threads", type=int, default=None, metavar="N")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.set_defaults(run=_demo)

    command = commands.add_parser(
        "models", help="the models that come with the package, and where they are"
    )
    command.add_argument("--json", action="store_true", help="one JSON array on standard output")
    command.set_defaults(run=_models)

    command = commands.add_parser("info", help="version, compiler, CPU path, what is supported")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")
    command.set_defaults(run=_info)

    # Only for the help: main() passes these on before anything is parsed.
    commands.add_parser(
        "study",
        help="measure drafters on prompts: tables, plots, a report",
        add_help=False,
    )
    commands.add_parser(
        "serve", help="serve a model over HTTP in the form of OpenAI's API", add_help=False
    )
    commands.add_parser("batch", help="answer a file of prompts, resumable", add_help=False)
    for name, summary in NATIVE_COMMANDS.items():
        commands.add_parser(name, help=f"{summary} (`specdec {name}`)", add_help=False)
    return parser


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _pull(args: argparse.Namespace) -> int:
    show = sys.stderr.isatty() and not args.quiet
    if args.name in own_names():
        print(own_model(args.name))
        return 0
    path = pull(args.name, notify=(lambda text: None) if args.quiet else _note, show_progress=show)
    print(path)
    return 0


def _demo(args: argparse.Namespace) -> int:
    return demo.run(
        _scene(args), max_tokens=args.max_tokens, n_threads=args.threads, as_json=args.json
    )


def _scene(args: argparse.Namespace) -> demo.Scene:
    if not args.offline and args.pair is None:
        try:
            path = pull(demo.MODEL, notify=_note, show_progress=sys.stderr.isatty())
        except DownloadError as error:
            _note(f"specdec-native: {error}")
            _note("showing the project's own small models instead (demo --offline)\n")
        else:
            try:
                return demo.Scene.of_chat_model(path, embedded_draft(demo.MODEL))
            except ModelFileNotFoundError:
                _note(
                    "without a draft model: `pip install specdec-native-models` brings one for it"
                )
                return demo.Scene.of_chat_model(path)
    return demo.Scene.of_pair(embedded(args.pair or "pycode"))


def _models(args: argparse.Namespace) -> int:
    records = [
        {
            "name": pair.name,
            "architecture": pair.architecture,
            "summary": pair.summary,
            "target": str(pair.target),
            "draft": str(pair.draft),
            "installed": pair.target.is_file() and pair.draft.is_file(),
        }
        for pair in embedded_models()
    ]
    drafts = [
        {
            "name": f"{name}-{kind}",
            "summary": f"{article} {kind} for {name}",
            "draft": str(path),
            "installed": path.is_file(),
        }
        for kind, article, paths in (
            ("draft", "a", embedded_drafts()),
            ("head", "an EAGLE-3", embedded_heads()),
        )
        for name, path in paths.items()
    ]
    if args.json:
        print(json.dumps([*records, *drafts], indent=2))
        return 0
    for record in records:
        print("{name} ({architecture}): {summary}".format(**record))
        print("  target  {target}\n  draft   {draft}".format(**record))
    for record in drafts:
        print("{name}: {summary}\n  draft   {draft}".format(**record))
    if not all(record["installed"] for record in [*records, *drafts]):
        _note("some are not installed: `pip install specdec-native-models` brings them")
    return 0


def _info(args: argparse.Namespace) -> int:
    facts: dict[str, Any] = {**info(), "models_dir": None}
    try:
        facts["models_dir"] = str(models_dir())
    except DownloadError as error:
        _note(f"specdec-native: {error}")
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):<20} {'none' if shown is None else shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
