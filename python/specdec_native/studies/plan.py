"""What a study runs: blocks, each of which asks one task of several methods in alternation."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Scalar = str | int | float | bool | None

PLAIN = "plain"


@dataclass(frozen=True)
class Pair:
    """A target and the model that drafts for it; `name` stands for both in tables."""

    name: str
    target: str
    draft: str | None = None


@dataclass(frozen=True)
class Task:
    """One prompt, or a conversation whose next turn follows the model's own answer.

    Attributes:
        id: unique within a study.
        turns: what the user says.
        form: "chat": the file's own template, raw text for a file without one; "raw": as it is.
        system: first message of a chat; "" for none.
        reference: what a person, or the data set, answers; for text metrics.
        max_prompt_tokens: a raw prompt is cut to its first so many tokens.
    """

    id: str
    turns: tuple[str, ...]
    category: str = ""
    form: Literal["raw", "chat"] = "raw"
    system: str = ""
    reference: str = ""
    max_prompt_tokens: int | None = None


@dataclass(frozen=True)
class Method:
    """One way to decode.

    Attributes:
        name: unique within a block; what tables call it.
        drafter: as on the command line: none, model, ngram, suffix, recycling, layerskip, auto.
        options: of that drafter, by their Python names.
        verifier: as `Decoder`'s.
        decoder: further options of `Decoder`.
        sampling: overrides of the block's.
        engine: who decodes; others than "specdec" are registered in engines.ENGINES.
        baseline: the method of the same block that its speed is compared with.
        axes: further columns of its rows.
    """

    name: str
    drafter: str = "none"
    options: Mapping[str, Scalar] = field(default_factory=dict)
    verifier: str = "auto"
    decoder: Mapping[str, Scalar] = field(default_factory=dict)
    sampling: Mapping[str, Scalar] = field(default_factory=dict)
    engine: str = "specdec"
    baseline: str = PLAIN
    axes: Mapping[str, Scalar] = field(default_factory=dict)

    def is_exact(self, temperature: float) -> bool:
        """Whether it must emit the baseline's very tokens, not only follow their distribution."""
        if self.engine != "specdec" or self.verifier == "topk_importance_published":
            return False
        return temperature == 0 or self.drafter == "none" or self.verifier in ("auto", "match")


@dataclass(frozen=True)
class Block:
    """One task with fixed settings, asked of each method once per round.

    Attributes:
        methods: a plain baseline among them.
        sampling: temperature and what else `SamplingParams` takes, without the seed.
        axes: further columns of its rows.
    """

    pair: Pair
    task: Task
    methods: tuple[Method, ...]
    max_tokens: int
    rounds: int = 3
    sampling: Mapping[str, Scalar] = field(default_factory=dict)
    ignore_eos: bool = False
    axes: Mapping[str, Scalar] = field(default_factory=dict)

    @functools.cached_property
    def id(self) -> str:
        """Of everything that decides what is run; the same for the same command."""
        return digest({**asdict(self), "pair": self.pair.name})  # a study may be moved

    def runs(self) -> list[tuple[int, Method]]:
        """(round, method) in the order in which they are run: each round starts with another."""
        order: list[tuple[int, Method]] = []
        for turn in range(self.rounds):
            at = turn % len(self.methods)
            order += [(turn, method) for method in self.methods[at:] + self.methods[:at]]
        return order


def digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def plain(**axes: Scalar) -> Method:
    return Method(PLAIN, axes=axes)
