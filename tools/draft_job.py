"""From a target to a draft, stage by stage: text, training, file, measurement."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import draft_data
import draft_measure
import draft_train
import specdec_native as sd
from draft_gguf import Target, write_draft
from draft_net import Draft, DraftShape
from target_fingerprint import fingerprint
from training_job import (
    begin,
    eval_prompts,
    keep_training,
    load_state,
    run_with_threads,
    say,
    write_texts,
)
from training_safety import ToolError, save_bytes

__all__ = ["begin", "load_state", "run"]


def draft_shape(args: argparse.Namespace, target: Target) -> DraftShape:
    return DraftShape(
        vocab_size=len(target.embedding),
        hidden_size=args.hidden_size,
        n_layers=args.layers,
        n_heads=args.heads,
        intermediate_size=args.intermediate,
    )


def train(
    args: argparse.Namespace,
    target: Target,
    made_for: Mapping[str, Any],
    texts: list[draft_data.Text],
    held_out: list[draft_data.Text],
    write: Callable[[Draft], None],
) -> draft_train.Trainer:
    shape = draft_shape(args, target)
    options = draft_train.TrainOptions(
        dropout=args.dropout,
        n_common=min(args.vocab_subset, shape.vocab_size),
        **draft_train.options_of(args),
    )
    counts = draft_train.frequencies(texts, shape.vocab_size)
    draft = draft_train.new_draft(shape, target.embedding, counts, args.seed)
    trainer = draft_train.Trainer(draft, texts, options)
    if args.resume:
        begin(trainer, args.state, load_state(args.state, shape, made_for))

    def how_good() -> str:
        found = draft_train.evaluate(draft, held_out, 4000)
        return f"loss {found['loss']:.3f}, best token found {found['agreement']:.3f}"

    n_parameters = sum(p.numel() for p in draft.parameters())
    say(
        f"draft: {n_parameters / 1e6:.2f} million weights, "
        f"{(n_parameters - draft.embedding.numel()) / 1e6:.2f} of them not in the embedding; "
        f"{len(texts)} texts"
    )
    keep_training(trainer, args.state, made_for, lambda: write(draft), how_good)
    return trainer


def run(args: argparse.Namespace) -> None:
    run_with_threads(args, _run)


def _run(args: argparse.Namespace) -> None:
    model = sd.Model(args.target, n_threads=args.threads)
    made_for = fingerprint(args.target)
    prompts = eval_prompts(args, model)
    target = Target(args.target)
    if args.resume:  # before hours of work, as all that can be refused
        load_state(args.state, draft_shape(args, target), made_for)
    store = write_texts(args, model, made_for)
    if args.text_only:
        return
    learnt, held_out = draft_train.split(list(store.load()))
    if not learnt or not held_out:
        raise ToolError(f"{args.data}: too little text to learn from: give more --tokens")
    name = args.name or f"{model.info.name or args.target.stem} draft"

    def write(draft: Draft, path: pathlib.Path = args.out) -> None:
        write_draft(draft, target, path, args.outtype, name, args.head_tokens)

    trainer = train(args, target, made_for, learnt, held_out, write)
    say(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")
    report = draft_measure.measure(
        args, model, trainer, held_out, target.embedding, write, say, prompts
    )
    print(draft_measure.table(report))
    if args.report:
        save_bytes(args.report, json.dumps(report, indent=1).encode() + b"\n")
