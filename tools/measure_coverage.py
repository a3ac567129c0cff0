#!/usr/bin/env python3
"""Measure which lines of the package and of the engine the tests reach.

    python tools/measure_coverage.py                  # both, compared with docs/coverage.json
    python tools/measure_coverage.py --python-only    # of the installed package: as fast as pytest
    python tools/measure_coverage.py --write          # keep the new figures
    python tools/measure_coverage.py -- -k tokenizer  # arguments for pytest

For the engine it is built once more with counters (GCC), in build/coverage: an hour or two on two
cores. Needs the package's test dependencies, pytest-cov, pytest-xdist and gcovr. CUDA sources and
kernels of instruction sets that this machine cannot run are left out.

Ends with 1 where a folder's share is more than half a percent lower than what is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import run_sanitizers

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "coverage.json"
# Percent: tests that wait for signals or for memory to run out do not hit the same lines each time.
SLACK = 0.5


def pytest(report: Path, settings: dict[str, str], arguments: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(os.cpu_count() or 1)]
    command += ["-p", "no:cacheprovider", "--cov=specdec_native", f"--cov-report=json:{report}"]
    environment = {**os.environ, **settings, "COVERAGE_FILE": str(report.with_suffix(".data"))}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=False)
    if done.returncode not in (0, 1):  # 1: tests failed, which lines they reached is known
        sys.exit(f"exit status {done.returncode}: pytest")


def share(covered: int, lines: int) -> float:
    return round(100 * covered / lines, 1) if lines else 100.0


def of_folders(files: dict[str, tuple[int, int]]) -> dict[str, dict[str, float]]:
    """Lines and percent by folder, from lines covered and there by file."""
    sums: dict[str, list[int]] = {}
    for name, counts in files.items():
        total = sums.setdefault(name.rpartition("/")[0], [0, 0])
        total[0] += counts[0]
        total[1] += counts[1]
    all_of_it = [sum(s[i] for s in sums.values()) for i in (0, 1)]
    rows = {**dict(sorted(sums.items())), "total": all_of_it}
    return {name: {"lines": n, "percent": share(c, n)} for name, (c, n) in rows.items()}


def python_files(report: Path) -> dict[str, tuple[int, int]]:
    found: dict[str, Any] = json.loads(report.read_text("utf-8"))["files"]
    out = {}
    for name, data in found.items():
        inside = "specdec_native/" + name.replace("\\", "/").rpartition("specdec_native/")[2]
        out[inside] = (data["summary"]["covered_lines"], data["summary"]["num_statements"])
    return out


def build() -> Path:
    folder = ROOT / "build" / "coverage"
    configure = ["cmake", "--preset", "dev", "-B", str(folder), "-DSPECDEC_PYTHON=ON"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", "-DCMAKE_BUILD_TYPE=None"]
    configure += [f"-Dpybind11_DIR={run_sanitizers.pybind11_dir()}"]
    configure += ["-DCMAKE_CXX_FLAGS=-O1 -g0 --coverage -fprofile-update=atomic"]
    for command in (configure, ["cmake", "--build", str(folder), "--parallel"]):
        subprocess.run(command, cwd=ROOT, check=True)
    for counts in folder.rglob("*.gcda"):
        counts.unlink()
    return folder


def native_files(folder: Path) -> dict[str, tuple[int, int]]:
    report = folder / "gcovr.json"
    command = [sys.executable, "-m", "gcovr", "--root", str(ROOT), "--filter", "cpp/"]
    command += ["--exclude", "cpp/backend/cuda/", "--merge-mode-functions=separate"]
    command += ["--gcov-ignore-errors=all", "--gcov-ignore-parse-errors=all"]
    command += ["--json-summary", str(report), str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = json.loads(report.read_text("utf-8"))["files"]
    return {f["filename"]: (f["line_covered"], f["line_total"]) for f in found}


def worse(found: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """Folders that lost: name, then and now."""
    out = []
    for part, folders in found.items():
        for name, now in folders.items():
            then = kept.get(part, {}).get(name)
            if then is not None and now["percent"] < then["percent"] - SLACK:
                out.append(f"{part} {name}: {then['percent']} % -> {now['percent']} %")
    return out


def measure(args: argparse.Namespace, extra: list[str]) -> dict[str, Any]:
    scratch = ROOT / "build" / "coverage-report"
    scratch.mkdir(parents=True, exist_ok=True)
    report = scratch / "python.json"
    if args.python_only:
        pytest(report, {}, extra)
        return {"python": of_folders(python_files(report))}
    folder = build()
    staged = run_sanitizers.stage("coverage", folder)
    settings = {
        "PYTHONPATH": os.pathsep.join([str(staged), os.environ.get("PYTHONPATH", "")]),
        "SPECDEC_TEST_MODULES": str(staged / "modules"),
        "SPECDEC_BIN": str(staged / "specdec"),
    }
    pytest(report, settings, extra)
    return {"python": of_folders(python_files(report)), "cpp": of_folders(native_files(folder))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python-only", action="store_true", help="of the installed package")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {KEPT.name}")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:split])
    found = measure(args, sys.argv[split + 1 :])
    for part, folders in found.items():
        for name, row in folders.items():
            print(f"{part:7s} {name:45s} {row['lines']:6d} lines {row['percent']:6.1f} %")
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    if args.write:
        KEPT.write_text(json.dumps({**kept, **found}, indent=1) + "\n", encoding="utf-8")
    elif lost := worse(found, kept):
        sys.exit("less of the code is reached than before:\n" + "\n".join(lost))


if __name__ == "__main__":
    main()
