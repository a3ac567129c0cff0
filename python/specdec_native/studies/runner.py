"""Runs the blocks of a plan; every run, and each turn of it, gives one row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..errors import SpecdecError
from .engines import Outcome, Request, Workbench
from .machine import now
from .plan import Block, Method, Task

Row = dict[str, Any]
Key = tuple[str, str, int]  # block, method, round

# Of DecodeStats: what goes into rows.
STATS = (
    "emitted", "rounds", "plain_steps", "drafted", "accepted", "acceptance_rate",
    "mean_acceptance_length", "candidate_positions", "candidate_acceptance", "in_set",
    "reused_prompt_tokens", "reread_tokens", "draft_reread_tokens", "tokens_per_second",
    "total_ms", "prompt_ms", "decode_ms", "calibration_ms", "draft_ms", "verify_ms", "sample_ms",
    "time_to_first_token_ms", "reproducible", "speculation", "note",
)  # fmt: skip
# Columns that depend on what else the machine was doing.
TIMINGS = (
    "tokens_per_second", "total_ms", "prompt_ms", "decode_ms", "calibration_ms", "draft_ms",
    "verify_ms", "sample_ms", "time_to_first_token_ms", "wall_ms", "summary",
)  # fmt: skip


def prompt_ids(workbench: Workbench, block: Block, answers: Sequence[str]) -> tuple[int, ...]:
    """The prompt of the next turn, after the answers to those before."""
    target, task = workbench.target(block.pair), block.task
    if form_of(workbench, block) == "chat":
        messages = [{"role": "system", "content": task.system}] if task.system else []
        for user, answer in zip(task.turns, [*answers, None], strict=False):
            messages.append({"role": "user", "content": user})
            if answer is not None:
                messages.append({"role": "assistant", "content": answer})
        return tuple(target._chat_prompt(messages, True, None, None, None)[1])
    text = "".join(
        turn + ("" if answer is None else f"{answer}\n\n")
        for turn, answer in zip(task.turns, [*answers, None], strict=False)
    )
    return tuple(target.tokenize(text)[: task.max_prompt_tokens])


def form_of(workbench: Workbench, block: Block) -> str:
    """A chat needs a template; a model without one is given the plain text."""
    if block.task.form == "chat" and workbench.target(block.pair).chat_template is not None:
        return "chat"
    return "raw"


def run_block(
    workbench: Workbench,
    block: Block,
    *,
    seed: int,
    common: Mapping[str, Any],
    done: Collection[Key] = (),
    exclusive: bool = True,
    prompt: tuple[int, ...] | None = None,
) -> Iterator[list[Row]]:
    """The rows of each run that is not in `done`, one list per run.

    A task of one turn may be given as token ids, `prompt`.
    """
    order = block.runs()
    for place, (turn, method) in enumerate(order):
        key = (block.id, method.name, turn)
        if key in done:
            continue
        base = {
            **common,
            **_settings(workbench, block, method),
            "block": block.id,
            "round": turn,
            "place": place % len(block.methods),
            "seed": seed + turn,
            "exclusive": exclusive,
            "started": now(),
        }
        try:
            rows = _run(workbench, block, method, seed + turn, base, exclusive, prompt)
        except SpecdecError as error:
            rows = [_failed(base, error)]
        yield rows


def _run(
    workbench: Workbench,
    block: Block,
    method: Method,
    seed: int,
    base: Row,
    exclusive: bool,
    given: tuple[int, ...] | None,
) -> list[Row]:
    sampling = {**block.sampling, **method.sampling}
    answers: list[str] = []
    rows: list[Row] = []
    for turn in range(len(block.task.turns)):
        prompt = prompt_ids(workbench, block, answers) if given is None else given
        if turn > 0 and len(prompt) + 1 > workbench.n_ctx(block.pair):
            break  # what came before counts; the report tells how many turns there were
        request = Request(prompt, block.max_tokens, seed, sampling, block.ignore_eos)
        if turn == 0:
            if exclusive:
                workbench.warm_up(block.pair, method, request)
            engine = workbench.engine(block.pair, method)
            engine.start()
        outcome = engine.generate(request)
        figures = _figures(outcome, len(prompt), exclusive)
        rows.append({**base, "turn": turn, **figures, "reference": block.task.reference})
        answers.append(outcome.text)
    return rows


def _failed(base: Row, error: SpecdecError) -> Row:
    """A run that gave nothing, with the same columns."""
    row = {**base, "turn": 0, **_figures(Outcome((), "", "", {}, 0.0), 0, False)}
    return {**row, "emitted": 0, "error": str(error)}


def _settings(workbench: Workbench, block: Block, method: Method) -> Row:
    task: Task = block.task
    sampling = {**block.sampling, **method.sampling}
    return {
        "pair": block.pair.name,
        "task": task.id,
        "category": task.category,
        "turns": len(task.turns),
        "form": form_of(workbench, block),
        "method": method.name,
        "baseline": method.baseline,
        "engine": method.engine,
        "drafter": method.drafter,
        "options": json.dumps({**method.options, **method.decoder}, sort_keys=True),
        "verifier": method.verifier,
        "exact": method.is_exact(float(sampling.get("temperature", 0.0) or 0.0)),
        "temperature": sampling.get("temperature", 0.0),
        "sampling": json.dumps(sampling, sort_keys=True),
        "max_tokens": block.max_tokens,
        "ignore_eos": block.ignore_eos,
        "n_ctx": workbench.n_ctx(block.pair),
        "bytes_per_step": workbench.target(block.pair).info.bytes_per_step,
        **block.axes,
        **method.axes,
    }


def _figures(outcome: Outcome, n_prompt: int, exclusive: bool) -> Row:
    stats = outcome.stats
    row: Row = {name: stats.get(name) for name in STATS}
    row |= {
        "prompt_tokens": n_prompt,
        "finish_reason": outcome.finish_reason,
        "wall_ms": outcome.wall_ms,
        "summary": outcome.summary,
        "token_ids": list(outcome.token_ids),
        "text": outcome.text,
        "error": "",
    }
    if row["emitted"] is None:
        row["emitted"] = len(outcome.token_ids)
    if not exclusive:  # another run shared the machine
        row |= dict.fromkeys(TIMINGS)
    return row
