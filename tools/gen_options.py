#!/usr/bin/env python3
"""Writes what follows from the table of options, `tools/options_schema`.

    python tools/gen_options.py --write    # after a change of the table
    python tools/gen_options.py --check    # exit code 1 and the names of stale files

Whole files: the table of the native code and the checks of the Python package. Parts of files: the
keywords and docstrings of Python's functions and classes, found by their names, and the tables of
the docs, between marks. Everything else in those files is written by hand.
"""

from __future__ import annotations

import argparse
import pathlib
import sys

from options_schema import OPTIONS, cpp, docs, python

ROOT = pathlib.Path(__file__).resolve().parent.parent
NATIVE_TABLE = "cpp/base/option_table.inc"
PYTHON_TABLE = "python/specdec_native/_option_table.py"


def outputs(root: pathlib.Path) -> dict[str, str]:
    """What each file should hold, by its name."""
    found = {NATIVE_TABLE: cpp.table(OPTIONS), PYTHON_TABLE: python.table(OPTIONS)}
    for name in python.FILES:
        found[name] = python.rewrite(name, (root / name).read_text("utf-8"), OPTIONS)
    for name in docs.FILES:
        found[name] = docs.rewrite(name, (root / name).read_text("utf-8"), OPTIONS)
    return found


def stale(root: pathlib.Path) -> dict[str, str]:
    """The files that are not what they should be, and what they should be."""
    return {
        name: text
        for name, text in outputs(root).items()
        if not (root / name).exists() or (root / name).read_text("utf-8") != text
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--write", action="store_true", help="write what is stale")
    what.add_argument("--check", action="store_true", help="only say what is stale")
    args = parser.parse_args(arguments)
    found = stale(ROOT)
    for name, text in found.items():
        print(f"{'wrote' if args.write else 'stale'}: {name}")
        if args.write:
            (ROOT / name).write_text(text, "utf-8")
    if found and args.check:
        print("run: python tools/gen_options.py --write")
    return 1 if found and args.check else 0


if __name__ == "__main__":
    sys.exit(main())
