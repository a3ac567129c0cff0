"""Exact laws of what the compiled verifiers emit, over every draw of draft and verifier."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Path = tuple[int, ...]
Law = dict[Path, float]


class Toy:
    """Random laws after every path: `target` and `draft`, with zeros and ties now and then.

    kind: "plain"; "zeros": both have a token of probability 0; "same": draft = target; "greedy":
    the target is one-hot; "sparse": the draft knows two tokens only; "top_k": the target does.
    """

    def __init__(self, vocab: int, seed: int, kind: str) -> None:
        self.vocab, self.seed, self.kind = vocab, seed, kind
        self._rows: dict[tuple[Path, int], list[float]] = {}

    def _row(self, path: Path, salt: int) -> list[float]:
        if (path, salt) not in self._rows:
            self._rows[path, salt] = self._fresh_row(path, salt)
        return self._rows[path, salt]

    def _fresh_row(self, path: Path, salt: int) -> list[float]:
        rng = np.random.default_rng([self.seed, salt, *[t + 1 for t in path]])
        row = rng.dirichlet(np.full(self.vocab, 0.7))
        if self.kind == "zeros":
            row[rng.integers(self.vocab)] = 0.0
            row = row + (row.sum() == 0)
        if (self.kind, salt) in (("sparse", 2), ("top_k", 1)):
            row[np.argsort(row)[:-2]] = 0.0
        return list(row / row.sum())

    def target(self, path: Path) -> list[float]:
        if self.kind == "greedy":
            return list(np.eye(self.vocab)[int(np.argmax(self._row(path, 1)))])
        return self._row(path, 1)

    def draft(self, path: Path) -> list[float]:
        return self.target(path) if self.kind == "same" else self._row(path, 2)


KINDS = ["plain", "zeros", "same", "greedy", "sparse", "top_k"]


@dataclass(frozen=True)
class Drafts:
    """How candidates are proposed: "sampled", "best" (chosen, laws told) or "plain" (no laws)."""

    mode: str
    branch: int = 1

    def __str__(self) -> str:
        return f"{self.mode} B={self.branch}"


ALL_DRAFTS = [Drafts(mode, branch) for branch in (1, 2, 3) for mode in ("sampled", "best", "plain")]


def drafts_for(traits: dict[str, bool]) -> list[Drafts]:
    return [d for d in ALL_DRAFTS if d.branch == 1 or traits["trees"]]


def kinds_for(traits: dict[str, bool]) -> list[str]:
    return ["greedy"] if traits["greedy_only"] else KINDS


def target_law(toy: Toy, length: int, start: Path = ()) -> Law:
    law: Law = {}
    for tokens in itertools.product(range(toy.vocab), repeat=length):
        p = 1.0
        for i, token in enumerate(tokens):
            p *= toy.target((*start, *tokens[:i]))[token]
        if p > 0:
            law[tokens] = p
    return law


def round_law(
    m: Any,
    toy: Toy,
    verifier: str,
    gamma: int,
    drafts: Drafts,
    start: Path = (),
    declare: Callable[[Path], list[float]] | None = None,
) -> Law:
    """Law of what one round emits after `start`."""
    paths = [p for n in range(gamma + 1) for p in itertools.product(range(toy.vocab), repeat=n)]
    outcomes = m.round_law(
        verifier,
        gamma,
        drafts.branch,
        drafts.mode,
        {p: toy.target((*start, *p)) for p in paths},
        {p: toy.draft((*start, *p)) for p in paths},
        None if declare is None else {p: declare((*start, *p)) for p in paths},
        sparse_draft=toy.kind == "sparse",
        sparse_target=toy.kind == "top_k",
    )
    return {tuple(emitted): p for emitted, p in outcomes}


def completed(toy: Toy, law: Law, length: int) -> Law:
    """What a round emits, completed from the target to a fixed length."""
    full: Law = {}
    for emitted, p in law.items():
        for rest, q in target_law(toy, length - len(emitted), emitted).items():
            key = (*emitted, *rest)
            full[key] = full.get(key, 0.0) + p * q
    return full


def rounds_law(
    m: Any,
    toy: Toy,
    verifier: str,
    gamma: int,
    total: int,
    drafts: Drafts,
    declare: Callable[[Path], list[float]] | None = None,
) -> Law:
    """Law of the first `total` tokens from rounds in a row; the last rounds draft less."""
    law: Law = {}
    open_: Law = {(): 1.0}
    while open_:
        path, p = open_.popitem()
        if len(path) == total:
            law[path] = law.get(path, 0.0) + p
            continue
        length = min(gamma, total - len(path) - 1)
        for emitted, q in round_law(m, toy, verifier, length, drafts, path, declare).items():
            longer = (*path, *emitted)
            open_[longer] = open_.get(longer, 0.0) + p * q
    return law


def tokens_per_round(law: Law) -> float:
    return sum(len(emitted) * p for emitted, p in law.items())
