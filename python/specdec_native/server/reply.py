"""What a model's text says: thoughts, answer, calls of functions. Read as it arrives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from ..results import GenerationResult
from .marks import MarkedText
from .reasoning import ThoughtReader
from .tool_calls import ToolCall, ToolCallReader


def ending(result: GenerationResult) -> str:
    """OpenAI's word for the end of a text. It has none for a server that closes; "length" at least
    says that the text was cut off."""
    return "stop" if result.finish_reason == "stop" else "length"


@dataclass
class Said:
    """A part of a reply, or the whole."""

    reasoning: str = ""
    content: str = ""
    calls: list[ToolCall] = field(default_factory=list)

    def add(self, other: Said) -> None:
        self.reasoning += other.reasoning
        self.content += other.content
        self.calls += other.calls

    def deltas(self, n_calls: int) -> list[dict[str, Any]]:
        """As a stream tells it, behind so many calls."""
        found: list[dict[str, Any]] = []
        if self.reasoning:
            found.append({"reasoning_content": self.reasoning})
        if self.content:
            found.append({"content": self.content})
        calls = enumerate(self.calls, n_calls)
        return found + [{"tool_calls": [call.to_dict(index)]} for index, call in calls]

    def message(self, *, is_call: bool) -> dict[str, Any]:
        """As a whole answer has it. `is_call`: there can be no text."""
        content = None if not self.content and (self.calls or is_call) else self.content
        message: dict[str, Any] = {"role": "assistant", "content": content}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = [call.to_dict() for call in self.calls]
        return message


class ReplyReader:
    """Of one choice. `marks`: for those of calls that the text leaves out."""

    def __init__(
        self,
        thoughts: ThoughtReader | None,
        calls: ToolCallReader | None,
        marks: MarkedText | None = None,
    ) -> None:
        self._thoughts = thoughts
        self._calls = calls
        self._marks = marks
        self.n_calls = 0

    def feed(self, text: str, token_ids: Sequence[int] = ()) -> Said:
        """What is certain by now."""
        if self._marks is not None:
            text = self._marks.feed(text, token_ids)
        reasoning, text = ("", text) if self._thoughts is None else self._thoughts.feed(text)
        said = Said(reasoning, text)
        if self._calls is not None:
            said.content, said.calls = self._calls.feed(text)
        return self._counted(said)

    def finish(self, result: GenerationResult) -> Said:
        """What is left when the text has ended."""
        reasoning, text = ("", "") if self._thoughts is None else self._thoughts.finish()
        said = Said(reasoning, text)
        if self._calls is not None:
            said.content, said.calls = self._calls.feed(text)
            more, calls = self._calls.finish(cut=result.stop_reason != "eos")
            said.content += more
            said.calls += calls
        return self._counted(said)

    def _counted(self, said: Said) -> Said:
        self.n_calls += len(said.calls)
        return said

    def reason(self, result: GenerationResult) -> str:
        """OpenAI's word for the end; a call that was cut off is none that can be made."""
        if self.n_calls and not (self._calls is not None and self._calls.ends_in_call):
            return "tool_calls"
        return ending(result)
