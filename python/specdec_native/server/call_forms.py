"""The forms in which models write calls of functions, whole and cut off.

A model writes calls as its chat template taught it; there is no common form. These are known:

- ``<tool_call>{"name": ..., "arguments": {...}}</tool_call>`` (Hermes, Qwen, SmolLM3, Granite),
  and within it ``<function=NAME><parameter=KEY>VALUE</parameter></function>`` (Qwen3-Coder);
- ``[TOOL_CALLS][{...}, ...]`` and ``[TOOL_CALLS]NAME[ARGS]{...}`` (Mistral);
- the whole answer is ``{"name": ..., "parameters": {...}}``, or a list of such (Llama 3), after
  ``<|python_tag|>`` or without.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

BEGIN, END = "<tool_call>", "</tool_call>"
MISTRAL = "[TOOL_CALLS]"
PYTHON_TAG = "<|python_tag|>"
_ARGUMENTS = "[ARGS]"
_CALL_ID = "[CALL_ID]"

_STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"', re.S)
_STRING_SO_FAR = re.compile(r'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*\\?', re.S)
_FUNCTION = re.compile(r"\s*<function=([^<>\n]+)>(.*?)(?:</function>\s*)?\Z", re.S)
_PARAMETER_BEGIN = re.compile(r"<parameter=([^<>\n]+)>")
# Behind the one that ends a parameter the call goes on; others belong to its value.
_BEHIND = r"<parameter=|</function>|</tool_call>"
_PARAMETER_END = re.compile(rf"</parameter>(?=\s*(?:{_BEHIND}))")
_PARAMETER = re.compile(
    rf"<parameter=([^<>\n]+)>\n?(.*?)\n?</parameter>(?=\s*(?:{_BEHIND}|\Z))", re.S
)
_NAME_SO_FAR = re.compile(
    r'\s*\{\s*(?:"type"\s*:\s*"function"\s*,\s*)?(?:"function"\s*:\s*\{\s*)?"name"\s*:\s*'
    r'("[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*")'
)
_ARGUMENTS_SO_FAR = re.compile(r'\s*,\s*"(?:arguments|parameters)"\s*:\s*(\{.*)', re.S)


@dataclass(frozen=True)
class ToolCall:
    """One call; `arguments` is JSON text, as OpenAI's API has it."""

    name: str
    arguments: str
    id: str = field(
        default_factory=lambda: f"call_{secrets.token_hex(12)}", compare=False, repr=False
    )

    def to_dict(self, index: int | None = None) -> dict[str, Any]:
        call: dict[str, Any] = {
            "id": self.id,
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }
        return call if index is None else {"index": index, **call}


def marks_of(template: str) -> tuple[str, ...]:
    """What models of this chat template write around the parts of a call."""
    is_mistral = MISTRAL in template
    return (MISTRAL, _ARGUMENTS, _CALL_ID) if is_mistral else (BEGIN, END, PYTHON_TAG)


_MISTRAL_ID = re.compile(r"[A-Za-z0-9]{9}")


