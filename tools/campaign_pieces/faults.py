"""Calls that fail: memory, files, threads. Runs the tests that inject them, and counts."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = {
    "calls": "tests/core/test_failed_calls.py",
    "allocations": "tests/core/test_out_of_memory.py",
}


@dataclass
class Outcome:
    """`told`: "CALL HOW" -> exit code -> runs."""

    name: str
    executions: int = 0
    hours: float = 0.0
    told: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)


def count(output: str) -> dict[str, dict[str, int]]:
    """Of the lines of JSON that the tests print."""
    found: dict[str, collections.Counter[str]] = {}
    for line in output.splitlines():
        match = re.search(r"(\{\"\w+ \w+ .*\})$", line)
        if match is None:
            continue
        for key, n in json.loads(match[1]).items():
            call, how, code = key.split()
            found.setdefault(f"{call} {how}", collections.Counter())[code] += n
    return {name: dict(codes) for name, codes in sorted(found.items())}


def run(
    minutes: float, *, names: list[str] | None = None, say: Callable[[str], None] = print
) -> list[Outcome]:
    """The longer, the more of the calls fail, one run each: evenly spread."""
    outcomes = []
    chosen = names or list(TESTS)
    for name in chosen:
        path = TESTS[name]
        outcome = Outcome(name)
        per_minute = 1 if name != "allocations" else 12
        points = max(per_minute * 2, round(minutes / len(chosen) * per_minute))
        command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", path]
        start = time.monotonic()
        done = subprocess.run(
            [*command, "--timeout=0"],
            cwd=ROOT,
            env={**os.environ, "SPECDEC_FAULT_POINTS": str(points)},
            capture_output=True,
            text=True,
            check=False,
        )
        outcome.hours = (time.monotonic() - start) / 3600
        outcome.told = count(done.stdout)
        runs = {key: codes for key, codes in outcome.told.items() if "scheduler" not in key}
        outcome.executions = sum(sum(codes.values()) for codes in runs.values())
        outcome.executions += outcome.told.get("malloc scheduler", {}).get("runs", 0)
        if done.returncode != 0:
            failed = re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.M)
            outcome.findings += failed or [done.stdout[-500:] + done.stderr[-500:]]
        say(f"{outcome}")
        outcomes.append(outcome)
    return outcomes
