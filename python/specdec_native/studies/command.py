"""`specdec-native study NAME`: runs a study, goes on with one, writes its report."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from .._extras import missing
from .._names import find_model
from ..errors import InvalidArgumentError, ModelFileError, ModelFileNotFoundError
from ..model import info
from . import machine
from .engines import Workbench
from .figures import different, tidy
from .plan import Block, Pair, digest
from .progress import Progress
from .report import Report, Table, Text, common_parts, where_measured, write
from .runner import Row, run_block
from .spread import Job, Setup, over_processes, over_ray
from .store import RUNS, Store, parse_runs, read_settings
from .study import STUDIES, Study, find_study

EXTRA = ("pandas", "matplotlib", "rich")
# Options that do not change what is run.
_FREE = {"out", "workers", "ray", "restart", "report", "quiet", "pairs", "notes", "target", "draft",
         "pair", "output"}  # fmt: skip


def need_extra(*more: str) -> None:
    """One line instead of a traceback halfway."""
    lacking = [name for name in (*EXTRA, *more) if importlib.util.find_spec(name) is None]
    if lacking:
        raise missing("a study", "studies", ImportError(f"no {', '.join(lacking)}"))


def parser_of(study: Study) -> argparse.ArgumentParser:
    summary = STUDIES[study.name][2]
    parser = argparse.ArgumentParser(
        prog=f"specdec-native study {study.name}",
        description=f"{summary[0].upper()}{summary[1:]}. Runs that are in DIR already are kept: "
        "the same command goes on after an interruption.",
        epilog="DIR gets report.html, report.md, tables/, plots/, rows.csv and rows.jsonl (one row "
        "per run), runs.jsonl (as they were run) and study.json. Exit code 1: a method that must "
        "emit the tokens of plain decoding did not.",
    )
    default = {"rounds": 3, "max_tokens": 128, "limit": None, "ctx": 4096, **study.defaults}
    add = parser.add_argument
    add("-m", "--target", help="a GGUF file, or smollm2, pycode, manuals")
    add("-md", "--draft", help="a smaller model of its vocabulary, or smollm2-draft, ...")
    add(
        "--pair", nargs=2, action="append", default=[], metavar=("TARGET", "DRAFT"),
        help="a further pair; may be given several times, instead of --target and --draft",
    )  # fmt: skip
    out = default.get("out")
    add("--out", type=pathlib.Path, required=out is None, metavar="DIR",
        default=None if out is None else pathlib.Path(out),
        help="the study's folder" + (f" (default {out})" if out else ""))  # fmt: skip
    add("--limit", type=int, default=default["limit"], metavar="N",
        help=f"prompts of each kind, at most (default {default['limit'] or 'all'})")  # fmt: skip
    add("--rounds", type=int, default=default["rounds"], metavar="N",
        help="how often each method answers each prompt (default %(default)s)")  # fmt: skip
    add("-n", "--max-tokens", type=int, default=default["max_tokens"], metavar="N",
        help="of each answer (default %(default)s)")  # fmt: skip
    add("-s", "--seed", type=int, default=42, help="of the first round (default %(default)s)")
    add("-c", "--ctx", type=int, default=default["ctx"], metavar="N",
        help="positions, at most the model's own (default %(default)s)")  # fmt: skip
    add("-t", "--threads", type=int, metavar="N", help="default: one per core")
    add("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add("--workers", type=int, default=1, metavar="N",
        help="spread over N processes: the same tokens, no times")  # fmt: skip
    add("--ray", metavar="ADDRESS", help="spread over a Ray cluster; local: start one here")
    add("--restart", action="store_true", help="throw away the runs that are in DIR")
    add("--report", action="store_true", help="run nothing; write the report of what is there")
    add("-q", "--quiet", action="store_true", help="no progress, no table")
    study.add_arguments(parser)
    return parser


def main(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        return 0 if arguments else 2
    study = find_study(arguments[0])
    args = parser_of(study).parse_args(arguments[1:])
    need_extra(*study.extra)
    _check(args)
    return run(study, args)


def _overview() -> str:
    width = max(map(len, STUDIES))
    lines = [f"  {name:<{width}}  {summary}" for name, (_, _, summary) in STUDIES.items()]
    return (
        "usage: specdec-native study NAME --target T.gguf [--draft D.gguf] --out DIR [OPTIONS]\n\n"
        "Runs a study and writes its rows, tables, plots and report into DIR.\n"
        "specdec-native study NAME --help tells the options.\n\n" + "\n".join(lines)
    )


def _check(args: argparse.Namespace) -> None:
    for name, lowest in (
        ("rounds", 1),
        ("max_tokens", 1),
        ("seed", 0),
        ("ctx", 16),
        ("workers", 1),
    ):
        if getattr(args, name) < lowest:
            flag = "--" + name.replace("_", "-")
            raise InvalidArgumentError(
                f"{flag} must be at least {lowest}, not {getattr(args, name)}"
            )
    if args.limit is not None and args.limit < 1:
        raise InvalidArgumentError(f"--limit must be at least 1, not {args.limit}")


def pairs_of(study: Study, args: argparse.Namespace) -> list[Pair]:
    given: list[tuple[str, str | None]] = [(t, d) for t, d in args.pair]
    if args.target is not None:
        given.insert(0, (args.target, args.draft))
    if not given:
        raise InvalidArgumentError("no model: give --target, or --pair TARGET DRAFT")
    if args.target is None and args.draft is not None:
        raise InvalidArgumentError("--draft goes with --target; --pair names both")
    pairs: list[Pair] = []
    for target, draft in given:
        if draft is None and study.needs_draft:
            raise InvalidArgumentError(f"the study {study.name} needs a draft model: --draft")
        paths = (_file(target), None if draft is None else _file(draft))
        name = " + ".join(pathlib.Path(p).name.removesuffix(".gguf") for p in paths if p)
        if any(pair.name == name for pair in pairs):
            raise InvalidArgumentError(f"the pair {name} is given twice")
        pairs.append(Pair(name, *paths))
    return pairs


def _file(name: str) -> str:
    path = str(find_model(name, notify=lambda text: print(text, file=sys.stderr)))
    if not pathlib.Path(path).is_file():
        raise ModelFileNotFoundError(f"{path}: no such file", reason="not_found", path=path)
    return path


def settings_of(study: Study, args: argparse.Namespace, blocks: Sequence[Block]) -> dict[str, Any]:
    """What must be the same when a study goes on. Files count by their content."""
    options = {
        name: _content(value) if isinstance(value, pathlib.Path) else value
        for name, value in vars(args).items()
        if name not in _FREE and name not in study.free
    }
    models = [
        {"pair": pair.name, "files": [_model_mark(p) for p in (pair.target, pair.draft) if p]}
        for pair in args.pairs
    ]
    return {
        "study": study.name,
        "version": info()["version"],
        "options": options,
        "models": models,
        "blocks": digest([block.id for block in blocks]),
    }


def _content(path: pathlib.Path) -> str:
    if path.is_dir():
        return path.name
    try:
        return f"{path.name}, sha256 {hashlib.sha256(path.read_bytes()).hexdigest()[:16]}"
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None


def _model_mark(path: str) -> str:
    """Name, size and the first megabyte: metadata and the start of the weights."""
    with pathlib.Path(path).open("rb") as file:
        head = hashlib.sha256(file.read(1 << 20)).hexdigest()[:16]
        size = file.seek(0, os.SEEK_END)
    return f"{pathlib.Path(path).name}, {size} bytes, sha256 {head} of the first MiB"


def run(study: Study, args: argparse.Namespace) -> int:
    args.pairs, args.notes = pairs_of(study, args), []
    with Workbench(args.pairs, n_threads=args.threads, n_ctx=args.ctx, device=args.device) as bench:
        bench.check()
        blocks = list(study.blocks(args, bench))
        if not blocks:
            raise InvalidArgumentError("no prompts: " + ("; ".join(args.notes) or "nothing to run"))
        _check_once(blocks)
        settings = settings_of(study, args, blocks)
        if args.report:
            read_settings(args.out)
            rows, _ = parse_runs(args.out / RUNS) if (args.out / RUNS).exists() else ([], 0)
        else:
            with Store(args.out, settings, restart=args.restart) as store:
                try:
                    _run_all(study, args, bench, blocks, store)
                except BaseException:
                    if not args.quiet:
                        kept = f"{len(store.done)} runs are kept in {args.out}"
                        print(f"{kept}; the same command goes on", file=sys.stderr)
                    raise
                rows = store.rows
    keys = ((block.id, method.name, turn) for block in blocks for turn, method in block.runs())
    planned = {key: place for place, key in enumerate(keys)}
    rows = [row for row in rows if (row["block"], row["method"], row["round"]) in planned]
    # As planned, whoever ran it and when: the same tables, however the runs were spread.
    rows.sort(key=lambda row: (planned[row["block"], row["method"], row["round"]], row["turn"]))
    if not rows:
        raise InvalidArgumentError(f"{args.out} holds no runs yet")
    return conclude(study, args, rows, len(planned))


def _check_once(blocks: Sequence[Block]) -> None:
    """Runs are known by their block: of two that are the same, neither could be told or kept."""
    seen: set[str] = set()
    for block in blocks:
        if block.id in seen:
            raise InvalidArgumentError(f"{block.task.id} is asked twice with the same settings")
        seen.add(block.id)


def _run_all(
    study: Study, args: argparse.Namespace, bench: Workbench, blocks: list[Block], store: Store
) -> None:
    done = store.done
    total = sum(len(block.runs()) for block in blocks)
    threads = bench.target(args.pairs[0]).info
    common = {
        "study": study.name,
        **machine.facts(),
        "n_threads": threads.n_threads,
        "device": threads.device,
        "session": machine.now(),
    }
    with Progress(total, len(done), quiet=args.quiet) as progress:
        for runs in _runs(args, bench, blocks, done, common):
            for rows in runs:
                store.append(rows)
                progress.step(f"{rows[0]['task']}, {rows[0]['method']}")


def _runs(
    args: argparse.Namespace,
    bench: Workbench,
    blocks: list[Block],
    done: set[Any],
    common: dict[str, Any],
) -> Iterator[list[list[Row]]]:
    if args.workers == 1 and args.ray is None:
        for block in blocks:
            for rows in run_block(bench, block, seed=args.seed, common=common, done=done):
                yield [rows]
        return
    keys = {b.id: frozenset(k for k in done if k[0] == b.id) for b in blocks}
    jobs: list[Job] = [(b, keys[b.id]) for b in blocks if len(keys[b.id]) < len(b.runs())]
    threads = args.threads or max(1, (os.cpu_count() or 1) // args.workers)
    bench.close()  # the processes load their own
    setup = Setup(tuple(args.pairs), threads, args.ctx, args.device, args.seed, common)
    if args.ray is not None:
        yield from over_ray(setup, jobs, args.ray)
    else:
        yield from over_processes(setup, jobs, args.workers)


def conclude(study: Study, args: argparse.Namespace, rows: Sequence[Row], n_planned: int) -> int:
    """Report, exit code."""
    whole = [{**row, **study.columns(row)} for row in tidy(rows)]
    own = study.report(whole, args)
    parts = [*common_parts(whole, n_planned, args.notes), *own.parts]
    parts.append(Text("", heading="Machine"))
    parts.append(where_measured(whole))
    write(args.out, Report(own.title, parts), whole)
    study.files(whole, args)
    wrong = different(whole)
    if not args.quiet:
        for part in parts:
            if isinstance(part, Table) and part.name != "machine":
                print(f"{part.title}\n\n{part.markdown()}\n")
                break
        print(f"report: {args.out / 'report.html'}")
    if wrong:
        print(
            f"specdec-native: {len(wrong)} runs emitted other tokens than plain decoding, the "
            f"first: {wrong[0]}",
            file=sys.stderr,
        )
    return 1 if wrong else 0
