"""Sessions of code editing, made by seeded edits: a file, an instruction, the whole file back."""

from __future__ import annotations

import ast
import io
import pathlib
import random
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..errors import InvalidArgumentError
from .data import read_json_lines, text_of

# Of the running Python's own library: small, readable, in every version; those not there are left
# out.
MODULES = (
    "abc", "base64", "bisect", "calendar", "colorsys", "contextlib", "copy", "csv", "fnmatch",
    "functools", "genericpath", "glob", "gzip", "hashlib", "heapq", "inspect", "keyword",
    "linecache", "mimetypes", "numbers", "operator", "posixpath", "pprint", "quopri", "random",
    "reprlib", "sched", "shlex", "shutil", "socket", "statistics", "string", "tempfile", "textwrap",
    "timeit", "tokenize", "traceback", "types", "uuid", "warnings", "weakref", "zipfile",
)  # fmt: skip
LEAST_LINES, MOST_LINES = 5, 120


@dataclass(frozen=True)
class Source:
    """A small file of Python to be edited."""

    name: str
    kind: str
    text: str


@dataclass(frozen=True)
class Edit:
    """What is asked for.

    Attributes:
        kind: rename, docstring, hint, constant or log.
        order: to a chat: "Rename `x` to `y` everywhere."
        heading: for a model that goes on with text: "`x` renamed to `y`".
        text: the file when it is done.
    """

    kind: str
    order: str
    heading: str
    text: str


@dataclass(frozen=True)
class Session:
    source: Source
    edits: tuple[Edit, ...]

    def chat_turns(self) -> tuple[str, ...]:
        back = "Give the whole file back in one code block, and nothing else."
        first = f"This is the file `{self.source.name}.py`:\n```python\n{self.source.text}```\n"
        return tuple(
            f"{first if i == 0 else ''}{edit.order} {back}" for i, edit in enumerate(self.edits)
        )

    def raw_turns(self) -> tuple[str, ...]:
        name = f"# {self.source.name}.py"
        first = f"{name}\n{self.source.text}\n"
        return tuple(
            f"{first if i == 0 else ''}{name}, {edit.heading}:\n"
            for i, edit in enumerate(self.edits)
        )


# ---------------------------------------------------------------- sources


def standard_library(folder: pathlib.Path | None = None) -> list[Source]:
    """Functions of the running Python's own modules."""
    folder = folder or pathlib.Path(sysconfig.get_path("stdlib"))
    sources = []
    for module in MODULES:
        try:
            text = (folder / f"{module}.py").read_text("utf-8")
            tree = ast.parse(text)
        except (OSError, ValueError, SyntaxError):
            continue
        functions = {n.name: n for n in tree.body if isinstance(n, ast.FunctionDef)}
        for node in functions.values():
            if not node.decorator_list:
                source = Source(f"{module}_{node.name}", "stdlib", _segment(text, node))
                if is_editable(source.text):
                    sources.append(source)
    return sources


def humaneval_solutions(path: pathlib.Path) -> list[Source]:
    """The functions of HumanEval with their solutions."""
    sources: list[Source] = []
    for number, entry in read_json_lines(path):
        text = text_of(path, number, entry, "prompt")
        text += text_of(path, number, entry, "canonical_solution")
        name = text_of(path, number, entry, "task_id").replace("/", "_").lower()
        if any(source.name == name for source in sources):
            raise InvalidArgumentError(f"{path}, line {number}: there is a {name} already")
        if is_editable(text):
            sources.append(Source(name, "humaneval", text.strip("\n") + "\n"))
    if not sources:
        raise InvalidArgumentError(f"{path} holds no function with a solution")
    return sources


def _lines(text: str) -> list[str]:
    """With their ends, as `ast` counts them: a form feed, of which sources have some, is none."""
    return list(io.StringIO(text, newline="\n"))


def _segment(text: str, node: ast.stmt) -> str:
    lines = _lines(text)[node.lineno - 1 : node.end_lineno]
    return "".join(lines).rstrip("\n") + "\n"


def is_editable(text: str) -> bool:
    if not LEAST_LINES <= text.count("\n") <= MOST_LINES or not text.isascii():
        return False
    try:
        return _function(ast.parse(text)) is not None
    except (SyntaxError, ValueError):
        return False


# ---------------------------------------------------------------- edits


def session_of(source: Source, n_turns: int, seed: int) -> Session | None:
    """The same for the same source and seed; None when there are not so many edits to make."""
    chance = random.Random(f"{seed}/{source.name}")
    text = source.text
    edits: list[Edit] = []
    kinds = list(EDITS)
    while len(edits) < n_turns:
        chance.shuffle(kinds)
        made = (EDITS[kind](text, chance) for kind in kinds)
        changes = (e for e in made if e is not None and e.text != text)
        edit = next((e for e in changes if is_editable(e.text)), None)
        if edit is None:
            return None
        edits.append(edit)
        text = edit.text
        kinds = [k for k in EDITS if k != edit.kind]  # the next one is of another kind
    return Session(source, tuple(edits))


def _function(tree: ast.Module) -> ast.FunctionDef | None:
    """The last one of the file: HumanEval puts its helpers first."""
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return found[-1] if found else None


