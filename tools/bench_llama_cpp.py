#!/usr/bin/env python3
"""Times forward passes of M rows here and in llama.cpp, in alternation, and prints the ratios.

    python tools/bench_llama_cpp.py -m MODEL.gguf [-m OTHER.gguf] [--ctx 256,4096] [--json OUT.json]

Same file, same threads, logits for every row of passes of up to 16 rows (a verification), for the
last row only in longer ones (a prompt). A round measures every context with one engine and then the
other; ratios are taken within a round, because a shared machine changes from minute to minute.

The peer is the public package llama-cpp-python; install it into the same environment (its source
package builds in about 6 minutes):

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36

With a GPU, -ngl N (99: all layers) goes to both engines; build the peer with
CMAKE_ARGS="-DGGML_CUDA=ON" and this package with SPECDEC_CUDA=ON. The report then tells the plan,
the time by the GPU's own clock, and the share of the speed of its copies.

It may also live in another environment: --peer-python /path/to/python. --no-peer leaves it out.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import pathlib
import random
import shutil
import statistics
import sys
import time
from typing import Any

from bench_common import (
    INSTALL_PEER,
    machine,
    peer_version,
    progress,
    run_json,
    significant,
    specdec_version,
    spread,
    write_report,
)

MAX_HEAD_ROWS = 16
DEFAULT_ROWS = "1,2,3,4,6,8,12,16,32,512"


def measure_peer(
    model: str, rows: list[int], n_ctx: int, n_threads: int, n_rounds: int, n_gpu_layers: int
) -> dict[str, list[float]]:
    """Milliseconds per pass in llama.cpp, [rounds] for each row count, every round in turn."""
    try:
        import llama_cpp  # type: ignore[import-not-found]
    except ImportError:
        raise SystemExit(f"llama-cpp-python is not installed here.\n\n{INSTALL_PEER}") from None
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    model_params = llama_cpp.llama_model_default_params()
    model_params.n_gpu_layers = n_gpu_layers
    if n_gpu_layers > 0 and not llama_cpp.llama_supports_gpu_offload():
        raise SystemExit("this llama-cpp-python was built without CUDA: it cannot take -ngl")
    handle = llama_cpp.llama_model_load_from_file(model.encode(), model_params)
    if not handle:
        raise SystemExit(f"llama.cpp cannot load {model}")
    params = llama_cpp.llama_context_default_params()
    most = max(512, *rows)
    params.n_ctx = n_ctx + max(rows) + 8
    params.n_batch = params.n_ubatch = most
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    context = llama_cpp.llama_init_from_model(handle, params)
    if not context:
        raise SystemExit(f"llama.cpp cannot make a context of {params.n_ctx} for {model}")
    n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(handle))
    draw = random.Random(1)
    tokens = [draw.randrange(n_vocab) for _ in range(most)]
    batch = llama_cpp.llama_batch_init(most, 0, 1)

    def decode(n: int, first: int, first_output: int) -> None:
        batch.n_tokens = n
        for i in range(n):
            batch.token[i] = tokens[i]
            batch.pos[i] = first + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = i >= first_output
        if llama_cpp.llama_decode(context, batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(context)

    memory = llama_cpp.llama_get_memory(context)
    for done in range(0, n_ctx, 256):
        n = min(256, n_ctx - done)
        decode(n, done, n - 1)
    times: dict[str, list[float]] = {str(m): [] for m in rows}
    for turn in range(-1, n_rounds):
        for m in rows:
            start = time.perf_counter()
            decode(m, n_ctx, 0 if m <= MAX_HEAD_ROWS else m - 1)
            elapsed = (time.perf_counter() - start) * 1000
            if turn >= 0:
                times[str(m)].append(elapsed)
            llama_cpp.llama_memory_seq_rm(memory, 0, n_ctx, -1)
    return times


def table_of(
    rows: list[int], ours: list[dict[str, float]], peer: list[dict[str, float]]
) -> list[dict[str, Any]]:
    """Per row count: medians over rounds and their range; ratios are taken within a round."""
    first = str(rows[0])
    table = []
    for m in map(str, rows):
        entry: dict[str, Any] = {"rows": int(m)}
        for name, runs in (("ours", ours), ("peer", peer)):
            if runs:
                entry[f"{name}_ms"] = spread([run[m] for run in runs])
                entry[f"{name}_over_first"] = spread([run[m] / run[first] for run in runs])
        if peer:
            entry["ours_over_peer"] = spread([a[m] / b[m] for a, b in zip(ours, peer, strict=True)])
        table.append(entry)
    return table


def print_report(report: dict[str, Any]) -> None:
    has_peer = report["versions"]["peer"] is not None
    print(
        f"{report['model']['file']} ({report['model']['quantisation']}), {report['isa']}, "
        f"{report['machine']['n_threads']} threads, context {report['ctx']}"
    )
    head = ["rows", "ours ms", "ours T(M)/T(1)"]
    if has_peer:
        head += ["peer ms", "peer T(M)/T(1)", "ours / peer (range)"]
    print("| " + " | ".join(head) + " |")
    print("|" + "---|" * len(head))
    for row in report["table"]:
        cells = [
            str(row["rows"]),
            f"{row['ours_ms']['median']:.1f}",
            f"{row['ours_over_first']['median']:.2f}",
        ]
        if has_peer:
            low, high = row["ours_over_peer"]["range"]
            cells += [
                f"{row['peer_ms']['median']:.1f}",
                f"{row['peer_over_first']['median']:.2f}",
                f"{row['ours_over_peer']['median']:.2f} ({low:.2f}-{high:.2f})",
            ]
        print("| " + " | ".join(cells) + " |")
    for line in report["placement"]:
        print(line)
    if report["device_ms"]:
        times = ", ".join(f"{m}: {ms['median']:.2f}" for m, ms in report["device_ms"].items())
        print(f"{report['device']}; ms by the GPU's clock for rows {times}")
    # Of a model in two memories no share means anything.
    if report["bandwidth_share"]["median"] > 0:
        speed = "GPU copies" if report["n_gpu_layers"] else "memory reads"
        print(
            f"{speed} {report['read_gb_s']['median']:.1f} GB/s; one row reads weights at "
            f"{report['bandwidth_share']['median']:.0%} of it"
        )
    print()


def measure_model(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One report per context, all contexts in turn within a round."""
    rows = [int(m) for m in options.rows.split(",")]
    contexts = [int(c) for c in options.ctx.split(",")]
    environment = {"SPECDEC_CPU_ISA": options.isa} if options.isa else {}
    ours: dict[int, list[Any]] = {ctx: [] for ctx in contexts}
    peer: dict[int, list[dict[str, list[float]]]] = {ctx: [] for ctx in contexts}
    for turn in range(options.rounds):
        for ctx in contexts:
            shared = ["-m", model, "--rows", options.rows, "--ctx", str(ctx)]
            shared += ["-t", str(options.threads), "-ngl", str(options.n_gpu_layers)]
            bench = [options.specdec, "bench", *shared, "--rounds", str(options.passes)]
            ours[ctx].append(run_json([*bench, "--json", "--quiet"], environment))
            if options.no_peer:
                continue
            only = ["--only-peer", "--passes", str(options.passes)]
            peer[ctx].append(run_json([options.peer_python, __file__, *shared, *only]))
        progress(f"{pathlib.Path(model).name}: round {turn + 1} of {options.rounds} done")
    reports = []
    for ctx in contexts:
        runs = ours[ctx]
        peer_medians = [{m: statistics.median(t) for m, t in run.items()} for run in peer[ctx]]
        if runs[0]["n_threads"] != options.threads:
            raise SystemExit("specdec used another number of threads than asked for")
        reports.append(
            {
                "kind": "forward",
                "machine": machine(options.threads),
                "versions": {"specdec": options.our_version, "peer": options.their_version},
                "model": {
                    "file": pathlib.Path(model).name,
                    "quantisation": runs[0]["quantisation"],
                    "file_gb": significant(pathlib.Path(model).stat().st_size / 1e9),
                    "weight_gb": significant(runs[0]["weight_gb"]),
                },
                "isa": runs[0]["isa"],
                "ctx": ctx,
                "passes": options.passes,
                "table": table_of(rows, [run["t_ms"] for run in runs], peer_medians),
                "read_gb_s": spread([run["read_gb_s"] for run in runs]),
                "bandwidth_share": spread([run["bandwidth_share"] for run in runs]),
                "load_ms": spread([run["load_ms"] for run in runs]),
                "device": runs[0]["device"],
                "n_gpu_layers": runs[0]["n_gpu_layers"],
                "gpu_bytes": runs[0]["gpu_bytes"],
                "placement": runs[0]["placement"],
                "device_ms": {
                    m: spread([run["device_ms"][m] for run in runs])
                    for m in runs[0].get("device_ms", {})
                },
                "ours_times_ms": [rounded(run["times_ms"]) for run in runs],
                "peer_times_ms": [rounded(run) for run in peer[ctx]],
            }
        )
    return reports


