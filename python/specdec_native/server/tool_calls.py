"""Calls of functions, found in the text of models that were shown tools."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import call_forms
from .call_forms import BEGIN, END, MISTRAL, PYTHON_TAG, ToolCall

__all__ = ["ToolCall", "ToolCallReader", "call_begins"]


def call_begins(template: str) -> str:
    """What a model of this template writes before the JSON of a call."""
    if MISTRAL in template:
        return MISTRAL
    return f"{BEGIN}\n" if BEGIN in template else ""


class ToolCallReader:
    """Takes text apart as it arrives. What turns out not to be a call is text again.

    Args:
        names: of the functions that the model was shown; others are no calls.
        template: source of the chat template, which tells the form.
        schemas: of the functions' parameters; a parameter of type string stays text.
        most: calls of the answer; further ones are left out. None: all.
        required: the answer was held to be a call, and nothing of it is text.
        hidden: marks that are control tokens; they are never text.
    """

    def __init__(
        self,
        names: Sequence[str],
        template: str,
        schemas: Mapping[str, Any] | None = None,
        most: int | None = None,
        *,
        required: bool = False,
        hidden: Collection[str] = (),
    ) -> None:
        self._names = frozenset(names)
        self._schemas = schemas or {}
        self._left = most
        self._required = required
        self._hidden = hidden
        self._mistral = MISTRAL in template
        self._markers = (MISTRAL,) if self._mistral else (BEGIN, PYTHON_TAG)
        self._held = ""  # may begin a call
        self._started = False  # text that is no call was given out
        self._behind_call = False  # space between calls is nobody's
        self.ends_in_call = False  # the answer was cut off within one

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
            out += self._give(at)
            if marker != BEGIN:
                break  # none yet, or one that ends with the answer
            end = call_forms.end_of_call(self._held[len(BEGIN) :])
            if end < 0:
                break
            more, found = self._take_tagged(len(BEGIN) + end)
            out += more
            calls += found
        return self._text(out), calls

    def finish(self, *, cut: bool = False) -> tuple[str, list[ToolCall]]:
        """What is left when the answer has ended; `cut`: before the model had."""
        out = ""
        calls: list[ToolCall] = []
        while self._held:
            found, self.ends_in_call = self._at_end(self._held.strip(), cut)
            if found is not None:
                calls += self._take(found)
                self._held = ""
                break
            begin, end = self._held.find(BEGIN), self._held.find(END)
            if begin > 0:
                out += self._give(begin)  # behind a quote that was never closed
            elif begin < 0 or end < 0:
                out += self._give(len(self._held))
                break
            # So was one in the call, or a parameter: its end is the next after all.
            first = ("", []) if begin > 0 else self._take_tagged(end)
            for text, more in (first, self.feed("")):
                out += text
                calls += more
        return self._text(out), calls

    def _text(self, given: str) -> str:
        for mark in self._hidden:
            given = given.replace(mark, "")
        return "" if self._required else given

    def _take_tagged(self, end: int) -> tuple[str, list[ToolCall]]:
        """What is held up to the end tag at `end`: calls, or text."""
        whole = end + len(END)
        found = call_forms.in_tags(self._held[len(BEGIN) : end], self._schemas)
        found = [call for call in found if call.name in self._names]
        if not found:
            return self._give(whole), []
        self._started = True
        self._held = self._held[whole:]
        self._behind_call = True
        return "", self._take(found)

    def _at_end(self, text: str, cut: bool) -> tuple[list[ToolCall] | None, bool]:
        """Calls that end with the answer, and whether the last is cut off; None: it is text."""
        names = self._names
        begun: list[ToolCall] | None
        if text.startswith(MISTRAL):
            text = text[len(MISTRAL) :]
            found = call_forms.of_mistral(text)
            begun = call_forms.cut_mistral(text, names)
        elif text.startswith(BEGIN):
            text = text[len(BEGIN) :]
            is_whole = call_forms.is_whole(text)
            found = call_forms.in_tags(text, self._schemas) if is_whole else []
            begun = call_forms.cut_in_tags(text, names, self._schemas)
        else:
            bare = text.removeprefix(PYTHON_TAG)
            found = call_forms.of_json(call_forms.parsed(bare))
            begun = call_forms.cut_json(bare, names)
            if not begun and not self._required:
                begun = None  # without a tag before it, "{" is text
        if found and all(call.name in names for call in found):
            return found, False
        return (begun, True) if cut and begun is not None else (None, False)

    def _take(self, calls: list[ToolCall]) -> list[ToolCall]:
        if self._mistral:
            calls = [replace(call, id=call_forms.mistral_id(call.id)) for call in calls]
        if self._left is None:
            return calls
        taken = calls[: self._left]
        self._left -= len(taken)
        return taken

    def _give(self, size: int) -> str:
        text, self._held = self._held[:size], self._held[size:]
        self._started = self._started or bool(text.strip())
        return text

    def _find_marker(self) -> tuple[int, str | None]:
        """Where the first marker is, or how much of the text cannot belong to one."""
        may_be_call = (
            not self._started and not self._mistral and self._held.lstrip()[:1] in ("", "{", "[")
        )
        find = call_forms.find_outside if may_be_call else _find
        found = [(find(marker, self._held), marker) for marker in self._markers]
        found = [(at, marker) for at, marker in found if at >= 0]
        if found:
            return min(found)
        if may_be_call:
            return 0, None  # the answer as a whole
        for size in range(min(len(self._held), max(map(len, self._markers))), 0, -1):
            if any(marker.startswith(self._held[-size:]) for marker in self._markers):
                return len(self._held) - size, None
        return len(self._held), None


def _find(mark: str, text: str) -> int:
    return text.find(mark)
