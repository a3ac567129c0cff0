#!/usr/bin/env python3
"""Writes docs/performance.md and its plots from the measurements in docs/benchmarks/*.json.

    python tools/make_performance_page.py [--check]

The text around the tables is docs/performance.md.in. --check writes nothing and fails when a file
is out of date; a plot is, when it was drawn from other figures. Plots are drawn as of studies:
pip install "specdec-native[studies]".
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
Report = dict[str, Any]
MISSING = "Not measured yet."
DEFAULT_CTX = 256


def load_reports(folder: pathlib.Path) -> list[Report]:
    """Every report of every file, in the order of file names; a file holds one or a list."""
    reports: list[Report] = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text("utf-8"))
        reports.extend(content if isinstance(content, list) else [content])
    for report in reports:
        if not isinstance(report, dict) or "kind" not in report:
            raise SystemExit(f"{folder}: a report without a kind")
    return reports


def of_kind(reports: list[Report], kind: str) -> list[Report]:
    return [report for report in reports if report["kind"] == kind]


# ---------------------------------------------------------------- text


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def with_range(spread: Report, digits: int = 2) -> str:
    low, high = spread["range"]
    return f"{spread['median']:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def median(spread: Report, digits: int = 2) -> str:
    return f"{spread['median']:.{digits}f}"


def title(report: Report) -> str:
    return str(report["model"]["file"]).removesuffix(".gguf")


def slug(report: Report) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title(report).lower()).strip("-")


def isas(reports: list[Report]) -> list[str]:
    """The machine's own instruction set first: the one that the peer was compared with."""
    forward = sorted(of_kind(reports, "forward"), key=lambda r: r["versions"]["peer"] is None)
    return list(dict.fromkeys(r["isa"] for r in forward))


def main_forward(reports: list[Report]) -> list[Report]:
    """Largest model first."""
    best = isas(reports)[:1]
    chosen = [
        r for r in of_kind(reports, "forward") if [r["isa"]] == best and r["ctx"] == DEFAULT_CTX
    ]
    # A model that was measured for the comparison of contexts too counts once: the most rows.
    chosen.sort(key=lambda r: len(r["table"]), reverse=True)
    unique: dict[str, Report] = {}
    for report in chosen:
        unique.setdefault(title(report), report)
    return sorted(unique.values(), key=lambda r: -r["model"]["file_gb"])


def machine_text(reports: list[Report]) -> str:
    if not reports:
        return MISSING
    machines = list(
        dict.fromkeys(
            f"{r['machine']['cores']} virtual cores of {article(r['machine']['cpu'])}, "
            f"{r['machine']['memory_gib']} GiB, {r['machine']['n_threads']} threads"
            for r in reports
        )
    )
    dates = sorted({r["machine"]["date"] for r in reports})
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    versions = sorted({r["versions"]["specdec"] for r in reports})
    peers = sorted({r["versions"]["peer"] for r in reports if r["versions"].get("peer")})
    commits = sorted({c for r in reports if (c := r.get("commit") or r["machine"].get("commit"))})
    text = f"Measured on {'; '.join(machines)}; {when}. Versions: specdec-native "
    text += ", ".join(versions) + "".join(f", {peer}" for peer in peers)
    return text + (f"; commits {', '.join(commits)}." if commits else ".")


def article(name: str) -> str:
    return ("an " if name[:1].upper() in "AEIOU" else "a ") + name


def forward_table(report: Report) -> str:
    has_peer = "peer_ms" in report["table"][0]
    head = ["rows", "ours ms", "ours T(M)/T(1)"]
    if has_peer:
        head += ["peer ms", "peer T(M)/T(1)", "ours / peer"]
    rows = []
    for entry in report["table"]:
        cells = [
            str(entry["rows"]),
            with_range(entry["ours_ms"], 1),
            median(entry["ours_over_first"]),
        ]
        if has_peer:
            cells += [
                with_range(entry["peer_ms"], 1),
                median(entry["peer_over_first"]),
                with_range(entry["ours_over_peer"]),
            ]
        rows.append(cells)
    return table(head, rows)


