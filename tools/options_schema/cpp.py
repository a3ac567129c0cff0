"""The native table: one constant per option."""

from __future__ import annotations

from collections.abc import Sequence

from .schema import REQUIRED, Choice, Option, Real, Truth, Whole, shown

WIDTH = 100

HEAD = """\
// Made by tools/gen_options.py from tools/options_schema: change those.
// clang-format off
"""


def constant(option: Option) -> str:
    """kModelNThreads for Model.n_threads."""
    words = option.name.split("_")
    place = option.place[0].upper() + option.place[1:]
    return "k" + place + "".join(word[0].upper() + word[1:] for word in words)


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def wrapped(text: str, indent: str) -> str:
    """A string literal in pieces that fit the line."""
    room = WIDTH - len(indent) - 4
    pieces, line = [], ""
    for word in text.split(" "):
        if line and len(quoted(line + " " + word)) > room:
            pieces.append(line + " ")
            line = word
        else:
            line = f"{line} {word}" if line else word
    pieces.append(line)
    return f"\n{indent}".join(quoted(piece) for piece in pieces)


def _number(value: float) -> str:
    return f"{value:.17g}"


def entry(option: Option) -> str:
    kind, flag = option.kind, option.flag
    low = high = 0.0
    opens = [False, False]
    if isinstance(kind, Whole):
        low, high = kind.low, kind.high
    elif isinstance(kind, Real):
        low, high = kind.low, kind.high
        opens = [kind.open_low, kind.open_high]
    choices = " ".join(kind.values) if isinstance(kind, Choice) else ""
    default = option.flag_default if flag else option.default
    number = float(default) if isinstance(default, (int, float)) else 0.0
    text = (
        "" if default in (None, REQUIRED) or isinstance(default, (dict, bool)) else shown(default)
    )
    none = "kNoNumber" if flag is None or flag.none is None else str(flag.none)
    store = flag.sets if flag is not None and isinstance(kind, Truth) else True
    flags = f"{quoted(flag.names)}, {quoted(flag.metavar)}" if flag else '"", ""'
    limits = ", ".join(
        [_number(low), _number(high), *(str(o).lower() for o in opens), none, _number(number)]
    )
    return (
        f"inline constexpr OptionSpec {constant(option)}{{\n"
        f"    {quoted(option.name)}, {flags},\n"
        f"    {limits}, {str(store).lower()}, {quoted(text)}, {quoted(choices)},\n"
        f"    {wrapped(option.flag_help() if flag else '', '    ')},\n"
        f"    {wrapped(option.doc(), '    ')}}};\n"
    )


def table(options: Sequence[Option]) -> str:
    return HEAD + "\n".join(entry(option) for option in options)
