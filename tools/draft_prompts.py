"""Prompts of files: those to be measured with (--eval), and the user's own to learn from
(--prompts)."""

from __future__ import annotations

import json
import pathlib
import random
from typing import Any

import specdec_native as sd
from training_safety import ToolError

Prompts = list[list[int]]


def file_prompts(
    model: sd.Model, path: pathlib.Path, count: int | None = None, option: str = "--eval"
) -> Prompts:
    """A text file is one prompt; of JSON lines every one is, through the chat template if any.
    Shuffled, always in the same way; at most `count`."""
    try:
        content = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ToolError(f"{option} {path}: cannot be read as text ({error})") from None
    if path.suffix not in (".jsonl", ".json"):
        return [model.tokenize(content)]
    prompts: Prompts = []
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            prompts.append(_prompt_of(model, json.loads(line)))
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise ToolError(
                f"{option} {path}: line {number}: {error!r}; expected a JSON object with `prompt`, "
                "`turns` or `messages`"
            ) from None
    if not prompts:
        raise ToolError(f"{option} {path}: has no prompts")
    random.Random(0).shuffle(prompts)
    return prompts[:count]


def _prompt_of(model: sd.Model, record: dict[str, Any]) -> list[int]:
    if "messages" in record:
        messages = record["messages"]
    elif "turns" in record:
        messages = [{"role": "user", "content": record["turns"][0]}]
    else:
        messages = [{"role": "user", "content": record["prompt"]}]
    if model.chat_template is None:
        return model.tokenize("\n".join(message["content"] for message in messages))
    return model.tokenize(model.apply_chat_template(messages), add_special=False)