def _names(function: ast.FunctionDef) -> list[str]:
    """Arguments and variables, in the order of the text."""
    arguments = function.args
    names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    stored = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    stored.sort(key=lambda node: (node.lineno, node.col_offset))
    return [n for n in dict.fromkeys([*names, *(s.id for s in stored)]) if n not in ("self", "cls")]


def _put(text: str, places: Sequence[tuple[int, int, int, str]]) -> str:
    """`places`: (line from 1, first column, last column, what comes there)."""
    lines = _lines(text)
    for line, first, last, new in sorted(places, reverse=True):
        old = lines[line - 1]
        lines[line - 1] = old[:first] + new + old[last:]
    return "".join(lines)


def _rename(text: str, chance: random.Random) -> Edit | None:
    tree = ast.parse(text)
    function = _function(tree)
    names = _names(function) if function is not None else []
    if not names:
        return None
    old = chance.choice(names)
    new = f"{old.strip('_')}_{chance.choice(('value', 'item', 'entry', 'input'))}"
    places = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id == old:
            places.append((node.lineno, node.col_offset, node.col_offset + len(old), new))
        elif isinstance(node, ast.arg) and node.arg == old:
            places.append((node.lineno, node.col_offset, node.col_offset + len(old), new))
    return Edit(
        "rename", f"Rename the variable `{old}` to `{new}` everywhere.",
        f"with `{old}` renamed to `{new}`", _put(text, places),
    )  # fmt: skip


def _docstring(text: str, chance: random.Random) -> Edit | None:
    function = _function(ast.parse(text))
    if function is None or _on_one_line(function):
        return None
    words = function.name.strip("_").replace("_", " ")
    line = chance.choice((f"Compute {words}.", f"Helper for {words}.", f"See {words}."))
    first = function.body[0]
    quoted = f'"""{line}"""'
    if ast.get_docstring(function) is None:
        indent = " " * first.col_offset
        done = _put(text, [(_first_line(first), 0, 0, f"{indent}{quoted}\n")])
        what = f"Add the docstring `{quoted}` to the function `{function.name}`."
        return Edit("docstring", what, f"with the docstring {quoted}", done)
    lines = _lines(text)
    end = first.end_lineno or first.lineno
    indent = " " * first.col_offset
    done = "".join([*lines[: first.lineno - 1], f"{indent}{quoted}\n", *lines[end:]])
    what = f"Replace the docstring of the function `{function.name}` by `{quoted}`."
    return Edit("docstring", what, f"with the docstring {quoted}", done)


def _hint(text: str, chance: random.Random) -> Edit | None:
    function = _function(ast.parse(text))
    if function is None:
        return None
    bare = [a for a in function.args.args if a.annotation is None and a.arg not in ("self", "cls")]
    if not bare:
        return None
    argument = chance.choice(bare)
    kind = chance.choice(("int", "str", "list", "object"))
    at = argument.col_offset + len(argument.arg)
    return Edit(
        "hint", f"Add the type hint `{kind}` to the argument `{argument.arg}`.",
        f"with the type hint `{argument.arg}: {kind}`",
        _put(text, [(argument.lineno, at, at, f": {kind}")]),
    )  # fmt: skip


def _constant(text: str, chance: random.Random) -> Edit | None:
    function = _function(ast.parse(text))
    if function is None:
        return None
    lines = _lines(text)
    found = [
        node
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and type(node.value) is int
        and lines[node.lineno - 1][node.col_offset :].startswith(str(node.value))
    ]  # fmt: skip
    if not found:
        return None
    node = chance.choice(found)
    assert type(node.value) is int
    new = node.value + chance.randint(1, 9)
    end = node.col_offset + len(str(node.value))
    return Edit(
        "constant", f"Change the constant {node.value} in line {node.lineno} to {new}.",
        f"with the constant {node.value} in line {node.lineno} changed to {new}",
        _put(text, [(node.lineno, node.col_offset, end, str(new))]),
    )  # fmt: skip


def _log(text: str, chance: random.Random) -> Edit | None:
    function = _function(ast.parse(text))
    if function is None or _on_one_line(function):
        return None
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    names = _names(function)
    if not body or not names:
        return None
    shown = chance.choice(names[:3])
    indent = " " * body[0].col_offset
    line = f'print("{function.name}:", {shown})'
    return Edit(
        "log", f"Insert `{line}` as the first statement of the function `{function.name}`.",
        f"with `{line}` as its first statement",
        _put(text, [(_first_line(body[0]), 0, 0, f"{indent}{line}\n")]),
    )  # fmt: skip


def _first_line(node: ast.stmt) -> int:
    """Decorators stand above the line of what they decorate."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _on_one_line(function: ast.FunctionDef) -> bool:
    """`def f(): return 1`, or two statements on a line: nothing can be put between."""
    starts = [node.lineno for node in function.body]
    return function.lineno in starts or len(set(starts)) < len(starts)


EDITS: dict[str, Callable[[str, random.Random], Edit | None]] = {
    "rename": _rename,
    "docstring": _docstring,
    "hint": _hint,
    "constant": _constant,
    "log": _log,
}


def sessions(sources: Sequence[Source], n_turns: int, seed: int) -> Iterator[Session]:
    for source in sources:
        session = session_of(source, n_turns, seed)
        if session is not None:
            yield session
