"""Filling in the middle: `/infill`, and `suffix` of completions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..model import Model
from ..results import GenerationResult
from . import answers
from .errors import ApiError
from .generation import (
    Server,
    engine_options,
    generations,
    grammar_of,
    in_thread,
    seeds,
    unless_gone,
)
from .reading import read
from .schemas import Extra, InfillRequest


class FimTokens(NamedTuple):
    """Ids of the control tokens; those of repositories may be missing."""

    prefix: int
    suffix: int
    middle: int
    repository: int | None
    separator: int | None


# Spellings, for files without the keys.
_SPELLED = {
    "pre": ("<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>"),
    "suf": ("<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>"),
    "mid": ("<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>"),
    "rep": ("<|repo_name|>", "<|fim_repo|>", "<reponame>"),
    "sep": ("<|file_sep|>", "<|file_separator|>", "<file_sep>"),
}
_OLDER = {"pre": "prefix", "suf": "suffix", "mid": "middle"}


def fim_tokens(model: Model) -> FimTokens | None:
    """By the file's keys, or by their usual spellings; None if the model has none."""
    found = {part: _token(model, part) for part in _SPELLED}
    pre, suf, mid = found["pre"], found["suf"], found["mid"]
    if pre is None or suf is None or mid is None:
        return None
    return FimTokens(pre, suf, mid, found["rep"], found["sep"])


def _token(model: Model, part: str) -> int | None:
    keys = [f"tokenizer.ggml.fim_{part}_token_id"]
    keys += [f"tokenizer.ggml.{_OLDER[part]}_token_id"] if part in _OLDER else []
    for key in keys:
        value = model.metadata.get(key)
        if isinstance(value, int) and 0 <= value < model.info.vocab_size:
            return value
    for spelling in _SPELLED[part]:
        ids = model.tokenize(spelling, add_special=False)
        if len(ids) == 1 and model.token_text(ids[0]) == spelling:
            return ids[0]
    return None


def fill_prompt(
    model: Model, prefix: str, suffix: str, extra: Sequence[Extra] = (), begin: str = ""
) -> list[int]:
    """Ids in the order prefix, suffix, middle. Texts cannot forge control tokens."""
    fim = fim_tokens(model)
    if fim is None:
        raise ApiError(
            404,
            "this model has no tokens for filling in (fim_pre, fim_suf, fim_mid)",
            code="unsupported_model",
        )

    def plain(text: str) -> list[int]:
        return model.tokenize(text, add_special=False, parse_special=False) if text else []

    ids: list[int] = []
    if model.info.add_bos and model.bos_token_id is not None:
        ids.append(model.bos_token_id)
    if extra and fim.repository is not None:
        ids += [fim.repository, *plain("repository\n")]
    for file in extra:
        if fim.separator is not None:
            ids += [fim.separator, *plain(f"{file.filename or 'file'}\n{file.text}")]
        else:
            ids += plain(f"{file.text}\n")
    if extra and fim.separator is not None:
        ids += [fim.separator, *plain("filename\n")]
    return [*ids, fim.prefix, *plain(prefix), fim.suffix, *plain(suffix), fim.middle, *plain(begin)]


async def infill(request: Request) -> Response:
    server: Server = request.app.state.server
    body: InfillRequest = await read(InfillRequest, request)

    options = {**engine_options(body), "seed": seeds(body, 1)[0]}

    def prompt() -> list[int]:
        model = server.engine.target
        grammar = grammar_of(body)
        if grammar is not None:
            options["grammar"] = grammar
            grammar._prepare(model, 1)
        return fill_prompt(
            model, body.input_prefix, body.input_suffix, body.input_extra, body.prompt
        )

    ids = await in_thread(prompt)
    limit = body.n_predict if body.max_tokens is None else body.max_tokens
    options["max_tokens"] = limit if limit >= 0 else server.settings.default_max_tokens
    if not body.stream:
        return JSONResponse(await unless_gone(request, _whole(server, body, ids, options)))
    events = _events(server, body, ids, options)
    return answers.stream(await anext(events), events)


def _ended(result: GenerationResult) -> dict[str, Any]:
    """llama-server's fields."""
    kinds = {"eos": "eos", "": "limit"}
    return {
        "stop": True,
        "stop_type": kinds.get(result.stop_reason, "word"),
        "stopping_word": "" if result.stop_reason in kinds else result.stop_reason,
        "tokens_predicted": len(result.token_ids),
        "tokens_evaluated": result.prompt_tokens,
        "tokens_cached": result.stats.reused_prompt_tokens,
        "timings": answers.timings(result),
        "specdec": answers.speculation(result),
    }


async def _whole(
    server: Server, body: InfillRequest, ids: list[int], options: dict[str, Any]
) -> dict[str, Any]:
    async with generations(server, body) as running:
        running.submit(ids, options)
        [result] = await running.whole()
    return {"content": result.text, "model": server.settings.model_id, **_ended(result)}


async def _events(
    server: Server, body: InfillRequest, ids: list[int], options: dict[str, Any]
) -> AsyncIterator[str]:
    async with generations(server, body) as running:
        running.submit(ids, options)
        yield answers.event({"content": "", "stop": False})
        async with aclosing(running.pieces()) as pieces:
            async for piece in pieces:
                data: dict[str, Any] = {"content": piece.chunk.text, "stop": False}
                if body.stream_options is not None and body.stream_options.include_speculation:
                    data["specdec"] = answers.chunk_speculation(server.engine.target, piece)
                if piece.chunk.text or "specdec" in data:
                    yield answers.event(data)
        [result] = running.results()
    yield answers.event({"content": "", **_ended(result)})
