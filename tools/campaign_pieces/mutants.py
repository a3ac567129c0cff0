"""Mutation testing: small changes to Python files, each of which some test should notice.

A copy of the checkout stands in a temporary folder, with the installed extension beside its Python
files. The tests run once there under a trace, which tells those that run each line; a mutant is
put into the copy, and the tests of its line run in a fork (`forked_tests`): those first that have
found a mutant of the same function, then the quick ones, of each test function one case first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from . import mutator
from .forked_tests import Result, TestProcesses, changes_functions_only

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "python/specdec_native"
API_TESTS = [
    "tests/api/test_hidden_states.py",
    "tests/api/test_native_arguments.py",
    "tests/api/test_refusals.py",
    *(f"tests/api/test_{name}.py" for name in (
        "api", "api_chat", "api_drafters", "api_stream", "auto", "cancel", "drafter_options",
        "embedded_models", "extras", "generate_many", "grammar", "kept_prompts", "life", "no_cache",
        "options", "verifier_api",
    )),
    "tests/core/test_calibration.py",
]  # fmt: skip
BENCH_TESTS = [
    "tests/studies/test_tools_bench_common.py",
    "tests/studies/test_tools_bench_llama_cpp.py",
    "tests/studies/test_tools_bench_studies.py",
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
QUICK_TESTS = 15
BATCH = 30  # mutants in one process, those that die at once
FIRST_CASES, QUICK_SECONDS = 4, 0.25  # of a test function: which of its cases are run at all
LONGEST_SECONDS = 20.0  # of tests for one mutant, of a processor
COPIED = ("python", "tests", "tools", "docs", "pyproject.toml", "README.md", "CHANGELOG.md",
          "CMakeLists.txt", "cpp", ".github", "cmake", "packages", "SECURITY.md",
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


def fingerprint(paths: Iterable[pathlib.Path]) -> str:
    found = hashlib.sha256()
    for path in sorted(paths):
        found.update(path.read_bytes())
    return found.hexdigest()


def _trace_file(processes: TestProcesses, tests: list[str]) -> dict[str, dict[str, Any]]:
    """Of test functions with many cases that take long only some: the others tell mostly the
    same."""
    cases: dict[str, list[str]] = {}
    for test in tests:
        cases.setdefault(test.split("[")[0], []).append(test)
    found = processes.trace([test for group in cases.values() for test in group[:FIRST_CASES]])
    more = []
    for group in cases.values():
        seconds = statistics.median(found[test]["seconds"] for test in group[:FIRST_CASES])
        more += group[FIRST_CASES:] if seconds < QUICK_SECONDS else []
    return {**found, **(processes.trace(more) if more else {})}


def trace(processes: TestProcesses, cache: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What each test runs. What is known of a file of tests is good as long as neither it nor the
    code changes."""
    code = [*(ROOT / "python").rglob("*.py"), *(ROOT / "tools").glob("*.py")]
    of = [fingerprint([*code, *(ROOT / "tests").glob("*.py")]), *sorted(FILES)]
    kept: dict[str, Any] = json.loads(cache.read_text("utf-8")) if cache.exists() else {}
    if kept.get("of") != of:
        kept = {"of": of, "tests": {}}
    by_file: dict[str, list[str]] = {}
    for test in processes.tests:
        by_file.setdefault(test.split("::")[0], []).append(test)
    prints = {file: fingerprint([ROOT / file]) for file in by_file}
    traced: dict[str, dict[str, Any]] = {}
    for file, tests in by_file.items():
        if kept["tests"].get(file, {}).get("of") != prints[file]:
            found = _trace_file(processes, tests)
            # What importing runs; other files are imported for other tests.
            lines = {**kept.get("imports", {}), **found.pop("")["lines"]}
            kept["imports"] = lines
            kept["tests"][file] = {"of": prints[file], "found": found}
            cache.parent.mkdir(parents=True, exist_ok=True)
            cache.write_text(json.dumps(kept), encoding="utf-8")
        traced |= kept["tests"][file]["found"]
    return {"": {"lines": kept["imports"], "seconds": 0.0, "passed": True}, **traced}


