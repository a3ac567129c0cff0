"""tools/campaign.py: the mutants it makes, the parts it knows, and the page of its results."""

from __future__ import annotations

import ast
import itertools
import json
import pathlib
import random
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import campaign  # noqa: E402
from campaign_pieces import (  # noqa: E402
    faults,
    forked_tests,
    fuzz,
    killed,
    mutants,
    mutator,
    soak,
    table,
)  # fmt: skip

SOURCE = b'''"""Text."""
Kind = Literal["a"]
LIMIT = 3


def f(a: int, b: str = "x") -> int | None:
    """Text."""
    if a < LIMIT and not b:
        raise ValueError(f"{a} is {b}")
    c = -1 if a is None else a + 1
    print(c)
    return c
'''


def made(source=SOURCE):
    return {(m.kind, m.old, m.new) for m in mutator.mutants(source)}


def test_each_kind_of_mutant_is_made():
    found = made()
    for wanted in (
        ("comparison", "a < LIMIT", "(a <= LIMIT)"),
        ("comparison", "a is None", "(a is not None)"),
        ("boolean", "a < LIMIT and not b", "(a < LIMIT or not b)"),
        ("boolean", "not b", "(b)"),
        ("condition", "a < LIMIT and not b", "(not (a < LIMIT and (not b)))"),
        ("constant", "3", "4"),
        ("constant", '"x"', "'x_'"),
        ("arithmetic", "a + 1", "(a - 1)"),
        ("arithmetic", "-1", "(1)"),
        ("return", "return c", "return None"),
        ("removed", "print(c)", "pass"),
        ("removed", 'raise ValueError(f"{a} is {b}")', "pass"),
    ):
        assert wanted in found, wanted


def test_what_never_runs_has_no_mutants():
    found = made()
    assert not [entry for entry in found if "Text" in entry[1] or "Literal" in entry[1]]
    assert not [entry for entry in found if entry[0] == "arithmetic" and "int" in entry[1]]
    assert ("constant", "None", "0") not in found  # of `is None`, which has its other comparison


def test_a_mutant_changes_one_place_and_can_be_compiled():
    for mutant in mutator.mutants(SOURCE):
        changed = mutant.apply(SOURCE)
        ast.parse(changed)
        assert changed != SOURCE
        assert changed.startswith(SOURCE[: mutant.start])
        assert changed.endswith(SOURCE[mutant.end :])
        assert SOURCE[mutant.start : mutant.end].decode() == mutant.old


def test_text_that_is_not_ascii_moves_no_mutant():
    source = "é = 'ä' + 'ö'\n".encode()
    assert ("constant", "'ö'", "'ö_'") in made(source)


def test_constants_become_others_that_can_be_noticed():
    assert made(b"f('utf-8')\n") >= {("constant", "'utf-8'", "'latin-1'")}
    assert made(b"f(1e9, 9)\n") >= {("constant", "1e9", "2000000000.0"), ("constant", "9", "10")}


def test_mutants_that_are_left_out_are_there_and_have_a_reason():
    known = json.loads(mutants.EQUIVALENT.read_text("utf-8"))
    for file, entries in known.items():
        keys = {m.key for m in mutator.mutants((ROOT / file).read_bytes())}
        for key, reason in entries.items():
            assert key in keys, f"{file}: no such mutant any more: {key}"
            assert len(reason) > 10


def test_files_of_mutants_and_their_tests_are_there():
    for file, tests in mutants.FILES.items():
        assert (ROOT / file).is_file(), file
        assert all((ROOT / test).is_file() for test in tests), tests


TRACED = {
    "": {"lines": {"f.py": [1]}, "seconds": 0, "passed": True},
    "slow": {"lines": {"f.py": [1, 5, 6]}, "seconds": 2, "passed": True},
    "quick": {"lines": {"f.py": [5]}, "seconds": 1, "passed": True},
    "other": {"lines": {"g.py": [5]}, "seconds": 1, "passed": True},
    "failed": {"lines": {"f.py": [5]}, "seconds": 1, "passed": False},
}


def test_tests_are_chosen_by_the_lines_that_they_run(monkeypatch):
    def chosen(first, last, killers=()):
        return mutants.tests_of(TRACED, "f.py", range(first, last), killers)

    assert chosen(5, 6) == ["quick", "slow"]
    assert chosen(6, 7) == ["slow"]
    assert chosen(1, 2) == ["quick", "slow"]  # of an import
    assert chosen(5, 6, ["other", "slow"]) == ["slow", "quick"]  # what killed before comes first
    monkeypatch.setitem(mutants.READERS, "f.py", ["other", "gone"])
    assert chosen(5, 6, ["slow"]) == ["other", "slow", "quick"]
    assert mutants.in_turn(["a[1]", "a[2]", "b", "a[3]", "b[x]"]) == [
        "a[1]", "b", "a[2]", "b[x]", "a[3]",
    ]  # fmt: skip


