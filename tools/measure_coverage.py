#!/usr/bin/env python3
"""Measure which lines of the package and of the engine the tests reach.

    python tools/measure_coverage.py                  # both, compared with docs/coverage.json
    python tools/measure_coverage.py --python-only    # of the installed package: as fast as pytest
    python tools/measure_coverage.py --write          # keep the new figures, and write the page
    python tools/measure_coverage.py -- -k tokenizer  # arguments for pytest

For the engine it is built once more with counters (GCC), in build/coverage: an hour or two on two
cores. Needs the package's test dependencies, pytest-cov, pytest-xdist and gcovr. CUDA sources and
kernels of instruction sets that this machine cannot run are left out, and so are downloaded models
and tests that build programs of their own; what tools/fetch_test_data.py fetches is used.

Ends with 1 where a folder's share is more than half a percent lower than what is kept. On a machine
with other instruction sets than the kept figures are from, the kernels are not compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import run_sanitizers

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "coverage.json"
PAGE = ROOT / "docs" / "coverage.md"
# Percent: tests that wait for signals or for memory to run out do not hit the same lines each time.
SLACK = 0.5
# Lines that another processor would not reach.
KERNELS = ("cpp/backend/cpu", "cpp/backend/cpu/wide", "total")
PARTS = {"python": "Python, `python/`", "cpp": "C++, `cpp/`"}
BEGIN, END = "<!-- figures: tools/measure_coverage.py --write -->", "<!-- end of figures -->"


def pytest(scratch: Path, settings: dict[str, str], arguments: list[str]) -> Path:
    """Runs the tests; which lines of the package they reached, as coverage's JSON."""
    report = scratch / "python.json"
    config = scratch / "coveragerc"
    # Processes that tests start are counted too.
    config.write_text("[run]\npatch = subprocess\nparallel = true\n", "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-n", str(os.cpu_count() or 1)]
    command += ["-p", "no:cacheprovider", f"--cov-config={config}"]
    command += ["--cov=specdec_native", "--cov-report=", f"--cov-report=json:{report}"]
    command += [f"--deselect={test}" for test in run_sanitizers.DESELECT]
    environment = {**os.environ, "SPECDEC_MODELS": str(test_data(scratch / "models"))}
    environment |= {**settings, "COVERAGE_FILE": str(scratch / "python.data")}
    done = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=False)
    if done.returncode not in (0, 1):  # 1: tests failed, which lines they reached is known
        sys.exit(f"exit status {done.returncode}: pytest")
    return report


def test_data(folder: Path) -> Path:
    """A folder with what tools/fetch_test_data.py has fetched, and without models."""
    folder.mkdir(exist_ok=True)
    usual = Path.home() / ".cache" / "specdec-native" / "models"
    there = Path(os.environ.get("SPECDEC_MODELS") or usual).absolute()
    for name in ("vocabs", "templates"):
        (folder / name).unlink(missing_ok=True)
        if (there / name).is_dir():
            (folder / name).symlink_to(there / name)
    return folder


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
    command += ["-j", str(os.cpu_count() or 1), "--json-summary", str(report), str(folder)]
    subprocess.run(command, cwd=ROOT, check=True)
    found = json.loads(report.read_text("utf-8"))["files"]
    return {f["filename"]: (f["line_covered"], f["line_total"]) for f in found}


def worse(found: dict[str, Any], kept: dict[str, Any]) -> list[str]:
    """Folders of both that lost: name, then and now."""
    out = []
    skipped = KERNELS if found.get("isas") != kept.get("isas") else ()
    for part in PARTS:
        for name, now in found.get(part, {}).items():
            then = kept.get(part, {}).get(name)
            if then is None or (part == "cpp" and name in skipped):
                continue
            if now["percent"] < then["percent"] - SLACK:
                out.append(f"{part} {name}: {then['percent']} % -> {now['percent']} %")
    return out


def table(figures: dict[str, Any]) -> str:
    """The figures for docs/coverage.md."""
    when = ", ".join(f"{figures[key]}" for key in ("date", "commit") if figures.get(key))
    lines = [f"Measured on {when}; instruction sets of the machine: {', '.join(figures['isas'])}."]
    for part, title in PARTS.items():
        rows = figures.get(part)
        if not rows:
            continue
        lines += ["", f"| {title} | lines | reached |", "|---|---|---|"]
        for name, row in rows.items():
            shown = "**all**" if name == "total" else f"`{name}`"
            lines.append(f"| {shown} | {row['lines']} | {row['percent']} % |")
    return "\n".join(lines)


def write_page(figures: dict[str, Any], page: Path = PAGE) -> None:
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page}: no {BEGIN} or no {END}")
    page.write_text(f"{before}{BEGIN}\n\n{table(figures)}\n\n{END}{after}", "utf-8")


def about(binary: str) -> dict[str, Any]:
    """When and where the figures are from."""
    git = ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    isas = run_sanitizers.instruction_sets(Path(binary))
    return {"date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit, "isas": isas}


def measure(args: argparse.Namespace, extra: list[str]) -> dict[str, Any]:
    scratch = ROOT / "build" / "coverage-report"
    scratch.mkdir(parents=True, exist_ok=True)
    if args.python_only:
        installed = Path(sys.executable).with_name("specdec")
        files = python_files(pytest(scratch, {}, extra))
        return {**about(str(installed)), "python": of_folders(files)}
    folder = build()
    staged = run_sanitizers.stage("coverage", folder)
    settings = {
        "PYTHONPATH": os.pathsep.join([str(staged), os.environ.get("PYTHONPATH", "")]),
        "SPECDEC_TEST_MODULES": str(staged / "modules"),
        "SPECDEC_BIN": str(staged / "specdec"),
    }
    files = python_files(pytest(scratch, settings, extra))
    figures = {"python": of_folders(files), "cpp": of_folders(native_files(folder))}
    return {**about(str(staged / "specdec")), **figures}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python-only", action="store_true", help="of the installed package")
    parser.add_argument(
        "--write", action="store_true", help=f"keep the figures in {KEPT.name} and {PAGE.name}"
    )
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:split])
    found = measure(args, sys.argv[split + 1 :])
    for part in PARTS:
        for name, row in found.get(part, {}).items():
            print(f"{part:7s} {name:45s} {row['lines']:6d} lines {row['percent']:6.1f} %")
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.exists() else {}
    if args.write:
        figures = {**kept, **found}
        KEPT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        write_page(figures)
    elif lost := worse(found, kept):
        sys.exit("less of the code is reached than before:\n" + "\n".join(lost))


if __name__ == "__main__":
    main()