def lines_of(mutant: mutator.Mutant) -> range:
    n_lines = mutant.old.count("\n")
    if mutant.kind in ("condition", "comparison", "boolean", "arithmetic", "constant"):
        n_lines = min(n_lines, 3)
    return range(mutant.line, mutant.line + n_lines + 1)


def runs_on_import(traced: dict[str, dict[str, Any]], file: str, lines: range) -> bool:
    return bool(set(traced.get("", {}).get("lines", {}).get(file, ())) & set(lines))


def tests_of(
    traced: dict[str, dict[str, Any]], file: str, lines: range, first: Iterable[str]
) -> list[str]:
    """The tests that run one of the lines, in the order of `in_turn`; those of imports: all of the
    file.

    `first`: those that come first if they are among them; those that read the file come even
    before.
    """
    on_import = runs_on_import(traced, file, lines)
    chosen = []
    for test, entry in traced.items():
        run = set(entry["lines"].get(file, ()))
        if test and entry["passed"] and (run if on_import else run & set(lines)):
            chosen.append((entry["seconds"], test))
    ordered = in_turn([test for _, test in sorted(chosen)])
    before = [test for test in READERS.get(file, []) if test in traced]
    before += [test for test in first if test in set(ordered) - set(before)]
    return [*before, *(test for test in ordered if test not in set(before))]


def in_turn(tests: list[str]) -> list[str]:
    """Of each test function the first case, then of each the second, and so on."""
    seen: dict[str, int] = {}
    ranked = []
    for test in tests:
        name = test.split("[")[0]
        seen[name] = seen.get(name, 0) + 1
        ranked.append((seen[name], test))
    return [test for _, test in sorted(ranked, key=lambda pair: pair[0])]


def stages(traced: dict[str, dict[str, Any]], tests: list[str]) -> Iterator[list[str]]:
    if not tests:
        return  # nothing runs that line
    yield tests[:QUICK_TESTS]
    left, seconds = [], 0.0
    for test in tests[QUICK_TESTS:]:
        if seconds + traced[test]["seconds"] > LONGEST_SECONDS:
            continue  # there may be quicker ones behind it
        seconds += traced[test]["seconds"]
        left.append(test)
    if left:
        yield sorted(left)  # by file: their fixtures are made once


