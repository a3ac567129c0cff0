#!/usr/bin/env python3
"""Tries to break what is promised, in pieces, for as long as wanted, and keeps the counts.

    python tools/campaign.py --minutes 60                  # all pieces, the same time each
    python tools/campaign.py --minutes 120 soak
    python tools/campaign.py --minutes 10 fuzz:load fuzz:server killed:convert mutants:options
    python tools/campaign.py --table                       # docs/reliability.md from what is kept

Pieces:

    fuzz     libFuzzer over what reads strangers' bytes (tests/fuzz): load, tokenizer, template,
             grammar, kept (needs Clang); safetensors, tokenizer_json, sentencepiece, server (needs
             atheris)
    faults   calls of the system that fail (calls), and allocations (allocations)
    killed   kill -9 at random moments of everything that writes: convert, engine, batch,
             pull, train
    soak     a server and the library under mixed requests, watching memory
    mutants  small changes to Python files that some test should notice: decoder, options, model,
             many, bench_* (needs coverage)

With --keep, results are added to docs/reliability.json, and the table of docs/reliability.md is
made anew. Ends with 1 when something was found. The package must be installed
with its test modules.
"""

from __future__ import annotations

import argparse
import datetime
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))

from campaign_pieces import faults, fuzz, killed, mutants, soak
from campaign_pieces.table import Entry, write_page

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"


def say(text: str) -> None:
    print(text, flush=True)


def run_fuzz(minutes: float, names: list[str], seed: int) -> list[Entry]:
    return [
        Entry("fuzz", o.name, o.executions, o.hours, o.findings)
        for o in fuzz.run(minutes, targets=names, say=say)
    ]


def run_faults(minutes: float, names: list[str], seed: int) -> list[Entry]:
    return [
        Entry("faults", o.name, o.executions, o.hours, o.findings, {"told": o.told})
        for o in faults.run(minutes, names=names, say=say)
    ]


def run_killed(minutes: float, names: list[str], seed: int) -> list[Entry]:
    return [
        Entry("killed", o.name, o.n_runs, o.hours, o.findings,
              {"killed": o.n_killed, "writing": o.n_writing, "old": o.n_old, "new": o.n_new})
        for o in killed.run(minutes, seed=seed, groups=names, say=say)
    ]  # fmt: skip


def run_soak(minutes: float, names: list[str], seed: int) -> list[Entry]:
    return [
        Entry("soak", o.name, o.n_requests, o.hours, o.findings,
              {"growth": round(o.growth, 4), "rss_bytes": [*o.rss[:1], *o.rss[-1:]],
               "paused": o.n_paused})
        for o in soak.run(minutes, seed=seed, say=say)
    ]  # fmt: skip


def run_mutants(minutes: float, names: list[str], seed: int) -> list[Entry]:
    files = [file for file in mutants.FILES if pathlib.Path(file).stem in names]
    return [
        Entry("mutants", pathlib.Path(o.file).name, o.n_run, o.hours, [],
              {"mutants": o.n_mutants, "killed": o.killed, "equivalent": o.equivalent,
               "timed_out": len(o.timed_out), "survived": o.survived})
        for o in mutants.run(minutes, seed=seed, files=files, say=say)
    ]  # fmt: skip


Piece = Callable[[float, list[str], int], list[Entry]]
PIECES: dict[str, tuple[Piece, list[str]]] = {
    "fuzz": (run_fuzz, [*fuzz.NATIVE, *fuzz.PYTHON]),
    "faults": (run_faults, list(faults.TESTS)),
    "killed": (run_killed, list(killed.GROUPS)),
    "soak": (run_soak, []),
    "mutants": (run_mutants, [pathlib.Path(file).stem for file in mutants.FILES]),
}
MOST_SURVIVORS = 0.1


def chosen(words: list[str]) -> dict[str, list[str]]:
    """Pieces, and their parts in the order of the table above.

    Raises:
        ValueError: names a word that is none, and those that are.
    """
    found: dict[str, set[str]] = {}
    for word in words or list(PIECES):
        piece, _, part = word.partition(":")
        if piece not in PIECES:
            raise ValueError(f"no piece is called {piece}: there are {', '.join(PIECES)}")
        parts = PIECES[piece][1]
        if part and part not in parts:
            there_are = ", ".join(parts) or "none"
            raise ValueError(f"no part of {piece} is called {part}: there are {there_are}")
        found.setdefault(piece, set()).update([part] if part else parts)
    return {piece: [p for p in PIECES[piece][1] if p in parts] for piece, parts in found.items()}


def is_good(entry: Entry) -> bool:
    survived = entry.detail.get("survived", [])
    return not entry.findings and len(survived) <= MOST_SURVIVORS * max(entry.executions, 1)


def commit() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def keep(entries: list[Entry], path: pathlib.Path) -> None:
    kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
    date, at = datetime.date.today().isoformat(), commit()
    kept["runs"] += [{"date": date, "commit": at, **entry.as_json()} for entry in entries]
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pieces", nargs="*", metavar="PIECE[:PART]", help="default: all")
    parser.add_argument("--minutes", type=float, default=60.0, help="for all of them (60)")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn (1)")
    parser.add_argument("--keep", action="store_true", help="add to docs/reliability.json")
    parser.add_argument("--table", action="store_true", help="only write docs/reliability.md")
    args = parser.parse_args()
    if args.table:
        write_page(RESULTS, PAGE)
        return 0
    try:
        pieces = chosen(args.pieces)
    except ValueError as error:
        parser.error(str(error))
    entries: list[Entry] = []
    for piece, parts in pieces.items():
        each: list[list[str]] = [[part] for part in parts] or [[]]
        for names in each:  # one by one, so that what is done is kept
            found = PIECES[piece][0](args.minutes / len(pieces) / len(each), names, args.seed)
            if args.keep:
                keep(found, RESULTS)
                write_page(RESULTS, PAGE)
            entries += found
    bad = [entry for entry in entries if not is_good(entry)]
    for entry in entries:
        say(f"{entry.piece} {entry.name}: {entry.executions} executions, {entry.hours:.2f} h")
        for text in [*entry.findings, *entry.detail.get("survived", [])]:
            say(f"    {text}")
    say(f"{len(bad)} of {len(entries)} found something" if bad else "nothing was found")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
