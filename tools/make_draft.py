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
import pathlib
import sys

import training_options as options


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
    add("--outtype", choices=options.OUTTYPES, default="q8_0")
    add("--name", help="general.name of the file")
    options.add_text(parser)
    training = options.add_training(
        parser, context=256, batch_tokens=6144, learning_rate=2e-3, vocab_subset=8192
    )
    training.add_argument("--dropout", type=float, default=0.1)
    options.add_measurement(parser)
    args = parser.parse_args()
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    if args.intermediate is None:
        args.intermediate = 3 * args.hidden_size
    options.check_numbers(
        parser,
        args,
        (
            ("hidden_size", 16, 8192), ("layers", 1, 64), ("heads", 1, 128),
            ("intermediate", 16, 32768), ("head_tokens", 0, 2**30),
        ),
    )  # fmt: skip
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
    options.check_paths(parser, args, "the draft")


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
