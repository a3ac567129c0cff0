"""From chat messages to pieces of prompt, so that message text cannot forge control tokens.

In the text that reaches the template, the first character of every control token spelled out by
a message is replaced by a character that occurs nowhere in it. After rendering it is put back, and
the control tokens it belongs to become pieces of plain text; those that the template wrote are
recognised.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _sandbox
from ._sandbox import DISGUISES
from .errors import InvalidArgumentError, TemplateError, UnsupportedModelError

_ROLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_MAX_DEPTH = 64

Piece = tuple[str, bool]
"""Text, and whether control tokens are recognised in it."""


class ControlTokens:
    """The spellings of a vocabulary's control tokens."""

    def __init__(self, spellings: Sequence[str]) -> None:
        longest_first = sorted({s for s in spellings if s}, key=lambda s: (-len(s), s))
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self.first_characters = frozenset(s[0] for s in longest_first)

    def find(self, text: str) -> list[str]:
        return self.pattern.findall(text)


def chat_pieces(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    control: ControlTokens,
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[Piece]:
    """Renders messages through a template. `variables` are trusted.

    Raises:
        InvalidArgumentError: messages that are not a list of role and content.
        TemplateError: the template is wrong, refuses the messages or exceeds its limits.
    """
    conversation = {"messages": _messages(messages), "tools": _plain(tools, "tools", 0)}
    texts: list[str] = [template]

    def note(text: str) -> str:
        texts.append(text)
        return text

    _map_text(conversation, note)
    disguise = _disguises(control.first_characters, "".join(texts))

    def rendered(change: Callable[[str], str]) -> str:
        return _sandbox.render(
            template,
            {
                **(variables or {}),
                **_map_text(conversation, change),
                "add_generation_prompt": add_generation_prompt,
            },
        )

    def hide_spelled(text: str) -> str:
        return control.pattern.sub(lambda m: disguise[m[0][0]] + m[0][1:], text)

    text = rendered(hide_spelled)
    if any(first in t for t in texts[1:] for first in control.first_characters):
        # A template that cuts or joins message text could still complete a control token from
        # parts. With every first character hidden that is impossible, so the two must agree.
        strict = rendered(lambda t: _replace(t, disguise))
        if control.find(text) != control.find(strict):
            text = strict
    return _split(text, disguise, control)


def template_variables(bos: str, eos: str, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """What templates may use besides the messages."""
    variables: dict[str, Any] = {"bos_token": bos, "eos_token": eos}
    for name, value in (extra or {}).items():
        if not isinstance(name, str) or name in ("messages", "tools", "add_generation_prompt"):
            raise InvalidArgumentError(f"template_args: {name!r} is not a name that can be set")
        variables[name] = _plain(value, f"template_args[{name!r}]", 0)
    return variables


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
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
        plain = _plain(dict(message), f"messages[{i}]", 0)
        if "content" not in message and "tool_calls" not in message:
            raise InvalidArgumentError(f"messages[{i}] has no 'content'")
        plain["content"] = _content(message.get("content"), i)
        result.append(plain)
    return result


def _content(content: Any, index: int) -> str | None:
    """Text; a list of text parts becomes one text."""
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise InvalidArgumentError(f"messages[{index}]['content'] must be a str")
    parts = []
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text":
            raise UnsupportedModelError(
                f"messages[{index}]['content'] has a part that is not text", reason="content"
            )
        if not isinstance(part.get("text"), str):
            raise InvalidArgumentError(f"messages[{index}]['content']: 'text' must be a str")
        parts.append(part["text"])
    return "".join(parts)


def _plain(value: Any, name: str, depth: int) -> Any:
    """A copy made of str, int, float, bool, None, list and dict only."""
    if depth > _MAX_DEPTH:
        raise InvalidArgumentError(f"{name} nests deeper than {_MAX_DEPTH}")
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise InvalidArgumentError(f"{name} has a key that is not a str")
        return {str(k): _plain(v, f"{name}[{k!r}]", depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v, f"{name}[{i}]", depth + 1) for i, v in enumerate(value)]
    raise InvalidArgumentError(f"{name} is a {type(value).__name__}, which a template cannot use")


def _map_text(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text changed, keys included; roles are words and stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_map_text(v, change) for v in value]
    if isinstance(value, dict):
        result = {}
        for key, item in value.items():
            new_key = key if key in ("messages", "tools") else change(key)
            result[new_key] = item if key == "role" else _map_text(item, change)
        return result
    return value


def _disguises(characters: frozenset[str], used: str) -> dict[str, str]:
    """A character for each that does not occur in `used`."""
    taken = set(used)
    free = (chr(code) for code in DISGUISES if chr(code) not in taken)
    try:
        return {character: next(free) for character in sorted(characters)}
    except StopIteration:
        raise TemplateError("the messages use every Egyptian hieroglyph") from None


def _replace(text: str, characters: Mapping[str, str]) -> str:
    for old, new in characters.items():
        text = text.replace(old, new)
    return text


def _split(text: str, disguise: Mapping[str, str], control: ControlTokens) -> list[Piece]:
    hidden = re.compile(f"[{''.join(disguise.values())}]") if disguise else re.compile("(?!)")
    positions = {match.start() for match in hidden.finditer(text)}
    if not positions:
        return [(text, True)]
    text = _replace(text, {d: c for c, d in disguise.items()})
    pieces: list[Piece] = []
    start = 0
    for match in control.pattern.finditer(text):
        if positions.isdisjoint(range(*match.span())):
            continue
        pieces.append((text[start : match.start()], True))
        pieces.append((match[0], False))
        start = match.end()
    pieces.append((text[start:], True))
    return [piece for piece in pieces if piece[0]]
