"""Which model wrote a folder of texts, or is taught to: said so that no other passes for it."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import specdec_native as sd

READ_AT_ONCE = 1 << 22  # bytes
# Missing in what was kept by earlier versions, which is taken as it is.
LATER = ("sha256",)


def fingerprint(path: pathlib.Path) -> dict[str, Any]:
    """Of a target's file. Its bytes are part of it: fine-tuned models of one name and size differ
    in nothing else."""
    info = sd.inspect(path, max_array=2**40)
    tokens = info.metadata.get("tokenizer.ggml.tokens", [])
    vocabulary = hashlib.sha256("\n".join(map(str, tokens)).encode("utf-8", "replace"))
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(READ_AT_ONCE):
            whole.update(part)
    return {
        "name": str(info.metadata.get("general.name", "")),
        "architecture": info.architecture,
        "size_bytes": info.size_bytes,
        "n_tokens": len(tokens),
        "vocabulary_sha256": vocabulary.hexdigest(),
        "sha256": whole.hexdigest(),
    }


def difference(kept: Any, target: Mapping[str, Any]) -> str:
    """What a kept fingerprint has that the target's has not, as part of a message; or nothing."""
    if not isinstance(kept, dict):
        return f"target is {kept!r}, expected an object"
    for key, value in target.items():
        if kept.get(key) != value and not (key in LATER and key not in kept):
            return f"target's {key} is {kept.get(key)!r}, expected {value!r}"
    return ""
