"""Time from the start of a process to its first token, and the memory of two processes at once,
for each way of keeping weights (`--repack`).

    python tools/bench_start.py -m MODEL.gguf [-m ANOTHER.gguf] [--rounds 5] [--json FILE]

auto: weights are repacked at each start; kept: they come from the file that `--repack keep` wrote;
off: they stay in the model's file. Cold starts begin with both files out of the page cache, warm
ones behind another start. The ways take turns, another one first each round.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from bench_common import machine, spread, write_report

WAYS = {"auto": "auto", "kept": "auto", "off": "off"}
PROMPT = "def add(a, b):"


def forget(paths: Sequence[pathlib.Path]) -> None:
    """Drops files from the page cache, as far as nobody has them mapped."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fdatasync(fd)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def command(binary: str, model: str, way: str, n_tokens: int, threads: int) -> list[str]:
    words = [binary, "generate", "-m", model, "-p", PROMPT, "-n", str(n_tokens), "--ignore-eos"]
    words += ["-q", "--repack", WAYS[way], "--drafter", "none"]
    return words + (["-t", str(threads)] if threads else [])


def environment(way: str, folder: str) -> dict[str, str]:
    return {**os.environ, "SPECDEC_PACKED": folder if way == "kept" else "off"}


def first_token_ms(words: Sequence[str], env: dict[str, str]) -> float:
    """Until the first byte of text is read; the process is waited for."""
    start = time.perf_counter()
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=env) as run:
        assert run.stdout is not None
        first = run.stdout.read(1)
        elapsed = time.perf_counter() - start
        run.stdout.read()
    if run.returncode != 0 or not first:
        raise SystemExit(f"{words[0]} failed with {run.returncode}")
    return elapsed * 1000


def memory_of(pid: int) -> dict[str, int]:
    """Bytes: anonymous, and its share of what it maps together with others."""
    found = {}
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return {"anonymous": found["Anonymous"], "proportional": found["Pss"], "resident": found["Rss"]}


def two_at_once(words: Sequence[str], env: dict[str, str]) -> dict[str, int]:
    """The sums of two processes that have both written their first text."""
    runs = [subprocess.Popen(words, stdout=subprocess.PIPE, env=env) for _ in range(2)]
    try:
        for run in runs:
            assert run.stdout is not None
            if not run.stdout.read(1):
                raise SystemExit(f"{words[0]} ended without a text")
        of_each = [memory_of(run.pid) for run in runs]
    finally:
        for run in runs:
            run.send_signal(signal.SIGKILL)
            run.communicate()
    return {name: sum(each[name] for each in of_each) for name in of_each[0]}


def measure(binary: str, model: str, threads: int, rounds: int) -> dict[str, Any]:
    report: dict[str, Any] = {"model": pathlib.Path(model).name, "first_token_ms": {}, "two": {}}
    with tempfile.TemporaryDirectory(dir=pathlib.Path(model).parent) as folder:
        keep = command(binary, model, "kept", 1, threads)
        keep[keep.index("--repack") + 1] = "keep"
        report["keeping_ms"] = first_token_ms(keep, environment("kept", folder))
        kept = list(pathlib.Path(folder).iterdir())
        if not kept:
            raise SystemExit(f"{model}: its weights could not be kept; is the disk full?")
        report["kept_bytes"] = sum(path.stat().st_size for path in kept)
        times: dict[str, dict[str, list[float]]] = {way: {"cold": [], "warm": []} for way in WAYS}
        for i in range(rounds):
            order = [*WAYS][i % 3 :] + [*WAYS][: i % 3]
            for way in order:
                words = command(binary, model, way, 1, threads)
                forget([pathlib.Path(model), *kept])
                for state in ("cold", "warm"):
                    times[way][state].append(first_token_ms(words, environment(way, folder)))
        for way in WAYS:
            report["first_token_ms"][way] = {state: spread(ms) for state, ms in times[way].items()}
            words = command(binary, model, way, 2000, threads)
            report["two"][way] = two_at_once(words, environment(way, folder))
    return report


def table(reports: Sequence[dict[str, Any]]) -> str:
    lines = [
        "| Model | Weights | Cold start, ms | Warm start, ms | Two processes: own | shared |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for report in reports:
        for way, times in report["first_token_ms"].items():
            cells = [
                f"{t['median']:.0f} ({t['range'][0]:.0f}-{t['range'][1]:.0f})"
                for t in times.values()
            ]
            two = report["two"][way]
            shared = two["proportional"] - two["anonymous"]
            cells += [f"{two['anonymous'] / 2**20:.0f} MiB", f"{shared / 2**20:.0f} MiB"]
            lines.append(f"| {report['model']} | {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", action="append", required=True)
    parser.add_argument("-t", "--threads", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="also write the figures")
    parser.add_argument("--specdec", default=os.environ.get("SPECDEC_BIN", "specdec"))
    args = parser.parse_args(arguments)
    binary = shutil.which(args.specdec)
    if binary is None:
        parser.error(f"{args.specdec} is not there: install the package, or give --specdec PATH")
    if args.rounds < 1:
        parser.error("--rounds must be at least 1")
    reports = [measure(binary, model, args.threads, args.rounds) for model in args.model]
    print(table(reports))
    if args.json:
        write_report(pathlib.Path(args.json), {**machine(args.threads), "models": reports})
    return 0


if __name__ == "__main__":
    sys.exit(main())
