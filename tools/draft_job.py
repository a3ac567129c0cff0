"""From a target to a draft, stage by stage: text, training, file, measurement."""

from __future__ import annotations

import argparse
import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

import draft_data
import draft_measure
import draft_train
import specdec_native as sd
from draft_gguf import Target, write_draft
from draft_net import Draft, DraftShape


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
    held_out: list[draft_data.Text],
    write: Callable[[Draft], None],
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
        dropout=args.dropout,
        n_common=min(args.vocab_subset, shape.vocab_size),
        bf16=args.precision == "bf16" or (args.precision == "auto" and draft_train.has_bf16()),
        seed=args.seed,
    )
    counts = draft_train.frequencies(texts, shape.vocab_size)
    draft = draft_train.new_draft(shape, target.embedding, counts, args.seed)
    trainer = draft_train.Trainer(draft, texts, options)
    state_path = args.out.with_name(args.out.name + ".state")
    if args.resume:
        trainer.restore(load_state(state_path, shape))

    def save() -> None:
        found = draft_train.evaluate(draft, held_out, 4000)
        say(f"held out: loss {found['loss']:.3f}, best token found {found['agreement']:.3f}")
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


def run(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    model = sd.Model(args.target, n_threads=args.threads)
    store = write_texts(args, model)
    if args.text_only:
        return
    target = Target(args.target)
    learnt, held_out = draft_train.split(list(store.load()))
    name = args.name or f"{model.info.name or args.target.stem} draft"

    def write(draft: Draft, path: pathlib.Path = args.out) -> None:
        write_draft(draft, target, path, args.outtype, name, args.head_tokens)

    trainer = train(args, target, learnt, held_out, write)
    say(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")
    report = draft_measure.measure(args, model, trainer, held_out, target.embedding, write, say)
    print(draft_measure.table(report))
    if args.report:
        args.report.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
