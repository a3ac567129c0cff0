"""Which lines of some files each test runs, its fixtures and the Python processes that it starts
included, and how many seconds of a processor it takes."""

from __future__ import annotations

import atexit
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

FILES_VARIABLE, FOLDER_VARIABLE = "SPECDEC_TRACE_FILES", "SPECDEC_TRACE_FOLDER"


class LineTrace:
    """The lines of some files that run between `start` and `stop`."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files  # full path -> its name in what is reported
        self._coverage: Any = None

    def start(self) -> None:
        import coverage

        self._coverage = coverage.Coverage(
            data_file=None, config_file=False, include=list(self._files), messages=False
        )
        self._coverage.start()

    def stop(self) -> dict[str, list[int]]:
        assert self._coverage is not None
        self._coverage.stop()
        data = self._coverage.get_data()
        lines = {
            self._files[path]: sorted(data.lines(path) or []) for path in data.measured_files()
        }
        self._coverage = None
        return {name: found for name, found in lines.items() if found}


def trace_this_process() -> None:
    """For `sitecustomize` of processes that tests start: leaves its lines in a folder."""
    if FILES_VARIABLE not in os.environ:
        return
    trace = LineTrace(json.loads(os.environ[FILES_VARIABLE]))
    out = pathlib.Path(os.environ[FOLDER_VARIABLE]) / f"{os.getpid()}.json"

    atexit.register(lambda: out.write_text(json.dumps(trace.stop()), encoding="utf-8"))
    trace.start()


def _processor_seconds() -> float:
    """Of this process and those that it started and that have ended."""
    return sum(os.times()[:4])


class Recorder:
    """Writes ``{test: {"lines": {file: [line]}, "seconds": s, "passed": bool}}`` to a file.

    What importing runs is noted while tests are collected; that of tests between `start` and
    `finish`.
    """

    def __init__(self, files: dict[str, str], folder: pathlib.Path) -> None:
        self._files = files
        self._trace = LineTrace(files)
        self._folder = folder  # of what processes leave
        self._running = False
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        self._trace.start()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests[""] = {"lines": self._trace.stop(), "seconds": 0.0, "passed": True}  # imports

    def start(self) -> None:
        self._folder.mkdir(exist_ok=True)
        # The script's folder comes first in the path of a process: what is there traces it.
        site = self._folder / "site"
        site.mkdir(exist_ok=True)
        pieces = pathlib.Path(__file__).resolve().parents[1]
        (site / "sitecustomize.py").write_text(
            f"import sys\nsys.path.insert(0, {str(pieces)!r})\n"
            "from campaign_pieces.trace_plugin import trace_this_process\n"
            f"sys.path.remove({str(pieces)!r})\ntrace_this_process()\n",
            encoding="utf-8",
        )
        os.environ["PYTHONPATH"] = f"{site}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        os.environ[FILES_VARIABLE] = json.dumps(self._files)
        os.environ[FOLDER_VARIABLE] = str(self._folder)
        self._running = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if not self._running:
            return (yield)
        start = _processor_seconds()
        self.tests[item.nodeid] = {"passed": True}
        self._trace.start()
        try:
            return (yield)
        finally:
            self.tests[item.nodeid]["lines"] = self._take(self._trace.stop())
            self.tests[item.nodeid]["seconds"] = round(_processor_seconds() - start, 3)

    def _take(self, here: dict[str, list[int]]) -> dict[str, list[int]]:
        """Those of this process and of those that a test has started."""
        lines = {name: set(found) for name, found in here.items()}
        for path in self._folder.glob("*.json"):
            for name, found in json.loads(path.read_text("utf-8")).items():
                lines.setdefault(name, set()).update(found)
            path.unlink()
        return {name: sorted(found) for name, found in lines.items()}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if self._running and report.failed:
            self.tests[report.nodeid]["passed"] = False

    def finish(self, out: pathlib.Path) -> None:
        out.write_text(json.dumps(self.tests), encoding="utf-8")
