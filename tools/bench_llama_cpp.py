#!/usr/bin/env python3
"""Times forward passes of M rows here and in llama.cpp, in alternation, and prints the ratios.

    python tools/bench_llama_cpp.py -m MODEL.gguf --rows 1,2,4,8,16,512 --rounds 3 [--json OUT.json]

Same file, same threads, logits for every row of passes of up to 16 rows (a verification), for the
last row only in longer ones (a prompt). The peer is the public package llama-cpp-python; install it
into the same environment (its source package builds in about 6 minutes):

    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36

It may also live in another environment: --peer-python /path/to/python.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

MAX_HEAD_ROWS = 16


def measure_peer(
    model: str, rows: list[int], n_ctx: int, n_threads: int, n_rounds: int
) -> dict[str, list[float]]:
    """Milliseconds per pass in llama.cpp, [rounds] for each row count, every round in turn."""
    try:
        import llama_cpp  # type: ignore[import-not-found]
    except ImportError:
        raise SystemExit(f"llama-cpp-python is not installed here.\n\n{__doc__}") from None
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    handle = llama_cpp.llama_model_load_from_file(
        model.encode(), llama_cpp.llama_model_default_params()
    )
    if not handle:
        raise SystemExit(f"llama.cpp cannot load {model}")
    params = llama_cpp.llama_context_default_params()
    most = max(*rows, n_ctx, 1)
    params.n_ctx = n_ctx + max(rows) + 8
    params.n_batch = params.n_ubatch = max(512, most)
    params.n_threads = params.n_threads_batch = n_threads
    params.no_perf = True
    context = llama_cpp.llama_init_from_model(handle, params)
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


def run_json(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-m", "--model", required=True)
    parser.add_argument("--rows", default="1,2,3,4,6,8,12,16,512")
    parser.add_argument("--ctx", type=int, default=256)
    parser.add_argument("-t", "--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="alternations of the two engines")
    parser.add_argument("--passes", type=int, default=5, help="passes per row count in each")
    parser.add_argument("--specdec", default=shutil.which("specdec") or "specdec")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--json", type=pathlib.Path, help="write all figures here")
    parser.add_argument("--only-peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rows = [int(m) for m in options.rows.split(",")]
    if options.only_peer:
        print(
            json.dumps(
                measure_peer(options.model, rows, options.ctx, options.threads, options.passes)
            )
        )
        return

    shared = [
        "-m",
        options.model,
        "--rows",
        options.rows,
        "--ctx",
        str(options.ctx),
        "-t",
        str(options.threads),
    ]
    ours: list[dict[str, Any]] = []
    peer: list[dict[str, float]] = []
    for turn in range(options.rounds):
        ours.append(
            run_json(
                [
                    options.specdec,
                    "bench",
                    *shared,
                    "--rounds",
                    str(options.passes),
                    "--json",
                    "--quiet",
                ]
            )
        )
        raw = run_json(
            [options.peer_python, __file__, *shared, "--only-peer", "--passes", str(options.passes)]
        )
        peer.append({m: statistics.median(times) for m, times in raw.items()})
        print(f"round {turn + 1} of {options.rounds} done", file=sys.stderr)

    first = str(rows[0])
    table = []
    for m in (str(row) for row in rows):
        mine = [run["t_ms"][m] for run in ours]
        theirs = [run[m] for run in peer]
        quotients = [a / b for a, b in zip(mine, theirs, strict=True)]
        table.append(
            {
                "rows": int(m),
                "ours_ms": statistics.median(mine),
                "peer_ms": statistics.median(theirs),
                "ours_over_first": statistics.median(
                    run["t_ms"][m] / run["t_ms"][first] for run in ours
                ),
                "peer_over_first": statistics.median(run[m] / run[first] for run in peer),
                "ours_over_peer": statistics.median(quotients),
                "ours_over_peer_range": [min(quotients), max(quotients)],
            }
        )
    shares = [run["bandwidth_share"] for run in ours]
    reads = [run["read_gb_s"] for run in ours]
    print(f"{options.model}, {ours[0]['isa']}, {options.threads} threads, context {options.ctx}")
    print("| rows | ours ms | peer ms | ours T(M)/T(1) | peer T(M)/T(1) | ours / peer (range) |")
    print("|---|---|---|---|---|---|")
    for row in table:
        low, high = row["ours_over_peer_range"]
        print(
            f"| {row['rows']} | {row['ours_ms']:.1f} | {row['peer_ms']:.1f} "
            f"| {row['ours_over_first']:.2f} | {row['peer_over_first']:.2f} "
            f"| {row['ours_over_peer']:.2f} ({low:.2f}-{high:.2f}) |"
        )
    print(
        f"memory reads {statistics.median(reads):.1f} GB/s; one row reads weights at "
        f"{statistics.median(shares):.0%} of it"
    )
    if options.json:
        options.json.write_text(json.dumps({"table": table, "ours": ours, "peer": peer}, indent=1))


if __name__ == "__main__":
    main()
