"""What transformers renders, for comparison: its own environment with a clock that stands still."""

from __future__ import annotations

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

utils = pytest.importorskip(
    "transformers.utils.chat_template_utils", reason="transformers is not installed"
)

NOW = datetime.datetime(2025, 3, 9, 4, 5, 6)
TIMESTAMP = int(NOW.timestamp())
REASONING = ("reasoning_content", "thinking", "reasoning")


class _Clock(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
        return NOW


@functools.lru_cache(maxsize=4096)
def compiled(source: str) -> Any:
    template = utils._compile_jinja_template(source)
    for scope in (template.globals, template.environment.globals):
        if "strftime_now" in scope:
            scope["strftime_now"] = NOW.strftime
    return template


def normalized(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages as the newest transformers hands them to templates."""
    result = []
    for given in messages:
        message = {key: value for key, value in given.items() if value is not None}
        reasoning = next((message[key] for key in REASONING if key in message), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        result.append(message)
    return result


def render(source: str, variables: Mapping[str, Any]) -> str:
    """A template with variables. Raises whatever jinja2 raises."""
    return str(compiled(source).render(**json.loads(json.dumps(variables))))


def render_chat(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    **variables: Any,
) -> str:
    return render(
        source,
        {
            "messages": normalized(messages),
            "tools": tools,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
            **variables,
        },
    )