def roof(report: Report) -> str:
    share, reads = report["bandwidth_share"], report["read_gb_s"]
    return (
        f"{report['model']['weight_gb']:.2f} GB read per step; memory {with_range(reads, 1)} GB/s, "
        f"one row reads its weights at {100 * share['median']:.0f} % of it "
        f"({100 * share['range'][0]:.0f}-{100 * share['range'][1]:.0f} %)."
    )


def forward_text(reports: list[Report]) -> str:
    parts = []
    for report in main_forward(reports):
        n_rounds = len(report["ours_times_ms"])
        parts.append(
            f"**{title(report)}** ({report['model']['quantisation']}), {report['isa']}, context "
            f"{report['ctx']}, {n_rounds} rounds of {report['passes']} passes. {roof(report)}\n\n"
            f"{forward_table(report)}\n\n"
            f"![T(M)/T(1) of both engines](benchmarks/{slug(report)}.svg)"
        )
    return "\n\n".join(parts) or MISSING


def isa_text(reports: list[Report]) -> str:
    parts = [
        f"**{title(r)}** with `SPECDEC_CPU_ISA={r['isa']}`, context {r['ctx']}. {roof(r)}\n\n"
        + forward_table(r)
        for r in of_kind(reports, "forward")
        if r["isa"] != isas(reports)[0]
    ]
    return "\n\n".join(parts) or MISSING


def context_text(reports: list[Report]) -> str:
    """Models that were measured at several contexts in the same rounds."""
    parts = []
    best = isas(reports)[:1]
    forward = [r for r in of_kind(reports, "forward") if [r["isa"]] == best]
    for name in dict.fromkeys(title(r) for r in forward if r["ctx"] != DEFAULT_CTX):
        long = [r for r in forward if title(r) == name and r["ctx"] != DEFAULT_CTX]
        rows_wanted = [e["rows"] for e in long[0]["table"]]
        short = [
            r
            for r in forward
            if title(r) == name
            and r["ctx"] == DEFAULT_CTX
            and [e["rows"] for e in r["table"]] == rows_wanted
        ]
        rows = []
        for report in short[:1] + long:
            for entry in report["table"]:
                peer = [median(entry["peer_ms"], 1), median(entry["peer_over_first"])]
                rows.append(
                    [
                        str(report["ctx"]),
                        str(entry["rows"]),
                        with_range(entry["ours_ms"], 1),
                        median(entry["ours_over_first"]),
                        *(peer if "peer_ms" in entry else ["", ""]),
                    ]
                )
        head = ["context", "rows", "ours ms", "ours T(M)/T(1)", "peer ms", "peer T(M)/T(1)"]
        text = f"**{name}**, same rounds.\n\n{table(head, rows)}"
        if short:
            growth = [r["table"][0]["ours_ms"]["median"] for r in (short[0], long[-1])]
            text += (
                f"\n\nOne row at context {long[-1]['ctx']} takes {growth[1] / growth[0]:.2f} times "
                f"its time at {DEFAULT_CTX}."
            )
        parts.append(text)
    return "\n\n".join(parts) or MISSING


def kernels_text(reports: list[Report]) -> str:
    kernels = of_kind(reports, "kernels")
    if not kernels:
        return MISSING
    names = [k["dtype"] for k in kernels[0]["kernels"]]
    by_isa = {r["isa"]: {k["dtype"]: k for k in r["kernels"]} for r in kernels}
    order = sorted(by_isa, key=lambda isa: isas(reports).index(isa) if isa in isas(reports) else 99)
    head = ["format"] + [cell for isa in order for cell in (f"{isa} GB/s", "GMAC/s")]
    rows = []
    for name in names:
        cells = [name]
        for isa in order:
            entry = by_isa[isa][name]
            cells += [median(entry["gb_s"], 1), median(entry["gmac_s"], 1)]
        rows.append(cells)
    return table(head, rows)


