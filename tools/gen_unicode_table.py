"""Writes cpp/tokenizer/unicode_table.inc: the character classes that pre-tokenizers split by.

Also other_numbers.inc beside it: the numbers (No, as in "½") that are no part of words.

Usage: python tools/gen_unicode_table.py [OUTPUT]
       python tools/gen_unicode_table.py --wide [OUTPUT]

With --wide it writes cpp/cli/line_editor/wide_table.inc: the characters that take two columns of a
terminal (East_Asian_Width W and F).

The classes come from Python's `unicodedata`, or from `unicodedata2` when it is installed; the first
line of the table names the Unicode version. The `tokenizers` package splits by 16.0, which a test
compares: python -m pip install unicodedata2==16.0.0. One entry per range of code points with equal
classes: the first code point, then the class bits.
"""

from __future__ import annotations

import pathlib
import sys

try:
    import unicodedata2 as unicodedata  # type: ignore[import-not-found]
except ImportError:
    import unicodedata

# The bits of cpp/tokenizer/unicode.h.
MAJOR_BITS = {"L": 1, "N": 2, "P": 4, "S": 8, "M": 16}
WHITE_SPACE = 32
UPPER = 64  # Lu, Lt
LOWER = 128  # Ll

# The White_Space property, which unicodedata does not offer (str.isspace() adds U+001C..U+001F).
WHITE_SPACE_RANGES = [
    (0x09, 0x0D), (0x20, 0x20), (0x85, 0x85), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200A),
    (0x2028, 0x2029), (0x202F, 0x202F), (0x205F, 0x205F), (0x3000, 0x3000),
]  # fmt: skip


def class_bits(code_point: int) -> int:
    """The class bits of one code point."""
    category = unicodedata.category(chr(code_point))
    bits = MAJOR_BITS.get(category[0], 0)
    if category in ("Lu", "Lt"):
        bits |= UPPER
    if category == "Ll":
        bits |= LOWER
    if any(first <= code_point <= last for first, last in WHITE_SPACE_RANGES):
        bits |= WHITE_SPACE
    return bits


def ranges() -> list[tuple[int, int]]:
    """(first code point, bits) of every maximal range with equal bits."""
    out: list[tuple[int, int]] = []
    for code_point in range(0x110000):
        bits = class_bits(code_point)
        if not out or out[-1][1] != bits:
            out.append((code_point, bits))
    return out


def other_numbers() -> list[tuple[int, int]]:
    """First and last code point of every maximal range of category No."""
    out: list[tuple[int, int]] = []
    for code_point in range(0x110000):
        if unicodedata.category(chr(code_point)) != "No":
            continue
        if out and out[-1][1] == code_point - 1:
            out[-1] = (out[-1][0], code_point)
        else:
            out.append((code_point, code_point))
    return out


def wide_ranges() -> list[tuple[int, int]]:
    """(first, last) of every range of characters two columns wide; unassigned ones do not break it.

    Marks have no width of their own and are left out.
    """
    out: list[tuple[int, int]] = []
    unassigned = False  # only unassigned characters since the last range
    for code_point in range(0x110000):
        char = chr(code_point)
        category = unicodedata.category(char)
        # Old versions of the table call unassigned characters wide.
        wide = unicodedata.east_asian_width(char) in "WF" and category not in ("Cn", "Mn", "Me")
        if wide:
            if out and (out[-1][1] == code_point - 1 or unassigned):
                out[-1] = (out[-1][0], code_point)
            else:
                out.append((code_point, code_point))
            unassigned = True
        elif category != "Cn":
            unassigned = False
    return out


def write_wide(path: pathlib.Path) -> None:
    """Write the table of wide characters."""
    entries = [f"{{0x{first:x}, 0x{last:x}}}," for first, last in wide_ranges()]
    version = unicodedata.unidata_version
    lines = [
        f"// Made by tools/gen_unicode_table.py --wide from Unicode {version}; do not edit.",
        "// Entries: first and last of a range.",
    ]
    for start in range(0, len(entries), 5):
        lines.append(" ".join(entries[start : start + 5]))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{path}: {len(entries)} ranges, Unicode {version}")


def main() -> None:
    """Write the table."""
    if sys.argv[1:2] == ["--wide"]:
        cpp = pathlib.Path(__file__).parent.parent / "cpp"
        default = cpp / "cli" / "line_editor" / "wide_table.inc"
        write_wide(pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else default)
        return
    default = pathlib.Path(__file__).parent.parent / "cpp" / "tokenizer" / "unicode_table.inc"
    path = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    entries = [f"0x{first << 8 | bits:x}," for first, bits in ranges()]
    version = unicodedata.unidata_version
    lines = [
        f"// Made by tools/gen_unicode_table.py from Unicode {version}; do not edit.",
        "// Entries: first code point of a range << 8 | class bits.",
    ]
    for start in range(0, len(entries), 9):
        lines.append(" ".join(entries[start : start + 9]))
    path.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{path}: {len(entries)} ranges, Unicode {version}")
    others = path.with_name("other_numbers.inc")
    lines = [lines[0], "// First and last code point of each range."]
    pairs = [f"{{0x{first:x}, 0x{last:x}}}," for first, last in other_numbers()]
    for start in range(0, len(pairs), 5):
        lines.append(" ".join(pairs[start : start + 5]))
    others.write_text("\n".join(lines) + "\n", encoding="ascii")
    print(f"{others}: {len(pairs)} ranges")


if __name__ == "__main__":
    main()
