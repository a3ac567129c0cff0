"""The one exception for everything that is wrong with the input."""

from __future__ import annotations


class ConvertError(Exception):
    """Says what is wrong, where, what was expected and what to do, in one message."""


def short(value: object, limit: int = 120) -> str:
    """A value from a file, printable and short enough for a message."""
    text = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in str(value))
    return text if len(text) <= limit else text[:limit] + "..."
