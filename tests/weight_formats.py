"""The weight formats, from the list that everything is made from: cpp/tensor/formats.def."""

from __future__ import annotations

import pathlib
import re
from typing import NamedTuple

import numpy as np

LIST = pathlib.Path(__file__).resolve().parent.parent / "cpp" / "tensor" / "formats.def"
LINE = re.compile(
    r"^SPECDEC_(PLAIN|BLOCK32|BLOCK256|READ256)"
    r"\((\w+), (\w+), (\d+), (\d+), (-?\d+), (-?\d+), (-?\d+)\)$",
    re.M,
)


class Format(NamedTuple):
    id: int
    elements: int  # of a block
    n_bytes: int
    halves: tuple[int, ...]  # where in a block its f16 numbers are: halves_at()
    folder: str
    file_type: int  # -1: only mixes
    written: bool  # by our encoders

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.id, self.elements, self.n_bytes


def read() -> dict[str, Format]:
    out = {}
    for kind, name, folder, number, n_bytes, *at, file_type in LINE.findall(
        LIST.read_text("utf-8")
    ):
        elements = {"PLAIN": 1, "BLOCK32": 32, "BLOCK256": 256, "READ256": 256}[kind]
        halves = tuple(int(i) for i in at if int(i) != -1)
        out[name] = Format(
            int(number), elements, int(n_bytes), halves, folder, int(file_type), kind != "READ256"
        )
    return out


SPREAD = -2  # the upper nibbles of the last four u16, the lowest first


def halves_at(blocks: np.ndarray, at: int) -> np.ndarray:
    """The f16 numbers there, as u16, of blocks [..., bytes]."""
    if at != SPREAD:
        return blocks[..., at : at + 2].copy().view(np.uint16)[..., 0]
    upper = (blocks[..., -7::2] >> 4).astype(np.uint16)
    return upper[..., 0] | upper[..., 1] << 4 | upper[..., 2] << 8 | upper[..., 3] << 12


def set_halves(blocks: np.ndarray, at: int, halves: np.ndarray | int) -> None:
    """Sets them; halves: u16 or f16."""
    halves = np.asarray(halves)
    bits = halves.view(np.uint16) if halves.dtype == np.float16 else halves.astype(np.uint16)
    bits = np.broadcast_to(bits, blocks.shape[:-1])[..., None]
    if at != SPREAD:
        blocks[..., at : at + 2] = np.ascontiguousarray(bits).view(np.uint8)
        return
    nibbles = ((bits >> np.array([0, 4, 8, 12], np.uint16)) & 15).astype(np.uint8)
    blocks[..., -7::2] = (blocks[..., -7::2] & 15) | nibbles << 4


FORMATS = read()
WRITTEN = [name for name, f in FORMATS.items() if f.written]
BLOCKED = [name for name, f in FORMATS.items() if f.elements > 1]
