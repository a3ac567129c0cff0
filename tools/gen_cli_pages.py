#!/usr/bin/env python3
"""Writes the documents' pages of commands from what `--help` prints.

    python tools/gen_cli_pages.py            # writes docs/reference/commands.md
    python tools/gen_cli_pages.py --check    # exit code 1 if it is not up to date

Needs the package installed: it asks the commands themselves.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "commands.md"
NATIVE = ("generate", "chat", "inspect", "tokenize", "perplexity", "quantize", "bench")
INTRODUCTION = """# What --help says

<!-- Written by tools/gen_cli_pages.py; do not edit. -->

The complete flags of both commands, as they print them. What they mean together, with examples:
[cli.md](../cli.md).
"""


def printed(command: list[str]) -> str:
    # Formatted for a terminal of the same width everywhere, without colours.
    settings = {**os.environ, "COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=settings)
    return done.stdout.rstrip()


def own_commands(own: list[str]) -> list[str]:
    """Those of `specdec-native` that are not handed on to `specdec`."""
    names = re.findall(r"^    (\w+)  +\S", printed([*own, "--help"]), re.MULTILINE)
    return [name for name in names if name not in NATIVE]


def page(native: list[str]) -> str:
    own = [sys.executable, "-m", "specdec_native"]
    parts = [INTRODUCTION]

    def add(title: str, command: list[str], level: int) -> None:
        parts.append(f"{'#' * level} {title}\n\n```text\n{printed([*command, '--help'])}\n```\n")

    add("specdec", native, 2)
    for name in NATIVE:
        add(f"specdec {name}", [*native, name], 3)
    add("specdec-native", own, 2)
    for name in own_commands(own):
        add(f"specdec-native {name}", [*own, name], 3)
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--specdec", default="specdec", help="the native program")
    args = parser.parse_args()
    text = page([args.specdec])
    if not args.check:
        PAGE.write_text(text, encoding="utf-8")
    elif PAGE.read_text("utf-8") != text:
        sys.exit(f"{PAGE.name} is not up to date: python tools/gen_cli_pages.py")


if __name__ == "__main__":
    main()