def memory_text(reports: list[Report]) -> str:
    rows = []
    for r in sorted(of_kind(reports, "memory"), key=lambda r: -r["model"]["file_gb"]):
        file_gb = r["model"]["file_gb"]
        peak = r["peak_rss_gb"]["median"]
        load = r["load_ms"]["median"]
        rows.append(
            [
                title(r),
                f"{file_gb:.3f}",
                f"{peak:.3f}",
                f"{peak / file_gb:.2f}",
                f"{load / 1000:.2f}",
                f"{load / 1000 / file_gb:.2f}",
            ]
        )
    head = ["model", "file GB", "peak GB", "peak / file", "load s", "load s/GB"]
    return table(head, rows) if rows else MISSING


def speculation_text(reports: list[Report]) -> str:
    parts = []
    for report in of_kind(reports, "speculation"):
        names = [m for m in report["methods"] if report["methods"][m] == "ok"]
        unknown = {m: why for m, why in report["methods"].items() if why != "ok"}
        draft = f", draft {report['draft']['file']}" if report.get("draft") else ""
        text = (
            f"**{report['name']}**: {title(report)}{draft}; temperature {report['temperature']}, "
            f"at most {report['max_tokens']} tokens, {report['rounds']} rounds, "
            f"{len(report['prompts'])} prompts.\n\n"
        )
        if len(report["prompts"]) <= 5:
            rows = [
                [p["id"], *(speculation_cell(p["methods"][m]) for m in names)]
                for p in report["prompts"]
            ]
            text += table(["prompt", *(f"{m} tokens/s" for m in names)], rows)
            text += "\n\nIn brackets: speed-up over plain, and accepted / drafted tokens."
        else:
            rows = [
                [m, *(f"{report['summary'][m][key]:.2f}" for key in SUMMARY_KEYS)] for m in names
            ]
            text += table(["method", *SUMMARY_KEYS.values()], rows)
        for method, why in unknown.items():
            text += f"\n\nNot measured: `{method}` ({why})."
        parts.append(text)
    for report in of_kind(reports, "adversarial"):
        rows = [
            [c["name"], f"{c['total_over_plain']:.3f}", f"{c['worst_over_plain']:.3f}"]
            for c in report["cases"]
        ]
        parts.append(
            f"**Against hostile drafts**: {title(report)}, {report['n_requests']} requests of at "
            f"most {report['max_tokens']} tokens.\n\n"
            + table(["draft", "total time / plain", "worst request / plain"], rows)
        )
    return "\n\n".join(parts) or MISSING


SUMMARY_KEYS = {
    "tokens_per_second": "tokens/s (geometric mean)",
    "geomean": "speed-up (geometric mean)",
    "min": "smallest",
    "max": "largest",
    "total": "all prompts together",
}


def speculation_cell(entry: Report) -> str:
    text = median(entry["tokens_per_second"], 1)
    notes = []
    if entry.get("speedup"):
        notes.append(f"{entry['speedup']['median']:.2f}x")
    if entry.get("drafted"):
        notes.append(f"{100 * entry['accepted'] / entry['drafted']:.0f} %")
    return f"{text} ({', '.join(notes)})" if notes else text


# ---------------------------------------------------------------- plots

COLORS = {"ours": "#0b7285", "peer": "#c92a2a"}
NAMES = {"ours": "specdec", "peer": "llama.cpp"}


def series_of(report: Report) -> dict[str, list[tuple[int, float]]]:
    """T(M)/T(1) of both engines, up to 16 rows."""
    entries = [e for e in report["table"] if e["rows"] <= 16]
    return {
        engine: [(e["rows"], e[f"{engine}_over_first"]["median"]) for e in entries]
        for engine in NAMES
        if f"{engine}_over_first" in entries[0]
    }


