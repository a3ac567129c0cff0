"""From native results to the public dataclasses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from . import _core
from .results import (
    Chunk,
    DecodeStats,
    GenerationResult,
    OutputCheck,
    PositionLogprobs,
    Round,
    TokenLogprob,
)

_bandwidth = 0.0  # bytes per second; 0 leaves the share of it out of summaries


def measure_bandwidth(n_threads: int) -> None:
    """Measures how fast this machine reads memory; from then on summaries tell the share used."""
    global _bandwidth
    _bandwidth = _core.read_bandwidth(n_threads)


class Call(NamedTuple):
    """A request, and what Python does with its results.

    n_top: how many alternatives to show per token (None: no log-probabilities).
    """

    session: _core.Session  # of the decoder, which may be closed meanwhile
    cancel: _core.CancelFlag
    request: _core.GenerateRequest
    n_top: int | None
    on_progress: Callable[[int, int], object] | None = None
    on_round: Callable[[Round], object] | None = None
    on_token: Callable[[Chunk], object] | None = None
    verify_output: bool = False


def to_chunk(chunk: _core.OutputChunk, call: Call) -> Chunk:
    return chunk_of(chunk, call.n_top)


def chunk_of(chunk: _core.OutputChunk, n_top: int | None) -> Chunk:
    return Chunk(
        text=chunk.text,
        token_ids=tuple(chunk.token_ids),
        from_draft=tuple(chunk.from_draft),
        logprobs=logprobs_of(chunk.logprobs, n_top),
    )


def to_stats(stats: _core.DecodeStats) -> DecodeStats:
    values: dict[str, Any] = {}
    for field in dataclasses.fields(DecodeStats):
        value = getattr(stats, field.name)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return DecodeStats(**values)


def round_callback(on_round: Callable[[Round], object] | None) -> Callable[..., None] | None:
    if on_round is None:
        return None

    def call(*fields: Any) -> None:
        on_round(Round(*fields))

    return call


def to_check(check: _core.OutputCheck) -> OutputCheck:
    return OutputCheck(
        identical=check.identical,
        difference=check.difference,
        first_difference=None if check.first_difference < 0 else check.first_difference,
        plain_token_ids=tuple(check.plain.token_ids),
        plain_stats=to_stats(check.plain.stats),
    )


def to_result(session: _core.Session, result: _core.GenerateResult, call: Call) -> GenerationResult:
    return result_of(session.speed_line, result, call.n_top)


def result_of(
    speed_line: Callable[..., str], result: _core.GenerateResult, n_top: int | None
) -> GenerationResult:
    return GenerationResult(
        text=result.text,
        token_ids=tuple(result.token_ids),
        from_draft=tuple(result.from_draft),
        finish_reason=result.finish_reason,  # type: ignore[arg-type]  # one of the four
        stop_reason=result.stop_reason,
        logprobs=logprobs_of(result.logprobs, n_top),
        prompt_tokens=result.n_prompt_tokens,
        seed=result.seed,
        stats=to_stats(result.stats),
        summary=speed_line(result.stats, bandwidth=_bandwidth),
    )


def logprobs_of(
    positions: list[tuple[float, list[tuple[int, float]]]], n_top: int | None
) -> tuple[PositionLogprobs, ...] | None:
    if n_top is None:
        return None
    return tuple(
        PositionLogprobs(logprob, tuple(TokenLogprob(*entry) for entry in top[:n_top]))
        for logprob, top in positions
    )
