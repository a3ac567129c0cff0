"""JSON from files that nobody vouches for: bounded in size and depth, always an object."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from .errors import ConvertError, short

MAX_SMALL = 16 << 20  # configuration files
MAX_TOKENIZER = 256 << 20


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"the key '{short(key)}' occurs twice in one object")
            seen.add(key)
    return found


def parse_object(raw: bytes, where: str) -> dict[str, Any]:
    """`where` names the file (and the part of it) for messages."""
    try:
        found = json.loads(raw, object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise ConvertError(f"{where}: the JSON is nested too deeply") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise ConvertError(f"{where}: not valid JSON: {short(error)}") from None
    if not isinstance(found, dict):
        raise ConvertError(f"{where}: expected a JSON object, found {type(found).__name__}")
    return found


def read_object(path: pathlib.Path, limit: int = MAX_SMALL) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise ConvertError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > limit:
        raise ConvertError(f"{path}: larger than {limit} bytes, the limit for this file")
    return parse_object(raw, str(path))
