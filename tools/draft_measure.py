"""Acceptance of a draft before and after its training, through the engine."""

from __future__ import annotations

import argparse
import pathlib
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

import draft_data
import draft_train
import specdec_native as sd
from bench_common import geometric_mean
from draft_prompts import Prompts
from training_safety import ToolError

LENGTH = 4  # tokens of a draft when acceptance is measured


def generated_prompts(texts: Sequence[draft_data.Text], count: int) -> Prompts:
    """Of held-out texts: everything before the answer."""
    prompts: Prompts = []
    for text in texts:
        answers = (text.part == draft_data.ANSWER).nonzero()[0]
        if len(answers) >= 16:
            prompts.append(text.tokens[: answers[0]].tolist())
    random.Random(0).shuffle(prompts)
    return prompts[:count]


def acceptance(
    model: sd.Model, prompts: Prompts, drafter: Any, max_tokens: int
) -> tuple[dict[str, Any], list[tuple[int, ...]]]:
    """With drafts of a fixed length, greedily; and what was generated. `by_position`: of the drafts
    at each position the part that was accepted, for which all before it were."""
    drafted, accepted, rounds, given = 0, 0, 0, 0
    positions = np.zeros((2, LENGTH), int)
    tokens = []
    with sd.Decoder(model, drafter=drafter, n_ctx=_context(model, prompts, max_tokens)) as decoder:
        for prompt in prompts:
            decoder.reset()
            result = decoder.generate(prompt, max_tokens=max_tokens)
            stats = result.stats
            drafted += stats.drafted
            accepted += stats.accepted
            rounds += stats.rounds + stats.plain_steps
            both = (stats.drafted_per_position, stats.accepted_per_position)
            for row, found in zip(positions, both, strict=True):
                row[: len(found)] += np.array(found[:LENGTH], int)
            tokens.append(result.token_ids)
            # A pass gave the token that ends an answer, too.
            given += stats.emitted + (result.finish_reason == "stop")
    return {
        "first_token": positions[1, 0] / max(positions[0, 0], 1),
        "by_position": (positions[1] / np.maximum(positions[0], 1)).tolist(),
        "acceptance": accepted / max(drafted, 1),
        "tokens_per_pass": given / max(rounds, 1),
    }, tokens


def speeds(model: sd.Model, draft: sd.Model, prompts: Prompts, max_tokens: int) -> dict[str, float]:
    """Tokens per second of `auto` against plain decoding, in alternation, prompt by prompt."""
    n_ctx = _context(model, prompts, max_tokens)
    methods = {
        "plain": sd.Decoder(model, drafter=None, n_ctx=n_ctx),
        "auto": sd.Decoder(model, n_ctx=n_ctx),
        "auto_with_draft": sd.Decoder(model, draft=draft, n_ctx=n_ctx),
    }
    for decoder in methods.values():
        decoder.generate(prompts[0], max_tokens=8)
    ratios: dict[str, list[float]] = {"auto": [], "auto_with_draft": []}
    plain: list[float] = []
    for i, prompt in enumerate(prompts):
        found = {}
        names = list(methods)
        for name in names[i % 3 :] + names[: i % 3]:
            methods[name].reset()
            found[name] = methods[name].generate(prompt, max_tokens=max_tokens)
        rates = {name: r.stats.tokens_per_second for name, r in found.items()}
        if len({r.token_ids for r in found.values()}) > 1:
            raise ToolError("the methods gave different tokens: this is a bug, please report it")
        if None in rates.values() or len(found["plain"].token_ids) < 8:
            continue
        plain.append(rates["plain"])  # type: ignore[arg-type]  # no None among them
        for name, values in ratios.items():
            values.append(rates[name] / rates["plain"])  # type: ignore[operator]
    if not plain:
        return {}
    speed = {"plain_tokens_per_second": geometric_mean(plain)}
    return speed | {f"{name}_speedup": geometric_mean(v) for name, v in ratios.items()}


