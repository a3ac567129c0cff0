"""Options that make_draft.py and make_head.py share, and the checks before hours of work."""

from __future__ import annotations

import argparse
import math
import os
import pathlib
from collections.abc import Iterable, Sequence

OUTTYPES = ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
WHOLE = (
    ("tokens", 1, 10**10), ("answer_tokens", 8, 4096), ("parallel", 1, 64), ("context", 16, 8192),
    ("batch_tokens", 64, 10**6), ("vocab_subset", 1, 10**7), ("seed", 0, 2**31),
    ("eval_count", 1, 10**4), ("eval_tokens", 8, 4096),
)  # fmt: skip
POSITIVE = (
    ("text_minutes", 10**6), ("minutes", 10**6), ("epochs", 10**6), ("learning_rate", 1),
)  # fmt: skip


def add_text(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("text").add_argument
    add("--data", type=pathlib.Path, help="folder of the target's texts; default: OUT.data")
    add(
        "--prompts",
        type=pathlib.Path,
        metavar="FILE",
        help="your prompts, answered once each in half of the texts while there are any: JSON "
        "lines with `prompt`, `turns` or `messages`",
    )
    add("--tokens", type=int, default=1_000_000, help="that the target writes")
    add("--text-minutes", type=float, default=240, help="longest time for that")
    add("--answer-tokens", type=int, default=200, help="longest answer")
    add("--parallel", type=int, default=16, help="texts written at once")
    add("--text-only", action="store_true", help="end when the text is written")


def add_training(
    parser: argparse.ArgumentParser,
    *,
    context: int,
    batch_tokens: int,
    learning_rate: float,
    vocab_subset: int,
) -> argparse._ArgumentGroup:
    group = parser.add_argument_group("training")
    add = group.add_argument
    add("--minutes", type=float, default=30, help="longest time for training")
    add("--epochs", type=float, default=20, help="most passes over the text")
    add("--context", type=int, default=context, help="tokens of a training text")
    add("--batch-tokens", type=int, default=batch_tokens)
    add("--learning-rate", type=float, default=learning_rate)
    add(
        "--precision",
        choices=("auto", "f32", "bf16"),
        default="auto",
        help="of the multiplications; auto: bf16 where the processor has instructions for it",
    )
    add(
        "--vocab-subset",
        type=int,
        default=vocab_subset,
        metavar="N",
        help="the N most frequent ids are in every training step's output head, others by chance",
    )
    add("--resume", action="store_true", help="go on from OUT.state, if it is there")
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="of target and training; default: one per core")
    return group


def add_measurement(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("measurement").add_argument
    add(
        "--eval",
        type=pathlib.Path,
        metavar="FILE",
        help="prompts: a text file, or JSON lines with `prompt`, `turns` or `messages`",
    )
    add("--eval-count", type=int, default=12, help="prompts of each kind")
    add("--eval-tokens", type=int, default=96)
    add("--report", type=pathlib.Path, help="write all figures there as JSON")


def are_head_layers(layers: Sequence[int]) -> bool:
    """Whether a head can read the target's layers of these numbers: three, ascending."""
    return len(layers) == 3 and layers[0] >= 0 and sorted(set(layers)) == list(layers)


def check_numbers(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    whole: Iterable[tuple[str, int, int]],
) -> None:
    """`whole`: further options with their least and greatest values."""
    for name, low, high in (*whole, *WHOLE):
        value = getattr(args, name)
        if not low <= value <= high:
            parser.error(f"--{name.replace('_', '-')} must be {low} to {high}, got {value}")
    for name, most in POSITIVE:
        value = getattr(args, name)
        if not (math.isfinite(value) and 0 < value <= most):
            option = name.replace("_", "-")
            parser.error(f"--{option} must be above 0 and at most {most}, got {value}")
    if args.threads is not None and not 1 <= args.threads <= 1024:
        parser.error(f"--threads must be 1 to 1024, got {args.threads}")


def check_paths(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    what: str,
    also_written: dict[str, pathlib.Path] | None = None,
    also_read: dict[str, pathlib.Path | None] | None = None,
) -> None:
    """What is read is there, what is written can be, and none is another. Fills in `args.data` and
    `args.state`. `what`: is made, "the draft"."""
    if args.data is None:
        args.data = args.out.with_name(args.out.name + ".data")
    args.state = args.out.with_name(args.out.name + ".state")
    written = {what: args.out, "its state": args.state, "--report": args.report}
    written |= also_written or {}
    for part, path in written.items():
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            parser.error(f"{part}: {path.parent}: there is no such folder")
        if not os.access(folder, os.W_OK):
            parser.error(f"{part}: {path.parent}: nothing can be written there")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            parser.error(f"{part}: {path}: is there and is no file")
    if args.data.exists() and not args.data.is_dir():
        parser.error(f"--data {args.data}: is no folder")
    read = {"--eval": args.eval, "--prompts": args.prompts, **(also_read or {})}
    for option, path in read.items():
        if path is not None and not path.is_file():
            parser.error(f"{option} {path}: there is no such file")
    places: dict[pathlib.Path, str] = {}
    named = {"the target": args.target, "--data": args.data, **read, **written}
    for part, path in named.items():
        if path is None:
            continue
        other = places.setdefault(path.resolve(), part)
        if (part, other) == (what, "the target"):
            parser.error(f"{what} would overwrite its target")
        if other != part:
            parser.error(f"{part} and {other} are both {path}")
    if args.out.exists() and args.target.exists() and args.out.samefile(args.target):
        parser.error(f"{what} would overwrite its target")
    if args.name is not None:
        try:
            args.name.encode()
        except UnicodeEncodeError:
            parser.error("--name is not Unicode text")
