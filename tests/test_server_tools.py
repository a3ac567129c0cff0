"""Calls of functions in text, whole and as it arrives in any pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("specdec_native", reason="the package is not installed")
from specdec_native.server.tool_calls import ToolCallReader

HERMES = "... <tool_call> ..."
MISTRAL = "... [TOOL_CALLS] ..."
LLAMA = "... python_tag ..."
WEATHER = '{"name": "weather", "arguments": {"city": "Zürich"}}'

CASES = [
    (HERMES, f"<tool_call>\n{WEATHER}\n</tool_call>", "", [("weather", {"city": "Zürich"})]),
    (
        HERMES,
        f"Let me see.\n<tool_call>\n{WEATHER}\n</tool_call>\n<tool_call>\n"
        '{"name": "time", "arguments": {}}\n</tool_call>',
        "Let me see.\n",
        [("weather", {"city": "Zürich"}), ("time", {})],
    ),
    (HERMES, f"<tool_call>{WEATHER}", "", [("weather", {"city": "Zürich"})]),
    (
        HERMES,
        "<tool_call>\n<function=weather>\n<parameter=city>\nZürich\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>",
        "",
        [("weather", {"city": "Zürich", "days": 3})],
    ),
    (MISTRAL, f"[TOOL_CALLS][{WEATHER}]", "", [("weather", {"city": "Zürich"})]),
    (MISTRAL, '[TOOL_CALLS]time[ARGS]{"zone": "UTC"}', "", [("time", {"zone": "UTC"})]),
    (LLAMA, '{"name": "time", "parameters": {"zone": 1}}', "", [("time", {"zone": 1})]),
    (LLAMA, f"<|python_tag|>{WEATHER}", "", [("weather", {"city": "Zürich"})]),
    # None of these is a call: the text stays as it was.
    (HERMES, "a < b and <tool> c", "a < b and <tool> c", []),
    (HERMES, "<tool_call>\n{broken\n</tool_call> and on", None, []),
    (HERMES, "<tool_call>", "<tool_call>", []),
    (HERMES, '<tool_call>{"name": "delete_all", "arguments": {}}</tool_call>', None, []),
    (LLAMA, '{"answer": 42}', '{"answer": 42}', []),
    (LLAMA, "[1, 2, 3]", "[1, 2, 3]", []),
    (LLAMA, '{"name": "weather", "arguments": 3}', '{"name": "weather", "arguments": 3}', []),
    (MISTRAL, '{"name": "time", "arguments": {}} is a call', None, []),
]


def read(template, pieces):
    reader = ToolCallReader(["weather", "time"], template)
    text, calls = "", []
    for piece in pieces:
        more, found = reader.feed(piece)
        text += more
        calls += found
    more, found = reader.finish()
    return text + more, [(c.name, json.loads(c.arguments)) for c in [*calls, *found]]


@pytest.mark.parametrize(("template", "answer", "text", "calls"), CASES)
def test_calls_are_found(template, answer, text, calls):
    expected = (answer if text is None else text, calls)
    assert read(template, [answer]) == expected
    assert read(template, list(answer)) == expected


@given(st.lists(st.sampled_from([*"{}[]<>\n ab", "<tool_call>", "</tool_call>", WEATHER])))
def test_pieces_do_not_change_what_is_found(pieces):
    assert read(HERMES, pieces) == read(HERMES, ["".join(pieces)])


@given(st.text(alphabet="ab<tol_c>{}[] \n"))
def test_text_without_calls_is_not_changed(text):
    assert read(HERMES, list(text)) == (text, [])


CODER = "<tool_call><function=time><parameter=zone>\n%s\n</parameter></function></tool_call>"


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ("007", "string", "007"),
        ("12", "string", "12"),
        ("null", "string", "null"),
        ('{"a": 1}', "string", '{"a": 1}'),
        ("12", "integer", 12),
        ("null", "integer", None),
        ('{"a": 1}', "object", {"a": 1}),
        ("12", ["string", "null"], 12),
        ("12", None, 12),
    ],
)
def test_parameters_are_of_the_types_that_the_function_has(value, kind, expected):
    schema = {"type": "object", "properties": {"zone": {"type": kind}}}
    for schemas in ({"time": schema}, {"time": None} if kind is None else {"time": schema}):
        reader = ToolCallReader(["time"], HERMES, schemas)
        _, calls = reader.feed(CODER % value)
        assert [json.loads(call.arguments) for call in calls] == [{"zone": expected}]


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        (HERMES, f"a <tool_call>{WEATHER}</tool_call>\n<tool_call>{WEATHER}</tool_call>"),
        (HERMES, f"a <tool_call>{WEATHER}</tool_call>\n<tool_call>{WEATHER}"),
        (MISTRAL, f"[TOOL_CALLS][{WEATHER}, {WEATHER}]"),
        (LLAMA, f"[{WEATHER}, {WEATHER}]"),
    ],
)
def test_one_call_can_be_the_most(template, answer):
    for most, n in ((None, 2), (1, 1)):
        reader = ToolCallReader(["weather"], template, most=most)
        text, calls = reader.feed(answer)
        rest, more = reader.finish()
        assert len(calls + more) == n
        assert (text + rest).strip() in ("a", "")
