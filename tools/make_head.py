#!/usr/bin/env python3
"""Makes an EAGLE-3 head for any model this project runs: one layer that reads what the target's
layers say of a token and drafts what it will say next.

    python tools/make_head.py TARGET.gguf HEAD.gguf --tokens 1000000 --minutes 120
    python tools/make_head.py TARGET.gguf HEAD.gguf --data texts/ --resume

The target writes texts (--tokens, --text-minutes), kept in the folder --data with what its layers
say of them; the head is trained on them for --minutes and measured on texts that it has not seen.
Every stage can be interrupted: text is kept round by round, training is saved at once (Ctrl-C,
SIGTERM) and goes on with --resume. Needs PyTorch and gguf: pip install torch gguf. See
docs/make_head.md.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

import training_options as options

DRAFT_TOKENS = 16384


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("target", type=pathlib.Path, help="GGUF file of the target")
    add("out", type=pathlib.Path, help="GGUF file to write; a card OUT.md goes with it")
    add = parser.add_argument_group("the head").add_argument
    add(
        "--layers",
        type=int,
        nargs=3,
        metavar=("LOW", "MIDDLE", "HIGH"),
        help="of the target, whose inputs the head reads; default: 2, half of them, 3 from the end",
    )
    add(
        "--draft-tokens",
        type=int,
        metavar="N",
        help=f"most frequent ids it drafts; default: {DRAFT_TOKENS}",
    )
    add("--intermediate", type=int, help="width of the feed-forward part; default: the target's")
    add(
        "--init",
        type=pathlib.Path,
        metavar="HEAD.gguf",
        help="begin with the weights, layers and ids of a head that this program made for the "
        "target, instead of the target's own",
    )
    add("--outtype", choices=options.OUTTYPES, default="q8_0", help="of the matrices")
    add(
        "--output-type",
        choices=options.OUTTYPES,
        help="of the output matrix, most of the file; default: --outtype",
    )
    add("--name", help="general.name of the file")
    options.add_text(parser)
    training = options.add_training(
        parser, context=384, batch_tokens=4096, learning_rate=6e-4, vocab_subset=2048
    )
    training.add_argument(
        "--depth", type=int, default=4, help="drafts in a row that training is for"
    )
    options.add_measurement(parser)
    return parser


def arguments() -> argparse.Namespace:
    parser = make_parser()
    args = parser.parse_args()
    check(parser, args)
    return args


def check(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    args.output_type = args.output_type or args.outtype
    for option in ("layers", "draft_tokens", "intermediate"):
        if args.init is not None and getattr(args, option) is not None:
            name = option.replace("_", "-")
            parser.error(f"--{name} is of --init's head, give one of both")
    if args.draft_tokens is None:
        args.draft_tokens = DRAFT_TOKENS
    options.check_numbers(parser, args, (("draft_tokens", 16, 2**30), ("depth", 1, 16)))
    if args.intermediate is not None and not 16 <= args.intermediate <= 2**17:
        parser.error(f"--intermediate must be 16 to {2**17}, got {args.intermediate}")
    if args.layers and not options.are_head_layers(args.layers):
        shown = " ".join(map(str, args.layers))
        parser.error(f"--layers must be three ascending numbers from 0, got {shown}")
    card = {"its card": args.out.with_suffix(".md")}
    options.check_paths(parser, args, "the head", card, {"--init": args.init})


def main() -> int:
    args = arguments()
    try:
        import head_job
        from training_safety import run_tool
    except ImportError as error:
        raise SystemExit(f"{error}: make_head.py needs pip install torch gguf numpy") from None
    except KeyboardInterrupt:
        return 130
    return run_tool(
        "make_head.py",
        lambda: head_job.run(args),
        "the same command with --resume goes on",
    )


if __name__ == "__main__":
    sys.exit(main())