def rounded(times: dict[str, list[float]]) -> dict[str, list[float]]:
    return {m: [significant(t) for t in values] for m, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", required=True, action="append")
    parser.add_argument("--rows", default=DEFAULT_ROWS)
    parser.add_argument("--ctx", default="256", help="one context or several, with commas")
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="alternations of the two engines")
    parser.add_argument("--passes", type=int, default=5, help="passes per row count in each")
    parser.add_argument(
        "-ngl", "--n-gpu-layers", type=int, default=0, help="layers on the GPU, in both engines"
    )
    parser.add_argument("--isa", help="ours only: scalar, avx2, avx512_vnni, ...")
    parser.add_argument("--specdec", default=shutil.which("specdec") or "specdec")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--json", type=pathlib.Path, help="write all figures here")
    parser.add_argument("--only-peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only_peer:
        rows = [int(m) for m in options.rows.split(",")]
        times = measure_peer(
            options.model[0],
            rows,
            int(options.ctx),
            options.threads,
            options.passes,
            options.n_gpu_layers,
        )
        print(json.dumps(times))
        return
    options.our_version = specdec_version(options.specdec)
    options.their_version = None if options.no_peer else peer_version(options.peer_python)
    reports = [report for model in options.model for report in measure_model(model, options)]
    for report in reports:
        print_report(report)
    if options.json:
        write_report(options.json, reports)


if __name__ == "__main__":
    main()
