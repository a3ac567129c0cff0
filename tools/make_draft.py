#!/usr/bin/env python3
"""Makes a draft model for any model this project runs: a small LLaMA of the same vocabulary that
has learnt to say what the target says.

    python tools/make_draft.py TARGET.gguf DRAFT.gguf --minutes 60 --tokens 1000000
    python tools/make_draft.py TARGET.gguf DRAFT.gguf --data texts/ --resume
    specdec generate -m TARGET.gguf -md DRAFT.gguf -p "..."

The target writes texts (--tokens, --text-minutes), kept in the folder --data; the draft is trained
on them for --minutes and compared with an untrained one and with n-grams on texts it has not seen
and on your own prompts (--eval). Every stage can be interrupted: text is kept round by round,
training with --resume. Needs PyTorch and gguf: pip install torch gguf. See docs/make_draft.md.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from typing import TYPE_CHECKING, Any

import specdec_native as sd

try:
    import draft_data
    import draft_measure
    import draft_train
    import torch
    from draft_gguf import OUTTYPES, Target, write_draft
    from draft_net import DraftShape
except ImportError as error:
    raise SystemExit(f"{error}: make_draft.py needs pip install torch gguf numpy") from None

if TYPE_CHECKING:
    from collections.abc import Callable


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
    add("--vocab-subset", type=int, default=8192, metavar="N",
        help="the N most frequent ids are in every training step's output head, others by chance")
    add("--resume", action="store_true", help="go on from OUT.state")
    add("--seed", type=int, default=0)
    add("--threads", type=int, help="of target and training; default: one per core")
    measure = parser.add_argument_group("measurement")
    add = measure.add_argument
    add("--eval", type=pathlib.Path, metavar="FILE",
        help="prompts: a text file, or JSON lines with `prompt`, `turns` or `messages`")
    add("--eval-count", type=int, default=12, help="prompts of each kind")
    add("--eval-tokens", type=int, default=96)
    add("--head-tokens", type=int, help="ids that the draft may say when measured (head_tokens)")
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
        ("hidden_size", 16, 8192), ("layers", 1, 64), ("heads", 1, 128), ("intermediate", 16, 32768),
        ("tokens", 1, 10**10), ("answer_tokens", 8, 4096), ("parallel", 1, 64), ("context", 16, 8192),
        ("batch_tokens", 64, 10**6), ("vocab_subset", 1, 10**7), ("eval_count", 1, 10**4),
        ("eval_tokens", 8, 4096), ("seed", 0, 2**31),
    ):  # fmt: skip
        value = getattr(args, name)
        if not low <= value <= high:
            parser.error(f"--{name.replace('_', '-')} must be {low} to {high}, got {value}")
    for name in ("text_minutes", "minutes", "epochs", "learning_rate"):
        if not getattr(args, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {getattr(args, name)}")
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
    if not args.out.absolute().parent.is_dir():
        parser.error(f"{args.out.parent}: there is no such folder")
    if args.out.exists() and args.target.exists() and args.out.samefile(args.target):
        parser.error("the draft would overwrite its target")
    if args.eval is not None and not args.eval.is_file():
        parser.error(f"--eval {args.eval}: there is no such file")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def write_texts(args: argparse.Namespace, model: sd.Model) -> draft_data.Store:
    store = draft_data.Store(
        args.data,
        draft_data.fingerprint(args.target),
        {"seed": args.seed, "answer_tokens": args.answer_tokens},
    )
    writer = draft_data.Writer(
        model, seed=args.seed, n_parallel=args.parallel, answer_tokens=args.answer_tokens
    )
    n = draft_data.generate(
        writer,
        store,
        n_tokens=args.tokens,
        deadline=time.monotonic() + 60 * args.text_minutes,
        progress=say,
    )
    say(f"text: {n} tokens in {args.data}")
    return store


def load_state(path: pathlib.Path, shape: DraftShape) -> dict[str, Any]:
    try:
        state = torch.load(path, weights_only=True)
        found = DraftShape(**state["shape"])
    except FileNotFoundError:
        raise SystemExit(f"{path}: there is nothing to resume") from None
    except Exception as error:
        raise SystemExit(f"{path}: cannot be read ({error}); train without --resume") from None
    if found != shape:
        raise SystemExit(
            f"{path}: is of {found}, expected {shape}: give the same sizes, or do not --resume"
        )
    return dict(state)


def train(
    args: argparse.Namespace,
    target: Target,
    texts: list[draft_data.Text],
    write: Callable[[draft_train.Draft], None],
) -> draft_train.Trainer:
    shape = DraftShape(
        vocab_size=len(target.embedding),
        hidden_size=args.hidden_size,
        n_layers=args.layers,
        n_heads=args.heads,
        intermediate_size=args.intermediate,
    )
    options = draft_train.TrainOptions(
        minutes=args.minutes,
        epochs=args.epochs,
        context=args.context,
        batch_tokens=args.batch_tokens,
        learning_rate=args.learning_rate,
        n_common=min(args.vocab_subset, shape.vocab_size),
        seed=args.seed,
    )
    counts = draft_train.frequencies(texts, shape.vocab_size)
    draft = draft_train.new_draft(shape, target.embedding, counts, args.seed)
    trainer = draft_train.Trainer(draft, texts, options)
    state_path = args.out.with_name(args.out.name + ".state")
    if args.resume:
        trainer.restore(load_state(state_path, shape))

    def save() -> None:
        draft_train.save_state(state_path, trainer.state())
        write(draft)

    n_parameters = sum(p.numel() for p in draft.parameters())
    say(
        f"draft: {n_parameters / 1e6:.2f} million weights, "
        f"{(n_parameters - draft.embedding.numel()) / 1e6:.2f} of them not in the embedding; "
        f"{len(texts)} texts"
    )
    trainer.run(say, save)
    return trainer


def main() -> None:
    args = arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        model = sd.Model(args.target, n_threads=args.threads)
        store = write_texts(args, model)
        if args.text_only:
            return
        target = Target(args.target)
        learnt, held_out = draft_train.split(list(store.load()))
        name = args.name or f"{model.info.name or args.target.stem} draft"

        def write(draft: draft_train.Draft, path: pathlib.Path = args.out) -> None:
            write_draft(draft, target, path, args.outtype, name)

        trainer = train(args, target, learnt, write)
        say(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")
        report = draft_measure.measure(args, model, trainer, held_out, target.embedding, write, say)
    except sd.SpecdecError as error:
        raise SystemExit(f"make_draft.py: {error}") from None
    print(draft_measure.table(report))
    if args.report:
        args.report.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
