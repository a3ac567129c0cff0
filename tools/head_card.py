"""The card of a head: what the file is, of what it was made, and how good it is."""

from __future__ import annotations

import argparse
import pathlib
import shlex
from typing import Any

import make_head
from draft_measure import engine_table
from head_net import HeadShape

# Where things are, how far it goes, how it is measured: nothing of what is made.
NO_PART = {
    *("target", "out", "data", "text_only", "resume", "threads"),
    *("eval", "eval_count", "eval_tokens", "report"),
}


def card(report: dict[str, Any], name: str, args: argparse.Namespace, shape: HeadShape) -> str:
    layers = ", ".join(map(str, shape.target_layers))
    after, before = report["after"], report["before"]
    lines = [
        f"# {args.out.name}",
        "",
        f"{name}: drafts for `{args.target.name}` and is of no use without it.",
        "",
        "| | |",
        "|---|---|",
        f"| architecture | `eagle3`: one layer of width {shape.hidden_size}, {shape.n_heads} heads "
        f"({shape.n_kv_heads} for keys and values), inner width {shape.intermediate_size} |",
        f"| reads | what enters the target's layers {layers} |",
        f"| drafts | {shape.n_draft} of the target's ids, {report['in_vocabulary']:.1%} of what it "
        "says in held-out texts |",
        f"| file | {report['file_bytes'] / 1e6:.2f} MB; matrices in {args.outtype}, the output in "
        f"{args.output_type} |",
        f"| data | {_data(args)}: "
        f"{report['written_tokens']} tokens, {report['texts']} texts; {report['held_out_texts']} "
        "more were held out |",
        f"| training | {report['training_tokens']} tokens in {report['steps']} steps, "
        f"{report['epochs']:.1f} passes over the text, {report['training_minutes']:.0f} minutes; "
        f"{args.depth} steps deep |",
        "",
        f"Greedy chains of {len(after['accepted'])} drafts in {after['rounds']} rounds of held-out "
        "answers, counted without the engine: the part in which the draft at a position and all "
        "before it were what the target says.",
        "",
        "| | before training | after |",
        "|---|---|---|",
        f"| loss of the first draft | {before['loss']:.3f} | {after['loss']:.3f} |",
    ]
    for i, (old, new) in enumerate(zip(before["accepted"], after["accepted"], strict=True)):
        lines.append(f"| accepted at position {i + 1} | {old:.3f} | {new:.3f} |")
    lines += [
        f"| tokens per pass of the target | {before['tokens_per_pass']:.2f} | "
        f"{after['tokens_per_pass']:.2f} |",
        "",
        "Through the engine:",
        "",
        "```",
        *engine_table(report["prompts"]),
        "```",
        "",
        "```sh",
        _command(report, args, shape),
        "```",
        "",
        "makes one like it, not the same bits: where training ends depends on the clock.",
        "",
    ]  # fmt: skip
    return "\n".join(lines)


def _command(report: dict[str, Any], args: argparse.Namespace, shape: HeadShape) -> str:
    """Every option that has a part in it: some always, others where they are not the default."""
    told: dict[str, list[Any]] = {
        "tokens": [report["written_tokens"]],
        "minutes": [f"{max(report['training_minutes'], 1):.0f}"],
        "draft_tokens": [shape.n_draft],
        "depth": [args.depth],
        "outtype": [args.outtype],
        "output_type": [args.output_type],
        "answer_tokens": [args.answer_tokens],
    }
    usual = vars(make_head.make_parser().parse_args(["target", "out"]))
    for name in sorted(usual.keys() - told.keys() - NO_PART):
        value = getattr(args, name)
        if value == usual[name]:
            continue
        value = value.name if isinstance(value, pathlib.Path) else value
        told[name] = value if isinstance(value, list) else [value]
    if args.init is not None:
        del told["draft_tokens"]  # they are of that head
    words = [args.target.name, args.out.name]
    for name, values in told.items():
        words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(["python", "tools/make_head.py", *words])


def _data(args: argparse.Namespace) -> str:
    own = "what the target wrote itself, turns of users and answers"
    return own if args.prompts is None else f"{own}, and its answers to `{args.prompts.name}`"