def test_quick_tests_come_first_and_long_ones_not_at_all():
    assert list(mutants.stages(TRACED, [])) == []
    many = [f"t{i:02}" for i in range(20)]
    traced = {name: {"seconds": 7.5} for name in many}
    assert list(mutants.stages(traced, many)) == [many[:15], many[15:17]]


FUNCTIONS = b"""
LIMIT = 3

class A:
    def f(self, a=1):
        def g(b):
            return a + b + 1
        return [g(x) for x in range(LIMIT)]
"""


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (b"a + b", b"a - b", [2, 1, 0]),
        (b"range(LIMIT)", b"range(2)", [2, 3]),
        (b"b + 1", b"b + 1\n\n", [2, 3, 4]),
        (b"a=1", b"a=2", None),  # importing runs these
        (b"LIMIT = 3", b"LIMIT = 2", None),
    ],
)
def test_functions_that_were_imported_get_changed_code(tmp_path, old, new, says):
    file = str(tmp_path / "m.py")
    space = {}
    exec(compile(FUNCTIONS, file, "exec"), space)
    thing = space["A"]()
    assert thing.f() == [2, 3, 4]
    changed = FUNCTIONS.replace(old, new)
    assert changed != FUNCTIONS
    assert forked_tests.changes_functions_only(FUNCTIONS, changed) is (says is not None)
    assert forked_tests.change_functions(file, FUNCTIONS, changed) is (says is not None)
    assert thing.f() == (says or [2, 3, 4])


def test_tests_run_again_and_again_with_one_file_changed(tmp_path):
    """In a process of its own, as it forks and keeps what it imports."""
    pytest.importorskip("coverage", reason="coverage is not installed")
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "thing.py").write_text("LIMIT = 3\n\ndef f():\n    return LIMIT\n")
    (tmp_path / "test_thing.py").write_text(
        "import subprocess, sys, thing\n"
        "def test_a(tmp_path):\n    assert thing.f() == 3\n"
        "def test_b():\n    assert thing.LIMIT == 3\n"
        "def test_c():\n    subprocess.run([sys.executable, '-c', 'import thing'], check=True)\n"
    )
    (tmp_path / "test_other.py").write_text("def test_d():\n    pass\n")
    script = f"""
import json, pathlib, sys
sys.path.insert(0, {str(ROOT / "tools")!r})
from campaign_pieces.forked_tests import TestProcesses
folder = pathlib.Path({str(tmp_path)!r})
file = folder / "python" / "thing.py"
before, after = folder / "before.py", folder / "after.py"
tests = ["test_thing.py", "test_other.py"]
with TestProcesses(folder, {{str(file): "thing.py"}}, tests) as processes:
    found = processes.trace(processes.tests)
    print(json.dumps({{test: entry["lines"].get("thing.py") for test, entry in found.items()}}))
    source = file.read_bytes()
    for old, new in ((b"", b""), (b"return LIMIT", b"return 4")):
        changed = source.replace(old, new)
        before.write_bytes(source), after.write_bytes(changed)
        print(processes.run(processes.tests, 60, str(file), (str(before), str(after))))
    text = source.decode()
    texts = [text.replace("return LIMIT", "return 5"), text, text.replace("= 3", "= 4")]
    a, b, c, d = processes.tests
    changes = [(text, [d, a, d, b]) for text in texts]  # of two files in turn
    print(processes.run_batch(str(file), str(before), changes, 60))
    endless = (text.replace("return LIMIT", "while True: pass"), processes.tests[:1])
    print(processes.run_batch(str(file), str(before), [*changes[:1], endless], 1))
    file.write_bytes(source.replace(b"= 3", b"= 4"))
    print(processes.run(processes.tests, 60))
    print(processes.run_anew(processes.tests[1:], 60))
    file.write_bytes(source.replace(b"return LIMIT", b"while True: pass"))
    print(processes.run_anew(processes.tests[:1], 1))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    lines, *results = done.stdout.splitlines()
    assert json.loads(lines) == {
        "": [1, 3],
        "test_thing.py::test_a": [4],
        "test_thing.py::test_b": None,
        "test_thing.py::test_c": [1, 3],  # of the process that it starts
        "test_other.py::test_d": None,
    }
    assert results == [
        "Result(code=0, killer='')",
        "Result(code=1, killer='test_thing.py::test_a')",
        "['test_thing.py::test_a', '', '']",
        "['test_thing.py::test_a']",
        "Result(code=0, killer='')",  # importing is done
        "Result(code=1, killer='test_thing.py::test_b')",
        "Result(code=None, killer='')",
    ]


WRITE = """
import os, sys, time
with open("out.partial", "wb") as f:
    for _ in range(20):
        f.write(b"x" * 100)
        f.flush()
        time.sleep(0.005)
