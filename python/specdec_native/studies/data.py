"""Files of prompts: read with errors that name the line, never with a traceback."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from ..errors import InvalidArgumentError, ModelFileError
from .plan import Task


def read_text(path: pathlib.Path) -> str:
    try:
        return path.read_text("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{path}, byte {error.start}: not UTF-8 text") from None


def lines_of(path: pathlib.Path) -> list[str]:
    """Ended by line feeds alone: U+2028 and the like may stand in the texts of JSON lines."""
    return read_text(path).split("\n")


def read_json_lines(path: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """(line number, object) of each line that is not empty."""
    entries = []
    for number, line in enumerate(lines_of(path), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidArgumentError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(entry, dict):
            raise InvalidArgumentError(
                f"{path}, line {number}: expected a JSON object, found {type(entry).__name__}"
            )
        entries.append((number, entry))
    if not entries:
        raise InvalidArgumentError(f"{path} holds no prompts")
    return entries


def read_parquet(path: pathlib.Path) -> list[tuple[int, dict[str, Any]]]:
    """(row, object) of each row, as `read_json_lines` gives them."""
    import pandas as pd

    try:
        frame = pd.read_parquet(path)
    except ImportError:
        raise InvalidArgumentError(
            f"{path}: to read Parquet, pip install pyarrow; or save the file as JSON lines"
        ) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise InvalidArgumentError(f"{path}: not Parquet: {str(error).splitlines()[0]}") from None
    if frame.empty:
        raise InvalidArgumentError(f"{path} holds no prompts")
    return list(enumerate(json.loads(frame.to_json(orient="records")), 1))


def text_of(path: pathlib.Path, number: int, entry: dict[str, Any], name: str) -> str:
    """A field that must be text."""
    value = entry.get(name)
    if not isinstance(value, str):
        found = "nothing" if value is None else type(value).__name__
        raise InvalidArgumentError(f"{path}, line {number}: {name} must be text, found {found}")
    return value


def own_prompts(path: pathlib.Path) -> list[Task]:
    """A user's prompts: JSON lines with "prompt", "turns" or "messages", or one plain text.

    "prompt" is raw text unless "chat" is true; "turns" are what the user says in a chat;
    "messages" are a chat in the usual form, of which what the user says is asked anew.
    """
    if path.suffix not in (".jsonl", ".ndjson", ".json"):
        text = read_text(path)
        return [Task(path.stem, (text[:-1] if text.endswith("\n") else text,))]
    tasks: dict[str, Task] = {}
    for number, entry in read_json_lines(path):
        task = _own(path, number, entry)
        if task.id in tasks:
            raise InvalidArgumentError(
                f"{path}, line {number}: there is a prompt {task.id} already"
            )
        tasks[task.id] = task
    return list(tasks.values())


def _own(path: pathlib.Path, number: int, entry: dict[str, Any]) -> Task:
    name = str(entry.get("id", entry.get("task_id", number)))
    category = str(entry.get("category", ""))
    if "messages" in entry:
        system, turns = _messages(path, number, entry["messages"])
        return Task(name, turns, category, "chat", system)
    if "turns" in entry:
        turns = entry["turns"]
        if not isinstance(turns, list) or not turns or not all(isinstance(t, str) for t in turns):
            raise InvalidArgumentError(f"{path}, line {number}: turns must be a list of texts")
        return Task(name, tuple(turns), category, "chat", str(entry.get("system", "")))
    if "prompt" not in entry:
        raise InvalidArgumentError(
            f'{path}, line {number}: expected "prompt", "turns" or "messages", '
            f"found {', '.join(map(repr, entry)) or 'nothing'}"
        )
    prompt = text_of(path, number, entry, "prompt")
    form = "chat" if entry.get("chat") else "raw"
    return Task(name, (prompt,), category, form, str(entry.get("system", "")))  # type: ignore[arg-type]


def _messages(path: pathlib.Path, number: int, messages: Any) -> tuple[str, tuple[str, ...]]:
    wrong = InvalidArgumentError(
        f'{path}, line {number}: messages must be a list of objects with "role" and "content"'
    )
    if not isinstance(messages, list):
        raise wrong
    system, turns = "", []
    for message in messages:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            raise wrong
        if message.get("role") == "system":
            system = message["content"]
        elif message.get("role") == "user":
            turns.append(message["content"])
    if not turns:
        raise InvalidArgumentError(f"{path}, line {number}: no message of the user")
    return system, tuple(turns)
