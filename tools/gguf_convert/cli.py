"""The command line of convert_hf_to_gguf.py."""

from __future__ import annotations

import argparse
import pathlib
import sys

from .atomic_file import Terminated, signals_as_exceptions
from .checkpoint import Checkpoint
from .element_types import OUTTYPES, tensor_bytes
from .errors import ConvertError, short
from .gguf_file import Typed, file_bytes
from .hub import resolve
from .parts import parse_limits
from .pipeline import Plan, check_outtype, make_plan, run

EXIT_USAGE, EXIT_BAD_INPUT, EXIT_INTERRUPTED = 2, 3, 130


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="convert_hf_to_gguf.py",
        description="Converts a Hugging Face checkpoint to GGUF: LLaMA, Qwen, Gemma 3 and others.",
    )
    p.add_argument(
        "checkpoint", help="a checkpoint folder, or a repository id ORG/NAME to download"
    )
    p.add_argument("output", nargs="?", type=pathlib.Path, help="the GGUF file to write")
    p.add_argument(
        "--outtype",
        default="f16",
        help=f"type of the matrices: {', '.join(t.lower() for t in OUTTYPES)} (default f16)",
    )
    p.add_argument(
        "--dry-run", action="store_true", help="print the plan and the size, write nothing"
    )
    p.add_argument("--name", help="general.name of the file (default: the checkpoint's name)")
    p.add_argument(
        "--pre-tokenizer", metavar="NAME", help="how words are split, where it is not recognised"
    )
    p.add_argument(
        "--ignore-key",
        action="append",
        default=[],
        metavar="KEY",
        help="a key of config.json that surely does not change what the model computes",
    )
    p.add_argument(
        "--target",
        type=pathlib.Path,
        metavar="MODEL",
        help="of an EAGLE-3 head: its target, a GGUF file or a checkpoint folder",
    )
    p.add_argument("--revision", help="branch, tag or commit of a repository id")
    p.add_argument(
        "--split-max-size",
        metavar="N(K|M|G)",
        help="write parts OUT-00001-of-0000N.gguf with tensors of at most so much (powers of 1000)",
    )
    p.add_argument(
        "--split-max-tensors", type=int, metavar="N", help="write parts of at most N tensors"
    )
    p.add_argument("--quiet", action="store_true", help="no progress, no notes")
    return p


def print_plan(plan: Plan) -> None:
    arch = plan.keys["general.architecture"]
    print(f"architecture {arch}, {len(plan.targets)} tensors")
    for key, value in plan.keys.items():
        if isinstance(value, Typed):
            value = value.value
        if isinstance(value, (list, bytes)) or "chat_template" in key:
            value = f"{type(value).__name__} of {len(value)}"
        print(f"  {key} = {short(value)}")
    rows = [("tensor", "from", "shape", "type", "bytes")]
    for target in plan.targets:
        source = target.source.name + (" (rows reordered)" if target.row_order is not None else "")
        shape = "x".join(map(str, target.shape))
        kinds = f"{target.source.dtype} -> {target.dtype}"
        rows.append((target.name, source, shape, kinds, str(tensor_bytes(target))))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    for row in rows:
        print(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    n_parts = len(plan.parts)
    if n_parts > 1:
        sizes = ", ".join(f"{file_bytes(*part) / 1e6:.1f} MB" for part in plan.parts)
        print(f"{n_parts} parts: {sizes}")
    n_parameters = sum(target.n_elements for target in plan.targets)
    if plan.is_native:
        print(f"then the native quantiser makes {plan.outtype} of it; its size is known afterwards")
    print(f"total: {n_parameters} parameters, {plan.n_bytes} bytes ({plan.n_bytes / 1e6:.1f} MB)")


def _main(arguments: list[str] | None) -> int:
    p = parser()
    options = p.parse_args(arguments)
    if options.output is None and not options.dry_run:
        p.error("an output file is needed, or --dry-run")
    outtype = check_outtype(options.outtype)
    limits = parse_limits(options.split_max_size, options.split_max_tensors)
    if options.revision is not None and pathlib.Path(options.checkpoint).exists():
        p.error(f"--revision is for a repository id, but {options.checkpoint} is a path")
    folder = resolve(options.checkpoint, options.revision)
    with Checkpoint(folder) as checkpoint:
        plan = make_plan(
            checkpoint,
            outtype,
            name=options.name,
            pre_tokenizer=options.pre_tokenizer,
            ignored_keys=tuple(options.ignore_key),
            target=options.target,
        )
        plan.limits = limits
        if not options.quiet:
            for note in plan.notes:
                print(f"note: {note}", file=sys.stderr)
        if options.dry_run:
            print_plan(plan)
            return 0
        written = run(plan, checkpoint, options.output, progress=not options.quiet)
    if not options.quiet:
        size = sum(path.stat().st_size for path in written)
        files = f" in {len(written)} files" if len(written) > 1 else ""
        n_tensors = len(plan.targets)
        print(f"{written[0]}: {size} bytes{files}, {n_tensors} tensors", file=sys.stderr)
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The exit code: 0, 2 for wrong usage, 3 for bad input, 128 + signal when interrupted."""
    try:
        with signals_as_exceptions():
            return _main(arguments)
    except ConvertError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except (OSError, MemoryError) as error:
        print(f"error: {error or type(error).__name__}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Terminated as signal:
        print("terminated: nothing was written", file=sys.stderr)
        return 128 + signal.number
