"""Many prompts at once: one reading of the weights serves several sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import _core
from ._checks import check_all, check_whole, unset
from ._convert import logprobs_of
from ._native_options import native_sampling, random_seed
from ._option_table import CHECKS
from .errors import InvalidArgumentError
from .model import (
    Model,
    check_layers,
    check_model,
    check_token_ids,
    flush_log,
    on_main_thread,
)
from .options import SamplingParams
from .results import FinishReason, PositionLogprobs


@dataclass(frozen=True)
class ManyResult:
    """One of the results of `generate_many`.

    Attributes:
        token_ids: what was generated; with `keep_eos` the last one may be an end-of-sequence token.
        finish_reason: "stop" at an end-of-sequence token, "length".
        logprobs: per token; None unless asked for.
        seed: the one used.
        hidden_states: float32 numbers of shape [n_read, n_layers, n_embd] as
            `Model.hidden_states` gives them, of the prompt's tokens and those generated, so far as
            the model read them: all but the one chosen last, which may be an end of sequence that
            is no part of the result. None unless `layers` are given. Results with them can be
            pickled and copied, which copies the numbers; for `dataclasses.asdict`, which cannot
            copy a memoryview, ``dataclasses.replace(result, hidden_states=None)``.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[PositionLogprobs, ...] | None
    seed: int
    hidden_states: memoryview | None = field(default=None, compare=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        states = self.hidden_states
        fields = dict(vars(self))
        if states is not None:
            fields["hidden_states"] = (states.tobytes(), states.shape)
        return fields

    def __setstate__(self, fields: dict[str, Any]) -> None:
        kept = fields["hidden_states"]
        if kept is not None:
            numbers, shape = kept
            states: Any = _core.HiddenStates(numbers, *shape)
            fields = {**fields, "hidden_states": memoryview(states)}
        vars(self).update(fields)  # frozen


def generate_many(
    model: Model,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_tokens: int | Sequence[int] | None = 128,
    seeds: Sequence[int] | None = None,
    keep_eos: bool = False,
    n_parallel: int = 16,
    n_ctx: int | None = None,
    layers: Sequence[int] | None = None,
    on_done: Callable[[int, int], object] | None = None,
    params: SamplingParams | None = None,
    logit_bias: Mapping[int, float] = unset({}),
    repetition_penalty: float = unset(1.0),
    presence_penalty: float = unset(0.0),
    frequency_penalty: float = unset(0.0),
    penalty_last_n: int = unset(64),
    temperature: float = unset(0.0),
    top_k: int = unset(0),
    top_p: float = unset(1.0),
    min_p: float = unset(0.0),
    noise_scale: float = unset(0.0),
    ignore_eos: bool = False,
    logprobs: int | None = None,
) -> list[ManyResult]:
    """Continues every prompt; sequences go through the model `n_parallel` at a time.

    Every result has the tokens that `Decoder(model, drafter=None).generate` gives for its prompt
    and seed. Meant for making data: the whole takes a fraction of the time of one after the other,
    a single prompt gains nothing.

    Args:
        model: a loaded model.
        prompts: texts, or token ids as they are.
        max_tokens: of each result, or one number per prompt; None: until its context is full.
        seeds: one per prompt; None: that of `params` for all, or new ones, which the results
            report.
        keep_eos: results that end with an end-of-sequence token contain it.
        n_parallel: 1 to 64; sequences in one pass of the model; each has a cache of its own.
        n_ctx: 2 or more; positions of each sequence; None: the model's.
        layers: ascending, from 0 to the model's number of layers; what enters these layers is
            reported for every token that was read, as `Model.hidden_states` does, with the same
            bits and no second reading; None: none.
        on_done: called with (sequences that have ended, prompts).
        params: a `SamplingParams`; single options override its fields; None: its defaults.
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
        ignore_eos: forbid the tokens that end a generation, as llama.cpp's --ignore-eos does: they
            are never drawn, and the model goes on until `max_tokens`, a stop string or a full
            context.
        logprobs: 0 to 100; log-probabilities, and so many alternatives per token; None: none.
    """
    given = locals()
    check_model("model", model)
    model = model._keep()  # may be closed meanwhile
    calls = {name: CHECKS["call"][name] for name in ("ignore_eos", "logprobs")}
    checked = check_all(CHECKS["many"] | calls, given)
    n_top = checked["logprobs"]
    if isinstance(prompts, (str, bytes)):
        raise InvalidArgumentError("prompts must be a sequence of prompts, not one text")
    if not isinstance(prompts, Iterable):
        raise InvalidArgumentError(
            f"prompts must be a sequence of prompts, not {type(prompts).__name__}"
        )
    ids = [
        model.tokenize(prompt)
        if isinstance(prompt, str)
        else check_token_ids(f"prompts[{i}]", prompt, model.info.vocab_size)
        for i, prompt in enumerate(prompts)
    ]
    limits = [-1] * len(ids)
    if isinstance(max_tokens, Iterable):
        limits = _one_each("max_tokens", max_tokens, ids, 2**31 - 1)
    elif max_tokens is not None:
        limits = [check_whole("max_tokens", max_tokens, 0, 2**31 - 1)] * len(ids)
    wanted = [] if layers is None else check_layers("layers", layers, model.info.n_layers)
    if layers is not None and not wanted:
        raise InvalidArgumentError("layers is empty; name at least one, or give None")
    sampling = native_sampling(given, model.info.vocab_size)
    if seeds is None:
        seed = None if params is None else params.seed
        seeds = [random_seed() if seed is None else seed for _ in ids]
    seeds = _one_each("seeds", seeds, ids, 2**64 - 1)
    try:
        found = _core.generate_many(
            model._native,
            prompts=ids,
            seeds=seeds,
            sampling=sampling,
            max_tokens=limits,
            ignore_eos=checked["ignore_eos"],
            keep_eos=checked["keep_eos"],
            n_logprobs=-1 if n_top is None else n_top,
            n_parallel=checked["n_parallel"],
            n_ctx=checked["n_ctx"] or 0,
            layers=wanted,
            on_progress=checked["on_done"],
            poll_signals=on_main_thread(),
        )
    finally:
        flush_log()
    return [
        ManyResult(
            text=model.detokenize(tokens, strip_space_prefix=False),
            token_ids=tuple(tokens),
            finish_reason=reason,  # type: ignore[arg-type]  # one of the three
            logprobs=logprobs_of(logprobs, n_top),
            seed=seed,
            hidden_states=None if states is None else memoryview(states),  # type: ignore[arg-type]
        )
        for (tokens, reason, logprobs, states), seed in zip(found, seeds, strict=True)
    ]


def _one_each(name: str, numbers: object, prompts: Sequence[object], highest: int) -> list[int]:
    if not isinstance(numbers, Iterable) or isinstance(numbers, (str, bytes)):
        raise InvalidArgumentError(f"{name} must be a sequence of numbers, not {numbers!r}")
    found = [check_whole(f"{name}[{i}]", number, 0, highest) for i, number in enumerate(numbers)]
    if len(found) != len(prompts):
        raise InvalidArgumentError(
            f"{name} has {len(found)} numbers for {len(prompts)} prompts: give one per prompt"
        )
    return found
