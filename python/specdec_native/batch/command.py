"""``specdec-native batch``: prompts of a file, answers into a file; resumable."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from .. import __version__
from .._engine_options import (
    add_engine_options,
    chat_template,
    engine_options,
    loading_options,
    model_paths,
)
from ..errors import InvalidArgumentError
from .lines import Source
from .run import Setup, over_one, over_ray
from .work import Work, partials


def main(arguments: Sequence[str]) -> int:
    args = parser().parse_args(arguments)
    output = _check_files(args)
    setup = _setup(args)
    with Source(args.input) as source:
        fingerprint = _fingerprint(setup, source)
        work = Work(output, fingerprint, restart=args.restart)
        lines = work.skip_done(source.lines())
        run = over_one(setup, lines) if args.ray is None else over_ray(setup, lines, args.ray)
        with contextlib.closing(run):  # an error ends what still runs before it is told
            for text in run:
                work.add(text)
                if not args.quiet and sys.stderr.isatty():
                    print(f"\r{work.n_done} lines", end="", file=sys.stderr)
        source.check_unchanged()
        grown = source.has_grown()
    work.finish()
    if not args.quiet:
        if grown:
            print(
                f"{args.input} has grown: what was added is not in {args.output}", file=sys.stderr
            )
        failed = f", {work.n_failed} of them refused" if work.n_failed else ""
        print(f"{work.n_done} lines{failed}: {args.output}", file=sys.stderr)
    return 0


def _check_files(args: argparse.Namespace) -> pathlib.Path:
    """The output's own path."""
    if args.input.exists() and not args.input.is_file():
        raise InvalidArgumentError(
            f"{args.input} is no regular file, and IN is read more than once: save it first"
        )
    output: pathlib.Path = pathlib.Path(os.path.realpath(args.output))  # a link stays one
    for written in (output, *partials(output)):
        if written.exists() and not written.is_file():
            raise InvalidArgumentError(
                f"{written} is no regular file: it cannot be written bit by bit"
            )
        if written.exists() and args.input.exists() and written.samefile(args.input):
            raise InvalidArgumentError(
                f"{written} is the input, and would be overwritten: give another OUT"
            )
    if output.exists() and not args.restart:
        raise InvalidArgumentError(f"{output} exists; --restart replaces it")
    return output


def _fingerprint(setup: Setup, source: Source) -> dict[str, Any]:
    """Of all that the output depends on. Drafts, threads and memory do not change it."""
    model = pathlib.Path(setup.model)
    return {
        "version": __version__,
        "input": source.digest,
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
