"""`peers`: the same prompts and files through llama.cpp and Hugging Face, in the same minutes."""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, cast

from ..errors import InvalidArgumentError, SpecdecError
from .benchmark_report import slowest
from .engines import Workbench
from .figures import by, grouped, number, percent, ranged, summary, tidy
from .methods import HELP, fitting, parse_methods, possible, sampling_of
from .peer_engines import MissingPeerError, ProcessEngine
from .peer_server import ServerEngine
from .plan import PLAIN, Block, Method, Pair
from .prompt_sources import add_prompt_sources, tasks_of
from .report import Plot, Report, Table, Text
from .runner import Row
from .study import Study, spread_out

KINDS = ("none", "ngram", "model")
# What is compared with what: ours, and the drafter of another engine.
LIKE = ((PLAIN, "none"), ("ngram", "ngram"), ("model", "model"))


class Peers(Study):
    name = "peers"
    defaults: ClassVar[dict[str, Any]] = {"rounds": 3, "max_tokens": 128}
    free: ClassVar[tuple[str, ...]] = ("peer_python", "llama_server")  # versions are in the rows

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        add_prompt_sources(parser)
        add = parser.add_argument
        add("--methods", default="plain,auto,ngram,suffix,model", metavar="LIST", help=HELP)
        add("--temperature", type=float, default=0.0, help="default 0")
        add("--peer-python", metavar="PYTHON",
            help="a Python with llama-cpp-python, or transformers; default: this one")  # fmt: skip
        add("--llama-server", metavar="ADDRESS",
            help="a running server with the same target, as 127.0.0.1:8080")  # fmt: skip
        add("--transformers", action="store_true",
            help="transformers too, on float32 weights made from the same files")  # fmt: skip

    def blocks(self, args: argparse.Namespace, workbench: Workbench) -> Iterable[Block]:
        if args.workers > 1 or args.ray is not None:
            raise InvalidArgumentError(
                "the study peers compares times: it runs in one process, without --workers or --ray"
            )
        sampling = sampling_of(args.temperature)
        if args.peer_python is not None:
            workbench.outside["python"] = args.peer_python
        if args.llama_server is not None:
            workbench.outside["server"] = args.llama_server
            if len(args.pairs) > 1:
                raise InvalidArgumentError("--llama-server has one model: give one pair")
        for pair in args.pairs:
            methods = possible(args, workbench, pair, parse_methods(args.methods))
            methods += tuple(_peers(args, workbench, pair))
            kinds = tasks_of(args, has_template=workbench.target(pair).chat_template is not None)
            for tasks in kinds.values():
                for task in spread_out(fitting(args, workbench, pair, tasks), args.limit):
                    yield Block(
                        pair, task, methods, args.max_tokens, args.rounds, sampling=sampling
                    )

    def report(self, rows: Sequence[Row], args: argparse.Namespace) -> Report:
        parts: list[Text | Table | Plot] = []
        for (pair,), group in grouped(rows, "pair").items():
            slug = "".join(c if c.isalnum() else "-" for c in pair)
            parts.append(Text(_who(group), heading=pair))
            parts += [engines_table(group, slug), like_table(group, slug), _plot(group, slug)]
        return Report("Beside other engines", parts)


def _peers(args: argparse.Namespace, workbench: Workbench, pair: Pair) -> list[Method]:
    """Those that are there. One that was asked for by name must be, others are a note."""
    asked = {
        "llama.cpp": args.peer_python is not None and not args.transformers,
        **({"transformers": True} if args.transformers else {}),
        **({"llama-server": True} if args.llama_server is not None else {}),
    }
    found: list[Method] = []
    for engine, by_name in asked.items():
        kinds = ("none",) if engine == "llama-server" else KINDS
        for kind in kinds:
            if kind == "model" and pair.draft is None:
                continue
            name = engine if kind == "none" else f"{engine} {kind}"
            method = Method(name, kind, engine=engine)
            try:
                made = cast("ProcessEngine | ServerEngine", workbench.engine(pair, method))
            except SpecdecError as error:
                if by_name or not isinstance(error, MissingPeerError):
                    raise
                args.notes.append(f"Without {engine}: {error}")
                break
            found.append(dataclasses.replace(method, axes={"peer": made.version}))
    return found


# ---------------------------------------------------------------- the report


def _who(rows: Sequence[Row]) -> str:
    versions = sorted({str(row["peer"]) for row in rows if row.get("peer")})
    text = (
        "Every engine answers a prompt in the same round, each round starts with another; all use "
        f"{rows[0]['n_threads']} threads and get the same token ids."
    )
    if versions:
        text += f" Peers: {'; '.join(versions)}."
    if any(row["engine"] == "transformers" for row in rows):
        text += (
            " transformers runs the same weights in float32, several times the bytes: it shows "
            "what its users have, not what its algorithm could do on these files."
        )
    if any(row["engine"] == "llama.cpp" and row["drafter"] == "model" for row in rows):
        text += (
            " llama.cpp's draft model drafts 3 tokens, its own default, and its n-gram lookup is "
            "the one of llama-cpp-python."
        )
    return text


