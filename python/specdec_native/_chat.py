"""Checks of conversations, and their way to the native code as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from .errors import InvalidArgumentError, UnsupportedModelError

_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
MAX_DEPTH = 64
_FIXED = ("messages", "tools", "add_generation_prompt")


def messages_json(messages: Sequence[Mapping[str, Any]]) -> bytes:
    """Raises InvalidArgumentError for what is not a list of role and content."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise InvalidArgumentError("messages must be a list of {'role': ..., 'content': ...}")
    if not messages:
        raise InvalidArgumentError("messages is empty: give at least one message")
    result = []
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InvalidArgumentError(f"messages[{i}] must be a dict with 'role' and 'content'")
        role = message.get("role")
        if not isinstance(role, str) or not _ROLE.fullmatch(role):
            raise InvalidArgumentError(f"messages[{i}]['role'] must be a word such as 'user'")
        if "content" not in message and "tool_calls" not in message:
            raise InvalidArgumentError(f"messages[{i}] has no 'content'")
        _check_content(message.get("content"), i)
        result.append(_plain(dict(message), f"messages[{i}]", 0))
    return _json(result)


def tools_json(tools: Sequence[Mapping[str, Any]] | None) -> bytes:
    """Empty for none."""
    if tools is None:
        return b""
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise InvalidArgumentError("tools must be a list of dicts that describe functions")
    return _json(_plain(list(tools), "tools", 0))


def arguments_json(arguments: Mapping[str, Any] | None) -> bytes:
    """Further variables of a template; empty for none."""
    if not arguments:
        return b""
    variables: dict[str, Any] = {}
    for name, value in arguments.items():
        if not isinstance(name, str) or name in _FIXED:
            raise InvalidArgumentError(f"template_args: {name!r} is not a name that can be set")
        variables[name] = _plain(value, f"template_args[{name!r}]", 0)
    return _json(variables)


def _json(value: Any) -> bytes:
    # NaN, infinities and lone surrogates are understood on the other side.
    return json.dumps(value, separators=(",", ":")).encode()


def _check_content(content: Any, index: int) -> None:
    """Text, or a list of text parts."""
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidArgumentError(f"messages[{index}]['content'] must be a str")
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise UnsupportedModelError(
                f"messages[{index}]['content'] has a part that is not text", reason="content"
            )
        if not isinstance(part.get("text"), str):
            raise InvalidArgumentError(f"messages[{index}]['content']: 'text' must be a str")


def _plain(value: Any, name: str, depth: int) -> Any:
    """A copy made of str, int, float, bool, None, list and dict only."""
    if depth > MAX_DEPTH:
        raise InvalidArgumentError(f"{name} nests deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise InvalidArgumentError(f"{name} is {value}, which does not fit into 64 bits")
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InvalidArgumentError(f"{name} has a key that is not a str")
        return {str(k): _plain(v, f"{name}[{k!r}]", depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(value)]
    raise InvalidArgumentError(f"{name} is a {type(value).__name__}, which a template cannot use")
