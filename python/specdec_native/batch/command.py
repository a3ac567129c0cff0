"""``specdec-native batch``: prompts of a file, answers into a file; resumable."""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from .. import __version__
from .._engine_options import (
    add_engine_options,
    chat_template,
    engine_options,
    loading_options,
    model_paths,
)
from ..errors import InvalidArgumentError
from .lines import Line, read_lines
from .run import Setup, over_one, over_ray


def main(arguments: Sequence[str]) -> int:
    args = parser().parse_args(arguments)
    _check_output(args)
    setup = _setup(args)
    work = Work(args.output, _fingerprint(setup, args.input), restart=args.restart)
    with args.input.open("rb") as file:
        lines = work.skip_done(read_lines(file))
        run = over_one(setup, lines) if args.ray is None else over_ray(setup, lines, args.ray)
        for text in run:
            work.add(text)
            if not args.quiet and sys.stderr.isatty():
                print(f"\r{work.n_done} lines", end="", file=sys.stderr)
    work.finish()
    if not args.quiet:
        failed = f", {work.n_failed} of them refused" if work.n_failed else ""
        print(f"{work.n_done} lines{failed}: {args.output}", file=sys.stderr)
    return 0


def _check_output(args: argparse.Namespace) -> None:
    output: pathlib.Path = args.output
    if output.exists() and not output.is_file():
        raise InvalidArgumentError(f"{output} is no regular file: it cannot be written bit by bit")
    for written in (output, *_partials(output)):
        if written.exists() and args.input.exists() and written.samefile(args.input):
            raise InvalidArgumentError(
                f"{written} is the input, and would be overwritten: give another OUT"
            )
    if output.exists() and not args.restart:
        raise InvalidArgumentError(f"{output} exists; --restart replaces it")


def _partials(output: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
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
        self._partial, self._note = _partials(output)
        self.n_done = 0
        self.n_failed = 0
        anew = restart or not (self._partial.exists() and self._note.exists())
        self._file: BinaryIO = self._partial.open("a+b")
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
            self._note.write_text(json.dumps(fingerprint), encoding="utf-8")
        else:
            if self._read_note() != fingerprint:
                raise InvalidArgumentError(
                    f"{self._partial} is of another input, model or options; --restart begins anew"
                )
            self._file.seek(0)
            for raw in self._file:
                if not raw.endswith(b"\n"):
                    break  # cut off
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
        self._file.write(text)
        self._file.flush()
        self._count(text)

    def finish(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.replace(self._output)
        self._note.unlink()


def _fingerprint(setup: Setup, source: pathlib.Path) -> dict[str, Any]:
    """Of all that the output depends on. Drafts, threads and memory do not change it."""
    digest = hashlib.sha256()
    with source.open("rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    model = pathlib.Path(setup.model)
    return {
        "version": __version__,
        "input": digest.hexdigest(),
        "model": [model.name, model.stat().st_size],
        "n_ctx": setup.engine["n_ctx"],
        "defaults": setup.defaults,
    }


def _setup(args: argparse.Namespace) -> Setup:
    target, draft = model_paths(args)
    defaults: dict[str, Any] = {}
    if args.max_tokens is not None:
        defaults["max_tokens"] = args.max_tokens
    template = chat_template(args)
    if template is not None:
        defaults["template"] = template
    return Setup(target, draft, loading_options(args), engine_options(args), defaults)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="specdec-native batch",
        description="Answer a file of prompts. Each line of IN is a JSON object with `prompt` or "
        "`messages`, an `id` of your own, and options of a call (max_tokens, temperature, schema, "
        "...); each line of OUT its answer, in the same order. A run that was stopped goes on "
        "where it was. The same input gives the same output, whatever runs beside it.",
    )
    add_engine_options(made)
    made.add_argument("input", type=pathlib.Path, metavar="IN.jsonl")
    made.add_argument("output", type=pathlib.Path, metavar="OUT.jsonl")
    made.add_argument(
        "--ray", metavar="ADDRESS", help="spread over a Ray cluster; `local` starts one here"
    )
    made.add_argument("--restart", action="store_true", help="begin anew, and replace OUT")
    made.add_argument("-q", "--quiet", action="store_true", help="nothing on standard error")
    return made