def mistral_id(given: str) -> str:
    """Mistral's templates take no other ids than of nine letters and digits; the same for the
    same one."""
    if _MISTRAL_ID.fullmatch(given):
        return given
    return hashlib.sha256(given.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def end_of_call(text: str) -> int:
    """Where `text`, what follows <tool_call>, has its end tag; -1: not yet.

    One in an argument's text is none.
    """
    if text.lstrip().startswith("<function="):
        return _end_behind_parameters(text)
    return find_outside(END, text)


def find_outside(mark: str, text: str) -> int:
    """Where a mark is outside of the strings of JSON; -1: nowhere, or it cannot be told yet."""
    at = text.find(mark)
    pos = 0
    while at >= 0:
        quote = text.find('"', pos)
        if quote < 0 or at < quote:
            return at
        string = _STRING.match(text, quote)
        if string is None:
            # Still open; or no JSON, whose quotes mean nothing.
            is_open = _STRING_SO_FAR.fullmatch(text, quote) is not None
            return -1 if is_open else text.find(mark, quote)
        pos = string.end()
        if at < pos:
            at = text.find(mark, pos)
    return -1


def _end_behind_parameters(text: str) -> int:
    pos = 0
    while True:
        at = text.find(END, pos)
        begin = _PARAMETER_BEGIN.search(text, pos)
        if at < 0 or begin is None or at < begin.start():
            return at
        end = _PARAMETER_END.search(text, begin.end())
        if end is None:
            return -1
        pos = end.end()


def parsed(text: str) -> object:
    """JSON; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def of_json(value: object) -> list[ToolCall]:
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


def of_mistral(text: str) -> list[ToolCall]:
    """Of what follows the first [TOOL_CALLS]."""
    if text.lstrip()[:1] in ("[", "{"):
        return of_json(parsed(text.strip()))
    calls, rest = _named(text)
    return [] if rest.strip() else calls


def _named(text: str) -> tuple[list[ToolCall], str]:
    """Calls that have their name before their arguments; and what is left."""
    calls: list[ToolCall] = []
    while True:
        head, found, arguments = text.partition(_ARGUMENTS)
        value, end = _first_value(arguments)
        rest = arguments[end:].lstrip()
        if not found or not isinstance(value, dict) or not (not rest or rest.startswith(MISTRAL)):
            return calls, text
        calls.append(ToolCall(_name_in(head), arguments[:end].strip()))
        text = rest.removeprefix(MISTRAL)
        if not rest:
            return calls, ""


def _name_in(head: str) -> str:
    return head.partition(_CALL_ID)[0].strip()


def _first_value(text: str) -> tuple[object, int]:
    """The JSON value that `text` begins with, and its end; None if it is not whole."""
    start = len(text) - len(text.lstrip())
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, 0
    return value, end


def in_tags(text: str, schemas: Mapping[str, Any]) -> list[ToolCall]:
    """Of what is between <tool_call> and its end."""
    found = _FUNCTION.match(text)
    if found is None:
        return of_json(parsed(text))
    function = found[1].strip()
    return [ToolCall(function, _compact(_parameters(function, found[2], schemas)))]


def is_whole(text: str) -> bool:
    """Whether what follows <tool_call> says all that it was to say, but for the end tag."""
    if not text.lstrip().startswith("<"):
        return parsed(text) is not None
    behind = text.rpartition("</parameter>")[2]
    return "</f" in behind and end_of_call(text + END) == len(text)


def _parameters(function: str, text: str, schemas: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, value in _PARAMETER.findall(text):
        is_text = _is_text(schemas.get(function), name)
        given = None if is_text else parsed(value)
        is_null = value.strip() == "null" and not is_text
        values[name] = value if given is None and not is_null else given
    return values


def _is_text(schema: object, parameter: str) -> bool:
    """Whether a parameter is a string and nothing else: "007" is no number then."""
    for key in ("properties", parameter, "type"):
        schema = schema.get(key) if isinstance(schema, Mapping) else None
    return schema == "string"


def cut_in_tags(
    text: str, names: Collection[str], schemas: Mapping[str, Any]
) -> list[ToolCall] | None:
    """As `cut_json`, of what follows <tool_call>."""
    if not text.lstrip().startswith("<"):
        return cut_json(text, names)
    found = _FUNCTION.match(text)
    if found is None:
        begun = text.strip()
        return [] if any(f"<function={name}>".startswith(begun) for name in names) else None
    function = found[1].strip()
    if function not in names:
        return None
    # Whole parameters only, and no closing brace: of the last one nobody knows the type yet.
    return [ToolCall(function, _compact(_parameters(function, found[2], schemas))[:-1])]


def cut_mistral(text: str, names: Collection[str]) -> list[ToolCall] | None:
    """As `cut_json`, of what follows [TOOL_CALLS]."""
    if text.lstrip()[:1] in ("[", "{", ""):
        return cut_json(text, names)
    calls, rest = _named(text)
    head, begun, arguments = rest.partition(_ARGUMENTS)
    if begun:
        calls.append(ToolCall(_name_in(head), arguments.strip()))
    elif not any(f"{name}[".startswith(rest.strip()[: len(name) + 1]) for name in names):
        return None
    return calls if all(call.name in names for call in calls) else None


def cut_json(text: str, names: Collection[str]) -> list[ToolCall] | None:
    """Calls of an answer that was cut off, the last with its arguments as far as they were written.

    None: no call of one of these functions can begin so.
    """
    calls: list[ToolCall] = []
    rest = text.lstrip()
    if rest.startswith("["):
        rest = rest[1:]
        while (found := _first_value(rest))[1]:
            calls += of_json(found[0])
            rest = rest[found[1] :].lstrip().removeprefix(",")
    begun = _NAME_SO_FAR.match(rest)
    if begun is not None:
        name = parsed(begun[1])
        arguments = _ARGUMENTS_SO_FAR.match(rest, begun.end())
        value, _ = _first_value(arguments[1]) if arguments is not None else (None, 0)
        written = "" if arguments is None else arguments[1]
        calls.append(ToolCall(str(name), written if value is None else _compact(value)))
    else:
        squeezed = "".join(rest.split())
        if not any(f'{{"name":"{name}"'.startswith(squeezed) for name in names):
            return None
    return calls if all(call.name in names for call in calls) else None
