#!/usr/bin/env python3
"""Makes a draft model for any model this project runs: a small LLaMA of the same vocabulary that
has learnt to say what the target says.

    python tools/make_draft.py TARGET.gguf DRAFT.gguf --minutes 60 --tokens 1000000
    python tools/make_draft.py TARGET.gguf DRAFT.gguf --data texts/ --resume
    specdec generate -m TARGET.gguf -md DRAFT.gguf -p "..."

The target writes texts (--tokens, --text-minutes), kept in the folder --data; the draft is trained
on them for --minutes and compared with an untrained one and with n-grams on texts it has not seen
and on your own prompts (--eval). Every stage can be interrupted: text is kept round by round,
training is saved at once (Ctrl-C, SIGTERM) and goes on with --resume. Needs PyTorch and gguf:
pip install torch gguf. See docs/make_draft.md.
"""

from __future__ import annotations

import argparse
import math
import os
import pathlib
import sys

OUTTYPES = ("f32", "f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("target", type=pathlib.Path, help="GGUF file of the target")
    add("out", type=pathlib.Path, help="GGUF file to write")
    shape = parser.add_argument_group("the draft")
    add = shape.add_argument
    add("--hidden-size", type=int, default=128)
    add("--layers", type=int, default=2)
    add("--heads", type=int, default=4)
    add("--intermediate", type=int, help="width of the feed-forward part; default: 3 x hidden size")
    add(
        "--head-tokens",
        type=int,
        default=0,
        metavar="N",
        help="written into the file: ids below N and those of the text are drafted; 0: all",
    )
    add("--outtype", choices=OUTTYPES, default="q8_0")
    add("--name", help="general.name of the file")
    text = parser.add_argument_group("text")
    add = text.add_argument
    add("--data", type=pathlib.Path, help="folder of the target's texts; default: OUT.data")
    add("--tokens", type=int, default=1_000_000, help="that the target writes")
    add("--text-minutes", type=float, default=240, help="longest time for that")
    add("--answer-tokens", type=int, default=200, help="longest answer")
    add("--parallel", type=int, default=16, help="texts written at once")
    add("--text-only", action="store_true", help="end when the text is written")
    training = parser.add_argument_group("training")
    add = training.add_argument
    add("--minutes", type=float, default=30, help="longest time for training")
    add("--epochs", type=float, default=20, help="most passes over the text")
    add("--context", type=int, default=256, help="tokens of a training text")
    add("--batch-tokens", type=int, default=6144)
    add("--learning-rate", type=float, default=2e-3)
    add(
        "--precision",
        choices=("auto", "f32", "bf16"),
        default="auto",
        help="of the multiplications; auto: bf16 where the processor has instructions for it",
    )
    add("--dropout", type=float, default=0.1)
    add(
        "--vocab-subset",
        type=int,
        default=8192,
        metavar="N",
        help="the N most frequent ids are in every training step's output head, others by chance",
    )
    add("--resume", action="store_true", help="go on from OUT.state, if it is there")
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="of target and training; default: one per core")
    measure = parser.add_argument_group("measurement")
    add = measure.add_argument
    add(
        "--eval",
        type=pathlib.Path,
        metavar="FILE",
        help="prompts: a text file, or JSON lines with `prompt`, `turns` or `messages`",
    )
    add("--eval-count", type=int, default=12, help="prompts of each kind")
    add("--eval-tokens", type=int, default=96)
    add("--report", type=pathlib.Path, help="write all figures there as JSON")
    args = parser.parse_args()
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.intermediate is None:
        args.intermediate = 3 * args.hidden_size
    if args.data is None:
        args.data = args.out.with_name(args.out.name + ".data")
    for name, low, high in (
        ("hidden_size", 16, 8192), ("layers", 1, 64), ("heads", 1, 128),
        ("intermediate", 16, 32768), ("tokens", 1, 10**10), ("answer_tokens", 8, 4096),
        ("parallel", 1, 64), ("context", 16, 8192), ("batch_tokens", 64, 10**6),
        ("vocab_subset", 1, 10**7), ("eval_count", 1, 10**4), ("eval_tokens", 8, 4096),
        ("seed", 0, 2**31), ("head_tokens", 0, 2**30),
    ):  # fmt: skip
        value = getattr(args, name)
        if not low <= value <= high:
            parser.error(f"--{name.replace('_', '-')} must be {low} to {high}, got {value}")
    for name, most in (
        ("text_minutes", 10**6), ("minutes", 10**6), ("epochs", 10**6), ("learning_rate", 1),
    ):  # fmt: skip
        value = getattr(args, name)
        if not (math.isfinite(value) and 0 < value <= most):
            option = name.replace("_", "-")
            parser.error(f"--{option} must be above 0 and at most {most}, got {value}")
    if args.threads is not None and not 1 <= args.threads <= 1024:
        parser.error(f"--threads must be 1 to 1024, got {args.threads}")
    if not 0 <= args.dropout < 1:
        parser.error(f"--dropout must be 0 to less than 1, got {args.dropout}")
    head_dim, rest = divmod(args.hidden_size, args.heads)
    if rest or head_dim % 2:
        parser.error(
            f"--hidden-size {args.hidden_size} must be --heads ({args.heads}) times an even number"
        )
    if args.outtype[0] == "q" and (args.hidden_size % 32 or args.intermediate % 32):
        parser.error(
            f"--outtype {args.outtype} needs sizes that are multiples of 32, got --hidden-size "
            f"{args.hidden_size} and --intermediate {args.intermediate}; or use f16"
        )
    check_paths(parser, args)


def check_paths(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Before hours of work: what is read is there, what is written can be, and none is another."""
    args.state = args.out.with_name(args.out.name + ".state")
    written = {"the draft": args.out, "its state": args.state, "--report": args.report}
    for what, path in written.items():
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            parser.error(f"{what}: {path.parent}: there is no such folder")
        if not os.access(folder, os.W_OK):
            parser.error(f"{what}: {path.parent}: nothing can be written there")
        if path.is_symlink() or (path.exists() and not path.is_file()):
            parser.error(f"{what}: {path}: is there and is no file")
    if args.data.exists() and not args.data.is_dir():
        parser.error(f"--data {args.data}: is no folder")
    if args.eval is not None and not args.eval.is_file():
        parser.error(f"--eval {args.eval}: there is no such file")
    places: dict[pathlib.Path, str] = {}
    named = {"the target": args.target, "--data": args.data, "--eval": args.eval, **written}
    for what, path in named.items():
        if path is None:
            continue
        other = places.setdefault(path.resolve(), what)
        if (what, other) == ("the draft", "the target"):
            parser.error("the draft would overwrite its target")
        if other != what:
            parser.error(f"{what} and {other} are both {path}")
    if args.out.exists() and args.target.exists() and args.out.samefile(args.target):
        parser.error("the draft would overwrite its target")
    if args.name is not None:
        try:
            args.name.encode()
        except UnicodeEncodeError:
            parser.error("--name is not Unicode text")


def main() -> int:
    args = arguments()
    try:
        import draft_job
        from training_safety import run_tool
    except ImportError as error:
        raise SystemExit(f"{error}: make_draft.py needs pip install torch gguf numpy") from None
    except KeyboardInterrupt:
        return 130
    return run_tool(
        "make_draft.py",
        lambda: draft_job.run(args),
        "the same command with --resume goes on",
    )


if __name__ == "__main__":
    sys.exit(main())
