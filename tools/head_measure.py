"""What a head is worth before and after its training, on texts that it has not seen."""

from __future__ import annotations

import argparse
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import draft_measure
import head_train
import specdec_native as sd
from draft_data import FRAME
from draft_prompts import Prompts
from head_data import TappedText
from head_net import Head
from training_job import say


def one_line(found: dict[str, Any]) -> str:
    shares = " ".join(f"{share:.3f}" for share in found["accepted"])
    return f"loss {found['loss']:.3f}, accepted by position {shares}"


def measure(
    args: argparse.Namespace,
    model: sd.Model,
    trainer: head_train.HeadTrainer,
    untrained: Head,
    held_out: Sequence[TappedText],
    learnt: Sequence[TappedText],
    write: Callable[[Head, pathlib.Path], None],
    prompts_of_files: dict[str, Prompts],
) -> dict[str, Any]:
    """Greedy chains on held-out answers, as `head_train.evaluate` counts them; then on prompts of
    held-out texts and on the user's through the engine. `untrained`: what training began with."""
    head = trainer.head
    depth = max(args.depth, draft_measure.LENGTH)
    figures = {}
    for name, which in (("before", untrained), ("after", head)):
        say(f"measuring the head {name} its training on held-out texts")
        figures[name] = head_train.evaluate(
            which, trainer.embedding, trainer.ids, held_out, n_steps=depth
        )
    known = set(trainer.ids.tolist())
    said = [int(t) for text in held_out for t in text.tokens[text.part != FRAME]]
    sets = {"held-out texts": draft_measure.generated_prompts(held_out, args.eval_count)}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "untrained.gguf"
        write(untrained, path)
        heads = {"untrained": sd.Model(path, n_threads=args.threads)}
        heads["trained"] = sd.Model(args.out, n_threads=args.threads)
        drafters = {name: sd.Eagle(one, gamma=draft_measure.LENGTH) for name, one in heads.items()}
        prompts = draft_measure.through_the_engine(
            args, model, drafters, heads["trained"], sets | prompts_of_files, say
        )
    return {
        **figures,
        "prompts": prompts,
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
        f"{after['rounds']} chains of {n} drafts on held-out answers      before   after",
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
    lines += ["", *draft_measure.engine_table(report["prompts"])]
    return "\n".join(lines)
