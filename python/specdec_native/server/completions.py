"""`/v1/completions`: text that goes on."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..model import Model
from ..results import PositionLogprobs
from . import answers
from .errors import ApiError, invalid
from .fill import fill_prompt
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
from .reply import ending
from .schemas import CompletionRequest


class _Completion:
    """One request, understood. Choice i is of prompt i // n."""

    def __init__(self, server: Server, body: CompletionRequest) -> None:
        self.server = server
        self.body = body
        self.model: Model = server.engine.target
        self.id = f"cmpl-{secrets.token_hex(12)}"
        self.created = int(time.time())
        self.n = body.n or 1
        given: Any = body.prompt
        is_one = isinstance(given, str) or isinstance(given[0], int)
        self.items: list[Any] = [given] if is_one else given
        self.options = engine_options(body)
        given = (body.max_tokens, server.settings.default_max_tokens, 16)
        self.options["max_tokens"] = next(number for number in given if number is not None)
        if body.logprobs is not None:
            self.options["logprobs"] = body.logprobs
        if body.echo and body.logprobs is not None:
            raise invalid(
                "echo: log-probabilities of the prompt are not given; leave out echo or logprobs",
                "echo",
                "unsupported_value",
            )
        if body.suffix and body.echo:
            raise invalid("echo: does not go with suffix", "echo", "unsupported_value")

    def prompts(self) -> list[list[int]]:
        """Token ids; and compiles what the text is to follow."""
        items = self.items
        for item in items:
            # Here, and not by the engine: a list of millions of ids is copied often until then.
            if len(item) > self.server.engine.n_ctx and not isinstance(item, str):
                raise ApiError(
                    400,
                    f"prompt: has {len(item)} tokens, and the context {self.server.engine.n_ctx}",
                    param="prompt",
                    code="context_length_exceeded",
                )
        grammar = grammar_of(self.body)
        if grammar is not None:
            self.options["grammar"] = grammar
            grammar._prepare(self.model, self.n * len(items))
        if self.body.suffix:
            if not all(isinstance(item, str) for item in items):
                raise invalid("suffix: the prompt must be text", "suffix")
            return [fill_prompt(self.model, item, self.body.suffix) for item in items]
        ids = [self.model.tokenize(i) if isinstance(i, str) else list(i) for i in items]
        for tokens in ids:
            if not tokens:
                raise invalid("prompt: empty, and the model adds no token of its own", "prompt")
            # The first one outside the vocabulary is named.
            self.model.detokenize(tokens)
        return ids

    def echo(self, choice: int) -> str:
        """The prompt of a choice, as it was given."""
        if not self.body.echo:
            return ""
        item = self.items[choice // self.n]
        return item if isinstance(item, str) else self.model.detokenize(item, render_special=True)

    def head(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.server.settings.model_id,
        }


async def completions(request: Request) -> Response:
    server: Server = request.app.state.server
    work = _Completion(server, await read(CompletionRequest, request))
    prompts = await in_thread(work.prompts)
    if not work.body.stream:
        return JSONResponse(await unless_gone(request, _whole(work, prompts)))
    events = _events(work, prompts)
    return answers.stream(await anext(events), events)


def _logprobs(
    model: Model, token_ids: Sequence[int], logprobs: Sequence[PositionLogprobs], offset: int
) -> tuple[dict[str, Any], int]:
    """In the form of completions, lists side by side; and where the text goes on."""
    offsets = []
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in token_ids:
        offsets.append(offset)
        text = answers.spelled(model, token)
        offset += len(decoder.decode(answers.spelled_bytes(model, token, text)))
    lists = {
        "tokens": [_name(model, token) for token in token_ids],
        "token_logprobs": [max(position.logprob, -9999.0) for position in logprobs],
        "top_logprobs": [
            {_name(model, top.token_id): max(top.logprob, -9999.0) for top in p.top}
            for p in logprobs
        ],
        "text_offset": offsets,
    }
    return lists, offset


def _name(model: Model, token: int) -> str:
    """Parts of characters as OpenAI's API spells them, so that no two have one name."""
    text = answers.spelled(model, token)
    if "\ufffd" not in text:
        return text
    return "bytes:" + "".join(
        f"\\x{byte:02x}" for byte in answers.spelled_bytes(model, token, text)
    )


async def _whole(work: _Completion, prompts: list[list[int]]) -> dict[str, Any]:
    choices = []
    async with generations(work.server, work.body) as running:
        for prompt in prompts:
            for seed in seeds(work.body, work.n):
                running.submit(prompt, {**work.options, "seed": seed})
        results = await running.whole()
    for i, result in enumerate(results):
        text = work.echo(i) + result.text
        logprobs = None
        if result.logprobs is not None:
            logprobs, _ = _logprobs(work.model, result.token_ids, result.logprobs, 0)
        choices.append(
            {"index": i, "text": text, "logprobs": logprobs, "finish_reason": ending(result)}
        )
    return {
        **work.head(),
        "choices": choices,
        "usage": answers.usage(results, sum(map(len, prompts)), work.n),
        "timings": answers.timings(results[0]),
        "specdec": [answers.speculation(result) for result in results],
    }


async def _events(work: _Completion, prompts: list[list[int]]) -> AsyncIterator[str]:
    wanted = work.body.stream_options
    head = work.head()
    with_usage = bool(wanted and wanted.include_usage)
    if with_usage:
        head["usage"] = None

    def told(index: int, text: str, **more: Any) -> dict[str, Any]:
        choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None, **more}
        return {**head, "choices": [choice]}

    async with generations(work.server, work.body) as running:
        for prompt in prompts:
            for seed in seeds(work.body, work.n):
                running.submit(prompt, {**work.options, "seed": seed})
        n = len(running.requests)
        for i in range(n):
            yield answers.event(told(i, work.echo(i)))
        lengths = [0] * n
        async with aclosing(running.pieces()) as pieces:
            async for piece in pieces:
                chunk, index = piece.chunk, piece.index
                more = {}
                if chunk.logprobs is not None:
                    more["logprobs"], lengths[index] = _logprobs(
                        work.model, chunk.token_ids, chunk.logprobs, lengths[index]
                    )
                data = told(index, chunk.text, **more)
                if wanted is not None and wanted.include_speculation:
                    data["specdec"] = answers.chunk_speculation(work.model, piece)
                if chunk.text or more or "specdec" in data:
                    yield answers.event(data)
        results = running.results()
    for i, result in enumerate(results):
        last = told(i, "", finish_reason=ending(result))
        if i == n - 1:
            last["timings"] = answers.timings(results[0])
            last["specdec"] = [answers.speculation(r) for r in results]
        yield answers.event(last)
    if with_usage:
        total = answers.usage(results, sum(map(len, prompts)), work.n)
        yield answers.event({**head, "choices": [], "usage": total})
    yield answers.DONE
