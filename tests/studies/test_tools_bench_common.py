"""tools/bench_common.py and bench_neighbour.py, to the letter: kept figures rest on them."""

from __future__ import annotations

import json
import math
import os
import pathlib
import platform
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))

import bench_common
import bench_neighbour
from specdec_native.studies import checkout


def finished(stdout="", code=0):
    return subprocess.CompletedProcess([], code, stdout=stdout)


class Runs:
    """Stands in for subprocess.run: answers in turn, and keeps how it was called."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.calls = []

    def __call__(self, command, **options):
        self.calls.append((command, options))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return finished(answer)


@pytest.fixture
def runs(monkeypatch):
    fake = Runs()
    monkeypatch.setattr(subprocess, "run", fake)
    return fake


# ---------------------------------------------------------------- the machine

CPUINFO = "processor\t: 0\nmodel name\t:  Example: CPU \nmodel name\t: another\n"


def test_the_processor_is_named_as_linux_names_it(monkeypatch):
    asked = []

    def read(path, encoding):
        asked.append((str(path), encoding))
        return CPUINFO

    monkeypatch.setattr(pathlib.Path, "read_text", read)
    assert checkout.cpu_name() == "Example: CPU"
    assert asked == [("/proc/cpuinfo", "utf-8")]


@pytest.mark.parametrize(
    ("text", "processor", "name"),
    [(None, "cpu9", "cpu9"), (None, "", "arch9"), ("vendor : x\n", "cpu9", "cpu9")],
)
def test_the_processor_is_named_elsewhere(monkeypatch, text, processor, name):
    def read(path, encoding):
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(pathlib.Path, "read_text", read)
    monkeypatch.setattr(platform, "processor", lambda: processor)
    monkeypatch.setattr(platform, "machine", lambda: "arch9")
    assert checkout.cpu_name() == name


def test_a_machine_is_told_without_its_owner(monkeypatch):
    page, pages = 4096, round(2.6 * 2**30 / 4096)
    known = {"SC_PAGE_SIZE": page, "SC_PHYS_PAGES": pages}
    monkeypatch.setattr(os, "sysconf", known.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    here = {"cpu_name": lambda: "a CPU", "commit": lambda: "abc"}
    monkeypatch.setattr(bench_common.runpy, "run_path", lambda path: here)
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((2026, 1, 2, 3, 4, 5, 4, 2, 0)))
    assert bench_common.machine(5) == {
        "cpu": "a CPU", "cores": 7, "n_threads": 5, "memory_gib": 3, "date": "2026-01-02",
        "commit": "abc",
    }  # fmt: skip


# ---------------------------------------------------------------- programs that are run


def test_a_program_s_json_is_read(runs, monkeypatch):
    monkeypatch.setattr(os, "environ", {"A": "1", "B": "2"})
    runs.answers = ['{"x": 1}', '{"x": 2}']
    assert bench_common.run_json(("p", "q"), {"B": "3"}) == {"x": 1}
    assert bench_common.run_json(("p",)) == {"x": 2}
    assert runs.calls == [
        (["p", "q"], {"check": True, "stdout": subprocess.PIPE, "env": {"A": "1", "B": "3"}}),
        (["p"], {"check": True, "stdout": subprocess.PIPE, "env": {"A": "1", "B": "2"}}),
    ]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (FileNotFoundError(), "p is not there"),
        (subprocess.CalledProcessError(3, "p"), "p failed with exit code 3"),
    ],
)
def test_a_program_that_fails_ends_the_script(runs, error, says):
    runs.answers = [error]
    with pytest.raises(SystemExit) as raised:
        bench_common.run_json(["p"])
    assert raised.value.code == says


def test_versions_are_those_that_programs_tell(runs):
    runs.answers = ["specdec 1.2.3 (avx2)\n", " 0.3.9\n"]
    assert bench_common.specdec_version("b") == "1.2.3"
    assert bench_common.peer_version("py") == "llama-cpp-python 0.3.9"
    assert runs.calls == [
        (["b", "--version"], {"check": True, "stdout": subprocess.PIPE, "text": True}),
        (["py", "-c", bench_common.PEER_VERSION],
         {"check": True, "capture_output": True, "text": True}),
    ]  # fmt: skip


@pytest.mark.parametrize("error", [OSError(), subprocess.CalledProcessError(1, "py")])
def test_without_a_peer_the_way_to_one_is_told(runs, error):
    runs.answers = [error]
    with pytest.raises(SystemExit) as raised:
        bench_common.peer_version("py")
    says = str(raised.value.code)
    assert says.startswith("py has no llama-cpp-python.\n\nThe peer is llama.cpp through")
    assert says.endswith("\n    CMAKE_ARGS=-DGGML_NATIVE=ON pip install llama-cpp-python==0.3.36\n")


def test_the_peer_is_not_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    for name, version in (("installed", "4.5"), ("here", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "llama_cpp.py").write_text(f"__version__ = '{version}'\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    assert bench_common.peer_version(sys.executable) == "llama-cpp-python 4.5"


# ---------------------------------------------------------------- numbers and files


def test_figures_keep_their_significant_digits():
    of = bench_common.significant
    assert [of(123456.0), of(0.00123456), of(-98765.0), of(1.0)] == [
        123500.0,
        0.001235,
        -98760.0,
        1,
    ]
    assert [of(123456.0, 2), of(9.99, 1)] == [120000.0, 10.0]
    assert of(0.0) == 0
    assert of(math.inf) == math.inf
    assert math.isnan(of(math.nan))


def test_a_spread_is_median_range_and_values():
    found = bench_common.spread([3.14159, 1.23456, 9.87654])
    assert found == {"median": 3.142, "range": [1.235, 9.877], "values": [3.142, 1.235, 9.877]}
    assert bench_common.spread([1.26], 2) == {"median": 1.3, "range": [1.3, 1.3], "values": [1.3]}


def test_a_geometric_mean_is_that_of_products():
    assert bench_common.geometric_mean([1.0, 4.0, 16.0]) == pytest.approx(4.0)


def test_json_is_broken_into_lines_where_it_is_long():
    assert bench_common.to_json("é" * 200) == '"' + "é" * 200 + '"'
    fits = ["x" * 116]
    assert bench_common.to_json(fits) == json.dumps(fits)
    longer = ["x" * 117]
    assert bench_common.to_json(longer) == "[\n " + json.dumps(longer[0]) + "\n]"
    inner = "y" * 115  # with its brackets and one space 120 characters
    value = {"ä": [inner], "b": [inner + "y"], "c": {}}
    assert bench_common.to_json(value) == (
        f'{{\n "ä": ["{inner}"],\n "b": [\n  "{inner}y"\n ],\n "c": {{}}\n}}'
    )


def test_a_report_is_written_and_told_of(tmp_path, capsys):
    path = tmp_path / "new" / "folder" / "r.json"
    for value in ({"a": "é"}, {"a": "ü"}):
        bench_common.write_report(path, value)
        assert path.read_bytes() == f'{{"a": "{value["a"]}"}}\n'.encode()
    assert capsys.readouterr() == ("", f"wrote {path}\n" * 2)


def test_progress_is_told_at_once_with_the_time(monkeypatch):
    class Flushed(list):
        def write(self, text):
            self.append(text)

        def flush(self):
            self.append("flushed")

    said = Flushed()
    monkeypatch.setattr(sys, "stderr", said)
    monkeypatch.setattr(time, "strftime", {"%H:%M:%S": "10:20:30"}.__getitem__)
    bench_common.progress("going on")
    assert "".join(said) == "[10:20:30] going on\nflushed"


# ---------------------------------------------------------------- the busy neighbour


def busy(monkeypatch, duty, step, n_periods):
    """The sleeps of a neighbour whose clock goes on by `step` with each look."""
    looks, sleeps, cores = [0], [], []
    parents = iter([7] * (n_periods + 1) + [8])

    def clock():
        looks[0] += 1
        return (looks[0] - 1) * step

    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: cores.append(given))
    monkeypatch.setattr(os, "getppid", lambda: next(parents))
    monkeypatch.setattr(time, "perf_counter", clock)
    monkeypatch.setattr(time, "sleep", sleeps.append)
    bench_neighbour.keep_busy(duty, 3)
    assert cores == [(0, {3})]
    return sleeps, looks[0]


def test_a_neighbour_is_busy_for_its_share_of_each_period(monkeypatch):
    # The start, five looks in the 5 ms that are busy, one behind them, one for the sleep.
    sleeps, n_looks = busy(monkeypatch, 0.25, 1 / 1024, 2)
    assert sleeps == [pytest.approx(0.02 - 7 / 1024)] * 2
    assert n_looks == 2 * 8


def test_a_neighbour_that_is_late_does_not_sleep(monkeypatch):
    assert busy(monkeypatch, 1.0, 0.03, 1) == ([0.0], 3)


@pytest.mark.parametrize(("threads", "more"), [(0, []), (1, ["-t", "1"]), (3, ["-t", "3"])])
def test_the_neighbour_s_benchmark_is_one_command(runs, threads, more):
    runs.answers = ['{"t_ms": {"1": 2.5}, "other": 1}']
    assert bench_neighbour.bench("b", "m.gguf", "1,8", threads) == {"1": 2.5}
    command = [
        "b",
        "bench",
        "-q",
        "--json",
        "-m",
        "m.gguf",
        "--rows",
        "1,8",
        "--rounds",
        "9",
        *more,
    ]
    assert runs.calls == [(command, {"check": True, "capture_output": True, "text": True})]


class Neighbour:
    """Stands in for subprocess.Popen."""

    def __init__(self, command):
        self.started.append(command)
        self.events.append("starts")

    def kill(self):
        self.events.append("killed")

    def wait(self):
        self.events.append("waited for")


@pytest.fixture
def neighbour(monkeypatch):
    monkeypatch.setattr(Neighbour, "started", [], raising=False)
    monkeypatch.setattr(Neighbour, "events", [], raising=False)
    monkeypatch.setattr(subprocess, "Popen", Neighbour)
    monkeypatch.setattr(bench_neighbour.shutil, "which", {"specdec": "/b/specdec", "s": "/b/s"}.get)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0: {5, 3, 9}}[pid])
    monkeypatch.delenv("SPECDEC_BIN", raising=False)
    figures = [(2, 8), (3, 8), (4, 16), (4, 8), (4, 4), (10, 8), *[(1, 1)] * 20]  # rows 1 and 8

    def bench(*arguments):
        Neighbour.events.append(arguments)
        one, eight = figures.pop(0)
        return {"1": float(one), "8": float(eight)}

    monkeypatch.setattr(bench_neighbour, "bench", bench)
    return Neighbour


def test_both_are_measured_in_turn_and_ratios_are_of_a_round(neighbour, capsys):
    arguments = ["-m", "m.gguf", "--rounds", "3", "--duty", "1", "--rows", "1,8", "-t", "2"]
    assert bench_neighbour.main([*arguments, "--specdec", "s"]) == 0
    call = ("/b/s", "m.gguf", "1,8", 2)
    assert neighbour.events == [call, "starts", call, "killed", "waited for"] * 3
    script = bench_neighbour.__file__
    command = [sys.executable, script, "-m", "-", "--duty", "1.0", "--neighbour", "3"]
    assert neighbour.started == [command] * 3
    assert capsys.readouterr().out == (
        " rows   alone ms  beside ms  ratio (range)\n"
        "    1       4.00       4.00  1.50 (1.00-2.50)\n"
        "    8       8.00       8.00  1.00 (0.50-2.00)\n"
    )


def test_what_is_not_said_has_its_default(neighbour, monkeypatch):
    assert bench_neighbour.main(["--model", "m.gguf"]) == 0
    call = ("/b/specdec", "m.gguf", "1,8", 0)
    assert neighbour.events == [call, "starts", call, "killed", "waited for"] * 5
    assert neighbour.started[0][5] == "0.5"
    monkeypatch.setattr(sys, "argv", ["bench_neighbour.py", "-m", "n.gguf", "--rounds", "1"])
    assert bench_neighbour.main() == 0
    assert neighbour.events[-3][1] == "n.gguf"
    monkeypatch.setenv("SPECDEC_BIN", "s")
    assert bench_neighbour.main(["-m", "m.gguf", "--rounds", "1"]) == 0
    assert neighbour.events[-3][0] == "/b/s"


def test_a_neighbour_ends_when_the_benchmark_fails(neighbour, monkeypatch):
    answers = [{"1": 1.0}, SystemExit("no")]

    def bench(*arguments):
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    monkeypatch.setattr(bench_neighbour, "bench", bench)
    with pytest.raises(SystemExit, match="no"):
        bench_neighbour.main(["-m", "m.gguf"])
    assert neighbour.events == ["starts", "killed", "waited for"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: -m/--model"),
        (["-m", "x", "--duty", "0"], "--duty must be above 0 and at most 1"),
        (["-m", "x", "--duty", "1.01"], "--duty must be above 0 and at most 1"),
        (["-m", "x", "--specdec", "no"],
         "no is not there: install the package, or give --specdec PATH"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_the_neighbour_are_refused(neighbour, capsys, arguments, says):
    with pytest.raises(SystemExit) as raised:
        bench_neighbour.main(arguments)
    assert raised.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: {says}\n")


def test_help_says_what_the_neighbour_is_for(capsys):
    with pytest.raises(SystemExit):
        bench_neighbour.main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "What a busy neighbour costs: `specdec bench` alone and beside" in told
    for text in (
        "row counts (default 1,8)",
        "busy share (default 0.5)",
        "alternations (default 5)",
    ):
        assert f"{text} " in told
    assert "--neighbour" not in told


def test_the_script_is_its_own_neighbour(neighbour, monkeypatch):
    kept = []
    monkeypatch.setattr(bench_neighbour, "keep_busy", lambda *given: kept.append(given))
    assert bench_neighbour.main(["-m", "-", "--duty", "0.75", "--neighbour", "0"]) == 0
    assert kept == [(0.75, 0)]
    assert neighbour.events == []
