"""A model in several files, as llama.cpp cuts, names and marks them: NAME-00001-of-00003.gguf."""

from __future__ import annotations

import pathlib
import re
from dataclasses import dataclass
from typing import Any

from .element_types import tensor_bytes
from .errors import ConvertError, short
from .gguf_file import Typed
from .tensors import Target

MOST_PARTS = 500  # each is a file that is open until all are complete
UNITS = {"K": 1000, "M": 1000**2, "G": 1000**3}
NUMBERED = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class Limits:
    """Of one part; 0: none. A tensor that is larger than max_bytes has a part of its own."""

    max_bytes: int = 0
    max_tensors: int = 0

    def __bool__(self) -> bool:
        return self.max_bytes > 0 or self.max_tensors > 0


def parse_limits(max_size: str | None = None, max_tensors: int | None = None) -> Limits:
    """From what the options say; sizes as 2G or 500M, powers of 1000."""
    n_bytes = 0
    if max_size is not None:
        found = re.fullmatch(r"([1-9]\d{0,11})([KMG])", max_size.strip().upper(), re.ASCII)
        if found is None:
            raise ConvertError(
                "--split-max-size must be a whole number and K, M or G, as 2G or 500M, "
                f"got '{short(max_size)}'"
            )
        n_bytes = int(found[1]) * UNITS[found[2]]
    if max_tensors is not None and max_tensors < 1:
        raise ConvertError(f"--split-max-tensors must be 1 or more, got {max_tensors}")
    return Limits(n_bytes, max_tensors or 0)


def cut(targets: list[Target], limits: Limits) -> list[list[Target]]:
    """The tensors of each part, in their order."""
    parts: list[list[Target]] = [[]]
    n_bytes = 0
    for target in targets:
        size = tensor_bytes(target)
        full = limits.max_tensors > 0 and len(parts[-1]) >= limits.max_tensors
        full |= limits.max_bytes > 0 and n_bytes + size > limits.max_bytes
        if full and parts[-1]:
            parts.append([])
            n_bytes = 0
        parts[-1].append(target)
        n_bytes += size
    if len(parts) > MOST_PARTS:
        raise ConvertError(
            f"that makes {len(parts)} parts, and {MOST_PARTS} are the most; allow larger ones"
        )
    return parts


def part_paths(output: pathlib.Path, n_parts: int) -> list[pathlib.Path]:
    """Their names; of one part the name as it is."""
    if n_parts == 1:
        return [output]
    if NUMBERED.search(output.stem):
        raise ConvertError(
            f"{output}: parts get their numbers by themselves; give the name without them"
        )
    names = (f"{output.stem}-{i + 1:05}-of-{n_parts:05}{output.suffix}" for i in range(n_parts))
    return [output.with_name(name) for name in names]


def part_keys(keys: dict[str, Any], index: int, n_parts: int, n_tensors: int) -> dict[str, Any]:
    """The first part has all keys of the model, the others only what tells that they are parts."""
    if n_parts == 1:
        return keys
    return (keys if index == 0 else {}) | {
        "split.no": Typed("uint16", index),
        "split.count": Typed("uint16", n_parts),
        "split.tensors.count": Typed("int32", n_tensors),
    }
