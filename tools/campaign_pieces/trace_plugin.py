"""A pytest plugin: which lines of some files each test runs, its fixtures included, and for how
long. Set up by `mutants.py`, in the process that runs the tests once without a change."""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest


class LineTrace:
    """Attributes: lines: file -> lines since `take`."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files  # full path -> its name in what is reported
        self.lines: dict[str, set[int]] = {}

    def start(self) -> None:
        threading.settrace(self._enter)
        sys.settrace(self._enter)

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        name = self._files.get(frame.f_code.co_filename)
        if name is None:
            return None
        lines = self.lines.setdefault(name, set())
        lines.add(frame.f_lineno)

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return step

        return step

    def take(self) -> dict[str, list[int]]:
        taken = {name: sorted(lines) for name, lines in self.lines.items() if lines}
        for lines in self.lines.values():
            lines.clear()
        return taken


class Recorder:
    """Writes ``{test: {"lines": {file: [line]}, "seconds": s, "passed": bool}}`` to a file."""

    def __init__(self, files: dict[str, str], out: pathlib.Path) -> None:
        self._trace = LineTrace(files)
        self._out = out
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        self._trace.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests[""] = {"lines": self._trace.take(), "seconds": 0.0, "passed": True}  # imports

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        start = time.perf_counter()
        self.tests[item.nodeid] = {"passed": True}
        try:
            return (yield)
        finally:
            # Some tests set a trace function of their own, or none.
            self._trace.start()
            self.tests[item.nodeid]["lines"] = self._trace.take()
            self.tests[item.nodeid]["seconds"] = round(time.perf_counter() - start, 3)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.tests[report.nodeid]["passed"] = False

    def pytest_unconfigure(self) -> None:
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]
        self._out.write_text(json.dumps(self.tests), encoding="utf-8")
