"""Whole templates: the bytes of transformers, or refused as transformers refuses.

`python tests/core/test_chat_templates.py` prints the table of docs/chat_templates.md.
"""

from __future__ import annotations

import json
import pathlib
from collections import Counter
from typing import Any

import pytest

from helpers import models_dir, native

chat = native("chat_template")
reference = pytest.importorskip("chat_reference", reason="jinja2 is not installed")

OWN = pathlib.Path(__file__).parents[1] / "data" / "chat_templates"
PUBLIC = models_dir() / "templates"
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": 'Gets the "weather" <b>é</b>',
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": "where", "enum": ["a", "b"]},
                    "days": {"type": "integer", "description": "how many"},
                    "opt": {
                        "type": "array",
                        "description": "more",
                        "items": {"type": "number"},
                    },
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "Tells the time.",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def called(arguments: Any) -> list[dict[str, Any]]:
    function = {"name": "get_weather", "arguments": arguments}
    return [{"id": "call12345", "type": "function", "function": function}]


RESULT = {
    "role": "tool",
    "content": '{"t": 20}',
    "name": "get_weather",
    "tool_call_id": "call12345",
}
ARGUMENTS = {"city": "Paris", "days": 3, "f": 1.5, "n": None, "b": True, "l": [1, "x"]}
CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "user": [user("Hi")],
    "system": [system("Be brief."), user("Hi")],
    "turns": [user("Hi"), assistant("Hello!"), user("What is 2+2? <b> 'q' \"q\"")],
    "system turns": [system("Be  brief.\n"), user(" Hi "), assistant(" Hello!\n"), user("x\ny")],
    "unicode": [
        user("Grüße ß Σας 你好 🎉\u2028\u00a0 end"),
        assistant("ÀÉ\t"),
        user("\U0001f600"),
    ],
    "empty": [user(""), assistant(""), user("")],
    "tools": [user("weather?")],
    "tool call": [
        system("sys"),
        user("weather?"),
        assistant("", tool_calls=called(ARGUMENTS)),
        RESULT,
        assistant("It is 20."),
        user("thanks"),
    ],
    "tool call text": [
        user("weather?"),
        assistant(None, tool_calls=called('{"city": "Paris"}')),
        RESULT,
    ],
    "reasoning": [
        user("q"),
        assistant("answer", reasoning_content="let me think"),
        user("more"),
        assistant("<think>\nhm\n</think>\n\nfinal"),
    ],
    "parts": [user([{"type": "text", "text": "Hello "}, {"type": "text", "text": "world"}])],
    "system parts": [
        system([{"type": "text", "text": "sys"}]),
        user([{"type": "text", "text": "a"}]),
    ],
    "ends with assistant": [user("a"), assistant("b")],
    "two of the user": [user("a"), user("b")],
}
# Variables without which a template renders nothing.
NEEDS = {"firefunction": {"functions": "[]", "datetime": "now"}}
VARIANTS: tuple[dict[str, Any], ...] = ({}, {"enable_thinking": False, "reasoning_effort": "high"})


def paths() -> list[pathlib.Path]:
    return [*sorted(OWN.glob("*.jinja")), *sorted(PUBLIC.glob("*.jinja"))]


def compare(path: pathlib.Path) -> tuple[Counter[str], list[str]]:
    """How often what came out, and what was wrong."""
    source = path.read_bytes().decode("utf-8")
    counts: Counter[str] = Counter()
    wrong = []
    needs = {k: v for word, more in NEEDS.items() if word in path.stem for k, v in more.items()}
    for name, messages in CONVERSATIONS.items():
        tools = TOOLS if name.startswith("tool") or path.stem.endswith("tool_use") else None
        for variant in VARIANTS:
            extra = {**needs, **variant}
            for prompt in (True, False):
                want = error = got = refused = None
                try:
                    want = reference.render_chat(
                        source, messages, tools=tools, add_generation_prompt=prompt,
                        **TOKENS, **extra,
                    )  # fmt: skip
                except Exception as caught:
                    error = caught
                found: dict[str, Any] = {}
                try:
                    found = chat.render_chat(
                        source, json.dumps(messages), tools=json.dumps(tools) if tools else "",
                        arguments=json.dumps(extra), add_generation_prompt=prompt,
                        tokens=list(TOKENS.items()), now=reference.TIMESTAMP,
                    )  # fmt: skip
                    got = found["text"].decode("utf-8")
                except chat.NativeError as caught:
                    refused = caught
                if got is not None and got == want:
                    counts["identical"] += 1
                elif got is None and want is None:
                    counts["refused by both"] += 1
                    # The template's own words reach the user.
                    own = type(error).__name__ == "TemplateError"
                    if own != (refused.reason == "refused") or (
                        own and str(error)[:900] not in str(refused)
                    ):
                        wrong.append(f"{name}: {refused} / {error!r}")
                elif found.get("joined_parts"):
                    # Python's way of writing a list, or an error, is no prompt.
                    counts["parts joined"] += 1
                else:
                    counts["differs"] += 1
                    wrong.append(f"{name}: {got!r} {refused} / {want!r} {error!r}")
    return counts, wrong


@pytest.mark.parametrize("path", paths(), ids=lambda path: path.stem)
def test_a_template_writes_what_transformers_writes(path: pathlib.Path) -> None:
    counts, wrong = compare(path)
    assert wrong == []
    assert counts["identical"] >= 16
    assert sum(counts.values()) == len(CONVERSATIONS) * 4


def test_at_least_sixty_public_templates_are_compared() -> None:
    public = sorted(PUBLIC.glob("*.jinja"))
    if not public:
        pytest.skip(f"no templates in {PUBLIC}")
    assert len(public) >= 60


def test_long_conversations_with_tools_are_far_from_the_limits() -> None:
    messages = [system("s" * 2000)]
    for _ in range(100):
        messages += [user("word <b> " * 222), assistant("ünïcode " * 250)]
    tools = TOOLS * 20
    refused = []
    for path in paths():
        source = path.read_bytes().decode("utf-8")
        try:
            found = chat.render_chat(
                source, json.dumps(messages), tools=json.dumps(tools), tokens=list(TOKENS.items())
            )
        except chat.NativeError as error:
            refused.append((path.stem, error.reason))
            continue
        assert found["work"] < 100_000_000, path
        assert found["memory_bytes"] < 64 << 20, path
    assert "limit" not in {reason for _, reason in refused}
    assert len(refused) < len(paths()) / 4, refused


def table() -> str:
    lines = [
        "| template | identical | refused by both | parts joined | differs |",
        "|---|---|---|---|---|",
    ]
    for path in paths():
        counts, _ = compare(path)
        cells = [counts[k] for k in ("identical", "refused by both", "parts joined", "differs")]
        name = path.stem if path.parent == PUBLIC else f"{path.stem} (tests/data)"
        lines.append(f"| {name} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
