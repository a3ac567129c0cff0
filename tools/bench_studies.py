"""What docs/benchmarks keeps of a study: the figures of each prompt and method, without texts."""

from __future__ import annotations

import json
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

from bench_common import significant, spread
from specdec_native.studies.adversarial import cases_of
from specdec_native.studies.benchmark_report import slowest
from specdec_native.studies.figures import grouped, per_prompt, summary
from specdec_native.studies.plan import PLAIN

Row = dict[str, Any]


def read_rows(folder: pathlib.Path) -> list[Row]:
    """Of a finished study; times are taken from exclusive runs, and errors end the script."""
    lines = (folder / "rows.jsonl").read_text("utf-8").split("\n")  # texts may hold U+2028
    rows: list[Row] = [json.loads(line) for line in lines if line]
    failed = sorted({f"{row['method']}: {row['error']}" for row in rows if row["error"]})
    if failed:
        raise SystemExit(f"{folder}: {'; '.join(failed)}")
    return rows


def about(rows: Sequence[Row], model: pathlib.Path, draft: pathlib.Path | None) -> dict[str, Any]:
    def describe(path: pathlib.Path) -> dict[str, Any]:
        return {"file": path.name, "file_gb": significant(path.stat().st_size / 1e9)}

    first = rows[0]
    peers = sorted({str(row["peer"]) for row in rows if row.get("peer")})
    return {
        "machine": {
            "cpu": first["cpu"], "cores": first["cores"], "n_threads": first["n_threads"],
            "memory_gib": first["memory_gib"], "date": first["started"][:10],
        },
        "versions": {"specdec": first["version"], "peer": ", ".join(peers) or None},
        "commit": first["commit"],
        "isa": first["isa"],
        "model": describe(model),
        "draft": None if draft is None else describe(draft),
    }  # fmt: skip


def speculation(name: str, rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """Every prompt, and each method's figures over all of them."""
    return {
        "kind": "speculation",
        "name": name,
        **facts,
        "temperature": rows[0]["temperature"],
        "max_tokens": rows[0]["max_tokens"],
        "rounds": len({row["round"] for row in rows}),
        "methods": dict.fromkeys(dict.fromkeys(row["method"] for row in rows), "ok"),
        "prompts": [_prompt(group) for group in grouped(rows, "block", "turn").values()],
        "summary": {
            str(method): _summary(group, rows)
            for (method,), group in grouped(rows, "method").items()
        },
    }


def _prompt(rows: Sequence[Row]) -> dict[str, Any]:
    """Of one turn: every round of every method."""
    first = rows[0]
    methods = {}
    for (method,), runs in grouped(rows, "method").items():
        cell: dict[str, Any] = {}
        for column in ("tokens_per_second", "decode_ms", "speedup"):
            values = [run[column] for run in runs if run[column] is not None]
            if values:
                cell[column] = spread(values)
        if any(run["drafted"] for run in runs):
            # The lengths that `auto` chooses depend on timing: all rounds together.
            cell["drafted"] = sum(run["drafted"] or 0 for run in runs)
            cell["accepted"] = sum(run["accepted"] or 0 for run in runs)
        methods[str(method)] = cell
    return {
        "id": first["task"] if first["turn"] == 0 else f"{first['task']}, turn {first['turn'] + 1}",
        "category": first["category"],
        "prompt_tokens": first["prompt_tokens"],
        "n_tokens": next(row["emitted"] for row in rows if row["method"] == PLAIN),
        "rounds": len({row["round"] for row in rows}),
        "different": sorted({row["method"] for row in rows if row["identical"] is False}),
        "methods": methods,
    }


def _summary(rows: Sequence[Row], of: Sequence[Row]) -> dict[str, Any]:
    """Over prompts, of each one's median over rounds."""
    found = summary(rows)
    is_plain = rows[0]["method"] == PLAIN
    plain_ms = per_prompt([row for row in of if row["method"] == PLAIN], "decode_ms")
    own_ms = per_prompt(rows, "decode_ms")
    both = own_ms.keys() & plain_ms.keys()
    figures = {
        "tokens_per_second": found["tokens_per_second"],
        "geomean": 1.0 if is_plain else found["speedup"],
        "min": 1.0 if is_plain else found["speedup_min"],
        "max": 1.0 if is_plain else found["speedup_max"],
        "total": sum(plain_ms[k] for k in both) / sum(own_ms[k] for k in both),
    }
    missing = [name for name, value in figures.items() if value is None]
    if missing:
        raise SystemExit(f"{rows[0]['method']} was not timed: no {', '.join(missing)}")
    return {
        **{name: significant(value) for name, value in figures.items()},
        "slowest_prompt": "" if is_plain else slowest(rows),
    }


def adversarial(rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    cases = []
    for name, case in cases_of(rows).items():
        ratios = list(case["ratios"].values())
        cases.append(
            {
                "name": name,
                "total_over_plain": significant(case["total"]),
                "worst_over_plain": significant(max(ratios)),
                "median_over_plain": significant(statistics.median(ratios)),
                "per_request": [significant(ratio) for ratio in ratios],
                "drafted": case["drafted"],
                "accepted": case["accepted"],
            }
        )
    return {
        "kind": "adversarial",
        **facts,
        "method": next(row["method"] for row in rows if row["method"] != PLAIN),
        "temperature": rows[0]["temperature"],
        "max_tokens": rows[0]["max_tokens"],
        "n_requests": len({row["request"] for row in rows}),
        "different": sorted({row["task"] for row in rows if row["identical"] is False}),
        "cases": cases,
    }
