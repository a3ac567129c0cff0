"""Stages that making a draft and making a head share: the target's texts, going on from a saved
state, training with everything saved."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import pathlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

import draft_data
import specdec_native as sd
from draft_prompts import Prompts, fitting_prompts
from gguf_convert.errors import short
from training_loop import Training
from training_safety import (
    NotSaved,
    ToolError,
    check_finite,
    save_torch,
    stop_on_request,
    tell,
)

LONGEST_PROMPT = 2048  # tokens, of --prompts
# In a state: the part of the target's fingerprint, and of what it is where that differs.
OF_TARGET = {
    "vocabulary": ("vocabulary_sha256", "a target with another vocabulary"),
    "target": ("sha256", "a target with other weights"),
}
Shape = TypeVar("Shape")


def say(text: str) -> None:
    tell(f"{time.strftime('%H:%M:%S')} {text}", sys.stderr)


def own_prompts(args: argparse.Namespace, model: sd.Model) -> Prompts:
    """Those of --prompts that leave room for an answer."""
    if args.prompts is None:
        return []
    if args.prompts.suffix not in (".jsonl", ".json"):
        raise ToolError(
            f"--prompts {args.prompts}: expected JSON lines (.jsonl), objects with `prompt`, "
            "`turns` or `messages`"
        )
    most = min(LONGEST_PROMPT, model.info.context_length - args.answer_tokens)
    if most < 1:
        raise ToolError(
            f"--answer-tokens {args.answer_tokens}: leaves no room for --prompts in the target's "
            f"context of {model.info.context_length}"
        )
    return fitting_prompts(model, args.prompts, "--prompts", most, say)


def eval_prompts(args: argparse.Namespace, model: sd.Model) -> dict[str, Prompts]:
    """Those of --eval, by the file's name: read before hours of work."""
    if args.eval is None:
        return {}
    most = model.info.context_length - args.eval_tokens - 1
    if most < 1:
        raise ToolError(
            f"--eval-tokens {args.eval_tokens}: leaves no room for --eval in the target's context "
            f"of {model.info.context_length}"
        )
    prompts = fitting_prompts(model, args.eval, "--eval", most, say)
    return {args.eval.name: prompts[: args.eval_count]}


def write_texts(
    args: argparse.Namespace,
    model: sd.Model,
    target: Mapping[str, Any],
    layers: Sequence[int] = (),
    keeper: Callable[[draft_data.Store], draft_data.KeepStates] | None = None,
) -> draft_data.Store:
    """`target`: its fingerprint. With `keeper` what the target's `layers` say of the texts is kept,
    too: it makes what keeps it for the folder of the texts."""
    prompts = own_prompts(args, model)
    settings: dict[str, Any] = {"seed": args.seed, "answer_tokens": args.answer_tokens}
    settings["prompts"] = None
    if prompts:  # the file: templates may tell the date
        settings["prompts"] = hashlib.sha256(args.prompts.read_bytes()).hexdigest()
    store = draft_data.Store(args.data, target, settings)
    writer = draft_data.Writer(
        model,
        seed=args.seed,
        n_parallel=args.parallel,
        answer_tokens=args.answer_tokens,
        prompts=prompts,
        layers=layers,
    )
    n = draft_data.generate(
        writer,
        store,
        n_tokens=args.tokens,
        deadline=time.monotonic() + 60 * args.text_minutes,
        progress=say,
        keep_states=None if keeper is None else keeper(store),
    )
    say(f"text: {n} tokens in {args.data}")
    return store


def load_state(
    path: pathlib.Path, shape: Shape, target: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """None before the first one was saved. `shape`: a dataclass of sizes, those expected.
    `target`: its fingerprint."""
    try:
        state = dict(torch.load(path, weights_only=True))
        found = type(shape)(**state["shape"])
        same = bool(found == shape)
    except FileNotFoundError:
        return None
    except Exception as error:
        reason = short(str(error).splitlines()[0], 200) if str(error) else type(error).__name__
        raise ToolError(f"{path}: cannot be read ({reason}); train without --resume") from None
    if not same:
        raise ToolError(
            f"{path}: is of {found}, expected {shape}: give the same sizes, or do not --resume"
        )
    for key, (part, what) in OF_TARGET.items():
        if target is not None and state.get(key, target[part]) != target[part]:
            raise ToolError(f"{path}: is of {what}; give that target, or do not --resume")
    return state


@contextlib.contextmanager
def damage_named(path: pathlib.Path) -> Iterator[None]:
    """Around what reads a state: whatever is wrong with it is one line."""
    try:
        yield
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = short(repr(error), 200)
        raise ToolError(f"{path}: is damaged ({reason}); train without --resume") from None


def begin(trainer: Training[Any], path: pathlib.Path, state: dict[str, Any] | None) -> None:
    """From what `load_state` found there, if anything."""
    if state is None:
        say(f"{path}: nothing was saved yet, begins afresh")
        return
    with damage_named(path):
        trainer.restore(state)
    check_finite(trainer.module.parameters(), f"{path}: the training")


def keep_training(
    trainer: Training[Any],
    state: pathlib.Path,
    target: Mapping[str, Any],
    write: Callable[[], None],
    held_out: Callable[[], str],
) -> None:
    """Until it ends or a signal ends it; saves every few minutes and at the end.

    Args:
        target: its fingerprint.
        write: makes the file.
        held_out: says how good it is.
    """
    module: nn.Module = trainer.module

    def save_state() -> None:
        save_torch(state, trainer.state() | {key: target[of] for key, (of, _) in OF_TARGET.items()})

    def save_all() -> str:
        """The file first, all else is for it. Returns why there is no state, "" if there is."""
        check_finite(module.parameters(), "the training")
        no_file, no_state = _not_saved(write), _not_saved(save_state)
        if no_file:
            raise NotSaved(f"{no_file}; {no_state or f'the training is saved as {state}'}")
        return no_state

    def save_now_and_then() -> None:
        say(f"held out: {held_out()}")
        try:
            problem = save_all()
        except NotSaved as error:  # there may be room again in three minutes
            problem = str(error)
        if problem:
            say(f"{problem}; goes on all the same")

    with stop_on_request(say) as stopped:
        trainer.run(say, save_now_and_then, stopped)
        problem = save_all()
        if problem and stopped():
            raise NotSaved(f"{problem}; the file itself is written, with what was learnt so far")
        if problem:
            say(f"{problem}; --resume cannot go on from here; the file itself is written")
        elif stopped():
            say(f"step {trainer.n_steps}, epoch {trainer.epoch:.1f}: saved as {state}")
        stopped.raise_again()


def _not_saved(save: Callable[[], None]) -> str:
    """Why not; "" if it was saved."""
    try:
        save()
    except NotSaved as error:
        return str(error)
    return ""


def run_with_threads(
    args: argparse.Namespace, stages: Callable[[argparse.Namespace], None]
) -> None:
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        stages(args)
    except sd.SpecdecError as error:
        raise ToolError(str(error)) from None
