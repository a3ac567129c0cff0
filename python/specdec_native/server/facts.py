"""What a server says of itself and of its model, and the tokens of texts."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from .. import __version__
from .errors import ApiError
from .fill import fim_tokens
from .generation import Server, in_thread
from .metrics import CONTENT_TYPE_LATEST
from .reading import read
from .schemas import DetokenizeRequest, TokenizeRequest


def model_entry(server: Server) -> dict[str, Any]:
    model = server.engine.target
    info = model.info
    return {
        "id": server.settings.model_id,
        "object": "model",
        "created": server.started,
        "owned_by": "specdec-native",
        "meta": {
            "architecture": info.architecture,
            "quantisation": info.quantisation,
            "n_params": info.n_params,
            "n_ctx_train": info.context_length,
            "n_ctx": server.engine.n_ctx,
            "n_vocab": info.vocab_size,
            "size": info.size_bytes,
            "has_chat_template": server.settings.chat_template is not None
            or model.chat_template is not None,
            "fills_in": fim_tokens(model) is not None,
        },
    }


async def models(request: Request) -> Response:
    server: Server = request.app.state.server
    return JSONResponse({"object": "list", "data": [model_entry(server)]})


async def one_model(request: Request) -> Response:
    server: Server = request.app.state.server
    name = request.path_params["model"]
    if name != server.settings.model_id:
        raise ApiError(
            404,
            f"there is no model {name!r} here, only {server.settings.model_id!r}",
            param="model",
            code="model_not_found",
        )
    return JSONResponse(model_entry(server))


async def health(request: Request) -> Response:
    server: Server = request.app.state.server
    if server.engine.closed:
        raise ApiError(503, "the server is closing", code="closing")
    return JSONResponse({"status": "ok", "version": __version__})


async def metrics(request: Request) -> Response:
    server: Server = request.app.state.server
    stats = server.engine.stats()
    text = server.metrics.text(
        running=stats.running, waiting=stats.queued, kv_bytes=stats.kv_used_bytes
    )
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def tokenize(request: Request) -> Response:
    server: Server = request.app.state.server
    model = server.engine.target
    body: TokenizeRequest = await read(TokenizeRequest, request)

    def told(token: int) -> str:
        entry = {"id": token, "piece": model.token_text(token)} if body.with_pieces else token
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":"))

    def work() -> Response:
        ids = model.tokenize(
            body.content, add_special=body.add_special, parse_special=body.parse_special
        )
        # Each spelled once, and not all in one call, in which no other thread would get its turn.
        known = {token: told(token) for token in set(ids)}
        text = ",".join([known[token] for token in ids])
        return Response(f'{{"tokens":[{text}]}}', media_type="application/json")

    return await in_thread(work)


async def detokenize(request: Request) -> Response:
    server: Server = request.app.state.server
    model = server.engine.target
    body: DetokenizeRequest = await read(DetokenizeRequest, request)

    def work() -> Response:
        text = model.detokenize(body.tokens, render_special=True, strip_space_prefix=False)
        return JSONResponse({"content": text})

    return await in_thread(work)
