"""Options of decoding. All are checked here, before anything runs."""

from __future__ import annotations

import math
import numbers
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ._checks import Real, Whole
from ._option_table import CHECKS
from .errors import InvalidArgumentError
from .model import Model

DraftSampling = Literal["auto", "greedy", "sampled", "coupled"]

MAX_STOP_STRINGS = 64


def _check(options: Any) -> None:
    """Checks the fields of a class of options; they become what the native code takes."""
    for name, check in CHECKS[type(options).__name__].items():
        object.__setattr__(options, name, check(name, getattr(options, name)))


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen; the warps apply in the order of the fields.

    Attributes:
        logit_bias: token id -> what is added to its logit, -inf bans the token.
        repetition_penalty: (0, 100]; divides positive logits of seen tokens, multiplies negative
            ones.
        presence_penalty: [-100, 100]; subtracted once from the logits of seen tokens.
        frequency_penalty: [-100, 100]; subtracted once per occurrence.
        penalty_last_n: -1 or more; how many of the last tokens count as seen; -1: all, 0: none.
        temperature: [0, 1000000]; 0 takes the best token, ties to the lowest id.
        top_k: 0 or more; keep the best so many tokens; 0: all.
        top_p: (0, 1]; keep the best tokens that make up this probability; 1: all.
        min_p: [0, 1); drop tokens below this share of the best one's probability; 0: none.
        noise_scale: [0, 100]; two-stage sampling: standard deviation of Gaussian noise on the
            survivors' logits.
        seed: 0 or more; the same one gives the same tokens, unless `stats.reproducible` says no;
            None: a new one, which the result reports.
    """

    logit_bias: Mapping[int, float] = field(default_factory=dict)
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    noise_scale: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgumentError(
                f"logit_bias must be a dict of token id to number, not {self.logit_bias!r}"
            )
        biases = {
            _TOKEN_ID("a token id in logit_bias", token): _bias(token, bias)
            for token, bias in self.logit_bias.items()
        }
        object.__setattr__(self, "logit_bias", biases)


_TOKEN_ID = Whole(0, 2**31 - 1)


def _bias(token: object, value: object) -> float:
    if isinstance(value, numbers.Real) and value == -math.inf:
        return -math.inf
    bias: float = Real(-1e6, 1e6)(f"logit_bias[{token}]", value)
    return bias


@dataclass(frozen=True, kw_only=True)
class DraftModel:
    """Drafts with a smaller model of the same vocabulary.

    Attributes:
        model: the draft model.
        draft_max: 1 to 64; the longest draft; None: 4.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
        sampling: how it picks tokens: "greedy", "sampled", "coupled" (with the target's own noise,
            under `match`), or "auto": greedy at temperature 0, coupled for `match`, else sampled.
        temperature: [0, 1000000]; of its sampling; None: the target's.
        head_tokens: 0 to 1073741824; only token ids below this are drafted, and those of the text
            so far, which makes the output head cheap; 0: all; None: what the file says, else 32768
            when the vocabulary is at least twice that.
        draft_top_k: 1 or more; drafts come from its best so many tokens; None: the target's top_k,
            or 50 for the `topk_importance` verifiers.
        branch: 1 to 16; candidates per position; above 1 a comb, for verifiers that take trees.
    """

    model: Model = field(kw_only=False)
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None
    sampling: DraftSampling = "auto"
    temperature: float | None = None
    head_tokens: int | None = None
    draft_top_k: int | None = None
    branch: int = 1

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)
        _check_temperature(self)
        if self.draft_top_k is not None and self.draft_top_k < self.branch:
            raise InvalidArgumentError(
                f"draft_top_k must be at least branch, {self.branch}, not {self.draft_top_k}: "
                "so many candidates are drafted per position"
            )


@dataclass(frozen=True, kw_only=True)
class NGram:
    """Drafts by looking up the last tokens in the prompt and the output so far; needs no model.

    Attributes:
        n: 1 to 16; the longest context looked up, in tokens; the longest one that matches decides.
        min_count: 1 to 1000000; continuations seen less often are not drafted.
        filler_top_k: 1 to 64; above 1 also count the best so many tokens of each position.
        keep: keep what was learnt between calls.
        draft_max: 1 to 64; the longest draft; None: 7.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
    """

    n: int = field(default=4, kw_only=False)
    min_count: int = 1
    filler_top_k: int = 1
    keep: bool = False
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)


@dataclass(frozen=True, kw_only=True)
class SuffixAutomaton:
    """Drafts what followed the longest suffix of the text that was seen before; needs no model.

    A match of m tokens drafts at most 2 m - 1 tokens: longer matches are likelier to go on.

    Attributes:
        min_match: 1 to 64; shorter matches are not drafted from.
        corpus: where to find matches as well, for example in the files being worked on: a text, or
            a `pathlib.Path` of a file or of a folder, whose text files are read, those changed last
            first, as many as `max_store` tokens hold; None: none.
        keep: keep prompts and outputs between calls.
        max_store: 1024 to 67108864; tokens remembered, about 100 bytes each; beyond that the older
            half is forgotten.
        draft_max: 1 to 64; the longest draft; None: 15, or 63 where lengths are chosen while
            running.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
    """

    min_match: int = field(default=1, kw_only=False)
    corpus: str | os.PathLike[str] | None = None
    keep: bool = False
    max_store: int = 1 << 18
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)


@dataclass(frozen=True, kw_only=True)
class TokenRecycling:
    """Drafts with the model's best tokens after each token, as they were when it last came up.

    Needs no model: they are left over from logits that were computed anyway.

    Attributes:
        top_k: 1 to 32; successors remembered per token.
        tree: draft a tree of alternatives where the verifier takes one, instead of a chain.
        keep: keep the successors between calls.
        draft_max: 1 to 64; the longest draft; None: 15 tokens of the whole tree.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
    """

    top_k: int = field(default=8, kw_only=False)
    tree: bool = True
    keep: bool = False
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)


@dataclass(frozen=True, kw_only=True)
class LayerSkip:
    """Drafts with the model's own first layers and output head; needs no second model.

    They share the model's cache: nothing is stored or computed twice. Pays only where the first
    layers guess well, as models trained for it do; the text is the same in any case.

    Attributes:
        n_layers: 1 to 1000; layers that draft, fewer than the model has; None: a quarter of them.
        sampling: as of `DraftModel`.
        temperature: [0, 1000000]; as of `DraftModel`; None: the target's.
        draft_max: 1 to 64; the longest draft; None: 3.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
    """

    n_layers: int | None = field(default=None, kw_only=False)
    sampling: DraftSampling = "auto"
    temperature: float | None = None
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)
        _check_temperature(self)


@dataclass(frozen=True, kw_only=True)
class Eagle:
    """Drafts with an EAGLE-3 head: one layer that reads the model's own hidden states.

    The head is a GGUF file of the architecture "eagle3" that was trained for the model; it costs
    a small part of a pass per token and has a cache of its own. It runs on the CPU, wherever the
    model's layers are.

    Attributes:
        head: the head.
        draft_max: 1 to 64; the longest draft; None: 4.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
        sampling: as of `DraftModel`.
        temperature: [0, 1000000]; as of `DraftModel`; None: the target's.
        draft_top_k: 1 or more; as of `DraftModel`; None: the target's top_k, or 50 for the
            `topk_importance` verifiers.
    """

    head: Model = field(kw_only=False)
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None
    sampling: DraftSampling = "auto"
    temperature: float | None = None
    draft_top_k: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)
        _check_temperature(self)


@dataclass(frozen=True, kw_only=True)
class Mtp:
    """Drafts with the block behind a model's layers that was trained to predict further tokens.

    GGUF files with `nextn_predict_layers` have such a block (multi-token prediction); it costs
    one layer and an output head of `head_tokens` per token and has a cache of its own. It runs on
    the CPU, as the models that have one do. Of several blocks the first drafts all tokens.

    Attributes:
        head: the file of such a block alone, as it was split off the model; None: the model's own.
        draft_max: 1 to 64; the longest draft; None: 4.
        draft_min: 0 to 64; shorter drafts are not verified; at most the longest.
        gamma: 0 to 64; a fixed draft length, for experiments; not with draft_max or draft_min;
            None: off.
        sampling: as of `DraftModel`.
        temperature: [0, 1000000]; as of `DraftModel`; None: the target's.
        head_tokens: 0 to 1073741824; as of `DraftModel`; None: what the file says, else 32768 when
            the vocabulary is at least twice that.
        draft_top_k: 1 or more; as of `DraftModel`; None: the target's top_k, or 50 for the
            `topk_importance` verifiers.
    """

    head: Model | None = field(default=None, kw_only=False)
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None
    sampling: DraftSampling = "auto"
    temperature: float | None = None
    head_tokens: int | None = None
    draft_top_k: int | None = None

    def __post_init__(self) -> None:
        _check(self)
        _check_lengths(self)
        _check_temperature(self)


Drafter = DraftModel | NGram | SuffixAutomaton | TokenRecycling | LayerSkip | Eagle | Mtp


class Cascade:
    """Several drafters under one controller, which chooses pass by pass: a list with a name.

    Args:
        drafters: one or more, each kind at most once; their lengths are chosen while running, so
            `gamma` does not apply, within the `draft_min` and `draft_max` of each.

    Raises:
        InvalidArgumentError: no drafter, or something that is none.
    """

    def __init__(self, *drafters: Drafter) -> None:
        if not drafters:
            raise InvalidArgumentError("a Cascade needs at least one drafter, got none")
        for drafter in drafters:
            if not isinstance(drafter, Drafter):
                raise InvalidArgumentError(f"a Cascade contains {type(drafter).__name__}")
        self.drafters = drafters

    def __repr__(self) -> str:
        return f"Cascade({', '.join(map(repr, self.drafters))})"


# The longest draft of each kind unless `draft_max` says otherwise.
_LONGEST = {
    DraftModel: 4,
    NGram: 7,
    SuffixAutomaton: 15,
    TokenRecycling: 15,
    LayerSkip: 3,
    Eagle: 4,
    Mtp: 4,
}


def _check_temperature(drafter: DraftModel | LayerSkip | Eagle | Mtp) -> None:
    if drafter.sampling == "greedy" and drafter.temperature:
        raise InvalidArgumentError(
            f"temperature={drafter.temperature} has no effect on greedy drafts, which are the best "
            'tokens whatever it is: leave it out, or choose sampling="sampled" or "coupled"'
        )


def _check_lengths(drafter: Drafter) -> None:
    longest = drafter.draft_max
    if drafter.gamma is not None:
        if longest is not None or drafter.draft_min:
            raise InvalidArgumentError(
                "gamma fixes the length of drafts: give either gamma, or draft_max and draft_min"
            )
        return
    if longest is None:
        longest = _LONGEST[type(drafter)]
    if drafter.draft_min > longest:
        raise InvalidArgumentError(
            f"draft_min must be at most draft_max, {longest}, not {drafter.draft_min}: "
            "no draft would be verified"
        )
