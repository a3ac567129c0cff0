"""Many prompts at once: one reading of the weights serves several sequences."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import _core
from ._convert import logprobs_of
from .decoder import GenerateOptions, native_sampling
from .errors import InvalidArgumentError
from .model import Model, check_token_ids, flush_log, on_main_thread
from .options import MAX_LOGPROBS, check_number
from .results import FinishReason, PositionLogprobs

if TYPE_CHECKING:
    from typing_extensions import Unpack

MAX_PARALLEL = 64


@dataclass(frozen=True)
class ManyResult:
    """One of the results of `generate_many`.

    Attributes:
        token_ids: what was generated; with `keep_eos` the last one may be an end-of-sequence token.
        finish_reason: "stop" at an end-of-sequence token, "length".
        logprobs: per token; None unless asked for.
        seed: the one used.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    logprobs: tuple[PositionLogprobs, ...] | None
    seed: int


_REFUSED = frozenset({"stop", "render_special", "on_progress", "on_round", "seed"})


def generate_many(
    model: Model,
    prompts: Sequence[str | Sequence[int]],
    *,
    max_tokens: int | Sequence[int] | None = 128,
    seeds: Sequence[int] | None = None,
    keep_eos: bool = False,
    n_parallel: int = 16,
    n_ctx: int | None = None,
    on_done: Callable[[int, int], object] | None = None,
    **options: Unpack[GenerateOptions],
) -> list[ManyResult]:
    """Continues every prompt; sequences go through the model `n_parallel` at a time.

    Every result has the tokens that `Decoder(model, drafter=None).generate` gives for its prompt
    and seed. Meant for making data: the whole takes a fraction of the time of one after the other,
    a single prompt gains nothing.

    Args:
        prompts: texts, or token ids as they are.
        max_tokens: of each result, or one number per prompt; None: until its context is full.
        seeds: one per prompt; None draws them.
        keep_eos: results that end with an end-of-sequence token contain it.
        n_parallel: 1 to 64 sequences in one pass of the model; each has a cache of its own.
        n_ctx: positions of each sequence; None: the model's own, at most 4096.
        on_done: called with (sequences that have ended, prompts).
        options: `temperature`, `top_k` and the other options of sampling, `logprobs`, `ignore_eos`.
    """
    model = model._keep()  # may be closed meanwhile
    for name in options:
        if name in _REFUSED or name not in GenerateOptions.__annotations__:
            raise TypeError(f"{name!r} is not an option of generate_many")
    if n_ctx is not None:
        check_number("n_ctx", n_ctx, 1, model.info.context_length, whole=True)
    check_number("n_parallel", n_parallel, 1, MAX_PARALLEL, whole=True)
    n_top = options.get("logprobs")
    if n_top is not None:
        check_number("logprobs", n_top, 0, MAX_LOGPROBS, whole=True)
    if isinstance(prompts, (str, bytes)):
        raise InvalidArgumentError("prompts must be a sequence of prompts, not one text")
    ids = [
        model.tokenize(prompt)
        if isinstance(prompt, str)
        else check_token_ids(f"prompts[{i}]", prompt, model.info.vocab_size)
        for i, prompt in enumerate(prompts)
    ]
    limits = [-1] * len(ids)
    if isinstance(max_tokens, Sequence):
        limits = _one_each("max_tokens", max_tokens, ids, 2**31 - 1)
    elif max_tokens is not None:
        limits = _one_each("max_tokens", [max_tokens] * len(ids), ids, 2**31 - 1)
    if seeds is None:
        seeds = [secrets.randbits(32) for _ in ids]
    seeds = _one_each("seeds", seeds, ids, 2**64 - 1)
    sampling = native_sampling(options, model.info.vocab_size)
    try:
        found = _core.generate_many(
            model._native,
            prompts=ids,
            seeds=seeds,
            sampling=sampling,
            max_tokens=limits,
            ignore_eos=bool(options.get("ignore_eos", False)),
            keep_eos=keep_eos,
            n_logprobs=-1 if n_top is None else n_top,
            n_parallel=n_parallel,
            n_ctx=n_ctx or 0,
            on_progress=on_done,
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
        )
        for (tokens, reason, logprobs), seed in zip(found, seeds, strict=True)
    ]


def _one_each(
    name: str, numbers: Sequence[int], prompts: Sequence[object], highest: int
) -> list[int]:
    if len(numbers) != len(prompts):
        raise InvalidArgumentError(
            f"{name} has {len(numbers)} numbers for {len(prompts)} prompts: give one per prompt"
        )
    for number in numbers:
        check_number(name, number, 0, highest, whole=True)
    return list(numbers)
