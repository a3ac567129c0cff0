"""What a head is worth before and after its training, on texts that it has not seen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import head_train
from draft_data import FRAME
from draft_gguf import Target
from head_data import TappedText


def one_line(found: dict[str, Any]) -> str:
    shares = " ".join(f"{share:.3f}" for share in found["accepted"])
    return f"loss {found['loss']:.3f}, accepted by position {shares}"


def measure(
    args: argparse.Namespace,
    trainer: head_train.HeadTrainer,
    target: Target,
    held_out: Sequence[TappedText],
    learnt: Sequence[TappedText],
) -> dict[str, Any]:
    """Greedy chains on held-out answers, as `head_train.evaluate` counts them."""
    head = trainer.head
    scale = head.tap_scale
    untrained = head_train.new_head(head.shape, target, trainer.ids, scale, args.seed)
    figures = {
        name: head_train.evaluate(
            which, trainer.embedding, trainer.ids, held_out, n_steps=max(args.depth, 4)
        )
        for name, which in (("before", untrained), ("after", head))
    }
    known = set(trainer.ids.tolist())
    said = [int(t) for text in held_out for t in text.tokens[text.part != FRAME]]
    return {
        **figures,
        "written_tokens": sum(int((t.part != FRAME).sum()) for t in [*learnt, *held_out]),
        "texts": len(learnt),
        "held_out_texts": len(held_out),
        "in_vocabulary": sum(t in known for t in said) / max(len(said), 1),
        "epochs": trainer.epoch,
        "steps": trainer.n_steps,
        "training_minutes": trainer.spent_s / 60,
        "training_tokens": trainer.n_tokens,
        "file_bytes": args.out.stat().st_size,
    }


def table(report: dict[str, Any]) -> str:
    before, after = report["before"], report["after"]
    n = len(after["accepted"])
    lines = [
        f"{after['rows']} chains of {n} drafts on held-out answers      before   after",
        f"loss of the first draft                            {before['loss']:7.3f} "
        f"{after['loss']:7.3f}",
    ]
    for i in range(n):
        lines.append(
            f"accepted at position {i + 1}                             "
            f"{before['accepted'][i]:7.3f} {after['accepted'][i]:7.3f}"
        )
    lines.append(
        f"tokens per pass of the target                      {before['tokens_per_pass']:7.2f} "
        f"{after['tokens_per_pass']:7.2f}"
    )
    lines.append(f"of the answers' tokens it can draft {report['in_vocabulary']:.1%}")
    return "\n".join(lines)
