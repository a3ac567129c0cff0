"""Mutants of a Python file: one small change each, as text, so that all else stays as it is."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
REMOVABLE = (ast.Expr, ast.Assign, ast.AugAssign, ast.Raise, ast.Delete, ast.Assert)


@dataclass(frozen=True)
class Mutant:
    """One change: what stood from `start` to `end` (bytes of the file) becomes `new`.

    Attributes:
        kind: the operator's name.
        where: the qualified name of the function or class, "" for the module.
        line: of the change, from 1.
        old, new: the text before and after.
    """

    kind: str
    where: str
    line: int
    start: int
    end: int
    old: str
    new: str

    @property
    def key(self) -> str:
        """The same when lines move."""
        return f"{self.where}: {self.kind}: {self.old} -> {self.new}"

    def apply(self, source: bytes) -> bytes:
        return source[: self.start] + self.new.encode() + source[self.end :]


class _Finder:
    def __init__(self, source: bytes) -> None:
        self._source = source
        self._starts = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))
        self.found: list[Mutant] = []

    def _add(self, kind: str, where: str, node: ast.expr | ast.stmt, new: ast.AST | str) -> None:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        start = self._starts[node.lineno - 1] + node.col_offset
        end = self._starts[node.end_lineno - 1] + node.end_col_offset
        old = self._source[start:end].decode()
        text = new if isinstance(new, str) else ast.unparse(new)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant):
            text = f"({text})"  # it may have stood without, under an operator that binds tighter
        if text != old:
            self.found.append(Mutant(kind, where, node.lineno, start, end, old, text))

    def visit(self, node: ast.AST, where: str) -> None:
        """What is generated or never runs is left alone: docstrings, annotations, messages."""
        if isinstance(node, (ast.JoinedStr, ast.ImportFrom, ast.Import)):
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
            return
        inner = where
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            inner = f"{where}.{node.name}" if where else node.name
        if isinstance(node, ast.expr):
            self._expression(node, where)
        elif isinstance(node, ast.stmt):
            self._statement(node, where)
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list"):
                continue
            if isinstance(node, ast.Raise):
                continue  # what a message says is the tests' affair where it matters
            if isinstance(node, ast.Compare) and name == "comparators" and _with_none(node):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_text_statement(child):
                    self.visit(child, inner)

    def _statement(self, node: ast.stmt, where: str) -> None:
        if isinstance(node, ast.Return) and node.value is not None:
            if not (isinstance(node.value, ast.Constant) and node.value.value is None):
                self._add("return", where, node, "return None")
        elif isinstance(node, (ast.If, ast.While)):
            if not isinstance(node.test, (ast.Compare, ast.UnaryOp)):
                self._add("condition", where, node.test, f"not ({ast.unparse(node.test)})")
        elif isinstance(node, REMOVABLE) and not _is_alias(node):
            self._add("removed", where, node, "pass")

    def _expression(self, node: ast.expr, where: str) -> None:
        if isinstance(node, ast.Compare):
            for i, op in enumerate(node.ops):
                ops = [*node.ops[:i], COMPARISONS[type(op)](), *node.ops[i + 1 :]]
                changed = ast.Compare(node.left, ops, node.comparators)
                self._add("comparison", where, node, changed)
        elif isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            self._add("boolean", where, node, ast.BoolOp(other, node.values))
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self._add("boolean", where, node, node.operand)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            self._add("arithmetic", where, node, node.operand)
        elif isinstance(node, ast.IfExp):
            if not isinstance(
                node.test, (ast.Compare, ast.UnaryOp)
            ):  # they have mutants themselves
                test = ast.UnaryOp(ast.Not(), node.test)
                self._add("condition", where, node, ast.IfExp(test, node.body, node.orelse))
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            changed = ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
            self._add("arithmetic", where, node, changed)
        elif isinstance(node, ast.Constant):
            self._constant(node, where)

    def _constant(self, node: ast.Constant, where: str) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add("constant", where, node, repr(not value))
        elif isinstance(value, (int, float)):
            # One more is not to be noticed in what is rounded to some digits.
            self._add("constant", where, node, repr(2 * value if abs(value) > 1e6 else value + 1))
        elif isinstance(value, str):
            # Python takes "utf-8_" for what it is.
            other = "latin-1" if value == "utf-8" else value + "_"
            self._add("constant", where, node, repr(other))
        elif value is None:
            self._add("constant", where, node, "0")


def _is_text_statement(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _with_none(node: ast.Compare) -> bool:
    """``x is None``: another constant would say what the other comparison says."""
    return len(node.ops) == 1 and isinstance(node.ops[0], (ast.Is, ast.IsNot))


def _is_alias(node: ast.stmt) -> bool:
    """``Names = A | B`` and ``Kind = Literal[...]``: types, which nothing runs."""
    if not isinstance(node, ast.Assign):
        return False
    return isinstance(node.value, ast.Subscript) and ast.unparse(node.value.value) == "Literal"


def _outermost(tree: ast.Module) -> Iterator[ast.stmt]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, (ast.Subscript, ast.BinOp)):
            name = ast.unparse(node.targets[0])
            if name[0].isupper() and not name.isupper():
                continue  # a type
        if not _is_text_statement(node):
            yield node


def mutants(source: bytes) -> list[Mutant]:
    """All mutants, in the order of the file."""
    finder = _Finder(source)
    for node in _outermost(ast.parse(source)):
        finder.visit(node, "")
    found: dict[tuple[int, int, str], Mutant] = {}
    for mutant in finder.found:
        try:
            with warnings.catch_warnings(action="ignore"):
                compile(mutant.apply(source), "mutant", "exec")
        except (SyntaxError, ValueError):
            continue
        found.setdefault((mutant.start, mutant.end, mutant.new), mutant)
    return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end))
