"""Which replica has read how much of a text before."""

from __future__ import annotations

import hashlib
import json
import random
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

_CHARACTERS = 64  # of a block: what is shared counts in whole ones
_MOST_BLOCKS = 1024


def blocks_of(text: str) -> list[int]:
    """The beginning of a text in blocks; each one's number stands for all up to its end."""
    numbers = []
    digest = hashlib.blake2b(digest_size=8)
    for i in range(min(len(text) // _CHARACTERS, _MOST_BLOCKS)):
        part = text[i * _CHARACTERS : (i + 1) * _CHARACTERS]
        digest.update(part.encode("utf-8", "surrogatepass"))
        numbers.append(int.from_bytes(digest.copy().digest(), "big"))
    return numbers


def prompt_of(body: object) -> str:
    """What of a request's body a model reads first, in order; "" where it is no request."""
    if not isinstance(body, Mapping):
        return ""
    if "messages" in body:
        return _spelled([body.get("tools"), body["messages"]])
    for name in ("prompt", "input_prefix"):
        if name in body:
            given = body[name]
            if isinstance(given, list) and given and not isinstance(given[0], int):
                given = given[0]  # several of them: the first
            return given if isinstance(given, str) else _spelled(given)
    return ""


def _spelled(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return ""


class PrefixTable:
    """Blocks and the replicas that have read them; those used least recently are forgotten."""

    def __init__(self, n_blocks: int = 1 << 16) -> None:
        self._n_blocks = n_blocks
        self._readers: OrderedDict[int, set[str]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._readers)

    def note(self, blocks: Sequence[int], replica: str) -> None:
        """`replica` reads these."""
        for block in reversed(blocks):  # beginnings stay the longest
            self._readers.setdefault(block, set()).add(replica)
            self._readers.move_to_end(block)
        while len(self._readers) > self._n_blocks:
            self._readers.popitem(last=False)

    def keep_only(self, replicas: set[str]) -> None:
        """The others are gone."""
        for block in list(self._readers):
            self._readers[block] &= replicas
            if not self._readers[block]:
                del self._readers[block]

    def n_read(self, blocks: Sequence[int], replica: str) -> int:
        """How many blocks from the first one on `replica` has read."""
        for i, block in enumerate(blocks):
            if replica not in self._readers.get(block, ()):
                return i
        return len(blocks)

    def order(self, blocks: Sequence[int], loads: Mapping[str, int], slack: int) -> list[str]:
        """Replicas, the best one first.

        Args:
            blocks: of the prompt.
            loads: requests at work by replica.
            slack: a replica with so many requests more than another one comes behind it,
                whatever it has read.
        """
        least = min(loads.values(), default=0)

        def rank(replica: str) -> tuple[bool, int, int, float]:
            load = loads[replica]
            return load > least + slack, -self.n_read(blocks, replica), load, _draw(blocks, replica)

        return sorted(loads, key=rank)


def _draw(blocks: Sequence[int], replica: str) -> float:
    """Among equals a text has the same first choice everywhere, and texts have different ones."""
    if not blocks:
        return random.random()
    digest = hashlib.blake2b(f"{blocks[0]} {replica}".encode(), digest_size=8).digest()
    return float(int.from_bytes(digest, "big"))
