"""Mutation testing: small changes to Python files, each of which some test should notice.

A copy of the checkout stands in a temporary folder, with the installed extension beside its Python
files. The tests run once there under a trace, which tells those that run each line; a mutant is
put into the copy, and the tests of its line run in a process forked from one that has imported what
tests import: first the quick ones, then the others.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import mutator

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "python/specdec_native"
API_TESTS = [
    "tests/api/test_hidden_states.py",
    "tests/api/test_refusals.py",
    *(f"tests/api/test_{name}.py" for name in (
        "api", "api_chat", "api_drafters", "api_stream", "auto", "cancel", "drafter_options",
        "embedded_models", "extras", "generate_many", "grammar", "kept_prompts", "life", "no_cache",
        "options", "verifier_api",
    )),
    "tests/core/test_calibration.py",
]  # fmt: skip
BENCH_TESTS = [
    "tests/studies/test_tools_bench_studies.py",
    "tests/studies/test_tools_benchmarks.py",
]
# File -> tests that may notice; what the trace says chooses among them.
FILES: dict[str, list[str]] = {
    **{f"{PACKAGE}/{name}.py": API_TESTS for name in ("decoder", "options", "model", "many")},
    **{f"tools/bench_{name}.py": BENCH_TESTS for name in (
        "common", "llama_cpp", "neighbour", "studies",
    )},
}  # fmt: skip
# What reads a file instead of running it.
READERS = {
    f"{PACKAGE}/{name}.py": ["tests/api/test_options.py::test_what_is_made_of_the_table_is_fresh"]
    for name in ("decoder", "options", "model", "many")
}
EQUIVALENT = pathlib.Path(__file__).with_name("equivalent_mutants.json")
IMPORTED = ("numpy", "hypothesis", "gguf", "httpx", "jinja2", "asyncio", "concurrent.futures")
QUICK_TESTS = 12
LONGEST_SECONDS = 90.0  # of tests for one mutant, as long as they took without a change
COPIED = ("python", "tests", "tools", "docs", "pyproject.toml", "README.md", "CHANGELOG.md",
          "CMakeLists.txt", "cpp", ".github", "cmake", "SECURITY.md",
          "CONTRIBUTING.md")  # fmt: skip


@dataclass
class Outcome:
    """Of one file. `survived` and `timed_out` name mutants: `file:line key`."""

    file: str
    n_mutants: int = 0
    hours: float = 0.0
    killed: int = 0
    equivalent: int = 0
    survived: list[str] = field(default_factory=list)
    timed_out: list[str] = field(default_factory=list)

    @property
    def n_run(self) -> int:
        return self.killed + len(self.survived)


def installed_package() -> pathlib.Path:
    found = importlib.util.find_spec("specdec_native")
    if found is None or found.origin is None:
        sys.exit("specdec_native is not installed: pip install '.[test]' first")
    return pathlib.Path(found.origin).parent


def copy_checkout(target: pathlib.Path) -> None:
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target / name, ignore=ignored, symlinks=True)
        elif source.exists():
            shutil.copy(source, target / name)
    package = installed_package()
    for path in package.iterdir():
        beside = target / PACKAGE / path.name
        if not beside.exists() and path.suffix in (".so", ""):
            beside.symlink_to(path) if path.is_dir() else shutil.copy(path, beside)
    (target / "models").symlink_to(ROOT / "models")


class Runner:
    """Runs tests in processes forked from this one, which never imports the package."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        for name in ("pytest", *IMPORTED):
            if importlib.util.find_spec(name) is not None:
                importlib.import_module(name)

    def run(self, tests: list[str], timeout: float, plugins: list[Any] | None = None) -> int | None:
        """pytest's exit code; None: it took too long. What it says is in `log.txt`.

        `timeout`: seconds of processor time, as the machine may be busy; ten times that by the
        clock, for what waits for ever.
        """
        pid = os.fork()
        if pid == 0:
            self._child(tests, plugins or [])
        deadline = time.monotonic() + 10 * timeout
        while True:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                self._end_group(pid)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline or self._processor_seconds(pid) > timeout:
                self._end_group(pid)
                os.waitpid(pid, 0)
                return None
            time.sleep(0.1)

    @staticmethod
    def _processor_seconds(pid: int) -> float:
        with contextlib.suppress(OSError):
            words = pathlib.Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
            return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
        return 0.0

    @staticmethod
    def _end_group(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)

    def _child(self, tests: list[str], plugins: list[Any]) -> None:
        code = 70
        try:
            os.setsid()
            log = os.open(self.folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(self.folder)
            os.environ["PYTHONPATH"] = str(self.folder / "python")
            sys.path.insert(0, str(self.folder / "python"))
            import pytest

            flags = [
                "-q",
                "-x",
                "-p",
                "no:cacheprovider",
                "--timeout=0",
                f"--rootdir={self.folder}",
            ]
            flags += [f"--basetemp={self.folder}/basetemp"]
            if plugins:
                flags.remove("-x")
            code = int(pytest.main([*flags, *tests], plugins=plugins))
            sys.stdout.flush()
        finally:
            os._exit(code)


def fingerprint(tests: list[str]) -> str:
    """Of everything that a trace depends on."""
    found = hashlib.sha256()
    paths = [*(ROOT / "python").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    paths += [*(ROOT / "tests").glob("*.py"), *(ROOT / test for test in tests)]
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()


def trace(runner: Runner, tests: list[str], cache: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What each test runs; a test that fails without a change is left out."""
    from .trace_plugin import Recorder

    wanted = {"of": fingerprint(tests), "tests": tests, "files": sorted(FILES)}
    if cache.exists():
        kept = json.loads(cache.read_text("utf-8"))
        if all(kept.get(key) == value for key, value in wanted.items()):
            return dict(kept["found"])
    files = {str(runner.folder / name): name for name in FILES}
    out = runner.folder / "trace.json"
    runner.run(tests, 7200, [Recorder(files, out)])
    if not out.exists():
        sys.exit("the tests do not run: " + (runner.folder / "log.txt").read_text("utf-8")[-3000:])
    found = json.loads(out.read_text("utf-8"))
    cache.parent.mkdir(parents=True, exist_ok=True)
    cache.write_text(json.dumps({**wanted, "found": found}), encoding="utf-8")
    return dict(found)


def tests_of(traced: dict[str, dict[str, Any]], file: str, lines: range) -> list[str]:
    """The tests that run one of the lines, quickest first; those of imports: all of the file.

    Those that read the file come before them.
    """
    on_import = bool(set(traced.get("", {}).get("lines", {}).get(file, ())) & set(lines))
    chosen = []
    for test, entry in traced.items():
        run = set(entry["lines"].get(file, ()))
        if test and entry["passed"] and (run if on_import else run & set(lines)):
            chosen.append((entry["seconds"], test))
    readers = [test for test in READERS.get(file, []) if test in traced]
    return [*readers, *(test for _, test in sorted(chosen) if test not in readers)]


def spread(tests: list[str], n: int) -> list[str]:
    """Of each test function one case first, as many as wanted."""
    seen: set[str] = set()
    first = [t for t in tests if (name := t.split("[")[0]) not in seen and not seen.add(name)]  # type: ignore[func-returns-value]
    return first[:n]


def stages(traced: dict[str, dict[str, Any]], tests: list[str]) -> Iterator[list[str]]:
    quick = spread(tests, QUICK_TESTS)
    if not quick:
        return  # nothing runs that line
    yield quick
    left, seconds = [], 0.0
    for test in tests:
        seconds += traced[test]["seconds"]
        if seconds > LONGEST_SECONDS:
            break
        if test not in quick:
            left.append(test)
    if left:
        yield sorted(left)  # by file: their fixtures are made once


class Verdicts:
    """What became of mutants of files that are as they were, so that a run goes on where another
    stopped. Those that died stay dead when tests are added; of those that survived nothing is kept.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._kept: dict[str, str] = {}
        if path.exists():
            self._kept = json.loads(path.read_text("utf-8"))

    @staticmethod
    def _key(file: str, mutant: mutator.Mutant) -> str:
        source = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]
        return f"{file} {source} {mutant.start} {mutant.key}"

    def get(self, file: str, mutant: mutator.Mutant) -> str | None:
        return self._kept.get(self._key(file, mutant))

    def keep(self, file: str, mutant: mutator.Mutant, found: str) -> None:
        if found == "survived":
            return
        self._kept[self._key(file, mutant)] = found
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._kept), encoding="utf-8")


