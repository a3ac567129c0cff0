"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import InvalidArgumentError


@dataclass(frozen=True)
class Settings:
    """Limits and names of a server.

    Attributes:
        model_id: what `/v1/models` calls the model; requests may name any.
        api_keys: keys that a request must bring one of; empty: none is asked for.
        max_body_bytes: of a request; a longer one is refused with 413.
        default_max_tokens: of requests that give none; None: until the context is full.
        chat_template: as `Decoder.chat`'s `template`; None: the file's.
        reasoning_format: "auto": what a model thinks (``<think>...</think>``, where its chat
            template knows that) is an answer's `reasoning_content`; "none": a part of its text.
        page: serve the page at `/`.
        allowed_origins: other sites whose pages may call this server (CORS); "*": all.
    """

    model_id: str
    api_keys: frozenset[str] = frozenset()
    max_body_bytes: int = 8 << 20
    default_max_tokens: int | None = None
    chat_template: str | None = None
    reasoning_format: Literal["auto", "none"] = "auto"
    page: bool = True
    allowed_origins: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_body_bytes < 1:
            raise InvalidArgumentError(f"max_body_bytes must be 1 or more: {self.max_body_bytes}")
        if any(not key or key != key.strip() or not key.isprintable() for key in self.api_keys):
            raise InvalidArgumentError("an API key is empty, or has spaces around it")
