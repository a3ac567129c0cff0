"""``specdec-native batch``: prompts of a file, answers into a file; resumable."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from .. import __version__
from .._engine_options import add_engine_options, engine_options, loading_options, model_paths
from ..errors import InvalidArgumentError
from .lines import Line, read_lines
from .run import Setup, over_one, over_ray


def main(arguments: Sequence[str]) -> int:
    args = parser().parse_args(arguments)
    if args.output.exists() and not args.restart:
        raise InvalidArgumentError(f"{args.output} exists; --restart replaces it")
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


class Work:
    """The output while it is made: beside its place, under a name of its own.

    A run that was stopped leaves `OUT.partial`, whose whole lines the next one keeps, and
    `OUT.partial.json`, which says of what they are.
    """

    def __init__(self, output: pathlib.Path, fingerprint: dict[str, Any], *, restart: bool) -> None:
        self._output = output
        self._partial = output.with_name(output.name + ".partial")
        self._note = output.with_name(output.name + ".partial.json")
        self.n_done = 0
        self.n_failed = 0
        if restart or not (self._partial.exists() and self._note.exists()):
            self._note.write_text(json.dumps(fingerprint), encoding="utf-8")
            self._file: BinaryIO = self._partial.open("wb")
            return
        if self._read_note() != fingerprint:
            raise InvalidArgumentError(
                f"{self._partial} is of another input, model or options; --restart begins anew"
            )
        size = 0
        with self._partial.open("rb") as file:
            for raw in file:
                if not raw.endswith(b"\n"):
                    break  # cut off
                size += len(raw)
                self._count(raw)
        self._file = self._partial.open("r+b")
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
    if args.chat_template is not None:
        defaults["template"] = args.chat_template
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
