"""Other programs: what the driver says, the tests, compute-sanitizer."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from typing import Any

from .section import Report

SMI_FIELDS = (
    *("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm"),
    *("clocks.max.memory", "temperature.gpu", "ecc.mode.current", "mig.mode.current"),
)


def driver() -> dict[str, str]:
    """What nvidia-smi says of the first GPU, else what the kernel's module does."""
    found: dict[str, str] = {}
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        command = [tool, f"--query-gpu={','.join(SMI_FIELDS)}", "--format=csv,noheader", "-i", "0"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
            values = done.stdout.splitlines()[0].split(", ")
            found = dict(zip(SMI_FIELDS, values, strict=False))
        except (OSError, subprocess.SubprocessError, IndexError):
            pass
    if not found:
        try:
            version = pathlib.Path("/proc/driver/nvidia/version").read_text("utf-8")
            found["driver_version"] = version.splitlines()[0].split("Module")[-1].strip()
        except (OSError, IndexError):
            pass
    return found


def run_limited(command: list[str], seconds: float, **more: Any) -> tuple[int | None, str]:
    """Exit code (None: it took too long, and was ended with all it started) and output."""
    termination.starting = True
    child = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        start_new_session=True, **more,
    )  # fmt: skip
    try:
        termination.starting = False
        termination.check()
        output, _ = child.communicate(timeout=seconds)
        return child.returncode, output
    except subprocess.TimeoutExpired:
        return None, end(child)
    except BaseException:  # Ctrl-C, or this program is ended: what it started goes with it
        end(child)
        raise


