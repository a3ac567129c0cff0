"""The OpenAPI description of the server, made of what it checks requests with."""

from __future__ import annotations

import functools
from typing import Any

from pydantic.json_schema import models_json_schema

from .. import __version__
from .schemas import (
    TOKEN_ID,
    Body,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    InfillRequest,
    TokenizeRequest,
)

_POSTS: dict[str, tuple[type[Body], str, bool]] = {
    "/v1/chat/completions": (ChatRequest, "Answer a conversation", True),
    "/v1/completions": (CompletionRequest, "Continue a text", True),
    "/infill": (InfillRequest, "Fill in the middle", True),
    "/tokenize": (TokenizeRequest, "Token ids of a text", False),
    "/detokenize": (DetokenizeRequest, "Text of token ids", False),
}
_GETS = {
    "/v1/models": ("The model", "application/json"),
    "/v1/models/{model}": ("One model", "application/json"),
    "/health": ("Whether the server answers", "application/json"),
    "/metrics": ("Figures for Prometheus", "text/plain"),
    "/openapi.json": ("This description", "application/json"),
}
_REFUSALS = {
    "400": "a field is wrong",
    "401": "a key is missing or wrong",
    "403": "the server does not answer to this name",
    "413": "the body is too long",
    "415": "the body is of another type than JSON",
    "429": "too many requests; Retry-After says when to try again",
    "500": "the server failed",
    "404": "this model cannot do that",
}


@functools.cache
def openapi(n_vocab: int) -> dict[str, Any]:
    """As a dict that `json.dumps` takes, for a model of so many tokens."""
    kinds = dict.fromkeys(kind for kind, _, _ in _POSTS.values())
    _, definitions = models_json_schema(
        [(kind, "validation") for kind in kinds], ref_template="#/components/schemas/{model}"
    )
    schemas = definitions.get("$defs", {})
    schemas["Error"] = {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {
                "type": "object",
                "required": ["message", "type", "param", "code"],
                "properties": {
                    "message": {"type": "string"},
                    "type": {"type": "string"},
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "null"]},
                },
            }
        },
    }
    _limit_token_ids(schemas, n_vocab)
    paths: dict[str, Any] = {}
    for path, (kind, summary, streams) in _POSTS.items():
        content: dict[str, Any] = {"application/json": {"schema": {"type": "object"}}}
        if streams:
            content["text/event-stream"] = {"schema": {}}
        reference = {"$ref": f"#/components/schemas/{kind.__name__}"}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": reference}},
                },
                "responses": {
                    "200": {"description": "done", "content": content},
                    **_refusals(*_REFUSALS),
                },
            }
        }
    for path, (summary, kind_of_text) in _GETS.items():
        form = {"type": "object" if "json" in kind_of_text else "string"}
        get: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {"description": "done", "content": {kind_of_text: {"schema": form}}},
                **_refusals("401", "500"),
            },
        }
        if path == "/health":
            get["security"] = []
            get["responses"] |= {"503": _error("closing")}
        if "{" in path:
            get["parameters"] = [
                {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
            ]
            get["responses"] |= {"404": _error("there is no such model")}
        paths[path] = {"get": get}
    return {
        "openapi": "3.1.0",
        "info": {"title": "specdec-native", "version": __version__},
        "paths": paths,
        "security": [{}, {"key": []}],
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _limit_token_ids(schema: Any, n_vocab: int) -> None:
    if isinstance(schema, list):
        for item in schema:
            _limit_token_ids(item, n_vocab)
    elif isinstance(schema, dict):
        if schema.get("description") == TOKEN_ID:
            schema["maximum"] = n_vocab - 1
        for item in schema.values():
            _limit_token_ids(item, n_vocab)


def _refusals(*statuses: str) -> dict[str, Any]:
    return {status: _error(_REFUSALS[status]) for status in statuses}


def _error(text: str) -> dict[str, Any]:
    schema = {"schema": {"$ref": "#/components/schemas/Error"}}
    return {"description": text, "content": {"application/json": schema}}