os.replace("out.partial", "out")
"""


@pytest.mark.parametrize("replaces", [True, False])
def test_a_writer_that_is_killed_in_the_middle_is_found_out(tmp_path, replaces):
    script = WRITE if replaces else WRITE.replace('"out.partial", "wb"', '"out", "wb"')
    script = script if replaces else script.replace("os.replace", "max")
    command = [sys.executable, "-c", script]
    before = [sys.executable, "-c", "open('out', 'w').write('old')"]
    writer = killed.Writer("writer", command, ["out"], ("out.partial",), before=before)
    trial = killed.Trial(writer, tmp_path / "w", random.Random(1))
    for _ in range(6):
        trial.once(1)  # after its first change
    assert trial.outcome.n_killed > 0
    assert bool(trial.outcome.findings) is not replaces
    if not replaces:
        assert "neither the old nor the new file" in trial.outcome.findings[0]


def test_memory_that_grows_is_found_out():
    flat = soak.Outcome("flat", rss=[50 + 10 * (i > 5) for i in range(40)])
    grows = soak.Outcome("grows", rss=[100 + i for i in range(40)])
    for outcome in (flat, grows):
        outcome.judge()
    assert not flat.findings
    assert "memory grew to 1.17 times" in grows.findings[0]


def test_a_time_in_which_the_soak_was_stopped_is_no_time_of_it(monkeypatch):
    now = 100.0
    monkeypatch.setattr(soak.time, "monotonic", lambda: now)
    pauses = soak.Pauses()
    for now in (100.5, 101.0, 221.0, 221.5):
        pauses.note(now)
    assert pauses.n_seen == 1
    assert pauses.clock() == 101.5


class Rounds:
    """Stands for a served model, a library and a clock that gains a minute with every round."""

    def __init__(self, monkeypatch):
        self.n, self.said = 0, []
        self.outcomes = (soak.Outcome("server"), soak.Outcome("library"))
        monkeypatch.setattr(soak, "_serve", self._serve)

    def _serve(self, served, outcome, seed, pauses):
        self.n += 1
        outcome.rss.append(seed)

    def clock(self):
        return 60.0 * self.n

    def round(self):
        return {"calls": 40 * self.n, "rss": 9, "wrong": ""}

    def run(self, seconds):
        seeds = itertools.count(7)
        soak._rounds(None, self, self.outcomes, self, seconds, seeds, self.said.append)


def test_a_soak_lasts_as_long_as_wanted_by_the_clock_without_pauses(monkeypatch):
    rounds = Rounds(monkeypatch)
    rounds.run(25 * 60)
    server, library = rounds.outcomes
    assert server.rss == list(range(7, 32))
    assert (library.n_requests, len(library.rss)) == (1000, 25)
    assert server.hours == pytest.approx(25 / 60)
    assert rounds.said[1] == "round 21: server [27], library [9], 21 minutes"


def test_a_soak_that_is_interrupted_tells_what_was_seen(monkeypatch):
    pytest.importorskip("gguf", reason="gguf is not installed")
    monkeypatch.setattr(soak, "_rounds", interrupt_after_one)
    server, library = soak.run(1.0)
    assert (server.n_requests, library.n_requests) == (40, 0)


def interrupt_after_one(served, calls, outcomes, *more):
    outcomes[0].n_requests = 40
    raise KeyboardInterrupt


@pytest.mark.parametrize("stopped", [True, False])
def test_a_connection_that_broke_is_a_finding_unless_all_was_stopped(monkeypatch, stopped):
    httpx = pytest.importorskip("httpx", reason="httpx is not installed")
    pauses, outcome = soak.Pauses(), soak.Outcome("server")

    def breaks(url, seed):
        pauses.n_seen += stopped
        raise httpx.ReadTimeout("slow")

    class Served:
        url = "http://127.0.0.1:1"
        process = type("Process", (), {"poll": lambda self: None})()
        read_log = staticmethod(lambda: "")
        rss = staticmethod(lambda: 7)

    monkeypatch.setattr(soak, "_server_round", breaks)
    monkeypatch.setattr(soak, "_wait_until_idle", lambda url: None)
    monkeypatch.setattr(soak.time, "sleep", lambda seconds: None)
    soak._serve(Served(), outcome, 1, pauses)
    assert outcome.findings == ([] if stopped else ["ReadTimeout: slow"])
    assert (outcome.n_paused, outcome.n_requests, outcome.rss) == (stopped, 0, [7])


def test_what_the_faults_tests_print_is_counted():
    output = '.{"read error 3": 4, "read short 0": 2}\nx\n{"read error 3": 1, "read error -6": 1}\n'
    assert faults.count(output) == {"read error": {"3": 5, "-6": 1}, "read short": {"0": 2}}


def test_every_fuzz_target_is_known_everywhere():
    cmake = (ROOT / "tests/fuzz/CMakeLists.txt").read_text("utf-8")
    listed = re.search(r"foreach\(target (.*)\)", cmake)[1].split()
    assert listed == list(fuzz.NATIVE)
    assert {path.stem for path in (ROOT / "tests/fuzz").glob("*.cc")} == set(fuzz.NATIVE)
    source = (ROOT / "tests/fuzz/python_targets.py").read_text("utf-8")
    assert all(f'"{name}": {name},' in source for name in fuzz.PYTHON)
    assert set(fuzz.LONGEST) == {*fuzz.NATIVE, *fuzz.PYTHON}
    for target in ("template", "grammar", "server", "tokenizer_json", "load"):
        assert len(fuzz.dictionary(target)) > 4, target


def test_pieces_are_chosen_by_name():
    assert list(campaign.chosen([])) == list(campaign.PIECES)
    assert campaign.chosen(["soak", "fuzz:server", "fuzz:load"]) == {
        "soak": [],
        "fuzz": ["load", "server"],
    }
    assert campaign.chosen(["mutants"])["mutants"][:2] == ["decoder", "options"]
    with pytest.raises(ValueError, match="no piece is called soap: there are fuzz, faults"):
        campaign.chosen(["soap"])
    with pytest.raises(ValueError, match="no part of killed is called x: there are convert"):
        campaign.chosen(["killed:x"])


def test_the_night_runs_every_piece():
    night = (ROOT / ".github/workflows/nightly.yml").read_text("utf-8")
    assert re.findall(r'piece: "(\w+)", minutes', night) == list(campaign.PIECES)


RUN = {"date": "2026-01-01", "commit": "abc", "findings": [], "detail": {}}


def test_the_table_adds_runs_up_and_takes_the_last_one_of_mutants():
    detail = {"mutants": 9, "equivalent": 1, "killed": 7, "survived": ["x"], "timed_out": 0}
    kept = {
        "runs": [
            {**RUN, "piece": "fuzz", "name": "load", "executions": 1000, "hours": 0.5},
            {**RUN, "piece": "fuzz", "name": "load", "executions": 2000, "hours": 1.0,
             "findings": ["crash"]},
            {**RUN, "piece": "mutants", "name": "f.py", "executions": 4, "hours": 1,
             "detail": {**detail, "killed": 3}},
            {**RUN, "piece": "mutants", "name": "f.py", "executions": 8, "hours": 2,
             "detail": detail},
        ],
        "mended": [{"piece": "fuzz", "name": "load", "what": "a bound"}],
    }  # fmt: skip
    text = table.render(kept)
    assert "to the first tokens | 3 000 | 1.50 | 2 | 1 |" in text
    assert "| **all** | 3 008 | 3.50 | 2 | 1 |" in text
    assert "| `f.py` | 9 | 1 | 8 | 7 | 1 | 87.5 % |" in text
    assert "* libFuzzer, a GGUF file, from load to the first tokens: a bound" in text


def test_the_page_shows_what_was_kept():
    shown = campaign.PAGE.read_text("utf-8")
    again = table.page_with_table(campaign.RESULTS, campaign.PAGE)
    assert shown == again, "run: python tools/campaign.py --table"


def test_results_are_added_and_judged(tmp_path):
    path = tmp_path / "r.json"
    path.write_text('{"runs": [], "mended": []}')
    good = table.Entry("soak", "server", 5, 0.12345678, [])
    campaign.keep([good], path)
    campaign.keep([good], path)
    runs = json.loads(path.read_text())["runs"]
    assert [run["hours"] for run in runs] == [0.1235, 0.1235]
    assert campaign.is_good(good)
    assert not campaign.is_good(table.Entry("soak", "server", 5, 0.1, ["x"]))
    assert campaign.is_good(table.Entry("mutants", "f", 10, 0.1, [], {"survived": ["a"]}))
    assert not campaign.is_good(table.Entry("mutants", "f", 10, 0.1, [], {"survived": ["a", "b"]}))