def _context(model: sd.Model, prompts: Prompts, max_tokens: int) -> int:
    return min(model.info.context_length, max(map(len, prompts)) + max_tokens + 16)


def measure(
    args: argparse.Namespace,
    model: sd.Model,
    trainer: draft_train.Trainer,
    held_out: Sequence[draft_data.Text],
    target_embedding: torch.Tensor,
    write: Callable[..., None],
    say: Callable[[str], None],
    prompts_of_files: dict[str, Prompts],
) -> dict[str, Any]:
    sets = {"held-out texts": generated_prompts(held_out, args.eval_count), **prompts_of_files}
    trained = trainer.draft
    untrained = draft_train.new_draft(trained.shape, target_embedding, trainer.counts, args.seed)
    report: dict[str, Any] = {
        "before": draft_train.evaluate(untrained, held_out),
        "after": draft_train.evaluate(trained, held_out),
        "epochs": trainer.epoch,
        "training_minutes": trainer.spent_s / 60,
        "training_tokens": trainer.n_tokens,
        "file_bytes": args.out.stat().st_size,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "untrained.gguf"
        write(untrained, path)
        models = {"untrained": sd.Model(path, n_threads=args.threads)}
        models["trained"] = sd.Model(args.out, n_threads=args.threads)
        drafters = {name: sd.DraftModel(draft, gamma=LENGTH) for name, draft in models.items()}
        report["prompts"] = through_the_engine(args, model, drafters, models["trained"], sets, say)
    return report


def through_the_engine(
    args: argparse.Namespace,
    model: sd.Model,
    drafters: Mapping[str, Any],
    trained: sd.Model,
    sets: Mapping[str, Prompts],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """For each set of prompts the acceptance of n-grams and of `drafters`, and the speed of `auto`
    without and with `trained`; that the text stays the same is checked on the way."""
    report: dict[str, Any] = {}
    for kind, prompts in sets.items():
        prompts = [p for p in prompts if len(p) + args.eval_tokens < model.info.context_length]
        if not prompts:
            continue
        found: dict[str, Any] = {"n_prompts": len(prompts)}
        _, plain = acceptance(model, prompts, None, args.eval_tokens)
        for name, drafter in {"n-gram": sd.NGram(gamma=LENGTH), **drafters}.items():
            say(f"measuring {name} on {kind}")
            found[name], tokens = acceptance(model, prompts, drafter, args.eval_tokens)
            if tokens != plain:
                raise ToolError(f"{name} changed the text: this is a bug, please report it")
        found["speed"] = speeds(model, trained, prompts, args.eval_tokens)
        report[kind] = found
    return report


def table(report: dict[str, Any]) -> str:
    before, after = report["before"], report["after"]
    lines = [
        f"on {after['tokens']} held-out tokens    before   after",
        f"loss                       {before['loss']:9.3f} {after['loss']:7.3f}",
        f"target's best token found  {before['agreement']:9.3f} {after['agreement']:7.3f}",
        "",
        *engine_table(report["prompts"]),
    ]
    return "\n".join(lines)


def engine_table(prompts: Mapping[str, Any]) -> list[str]:
    """Lines of what `through_the_engine` found."""
    lines = [f"drafts of {LENGTH} tokens          first token right   accepted   tokens per pass"]
    for kind, found in prompts.items():
        lines.append(f"{kind} ({found['n_prompts']} prompts)")
        for name in ("n-gram", "untrained", "trained"):
            row = found[name]
            lines.append(
                f"  {name:<26} {row['first_token']:17.3f} {row['acceptance']:10.3f} "
                f"{row['tokens_per_pass']:17.2f}"
            )
        if found["speed"]:
            speed = found["speed"]
            lines.append(
                f"  plain {speed['plain_tokens_per_second']:.1f} tokens/s; auto without the draft "
                f"{speed['auto_speedup']:.2f}x, with it {speed['auto_with_draft_speedup']:.2f}x"
            )
    return lines
