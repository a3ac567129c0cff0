"""`sweep`: prompt length, output length and draft length, each varied alone around a base."""

from __future__ import annotations

import argparse
import csv
import functools
import pathlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from ..errors import InvalidArgumentError
from .engines import Workbench
from .figures import equal_cell, grouped, number, percent, share, summary
from .plan import PLAIN, Block, Method, Pair, Task, plain
from .report import Plot, Report, Table, Text
from .runner import Row
from .store import whole_file
from .study import Study, spread_out
from .times import mean_and_deviation, mean_speedup

EXPERIMENTS = ("prompt_length", "max_tokens", "n_value")
COLUMNS = (
    "experiment", "prompt_length", "max_tokens", "n", "method", "time", "time_std",
    "acceptance_rate",
)  # fmt: skip
CSV = "experiment_results.csv"
DEPTHS = (1, 2, 4, 8, 16, 32)
FACTORS = (0.25, 0.5, 1, 2, 4)  # of the base prompt and output: 64 to 1024, 32 to 512
SHORTEST = 8  # tokens of a prompt or an answer
SIZE = (12.0, 6.0)

# Long prompts are this text over and over, so that what follows gets easy to guess.
ESSAY = """\
Machines that learn from examples have become part of ordinary life. A phone sorts the pictures of \
a holiday by the faces in them, a mail program sets aside what nobody wants to read, and a map \
knows an hour ahead where the traffic will stand still. Nobody wrote down the rules for any of \
this. They were found by programs that compared a great many cases with the answers that people \
had given.

The idea is older than most of those who use it. In the middle of the last century a few \
researchers asked whether a network of very simple parts could learn to tell one shape from \
another. Their machines filled a room and could hardly tell a square from a circle. For decades \
the question seemed settled, until faster computers and larger collections of data brought it \
back.

What changed medicine first was not the treatment but the reading of images. A program that has \
seen more scans than any doctor can see in a lifetime notices shadows that a tired eye misses. It \
does not know the patient, and it cannot explain itself well. The best results come from both \
together, a physician who asks and a program that never loses patience.

Work changes as well, and not evenly. Some tasks disappear, others grow, and many are done by the \
same people in half the time. A translator spends less of the day on the first draft and more on \
the last one. Whether the hours that are saved become leisure or more work is not a question that \
a program can answer.

How much a society wants to trust such systems is for the society to decide. It needs people who \
understand what the machines can do, rules that say who is responsible when they fail, and the \
habit of looking twice at an answer that sounds too certain. Learning machines are tools of our \
own making, and they will serve us as well as we care to build them.

"""
ABOUT = (
    "One setting is varied while the others stay at their base: the length of the prompt (an "
    "essay, repeated and cut to so many tokens), the tokens to generate, and n, the tokens drafted "
    "in a round, with the draft model's best tokens and a temperature of 0. Plain decoding is "
    "measured anew for each prompt length and each output length, and once for all n. Times are of "
    "whole calls, the prompt included; time_std is the population's standard deviation over the "
    "samples. Every run makes exactly max_tokens tokens: what would end a text is never chosen, "
    "because the study whose experiment this is ended plain decoding there and speculation not."
)


class Sweep(Study):
    name = "sweep"
    needs_draft = True
    defaults: ClassVar[dict[str, Any]] = {"rounds": 5, "max_tokens": 128, "out": "exp_results"}

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add = parser.add_argument
        add("--big_model", dest="target", default=argparse.SUPPRESS, metavar="TARGET",
            help="the same as --target")  # fmt: skip
        add("--small_model", dest="draft", default=argparse.SUPPRESS, metavar="DRAFT",
            help="the same as --draft")  # fmt: skip
        add("--output", type=pathlib.Path, metavar="FILE",
            help=f"write {CSV} there too; it always is in DIR")  # fmt: skip
        add("--prompt-length", type=int, default=256, metavar="N",
            help="of the base, in tokens; a quarter to four times as much is tried "
            "(default %(default)s, as of --max-tokens)")  # fmt: skip
        add("--depth", type=int, default=2, metavar="N",
            help="tokens drafted in a round, of the base (default %(default)s)")  # fmt: skip
        add("--depths", type=int, nargs="+", default=list(DEPTHS), metavar="N",
            help=f"of the last experiment (default {' '.join(map(str, DEPTHS))})")  # fmt: skip

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        for depth in (args.depth, *args.depths):
            if not 1 <= depth <= 64:
                raise InvalidArgumentError(f"--depth and --depths must be 1 to 64, not {depth}")
        for flag, value in (
            ("--prompt-length", args.prompt_length),
            ("--max-tokens", args.max_tokens),
        ):
            if value < SHORTEST:
                raise InvalidArgumentError(f"{flag} must be at least {SHORTEST}, not {value}")
        for pair in args.pairs:
            yield from _blocks(pair, args, workbench)

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        several = len({row["pair"] for row in rows}) > 1
        parts: list[Text | Table | Plot] = [Text(ABOUT)]
        for index, ((pair,), group) in enumerate(grouped(rows, "pair").items()):
            lines = lines_of(group)
            more = _suffix(index, pair)
            parts.append(Text("", heading=pair))
            parts.append(_table(lines, more))
            parts += plots(lines, more, pair if several else "")
        return Report("Prompt length, output length and draft length", parts)

    def files(self, rows: Sequence[Row], args: argparse.Namespace) -> None:
        for index, ((pair,), group) in enumerate(grouped(rows, "pair").items()):
            lines = lines_of(group)
            name = pathlib.Path(CSV)
            write_csv(args.out / f"{name.stem}{_suffix(index, pair)}{name.suffix}", lines)
            if args.output is not None:
                output: pathlib.Path = args.output
                write_csv(output.with_stem(output.stem + _suffix(index, pair)), lines)


