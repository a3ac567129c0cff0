"""What a head is worth before and after its training, on texts that it has not seen."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

import draft_data
import head_train
import specdec_native as sd
from draft_data import FRAME
from draft_gguf import Target
from head_data import TappedText, Taps, as_bits
from training_job import say


def one_line(found: dict[str, Any]) -> str:
    shares = " ".join(f"{share:.3f}" for share in found["accepted"])
    return f"loss {found['loss']:.3f}, accepted by position {shares}"


def answers_to(
    model: sd.Model, taps: Taps, prompts: Sequence[list[int]], max_tokens: int, n_parallel: int
) -> list[TappedText]:
    """What the target says to the prompts, greedily."""
    longest = max(map(len, prompts)) + max_tokens + 1
    if longest > model.info.context_length:
        prompts = [p for p in prompts if len(p) + max_tokens < model.info.context_length]
    results = sd.generate_many(
        model,
        prompts,
        max_tokens=max_tokens,
        logprobs=draft_data.N_TOP,
        keep_eos=True,
        n_parallel=n_parallel,
        n_ctx=min(longest, model.info.context_length),
    )
    texts = []
    for prompt, result in zip(prompts, results, strict=True):
        builder = draft_data.Builder()
        builder.add(prompt)
        builder.add(list(result.token_ids), draft_data.ANSWER, result.logprobs or ())
        text = builder.text()
        bits = as_bits(taps.of_text(text.tokens))
        texts.append(TappedText(**vars(text), taps=np.asarray(bits)))
    return texts


def measure(
    args: argparse.Namespace,
    trainer: head_train.HeadTrainer,
    target: Target,
    held_out: Sequence[TappedText],
    learnt: Sequence[TappedText],
    prompts: dict[str, list[TappedText]],
) -> dict[str, Any]:
    """Greedy chains on held-out answers and on those to the user's prompts, as
    `head_train.evaluate` counts them."""
    head = trainer.head
    scale = head.tap_scale
    untrained = head_train.new_head(head.shape, target, trainer.ids, scale, args.seed)
    figures = {
        name: head_train.evaluate(
            which, trainer.embedding, trainer.ids, held_out, n_steps=max(args.depth, 4)
        )
        for name, which in (("before", untrained), ("after", head))
    }
    of_prompts = {}
    for name, texts in prompts.items():
        say(f"measuring on {name}")
        found = head_train.evaluate(
            head, trainer.embedding, trainer.ids, texts, n_steps=max(args.depth, 4)
        )
        of_prompts[name] = {"n_prompts": len(texts), **found}
    known = set(trainer.ids.tolist())
    said = [int(t) for text in held_out for t in text.tokens[text.part != FRAME]]
    return {
        **figures,
        "prompts": of_prompts,
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
    for name, found in report["prompts"].items():
        lines.append(f"{name} ({found['n_prompts']} prompts): {one_line(found)}")
        lines.append(f"  tokens per pass of the target {found['tokens_per_pass']:.2f}")
    lines.append(f"of the answers' tokens it can draft {report['in_vocabulary']:.1%}")
    return "\n".join(lines)
