"""Shared by the benchmark scripts: what machine this is, medians, JSON files without host paths."""

from __future__ import annotations

import json
import math
import os
import pathlib
import runpy
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

INSTALL_PEER = """\
The peer is llama.cpp through the public package llama-cpp-python. Install it into this environment,
or into another one that --peer-python names (its source package builds in about 6 minutes):

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36
"""


def machine(n_threads: int) -> dict[str, Any]:
    """What a reader must know to compare figures, and nothing about whose machine it is."""
    # By its path: tools/check_gpu.py does without the package.
    package = pathlib.Path(__file__).resolve().parents[1] / "python" / "specdec_native"
    here = runpy.run_path(str(package / "studies" / "checkout.py"))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": here["cpu_name"](),
        "cores": os.cpu_count(),
        "n_threads": n_threads,
        "memory_gib": round(memory / 2**30),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": here["commit"](),
    }


def run_json(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """Runs a program that prints one JSON object; a failure ends the script with its message."""
    try:
        done = subprocess.run(
            list(command),
            check=True,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not there") from None
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{command[0]} failed with exit code {error.returncode}") from None
    return json.loads(done.stdout)


def specdec_version(binary: str) -> str:
    done = subprocess.run([binary, "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.split()[1]  # specdec 1.2.3 (isa)


# Without the current folder, which -c puts on the path: a llama_cpp.py there is nobody's peer.
PEER_VERSION = (
    "import sys; sys.path[:] = filter(None, sys.path); import llama_cpp; "
    "print(llama_cpp.__version__)"
)


def peer_version(python: str) -> str:
    """Of llama-cpp-python; ends the script with the way to install it when it is not there."""
    try:
        done = subprocess.run(
            [python, "-c", PEER_VERSION], check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        raise SystemExit(f"{python} has no llama-cpp-python.\n\n{INSTALL_PEER}") from None
    return "llama-cpp-python " + done.stdout.strip()


def spread(values: Sequence[float], digits: int = 4) -> dict[str, Any]:
    """Median and range, and the values themselves."""
    return {
        "median": significant(statistics.median(values), digits),
        "range": [significant(min(values), digits), significant(max(values), digits)],
        "values": [significant(v, digits) for v in values],
    }


def significant(value: float, digits: int = 4) -> float:
    """So many significant digits: more would be noise in a file that is kept."""
    if value == 0 or not math.isfinite(value):
        return value
    return round(value, digits - 1 - math.floor(math.log10(abs(value))))


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


def to_json(value: Any, indent: str = "") -> str:
    """As json.dumps with an indent of one, but short values stay on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or len(indent) + len(flat) <= 120:
        return flat
    inner = indent + " "
    if isinstance(value, dict):
        items = [
            f"{json.dumps(k, ensure_ascii=False)}: {to_json(v, inner)}" for k, v in value.items()
        ]
    else:
        items = [to_json(v, inner) for v in value]
    opening, closing = ("{", "}") if isinstance(value, dict) else ("[", "]")
    return opening + ",".join(f"\n{inner}{item}" for item in items) + f"\n{indent}{closing}"


def write_report(path: pathlib.Path, report: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_json(report) + "\n", "utf-8")
    print(f"wrote {path}", file=sys.stderr)


def progress(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)