def essay(workbench: Workbench, pair: Pair, n_tokens: int) -> str:
    """Often enough that so many tokens can be cut from it."""
    model = workbench.target(pair)
    return ESSAY * (1 + n_tokens // max(len(model.tokenize(ESSAY)) - 1, 1))


def _method(depth: int) -> Method:
    return Method(
        f"n={depth}", "model", options={"gamma": depth, "sampling": "greedy"}, verifier="greedy",
        axes={"n": depth},
    )  # fmt: skip


def context_of(workbench: Workbench, pair: Pair) -> int:
    """Positions that both models have."""
    trained = workbench.draft(pair).info.context_length
    return min(workbench.n_ctx(pair), trained) if trained > 0 else workbench.n_ctx(pair)


def _blocks(pair: Pair, args: argparse.Namespace, workbench: Workbench) -> list[Block]:
    room = context_of(workbench, pair)
    base_prompt, base_tokens = args.prompt_length, args.max_tokens
    if base_prompt + base_tokens > room:
        part = room / (base_prompt + base_tokens)
        shrunk = int(base_prompt * part), int(base_tokens * part)
        args.notes.append(
            f"{pair.name}: the base is {shrunk[0]} + {shrunk[1]} tokens instead of {base_prompt} + "
            f"{base_tokens}, because the context has {room}."
        )
        base_prompt, base_tokens = shrunk
    if min(base_prompt, base_tokens) < SHORTEST:
        args.notes.append(f"{pair.name}: a context of {room} tokens is too short for any of it")
        return []
    lengths = _within(base_prompt, args.limit, room - base_tokens, pair, "prompt length", args)
    answers = _within(base_tokens, args.limit, room - base_prompt, pair, "max tokens", args)
    depths = spread_out(list(dict.fromkeys(args.depths)), args.limit)
    plan = [
        *(("prompt_length", length, base_tokens, (args.depth,)) for length in lengths),
        *(("max_tokens", base_prompt, n_tokens, (args.depth,)) for n_tokens in answers),
        ("n_value", base_prompt, base_tokens, tuple(depths)),
    ]
    return [
        Block(
            pair,
            Task(f"{experiment} {length}+{n_tokens}", (essay(workbench, pair, length),), experiment,
                 max_prompt_tokens=length),
            (plain(), *map(_method, ns)), n_tokens, args.rounds,
            sampling={"temperature": 0.0}, ignore_eos=True,
            axes={"experiment": experiment, "prompt_length": length},
        )
        for experiment, length, n_tokens, ns in plan
    ]  # fmt: skip


def _within(
    base: int, limit: int | None, most: int, pair: Pair, what: str, args: argparse.Namespace
) -> list[int]:
    """The values of one axis, shrunk to what the context holds; each once."""
    found: list[int] = []
    values = list(dict.fromkeys(max(int(base * factor), SHORTEST) for factor in FACTORS))
    for wanted in spread_out(values, limit):
        value = min(wanted, most)
        if value not in found:
            found.append(value)
            if value < wanted:
                args.notes.append(
                    f"{pair.name}: {what} {wanted} is {value} here, which is all that the context "
                    "holds beside the rest."
                )
        else:
            args.notes.append(
                f"{pair.name}: {what} {wanted} is left out: in this context it would be {value} "
                "once more."
            )
    return found


# ---------------------------------------------------------------- results


def lines_of(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One per setting, in the order of the experiments; None where nothing was timed."""
    lines = []
    names = ("experiment", "prompt_length", "max_tokens", "method")
    for (experiment, length, n_tokens, method), group in grouped(rows, *names).items():
        base = [r for r in rows if r["block"] == group[0]["block"] and r["method"] == PLAIN]
        good = [row for row in group if not row["error"]]
        mean, deviation = mean_and_deviation(group)
        lines.append(
            {
                "experiment": experiment,
                "prompt_length": length,
                "max_tokens": n_tokens,
                "n": None if method == PLAIN else group[0]["n"],
                "method": "Normal" if method == PLAIN else "Speculative",
                "time": mean,
                "time_std": deviation,
                "acceptance_rate": None if method == PLAIN else share(good, "accepted", "drafted"),
                "speedup": None if method == PLAIN else mean_speedup(group, base),
                "figures": summary(group),
            }
        )
    return sorted(lines, key=_order)


def _order(line: dict[str, Any]) -> tuple[int, int, int, int]:
    """However the runs were spread: the experiments in turn, plain decoding first."""
    settings = (int(line["prompt_length"]), int(line["max_tokens"]), int(line["n"] or 0))
    return (EXPERIMENTS.index(line["experiment"]), *settings)


def write_csv(path: pathlib.Path, lines: Sequence[dict[str, Any]]) -> None:
    """The columns of the original, in its order; empty where there is nothing."""
    with whole_file(path) as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _table(lines: Sequence[dict[str, Any]], more: str) -> Table:
    header = [*COLUMNS, "speed-up", "tokens/pass", "same tokens"]
    cells = [
        [
            line["experiment"], str(line["prompt_length"]), str(line["max_tokens"]),
            "" if line["n"] is None else str(line["n"]), line["method"], number(line["time"], 4),
            number(line["time_std"], 4), percent(line["acceptance_rate"]),
            "1" if line["n"] is None else number(line["speedup"]),
            number(line["figures"]["tokens_per_pass"]), equal_cell(line["figures"]),
        ]
        for line in lines
    ]  # fmt: skip
    return Table(f"settings{more}", f"{len(lines)} settings", header, cells)


def _suffix(index: int, pair: str) -> str:
    """Files of the first pair have the names of the original."""
    return "-" + "".join(c if c.isalnum() else "-" for c in pair) if index else ""


def plots(lines: Sequence[dict[str, Any]], more: str, pair: str) -> list[Plot]:
    """Five, by the names of the original."""
    of = {name: [line for line in lines if line["experiment"] == name] for name in EXPERIMENTS}

    def plot(name: str, title: str, draw: Callable[..., None], **how: Any) -> Plot:
        whole = title + (f", {pair}" if pair else "")
        return Plot(name + more, whole, functools.partial(draw, **how), f"{whole}.", SIZE)

    return [
        plot("prompt_length_effect", "Effect of the prompt's length", _times,
             lines=of["prompt_length"], axis="prompt_length", label="tokens of the prompt"),
        plot("max_tokens_effect", "Effect of the number of tokens", _times,
             lines=of["max_tokens"], axis="max_tokens", label="tokens generated"),
        plot("n_effect", "Effect of n", _n_effect, lines=of["n_value"]),
        plot("acceptance_rate", "Acceptance by n", _by_n, lines=of["n_value"],
             column="acceptance_rate", label="share of drafted tokens that were accepted"),
        plot("speedup", "Speed-up by n", _by_n, lines=of["n_value"], column="speedup",
             label="times plain decoding", one=True),
    ]  # fmt: skip


def _timed(lines: Sequence[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["method"] == method and line["time"] is not None]


def _times(figure: Any, lines: Sequence[dict[str, Any]], axis: str, label: str) -> None:
    """Seconds of both methods, with the deviation between samples."""
    axes = figure.subplots()
    for method, colour in (("Normal", "#aa3333"), ("Speculative", "#4477aa")):
        shown = sorted(_timed(lines, method), key=lambda line: int(line[axis]))
        if not shown:
            continue
        axes.errorbar(
            [line[axis] for line in shown], [line["time"] for line in shown],
            yerr=[line["time_std"] for line in shown], marker="o", capsize=4, color=colour,
            label=method if shown[0]["n"] is None else f"{method} (n={shown[0]['n']})",
        )  # fmt: skip
    axes.set_xlabel(label)
    _seconds(axes)


def _seconds(axes: Any) -> None:
    axes.set_ylabel("seconds")
    axes.set_ylim(bottom=0)
    if axes.get_legend_handles_labels()[1]:
        axes.legend()


def _n_effect(figure: Any, lines: Sequence[dict[str, Any]]) -> None:
    axes = figure.subplots()
    shown = sorted(_timed(lines, "Speculative"), key=lambda line: int(line["n"]))
    if shown:
        axes.errorbar(
            [line["n"] for line in shown], [line["time"] for line in shown],
            yerr=[line["time_std"] for line in shown], marker="o", capsize=4, color="#4477aa",
            label="Speculative",
        )  # fmt: skip
    for line in _timed(lines, "Normal"):
        axes.axhline(line["time"], color="#aa3333", linestyle="--", label="Normal")
    _n_axis(axes, [line["n"] for line in shown])
    _seconds(axes)


def _by_n(
    figure: Any, lines: Sequence[dict[str, Any]], column: str, label: str, one: bool = False
) -> None:
    axes = figure.subplots()
    shown = [line for line in lines if line["n"] is not None and line[column] is not None]
    shown.sort(key=lambda line: int(line["n"]))
    axes.plot([line["n"] for line in shown], [line[column] for line in shown], marker="o",
              color="#4477aa")  # fmt: skip
    if one:
        axes.axhline(1.0, color="#aa3333", linestyle="--")
    _n_axis(axes, [line["n"] for line in shown])
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)


def _n_axis(axes: Any, values: Sequence[int]) -> None:
    axes.set_xlabel("n, tokens drafted in a round")
    if values:
        axes.set_xscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
