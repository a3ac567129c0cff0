#!/usr/bin/env python3
"""Checks a GPU in about ten minutes, without network: tests, sanitizer, kernels, models.

    pip install . -C cmake.define.SPECDEC_CUDA=ON -C cmake.define.SPECDEC_TESTS=ON
    python tools/check_gpu.py [-m MODEL.gguf [-md DRAFT.gguf]] [--json gpu-check.json]

Tables go to standard output, section by section, everything measured into the JSON file. Without
-m it takes the models that `specdec-native pull` left, else a model of random weights with the
shape of a 1.5B one, and the small pair that comes with the package.

Sections: tests (pytest -m cuda), sanitizer (compute-sanitizer, where it is installed), kernels
(times of single operations), models (passes, generation, a model that fits by half). Each runs in a
process of its own; what a failing one found before is kept.

--wheels FOLDER is for a machine with a GPU, Python and nothing else: what is missing comes from
wheels in that folder (docs/cuda.md lists them), without network or pip.

Exit codes: 0, all ran and every gate is met; 1, not so; 2, no GPU or no build to check it with.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from bench_common import machine, progress, write_report
from gpu_check import outside, report, section, wheels

ROOT = pathlib.Path(__file__).resolve().parent.parent
SECTIONS = ("tests", "sanitizer", "kernels", "models")
SHAPES = ("tiny", "0.5b", "1.5b", "8b")  # gpu_check.synthetic's
# The folder of a run with --wheels, which this process started anew with what it unpacked.
UNPACKED = "SPECDEC_CHECK_GPU_UNPACKED"
# Of the whole time; what a section leaves is the others'.
SHARES = {"tests": 0.25, "sanitizer": 0.25, "kernels": 0.25, "models": 0.25}
KERNEL_TESTS = ("test_cuda_fragments", "test_cuda_kernels", "test_cuda_kernels_attention")


def find_pairs(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The models to measure: target, draft or "", name, and which random one it is."""

    def pair(target: object, draft: object = "", random: str = "") -> dict[str, Any]:
        name = f"random weights, {random}" if random else pathlib.Path(str(target)).name
        return {"name": name, "target": str(target), "draft": str(draft), "synthetic": random}

    pairs = []
    if args.model:
        pairs.append(pair(args.model, args.draft or ""))
    pairs += [pair("", "", name) for name in args.synthetic]
    if not pairs and args.emulated:
        pairs.append(pair("", "", "tiny"))
    if pairs:
        return pairs
    from specdec_native import embedded, embedded_draft
    from specdec_native.download import models_dir

    found = sorted(models_dir().glob("*.gguf"))
    small = [f for f in found if "0.5b" in f.name]
    for file in found:
        if "1.5b" in file.name:
            pairs.append(pair(file, small[0] if small else ""))
        elif "smollm2" in file.name.lower():
            pairs.append(pair(file, embedded_draft("smollm2")))
    if not pairs:
        pairs.append(pair("", "", "1.5b"))
    own = embedded()
    return [*pairs, pair(own.target, own.draft)]


def sanitizer_pair() -> dict[str, Any]:
    from specdec_native import embedded

    own = embedded()
    return {"target": str(own.target), "draft": str(own.draft)}


def specdec_binary() -> str | None:
    beside = pathlib.Path(sys.executable).parent / "specdec"
    return str(beside) if beside.exists() else shutil.which("specdec")


def read_prompts(files: Sequence[pathlib.Path]) -> dict[str, str]:
    from gpu_check import models

    if not files:
        return models.PROMPTS
    prompts = {}
    for file in files:
        try:
            prompts[file.stem] = file.read_text("utf-8").removesuffix("\n")
        except (OSError, UnicodeDecodeError) as problem:
            raise SystemExit(f"{file} cannot be read: {problem}") from None
    return prompts


