"""Findings as Markdown tables, and the gates that they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

BIG_BYTES = 16e6  # of a matrix: smaller ones cannot fill a large GPU
BIG_MODEL_BYTES = 500e6

Found = dict[str, Any]


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def yes_no(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "NO"


def by_rows(values: dict[str, float | None], rows: Sequence[str], digits: int = 2) -> list[str]:
    return [number(values.get(m), digits) for m in rows]


# ---------------------------------------------------------------- sections


def head(found: Found) -> str:
    device, driver = found["device"], found["driver"]
    lines = ["# GPU check", ""]
    if found["emulated"]:
        lines.append("On the emulated device: a test of this program. Times mean nothing.")
        return "\n".join(lines)
    lines.append(
        f"{device['name']} ({device['architecture']}), {device['processors']} processors, "
        f"{device['total_bytes'] / 2**30:.1f} GiB of which {device['free_bytes'] / 2**30:.1f} "
        f"free when it started, {device['cache_bytes'] / 2**20:.0f} MiB cache; "
        f"driver {driver.get('driver_version', 'unknown')}, built with CUDA {device['toolkit']}"
    )
    if device["nominal_bytes_per_second"]:
        lines.append(f"nominal memory speed {device['nominal_bytes_per_second'] / 1e9:.0f} GB/s")
    return "\n".join(lines)


def tests_section(found: Found) -> list[str]:
    tests = found.get("tests") or {}
    if "passed" not in tests:
        return ["No results."]
    lines = [f"{tests['passed']} passed, {tests['failed']} failed, {tests['skipped']} skipped"]
    if "failed_without_early_start" in tests:
        n = tests["failed_without_early_start"]
        lines.append(f"* the files of those again with SPECDEC_CUDA_EARLY_START=0: {n} failed")
    lines += [f"* skipped {n}: {reason}" for reason, n in tests["skip_reasons"].items()]
    lines += [f"* **{f['name']}**: {f['message'].splitlines()[:1]}" for f in tests["failures"][:40]]
    return lines


def sanitizer_section(found: Found) -> list[str]:
    runs = found.get("sanitizer") or []
    if not runs:
        return ["Not run."]
    lines = []
    for run in runs:
        name = f"{run['check']}, {run['what']}"
        if run["found"] is None:
            lines.append(f"* {name}: could not run: {run['reason']}")
            continue
        lines.append(f"* {name}: {run['found']} found")
        if not run["clean"]:
            lines += [f"    {line}" for line in run["lines"][:12]]
    return lines


def kernels_section(found: Found) -> list[str]:
    if "copy_gb_s" not in found:
        return ["No results."]
    lines = [
        f"Copies move {found['copy_gb_s']:.1f} GB/s; a launch within a recording takes "
        f"{number(found.get('launch_us'))} us. Clock: the {found['clock']}'s."
    ]
    products = found.get("products", [])
    if products:
        rows = [m for m in products[0]["us"] if int(m) <= 16]
        head_line = ["format", "matrix", "MB", "us at 1", "share", *(f"T({m})" for m in rows[1:])]
        lines += ["", "T(M)/T(1) of products, and the share of the copies' speed at one row:", ""]
        lines.append(
            table(
                head_line,
                [
                    [
                        *(p["format"], f"{p['n_out']} x {p['n_in']}", f"{p['bytes'] / 1e6:.1f}"),
                        *(number(p["us"].get("1")), percent(p["share"])),
                        *by_rows(p["ratio"], rows[1:]),
                    ]
                    for p in products
                ],
            )
        )
        long = [p for p in products if any(int(m) > 16 for m in p["us"])]
        if long:
            many = [m for m in long[0]["us"] if int(m) > 16]
            lines += ["", "Rows of prompts, us:", ""]
            cells = [
                [p["format"], f"{p['n_out']} x {p['n_in']}", *by_rows(p["us"], many, 1)]
                for p in long
            ]
            lines.append(table(["format", "matrix", *many], cells))
    lines += operations(found)
    return lines


def operations(found: Found) -> list[str]:
    lines: list[str] = []
    for key, title, names in (
        ("attention", "Attention, us by rows", ("model", "type", "positions")),
        ("rope_store", "Rotation and store, us by rows", ("model", "type")),
        ("pack_input", "Norm and quantisation, us by rows", ("n_in", "format", "norm")),
        ("gated", "Gated pairs, us by rows", ("format", "n_out", "n_in")),
    ):
        entries = [e for e in found.get(key, []) if e["us"]]
        if not entries:
            continue
        rows = list(entries[0]["us"])
        columns = [*names, *rows]
        cells = []
        for entry in entries:
            line = [*(entry[n] for n in names), *by_rows(entry["us"], rows, 1)]
            if key == "attention":
                tree = next(iter(entry.get("tree_us", {}).values()), None)
                line += [number(tree, 1), percent(entry.get("share"))]
            if key == "gated":
                line.append(percent(entry["share"]))
            cells.append(line)
        if key == "attention":
            columns += [f"tree of {rows[-1]}", "share at 1"]
        if key == "gated":
            columns.append("share at 1")
        lines += ["", f"{title}:", "", table(columns, cells)]
    heads = found.get("heads", [])
    if heads:
        cells = [
            [h["format"], h["rows"], number(h["us"], 1), number(h["rest_us"], 1)] for h in heads
        ]
        lines += ["", "The output head, us:", ""]
        lines.append(table(["format", "rows", "whole", "without the product"], cells))
    return lines


def models_section(found: Found) -> list[str]:
    lines: list[str] = []
    for model in found.get("models", []):
        lines += ["", f"### {model['model']}", ""]
        lines += [f"* {line}" for line in model.get("placement", [])]
        passes = model.get("passes")
        if passes:
            lines += ["", passes_table(passes)]
            share = f"One row reads its weights at {percent(passes['share'])} of the copies' speed"
            if passes["device_ms"]:
                share += f" ({percent(passes['wall_share'])} by the wall clock)"
            lines += ["", share + "."]
        draft = model.get("draft")
        if draft:
            times = {m: f"{t:.2f}" for m, t in draft["wall_ms"].items()}
            lines.append(f"Passes of the draft, ms by rows: {times}.")
    runs = found.get("generations", [])
    if runs:
        plain = {(r["model"], r["prompt"]): r["tokens_per_second"] for r in runs
                 if r["method"] == "plain"}  # fmt: skip
        lines += ["", "Generation at temperature 0:", ""]
        names = ("model", "prompt", "method", "tokens/s", "x plain", "drafted", "accepted",
                 "waits per round", "replayed", "GPU ms of all", "same text")  # fmt: skip
        lines.append(
            table(
                names,
                [
                    [
                        *(r["model"], r["prompt"], r["method"], number(r["tokens_per_second"], 1)),
                        number(over(r["tokens_per_second"], plain.get((r["model"], r["prompt"])))),
                        *(r["drafted"], r["accepted"], number(r["waits_per_round"])),
                        percent(r["replayed"]),
                        f"{number(r['device_ms'], 0)} of {number(r['decode_ms'], 0)}",
                        yes_no(r["same_text"]),
                    ]
                    for r in runs
                ],
            )
        )
    for budget in found.get("budgets", []):
        size = f"{budget['budget_bytes'] / 2**20:.0f} MiB"
        lines += ["", f"{budget['model']} with {budget['fraction']:g} of its memory ({size}):"]
        if "layers" in budget:
            lines.append(
                f"{budget['layers']} layers on the GPU, {budget['reserved_bytes'] / 2**20:.0f} MiB "
                f"reserved, {number(budget.get('tokens_per_second'), 1)} tokens/s plain, "
                f"same text with n-gram drafts: {yes_no(budget.get('same_text'))}"
            )
    return lines or ["No results."]


def passes_table(passes: Found) -> str:
    rows = list(passes["wall_ms"])
    cells = [
        [
            *(m, number(passes["wall_ms"][m]), number(passes["wall_ratio"][m])),
            *(number(passes["device_ms"].get(m)), number(passes["device_ratio"].get(m))),
            number(1000 * int(m) / passes["wall_ms"][m], 0),
        ]
        for m in rows
    ]
    return table(["rows", "wall ms", "T(M)/T(1)", "GPU ms", "T(M)/T(1)", "tokens/s"], cells)


def over(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None


TITLES = {
    "tests": ("Tests", tests_section),
    "sanitizer": ("compute-sanitizer", sanitizer_section),
    "kernels": ("Kernels", kernels_section),
    "models": ("Models", models_section),
}


def section(name: str, everything: Found) -> str:
    title, write = TITLES[name]
    found = everything[name]
    lines = ["", f"## {title} ({found['seconds']:.0f} s)", "", *write(found)]
    lines += [f"* note: {text}" for text in found.get("notes", [])]
    lines += [f"* left out: {text}" for text in found["skipped"]]
    lines += [f"* **error**: {text}" for text in found["errors"]]
    return "\n".join(lines)


# ---------------------------------------------------------------- gates


def gate(
    name: str,
    value: float | None,
    *,
    least: float | None = None,
    most: float | None = None,
    stretch: float | None = None,
) -> Found:
    """A figure beside what it has to be; passed is None where there is no figure."""
    passed = None
    if value is not None:
        passed = value >= least if least is not None else value <= most  # type: ignore[operator]
    limit = f">= {least:g}" if least is not None else f"<= {most:g}"
    return {"name": name, "value": value, "limit": limit, "stretch": stretch, "passed": passed}


def count(values: Iterable[bool | None]) -> float | None:
    """How many are false; None: there is none to look at."""
    known = [v for v in values if v is not None]
    return float(sum(not v for v in known)) if known else None


def gates(everything: Found) -> list[Found]:
    out: list[Found] = []
    if "tests" in everything:
        tests = everything["tests"].get("tests") or {}
        ran = tests.get("passed", 0) + tests.get("failed", 0)
        out.append(gate("tests that failed", tests.get("failed") if ran else None, most=0))
    if "sanitizer" in everything:
        runs = everything["sanitizer"].get("sanitizer") or []
        dirty = count(run["clean"] for run in runs)
        out.append(gate("compute-sanitizer runs that found something", dirty, most=0))
    if not everything["emulated"]:
        out += kernel_gates(everything.get("kernels") or {})
    out += model_gates(everything.get("models") or {}, judge_speed=not everything["emulated"])
    return out


def kernel_gates(found: Found) -> list[Found]:
    out = []
    big = [p for p in found.get("products", []) if p["bytes"] >= BIG_BYTES]
    for name in dict.fromkeys(p["format"] for p in big):
        mine = [p for p in big if p["format"] == name]
        shares = [p["share"] for p in mine if p["share"] is not None]
        ratios = [r for p in mine if (r := p["ratio"].get("8")) is not None]
        out.append(
            gate(f"{name} products: least share at 1 row", min(shares, default=None), least=0.65,
                 stretch=0.80)
        )  # fmt: skip
        out.append(
            gate(f"{name} products: largest T(8)/T(1)", max(ratios, default=None), most=1.25,
                 stretch=1.10)
        )  # fmt: skip
    return out


def model_gates(found: Found, *, judge_speed: bool) -> list[Found]:
    out = []
    for model in found.get("models", []) if judge_speed else []:
        passes = model.get("passes")
        if not passes or model["info"]["weight_bytes"] < BIG_MODEL_BYTES:
            continue
        name = model["model"]
        ratios = passes["wall_ratio"]
        out.append(gate(f"{name}: T(8)/T(1)", ratios.get("8"), most=1.25, stretch=1.10))
        out.append(gate(f"{name}: share at 1 row", passes["share"], least=0.50, stretch=0.65))
    runs = found.get("generations", [])
    if "generations" in found:
        different = count(r["same_text"] for r in runs)
        out.append(gate("generations whose text differs from the plain one", different, most=0))
        for method, most in (("plain", 1.1), ("ngram", 1.1), ("model", 2.1)):
            if not judge_speed:  # too few rounds
                continue
            waits = [r["waits_per_round"] for r in runs if r["method"] == method]
            worst = max((w for w in waits if w is not None), default=None)
            out.append(gate(f"{method}: waits per round", worst, most=most))
    if judge_speed:
        plain = {(r["model"], r["prompt"]): r["tokens_per_second"] for r in runs
                 if r["method"] == "plain"}  # fmt: skip
        ratios = [over(r["tokens_per_second"], plain.get((r["model"], r["prompt"])))
                  for r in runs if r["method"] == "auto"]  # fmt: skip
        known = [r for r in ratios if r is not None]
        if runs:
            out.append(gate("auto over plain, least", min(known, default=None), least=0.97))
    budgets = found.get("budgets", [])
    if budgets:
        fine = [bool(b.get("kept") and b.get("split") and b.get("same_text")) for b in budgets]
        out.append(gate("models with part of their memory that failed", count(fine), most=0))
    return out


def summary(everything: Found) -> str:
    words = {True: "met", False: "**NOT MET**", None: "not measured"}
    rows = [
        [g["name"], number(g["value"]), g["limit"], g["stretch"] or "-", words[g["passed"]]]
        for g in everything["gates"]
    ]
    return "\n".join(["", "## Gates", "", table(["figure", "is", "gate", "stretch", ""], rows)])
