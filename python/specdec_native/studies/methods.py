"""Methods by the names that --methods takes, and which of them and of the tasks are possible."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..errors import InvalidArgumentError
from .engines import DRAFTERS, Workbench, impossible
from .plan import PLAIN, Block, Method, Pair, Scalar, Task, plain
from .runner import prompt_ids

KEEPERS = ("ngram", "suffix", "recycling")
HELP = (
    "of plain, auto, ngram, suffix, recycling, layerskip and model, separated by commas; ngram:7 "
    "drafts at most 7 tokens, suffix-keep keeps what it saw from turn to turn (default %(default)s)"
)
# Above temperature 0, where the whole distribution of a small model is noise.
SAMPLING: dict[str, Scalar] = {"top_k": 40, "top_p": 0.95, "min_p": 0.05}


def sampling_of(temperature: float) -> dict[str, Scalar]:
    if temperature < 0:
        raise InvalidArgumentError(f"--temperature must be at least 0, not {temperature}")
    return {"temperature": temperature, **(SAMPLING if temperature > 0 else {})}


def parse_methods(text: str) -> list[Method]:
    """Plain decoding, which is what all are compared with, and those that are named."""
    methods = {PLAIN: plain()}
    for name in (part.strip() for part in text.split(",")):
        methods.setdefault(name, _method(name))
    return list(methods.values())


def _method(name: str) -> Method:
    if name == PLAIN:
        return plain()
    kind, colon, length = name.partition(":")
    drafter = kind.removesuffix("-keep")
    keeps = drafter != kind
    known = drafter in ("auto", "model", *DRAFTERS) and (not keeps or drafter in KEEPERS)
    if not known or (colon and drafter == "auto"):
        raise InvalidArgumentError(
            f"--methods: there is no {name!r}; there are {', '.join((PLAIN, 'auto', 'model'))}, "
            f"{', '.join(DRAFTERS)}, any but plain and auto with a length as ngram:7, and "
            f"{', '.join(f'{k}-keep' for k in KEEPERS)}"
        )
    options: dict[str, Scalar] = {"keep": True} if keeps else {}
    if colon:
        if not length.isascii() or not length.isdecimal() or not 1 <= int(length) <= 64:
            raise InvalidArgumentError(f"--methods: a length is 1 to 64, not {length!r} as {name}")
        options["draft_max"] = int(length)
    return Method(name, drafter, options=options)


def possible(
    args: argparse.Namespace, workbench: Workbench, pair: Pair, methods: Sequence[Method]
) -> tuple[Method, ...]:
    """Those that the pair allows; `args.notes` tells why others are left out."""
    found = []
    for method in methods:
        reason = impossible(workbench, pair, method)
        if reason:
            args.notes.append(f"{pair.name}: {method.name} is left out: {reason}")
        else:
            found.append(method)
    return tuple(found)


def fitting(
    args: argparse.Namespace, workbench: Workbench, pair: Pair, tasks: Sequence[Task]
) -> list[Task]:
    """Those whose first prompt leaves room for an answer; `args.notes` counts the others."""
    n_ctx = workbench.n_ctx(pair)
    fit = [
        task
        for task in tasks
        if len(prompt_ids(workbench, Block(pair, task, (), 1), ())) + args.max_tokens <= n_ctx
    ]
    if len(fit) < len(tasks):
        args.notes.append(
            f"{pair.name}: {len(tasks) - len(fit)} of {len(tasks)} prompts are left out: with an "
            f"answer of {args.max_tokens} tokens they do not fit into {n_ctx} positions."
        )
    return fit
