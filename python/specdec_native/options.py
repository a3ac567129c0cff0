"""Options of decoding. All are checked here, before anything runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from .errors import InvalidArgumentError

if TYPE_CHECKING:
    from .model import Model

KvType = Literal["f32", "f16", "q8_0"]
Requantize = Literal["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
DraftSampling = Literal["auto", "greedy", "sampled", "coupled"]

MAX_STOP_STRINGS = 64
MAX_LOGPROBS = 100


def check_number(
    name: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    whole: bool = False,
    open_low: bool = False,
    open_high: bool = False,
) -> None:
    """Raises InvalidArgumentError naming option and range unless low <= value <= high."""
    kind = int if whole else (int, float)
    inside = (
        isinstance(value, kind)
        and not isinstance(value, bool)
        and (value > low if open_low else value >= low)
        and (value < high if open_high else value <= high)
    )
    if not inside:
        left, right = "(" if open_low else "[", ")" if open_high or high == math.inf else "]"
        shown = "infinity" if high == math.inf else f"{high:g}"
        noun = "a whole number" if whole else "a number"
        raise InvalidArgumentError(
            f"{name} must be {noun} in {left}{low:g}, {shown}{right}, not {value!r}"
        )


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        raise InvalidArgumentError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How the next token is chosen; the warps apply in the order of the fields.

    Attributes:
        logit_bias: token id -> what is added to its logit, -inf bans the token.
        repetition_penalty: > 0; divides positive logits of seen tokens, multiplies negative ones.
        presence_penalty: [-100, 100]; subtracted once from the logits of seen tokens.
        frequency_penalty: [-100, 100]; subtracted once per occurrence.
        penalty_last_n: how many of the last tokens count as seen; -1: all, 0: none.
        temperature: >= 0; 0 takes the best token, ties to the lowest id.
        top_k: >= 0; 0 is off.
        top_p: (0, 1]; 1 is off.
        min_p: [0, 1), relative to the best token's probability; 0 is off.
        noise_scale: >= 0; standard deviation of Gaussian noise on the survivors' logits.
        seed: [0, 2^64); None draws one, which the result reports.
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
        check_number("temperature", self.temperature, 0, 1e6)
        check_number("top_k", self.top_k, 0, 2**31 - 1, whole=True)
        check_number("top_p", self.top_p, 0, 1, open_low=True)
        check_number("min_p", self.min_p, 0, 1, open_high=True)
        check_number("noise_scale", self.noise_scale, 0, 1e6)
        check_number("repetition_penalty", self.repetition_penalty, 0, 1e6, open_low=True)
        check_number("presence_penalty", self.presence_penalty, -100, 100)
        check_number("frequency_penalty", self.frequency_penalty, -100, 100)
        check_number("penalty_last_n", self.penalty_last_n, -1, 2**31 - 1, whole=True)
        if self.seed is not None:
            check_number("seed", self.seed, 0, 2**64 - 1, whole=True)
        if not isinstance(self.logit_bias, Mapping):
            raise InvalidArgumentError("logit_bias must be a dict of token id to number")
        for token, bias in self.logit_bias.items():
            check_number("logit_bias key", token, 0, 2**31 - 1, whole=True)
            if bias != -math.inf:
                check_number(f"logit_bias[{token}]", bias, -1e6, 1e6)


@dataclass(frozen=True)
class DraftModel:
    """Drafts with a smaller model of the same vocabulary.

    Attributes:
        model: the draft model.
        draft_max: 1 to 64, the longest draft; None: 4.
        draft_min: shorter drafts are not verified.
        gamma: 0 to 64, a fixed draft length for experiments; None: off.
        sampling: how it picks tokens: "greedy", "sampled", "coupled" (with the target's own noise,
            under `match`), or "auto": greedy at temperature 0, coupled for `match`, else sampled.
        temperature: of its sampling, >= 0; None: the target's.
        head_tokens: only token ids below this are drafted, and those of the text so far, which
            makes the output head cheap; 0: all; None: 32768 when the vocabulary is at least twice
            that.
        draft_top_k: 1 or more, drafts come from its best so many tokens; None: the target's top_k,
            or 50 for the `topk_importance` verifiers.
        branch: 1 to 16 candidates per position; above 1 a comb, for verifiers that take trees.
    """

    model: Model
    _: KW_ONLY
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None
    sampling: DraftSampling = "auto"
    temperature: float | None = None
    head_tokens: int | None = None
    draft_top_k: int | None = None
    branch: int = 1

    def __post_init__(self) -> None:
        _check_draft_length(self.draft_max, self.draft_min, self.gamma)
        check_choice("sampling", self.sampling, get_args(DraftSampling))
        if self.temperature is not None:
            check_number("temperature", self.temperature, 0, 1e6)
        check_number("branch", self.branch, 1, 16, whole=True)
        if self.head_tokens is not None:
            check_number("head_tokens", self.head_tokens, 0, 2**30, whole=True)
        if self.draft_top_k is not None:
            check_number("draft_top_k", self.draft_top_k, self.branch, 2**31 - 1, whole=True)


@dataclass(frozen=True)
class NGram:
    """Drafts by looking up the last tokens in the prompt and the output so far; needs no model.

    Attributes:
        n: 2 to 16, the longest context looked up; the longest one that matches decides.
        min_count: 1 or more; seen at least so often.
        filler_top_k: 1 to 64; above 1 also count the best so many tokens of each position.
        keep: keep what was learnt between calls.
        draft_max, draft_min, gamma: as of `DraftModel`; the longest draft is 7 unless given.
    """

    n: int = 5
    _: KW_ONLY
    min_count: int = 1
    filler_top_k: int = 1
    keep: bool = False
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        check_number("n", self.n, 2, 16, whole=True)
        check_number("min_count", self.min_count, 1, 1_000_000, whole=True)
        check_number("filler_top_k", self.filler_top_k, 1, 64, whole=True)
        _check_draft_length(self.draft_max, self.draft_min, self.gamma)


@dataclass(frozen=True)
class SuffixAutomaton:
    """Drafts what followed the longest suffix of the text that was seen before; needs no model.

    A match of m tokens drafts at most 2 m - 1 tokens: longer matches are likelier to go on.

    Attributes:
        min_match: 1 to 64; shorter matches are not drafted from.
        corpus: a static text to find matches in as well, for example the files being worked on.
        keep: keep prompts and outputs from call to call.
        max_store: 1024 to 2**26 tokens remembered, about 100 bytes each; beyond that the older half
            is forgotten.
        draft_max, draft_min, gamma: as of `DraftModel`; the longest draft is 15 unless given.
    """

    min_match: int = 1
    _: KW_ONLY
    corpus: str | None = None
    keep: bool = False
    max_store: int = 1 << 18
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        check_number("min_match", self.min_match, 1, 64, whole=True)
        if self.corpus is not None and not isinstance(self.corpus, str):
            raise InvalidArgumentError(f"corpus must be text, not {type(self.corpus).__name__}")
        check_number("max_store", self.max_store, 1024, 1 << 26, whole=True)
        _check_draft_length(self.draft_max, self.draft_min, self.gamma)


@dataclass(frozen=True)
class TokenRecycling:
    """Drafts with the model's best tokens after each token, as they were when it last came up.

    Needs no model: they are left over from logits that were computed anyway.

    Attributes:
        top_k: 1 to 32 successors remembered per token.
        tree: draft a tree of alternatives where the verifier takes one, instead of a chain.
        keep: keep the successors from call to call.
        draft_max, draft_min, gamma: as of `DraftModel`, in tokens of the whole tree; 15 unless
            given.
    """

    top_k: int = 8
    _: KW_ONLY
    tree: bool = True
    keep: bool = False
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        check_number("top_k", self.top_k, 1, 32, whole=True)
        _check_draft_length(self.draft_max, self.draft_min, self.gamma)


@dataclass(frozen=True)
class LayerSkip:
    """Drafts with the model's own first layers and output head; needs no second model.

    They share the model's cache: nothing is stored or computed twice. Pays only where the first
    layers guess well, as models trained for it do; the text is the same in any case.

    Attributes:
        n_layers: 1 to the number of layers less one; None: a quarter of them.
        sampling, temperature: as of `DraftModel`.
        draft_max, draft_min, gamma: as of `DraftModel`; the longest draft is 3 unless given.
    """

    n_layers: int | None = None
    _: KW_ONLY
    sampling: DraftSampling = "auto"
    temperature: float | None = None
    draft_max: int | None = None
    draft_min: int = 0
    gamma: int | None = None

    def __post_init__(self) -> None:
        if self.n_layers is not None:
            check_number("n_layers", self.n_layers, 1, 1000, whole=True)
        check_choice("sampling", self.sampling, get_args(DraftSampling))
        if self.temperature is not None:
            check_number("temperature", self.temperature, 0, 1e6)
        _check_draft_length(self.draft_max, self.draft_min, self.gamma)


Drafter = DraftModel | NGram | SuffixAutomaton | TokenRecycling | LayerSkip


class Cascade:
    """Several drafters under one controller, which chooses pass by pass: a list with a name.

    Args:
        drafters: one or more, each kind at most once; their lengths are chosen while running, so
            `gamma` and `draft_min` do not apply, and `draft_max` caps them.

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


def _check_draft_length(draft_max: int | None, draft_min: int, gamma: int | None) -> None:
    if draft_max is not None:
        check_number("draft_max", draft_max, 1, 64, whole=True)
    check_number("draft_min", draft_min, 0, 64 if draft_max is None else draft_max, whole=True)
    if gamma is not None:
        check_number("gamma", gamma, 0, 64, whole=True)
