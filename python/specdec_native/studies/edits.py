"""`edits`: code-editing sessions, in which most of an answer was in the context before."""

from __future__ import annotations

import argparse
import functools
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from ..errors import InvalidArgumentError
from .benchmark_report import plots_of, tables_of
from .edit_sessions import Session, Source, humaneval_solutions, sessions, standard_library
from .engines import Workbench
from .figures import by, grouped, number, percent, ranged, summary
from .methods import HELP, parse_methods, possible, sampling_of
from .plan import PLAIN, Block, Pair, Task
from .report import Plot, Report, Table, Text
from .runner import Row, prompt_ids
from .study import Study, spread_out

ROOM = 16  # tokens of an answer beyond its file: a code block's fences


class Edits(Study):
    name = "edits"
    defaults: ClassVar[dict[str, Any]] = {"rounds": 3, "max_tokens": 1024, "limit": 12}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--humaneval", type=pathlib.Path, metavar="FILE",
            help="edit its solutions too, beside functions of the standard library")  # fmt: skip
        add("--turns", type=int, default=3, metavar="N", help="of each session (default 3)")
        add("--methods", default="plain,auto,ngram,suffix,suffix-keep,model", metavar="LIST",
            help=HELP)  # fmt: skip
        add("--temperature", type=float, default=0.0, help="default 0")

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        if args.turns < 1:
            raise InvalidArgumentError(f"--turns must be at least 1, not {args.turns}")
        sampling = sampling_of(args.temperature)
        kinds = {"stdlib": standard_library()}
        if args.humaneval is not None:
            kinds["humaneval"] = humaneval_solutions(args.humaneval)
        for pair in args.pairs:
            methods = possible(args, workbench, pair, parse_methods(args.methods))
            for kind, sources in kinds.items():
                small = _small(workbench, pair, sources, args.turns)
                made = [
                    (session, *asked)
                    for session in sessions(small, args.turns, args.seed)
                    if (asked := _asked(args, workbench, pair, session)) is not None
                ]
                if not made:
                    args.notes.append(
                        f"{pair.name}: no file of {kind} is small enough for {args.turns} turns in "
                        f"{workbench.n_ctx(pair)} positions."
                    )
                for session, task, answer in spread_out(made, args.limit):
                    yield Block(
                        pair, task, methods, answer, args.rounds, sampling=sampling,
                        axes={"edits": ", ".join(edit.kind for edit in session.edits)},
                    )  # fmt: skip

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        parts: list[Text | Table | Plot] = []
        for (pair,), group in grouped(rows, "pair").items():
            slug = "".join(c if c.isalnum() else "-" for c in pair)
            parts.append(Text(_what_it_was(group), heading=pair))
            all_, *others = tables_of(group, slug)
            parts += [all_, turns_table(group, slug), turns_plot(group, slug), *others]
            parts += plots_of(group, slug)
        return Report("Editing code", parts)


def _small(
    workbench: Workbench, pair: Pair, sources: Sequence[Source], n_turns: int
) -> list[Source]:
    """Those that fit at all: once as they are and once per turn."""
    most = workbench.n_ctx(pair) / (1 + n_turns)
    target = workbench.target(pair)
    return [source for source in sources if len(target.tokenize(source.text)) <= most]


def _asked(
    args: argparse.Namespace, workbench: Workbench, pair: Pair, session: Session
) -> tuple[Task, int] | None:
    """The task and the length of its answers; None when the whole session does not fit."""
    target = workbench.target(pair)
    chat = target.chat_template is not None
    turns = session.chat_turns() if chat else session.raw_turns()
    task = Task(
        f"{session.source.kind}/{session.source.name}", turns, session.source.kind,
        "chat" if chat else "raw",
    )  # fmt: skip
    longest = max(len(target.tokenize(edit.text)) for edit in session.edits)
    answer = min(args.max_tokens, math.ceil(longest * 1.15) + ROOM)
    first = len(prompt_ids(workbench, Block(pair, task, (), 1), ()))
    later = sum(len(target.tokenize(turn)) + ROOM for turn in turns[1:])
    if first + later + answer * len(turns) > workbench.n_ctx(pair):
        return None
    return task, answer


def _what_it_was(rows: Sequence[Row]) -> str:
    blocks = {row["block"] for row in rows}
    plain = [row for row in rows if row["method"] == PLAIN and not row["error"]]
    ended = sum(row["finish_reason"] == "stop" for row in plain)
    form = "chats" if rows[0]["form"] == "chat" else "text that goes on, the file has no template"
    text = (
        f"{len(blocks)} sessions ({form}). Each begins with a file; every turn asks for one edit "
        "and for the whole file back; later turns do not repeat the file. Answers of plain "
        f"decoding that ended by themselves: {ended} of {len(plain)}; the limit is a little above "
        "the length of the file."
    )
    return text + " " + across_turns(rows)


def across_turns(rows: Sequence[Row]) -> str:
    """The figure this study is about, in words."""
    told = []
    for (method,), group in grouped(rows, "method").items():
        first, later = split_turns(group)
        if method != PLAIN and first and later:
            a, b = summary(first)["speedup"], summary(later)["speedup"]
            if a is not None and b is not None:
                told.append(f"{method} {a:.2f} and {b:.2f}")
    return f"**Speed-up in turn 1 and later: {'; '.join(told)}.**" if told else ""


def split_turns(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    return [r for r in rows if r["turn"] == 0], [r for r in rows if r["turn"] > 0]


def turns_table(rows: Sequence[Row], slug: str) -> Table:
    """The first turn against those that follow: what a lookup gains from the session's past."""
    cells = []
    for (method,), group in grouped(rows, "method").items():
        for name, part in zip(("1", "2 and later"), split_turns(group), strict=True):
            if part:
                f = summary(part)
                cells.append(
                    [
                        method, name, str(f["prompts"]),
                        "1" if method == PLAIN else ranged(f),
                        "1" if method == PLAIN else number(f["total_speedup"]),
                        number(f["tokens_per_pass"]), percent(f["acceptance"]),
                    ]
                )  # fmt: skip
    header = ["method", "turn", "answers", "speed-up (slowest-fastest answer)", "with the prompt",
              "tokens/pass", "acceptance"]  # fmt: skip
    return Table(f"turns-{slug}", "The first turn and those that follow", header, cells)


def turns_plot(rows: Sequence[Row], slug: str) -> Plot:
    lines: dict[str, list[tuple[int, float]]] = {}
    for (method, turn), figures in by(rows, "method", "turn"):
        if method != PLAIN and figures["speedup"] is not None:
            lines.setdefault(str(method), []).append((int(turn) + 1, figures["speedup"]))
    return Plot(
        f"turns-{slug}", "Speed-up turn by turn", functools.partial(draw_turns, lines=lines),
        "Geometric mean over sessions; 1 is plain decoding.",
    )  # fmt: skip


def draw_turns(figure: Any, lines: dict[str, list[tuple[int, float]]]) -> None:
    axes = figure.subplots()
    for name, points in lines.items():
        points = sorted(points)
        axes.plot([x for x, _ in points], [y for _, y in points], marker="o", label=name)
    axes.axhline(1.0, color="#aa3333", linestyle="--", linewidth=1.2)
    axes.set_xticks(sorted({x for points in lines.values() for x, _ in points}))
    axes.set_xlabel("turn")
    axes.set_ylabel("times plain")
    if lines:
        axes.legend()
