#!/usr/bin/env python3
"""Draws the diagrams of the documents: docs/diagrams/*.svg.

python tools/draw_diagrams.py            # writes them
python tools/draw_diagrams.py --check    # exit code 1 if one is not up to date
"""

from __future__ import annotations

import argparse
import html
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "diagrams"
INK, SOFT, ACCENT, GOOD, BAD = "#37474f", "#eceff1", "#b2dfdb", "#c8e6c9", "#ffcdd2"


class Drawing:
    """Boxes, arrows and words on a grid of pixels; readable on light and dark pages."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self.head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'font-family="sans-serif" font-size="14" role="img" aria-label="{html.escape(title)}">'
            f"\n<title>{html.escape(title)}</title>\n"
            f'<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
            f'markerHeight="8" orient="auto"><path d="M0 0 8 4 0 8z" fill="{INK}"/></marker></defs>'
            f'\n<rect width="{width}" height="{height}" rx="8" fill="#ffffff"/>\n'
        )
        self.parts: list[str] = []

    def text(self, x: float, y: float, words: str, size: int = 14, anchor: str = "middle") -> None:
        for i, line in enumerate(words.split("\n")):
            self.parts.append(
                f'<text x="{x:g}" y="{y + i * size * 1.3:g}" font-size="{size}" fill="{INK}" '
                f'text-anchor="{anchor}">{html.escape(line)}</text>'
            )

    def box(self, x: float, y: float, w: float, h: float, words: str, fill: str = SOFT) -> None:
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{w:g}" height="{h:g}" rx="5" fill="{fill}" '
            f'stroke="{INK}"/>'
        )
        n = words.count("\n")
        self.text(x + w / 2, y + h / 2 + 5 - n * 9, words)

    def arrow(self, x: float, y: float, to_x: float, to_y: float, words: str = "") -> None:
        self.parts.append(
            f'<line x1="{x:g}" y1="{y:g}" x2="{to_x:g}" y2="{to_y:g}" stroke="{INK}" '
            f'marker-end="url(#tip)"/>'
        )
        if words:
            self.text((x + to_x) / 2, (y + to_y) / 2 - 6, words, 12)

    def svg(self) -> str:
        return self.head + "\n".join(self.parts) + "\n</svg>\n"


def a_round() -> Drawing:
    d = Drawing("A round: three guesses, one pass of four rows, three tokens", 760, 250)
    d.text(20, 28, "the text so far ends with t", 14, "start")
    d.box(20, 50, 120, 44, "drafter\n(cheap)", ACCENT)
    d.arrow(140, 72, 200, 72)
    for i, token in enumerate("tabc"):
        d.box(210 + 90 * i, 50, 70, 44, token, SOFT if i == 0 else ACCENT)
    d.text(590, 77, "four rows of one pass", 13, "start")
    for i in range(4):
        d.arrow(245 + 90 * i, 94, 245 + 90 * i, 124)
    d.box(200, 126, 350, 34, "target: reads its weights once")
    for i, token in enumerate(("a", "b", "x", "")):
        d.arrow(245 + 90 * i, 160, 245 + 90 * i, 186)
        fill = GOOD if i < 2 else BAD if i == 2 else SOFT
        d.box(210 + 90 * i, 190, 70, 40, token or "unused", fill)
    d.text(590, 208, "a, b: as guessed, accepted\nx, not c: the correction", 13, "start")
    return d


def structure() -> Drawing:
    d = Drawing("Who calls whom", 760, 330)
    for i, name in enumerate(("Python API", "specdec", "server, batch", "llm, Ray")):
        d.box(20 + 185 * i, 15, 165, 36, name, ACCENT)
        d.arrow(102 + 185 * i, 51, 102 + 185 * i, 76)
    d.box(20, 78, 720, 36, "engine: sessions, scheduler of many requests, text in and out")
    d.arrow(190, 114, 190, 140)
    d.arrow(560, 114, 560, 140)
    d.box(20, 142, 345, 56, "decode: rounds, drafters, verifiers,\ncontroller", ACCENT)
    d.box(395, 142, 345, 56, "tokenizer, chat template, grammar,\nsampling")
    d.arrow(190, 198, 190, 222)
    d.box(20, 224, 345, 36, "model: slots, layers, one pass")
    d.arrow(365, 242, 395, 242)
    d.box(395, 224, 345, 36, "kv: pages, windows, states, files")
    d.arrow(190, 260, 190, 284)
    d.box(20, 286, 345, 36, "backend: kernels per instruction set, CUDA")
    d.arrow(365, 304, 395, 304)
    d.box(395, 286, 345, 36, "gguf, quant, tensor, base: untrusted files")
    return d


def controller() -> Drawing:
    d = Drawing("The controller, pass by pass", 760, 230)
    d.box(20, 20, 190, 56, "costs: v(M), draft steps\nmeasured, refined")
    d.box(20, 96, 190, 56, "acceptance by place\nand grade, learnt")
    d.box(20, 172, 190, 40, "who else is in the pass")
    for y in (48, 124, 192):
        d.arrow(210, y, 268, 120 + (y - 120) * 0.3)
    d.box(270, 84, 190, 72, "best source and length\nE / (draft + v(n + 1))", ACCENT)
    d.arrow(460, 120, 516, 120)
    d.box(518, 84, 220, 72, "does the credit bear\nits worst case?", ACCENT)
    d.arrow(628, 84, 628, 52, "")
    d.box(518, 12, 220, 38, "yes: draft, verify", GOOD)
    d.arrow(628, 156, 628, 186)
    d.box(518, 188, 220, 36, "no: a plain step", BAD)
    d.text(365, 190, "after each pass: times and hits go back", 12)
    return d


def tile() -> Drawing:
    d = Drawing("A tile: sixteen output rows side by side, a lane for each", 760, 260)
    d.text(20, 24, "in the file: a row's blocks one after the other", 13, "start")
    for row in range(3):
        for block in range(4):
            fill = ACCENT if block == 0 else SOFT
            d.box(20 + 62 * block, 36 + 32 * row, 60, 28, f"r{row} k{block}", fill)
    d.text(145, 148, "...", 14)
    d.arrow(285, 82, 355, 82, "once, at load")
    d.text(370, 24, "in memory: tiles of 16 rows, front to back", 13, "start")
    for lane in range(8):
        d.box(370 + 44 * lane, 36, 42, 60, f"r{lane}\nk0", ACCENT)
    d.text(735, 70, "...", 14)
    d.text(370, 122, "one register: the same k of 16 rows; no sum crosses lanes", 13, "start")
    d.box(20, 170, 170, 56, "decode a tile once\ninto registers")
    d.arrow(190, 198, 240, 198)
    d.box(242, 170, 250, 56, "up to 8 columns (rows of a pass)\nuse it", ACCENT)
    d.arrow(492, 198, 540, 198)
    d.box(542, 170, 200, 56, "16 sums per column,\none chain over k each", GOOD)
    return d


DRAWINGS = {"round": a_round, "structure": structure, "controller": controller, "tile": tile}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    stale = []
    for name, draw in DRAWINGS.items():
        path = FOLDER / f"{name}.svg"
        if args.check:
            if not path.is_file() or path.read_text("utf-8") != draw().svg():
                stale.append(path.name)
        else:
            path.write_text(draw().svg(), encoding="utf-8")
    if stale:
        sys.exit(f"not up to date: {', '.join(stale)}; run python tools/draw_diagrams.py")


if __name__ == "__main__":
    main()
