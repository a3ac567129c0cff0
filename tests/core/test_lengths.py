"""No function of C++ is longer than a screen or two, no file longer than one can hold in mind."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from test_layers import CPP, SOURCES

MAX_FUNCTION = 80
MAX_FILE = 400
WRITTEN = [path for path in SOURCES if path.suffix != ".inc"]  # those are generated

NO_FUNCTION = re.compile(r"(namespace|class|struct|union|enum|extern)\b|[#}/]|(public|private):")


def functions(text: str) -> Iterator[tuple[int, int]]:
    """First line and number of lines of what ends in a lone brace; needs clang-format's indents."""
    lines = text.split("\n")
    for last, line in enumerate(lines):
        if line.strip() != "}":
            continue
        indent = line[: -len("}")]
        for first in range(last - 1, -1, -1):
            start = lines[first].removeprefix(indent)
            inside = not lines[first].startswith(indent) or start[:1].isspace()
            if start and not inside and not NO_FUNCTION.match(start):
                yield first + 1, last - first + 1
                break


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p.suffix != ".inc"], ids=lambda path: str(path.relative_to(CPP))
)
def test_functions_and_files_can_be_read_at_once(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE
    assert [(first, n) for first, n in functions(text) if n > MAX_FUNCTION] == []


def test_long_functions_are_seen():
    body = "  f();\n" * 5
    text = f"namespace a {{\nstruct B {{\n  int x = 0;\n}};\nint f(\n    int a) {{\n{body}}}\n"
    text += f"C::C(int a)\n    : a_{{a}}, b_(a) {{\n{body}}}\n"
    text += f"constexpr int kTable[] = {{\n{body}}};\n#if X\nvoid g() {{\n#endif\n  h();\n}}\n"
    text += "}  // namespace a\n"
    assert list(functions(text)) == [(5, 8), (13, 8), (29, 4)]
