"""Python's side: the table of checks, and keywords and docstrings within files written by hand."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence

from .schema import REQUIRED, Option

PACKAGE = "python/specdec_native/"
# The functions and classes with options, by file; a class is named where its fields are options.
CALLABLES = {
    PACKAGE + "model.py": ("Model.__init__",),
    PACKAGE + "decoder.py": (
        "Decoder.__init__",
        "Decoder.load",
        "Decoder.generate",
        "Decoder.stream",
        "Decoder.chat",
        "Decoder.stream_chat",
    ),
    PACKAGE + "engine.py": (
        "Engine.__init__",
        "Engine.submit",
        "Engine.submit_chat",
        "Engine.generate",
        "Engine.stream",
        "Engine.chat",
        "Engine.stream_chat",
    ),
    PACKAGE + "async_decoder.py": (
        "AsyncDecoder.__init__",
        "AsyncDecoder.generate",
        "AsyncDecoder.stream",
        "AsyncDecoder.chat",
        "AsyncDecoder.stream_chat",
    ),
    PACKAGE + "many.py": ("generate_many",),
    PACKAGE + "_quantize.py": ("quantize",),
    PACKAGE + "options.py": (
        "SamplingParams",
        "DraftModel",
        "NGram",
        "SuffixAutomaton",
        "TokenRecycling",
        "LayerSkip",
        "Eagle",
        "Mtp",
    ),
}
FILES = tuple(CALLABLES)
PLACES = {name.removesuffix(".__init__") for names in CALLABLES.values() for name in names}
PLACES |= {"call", "many", "kept"}
WIDTH = 100


def options_of(name: str, options: Sequence[Option]) -> list[Option]:
    """The options that a function or class takes, in their order."""
    place = name.removesuffix(".__init__")
    return [o for o in options if o.place == place or name in o.calls]


def table(options: Sequence[Option]) -> str:
    places: dict[str, list[str]] = {}
    for option in options:
        check = option.kind.check()
        if option.place not in PLACES or not check:
            continue
        if option.may_be_none:
            check = check[:-1] + ("" if check.endswith("()") else ", ") + "optional=True)"
        places.setdefault(option.place, []).append(f'        "{option.name}": {check},')
    lines = [
        '"""What the values of options may be.',
        "",
        "Made by tools/gen_options.py from tools/options_schema: change those.",
        '"""',
        "",
        "from ._checks import Callback, Check, Choice, Items, Real, Table, Text, TextOrPath, "
        "Truth, Whole",
        "",
        "# fmt: off",
        "CHECKS: dict[str, dict[str, Check]] = {",
    ]
    for place, entries in places.items():
        lines += [f'    "{place}": {{', *entries, "    },"]
    return "\n".join([*lines, "}", "# fmt: on"]) + "\n"


def default_of(option: Option, call: str) -> str:
    value = option.defaults.get(call, option.default)
    if isinstance(value, str):
        text = '"' + value + '"'
    elif option.name == "max_store":
        text = "1 << 18"
    else:
        text = repr(value)
    # Given, it overrides `params`; the default of a signature must not.
    return f"unset({text})" if option.overrides and not call.startswith("Sampling") else text


def keyword(option: Option, call: str) -> str:
    return f"        {option.name}: {option.annotation} = {default_of(option, call)},"


def fields(name: str, options: list[Option]) -> list[str]:
    """Of a dataclass with kw_only=True."""
    lines = []
    for option in sorted(options, key=lambda option: not option.positional):
        arguments = []
        if option.factory:
            arguments.append(f"default_factory={option.factory}")
        elif option.default is not REQUIRED:
            arguments.append(default_of(option, "Sampling"))
        if option.positional:
            if arguments:
                arguments[0] = "default=" + arguments[0]
            arguments.append("kw_only=False")
        value = ", ".join(arguments)
        if option.positional or option.factory:
            value = f"field({value})"
        lines.append(f"    {option.name}: {option.annotation} = {value}")
    return lines


def _find(tree: ast.Module, name: str) -> tuple[ast.AST, ast.AST]:
    """The function or class, and what has its docstring."""
    node: ast.AST = tree
    owner: ast.AST = tree
    for part in name.split("."):
        owner = node
        node = next(n for n in ast.iter_child_nodes(node) if getattr(n, "name", "") == part)
    return node, owner if name.endswith(".__init__") else node


def _doc_entries(lines: list[str], indent: str) -> Iterator[tuple[str, list[str]]]:
    entry: list[str] = []
    name = ""
    for line in lines:
        start = re.match(rf"{indent}    (\*{{0,2}}\w[\w, ]*):", line)
        if start:
            if entry:
                yield name, entry
            name, entry = start[1], []
        entry.append(line)
    if entry:
        yield name, entry


def document(option: Option, indent: str) -> list[str]:
    text = f"{option.name}: {option.doc()}"
    first, rest = indent + "    ", indent + "        "
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )


def rewrite_doc(lines: list[str], options: list[Option], is_fields: bool) -> list[str]:
    """The docstring, its section of arguments made of the options and what else stands there."""
    title = "Attributes:" if is_fields else "Args:"
    start = next(i for i, line in enumerate(lines) if line.strip() == title)
    indent = lines[start][: lines[start].index(title)]
    end = start + 1
    while end < len(lines) and lines[end].startswith(indent + "    "):
        end += 1
    names = {option.name for option in options}
    kept = [
        line
        for name, entry in _doc_entries(lines[start + 1 : end], indent)
        if not name.startswith("*") and not set(re.split(r", ?", name)) & names
        for line in entry
    ]
    made = [line for option in options for line in document(option, indent)]
    return lines[: start + 1] + kept + made + lines[end:]


def rewrite(file: str, source: str, options: Sequence[Option]) -> str:
    for name in CALLABLES[file]:
        chosen = options_of(name, options)
        tree = ast.parse(source)
        node, documented = _find(tree, name)
        lines = source.split("\n")
        edits: list[tuple[int, int, list[str]]] = []
        docstring = documented.body[0]  # type: ignore[attr-defined]
        begin, end = docstring.lineno - 1, docstring.end_lineno
        edits.append(
            (begin, end, rewrite_doc(lines[begin:end], chosen, isinstance(node, ast.ClassDef)))
        )
        if isinstance(node, ast.ClassDef):
            body = [n for n in node.body if isinstance(n, ast.AnnAssign)]
            edits.append((body[0].lineno - 1, body[-1].end_lineno or 0, fields(name, chosen)))
        else:
            assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            arguments = node.args.kwonlyargs
            last = node.args.kw_defaults[-1] or arguments[-1]
            made = [keyword(option, name) for option in chosen]
            if "." not in name:
                made = [line[4:] for line in made]
            edits.append((arguments[0].lineno - 1, last.end_lineno or 0, made))
        for begin, end, made in sorted(edits, reverse=True):
            lines[begin:end] = made
        source = "\n".join(lines)
    return source