def section_options(name: str, args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {
        "section": name,
        "device": "emulated" if args.emulated else "cuda",
        "tiny": args.emulated,
    }
    if name == "models":
        from gpu_check import models

        options |= {
            "pairs": find_pairs(args),
            "prompts": read_prompts(args.prompt),
            "max_tokens": args.max_tokens,
            "n_ctx": 1024 if args.emulated else models.CONTEXT,
        }
    if name in ("tests", "sanitizer"):
        options |= {
            "tests": str(ROOT / "tests"),
            "test_files": args.test_file or outside.gpu_tests(ROOT / "tests"),
            "sanitizer_tests": KERNEL_TESTS,
        }
    if name == "sanitizer":
        options |= {"sanitizer_pair": sanitizer_pair(), "specdec": specdec_binary()}
    return options


def run_section(name: str, options: dict[str, Any], seconds: float) -> dict[str, Any]:
    """In a process of its own, which is ended when it takes much too long."""
    with tempfile.TemporaryDirectory() as folder:
        found = pathlib.Path(folder) / "found.json"
        given = pathlib.Path(folder) / "options.json"
        given.write_text(json.dumps({**options, "seconds": seconds}), "utf-8")
        command = [sys.executable, __file__, "--section", name, str(given), str(found)]
        start = time.monotonic()
        code, output = outside.run_limited(command, seconds + 60)
        data: dict[str, Any] = {"errors": [], "skipped": []}
        if found.exists():
            data = json.loads(found.read_text("utf-8"))
        if code != 0:
            why = "took too long and was ended" if code is None else f"ended with exit code {code}"
            data["errors"].append(f"{name}: {why}: {output.strip()[-1500:]}")
        data["seconds"] = round(time.monotonic() - start, 1)
        return data


def work(name: str, options_file: str, found_file: str) -> None:
    """The inside of run_section()."""
    from gpu_check import kernels, models

    options = json.loads(pathlib.Path(options_file).read_text("utf-8"))
    module = {"kernels": kernels, "models": models}.get(name, outside)
    module.run(section.Report(pathlib.Path(found_file), options["seconds"]), options)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n", maxsplit=1)[0],
        epilog='Described in docs/cuda.md, section "Check a GPU".',
    )
    parser.add_argument("-m", "--model", type=pathlib.Path, help="the model to measure")
    parser.add_argument("-md", "--draft", type=pathlib.Path, help="its draft model")
    parser.add_argument(
        "--synthetic", action="append", default=[], choices=SHAPES,
        help="a model of random weights of this shape (repeatable): passes only",
    )  # fmt: skip
    parser.add_argument(
        "--prompt", type=pathlib.Path, action="append", default=[], help="a file (repeatable)"
    )
    parser.add_argument("--max-tokens", type=int, default=128, help="per generation (default 128)")
    parser.add_argument("--only", default="", help="sections to run, with commas between them")
    parser.add_argument("--skip", default="", help="sections to leave out")
    parser.add_argument("--minutes", type=float, default=10, help="for all of it (default 10)")
    parser.add_argument("--json", type=pathlib.Path, default=pathlib.Path("gpu-check.json"))
    parser.add_argument(
        "--wheels", type=pathlib.Path, metavar="FOLDER",
        help="wheels of what this machine lacks; without the package's own it is built",
    )  # fmt: skip
    parser.add_argument("--test-file", action="append", help="instead of all tests (repeatable)")
    parser.add_argument(
        "--emulated", action="store_true",
        help="tiny sizes on the emulated device, for a test of this program: times mean nothing",
    )  # fmt: skip
    args = parser.parse_args(arguments)
    chosen = args.only.split(",") if args.only else list(SECTIONS)
    left_out = args.skip.split(",") if args.skip else []
    for name in (*chosen, *left_out):
        if name not in SECTIONS:
            parser.error(f"'{name}' is no section; there are {', '.join(SECTIONS)}")
    args.sections = [s for s in SECTIONS if s in chosen and s not in left_out]
    if args.draft and not args.model:
        parser.error("-md needs -m")
    if args.max_tokens < 1 or args.minutes <= 0:
        parser.error("--max-tokens and --minutes must be positive")
    for file in (args.model, args.draft):
        if file is not None and not file.is_file():
            parser.error(f"{file} is not there")
    return args


def start_with_wheels(args: argparse.Namespace, given: Sequence[str]) -> None:
    """Begins again with what the wheels bring."""
    work = pathlib.Path(tempfile.mkdtemp(prefix="check-gpu-"))
    try:
        environment = wheels.prepare(args.wheels, work, args.emulated)
    except BaseException:
        shutil.rmtree(work)
        raise
    environment[UNPACKED] = str(work)
    os.execve(sys.executable, [sys.executable, __file__, *given], environment)


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    outside.exit_when_ended()
    if given[:1] == ["--section"]:
        work(*given[1:])
        return 0
    args = parse(given)
    unpacked = os.environ.pop(UNPACKED, None)
    if unpacked is not None:
        atexit.register(shutil.rmtree, unpacked, ignore_errors=True)
    try:
        if args.wheels and unpacked is None:
            start_with_wheels(args, given)
        module = section.native()
        device = {"name": "emulated"} if args.emulated else section.require_gpu(module)
    except section.Missing as problem:
        print(f"check_gpu: {problem}", file=sys.stderr)
        return 2
    everything: dict[str, Any] = {
        "kind": "gpu-check",
        "machine": machine(0),
        "device": device,
        "driver": outside.driver(),
        "emulated": args.emulated,
    }
    print(report.head(everything), flush=True)
    end = time.monotonic() + 60 * args.minutes
    for i, name in enumerate(args.sections):
        left = end - time.monotonic()
        ahead = sum(SHARES[s] for s in args.sections[i:])
        seconds = max(5.0, left * SHARES[name] / ahead)
        progress(f"{name}: at most {seconds:.0f} seconds")
        everything[name] = run_section(name, section_options(name, args), seconds)
        print(report.section(name, everything), flush=True)
        write_report(args.json, everything)
    gates = report.gates(everything)
    everything["gates"] = gates
    write_report(args.json, everything)
    print(report.summary(everything), flush=True)
    problems = any(everything[s]["errors"] for s in args.sections)
    return 1 if problems or any(gate["passed"] is False for gate in gates) else 0


if __name__ == "__main__":
    sys.exit(main())
