"""Whole models: passes of M rows, generation by each drafter, and a model that does not fit."""

from __future__ import annotations

import pathlib
import tempfile
import time
from typing import Any

from . import synthetic
from .section import Report, median, native, ratio

ROWS = (*range(1, 17), 32, 64, 128, 256, 512)
DRAFT_ROWS = (1, 2, 4, 8)
METHODS = ("none", "ngram", "model", "auto")
CONTEXT = 2048
BENCH_CONTEXT = 256
ROUNDS = 7
REPEATS = 3
# The emulated device has room for models beside the margin, and none for measuring copies.
EMULATED_BYTES = 500 << 20

PROMPTS = {
    "function": (
        "def quicksort(values):\n"
        '    """Returns the values in ascending order, without changing the list."""\n'
    ),
    "rewrite": (
        "Rename the variable `total` to `amount` in this code.\n\n"
        "```python\ndef order_price(lines, discount):\n    total = 0.0\n    for line in lines:\n"
        "        total += line.count * line.price\n    if total > 100:\n"
        "        total -= total * discount\n    return round(total, 2)\n```\n\n"
        "The code with the new name:\n\n```python\n"
    ),
    "text": "A short history of the bicycle:\n\nThe first machine with two wheels in line",
}


class Device:
    """One GPU, or the emulated one, with the speed of its copies."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.module = native()
        self.emulated = options["device"] == "emulated"
        n_bytes = EMULATED_BYTES if self.emulated else 0
        self.gpu = self.module.Gpu(options["device"], n_bytes)
        self.copy_speed = None if self.emulated else self.gpu.measure_bandwidth()
        self.n_threads = options.get("threads", 0)

    def load(self, path: str, n_ctx: int, vram_budget: int = 0) -> Any:
        return self.module.Model(
            path, self.gpu, n_ctx=n_ctx, vram_budget=vram_budget, n_threads=self.n_threads
        )


def passes(device: Device, model: Any, rows: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """Times of passes of M rows and what follows from them."""
    times = model.bench(list(rows), BENCH_CONTEXT, rounds)
    wall = {m: median(t) for m, t in zip(rows, times["times_ms"], strict=True)}
    device_ms = {m: median(t) for m, t in zip(rows, times["device_ms"], strict=True)}
    if not any(device_ms.values()):
        device_ms = {}
    best = device_ms or wall
    info = model.info
    whole = info["n_gpu_layers"] == info["n_layers"]
    speed = device.copy_speed if whole else None
    per_step = info["bytes_per_step"]
    return {
        "wall_ms": wall,
        "device_ms": device_ms,
        "wall_ratio": {m: ratio(t, wall.get(1)) for m, t in wall.items()},
        "device_ratio": {m: ratio(t, best.get(1)) for m, t in best.items()},
        "share": ratio(per_step / (best[1] / 1000), speed) if 1 in best else None,
        "wall_share": ratio(per_step / (wall[1] / 1000), speed) if 1 in wall else None,
        "prompt_tokens_per_second": {m: 1000 * m / t for m, t in wall.items() if m > 16},
    }


def one_run(device: Device, session: Any, prompt: str, max_tokens: int) -> dict[str, Any]:
    before = device.gpu.counters
    result = dict(session.generate(prompt, max_tokens))
    after = device.gpu.counters
    result["text"] = result["text"].decode("utf-8", "replace")
    result["passes"] = result["rounds"] + result["plain_steps"]
    result["waits"] = after["waits"] - before["waits"]
    result["replayed"] = ratio(
        after["replayed"] - before["replayed"], after["passes"] - before["passes"]
    )
    return result


def generations(
    device: Device, report: Report, name: str, target: Any, draft: Any, options: dict[str, Any]
) -> None:
    """Every method on every prompt. The first run of each warms up; the best one counts."""
    methods = [m for m in METHODS if draft is not None or m != "model"]
    n_repeats = 1 if options["tiny"] else REPEATS
    for prompt_name, prompt in options["prompts"].items():
        plain: list[int] | None = None
        for method in methods:
            what = f"{name}, {prompt_name}, {method}"
            if report.late(what):
                return
            uses_draft = method in ("model", "auto")
            session = None  # the one before gives its memory back
            try:
                session = device.module.Session(
                    target, draft if uses_draft else None, method, options["n_ctx"]
                )
                first = one_run(device, session, prompt, 1)
                runs = [
                    one_run(device, session, prompt, options["max_tokens"])
                    for _ in range(n_repeats + 1)
                ][1:]
            except Exception as problem:
                report.error(what, problem)
                continue
            best = max(runs, key=lambda run: run["tokens_per_second"] or 0)
            # Without those of the prompt.
            best["waits_per_round"] = ratio(
                best["waits"] - first["waits"], best["passes"] - first["passes"]
            )
            if method == "none":
                plain = best["token_ids"]
            report.add(
                "generations",
                {
                    "model": name,
                    "prompt": prompt_name,
                    "method": "plain" if method == "none" else method,
                    "same_text": None if plain is None else best["token_ids"] == plain,
                    "runs": [run["tokens_per_second"] for run in runs],
                    **{k: v for k, v in best.items() if k != "token_ids"},
                },
            )


def part_budget(
    device: Device, report: Report, name: str, path: str, options: dict[str, Any], plan: dict
) -> None:
    """The model with half of its room: part of it on the CPU, the budget kept, drafts harmless.

    With more than half where the head, which goes first, is most of a model."""
    what = f"{name} with half of its memory"
    if report.late(what):
        return
    entry: dict[str, Any] = {"model": name, "whole_bytes": plan["gpu_bytes"]}
    for fraction in (0.5, 0.7, 0.9):
        budget = plan["work_bytes"] + int(plan["gpu_bytes"] * fraction)
        entry |= {"budget_bytes": budget, "fraction": fraction}
        try:
            model = device.load(path, options["n_ctx"], budget)
        except Exception as problem:
            if "not even one layer" in str(problem) and fraction < 0.9:
                continue
            report.error(what, problem)
            break
        try:
            entry |= run_part(device, model, options)
            entry["kept"] = entry["reserved_bytes"] <= budget
        except Exception as problem:
            report.error(what, problem)
        break
    report.add("budgets", entry)


def run_part(device: Device, model: Any, options: dict[str, Any]) -> dict[str, Any]:
    info = model.info
    prompt = next(iter(options["prompts"].values()))
    runs = {}
    for method in ("none", "ngram"):
        session = device.module.Session(model, None, method, options["n_ctx"])
        runs[method] = one_run(device, session, prompt, min(32, options["max_tokens"]))
        del session
    return {
        "reserved_bytes": device.gpu.counters["reserved_bytes"],
        "layers": f"{info['n_gpu_layers']} of {info['n_layers']}",
        "split": 0 < info["n_gpu_layers"] < info["n_layers"],
        "placement": info["placement"],
        "tokens_per_second": runs["none"]["tokens_per_second"],
        "same_text": runs["none"]["token_ids"] == runs["ngram"]["token_ids"],
    }


def one_pair(device: Device, report: Report, pair: dict[str, Any], options: dict[str, Any]) -> None:
    name = pair["name"]
    n_ctx = options["n_ctx"]
    tiny = options["tiny"]
    entry: dict[str, Any] = {"model": name, "synthetic": pair["synthetic"]}
    draft = target = None
    try:
        if pair["draft"]:  # first: it has the better right to memory
            draft = device.load(pair["draft"], n_ctx)
            rows = (1, 2) if tiny else DRAFT_ROWS
            if not report.late(f"{name}, draft"):
                entry["draft"] = passes(device, draft, rows, 1 if tiny else ROUNDS)
        before = device.gpu.counters["reserved_bytes"]
        target = device.load(pair["target"], n_ctx)
        info = target.info
        entry["info"] = {k: v for k, v in info.items() if k != "placement"}
        entry["placement"] = info["placement"]
        reserved = device.gpu.counters["reserved_bytes"]
        # Work space is shared: what the target took beyond its own, or all but what models hold.
        held = info["gpu_bytes"] + (draft.info["gpu_bytes"] if draft is not None else 0)
        plan = {"gpu_bytes": info["gpu_bytes"], "work_bytes": max(0, reserved - held)}
        entry["reserved_bytes"] = [before, reserved]
        if not report.late(f"{name}, passes"):
            rows = (1, 2, 16, 33) if tiny else ROWS
            entry["passes"] = passes(device, target, rows, 1 if tiny else ROUNDS)
            entry["copy_gb_s"] = device.copy_speed and device.copy_speed / 1e9
        report.add("models", entry)
    except Exception as problem:
        report.error(name, problem)
        report.add("models", entry)
        return
    if not pair["synthetic"]:
        generations(device, report, name, target, draft, options)
    del draft, target
    part_budget(device, report, name, pair["target"], options, plan)


def run(report: Report, options: dict[str, Any]) -> None:
    device = Device(options)
    report.set("device", device.gpu.info)
    with tempfile.TemporaryDirectory() as folder:
        for pair in options["pairs"]:
            if report.late(pair["name"]):
                return
            if pair["synthetic"]:
                start = time.monotonic()
                path = pathlib.Path(folder) / "model.gguf"
                synthetic.write(path, pair["synthetic"])
                report.add("notes", f"wrote {pair['name']} in {time.monotonic() - start:.1f} s")
                pair = {**pair, "target": str(path)}
            one_pair(device, report, pair, options)
