"""Runs chosen tests again and again, each time in a new process, with one file changed.

A process collects all tests once, which imports the package and all that tests need; then it forks
for each change. In the fork, functions get the code of the changed file. What importing runs
(constants, default values, what classes say) cannot be changed so: then the tests run in a fork
of a process that has not imported the package yet.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import importlib.util
import json
import os
import pathlib
import signal
import socket
import sys
import time
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from .trace_plugin import Recorder

IMPORTED = ("numpy", "hypothesis", "gguf", "httpx", "jinja2", "asyncio", "concurrent.futures",
            "jsonschema", "pandas", "uvicorn", "openai", "fastapi")  # fmt: skip
POLL_SECONDS = 0.02
KILLED_BY = "killed_by.txt"
HUNG_SECONDS = 30.0  # of a quick test: it waits for ever


@dataclass(frozen=True)
class Result:
    """`code`: 0 all tests passed, None: it took too long; `killer`: the test that failed."""

    code: int | None
    killer: str = ""


# ---------------------------------------------------------------- code of functions


def _own(code: CodeType) -> tuple[Any, ...]:
    """What a piece of code does, without the functions in it and without line numbers."""
    constants = [
        "code" if isinstance(c, CodeType) else (type(c).__name__, repr(c)) for c in code.co_consts
    ]
    return (code.co_name, code.co_code, code.co_names, code.co_varnames, code.co_freevars,
            code.co_flags, tuple(constants))  # fmt: skip


def _children(code: CodeType) -> list[CodeType]:
    return [c for c in code.co_consts if isinstance(c, CodeType)]


def _same(a: CodeType, b: CodeType) -> bool:
    if _own(a) != _own(b) or len(_children(a)) != len(_children(b)):
        return False
    return all(map(_same, _children(a), _children(b)))


def changed_functions(before: CodeType, after: CodeType) -> list[tuple[CodeType, CodeType]] | None:
    """The outermost functions that differ; None: something that importing runs differs, too."""
    if before.co_flags & 0x2:  # CO_NEWLOCALS: a function
        if before.co_freevars != after.co_freevars:
            return None
        return [] if _same(before, after) else [(before, after)]
    if _own(before) != _own(after):
        return None
    pairs: list[tuple[CodeType, CodeType]] = []
    for a, b in zip(_children(before), _children(after), strict=True):
        found = changed_functions(a, b)
        if found is None:
            return None
        pairs += found
    return pairs


@functools.lru_cache(maxsize=16)
def _compiled(file: str, source: bytes) -> CodeType:
    return compile(source, file, "exec")


@functools.lru_cache(maxsize=16)
def _functions(file: str) -> tuple[FunctionType, ...]:
    """All functions of a file that was imported."""
    return tuple(
        thing
        for thing in gc.get_objects()
        if type(thing) is FunctionType and thing.__code__.co_filename == file
    )


def changes_functions_only(before: bytes, after: bytes) -> bool:
    return changed_functions(_compiled("f", before), compile(after, "f", "exec")) is not None


def change_functions(file: str, before: bytes, after: bytes) -> bool:
    """Gives the functions of a file that was imported their changed code; False: not possible."""
    pairs = changed_functions(_compiled(file, before), compile(after, file, "exec"))
    if pairs is None:
        return False
    changed = {(a.co_name, a.co_firstlineno): b for a, b in pairs}
    for function in _functions(file):
        code = function.__code__
        new = changed.get((code.co_name, code.co_firstlineno))
        if new is not None:
            function.__code__ = new
    return True


# ---------------------------------------------------------------- in the process of pytest


class _Stopper:
    """Notes the tests that fail; ends the process at the first one if it is active."""

    def __init__(self, folder: pathlib.Path) -> None:
        self._folder = folder
        self.active = False
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)
        if self.active and report.failed:
            (self._folder / KILLED_BY).write_text(report.nodeid, encoding="utf-8")
            sys.stdout.flush()
            os._exit(1)


class _Server:
    """A plugin: instead of running all tests, answers requests, lines of JSON."""

    def __init__(self, folder: pathlib.Path, channel: socket.socket, recorder: Recorder) -> None:
        self._folder = folder
        self._channel = channel
        self._recorder = recorder
        self.stopper = _Stopper(folder)
        self._items: dict[str, Any] = {}
        self._neighbours: dict[str, Any] = {}

    def pytest_runtestloop(self, session: Any) -> bool:
        items = self._items = {item.nodeid: item for item in session.items}
        names = list(items)
        for name, other in zip(names, [*names[1:], *names[-2:-1]], strict=len(names) > 1):
            self._neighbours[name] = items[other]
        gc.collect()
        with self._channel.makefile("rw", encoding="utf-8") as channel:
            self._say(channel, {"tests": list(items)})
            for line in channel:
                request = json.loads(line)
                gc.unfreeze()
                if request["file"]:  # what forks need in common
                    _compiled(request["file"], pathlib.Path(request["sources"][0]).read_bytes())
                    _functions(request["file"])
                gc.freeze()
                pid = os.fork()
                if pid == 0:
                    self._child(request, [items[name] for name in request["tests"]])
                self._say(channel, {"code": _wait(pid, request["seconds"])})
        return True

    @staticmethod
    def _say(channel: Any, answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    def _child(self, request: dict[str, Any], items: list[Any]) -> None:
        code = 70
        try:
            os.setsid()
            if request.get("batch"):
                self._batch(request)
                os._exit(0)
            if request["trace"]:
                self._recorder.start()
            else:
                self.stopper.active = True
            if request["file"]:
                before, after = (pathlib.Path(p).read_bytes() for p in request["sources"])
                if not change_functions(request["file"], before, after):
                    raise AssertionError("what importing runs was changed")
            for item, after_it in zip(items, [*items[1:], None], strict=True):
                item.ihook.pytest_runtest_protocol(item=item, nextitem=after_it)
            if request["trace"]:
                self._recorder.finish(pathlib.Path(request["trace"]))
            code = 0
            sys.stdout.flush()
        finally:
            os._exit(code)

    def _fails(self, test: str) -> bool:
        self.stopper.failed.clear()
        item = self._items[test]
        signal.setitimer(signal.ITIMER_REAL, HUNG_SECONDS)  # ends the process
        # What the last one has left of another file or class goes; what the session has stays.
        item.session._setupstate.teardown_exact(item)
        after_it = self._neighbours.get(test)
        item.ihook.pytest_runtest_protocol(item=item, nextitem=after_it)
        return bool(self.stopper.failed)

    def _batch(self, request: dict[str, Any]) -> None:
        """Tries changes one after the other in this process, and writes a line for each: the test
        that failed with it, and passed again without. It ends where one does not pass again or
        hangs, and does not begin where one does not pass in that order."""
        file, before = request["file"], pathlib.Path(request["sources"][0]).read_bytes()
        originals = [(function, function.__code__) for function in _functions(file)]
        tests = {test: None for change in request["batch"] for test in change["tests"]}
        if any(self._fails(test) for _ in range(2) for test in tests):
            return
        with pathlib.Path(request["out"]).open("a", encoding="utf-8") as out:
            for change in request["batch"]:
                after = change["after"].encode()
                killer = ""
                if change_functions(file, before, after):
                    killer = next((test for test in change["tests"] if self._fails(test)), "")
                for function, code in originals:
                    function.__code__ = code
                if killer and self._fails(killer):
                    return
                out.write(json.dumps(killer) + "\n")
                out.flush()


# ---------------------------------------------------------------- processes


def _processor_seconds(pid: int) -> float:
    with contextlib.suppress(OSError):
        words = pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _end_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _wait(pid: int, seconds: float) -> int | None:
    """The exit code of a child that leads a group; None: it took too long.

    `seconds`: of processor time, as the machine may be busy; six times that for what waits for
    ever, counted in looks, as all of us may be stopped for a while.
    """
    n_looks = 0
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            _end_group(pid)
            return os.waitstatus_to_exitcode(status)
        n_looks += 1
        if n_looks * POLL_SECONDS > 6 * seconds or (
            n_looks % 10 == 0 and _processor_seconds(pid) > seconds
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            _end_group(pid)
            os.waitpid(pid, 0)
            return None
        time.sleep(POLL_SECONDS)


def _enter(folder: pathlib.Path) -> None:
    """Makes this process one that runs tests in the folder; what it says is in log.txt."""
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(folder)
    os.environ["PYTHONPATH"] = str(folder / "python")
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(folder / "python"))


def _flags(folder: pathlib.Path) -> list[str]:
    return ["-q", "-p", "no:cacheprovider", "-p", "no:faulthandler", "--timeout=0",
            f"--rootdir={folder}", f"--basetemp={folder}/basetemp"]  # fmt: skip


class TestProcesses:
    """Runs tests in processes forked from this one, which never imports the package.

    Attributes:
        tests: those that were collected.
    """

    __test__ = False

    def __init__(self, folder: pathlib.Path, files: dict[str, str], tests: list[str]) -> None:
        """`files`: full path -> name, of those that `trace` looks at."""
        self._folder = folder
        for name in ("pytest", *IMPORTED):
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)
        ours, theirs = socket.socketpair()
        self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            self._serve(theirs, files, tests)
        theirs.close()
        self._channel = ours.makefile("rw", encoding="utf-8")
        ours.close()
        line = self._channel.readline()
        if not line:
            log = (folder / "log.txt").read_text("utf-8")
            raise RuntimeError(f"the tests cannot be collected: {log[-3000:]}")
        self.tests: list[str] = json.loads(line)["tests"]

    def _serve(self, channel: socket.socket, files: dict[str, str], tests: list[str]) -> None:
        code = 70
        try:
            _enter(self._folder)
            import pytest

            recorder = Recorder(files, self._folder / "traced")
            server = _Server(self._folder, channel, recorder)
            plugins = [recorder, server, server.stopper]
            code = int(pytest.main([*_flags(self._folder), *tests], plugins=plugins))
            sys.stdout.flush()
        finally:
            os._exit(code)

    def _ask(self, **request: Any) -> int | None:
        self._channel.write(json.dumps(request) + "\n")
        self._channel.flush()
        line = self._channel.readline()
        if not line:
            raise RuntimeError("the process of the tests has ended")
        code = json.loads(line)["code"]
        return None if code is None else int(code)

    def trace(self, tests: list[str]) -> dict[str, dict[str, Any]]:
        """What each test runs, see `Recorder`."""
        out = self._folder / "trace.json"
        out.unlink(missing_ok=True)
        self._ask(tests=tests, file="", sources=[], trace=str(out), seconds=7200)
        if not out.exists():
            log = (self._folder / "log.txt").read_text("utf-8")
            raise RuntimeError(f"the tests do not run: {log[-3000:]}")
        return dict(json.loads(out.read_text("utf-8")))

    def run(
        self, tests: list[str], seconds: float, file: str = "", sources: tuple[str, str] = ("", "")
    ) -> Result:
        """In a fork of the process that has collected them, with the functions of a file as the
        second of two sources has them. The file itself should be changed as well."""
        killed_by = self._folder / KILLED_BY
        killed_by.unlink(missing_ok=True)
        code = self._ask(tests=tests, file=file, sources=sources, trace="", seconds=seconds)
        return Result(code, killed_by.read_text("utf-8") if killed_by.exists() else "")

    def run_batch(
        self, file: str, source: str, changes: list[tuple[str, list[str]]], seconds: float
    ) -> list[str]:
        """Many changes in one fork: of each the test that failed, "" when none did or it cannot be
        said. Those at the end that were not reached are left out.

        `changes`: the changed source, and the tests to run; `seconds`: for all of them.
        """
        out = self._folder / "batch.txt"
        out.unlink(missing_ok=True)
        batch = [{"after": after, "tests": tests} for after, tests in changes]
        self._ask(tests=[], file=file, sources=(source, ""), trace="", seconds=seconds,
                  batch=batch, out=str(out))  # fmt: skip
        lines = out.read_text("utf-8").splitlines() if out.exists() else []
        return [json.loads(line) for line in lines]

    def run_anew(self, tests: list[str], seconds: float) -> Result:
        """In a process that imports everything again."""
        killed_by = self._folder / KILLED_BY
        killed_by.unlink(missing_ok=True)
        pid = os.fork()
        if pid == 0:
            self._child(tests)
        code = _wait(pid, seconds)
        return Result(code, killed_by.read_text("utf-8") if killed_by.exists() else "")

    def _child(self, tests: list[str]) -> None:
        code = 70
        try:
            os.setsid()
            _enter(self._folder)
            import pytest

            stopper = _Stopper(self._folder)
            stopper.active = True
            code = int(pytest.main([*_flags(self._folder), "-x", *tests], plugins=[stopper]))
            sys.stdout.flush()
        finally:
            os._exit(code)

    def close(self) -> None:
        self._channel.close()
        os.waitpid(self._pid, 0)

    def __enter__(self) -> TestProcesses:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
