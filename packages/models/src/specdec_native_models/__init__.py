"""The small trained models of specdec-native, as GGUF files; a card (.md) beside each."""

from __future__ import annotations

import pathlib


def folder() -> pathlib.Path:
    """Where the files are."""
    return pathlib.Path(__file__).resolve().parent
