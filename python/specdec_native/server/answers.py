"""Parts that answers of all kinds share."""

from __future__ import annotations

import json
import weakref
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.responses import StreamingResponse

from ..errors import SpecdecError
from ..model import Model
from ..results import GenerationResult, PositionLogprobs
from .errors import ApiError, of_engine
from .generation import Piece


def usage(results: Sequence[GenerationResult], prompt_tokens: int, n: int) -> dict[str, Any]:
    """Of `n` choices for each prompt, which counts once: what all its choices found was there."""
    completion = sum(len(result.token_ids) for result in results)
    found = [result.stats.reused_prompt_tokens for result in results]
    cached = sum(min(found[i : i + n]) for i in range(0, len(found), n))
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion,
        "total_tokens": prompt_tokens + completion,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def timings(result: GenerationResult) -> dict[str, Any]:
    """Of one generation, under llama-server's names."""
    stats = result.stats
    read = stats.prompt_tokens - stats.reused_prompt_tokens
    return {
        "cache_n": stats.reused_prompt_tokens,
        "prompt_n": read,
        "prompt_ms": stats.prompt_ms,
        "prompt_per_token_ms": _ratio(stats.prompt_ms, read),
        "prompt_per_second": _ratio(1000.0 * read, stats.prompt_ms),
        "predicted_n": stats.emitted,
        "predicted_ms": stats.decode_ms,
        "predicted_per_token_ms": _ratio(stats.decode_ms, stats.emitted),
        "predicted_per_second": _ratio(1000.0 * stats.emitted, stats.decode_ms),
        "draft_n": stats.drafted,
        "draft_n_accepted": stats.accepted,
    }


def _ratio(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


def speculation(result: GenerationResult) -> dict[str, Any]:
    """How the text was guessed; docs/statistics.md defines every figure."""
    stats = result.stats
    passes = stats.rounds + stats.plain_steps
    return {
        "seed": result.seed,
        "reproducible": stats.reproducible,
        "stop_reason": result.stop_reason,
        "passes": passes,
        "tokens_per_pass": _ratio(stats.emitted, passes),
        "drafted": stats.drafted,
        "accepted": stats.accepted,
        "acceptance_rate": stats.acceptance_rate,
        "drafted_per_position": list(stats.drafted_per_position),
        "accepted_per_position": list(stats.accepted_per_position),
        "tokens_per_second": stats.tokens_per_second,
        "time_to_first_token_ms": stats.time_to_first_token_ms,
        "summary": result.summary,
        "note": stats.note,
    }


def chunk_speculation(model: Model, piece: Piece) -> dict[str, Any]:
    """Who guessed the tokens of a chunk; with `stream_options.include_speculation`.

    The pieces make up the chunk's text, one for each token.
    """
    chunk = piece.chunk
    pieces = [spelled(model, token) for token in chunk.token_ids]
    if pieces and "".join(pieces) != chunk.text:  # characters of several tokens
        pieces = [""] * (len(pieces) - 1) + [chunk.text]
    return {
        "token_ids": list(chunk.token_ids),
        "from_draft": list(chunk.from_draft),
        "sources": list(piece.sources),
        "pieces": pieces or [chunk.text],
    }


def token_logprobs(
    model: Model, token_ids: Sequence[int], logprobs: Sequence[PositionLogprobs]
) -> list[dict[str, Any]]:
    """As a chat answer has them."""
    return [
        {
            **_entry(model, token, position.logprob),
            "top_logprobs": [_entry(model, top.token_id, top.logprob) for top in position.top],
        }
        for token, position in zip(token_ids, logprobs, strict=True)
    ]


def _entry(model: Model, token: int, logprob: float) -> dict[str, Any]:
    text = spelled(model, token)
    # JSON has no infinities: OpenAI's own lowest value.
    return {
        "token": text,
        "logprob": max(logprob, -9999.0),
        "bytes": list(spelled_bytes(model, token, text)),
        "id": token,
    }


def spelled(model: Model, token: int) -> str:
    return model.detokenize([token], render_special=True, strip_space_prefix=False)


_bytes: weakref.WeakKeyDictionary[Model, list[bytes]] = weakref.WeakKeyDictionary()


def spelled_bytes(model: Model, token: int, text: str) -> bytes:
    """Of a token that is spelled `text`, which cannot show a part of a character."""
    if "\ufffd" not in text:
        return text.encode("utf-8", "replace")
    if model not in _bytes:
        _bytes[model] = model._native.token_bytes()
    return _bytes[model][token]


def event(data: object) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


DONE = "data: [DONE]\n\n"


def stream(first: str, events: AsyncIterator[str]) -> StreamingResponse:
    """Server-sent events. `first` was made already, so that errors until then have a status."""

    async def guarded() -> AsyncIterator[str]:
        try:
            yield first
            async for text in events:
                yield text
        except SpecdecError as error:
            yield event(of_engine(error).body())
        except ApiError as error:
            yield event(error.body())

    return StreamingResponse(
        guarded(),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )
