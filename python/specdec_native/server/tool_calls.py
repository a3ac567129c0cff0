"""Calls of functions, found in the text of models that were shown tools.

A model writes calls as its chat template taught it; there is no common form. These are known:

- ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (Hermes, Qwen, SmolLM3, Granite),
  and within it ``<function=NAME><parameter=KEY>VALUE</parameter></function>`` (Qwen3-Coder);
- ``[TOOL_CALLS][{...}, ...]`` and ``[TOOL_CALLS]NAME[ARGS]{...}`` (Mistral);
- the whole answer is ``{"name": ..., "parameters": {...}}``, or a list of such (Llama 3), after
  ``<|python_tag|>`` or without.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_TAGS = ("<tool_call>", "</tool_call>")
_MISTRAL = "[TOOL_CALLS]"
_PYTHON_TAG = "<|python_tag|>"


@dataclass(frozen=True)
class ToolCall:
    """One call; `arguments` is JSON text, as OpenAI's API has it."""

    name: str
    arguments: str

    def to_dict(self, index: int | None = None) -> dict[str, Any]:
        call: dict[str, Any] = {
            "id": f"call_{secrets.token_hex(12)}",
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }
        return call if index is None else {"index": index, **call}


def call_begins(template: str) -> str:
    """What a model of this template writes before the JSON of a call."""
    if _MISTRAL in template:
        return _MISTRAL
    return f"{_TAGS[0]}\n" if _TAGS[0] in template else ""


class ToolCallReader:
    """Takes text apart as it arrives. What turns out not to be a call is text again.

    Args:
        names: of the functions that the model was shown; others are no calls.
        template: source of the chat template, which tells the form.
        schemas: of the functions' parameters; a parameter of type string stays text.
        most: calls of the answer; further ones are left out. None: all.
    """

    def __init__(
        self,
        names: Sequence[str],
        template: str,
        schemas: Mapping[str, Any] | None = None,
        most: int | None = None,
    ) -> None:
        self._names = frozenset(names)
        self._schemas = schemas or {}
        self._left = most
        self._mistral = _MISTRAL in template
        self._markers = (_MISTRAL,) if self._mistral else (_TAGS[0], _PYTHON_TAG)
        self._held = ""  # may begin a call
        self._started = False  # text that is no call was given out
        self._behind_call = False  # space between calls is nobody's

    def feed(self, text: str) -> tuple[str, list[ToolCall]]:
        """Text that is certainly none of a call, and calls that are complete."""
        self._held += text
        out = ""
        calls: list[ToolCall] = []
        while self._held:
            if self._behind_call:
                self._held = self._held.lstrip()
                self._behind_call = not self._held
                continue
            at, marker = self._find_marker()
            if marker is None:
                out += self._give(self._held[:at])
                break
            out += self._give(self._held[:at])
            if marker != _TAGS[0]:
                break  # these end with the answer
            end = self._held.find(_TAGS[1])
            if end < 0:
                break
            whole = end + len(_TAGS[1])
            found = _in_tags(self._held[len(_TAGS[0]) : end], self._schemas)
            found = [call for call in found if call.name in self._names]
            if found:
                self._started = True
                calls += self._take(found)
                self._held = self._held[whole:]
                self._behind_call = True
            else:
                out += self._give(self._held[:whole])
        return out, calls

    def finish(self) -> tuple[str, list[ToolCall]]:
        """What is left when the answer has ended."""
        held, self._held = self._held, ""
        text = held.strip()
        if text.startswith(_MISTRAL):
            found = _mistral(text[len(_MISTRAL) :])
        elif text.startswith(_TAGS[0]):
            # Cut off behind its JSON, or no end tag.
            found = _in_tags(text[len(_TAGS[0]) :], self._schemas)
        else:
            found = _calls(_json(text.removeprefix(_PYTHON_TAG)))
        if found and all(call.name in self._names for call in found):
            return "", self._take(found)
        return held, []

    def _take(self, calls: list[ToolCall]) -> list[ToolCall]:
        if self._left is None:
            return calls
        taken = calls[: self._left]
        self._left -= len(taken)
        return taken

    def _give(self, text: str) -> str:
        self._held = self._held[len(text) :]
        self._started = self._started or bool(text.strip())
        return text

    def _find_marker(self) -> tuple[int, str | None]:
        """Where a marker is, or how much of the text cannot belong to one."""
        for marker in self._markers:
            at = self._held.find(marker)
            if at >= 0:
                return at, marker
        if not self._started and not self._mistral and self._held.lstrip()[:1] in ("", "{", "["):
            return 0, None  # the answer may be one call
        for size in range(min(len(self._held), max(map(len, self._markers))), 0, -1):
            if any(marker.startswith(self._held[-size:]) for marker in self._markers):
                return len(self._held) - size, None
        return len(self._held), None


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _calls(value: object) -> list[ToolCall]:
    """Of a JSON object or a list of them; none if one is of another form."""
    calls = []
    for item in value if isinstance(value, list) else [value]:
        if not isinstance(item, dict):
            return []
        item = item.get("function", item) if isinstance(item.get("function"), dict) else item
        arguments = item.get("arguments", item.get("parameters", {}))
        if not isinstance(item.get("name"), str) or not isinstance(arguments, (dict, str)):
            return []
        text = arguments if isinstance(arguments, str) else _compact(arguments)
        calls.append(ToolCall(item["name"], text))
    return calls


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _mistral(text: str) -> list[ToolCall]:
    if "[ARGS]" not in text:
        return _calls(_json(text.strip()))
    calls = []
    for part in text.split(_MISTRAL):
        name, _, arguments = part.partition("[ARGS]")
        if not isinstance(_json(arguments), dict):
            return []
        calls.append(ToolCall(name.partition("[CALL_ID]")[0].strip(), arguments.strip()))
    return calls


_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)(?:</function>\s*)?\Z", re.S)
_PARAMETER = re.compile(r"<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>", re.S)


def _in_tags(text: str, schemas: Mapping[str, Any]) -> list[ToolCall]:
    found = _FUNCTION.match(text)
    if found is None:
        return _calls(_json(text))
    function = found[1].strip()
    values = {}
    for name, value in _PARAMETER.findall(found[2]):
        is_text = _is_text(schemas.get(function), name)
        parsed = None if is_text else _json(value)
        is_null = value.strip() == "null" and not is_text
        values[name] = value if parsed is None and not is_null else parsed
    return [ToolCall(function, _compact(values))]


def _is_text(schema: object, parameter: str) -> bool:
    """Whether a parameter is a string and nothing else: "007" is no number then."""
    for key in ("properties", parameter, "type"):
        schema = schema.get(key) if isinstance(schema, Mapping) else None
    return schema == "string"
