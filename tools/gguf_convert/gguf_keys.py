"""Typed access to the keys of a GGUF file."""

from __future__ import annotations

import math
import pathlib
from typing import Any

from .errors import ConvertError, short


class Keys:
    """Typed access to the keys of an architecture, which nobody vouches for."""

    def __init__(self, keys: dict[str, Any], path: pathlib.Path) -> None:
        self.values, self.path = keys, path
        self.arch = str(keys.get("general.architecture"))

    def fail(self, suffix: str, expected: str) -> ConvertError:
        key = f"{self.arch}.{suffix}"
        if key not in self.values:
            return ConvertError(f"{self.path}: key '{key}' is missing")
        found = short(repr(self.values[key]))
        return ConvertError(f"{self.path}: key '{key}' should be {expected}, found {found}")

    def get(self, suffix: str, default: Any = None) -> Any:
        return self.values.get(f"{self.arch}.{suffix}", default)

    def integer(self, suffix: str, default: int | None = None) -> int:
        value = self.get(suffix, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise self.fail(suffix, "one whole number from 1")
        return value

    def number(self, suffix: str, default: float | None = None) -> float:
        value = self.get(suffix, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(suffix, "a number")
        if not math.isfinite(value):
            raise self.fail(suffix, "a finite number")
        return float(value)

    def flag(self, suffix: str, default: bool) -> bool:
        value = self.get(suffix, default)
        if not isinstance(value, bool):
            raise self.fail(suffix, "true or false")
        return value


def token_id(all_keys: dict[str, Any], name: str) -> int | None:
    """None where the file has none, or one that no token has, as files in use do."""
    value = all_keys.get(f"tokenizer.ggml.{name}_token_id")
    tokens = all_keys.get("tokenizer.ggml.tokens")
    n_tokens = len(tokens) if isinstance(tokens, list) else 0
    return value if isinstance(value, int) and 0 <= value < n_tokens else None
