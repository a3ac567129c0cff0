"""The tables of the docs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from .python import default_of, options_of
from .schema import REQUIRED, Option

Row = Sequence[str]
MARK = re.compile(r"(<!-- options: ([\w., |-]+) -->\n).*?(<!-- end of options -->)", re.DOTALL)


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
    chosen = list({o.id: o for name in names for o in options_of(name, options)}.values())
    rows = []
    for option in chosen:
        takers = [
            call
            for call in names
            if call in option.calls or option.place == call.removesuffix(".__init__")
        ]
        only = ""
        if option.calls and len(takers) < len(names):
            only = ", ".join(f"`{name.split('.')[-1]}`" for name in takers) + ": "
        rows.append(
            (f"`{option.name}`", _default(option, takers), only + _escaped(option.doc()),
             _flag(option))
        )  # fmt: skip
    return _table(("option", "default", "meaning", "flag"), rows)


def flag_table(what: str, options: Sequence[Option]) -> str:
    """Flags of commands: "generate, chat | call Decoder.n_ctx" names commands, then options or
    places."""
    commands, _, places = what.partition(" | ")
    names, wanted = commands.split(", "), places.split()
    rows: list[Row] = []
    for option in sorted(options, key=lambda o: _rank(o, wanted)):
        flag = option.flag
        if flag is None or not {option.place, option.id} & set(wanted):
            continue
        having = [name for name in names if name in flag.commands.split()]
        spelled = ", ".join(f"`{name}`" for name in flag.names.split())
        value = f" {flag.metavar}" if flag.metavar else ""
        only = "" if len(having) == len(names) else ", ".join(having)
        rows.append((_escaped(spelled + value), only, _escaped(option.flag_help())))
    return _table(("flag", "only", "meaning"), rows)


def _rank(option: Option, wanted: Sequence[str]) -> int:
    return next((i for i, w in enumerate(wanted) if w in (option.place, option.id)), len(wanted))


TABLES: dict[str, Callable[[str, Sequence[Option]], str]] = {
    "python": python_table,
    "flags": flag_table,
}
FILES = ("docs/api.md", "docs/cli.md", "docs/drafters.md", "docs/quantize.md", "docs/serving.md")


def rewrite(file: str, text: str, options: Sequence[Option]) -> str:
    def fill(found: re.Match[str]) -> str:
        kind, _, places = found[2].partition(" ")
        return found[1] + "\n" + TABLES[kind](places, options) + "\n" + found[3]

    return MARK.sub(fill, text)
