"""Lines of the input and of the output."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

from ..engine import Engine
from ..errors import InvalidArgumentError, SpecdecError
from ..requests import Request
from ..results import GenerationResult

MOST_BYTES = 64 << 20  # of a line
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


class Source:
    """The input: what it holds when it is opened, however it grows later."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._n_bytes = 0
        digest = hashlib.sha256()
        while part := self._file.read(1 << 20):
            digest.update(part)
            self._n_bytes += len(part)
        self.digest = digest.hexdigest()
        self._read = hashlib.sha256()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def _raw_lines(self) -> Iterator[bytes]:
        """Of too long ones the beginning."""
        self._file.seek(0)
        left = self._n_bytes
        while left > 0 and (raw := self._file.readline(min(left, MOST_BYTES + 1))):
            line = raw
            while True:
                self._read.update(raw)
                left -= len(raw)
                if raw.endswith(b"\n") or left == 0:
                    break
                if not (raw := self._file.readline(min(left, 1 << 20))):
                    break
            yield line

    def lines(self) -> Iterator[Line]:
        return read_lines(self._raw_lines())

    def check_unchanged(self) -> None:
        """Raises InvalidArgumentError if lines were not those of the digest."""
        if self._read.hexdigest() != self.digest:
            raise InvalidArgumentError(
                f"{self._path} was changed while it was read, so its answers do not belong "
                "together; --restart begins anew"
            )

    def has_grown(self) -> bool:
        return os.fstat(self._file.fileno()).st_size > self._n_bytes


def read_lines(raw_lines: Iterable[bytes]) -> Iterator[Line]:
    """All lines but empty ones."""
    index = 0
    for number, raw in enumerate(raw_lines, 1):
        if not raw.strip():
            continue
        try:
            if len(raw) > MOST_BYTES:
                raise ValueError(f"it is longer than {MOST_BYTES} bytes")
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
