#!/usr/bin/env python3
"""Build the command, the extension and the test modules with sanitizers and run the tests.

    python tools/run_sanitizers.py                 # everything: an hour or two on two cores
    python tools/run_sanitizers.py --quick         # what CI runs: a few minutes
    python tools/run_sanitizers.py asan -- -k gguf # one sanitizer, arguments for pytest

`asan` is address and undefined behaviour, `tsan` threads. GCC or Clang, CMake, Ninja and the
package's test dependencies must be there. Builds in build/asan and build/tsan, with a copy of the
package in build/asan/stage; nothing is installed. The kernels of each instruction set this machine
has are run by themselves, and a generation with each.

Ends with 1 at the first finding. Leaks are looked for in the command only: Python keeps memory.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ROOT / "models"
RUNTIME = {"asan": "libasan.so", "tsan": "libtsan.so"}
OPTIONS = {
    "asan": {
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99:allocator_may_return_null=1"
        ":detect_stack_use_after_return=1:strict_string_checks=1:handle_abort=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1:exitcode=99",
    },
    "tsan": {"TSAN_OPTIONS": "halt_on_error=1:exitcode=99:second_deadlock_stack=1"},
}
# The loader, which is not instrumented, frees what a thread that ended had as thread_local.
SUPPRESSIONS = "race:_dl_deallocate_tls\n"
# Kernels that every processor can run only have to compile: with sanitizers GCC takes fewer
# expressions for constants.
SCALAR = [
    f"cpp/backend/CMakeFiles/specdec_backend.dir/cpu/{unit}_scalar{part}.cc.o"
    for unit, part in (("matmul", "_q32"), ("ops", ""))
]
# The quick run: untrusted files, mappings and threads, in what builds within minutes.
QUICK_TARGETS = {
    "asan": ["_testing_base", "_testing_gguf", "_testing_grammar", *SCALAR],
    "tsan": ["_testing_base"],
}
GRAMMARS = ("schemas", "patterns", "what_cannot_be_followed_is_told", "gbnf_errors_say_where")
QUICK_TESTS = {
    "asan": [
        *("tests/core/test_thread_pool.py", "tests/core/test_control_groups.py"),
        "tests/core/test_gguf_malformed.py::test_malformed_file_has_its_documented_outcome",
        *(f"tests/core/test_native_grammar.py::test_{name}" for name in GRAMMARS),
    ],
    "tsan": ["tests/core/test_thread_pool.py"],
}
# They limit memory or descriptors, which sanitizers need more of, or measure memory; or look at the
# built package; or build and run programs of their own, without sanitizers; or take minutes each
# (all kernels, every option once more).
DESELECT = [
    *(
        "tests/kernels/test_aarch64.py",
        "tests/kernels/test_check_gpu.py",
        "tests/kernels/test_cuda_build.py",
    ),
    *(
        "tests/kernels/test_emulated_cpus.py",
        "tests/kernels/test_isa_leaks.py",
        "tests/kernels/test_one_definition.py",
    ),
    *("tests/core/test_out_of_memory.py", "tests/api/test_package.py"),
    *(
        "tests/api/test_options_arrive.py",
        "tests/cli/test_options_arrive_cli.py::"
        "test_another_value_of_a_flag_changes_something[bench-bench.kernels]",
    ),
    "tests/core/test_gguf_malformed.py::test_a_million_keys_are_read_in_linear_time_and_memory",
    "tests/core/test_chat_hostile.py::test_hostile_templates_need_little_memory",
    "tests/core/test_file_kinds.py::test_no_more_descriptors_is_a_matter_of_resources",
]


def run(command: list[str], **settings: str) -> None:
    shown = [f"{k}={v}" for k, v in settings.items() if k.startswith("SPECDEC_CPU")]
    print("+", *shown, *command, flush=True)
    # In files: pytest swallows what a process of its own says on its way out.
    with tempfile.TemporaryDirectory() as folder:
        for name in settings.keys() & {"ASAN_OPTIONS", "UBSAN_OPTIONS", "TSAN_OPTIONS"}:
            settings[name] += f":log_path={folder}/finding"
        if "TSAN_OPTIONS" in settings:
            suppressions = Path(folder, "suppressions")
            suppressions.write_text(SUPPRESSIONS)
            settings["TSAN_OPTIONS"] += f":suppressions={suppressions}"
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False)
        for path in sorted(Path(folder).glob("finding*")) if done.returncode != 0 else []:
            print(path.read_text(errors="replace"), flush=True)
    if done.returncode != 0:
        sys.exit(f"exit status {done.returncode}: {' '.join(command)}")


def build(name: str, targets: list[str], jobs: int) -> Path:
    folder = ROOT / "build" / name
    run(
        [
            *("cmake", "--preset", name, "-DSPECDEC_PYTHON=ON"),
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11_dir()}",
        ]
    )
    command = ["cmake", "--build", str(folder), "--parallel", str(jobs)]
    run([*command, "--target", *targets] if targets else command)
    return folder


def pybind11_dir() -> str:
    command = [sys.executable, "-m", "pybind11", "--cmakedir"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def stage(name: str, folder: Path) -> Path:
    """A package of the Python files and what was built, to stand before the installed one."""
    target = folder / "stage"
    shutil.rmtree(target, ignore_errors=True)
    package = target / "specdec_native"
    shutil.copytree(ROOT / "python" / "specdec_native", package)
    shutil.copytree(MODELS, package / "models")
    libraries = target / "modules"
    libraries.mkdir()
    for library in [*folder.glob("cpp/bindings/*.so"), *folder.glob("tests/native/*.so")]:
        shutil.copy(library, package if library.name.startswith("_core") else libraries)
    # Leaks of the command count; the options of Python's own process do not ask for them.
    wrapper = target / "specdec"
    options = (
        OPTIONS.get(name, {}).get("ASAN_OPTIONS", "").replace("detect_leaks=0", "detect_leaks=1")
    )
    setting = f'ASAN_OPTIONS="{options}" ' if options else ""
    wrapper.write_text(
        f'#!/bin/sh\nunset LD_PRELOAD\n{setting}exec {prefix()}{folder}/cpp/cli/specdec "$@"\n'
    )
    wrapper.chmod(0o755)
    return target


def prefix() -> str:
    """Without it the thread sanitizer may find its memory taken."""
    return f"setarch {platform.machine()} -R " if shutil.which("setarch") else ""


def instruction_sets(binary: Path) -> list[str]:
    done = subprocess.run(
        [str(binary), "--version"],
        env={**os.environ, "SPECDEC_CPU_ISA": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"can run: (.*)", done.stderr)
    return found[1].strip().split(", ") if found else [""]


def kernels_and_generations(name: str, folder: Path) -> None:
    settings = dict(OPTIONS[name])
    selftest = folder / "specdec_kernel_selftest"
    if selftest.exists():
        run([*prefix().split(), str(selftest)], **settings)
    wrapper = folder / "stage" / "specdec"
    if not (folder / "cpp" / "cli" / "specdec").exists():
        return
    pair = [*("-m", str(MODELS / "pycode-llama-5m.q8_0.gguf"))]
    pair += ["-md", str(MODELS / "pycode-llama-draft.q8_0.gguf")]
    for isa in instruction_sets(wrapper):
        for repack in ("auto", "off"):
            command = [str(wrapper), "generate", *pair, "-p", "def add(a, b):", "-n", "16"]
            command += ["-t", "3", "-q", "--repack", repack]
            run(command, SPECDEC_CPU_ISA=isa, **settings)


def runtime_library(name: str) -> Path:
    command = [os.environ.get("CXX", "g++"), f"-print-file-name={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()).resolve()


def pytest(name: str, staged: Path, arguments: list[str]) -> None:
    # The standard library too: the runtime must find what it intercepts when it starts.
    preload = f"LD_PRELOAD={runtime_library(RUNTIME[name])}:{runtime_library('libstdc++.so.6')}"
    # `env` sets it for Python alone: setarch must not load it.
    command = [*prefix().split(), "env", preload, sys.executable]
    command += ["-m", "pytest", "-q", "-p", "no:faulthandler", "-p", "no:cacheprovider", *arguments]
    # Without an extension of its own, the installed package serves.
    has_core = any((staged / "specdec_native").glob("_core*"))
    settings = {"PYTHONMALLOC": "malloc", "SPECDEC_TEST_MODULES": str(staged / "modules")}
    # Downloaded models are large: with them it would take a day.
    settings["SPECDEC_MODELS"] = str(staged / "no-models")
    if has_core:
        path = [str(staged), os.environ.get("PYTHONPATH", "")]
        settings |= {"PYTHONPATH": os.pathsep.join(path), "SPECDEC_BIN": str(staged / "specdec")}
    run(command, **settings, **OPTIONS[name])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sanitizers", nargs="*", help="asan, tsan (default: both)")
    parser.add_argument("--quick", action="store_true", help="the part that CI runs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:split])
    extra = sys.argv[split + 1 :]
    unknown = set(args.sanitizers) - set(RUNTIME)
    if unknown:
        parser.error(f"there are {', '.join(RUNTIME)}, not {', '.join(sorted(unknown))}")
    for name in args.sanitizers or list(RUNTIME):
        folder = build(name, QUICK_TARGETS[name] if args.quick else [], args.jobs)
        staged = stage(name, folder)
        kernels_and_generations(name, folder)
        if args.quick:
            pytest(name, staged, [*QUICK_TESTS[name], *extra])
        else:
            skipped = [f"--deselect={path}" for path in DESELECT]
            pytest(name, staged, [*skipped, *(extra or ["tests"])])
    print("no findings")


if __name__ == "__main__":
    main()