def draw_ratios(figure: Any, report: Report) -> None:
    """Rows on a logarithmic axis."""
    axes = figure.subplots()
    series = series_of(report)
    for engine, points in series.items():
        rows, ratios = zip(*points, strict=True)
        axes.plot(rows, ratios, color=COLORS[engine], marker="o", label=NAMES[engine])
        axes.annotate(
            f"{NAMES[engine]} {ratios[-1]:.1f}", (rows[-1], ratios[-1]), (6, -3),
            textcoords="offset points", color=COLORS[engine],
        )  # fmt: skip
    axes.set_xscale("log", base=2)
    ticks = [rows for rows, _ in next(iter(series.values()))]
    axes.set_xticks(ticks, [str(rows) for rows in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.margins(x=0.12)
    axes.set_xlabel("rows M")
    axes.set_title(
        f"{title(report)}: T(M)/T(1), {report['isa']}, {report['machine']['n_threads']} threads",
        fontsize=10, loc="left",
    )  # fmt: skip


def mark_of(report: Report) -> str:
    """What a plot was drawn from; the bytes of a plot depend on the version of matplotlib."""
    shown = [title(report), report["isa"], report["machine"]["n_threads"], series_of(report)]
    return f"<!-- drawn from {hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]} -->"


def plot(report: Report) -> str:
    from specdec_native.studies.report import Plot, draw

    with tempfile.TemporaryDirectory() as folder:
        drawn = Plot("ratios", title(report), functools.partial(draw_ratios, report=report),
                     size=(6.4, 3.6))  # fmt: skip
        svg = draw(pathlib.Path(folder), drawn)
    return f"{svg.rstrip()}\n{mark_of(report)}\n"


# ---------------------------------------------------------------- files

SECTIONS: dict[str, Callable[[list[Report]], str]] = {
    "machine": machine_text,
    "forward": forward_text,
    "isa": isa_text,
    "context": context_text,
    "speculation": speculation_text,
    "kernels": kernels_text,
    "memory": memory_text,
}


def render(docs: pathlib.Path) -> tuple[str, dict[pathlib.Path, Report]]:
    """The page, and what each plot is drawn from."""
    folder = docs / "benchmarks"
    reports = load_reports(folder)
    template = (docs / "performance.md.in").read_text("utf-8")
    unknown = set(re.findall(r"\{\{(\w+)\}\}", template)) - set(SECTIONS)
    if unknown:
        raise SystemExit(f"performance.md.in names unknown sections: {', '.join(sorted(unknown))}")
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: SECTIONS[match[1]](reports), template)
    return page, {folder / f"{slug(report)}.svg": report for report in main_forward(reports)}


def out_of_date(docs: pathlib.Path, page: str, plots: dict[pathlib.Path, Report]) -> list[str]:
    def text_of(path: pathlib.Path) -> str:
        return path.read_text("utf-8") if path.exists() else ""

    stale = [] if text_of(docs / "performance.md") == page else ["performance.md"]
    stale += [
        path.name
        for path, report in plots.items()
        if not text_of(path).endswith(mark_of(report) + "\n")
    ]
    stale += [path.name for path in (docs / "benchmarks").glob("*.svg") if path not in plots]
    return stale


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="only say whether it is up to date")
    parser.add_argument("--docs", type=pathlib.Path, default=ROOT / "docs")
    options = parser.parse_args()
    page, plots = render(options.docs)
    stale = out_of_date(options.docs, page, plots)
    if options.check:
        if stale:
            print(f"out of date: {', '.join(stale)}; run tools/make_performance_page.py")
            sys.exit(1)
        print("up to date")
        return
    files = {options.docs / "performance.md": page}
    files |= {path: plot(report) for path, report in plots.items() if path.name in stale}
    for path, text in files.items():
        path.write_text(text, "utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
