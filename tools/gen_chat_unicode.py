"""Writes cpp/chat_template/unicode_table.inc: properties and case mappings of characters.

Usage: python tools/gen_chat_unicode.py [OUTPUT]

Chat templates are written for Python, so the answers of its str (isalpha, upper, ...) are right.
"""

from __future__ import annotations

import pathlib
import sys
import unicodedata

ALPHA, DECIMAL, DIGIT, NUMERIC, PRINTABLE, LOWER, UPPER, TITLE, SPACE, IGNORABLE, NAME = (
    1 << i for i in range(11)
)
LAST = 0x110000


def properties(code: int) -> int:
    c = chr(code)
    tests = (
        c.isalpha(), c.isdecimal(), c.isdigit(), c.isnumeric(), c.isprintable(), c.islower(),
        c.isupper(), unicodedata.category(c) == "Lt", c.isspace(),
    )  # fmt: skip
    bits = sum(1 << i for i, yes in enumerate(tests) if yes)
    cased = bits & (LOWER | UPPER | TITLE)
    # A sigma is final although such characters stand before it.
    if not cased and ("A" + c + "\u03a3").lower()[-1] == "\u03c2":
        bits |= IGNORABLE
    if ("a" + c).isidentifier():
        bits |= NAME
    return bits


def mapping_runs(change) -> tuple[list[str], list[str]]:
    """Runs `{first, last, step, difference}`, and the characters that become several."""
    pairs: list[tuple[int, int]] = []
    several: list[str] = []
    for code in range(LAST):
        if 0xD800 <= code < 0xE000:
            continue
        new = change(chr(code))
        if len(new) > 1:
            codes = [ord(c) for c in new] + [0] * (3 - len(new))
            several.append(f"{{{code:#x}, {{{', '.join(hex(c) for c in codes)}}}}}")
        elif new != chr(code):
            pairs.append((code, ord(new) - code))
    runs: list[list[int]] = []
    for code, difference in pairs:
        if runs and runs[-1][3] == difference:
            first, last, step, _ = runs[-1]
            gap = code - last
            if gap in (1, 2) and step in (0, gap):
                runs[-1] = [first, code, gap, difference]
                continue
        runs.append([code, code, 0, difference])
    return [f"{{{a:#x}, {b:#x}, {s or 1}, {d}}}" for a, b, s, d in runs], several


def lines(items: list[str]) -> list[str]:
    out, line = [], ""
    for item in items:
        if len(line) + len(item) + 2 > 98:
            out.append(line.rstrip())
            line = ""
        line += item + ", "
    return [*out, line.rstrip()]


def main() -> None:
    default = pathlib.Path(__file__).parent.parent / "cpp" / "chat_template" / "unicode_table.inc"
    output = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    text = [
        f"// Made by tools/gen_chat_unicode.py from Unicode {unicodedata.unidata_version}; "
        "do not edit.",
        "// First code point of a range << 11 | property bits.",
        "constexpr std::uint32_t kProperties[] = {",
    ]
    entries, before = [], -1
    for code in range(LAST):
        bits = properties(code)
        if bits != before:
            entries.append(hex(code << 11 | bits))
            before = bits
    text += [*lines(entries), "};", ""]
    digits = [
        hex(c) for c in range(LAST) if chr(c).isdecimal() and unicodedata.decimal(chr(c)) == 0
    ]
    text += ["// Zeros of the decimal digits.", "constexpr char32_t kZeros[] = {", *lines(digits)]
    text += ["};", ""]
    for name, change in (("Upper", str.upper), ("Lower", str.lower), ("Title", str.title)):
        runs, several = mapping_runs(change)
        text += [f"constexpr CaseRun k{name}Runs[] = {{", *lines(runs), "};", ""]
        text += [f"constexpr CaseExpansion k{name}Expansions[] = {{", *lines(several), "};", ""]
    output.write_text("\n".join(text), "utf-8")


if __name__ == "__main__":
    main()
