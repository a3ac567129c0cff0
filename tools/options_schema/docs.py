"""The tables of the docs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .python import default_of, options_of
from .schema import REQUIRED, Option

Row = Sequence[str]
MARK = re.compile(r"(<!-- options: ([\w., -]+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def _escaped(text: str) -> str:
    return re.sub(r"``(.+?)``", r"`\1`", text).replace("|", "\\|")


def _table(head: Row, rows: list[Row]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _default(option: Option, calls: Sequence[str]) -> str:
    if option.default is REQUIRED:
        return ""
    found = [default_of(option, call) for call in calls] or [default_of(option, "Sampling")]
    texts = dict.fromkeys(re.sub(r"^unset\((.*)\)$", r"\1", text) for text in found)
    if len(texts) == 2:
        first, second = texts
        return f"{first}, chats {second}"
    return next(iter(texts))


def _flag(option: Option) -> str:
    return f"`{option.flag.names.split()[-1]}`" if option.flag else ""


def python_table(places: str, options: Sequence[Option]) -> str:
    """Of classes, functions or methods, with the flag of the same meaning."""
    names = places.split(", ")
    chosen = list(dict.fromkeys(o for name in names for o in options_of(name, options)))
    rows = []
    for option in chosen:
        takers = [call for call in names if call in option.calls]
        only = ""
        if option.calls and len(takers) < len(names):
            only = ", ".join(f"`{name.split('.')[-1]}`" for name in takers) + ": "
        rows.append(
            (f"`{option.name}`", _default(option, takers), only + _escaped(option.doc()),
             _flag(option))
        )  # fmt: skip
    return _table(("option", "default", "meaning", "flag"), rows)


def flag_table(commands: str, options: Sequence[Option]) -> str:
    """Of commands: all flags."""
    names = commands.split(", ")
    rows: list[Row] = []
    for option in options:
        flag = option.flag
        if flag is None or not set(flag.commands.split()) & set(names):
            continue
        spelled = ", ".join(f"`{name}`" for name in flag.names.split())
        value = f" {flag.metavar}" if flag.metavar else ""
        with_it = [name for name in names if name in flag.commands.split()]
        only = "" if len(with_it) == len(names) else ", ".join(f"`{n}`" for n in with_it)
        rows.append((_escaped(spelled + value), only or "all", _escaped(option.flag_help())))
    return _table(("flag", "commands", "meaning"), rows)


TABLES: dict[str, Callable[[str, Sequence[Option]], str]] = {
    "python": python_table,
    "flags": flag_table,
}
FILES = ("docs/api.md", "docs/cli.md", "docs/drafters.md")


def rewrite(file: str, text: str, options: Sequence[Option]) -> str:
    def fill(found: re.Match[str]) -> str:
        kind, _, places = found[2].partition(" ")
        return found[1] + "\n" + TABLES[kind](places, options) + "\n" + found[3]

    return MARK.sub(fill, text)
