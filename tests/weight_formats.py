"""The weight formats, from the list that everything is made from: cpp/tensor/formats.def."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

LIST = pathlib.Path(__file__).resolve().parent.parent / "cpp" / "tensor" / "formats.def"
LINE = re.compile(
    r"^SPECDEC_(PLAIN|BLOCK32|BLOCK256)\((\w+), (\w+), (\d+), (\d+), (-?\d+), (-?\d+), (-?\d+)\)$",
    re.M,
)


class Format(NamedTuple):
    id: int
    elements: int  # of a block
    n_bytes: int
    halves: tuple[int, ...]  # where in a block its f16 numbers are
    folder: str
    file_type: int  # -1: only mixes

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.id, self.elements, self.n_bytes


def read() -> dict[str, Format]:
    out = {}
    for kind, name, folder, number, n_bytes, *at, file_type in LINE.findall(
        LIST.read_text("utf-8")
    ):
        elements = {"PLAIN": 1, "BLOCK32": 32, "BLOCK256": 256}[kind]
        halves = tuple(int(i) for i in at if int(i) >= 0)
        out[name] = Format(int(number), elements, int(n_bytes), halves, folder, int(file_type))
    return out


FORMATS = read()
BLOCKED = [name for name, f in FORMATS.items() if f.elements > 1]