class Verdicts:
    """What became of mutants of files that are as they were, and how long it took to find out, so
    that a run goes on where another stopped. Those that died stay dead when tests are added; of
    those that survived nothing is kept.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._kept: dict[str, tuple[str, float]] = {}
        if path.exists():
            self._kept = json.loads(path.read_text("utf-8"))

    @staticmethod
    def _key(file: str, mutant: mutator.Mutant) -> str:
        source = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]
        return f"{file} {source} {mutant.start} {mutant.key}"

    def get(self, file: str, mutant: mutator.Mutant) -> tuple[str, float] | None:
        return self._kept.get(self._key(file, mutant))

    def keep(self, file: str, mutant: mutator.Mutant, found: str, seconds: float) -> None:
        if found == "survived":
            return
        self._kept[self._key(file, mutant)] = (found, round(seconds, 1))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps(self._kept), encoding="utf-8")


class Campaign:
    def __init__(self, folder: pathlib.Path, say: Callable[[str], None]) -> None:
        self._say = say
        self._folder = folder
        self._verdicts = Verdicts(ROOT / "build" / "campaign" / "verdicts.json")
        self._killers: dict[str, list[str]] = {}  # function -> tests, the latest first
        self.equivalent: dict[str, dict[str, str]] = json.loads(EQUIVALENT.read_text("utf-8"))

    def is_noticed(
        self,
        processes: TestProcesses,
        file: str,
        mutant: mutator.Mutant,
        traced: dict[str, Any],
    ) -> Result:
        """A result whose `code` is 0 when it survived."""
        path = self._folder / file
        source = path.read_bytes()
        changed = mutant.apply(source)
        function = f"{file} {mutant.where}"
        killers = self._killers.setdefault(function, [])
        lines = lines_of(mutant)
        tests = tests_of(traced, file, lines, killers)
        # What importing runs may have run a function, too.
        anew = not changes_functions_only(source, changed)
        sources = (str(self._folder / "before.py"), str(self._folder / "after.py"))
        for name, text in zip(sources, (source, changed), strict=True):
            pathlib.Path(name).write_bytes(text)
        result = Result(0)
        try:
            path.write_bytes(changed)
            self._forget(path)
            readers = [test for test in READERS.get(file, []) if test in tests]
            if anew and readers:
                result = processes.run(readers, 60)
            ways = [anew, True] if runs_on_import(traced, file, lines) else [anew]
            for from_start in sorted(set(ways)):
                for chosen in stages(traced, tests):
                    if result.code != 0:
                        break
                    seconds = 10 + 5 * sum(traced[test]["seconds"] for test in chosen)
                    if from_start:
                        result = processes.run_anew(chosen, 20 + seconds)
                    else:
                        result = processes.run(chosen, seconds, str(path), sources)
        finally:
            path.write_bytes(source)
            self._forget(path)
        if result.killer:
            killers[:] = [result.killer, *(test for test in killers if test != result.killer)][:4]
        return result

    @staticmethod
    def _forget(path: pathlib.Path) -> None:
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink(missing_ok=True)

    def run(
        self, files: list[str], minutes: float, seed: int, cache: pathlib.Path
    ) -> list[Outcome]:
        tests = sorted({test for file in files for test in FILES[file]})
        names = {str(self._folder / name): name for name in FILES}
        with TestProcesses(self._folder, names, tests) as processes:
            traced = trace(processes, cache)
            failing = [test for test, entry in traced.items() if not entry["passed"]]
            self._say(f"{len(traced) - 1} tests traced, {len(failing)} do not pass: {failing}")
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
            for outcome, queue in zip(outcomes, queues, strict=True):
                self._batches(processes, outcome.file, queue, traced, deadline)
            while any(queues) and time.monotonic() < deadline:
                for outcome, queue in zip(outcomes, queues, strict=True):
                    if queue:
                        self._one(processes, outcome, queue.pop(), traced)
        return outcomes

    def _batches(
        self,
        processes: TestProcesses,
        file: str,
        queue: list[mutator.Mutant],
        traced: dict[str, Any],
        deadline: float,
    ) -> None:
        """Finds those that die at once, many in one process: the quick tests of each. What becomes
        of the others is found out one by one."""
        path = self._folder / file
        source = path.read_bytes()
        (self._folder / "before.py").write_bytes(source)
        left = [m for m in queue if self._verdicts.get(file, m) is None]
        left = [m for m in left if not runs_on_import(traced, file, lines_of(m))]
        killers: list[str] = []
        while left and time.monotonic() < deadline:
            start = time.monotonic()
            batch, left = left[:BATCH], left[BATCH:]
            changes = []
            for mutant in batch:
                tests = tests_of(traced, file, lines_of(mutant), killers)[: QUICK_TESTS * 2]
                quick = [test for test in tests if traced[test]["seconds"] < QUICK_SECONDS]
                changes.append((mutant.apply(source).decode(), quick))
            found = processes.run_batch(str(path), str(self._folder / "before.py"), changes, 90)
            seconds = (time.monotonic() - start) / max(len(found), 1)
            for mutant, killer in zip(batch, found, strict=False):
                if killer:
                    self._verdicts.keep(file, mutant, "killed", seconds)
                    killers = [killer, *(test for test in killers if test != killer)][:4]
            left = batch[len(found) + 1 :] + left  # the one where it ended is tried alone

    def _one(
        self,
        processes: TestProcesses,
        outcome: Outcome,
        mutant: mutator.Mutant,
        traced: dict[str, Any],
    ) -> None:
        known = self._verdicts.get(outcome.file, mutant)
        if known is None:
            start = time.monotonic()
            code = self.is_noticed(processes, outcome.file, mutant, traced).code
            found = "timed out" if code is None else "killed" if code else "survived"
            known = (found, time.monotonic() - start)
            self._verdicts.keep(outcome.file, mutant, *known)
        found, seconds = known
        outcome.hours += seconds / 3600
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
    if importlib.util.find_spec("coverage") is None:
        say("coverage is not installed, mutants are left out: pip install coverage")
        return []
    with tempfile.TemporaryDirectory(prefix="mutants-") as name:
        folder = pathlib.Path(name)
        copy_checkout(folder)
        cache = ROOT / "build" / "campaign" / "trace.json"
        return Campaign(folder, say).run(files or list(FILES), minutes, seed, cache)
