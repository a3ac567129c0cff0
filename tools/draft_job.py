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
from training_safety import (
    NotSaved,
    ToolError,
    check_finite,
    save_bytes,
    save_torch,
    stop_on_request,
    tell,
)


def say(text: str) -> None:
    tell(f"{time.strftime('%H:%M:%S')} {text}", sys.stderr)


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


def load_state(
    path: pathlib.Path, shape: DraftShape, vocabulary: str | None = None
) -> dict[str, Any] | None:
    """None before the first one was saved. `vocabulary`: the target's, as a digest."""
    try:
        state = torch.load(path, weights_only=True)
        found = DraftShape(**state["shape"])
    except FileNotFoundError:
        return None
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ToolError(f"{path}: cannot be read ({reason}); train without --resume") from None
    if found != shape:
        raise ToolError(
            f"{path}: is of {found}, expected {shape}: give the same sizes, or do not --resume"
        )
    if vocabulary is not None and state.get("vocabulary", vocabulary) != vocabulary:
        raise ToolError(f"{path}: is of a target with another vocabulary; do not --resume")
    return dict(state)


def begin(
    trainer: draft_train.Trainer, path: pathlib.Path, shape: DraftShape, vocabulary: str
) -> None:
    """From the saved state if there is one."""
    state = load_state(path, shape, vocabulary)
    if state is None:
        say(f"{path}: nothing was saved yet, begins afresh")
        return
    try:
        trainer.restore(state)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ToolError(f"{path}: is damaged ({error!r}); train without --resume") from None
    check_finite(trainer.draft.parameters(), f"{path}: the training")


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
    vocabulary = draft_data.fingerprint(args.target)["vocabulary_sha256"]
    if args.resume:
        begin(trainer, args.state, shape, vocabulary)

    def save_all() -> None:
        check_finite(draft.parameters(), "the training")
        save_torch(args.state, trainer.state() | {"vocabulary": vocabulary})
        write(draft)

    def save_now_and_then() -> None:
        found = draft_train.evaluate(draft, held_out, 4000)
        say(f"held out: loss {found['loss']:.3f}, best token found {found['agreement']:.3f}")
        try:
            save_all()
        except NotSaved as error:  # there may be room again in three minutes
            say(f"{error}; goes on all the same")

    n_parameters = sum(p.numel() for p in draft.parameters())
    say(
        f"draft: {n_parameters / 1e6:.2f} million weights, "
        f"{(n_parameters - draft.embedding.numel()) / 1e6:.2f} of them not in the embedding; "
        f"{len(texts)} texts"
    )
    with stop_on_request(say) as stopped:
        trainer.run(say, save_now_and_then, stopped)
        save_all()
        if stopped():
            say(f"step {trainer.n_steps}, epoch {trainer.epoch:.1f}: saved as {args.state}")
        stopped.raise_again()
    return trainer


def run(args: argparse.Namespace) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        _run(args)
    except sd.SpecdecError as error:
        raise ToolError(str(error)) from None


def _run(args: argparse.Namespace) -> None:
    model = sd.Model(args.target, n_threads=args.threads)
    prompts = {}
    if args.eval is not None:  # before hours of work
        prompts[args.eval.name] = draft_measure.file_prompts(model, args.eval, args.eval_count)
    store = write_texts(args, model)
    if args.text_only:
        return
    target = Target(args.target)
    learnt, held_out = draft_train.split(list(store.load()))
    if not learnt or not held_out:
        raise ToolError(f"{args.data}: too little text to learn from: give more --tokens")
    name = args.name or f"{model.info.name or args.target.stem} draft"

    def write(draft: Draft, path: pathlib.Path = args.out) -> None:
        write_draft(draft, target, path, args.outtype, name, args.head_tokens)

    trainer = train(args, target, learnt, held_out, write)
    say(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")
    report = draft_measure.measure(
        args, model, trainer, held_out, target.embedding, write, say, prompts
    )
    print(draft_measure.table(report))
    if args.report:
        save_bytes(args.report, json.dumps(report, indent=1).encode() + b"\n")
