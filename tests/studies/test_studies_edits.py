"""The study `edits`: the sessions it makes, and what it tells of them."""

from __future__ import annotations

import ast
import json

import pytest
from test_studies import row

import specdec_native as sd
from specdec_native.studies import command, edit_sessions, edits
from specdec_native.studies.edit_sessions import EDITS, Source, session_of
from specdec_native.studies.figures import tidy

pytest.importorskip("pandas")
pytest.importorskip("matplotlib")
pytest.importorskip("rich")

TEXT = '''def area(width, height=2):
    """Of a rectangle,
    or of a square."""
    result = width * height
    return result + 10
'''


class Always:
    """Takes the first of everything."""

    def choice(self, items):
        return items[0]

    def randint(self, low, high):
        return low


@pytest.mark.parametrize(
    "kind,order,old,new",
    [
        ("rename", "Rename the variable `width` to `width_value` everywhere.", "width",
         "width_value"),
        ("docstring", 'Replace the docstring of the function `area` by `"""Compute area."""`.',
         '"""Of a rectangle,\n    or of a square."""', '"""Compute area."""'),
        ("hint", "Add the type hint `int` to the argument `width`.", "(width,", "(width: int,"),
        ("constant", "Change the constant 2 in line 1 to 3.", "height=2", "height=3"),
        ("log", 'Insert `print("area:", width)` as the first statement of the function `area`.',
         "    result =", '    print("area:", width)\n    result ='),
    ],
)  # fmt: skip
def test_an_edit_does_what_it_says_and_nothing_else(kind, order, old, new):
    edit = EDITS[kind](TEXT, Always())
    assert (edit.kind, edit.order) == (kind, order)
    assert edit.text == TEXT.replace(old, new)


def test_a_docstring_goes_above_decorated_and_plain_statements():
    text = "def f(a):\n    @a\n    def g():\n        pass\n    return g\n"
    assert EDITS["docstring"](text, Always()).text.splitlines()[1] == '    """Compute f."""'
    assert EDITS["log"](text, Always()).text.splitlines()[1] == '    print("f:", a)'
    assert EDITS["docstring"]("def f(): return 1\n", Always()) is None


def test_sessions_follow_from_the_seed_and_stay_python():
    sources = edit_sessions.standard_library()
    assert len(sources) > 50
    assert len({source.name for source in sources}) == len(sources)
    first = list(edit_sessions.sessions(sources, 3, 7))
    assert first == list(edit_sessions.sessions(sources, 3, 7))
    assert first != list(edit_sessions.sessions(sources, 3, 8))
    assert {edit.kind for session in first for edit in session.edits} == set(EDITS)
    for session in first:
        before = session.source.text
        for edit in session.edits:
            ast.parse(edit.text)
            assert edit.text != before
            before = edit.text


def test_the_file_is_given_once_and_asked_for_in_every_turn():
    session = session_of(Source("shape", "stdlib", TEXT), 3, 1)
    chat, raw = session.chat_turns(), session.raw_turns()
    assert [TEXT in turn for turn in chat] == [TEXT in turn for turn in raw] == [True, False, False]
    assert all("Give the whole file back" in turn for turn in chat)
    assert all(edit.order in turn for edit, turn in zip(session.edits, chat, strict=True))
    assert all(turn.endswith(f"{e.heading}:\n") for e, turn in zip(session.edits, raw, strict=True))


def test_a_session_runs_turn_after_turn_over_one_context(tmp_path):
    solution = TEXT.partition("    result")
    path = tmp_path / "h.jsonl"
    entry = {"task_id": "HumanEval/3", "prompt": solution[0],
             "canonical_solution": "".join(solution[1:])}  # fmt: skip
    path.write_text(json.dumps(entry) + "\n")
    arguments = ["edits", "-m", "pycode", "-md", "pycode-draft", "--out", str(tmp_path / "out")]
    arguments += ["--humaneval", str(path), "--limit", "1", "--rounds", "1", "--turns", "2", "-q"]
    arguments += ["--methods", "suffix,suffix-keep"]
    assert command.main(arguments) == 0
    lines = (tmp_path / "out" / "rows.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert {r["category"] for r in rows} == {"stdlib", "humaneval"}
    assert {(r["task"], r["turn"]) for r in rows if r["category"] == "humaneval"} == {
        ("humaneval/humaneval_3", 0), ("humaneval/humaneval_3", 1),
    }  # fmt: skip
    assert all(r["identical"] is True for r in rows if r["method"] != "plain")
    for r in rows:
        assert len(r["edits"].split(", ")) == 2
        if r["turn"] == 1:
            assert r["reused_prompt_tokens"] > 20
            (first,) = [
                o for o in rows
                if (o["block"], o["method"], o["turn"]) == (r["block"], r["method"], 0)
            ]  # fmt: skip
            assert r["prompt_tokens"] > first["prompt_tokens"] + first["emitted"]
    page = (tmp_path / "out" / "report.md").read_text()
    assert "Speed-up in turn 1 and later: suffix " in page
    assert "| suffix-keep | 2 and later | 2 |" in page


def test_what_does_not_fit_is_said(tmp_path):
    with pytest.raises(sd.InvalidArgumentError, match=r"no file of stdlib is small enough for 40"):
        study_edits(tmp_path, "--turns", "40")
    with pytest.raises(sd.InvalidArgumentError, match="--turns must be at least 1, not 0"):
        study_edits(tmp_path, "--turns", "0")
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"task_id": "a", "prompt": "x", "canonical_solution": "y"}\n')
    with pytest.raises(sd.InvalidArgumentError, match="holds no function with a solution"):
        study_edits(tmp_path, "--humaneval", str(bad))


def test_a_solution_that_is_there_twice_is_refused(tmp_path):
    entry = {"task_id": "HumanEval/3", "prompt": TEXT, "canonical_solution": ""}
    path = tmp_path / "h.jsonl"
    path.write_text((json.dumps(entry) + "\n") * 2)
    with pytest.raises(sd.InvalidArgumentError, match="line 2: there is a humaneval_3 already"):
        edit_sessions.humaneval_solutions(path)


def test_a_form_feed_is_no_end_of_a_line():
    """Sources of the standard library have some, and `ast` does not count them."""
    function = "def f(x):\n    y = 'a\fb'\n    return 10\n"
    module = f"import os\n\f\n{function}"
    assert edit_sessions._segment(module, ast.parse(module).body[1]) == function
    edit = edit_sessions._constant(function, Always())
    assert edit.text == function.replace("10", "11")
    replaced = edit_sessions._docstring("def f(x):\n    'a\fb'\n    return x\n", Always())
    assert replaced.text == 'def f(x):\n    """Compute f."""\n    return x\n'


def study_edits(folder, *more):
    return command.main(["edits", "-m", "pycode", "--out", str(folder / "out"), "-q", *more])


def test_turns_are_told_apart():
    rows = []
    for turn, speeds in ((0, (10, 20)), (1, (10, 80)), (2, (10, 20))):
        for method, speed in zip(("plain", "suffix"), speeds, strict=True):
            rows.append({**row("a", method, speed), "turn": turn})
    rows = tidy(rows)
    assert edits.across_turns(rows) == "**Speed-up in turn 1 and later: suffix 2.00 and 4.00.**"
    table = edits.turns_table(rows, "s")
    assert [line[:4] for line in table.rows] == [
        ["plain", "1", "1", "1"], ["plain", "2 and later", "2", "1"],
        ["suffix", "1", "1", "2.00 (2.00-2.00)"],
        ["suffix", "2 and later", "2", "4.00 (2.00-8.00)"],
    ]  # fmt: skip
