#!/usr/bin/env python3
"""Runs all measurements of docs/performance.md, one after the other, on a machine that is quiet.

    python tools/run_benchmarks.py -m TARGET.gguf [-m OTHER.gguf ...] [-md DRAFT.gguf] [OPTIONS]
    python tools/make_performance_page.py

The first -m is the model that instruction sets, contexts and speculation are measured with. Each
part writes one file into docs/benchmarks; --only runs some of them:

    forward   passes of 1 to 512 rows against llama.cpp, every model
    isa       the first model with AVX2 only
    context   the first model at 256 and 4096 positions, in the same rounds
    kernels   every weight format on AVX-512 and AVX2
    memory    peak memory and load time of `specdec generate`, every model
    prompts   speculation on single prompts (--prompt FILE ...)
    spec-bench, humaneval   speculation on --spec-bench FILE and --humaneval FILE, T = 0 and 0.8
    adversarial             drafts that are useless on purpose

The last four are presets of `specdec-native study peers` and `adversarial` (docs/studies.md) and
need the extra `studies`. Their folders with reports, plots and every run stay in --studies, and an
interrupted one goes on when it is started again.

--quick measures less of everything, to see that it works. Parts that lack their input say so.
The peer is llama-cpp-python, see tools/bench_llama_cpp.py --help for how to install it.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import bench_studies
from bench_common import (
    machine,
    peer_version,
    progress,
    run_json,
    significant,
    specdec_version,
    spread,
    write_report,
)

TOOLS = pathlib.Path(__file__).resolve().parent
PARTS = (
    "forward", "isa", "context", "kernels", "memory",
    "prompts", "spec-bench", "humaneval", "adversarial",
)  # fmt: skip


def run_tool(name: str, *arguments: object) -> None:
    command = [sys.executable, str(TOOLS / name), *map(str, arguments)]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"{name} failed")


def forward_options(options: argparse.Namespace, with_peer: bool = True) -> list[object]:
    shared: list[object] = ["-t", options.threads, "--specdec", options.specdec]
    if options.peer_python and with_peer:
        return [*shared, "--peer-python", options.peer_python]
    return [*shared, "--no-peer"]


def rounds(options: argparse.Namespace) -> list[object]:
    if options.quick:
        return ["--rounds", 1, "--passes", 2]
    return ["--rounds", options.rounds, "--passes", 5]


def part_forward(options: argparse.Namespace, out: pathlib.Path) -> None:
    rows = "1,2,4,8,16" if options.quick else "1,2,3,4,6,8,12,16,32,512"
    for model in options.model:
        name = f"forward-{model.stem.lower()}.json"
        run_tool(
            "bench_llama_cpp.py", "-m", model, "--rows", rows, *forward_options(options),
            *rounds(options), "--json", out / name,
        )  # fmt: skip


def part_isa(options: argparse.Namespace, out: pathlib.Path) -> None:
    rows = "1,4,8" if options.quick else "1,2,3,4,6,8,12,16,32,512"
    run_tool(
        "bench_llama_cpp.py", "-m", options.model[0], "--rows", rows, "--isa", "avx2",
        *forward_options(options, with_peer=False), *rounds(options),
        "--json", out / "isa-avx2.json",
    )  # fmt: skip


def part_context(options: argparse.Namespace, out: pathlib.Path) -> None:
    contexts = "256,1024" if options.quick else "256,4096"
    run_tool(
        "bench_llama_cpp.py", "-m", options.model[0], "--rows", "1,2,4,8", "--ctx", contexts,
        *forward_options(options), *rounds(options), "--json", out / "context.json",
    )  # fmt: skip


def part_kernels(options: argparse.Namespace, out: pathlib.Path) -> None:
    """The instruction sets in turn, medians over rounds."""
    smallest = min(options.model, key=lambda path: path.stat().st_size)
    n_rounds = 1 if options.quick else options.rounds
    runs: dict[str, list[Any]] = {"avx512_vnni": [], "avx2": []}
    for turn in range(n_rounds):
        for isa, results in runs.items():
            command = [options.specdec, "bench", "-m", str(smallest), "--rows", "1"]
            command += ["--rounds", "5", "--kernels", "--json", "--quiet"]
            command += ["-t", str(options.threads)]
            result = run_json(command, {"SPECDEC_CPU_ISA": isa})
            if result["isa"] == isa:
                results.append(result)
        progress(f"kernels: round {turn + 1} of {n_rounds} done")
    reports = []
    for isa, results in runs.items():
        if not results:
            progress(f"this machine has no {isa}")
            continue
        kernels = [
            {
                "dtype": entry["dtype"],
                "gb_s": spread([r["kernels"][i]["gb_s"] for r in results]),
                "gmac_s": spread([r["kernels"][i]["gmac_s"] for r in results]),
            }
            for i, entry in enumerate(results[0]["kernels"])
        ]
        reports.append(
            {
                "kind": "kernels",
                "machine": machine(options.threads),
                "versions": {"specdec": specdec_version(options.specdec)},
                "isa": isa,
                "kernels": kernels,
            }
        )
    write_report(out / "kernels.json", reports)


def generate_once(options: argparse.Namespace, model: pathlib.Path) -> tuple[float, float]:
    """Peak resident bytes and load time of a process of its own."""
    command = [options.specdec, "generate", "-m", str(model), "-p", "Once upon a time"]
    command += ["-n", "64", "--ignore-eos", "--json", "--quiet", "-t", str(options.threads)]
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(command, stdout=output)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise SystemExit(f"specdec generate failed with exit code {child.returncode}")
        output.seek(0)
        load_ms = json.load(output)["stats"]["load_ms"]
    return usage.ru_maxrss * 1024.0, load_ms


def part_memory(options: argparse.Namespace, out: pathlib.Path) -> None:
    reports = []
    for model in options.model:
        runs = [generate_once(options, model) for _ in range(1 if options.quick else 4)]
        if len(runs) > 1:
            del runs[0]  # it may have read the file from disk
        reports.append(
            {
                "kind": "memory",
                "machine": machine(options.threads),
                "versions": {"specdec": specdec_version(options.specdec)},
                "model": {
                    "file": model.name,
                    "file_gb": significant(model.stat().st_size / 1e9),
                },
                "peak_rss_gb": spread([rss / 1e9 for rss, _ in runs]),
                "load_ms": spread([load for _, load in runs]),
            }
        )
        peak = statistics.median(rss for rss, _ in runs) / model.stat().st_size
        progress(f"{model.name}: peak {peak:.2f} times the file")
    write_report(out / "memory.json", reports)


# ---------------------------------------------------------------- presets of studies

PROMPT_METHODS = "plain,auto,ngram,suffix,model:2,model:4,model:7"


def run_study(options: argparse.Namespace, name: str, *arguments: object) -> list[Any]:
    """The rows of a study, which goes on where it was interrupted."""
    folder = options.studies / name
    command = [sys.executable, "-m", "specdec_native", "study", *map(str, arguments)]
    command += ["--target", str(options.model[0]), "--out", str(folder)]
    command += ["-t", str(options.threads)]
    command += ["--draft", str(options.model_draft)] if options.model_draft else []
    command += ["-n", "32", "--rounds", "1"] if options.quick else ["-n", "128"]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"the study in {folder} failed")
    return bench_studies.read_rows(folder)


def facts(options: argparse.Namespace, rows: list[Any]) -> dict[str, Any]:
    return bench_studies.about(rows, options.model[0], options.model_draft)


def beside_the_peer(options: argparse.Namespace, *arguments: object) -> list[object]:
    more: list[object] = [] if options.quick else ["--rounds", options.rounds]
    more += ["--peer-python", options.peer_python] if options.peer_python else []
    return ["peers", *arguments, *more]


def part_prompts(options: argparse.Namespace, out: pathlib.Path) -> None:
    options.studies.mkdir(parents=True, exist_ok=True)
    prompts = options.studies / "prompts.jsonl"
    lines = []
    for path in options.prompt:
        text = path.read_text("utf-8")
        lines.append(json.dumps({"id": path.stem, "prompt": text.removesuffix("\n")}) + "\n")
    prompts.write_text("".join(lines), "utf-8")
    rows = run_study(
        options, "prompts", *beside_the_peer(options, prompts, "--methods", PROMPT_METHODS)
    )
    report = bench_studies.speculation("single prompts", rows, facts(options, rows))
    write_report(out / "speculation-prompts.json", report)


def over_data_set(
    options: argparse.Namespace, out: pathlib.Path, name: str, *arguments: object
) -> None:
    for temperature in options.temperatures.split(","):
        key = f"{name.lower()}-t{temperature}"
        chosen = beside_the_peer(
            options, *arguments, "--methods", "plain,auto", "--temperature", temperature,
            "--turns", 1,
        )  # fmt: skip
        rows = run_study(options, key, *chosen)
        report = bench_studies.speculation(name, rows, facts(options, rows))
        write_report(out / f"speculation-{key}.json", report)


def part_spec_bench(options: argparse.Namespace, out: pathlib.Path) -> None:
    limit = 1 if options.quick else 4
    over_data_set(options, out, "Spec-Bench", "--spec-bench", options.spec_bench, "--limit", limit)


def part_humaneval(options: argparse.Namespace, out: pathlib.Path) -> None:
    limit = 2 if options.quick else 20
    over_data_set(options, out, "HumanEval", "--humaneval", options.humaneval, "--limit", limit)


def part_adversarial(options: argparse.Namespace, out: pathlib.Path) -> None:
    rows = run_study(
        options, "adversarial", "adversarial", "--spec-bench", options.spec_bench,
        "--limit", 3 if options.quick else 20, "--turns", 1,
    )  # fmt: skip
    report = bench_studies.adversarial(rows, facts(options, rows))
    write_report(out / "adversarial.json", report)


def missing_input(part: str, options: argparse.Namespace) -> str:
    """Why a part cannot run; "" when it can."""
    if part == "prompts" and not options.prompt:
        return "no --prompt"
    if part == "spec-bench" and options.spec_bench is None:
        return "no --spec-bench"
    if part == "humaneval" and options.humaneval is None:
        return "no --humaneval"
    if part == "adversarial" and (options.spec_bench is None or options.model_draft is None):
        return "no --spec-bench or no -md"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", type=pathlib.Path, required=True, action="append")
    parser.add_argument("-md", "--model-draft", type=pathlib.Path)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--temperatures", default="0,0.8", help="of spec-bench and humaneval")
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=pathlib.Path, default=TOOLS.parent / "docs" / "benchmarks")
    parser.add_argument("--studies", type=pathlib.Path, default=TOOLS.parent / "build" / "studies")
    parser.add_argument("--specdec", default=shutil.which("specdec") or "specdec")
    parser.add_argument("--peer-python", help="a Python with llama-cpp-python; without: no peer")
    parser.add_argument("--prompt", type=pathlib.Path, action="append", default=[])
    parser.add_argument("--spec-bench", type=pathlib.Path)
    parser.add_argument("--humaneval", type=pathlib.Path)
    options = parser.parse_args()
    chosen = options.only.split(",")
    unknown = [part for part in chosen if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if options.peer_python:
        peer_version(options.peer_python)  # fails now and not after half an hour
    options.out.mkdir(parents=True, exist_ok=True)
    done, left_out = [], []
    for part in PARTS:
        if part not in chosen:
            continue
        if reason := missing_input(part, options):
            left_out.append(f"{part} ({reason})")
            continue
        progress(f"part {part}")
        globals()["part_" + part.replace("-", "_")](options, options.out)
        done.append(part)
    progress(f"done: {', '.join(done) or 'nothing'}")
    if left_out:
        progress(f"left out: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
