"""What a busy neighbour costs: `specdec bench` alone and beside a process that keeps one core busy
for a share of the time, in alternation.

    python tools/bench_neighbour.py -m MODEL.gguf [--rows 1,8] [--duty 0.5] [--rounds 5]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence


def keep_busy(duty: float, cpu: int) -> None:
    """Computes for `duty` of every 20 milliseconds on one core, until it is stopped or alone."""
    os.sched_setaffinity(0, {cpu})
    period = 0.02
    parent = os.getppid()
    while os.getppid() == parent:
        start = time.perf_counter()
        while time.perf_counter() - start < duty * period:
            pass
        time.sleep(max(0.0, start + period - time.perf_counter()))


def bench(binary: str, model: str, rows: str, threads: int) -> dict[str, float]:
    command = [binary, "bench", "-q", "--json", "-m", model, "--rows", rows, "--rounds", "9"]
    if threads > 0:
        command += ["-t", str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    times: dict[str, float] = json.loads(done.stdout)["t_ms"]
    return times


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--rows", default="1,8", help="row counts (default 1,8)")
    parser.add_argument("--duty", type=float, default=0.5, help="busy share (default 0.5)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations (default 5)")
    parser.add_argument("-t", "--threads", type=int, default=0)
    parser.add_argument("--specdec", default=os.environ.get("SPECDEC_BIN", "specdec"))
    parser.add_argument("--neighbour", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.neighbour is not None:
        keep_busy(args.duty, args.neighbour)
        return 0
    if not 0 < args.duty <= 1:
        parser.error("--duty must be above 0 and at most 1")
    binary = shutil.which(args.specdec)
    if binary is None:
        parser.error(f"{args.specdec} is not there: install the package, or give --specdec PATH")
    cpu = min(os.sched_getaffinity(0))
    alone: list[dict[str, float]] = []
    beside: list[dict[str, float]] = []
    for _ in range(args.rounds):
        alone.append(bench(binary, args.model, args.rows, args.threads))
        neighbour = subprocess.Popen(
            [sys.executable, __file__, "-m", "-", "--duty", str(args.duty), "--neighbour", str(cpu)]
        )
        try:
            beside.append(bench(binary, args.model, args.rows, args.threads))
        finally:
            neighbour.kill()
            neighbour.wait()
    print(f"{'rows':>5} {'alone ms':>10} {'beside ms':>10}  ratio (range)")
    for row in alone[0]:
        ratios = [b[row] / a[row] for a, b in zip(alone, beside, strict=True)]
        print(
            f"{row:>5} {statistics.median(a[row] for a in alone):>10.2f}"
            f" {statistics.median(b[row] for b in beside):>10.2f}"
            f"  {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
