#!/usr/bin/env python3
"""Compares `specdec quantize` with llama.cpp's quantiser on one F16, BF16 or F32 file.

    tools/quantize_table.py model-f16.gguf --text wiki.test.raw --json table.json > table.md

Per type: file sizes, relative RMS error of the weights (decoded by the gguf package), perplexity of
both files with this project's engine, and the time both took. The peer is called through
llama-cpp-python; without it only our side is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from typing import Any

import gguf
import numpy as np

import bench_common

TYPES = [
    "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
]  # fmt: skip
CLASSES = [
    "token_embd", "output", "attn_q", "attn_k", "attn_v", "attn_qkv", "attn_output",
    "ffn_gate", "ffn_up", "ffn_down",
]  # fmt: skip

PEER = """
import ctypes, sys, time
import llama_cpp
source, target, ftype, n_threads = sys.argv[1:]
llama_cpp.llama_backend_init()
params = llama_cpp.llama_model_quantize_default_params()
params.ftype = int(ftype)
params.nthread = int(n_threads)
started = time.perf_counter()
rc = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(params))
print("seconds", time.perf_counter() - started)
sys.exit(rc)
"""
FTYPES = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q6_K": 18, "Q5_K_M": 17, "Q5_K_S": 16, "Q5_1": 9,
    "Q5_0": 8, "Q4_K_M": 15, "Q4_K_S": 14, "Q4_1": 3, "Q4_0": 2,
}  # fmt: skip


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command[:3])}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def peer_version(python: str) -> str | None:
    command = [python, "-c", bench_common.PEER_VERSION]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def quantise_ours(binary: str, source: str, target: str, kind: str, n_threads: int) -> float:
    command = [binary, "quantize", source, target, kind, "--force", "--json", "-t", str(n_threads)]
    return float(json.loads(run(command))["total_ms"]) / 1000


def quantise_peer(python: str, source: str, target: str, kind: str, n_threads: int) -> float:
    out = run([python, "-c", PEER, source, target, str(FTYPES[kind]), str(n_threads)])
    found = re.search(r"^seconds ([\d.]+)", out, re.MULTILINE)
    if found is None:
        raise SystemExit("the peer did not say how long it took")
    return float(found[1])


def tensor_class(name: str) -> str | None:
    part = re.sub(r"^blk\.\d+\.", "", name).removesuffix(".weight")
    return part if part in CLASSES else None


def rows(tensor: gguf.ReaderTensor, step: int) -> np.ndarray:
    data = np.asarray(tensor.data)
    data = data.reshape(-1, data.shape[-1])[::step]
    return gguf.quants.dequantize(data, tensor.tensor_type).astype(np.float64)


def measure_errors(source: str, target: str, max_rows: int) -> dict[str, Any]:
    """Relative RMS error per class and in all; which type each tensor has."""
    theirs = {t.name: t for t in gguf.GGUFReader(target).tensors}
    sums: dict[str, list[float]] = {}
    types = {}
    for tensor in gguf.GGUFReader(source).tensors:
        kind = tensor_class(tensor.name)
        types[tensor.name] = theirs[tensor.name].tensor_type.name
        if kind is None:
            continue
        step = max(1, math.ceil(int(tensor.n_elements // tensor.shape[0]) / max_rows))
        x = rows(tensor, step)
        y = rows(theirs[tensor.name], step)
        weight = tensor.n_elements / x.size
        total = sums.setdefault(kind, [0.0, 0.0])
        total[0] += weight * float(((y - x) ** 2).sum())
        total[1] += weight * float((x**2).sum())
    errors = {kind: math.sqrt(a / b) for kind, (a, b) in sums.items()}
    error, square = (sum(pair[i] for pair in sums.values()) for i in (0, 1))
    return {"all": math.sqrt(error / square), "classes": errors, "types": types}


def perplexity(binary: str, model: str, options: argparse.Namespace) -> dict[str, Any]:
    command = [binary, "perplexity", "-m", model, "-f", str(options.text), "-c", "512"]
    command += ["--chunks", str(options.chunks), "-t", str(options.threads), "--json", "-q"]
    found = json.loads(run(command))
    return {"value": found["perplexity"], "standard_error": found["standard_error"]}


def measure(path: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "size_bytes": path.stat().st_size,
        "errors": measure_errors(str(options.source), str(path), options.rows),
        "perplexity": perplexity(options.specdec, str(path), options),
    }


def quantise(
    who: str, kind: str, folder: pathlib.Path, options: argparse.Namespace
) -> tuple[pathlib.Path, float]:
    """The file and the seconds it took; both of an earlier run if they are in the folder."""
    path = folder / f"{who}-{kind}.gguf"
    took = path.with_suffix(".seconds")
    if path.exists() and took.exists():
        return path, float(took.read_text("utf-8"))
    arguments = (str(options.source), str(path), kind, options.threads)
    if who == "ours":
        seconds = quantise_ours(options.specdec, *arguments)
    else:
        seconds = quantise_peer(options.peer_python, *arguments)
    took.write_text(f"{seconds}\n", "utf-8")
    return path, seconds


def compare(kind: str, folder: pathlib.Path, options: argparse.Namespace) -> dict[str, Any]:
    row: dict[str, Any] = {"type": kind}
    for who in ("ours", "peer"):
        if who == "peer" and not options.peer_version:
            continue
        path, seconds = quantise(who, kind, folder, options)
        row[who] = measure(path, options) | {"seconds": seconds}
        if not options.keep:
            path.unlink()
    if "peer" in row:
        ours, theirs = (row[who]["errors"].pop("types") for who in ("ours", "peer"))
        row["types_that_differ"] = sorted(
            f"{name}: {ours[name]}, peer {theirs[name]}"
            for name in ours
            if ours[name] != theirs[name]
        )
    else:
        row["ours"]["errors"].pop("types")
    return row


def pair(row: dict[str, Any], show: Any) -> list[str]:
    return [show(row[who]) if who in row else "-" for who in ("ours", "peer")]


def markdown(report: dict[str, Any]) -> str:
    lines = [
        "| type | size | | error | | perplexity | | | time | |",
        "|---|---|---|---|---|---|---|---|---|---|",
        "| | ours | peer | ours | peer | ours | peer | difference | ours | peer |",
    ]
    for row in report["rows"]:
        values = [row[who]["perplexity"]["value"] for who in ("ours", "peer") if who in row]
        difference = f"{100 * (values[0] / values[1] - 1):+.2f} %" if len(values) == 2 else "-"
        cells = [row["type"]]
        cells += pair(row, lambda r: f"{r['size_bytes'] / 1e6:.1f} MB")
        cells += pair(row, lambda r: f"{100 * r['errors']['all']:.3f} %")
        cells += [*pair(row, lambda r: f"{r['perplexity']['value']:.3f}"), difference]
        cells += pair(row, lambda r: f"{r['seconds']:.1f} s")
        lines.append("| " + " | ".join(cells) + " |")
    used = [c for c in CLASSES if c in report["rows"][0]["ours"]["errors"]["classes"]]
    lines += ["", "Error per kind of tensor in %, ours / peer:", ""]
    lines += ["| type | " + " | ".join(used) + " |", "|---" * (len(used) + 1) + "|"]
    for row in report["rows"]:
        cells = [row["type"]]
        for c in used:
            cells.append(" / ".join(pair(row, lambda r: f"{100 * r['errors']['classes'][c]:.2f}")))  # noqa: B023
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=pathlib.Path, help="a GGUF file in F16, BF16 or F32")
    parser.add_argument("--text", type=pathlib.Path, required=True, help="text for the perplexity")
    parser.add_argument("--types", nargs="+", default=TYPES, choices=list(FTYPES))
    parser.add_argument("--chunks", type=int, default=8, help="windows of 512 tokens (default 8)")
    parser.add_argument("--rows", type=int, default=2048, help="rows per tensor for the error")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--specdec", default=shutil.which("specdec") or "specdec")
    parser.add_argument("--peer-python", default=sys.executable, help="has llama-cpp-python")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the files, used again")
    parser.add_argument("--only-quantise", action="store_true", help="with --keep: only time it")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures there")
    options = parser.parse_args()
    options.peer_version = peer_version(options.peer_python)
    if options.peer_version is None:
        print(bench_common.INSTALL_PEER, file=sys.stderr)
    if options.only_quantise:
        options.keep.mkdir(exist_ok=True)
        for kind in options.types:
            for who in ("ours", "peer") if options.peer_version else ("ours",):
                _, seconds = quantise(who, kind, options.keep, options)
                print(f"{kind} {who}: {seconds:.1f} s", flush=True)
        return
    report: dict[str, Any] = {
        "machine": bench_common.machine(options.threads),
        "source": options.source.name,
        "text": options.text.name,
        "chunks": options.chunks,
        "peer": options.peer_version and f"llama-cpp-python {options.peer_version}",
        "source_perplexity": perplexity(options.specdec, str(options.source), options),
        "rows": [],
    }
    with tempfile.TemporaryDirectory(dir=options.source.parent) as temporary:
        folder = options.keep or temporary
        for kind in options.types:
            started = time.monotonic()
            report["rows"].append(compare(kind, pathlib.Path(folder), options))
            print(f"{kind}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
            if options.json:
                options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    print(f"Source: perplexity {report['source_perplexity']['value']:.3f}\n")
    print(markdown(report))


if __name__ == "__main__":
    main()