def engines_table(rows: Sequence[Row], slug: str) -> Table:
    cells = []
    for (name,), group in grouped(rows, "method").items():
        f = summary(group)
        own_plain = _plain_of(group[0])
        over_own = _against(rows, name, own_plain)["speedup"] if name != own_plain else None
        cells.append(
            [
                name,
                number(f["tokens_per_second"], 1),
                "1" if name == PLAIN else ranged(f),
                "1" if name == PLAIN else number(f["total_speedup"]),
                "1" if name == own_plain else number(over_own),
                number(f["tokens_per_pass"]),
                percent(f["acceptance"]),
                agreement(rows, name),
                "-" if name == PLAIN else slowest(group),
            ]
        )
    header = ["method", "tokens/s", "over our plain (range)", "with the prompt",
              "over own plain", "tokens/pass", "acceptance", "same tokens",
              "slowest prompt"]  # fmt: skip
    note = (
        "over: times as fast as, in brackets from the slowest prompt to the fastest; own: of the "
        "same engine; same tokens: as our plain decoding. "
        "Other engines round differently, so their greedy text may part from ours where two tokens "
        "are nearly as likely, and a second turn follows each one's own answer: no fault of "
        "either. Above temperature 0 they draw other random numbers, and tokens are not compared."
    )
    return Table(f"engines-{slug}", "All engines", header, cells, note)


def _plain_of(row: Row) -> str:
    return PLAIN if row["engine"] == "specdec" else str(row["engine"])


def _against(rows: Sequence[Row], method: str, base: str) -> dict[str, Any]:
    """Figures of a method with another one as its baseline."""
    chosen = [
        {**row, "baseline": base, "exact": False} for row in rows if row["method"] in (method, base)
    ]
    return summary([row for row in tidy(chosen) if row["method"] == method])


def agreement(rows: Sequence[Row], method: str) -> str:
    """Runs with the very tokens of our plain decoding, of those compared."""
    base = {
        (row["block"], row["round"], row["turn"]): row["token_ids"]
        for row in rows
        if row["method"] == PLAIN and not row["error"]
    }
    if method == PLAIN:
        return "-"
    compared = [
        row["token_ids"] == base[key]
        for row in rows
        if row["method"] == method and not row["error"]
        and (row["engine"] == "specdec" or not row["temperature"])
        and (key := (row["block"], row["round"], row["turn"])) in base
    ]  # fmt: skip
    return f"{sum(compared)}/{len(compared)}" if compared else "-"


def like_table(rows: Sequence[Row], slug: str) -> Table:
    """Our plain decoding against theirs, our lookup against theirs, and so on."""
    cells = []
    there = {row["method"]: row for row in rows}
    for ours, kind in LIKE:
        for name, row in there.items():
            if row["engine"] == "specdec" or row["drafter"] != kind or ours not in there:
                continue
            f = _against(rows, ours, name)
            cells.append([ours, name, ranged(f), number(f["total_speedup"])])
    best = _best(rows, own=True)
    theirs = _best(rows, own=False)
    if best and theirs:
        f = _against(rows, best, theirs)
        cells.append([f"best: {best}", f"best: {theirs}", ranged(f), number(f["total_speedup"])])
    return Table(
        f"like-{slug}", "Ours over theirs",
        ["ours", "theirs", "times as fast (slowest-fastest)", "with the prompt"], cells,
    )  # fmt: skip


def _best(rows: Sequence[Row], *, own: bool) -> str:
    chosen = [row for row in rows if (row["engine"] == "specdec") == own]
    rates = {str(key[0]): f["tokens_per_second"] or 0.0 for key, f in by(chosen, "method")}
    return max(rates, key=lambda name: rates[name], default="")


def _plot(rows: Sequence[Row], slug: str) -> Plot:
    engines = {row["method"]: row["engine"] for row in rows}
    bars = [
        (str(key[0]), str(engines[key[0]]), f["tokens_per_second"])
        for key, f in by(rows, "method")
        if f["tokens_per_second"] is not None
    ]
    return Plot(
        f"engines-{slug}", "Tokens per second while decoding",
        functools.partial(draw_engines, bars=bars), "Geometric mean over prompts.",
    )  # fmt: skip


def draw_engines(figure: Any, bars: Sequence[tuple[str, str, float]]) -> None:
    axes = figure.subplots()
    inks = ("#4477aa", "#cc6677", "#ddaa33", "#228833")
    colours = dict(zip(dict.fromkeys(engine for _, engine, _ in bars), inks, strict=False))
    axes.barh(
        [n for n, _, _ in bars], [r for _, _, r in bars], color=[colours[e] for _, e, _ in bars]
    )
    axes.set_xlabel("tokens per second")
    axes.invert_yaxis()
