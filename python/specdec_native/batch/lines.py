"""Lines of the input and of the output."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from ..engine import Engine
from ..errors import InvalidArgumentError, SpecdecError
from ..requests import Request
from ..results import GenerationResult

_OWN = ("id", "prompt", "messages")
_NOT_IN_FILES = ("self", "prompt", "messages", "params", "grammar", "on_progress", "on_round")


@dataclass(frozen=True)
class Line:
    """One line of the input: what is asked, or why that cannot be told.

    Attributes:
        index: from 0 on; without a seed of its own the line's seed.
        key: its "id", whatever JSON that is; None if it has none.
        fields: its other fields.
        error: "" or what is wrong with the line itself.
    """

    index: int
    key: Any
    fields: dict[str, Any]
    error: str = ""


def read_lines(file: BinaryIO) -> Iterator[Line]:
    """All lines but empty ones."""
    index = 0
    for number, raw in enumerate(file, 1):
        if not raw.strip():
            continue
        try:
            fields = json.loads(raw, parse_constant=_refuse)
            if not isinstance(fields, dict):
                raise ValueError(f"expected an object, got {type(fields).__name__}")
            key = fields.pop("id", None)
            yield Line(index, key, fields)
        except (ValueError, RecursionError) as error:
            yield Line(index, None, {}, f"line {number} is no JSON object: {error}")
        index += 1


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")


def options_in_files(call: Any) -> frozenset[str]:
    """Options of a call that a line may have."""
    return frozenset(inspect.signature(call).parameters) - set(_NOT_IN_FILES)


def submit(engine: Engine, line: Line, defaults: dict[str, Any]) -> Request:
    """Hands a line over.

    Raises:
        SpecdecError: what is wrong with it.
    """
    if line.error:
        raise InvalidArgumentError(line.error)
    fields = dict(line.fields)
    kinds = [name for name in ("prompt", "messages") if name in fields]
    if len(kinds) != 1:
        raise InvalidArgumentError("expected either prompt or messages")
    asked = fields.pop(kinds[0])
    call: Any = engine.submit if kinds == ["prompt"] else engine.submit_chat
    allowed = options_in_files(call)
    unknown = sorted(set(fields) - allowed)
    if unknown:
        raise InvalidArgumentError(
            f"{unknown[0]}: no such option; there are id, {kinds[0]}, {', '.join(sorted(allowed))}"
        )
    if isinstance(fields.get("logit_bias"), dict):
        fields["logit_bias"] = _token_ids(fields["logit_bias"])
    usual = {name: value for name, value in defaults.items() if name in allowed}
    request: Request = call(asked, **{"seed": line.index, **usual, **fields})
    return request


def _token_ids(bias: dict[str, Any]) -> dict[int, Any]:
    try:
        return {int(token): value for token, value in bias.items()}
    except ValueError as error:
        raise InvalidArgumentError(f"logit_bias: {error}") from None


def answer(line: Line, result: GenerationResult) -> bytes:
    """The output's line: nothing in it depends on time, so that it is the same every time."""
    told: dict[str, Any] = {
        "text": result.text,
        "finish_reason": result.finish_reason,
        "stop_reason": result.stop_reason,
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": len(result.token_ids),
        "seed": result.seed,
    }
    if result.logprobs is not None:
        told["logprobs"] = [
            {
                "id": token,
                "logprob": position.logprob,
                "top": [[top.token_id, top.logprob] for top in position.top],
            }
            for token, position in zip(result.token_ids, result.logprobs, strict=True)
        ]
    return _encoded(line, told)


def refusal(line: Line, error: SpecdecError) -> bytes:
    return _encoded(line, {"error": {"message": str(error), "code": error.code}})


def _encoded(line: Line, told: dict[str, Any]) -> bytes:
    entry = {"line": line.index, "id": line.key, **told}
    # Halves of characters in an id stay what they are: JSON's spelling is Python's here.
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
