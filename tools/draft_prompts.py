"""Prompts of files: those to be measured with (--eval), and the user's own to learn from
(--prompts)."""

from __future__ import annotations

import json
import pathlib
import random
from collections.abc import Callable
from typing import Any

import specdec_native as sd
from gguf_convert.errors import short
from training_safety import ToolError

Prompts = list[list[int]]


def file_prompts(model: sd.Model, path: pathlib.Path, option: str = "--eval") -> Prompts:
    """A text file is one prompt; of JSON lines every one is, through the chat template if any.
    Shuffled, always in the same way."""
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{option} {path}: cannot be read as text ({error})") from None
    if path.suffix not in (".jsonl", ".json"):
        return [model.tokenize(content)] if content else []
    prompts: Prompts = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            prompts.append(_prompt_of(model, json.loads(line)))
        except RecursionError:
            raise ToolError(f"{option} {path}: line {number}: is nested too deeply") from None
        except (ValueError, KeyError, TypeError, IndexError, sd.SpecdecError) as error:
            raise ToolError(
                f"{option} {path}: line {number}: {short(error)}; expected a JSON object with "
                "`prompt`, `turns` or `messages`"
            ) from None
    random.Random(0).shuffle(prompts)
    return prompts


def fitting_prompts(
    model: sd.Model, path: pathlib.Path, option: str, most: int, say: Callable[[str], None]
) -> Prompts:
    """Those of a file that have 1 to `most` tokens; at least one."""
    every = file_prompts(model, path, option)
    if not every:
        raise ToolError(f"{option} {path}: has no prompts; give another file")
    fitting = [prompt for prompt in every if 0 < len(prompt) <= most]
    if not fitting:
        raise ToolError(f"{option} {path}: none has 1 to {most} tokens; give other prompts")
    others = "" if fitting == every else f"; the others are empty or of more than {most} tokens"
    say(f"{option}: {len(fitting)} of {len(every)} prompts{others}")
    return fitting


def _prompt_of(model: sd.Model, record: Any) -> list[int]:
    if not isinstance(record, dict):
        raise ValueError(f"is {_shown(record)}")
    messages: Any
    if "messages" in record:
        messages = record["messages"]
        if not isinstance(messages, list) or not messages:
            raise ValueError(f"`messages` is {_shown(messages)}, expected objects in a list")
    elif "turns" in record:
        turns = record["turns"]
        if not isinstance(turns, list) or not turns:
            raise ValueError(f"`turns` is {_shown(turns)}, expected texts in a list")
        messages = [{"role": "user", "content": _text(turns[0], "`turns`: the first")}]
    else:
        if "prompt" not in record:
            raise ValueError("has none of these")
        messages = [{"role": "user", "content": _text(record["prompt"], "`prompt`")}]
    if model.chat_template is None:
        return model.tokenize("\n".join(map(_content, messages)))
    return model.tokenize(model.apply_chat_template(messages), add_special=False)


def _shown(value: Any) -> str:
    return short(json.dumps(value), 40)


def _content(message: Any) -> str:
    if not isinstance(message, dict):
        raise ValueError(f"a message is {_shown(message)}, expected an object")
    return _text(message.get("content"), "`content` of a message")


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{what} is {_shown(value)}, expected text")
    return value
