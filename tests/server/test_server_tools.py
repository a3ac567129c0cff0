"""Calls of functions in text, whole and as it arrives in any pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("specdec_native", reason="the package is not installed")
from specdec_native.server.reasoning import ThoughtReader
from specdec_native.server.tool_calls import ToolCallReader

HERMES = "... <tool_call> ..."
MISTRAL = "... [TOOL_CALLS] ..."
LLAMA = "... python_tag ..."
WEATHER = '{"name": "weather", "arguments": {"city": "Zürich"}}'
# Every mark that a form has.
MARKS = "</tool_call> <tool_call> [TOOL_CALLS] [ARGS] <|python_tag|> } ] ,"
MARKED = f'{{"name": "time", "arguments": {{"zone": "{MARKS}"}}}}'
CODER = "<tool_call><function=time><parameter=zone>\n%s\n</parameter></function></tool_call>"

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
    # Marks in an argument's text are a part of it.
    (HERMES, f"<tool_call>{MARKED}</tool_call> a", "a", [("time", {"zone": MARKS})]),
    (HERMES, f"<tool_call>{MARKED}</tool_call>\n" * 2, "", [("time", {"zone": MARKS})] * 2),
    (HERMES, f"a <tool_call>{MARKED}", "a ", [("time", {"zone": MARKS})]),
    (HERMES, CODER % MARKS + " a", "a", [("time", {"zone": MARKS})]),
    (HERMES, CODER % "</parameter> a", "", [("time", {"zone": "</parameter> a"})]),
    (
        MISTRAL,
        f"[TOOL_CALLS][{MARKED}, {WEATHER}]",
        "",
        [("time", {"zone": MARKS}), ("weather", {"city": "Zürich"})],
    ),
    (
        MISTRAL,
        f'[TOOL_CALLS]time[ARGS]{{"zone": "{MARKS}"}}[TOOL_CALLS]weather[CALL_ID]123[ARGS] '
        '{"city": "Zürich"}',
        "",
        [("time", {"zone": MARKS}), ("weather", {"city": "Zürich"})],
    ),
    (LLAMA, MARKED, "", [("time", {"zone": MARKS})]),
    (LLAMA, f"<|python_tag|>{MARKED}", "", [("time", {"zone": MARKS})]),
    # A quote or a parameter that is never closed does not swallow what follows.
    (
        HERMES,
        f'<tool_call>{{"name": "a\n</tool_call>.<tool_call>{WEATHER}</tool_call>',
        '<tool_call>{"name": "a\n</tool_call>.',
        [("weather", {"city": "Zürich"})],
    ),
    (HERMES, '<tool_call>{"name": "a</tool_call>.<tool_call>{}</tool_call>', None, []),
    (HERMES, f'["a <tool_call>{WEATHER}', '["a ', [("weather", {"city": "Zürich"})]),
    (
        HERMES,
        f"<tool_call><function=time><parameter=zone>a</function></tool_call>. "
        f"<tool_call>{WEATHER}</tool_call>",
        ". ",
        [("time", {}), ("weather", {"city": "Zürich"})],
    ),
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


PIECES = [*'{}[]<>\n ab"\\', "<tool_call>", "</tool_call>", "<|python_tag|>", "<function=time>"]
PIECES += [WEATHER, MARKED, "<parameter=zone>", "</parameter>", "</function>", '"a": "']


@given(st.lists(st.sampled_from(PIECES)))
def test_pieces_do_not_change_what_is_found(pieces):
    assert read(HERMES, pieces) == read(HERMES, ["".join(pieces)])


# Where each form is cut, and what the last call is then: name and arguments.
CUT = [
    (HERMES, "<tool_call>", []),
    (HERMES, '<tool_call>\n{"na', []),
    (HERMES, '<tool_call>\n{"name": "weath', []),
    (HERMES, '<tool_call>{"name": "weather"', [("weather", "")]),
    (HERMES, '<tool_call>{"name": "weather", "argum', [("weather", "")]),
    (
        HERMES,
        '<tool_call>{"name": "weather", "arguments": {"city": "Zü',
        [("weather", '{"city": "Zü')],
    ),
    (HERMES, f"<tool_call>{MARKED[:-9]}", [("time", MARKED[MARKED.rindex("{") : -9])]),
    (HERMES, f"<tool_call>{WEATHER[:-1]}", [("weather", '{"city": "Zürich"}')]),
    (
        HERMES,
        f"<tool_call>{WEATHER}</tool_call><tool_call>{WEATHER[:-2]}",
        [("weather", '{"city": "Zürich"}'), ("weather", '{"city": "Zürich"')],
    ),
    (HERMES, "<tool_call><functio", []),
    (HERMES, "<tool_call><function=time>", [("time", "{")]),
    (HERMES, "<tool_call><function=time><parameter=zone>U", [("time", "{")]),
    (
        HERMES,
        "<tool_call><function=time><parameter=zone>U</parameter>\n",
        [("time", '{"zone": "U"')],
    ),
    (MISTRAL, "[TOOL_CALLS]", []),
    (MISTRAL, '[TOOL_CALLS][{"name": "time", "arguments": {"zone', [("time", '{"zone')]),
    (
        MISTRAL,
        f'[TOOL_CALLS][{WEATHER}, {{"name": "time", "arguments": {{',
        [("weather", '{"city": "Zürich"}'), ("time", "{")],
    ),
    (MISTRAL, "[TOOL_CALLS]tim", []),
    (MISTRAL, '[TOOL_CALLS]time[ARGS]{"zone": "[ARGS]', [("time", '{"zone": "[ARGS]')]),
    (
        MISTRAL,
        '[TOOL_CALLS]time[ARGS]{}[TOOL_CALLS]weather[ARGS]{"c',
        [("time", "{}"), ("weather", '{"c')],
    ),
    (LLAMA, '<|python_tag|>{"name": "time", "parameters": {"zone": 1', [("time", '{"zone": 1')]),
    (
        LLAMA,
        '{"type": "function", "name": "time", "parameters": {"zone": 1',
        [("time", '{"zone": 1')],
    ),
]


@pytest.mark.parametrize(("template", "answer", "calls"), CUT)
def test_calls_that_are_cut_off_are_no_text(template, answer, calls):
    for pieces in ([answer], list(answer)):
        for required in (False, True):
            reader = ToolCallReader(["weather", "time"], template, required=required)
            told = [reader.feed(piece) for piece in pieces] + [reader.finish(cut=True)]
            found = [(c.name, c.arguments) for _, part in told for c in part]
            assert ("".join(text for text, _ in told), found) == ("", calls)
            assert reader.ends_in_call


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        *((HERMES, text) for text in ("<tool_call> is a tag", "<tool_call>{1", "a <tool", "{")),
        *((LLAMA, text) for text in ("{", '{"na', '{"name": "ti', "[", '{"answer": {', "")),
        *((MISTRAL, text) for text in ("[TOOL_CALLS] is a word", "[TOOL_CALLS]other[ARGS]{", "[")),
        (HERMES, '<tool_call>{"name": "other", "arguments": {'),
    ],
)
def test_text_that_is_cut_off_is_none_of_a_call(template, answer):
    reader = ToolCallReader(["weather", "time"], template)
    begun, found = reader.feed(answer)
    text, more = reader.finish(cut=True)
    assert (begun + text, found + more, reader.ends_in_call) == (answer, [], False)


@given(st.text(alphabet="ab<tol_c>{}[] \n"))
def test_text_without_calls_is_not_changed(text):
    assert read(HERMES, list(text)) == (text, [])


def thoughts(pieces, is_open=False):
    reader = ThoughtReader(is_open=is_open)
    told = [reader.feed(piece) for piece in pieces] + [reader.finish()]
    return tuple("".join(part) for part in zip(*told, strict=True))


@pytest.mark.parametrize(
    ("text", "is_open", "thought", "answer"),
    [
        ("<think>\na b\n</think>\n\nc d\n", False, "a b", "c d\n"),
        (" \n<think>a</think>", False, "a", ""),
        ("<think></think> c", False, "", "c"),
        ("<think>a </thinker> b", False, "a </thinker> b", ""),
        ("<think>a </thi", False, "a </thi", ""),
        ("a <think>b</think>", False, "", "a <think>b</think>"),
        (" c ", False, "", " c "),
        ("<thi", False, "", "<thi"),
        ("a\n</think>\nc", True, "a", "c"),
        ("a", True, "a", ""),
        ("<think>a</think>b</think>", False, "a", "b</think>"),
    ],
)
def test_thoughts_are_found(text, is_open, thought, answer):
    assert thoughts([text], is_open) == (thought, answer)
    assert thoughts(text, is_open) == (thought, answer)


@given(st.lists(st.sampled_from([*"a <>\n", "<think>", "</think>", "</"])), st.booleans())
def test_pieces_do_not_change_what_is_thought(pieces, is_open):
    assert thoughts(pieces, is_open) == thoughts(["".join(pieces)], is_open)


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