def end(child: subprocess.Popen[str]) -> str:
    """Ends a child of run_limited() with all it started; the rest of its output."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, number)
            return child.communicate(timeout=2 if number == signal.SIGTERM else None)[0]
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    return child.communicate()[0]


class Termination:
    """SIGTERM as an exception, so that children are ended too; not while one is being started,
    when nobody knows it yet."""

    def __init__(self) -> None:
        self.starting = False
        self.due = False

    def handle(self, *_: object) -> None:
        self.due = True
        if not self.starting:
            self.check()

    def check(self) -> None:
        if self.due:
            sys.exit(128 + signal.SIGTERM)


termination = Termination()


def exit_when_ended() -> None:
    """Lets SIGTERM end this program with all it has started."""
    signal.signal(signal.SIGTERM, termination.handle)


# In the text of files with tests that a GPU can run.
OF_GPU = re.compile(r"\bkernel_device\b|mark\.cuda\b|def test\w*\([^)]*\bdevice\b")


def gpu_tests(tests: pathlib.Path) -> list[str]:
    """Files with tests for a GPU: others may need packages that a bare machine lacks."""
    return [
        str(file)
        for file in sorted(tests.rglob("test_*.py"))
        if OF_GPU.search(file.read_text("utf-8"))
    ]


def pytest_cuda(
    options: dict[str, Any], files: list[str], seconds: float, environment: dict[str, str]
) -> tuple[dict[str, Any], str]:
    """Results of pytest -m cuda, and its output."""
    folder = pathlib.Path(options["tests"])
    with tempfile.TemporaryDirectory() as temporary:
        xml = pathlib.Path(temporary) / "results.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-m", "cuda", "-p", "no:cacheprovider"),
            *("--continue-on-collection-errors", "-o", "junit_family=xunit1"),
            *(f"--junitxml={xml}", f"--rootdir={folder.parent}", *files),
        ]
        # One process, in order: options of the caller's own pytest are not for this one.
        environment = {**os.environ, "PYTEST_ADDOPTS": "", **environment}
        code, output = run_limited(command, seconds, cwd=folder.parent, env=environment)
        found: dict[str, Any] = {"exit_code": code, "failures": []}
        if xml.exists():
            found |= read_results(xml)
    return found, output


def run_tests(report: Report, options: dict[str, Any], seconds: float) -> None:
    """Counts, and the first lines of what failed; whether it also fails without early starts."""
    start = time.monotonic()
    found, output = pytest_cuda(options, options["test_files"], seconds, {})
    report.set("tests", found)
    code = found["exit_code"]
    if code is None:
        report.error("pytest -m cuda", f"took more than {seconds:.0f} seconds")
    elif code not in (0, 1):
        report.error("pytest -m cuda", f"exit code {code}: {output.strip()[-1500:]}")
    files = sorted({failure["file"] for failure in found["failures"]})
    left = seconds - (time.monotonic() - start)
    if files and left > 10 and os.environ.get("SPECDEC_CUDA_EARLY_START") != "0":
        again, _ = pytest_cuda(options, files, left, {"SPECDEC_CUDA_EARLY_START": "0"})
        found["failed_without_early_start"] = again.get("failed")
        report.set("tests", found)


def read_results(xml: pathlib.Path) -> dict[str, Any]:
    """Counts of a JUnit file, and names with messages of failures."""
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    failures = []
    reasons: dict[str, int] = {}
    for case in ElementTree.parse(xml).getroot().iter("testcase"):
        file = case.get("file") or f"{(case.get('classname') or '').replace('.', '/')}.py"
        name = f"{pathlib.Path(file).stem}::{case.get('name')}"
        problem = case.find("failure")
        problem = case.find("error") if problem is None else problem
        skipped = case.find("skipped")
        if problem is not None:
            counts["failed"] += 1
            message = (problem.get("message") or "")[:400]
            failures.append({"name": name, "file": file, "message": message})
        elif skipped is not None:
            counts["skipped"] += 1
            reason = skipped.get("message") or ""
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            counts["passed"] += 1
    return {**counts, "failures": failures, "skip_reasons": reasons}


def generation_command(options: dict[str, Any]) -> list[str] | None:
    """A short generation with drafts: passes of several rows, recorded and played ones."""
    binary = options["specdec"]
    if binary is None:
        return None
    pair = options["sanitizer_pair"]
    command = [binary, "generate", "-q", "--device", "cuda", "-m", pair["target"]]
    if pair["draft"]:
        command += ["-md", pair["draft"], "--drafter", "model"]
    return [*command, "-p", "def f(x):", "-n", "24", "--temp", "0", "--ignore-eos", "-c", "512"]


def run_sanitizer(report: Report, options: dict[str, Any]) -> None:
    """compute-sanitizer's memcheck and racecheck over a generation, memcheck over kernel tests."""
    tool = shutil.which("compute-sanitizer")
    if tool is None:
        report.set("sanitizer", [])
        report.add("skipped", "compute-sanitizer is not on PATH")
        return
    generation = generation_command(options)
    if generation is None:
        report.add("skipped", "compute-sanitizer: the program `specdec` is not installed")
    kernels = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "cuda", "-p", "no:cacheprovider"]
    kernels += [f"tests/kernels/{name}.py" for name in options["sanitizer_tests"]]
    jobs = [
        ("memcheck", "generation", generation),
        ("racecheck", "generation", generation),
        ("memcheck", "kernel tests", kernels),
    ]
    report.set("sanitizer", [])
    for i, (check, what, command) in enumerate(jobs):
        name = f"{check}, {what}"
        if command is None or report.late(name):
            continue
        code, output = run_limited(
            [tool, "--tool", check, "--error-exitcode", "86", *command],
            max(5.0, report.end - time.monotonic()) / (len(jobs) - i),
            cwd=pathlib.Path(options["tests"]).parent,
        )
        report.add("sanitizer", {"check": check, "what": what, **read_sanitizer(code, output)})


def read_sanitizer(code: int | None, output: str) -> dict[str, Any]:
    """What a run found: the number of its summary, or why there is none."""
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (\d+)", output)
    lines = [line for line in output.splitlines() if line.startswith("=========")]
    if summary and code in (0, 86):
        found = int(summary[-1])
        return {"found": found, "clean": found == 0 and code == 0, "lines": lines[:30]}
    reason = "took too long" if code is None else f"exit code {code}"
    told = "\n".join(lines[-8:]) or output.strip()[-600:]
    return {"found": None, "clean": None, "reason": f"{reason}: {told}", "lines": lines[:30]}


def run(report: Report, options: dict[str, Any]) -> None:
    if options["section"] == "tests":
        run_tests(report, options, options["seconds"])
    else:
        run_sanitizer(report, options)