class Campaign:
    def __init__(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
        self._runner = Runner(folder)
        self._say = say
        self._folder = folder
        self._verdicts = Verdicts(ROOT / "build" / "campaign" / "verdicts.json")
        self.equivalent: dict[str, dict[str, str]] = json.loads(EQUIVALENT.read_text("utf-8"))

    def is_noticed(self, file: str, mutant: mutator.Mutant, traced: dict[str, Any]) -> str:
        """ "killed", "timed out" or "survived"."""
        path = self._folder / file
        source = path.read_bytes()
        n_lines = mutant.old.count("\n")
        if mutant.kind in ("condition", "comparison", "boolean", "arithmetic", "constant"):
            n_lines = min(n_lines, 3)
        tests = tests_of(traced, file, range(mutant.line, mutant.line + n_lines + 1))
        try:
            path.write_bytes(mutant.apply(source))
            self._forget(path)
            for chosen in stages(traced, tests):
                usual = sum(traced[test]["seconds"] for test in chosen)
                code = self._runner.run(chosen, 30 + 5 * usual)
                if code is None:
                    return "timed out"
                if code != 0:
                    return "killed"
            return "survived"
        finally:
            path.write_bytes(source)
            self._forget(path)

    @staticmethod
    def _forget(path: pathlib.Path) -> None:
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)

    def run(
        self, files: list[str], minutes: float, seed: int, cache: pathlib.Path
    ) -> list[Outcome]:
        tests = sorted({test for file in files for test in FILES[file]})
        traced = trace(self._runner, [t for t in tests if (ROOT / t).exists()], cache)
        failing = [test for test, entry in traced.items() if not entry["passed"]]
        self._say(f"{len(traced) - 1} tests traced, {len(failing)} of them do not pass: {failing}")
        outcomes = [Outcome(file) for file in files]
        queues = []
        for outcome in outcomes:
            found = mutator.mutants((ROOT / outcome.file).read_bytes())
            outcome.n_mutants = len(found)
            known = self.equivalent.get(outcome.file, {})
            outcome.equivalent = sum(mutant.key in known for mutant in found)
            queue = [mutant for mutant in found if mutant.key not in known]
            random.Random(f"{seed} {outcome.file}").shuffle(queue)
            queues.append(queue)
        deadline = time.monotonic() + 60 * minutes
        while any(queues) and time.monotonic() < deadline:
            for outcome, queue in zip(outcomes, queues, strict=True):
                if queue:
                    self._one(outcome, queue.pop(), traced)
        return outcomes

    def _one(self, outcome: Outcome, mutant: mutator.Mutant, traced: dict[str, Any]) -> None:
        start = time.monotonic()
        found = self._verdicts.get(outcome.file, mutant)
        if found is None:
            found = self.is_noticed(outcome.file, mutant, traced)
            self._verdicts.keep(outcome.file, mutant, found)
        outcome.hours += (time.monotonic() - start) / 3600
        name = f"{outcome.file}:{mutant.line} {' '.join(mutant.key.split())}"
        if found == "survived":
            outcome.survived.append(name)
        else:
            outcome.killed += 1
            if found == "timed out":
                outcome.timed_out.append(name)
        if found != "killed":
            self._say(f"{found}: {name}")


def run(
    minutes: float,
    *,
    seed: int = 1,
    files: list[str] | None = None,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """As many mutants as time allows, all files in turn, in an order that the seed fixes."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = pathlib.Path(name)
        copy_checkout(folder)
        cache = ROOT / "build" / "campaign" / "trace.json"
        return Campaign(folder, say).run(files or list(FILES), minutes, seed, cache)
