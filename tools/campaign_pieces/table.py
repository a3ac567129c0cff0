"""What a campaign has found, as tables."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from dataclasses import dataclass, field
from typing import Any

BEGIN, END = "<!-- campaign: made by tools/campaign.py --table -->", "<!-- end of campaign -->"
PIECES = {
    "fuzz": "libFuzzer",
    "faults": "injected faults",
    "killed": "kill -9",
    "soak": "soak",
    "mutants": "mutants",
}
NAMES = {
    ("fuzz", "load"): "a GGUF file, from load to the first tokens",
    ("fuzz", "tokenizer"): "tokenizers: any text, any ids",
    ("fuzz", "template"): "chat templates",
    ("fuzz", "grammar"): "GBNF, JSON schemas, patterns, and texts that follow them",
    ("fuzz", "kept"): "kept prompts",
    ("fuzz", "safetensors"): "converter: safetensors",
    ("fuzz", "tokenizer_json"): "converter: tokenizer.json",
    ("fuzz", "sentencepiece"): "converter: tokenizer.model",
    ("faults", "calls"): "calls of the system",
    ("faults", "allocations"): "allocations",
    ("fuzz", "server"): "server: bodies of requests",
}


@dataclass
class Entry:
    """One run of a part of a piece.

    Attributes:
        piece, name: which.
        executions: inputs, runs with a fault, killed runs, requests or mutants.
        hours: that it took.
        findings: what should not have happened.
        detail: by piece; see the tables.
    """

    piece: str
    name: str
    executions: int
    hours: float
    findings: list[str]
    detail: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        values["hours"] = round(self.hours, 4)
        return values


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def _head(*cells: str) -> list[str]:
    """The first column is text, the others numbers."""
    return [_row(*cells), _row("---", *("---:" for _ in cells[1:]))]


def _whole(n: int) -> str:
    return f"{n:,}".replace(",", " ")


def _by_part(runs: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: list(PIECES).index(run["piece"])):
        found.setdefault((run["piece"], run["name"]), []).append(run)
    return found


def _summary(kept: dict[str, Any]) -> list[str]:
    lines = _head("What", "Executions", "Hours", "Findings", "Mended", "Last run")
    total = [0, 0.0, 0, 0]
    for (piece, name), runs in _by_part(kept["runs"]).items():
        # Mutants are counted once: the last run of a file.
        counted = runs[-1:] if piece == "mutants" else runs
        mended = sum(m["piece"] == piece and m["name"] == name for m in kept["mended"])
        numbers = [
            sum(run["executions"] for run in counted),
            sum(run["hours"] for run in counted),
            mended + len(runs[-1]["findings"]),
            mended,
        ]
        total = [a + b for a, b in zip(total, numbers, strict=True)]
        title = f"{PIECES[piece]}: {NAMES.get((piece, name), name)}"
        last = f"{runs[-1]['date']}, {runs[-1]['commit']}"
        lines.append(_row(title, *_cells(numbers), last))
    lines.append(_row("**all**", *_cells(total), ""))
    return lines


def _cells(numbers: list[Any]) -> list[str]:
    return [_whole(numbers[0]), f"{numbers[1]:.2f}", str(numbers[2]), str(numbers[3])]


def _mutants(parts: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    lines = _head(
        "File", "Mutants", "Equivalent", "Run", "Killed", "Survived", "Killed of those run"
    )
    for (piece, name), runs in parts.items():
        if piece != "mutants":
            continue
        run, detail = runs[-1], runs[-1]["detail"]
        share = f"{100 * detail['killed'] / max(run['executions'], 1):.1f} %"
        lines.append(_row(f"`{name}`", detail["mutants"], detail["equivalent"], run["executions"],
                          detail["killed"], len(detail["survived"]), share))  # fmt: skip
    return lines


def _faults(parts: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    lines = _head("Call and what it does", "Runs", "Went on", "Told, with exit code", "Crashed")
    found: dict[str, dict[str, int]] = {}
    for (piece, _), runs in parts.items():
        for run in runs if piece == "faults" else []:
            for call, codes in run["detail"]["told"].items():
                for code, n in codes.items():
                    sums = found.setdefault(call, {})
                    sums[code] = sums.get(code, 0) + n
    for call, codes in found.items():
        if "scheduler" in call:
            told = f"{_whole(codes.get('ended', 0))} requests"
            lines.append(_row("malloc, in a scheduler", codes.get("runs", 0), "", told, 0))
            continue
        numbers = {int(code): n for code, n in codes.items()}
        told = ", ".join(f"{code}: {n}" for code, n in sorted(numbers.items()) if code > 0)
        crashed = sum(n for code, n in numbers.items() if code < 0)
        runs_, on = sum(numbers.values()), numbers.get(0, 0)
        lines.append(_row(call.replace(" ", ": "), runs_, on, told or "none", crashed))
    return lines


def _killed(parts: dict[tuple[str, str], list[dict[str, Any]]]) -> list[str]:
    lines = _head(
        "Writer", "Runs", "Killed", "While it wrote", "Old file", "New file", "Half a file"
    )
    for (piece, name), runs in parts.items():
        if piece != "killed":
            continue
        sums = {key: sum(run["detail"][key] for run in runs)
                for key in ("killed", "writing", "old", "new")}  # fmt: skip
        n = sum(run["executions"] for run in runs)
        lines.append(_row(name, n, *sums.values(), len(runs[-1]["findings"])))
    return lines


def render(kept: dict[str, Any]) -> str:
    parts = _by_part(kept["runs"])
    lines = [BEGIN, "", *_summary(kept), ""]
    for title, table in (
        ("Mutants by file", _mutants(parts)),
        ("Writers that were killed", _killed(parts)),
        ("Faults that were injected", _faults(parts)),
    ):
        if len(table) > 2:
            lines += [f"### {title}", "", *table, ""]
    if kept["mended"]:
        lines += ["### What was found and mended", ""]
        for m in kept["mended"]:
            name = NAMES.get((m["piece"], m["name"]), m["name"])
            lines.append(f"* {PIECES[m['piece']]}, {name}: {m['what']}")
        lines.append("")
    return "\n".join([*lines, END])


def page_with_table(results: pathlib.Path, page: pathlib.Path) -> str:
    text = page.read_text("utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + render(json.loads(results.read_text("utf-8"))) + after


def write_page(results: pathlib.Path, page: pathlib.Path) -> None:
    page.write_text(page_with_table(results, page), encoding="utf-8")
