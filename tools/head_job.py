"""From a target to an EAGLE-3 head, stage by stage: text, taps, training, file, measurement."""

from __future__ import annotations

import argparse
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import torch

import draft_train
import head_card
import head_measure
import head_train
import specdec_native as sd
from draft_gguf import Target, write_model
from head_data import TappedText, Taps, default_layers
from head_init import FirstHead
from head_net import Head, HeadShape
from target_fingerprint import fingerprint
from training_job import (
    begin,
    damage_named,
    eval_prompts,
    keep_training,
    load_state,
    run_with_threads,
    say,
    write_texts,
)
from training_safety import ToolError, save_bytes


def head_shape(args: argparse.Namespace, target: Target, model: sd.Model) -> HeadShape:
    """The target's sizes, but the output; `--intermediate` where it has experts."""
    info = model.info
    if args.layers and args.layers[-1] > info.n_layers:  # before hours of writing text
        raise ToolError(
            f"--layers {' '.join(map(str, args.layers))}: {args.target} has {info.n_layers} "
            f"layers, expected numbers up to {info.n_layers}, got {args.layers[-1]}"
        )
    n_heads = int(target.of_arch("attention.head_count"))
    head_dim = int(target.of_arch("attention.key_length", info.hidden_size // n_heads))
    inner = args.intermediate or int(target.of_arch("feed_forward_length", 0))
    return HeadShape(
        target_layers=tuple(args.layers or default_layers(info.n_layers)),
        hidden_size=info.hidden_size,
        n_heads=n_heads,
        n_kv_heads=int(target.of_arch("attention.head_count_kv", n_heads)),
        head_dim=head_dim,
        intermediate_size=inner or 4 * info.hidden_size,
        n_draft=min(args.draft_tokens, info.vocab_size),
        rope_theta=float(target.of_arch("rope.freq_base", 10000.0)),
        epsilon=float(target.of_arch("attention.layer_norm_rms_epsilon", 1e-5)),
    )


def write_head(
    head: Head,
    ids: torch.Tensor,
    target: Target,
    path: pathlib.Path,
    outtype: str,
    output_type: str,
    name: str,
) -> None:
    """As architecture `eagle3`, the layout of llama.cpp."""
    shape = head.shape
    n_tokens = int(target.tensors["token_embd.weight"].shape[1])
    keys: dict[str, Any] = {
        "context_length": target.context_length,
        "embedding_length": shape.hidden_size,
        "block_count": 1,
        "feed_forward_length": shape.intermediate_size,
        "attention.head_count": shape.n_heads,
        "attention.head_count_kv": shape.n_kv_heads,
        "attention.key_length": shape.head_dim,
        "attention.value_length": shape.head_dim,
        "attention.layer_norm_rms_epsilon": shape.epsilon,
        "rope.dimension_count": shape.head_dim,
        "rope.freq_base": shape.rope_theta,
        "vocab_size": n_tokens,
        "target_layers": list(shape.target_layers),
        "target_hidden_size": shape.hidden_size,
        "norm_before_residual": False,
        "norm_before_fc": False,
    }
    tensors = {name: tensor.detach() for name, tensor in head.tensors().items()}
    if len(ids) < n_tokens:
        tensors["d2t"] = ids
    types = {"": outtype, "output.weight": output_type}
    own = {f"eagle3.{key}": value for key, value in keys.items()}
    write_model(path, "eagle3", name, target, own, tensors, types)


def untrained_head(
    args: argparse.Namespace,
    target: Target,
    shape: HeadShape,
    ids: torch.Tensor,
    taps: torch.Tensor,
    first: FirstHead | None,
) -> Head:
    """What a training begins with, and is compared with: --init's head if one is given."""
    if first is not None:
        return first.head(taps)
    return head_train.new_head(shape, target, ids, taps, args.seed)


def train(
    args: argparse.Namespace,
    target: Target,
    made_for: Mapping[str, Any],
    shape: HeadShape,
    texts: list[TappedText],
    held_out: list[TappedText],
    name: str,
    first: FirstHead | None = None,
) -> head_train.HeadTrainer:
    embedding = target.tensor("token_embd.weight")
    state = load_state(args.state, shape, made_for) if args.resume else None
    if first is not None:
        ids = first.ids
    else:
        ids = head_train.choose_ids(texts, len(embedding), shape.n_draft)
    if state is not None:  # more text may make others frequent, but the output is of these
        with damage_named(args.state):
            ids = head_train.saved_ids(state, len(embedding), shape.n_draft)
    if first is not None and not torch.equal(ids, first.ids):
        raise ToolError(
            f"{args.state}: drafts other ids than --init {args.init}; give the head that it was "
            "begun with, or do not --resume"
        )
    options = head_train.HeadOptions(
        n_steps=args.depth,
        n_common=min(args.vocab_subset, shape.n_draft),
        **draft_train.options_of(args),
    )
    head = untrained_head(args, target, shape, ids, head_train.mean_taps(texts), first)
    trainer = head_train.HeadTrainer(head, embedding, ids, texts, options)
    if args.resume:
        begin(trainer, args.state, state)

    def how_good() -> str:
        found = head_train.evaluate(head, embedding, ids, held_out, max_rounds=700)
        return head_measure.one_line(found)

    n_parameters = sum(p.numel() for p in head.parameters())
    say(
        f"head: {n_parameters / 1e6:.2f} million weights, {head.output.numel() / 1e6:.2f} of them "
        f"in the output; layers {shape.target_layers}; {len(texts)} texts"
    )
    keep_training(
        trainer,
        args.state,
        made_for,
        lambda: write_head(head, ids, target, args.out, args.outtype, args.output_type, name),
        how_good,
    )
    return trainer


def run(args: argparse.Namespace) -> None:
    run_with_threads(args, _run)


def _run(args: argparse.Namespace) -> None:
    model = sd.Model(args.target, n_threads=args.threads)
    made_for = fingerprint(args.target)
    target = Target(args.target)
    first = None if args.init is None else FirstHead(args.init, target)
    shape = head_shape(args, target, model) if first is None else first.shape
    prompts = eval_prompts(args, model)
    if args.resume:  # before hours of work, as all that can be refused
        load_state(args.state, shape, made_for)
    layers = shape.target_layers
    store = write_texts(
        args, model, made_for, layers, lambda store: Taps(model, store, layers).keep
    )
    if args.text_only:
        return
    tapped = Taps(model, store, layers).load(say)
    learnt, held_out = draft_train.split(tapped)
    if not learnt or not held_out:
        raise ToolError(f"{args.data}: too little text to learn from: give more --tokens")
    name = args.name or f"{model.info.name or args.target.stem} EAGLE-3 head"
    trainer = train(args, target, made_for, shape, learnt, held_out, name, first)
    say(f"wrote {args.out}, {args.out.stat().st_size / 1e6:.2f} MB")

    def write(head: Head, path: pathlib.Path) -> None:
        write_head(head, trainer.ids, target, path, args.outtype, args.output_type, name)

    taps = trainer.head.tap_scale
    before = untrained_head(args, target, shape, trainer.ids, taps, first)
    report = head_measure.measure(args, model, trainer, before, held_out, learnt, write, prompts)
    print(head_measure.table(report))
    card = head_card.card(report, name, args, shape)
    save_bytes(args.out.with_suffix(".md"), card.encode())
    if args.report:
        save_bytes(args.report, json.dumps(report, indent=1).encode() + b"\n")
