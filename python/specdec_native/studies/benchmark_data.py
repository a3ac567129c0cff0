"""Readers of the public files of Spec-Bench, SPEED-Bench and HumanEval."""

from __future__ import annotations

import pathlib
from typing import Any

from ..errors import InvalidArgumentError
from .data import read_json_lines, read_parquet, text_of
from .plan import Scalar, Task

SYSTEM = "You are a helpful assistant."
# Its eight categories are one of Spec-Bench's six tasks.
MT_BENCH = (
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
)
SPEED_BENCH_FACTS = ("sub_category", "difficulty", "source")
# Of SPEED-Bench: the text stands in another data set and has not been put in yet.
UNRESOLVED = "FULL BENCHMARK DATA SHOULD BE FETCHED"

Entry = tuple[Task, dict[str, Scalar]]


def spec_bench(path: pathlib.Path) -> list[Entry]:
    """question_id, category, turns; MT-bench's questions have two turns."""
    entries: list[Entry] = []
    for number, entry in read_json_lines(path):
        category = text_of(path, number, entry, "category")
        kind = "mt_bench" if category in MT_BENCH else category
        name = f"{kind}/{_identifier(path, number, entry, 'question_id')}"
        task = Task(name, _turns(path, number, entry), kind, "chat", SYSTEM, _reference(entry))
        entries.append((task, {"sub_category": category}))
    return _once(path, entries)


def speed_bench(path: pathlib.Path) -> list[Entry]:
    """question_id, category, sub_category, turns, source, difficulty: the Parquet file that its
    preparation writes, or the same as JSON lines."""
    entries: list[Entry] = []
    read = read_parquet if path.suffix == ".parquet" else read_json_lines
    for number, entry in read(path):
        category = text_of(path, number, entry, "category")
        name = f"{category}/{_identifier(path, number, entry, 'question_id')}"
        turns = _turns(path, number, entry)
        if any(turn.startswith(UNRESOLVED) for turn in turns):
            raise InvalidArgumentError(
                f"{path}, line {number}: {name} still has a placeholder instead of its text; "
                "SPEED-Bench's prepare_data.py fetches the texts"
            )
        facts = {key: entry.get(key) for key in SPEED_BENCH_FACTS}
        more: dict[str, Scalar] = {k: "" if v is None else str(v) for k, v in facts.items()}
        entries.append((Task(name, turns, category, "chat"), more))
    return _once(path, entries)


def humaneval(path: pathlib.Path, *, chat: bool) -> list[Entry]:
    """task_id, prompt, canonical_solution; `chat` asks for the function, else it is continued."""
    entries: list[Entry] = []
    for number, entry in read_json_lines(path):
        prompt = text_of(path, number, entry, "prompt")
        name = _identifier(path, number, entry, "task_id")
        solution = entry.get("canonical_solution", "")
        reference = solution if isinstance(solution, str) else ""
        if chat:
            question = f"Complete this function:\n```python\n{prompt}\n```"
            task = Task(name, (question,), "humaneval", "chat", SYSTEM, reference)
        else:
            task = Task(name, (prompt,), "humaneval", "raw", "", reference)
        entries.append((task, {}))
    return _once(path, entries)


def _turns(path: pathlib.Path, number: int, entry: dict[str, Any]) -> tuple[str, ...]:
    turns = entry.get("turns")
    if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
        raise InvalidArgumentError(f"{path}, line {number}: turns must be a list of texts")
    return tuple(turns)


def _identifier(path: pathlib.Path, number: int, entry: dict[str, Any], name: str) -> str:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, str)) or value == "":
        found = "nothing" if value is None else repr(value)
        raise InvalidArgumentError(
            f"{path}, line {number}: {name} must be text or a number, found {found}"
        )
    return str(value)


def _reference(entry: dict[str, Any]) -> str:
    """One text or a list of them, one for each turn."""
    value = entry.get("reference", "")
    if isinstance(value, list):
        value = value[0] if value else ""
    return value if isinstance(value, str) else ""


def _once(path: pathlib.Path, entries: list[Entry]) -> list[Entry]:
    """Two tasks of one name would be taken for runs of one."""
    seen: set[str] = set()
    for task, _ in entries:
        if task.id in seen:
            raise InvalidArgumentError(f"{path}: {task.id} is there twice")
        seen.add(task.id)
    return entries
