"""Checks of options: each returns the value as the native code takes it or names what is wrong.

NumPy's numbers are numbers: whatever has ``__index__`` is whole, whatever is a `numbers.Real` is a
number. Booleans are neither.
"""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar, cast

from .errors import InvalidArgumentError

T = TypeVar("T")


class Unset(Generic[T]):
    """The default of an option that overrides a field of `params` only when it is given.

    It prints as the value that counts if neither is given, and compares equal to it.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)

    def __eq__(self, other: object) -> bool:
        return bool(self.value == (other.value if isinstance(other, Unset) else other))

    __hash__ = None  # type: ignore[assignment]


def unset(value: T) -> T:
    return cast(T, Unset(value))


@dataclass(frozen=True, kw_only=True)
class Check:
    """Base of the checks; `optional`: None is allowed."""

    optional: bool = False

    def __call__(self, name: str, value: object) -> Any:
        if value is None and self.optional:
            return None
        return self.convert(name, value)

    def convert(self, name: str, value: object) -> Any:
        raise NotImplementedError

    def refuse(self, name: str, value: object, expected: str) -> NoReturn:
        also = " or None" if self.optional else ""
        raise InvalidArgumentError(f"{name} must be {expected}{also}, not {_shown(value)}")


@dataclass(frozen=True)
class Whole(Check):
    low: int
    high: int

    def convert(self, name: str, value: object) -> int:
        if not isinstance(value, bool):
            try:
                number = operator.index(value)  # type: ignore[arg-type]  # asked, not assumed
                if self.low <= number <= self.high:
                    return number
            except TypeError:
                pass
        self.refuse(name, value, f"a whole number from {self.low} to {self.high}")


@dataclass(frozen=True)
class Real(Check):
    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def convert(self, name: str, value: object) -> float:
        if isinstance(value, numbers.Real) and not isinstance(value, bool):
            try:
                number = float(value)
            except OverflowError:
                number = float("inf")
            above = number > self.low if self.open_low else number >= self.low
            if above and (number < self.high if self.open_high else number <= self.high):
                return number
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        self.refuse(name, value, f"a number in {left}{self.low:.15g}, {self.high:.15g}{right}")


@dataclass(frozen=True)
class Choice(Check):
    values: tuple[str, ...]

    def convert(self, name: str, value: object) -> str:
        if isinstance(value, str) and value in self.values:
            return value
        self.refuse(name, value, f"one of {', '.join(self.values)}")


@dataclass(frozen=True)
class Truth(Check):
    def convert(self, name: str, value: object) -> bool:
        if isinstance(value, bool):
            return value
        if type(value).__module__ == "numpy" and type(value).__name__ in ("bool", "bool_"):
            return bool(value)
        self.refuse(name, value, "True or False")


@dataclass(frozen=True)
class Text(Check):
    def convert(self, name: str, value: object) -> str:
        if isinstance(value, str):
            return value
        self.refuse(name, value, "a str")


@dataclass(frozen=True)
class TextOrPath(Check):
    def convert(self, name: str, value: object) -> str | os.PathLike[str]:
        if isinstance(value, (str, os.PathLike)):
            return value
        self.refuse(name, value, "a str or a path")


@dataclass(frozen=True)
class Callback(Check):
    def convert(self, name: str, value: object) -> Any:
        if callable(value):
            return value
        self.refuse(name, value, "a function")


@dataclass(frozen=True)
class Table(Check):
    def convert(self, name: str, value: object) -> Any:
        if isinstance(value, Mapping):
            return value
        self.refuse(name, value, "a dict")


@dataclass(frozen=True)
class Items(Check):
    def convert(self, name: str, value: object) -> Any:
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            return value
        self.refuse(name, value, "a list")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:197] + "..."


def check_whole(name: str, value: object, low: int, high: int) -> int:
    return Whole(low, high).convert(name, value)


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> str:
    return Choice(choices).convert(name, value)


def check_all(checks: Mapping[str, Check], values: Mapping[str, object]) -> dict[str, Any]:
    """The values as the native code takes them; what has no check stays."""
    return {
        name: checks[name](name, value) if name in checks else value
        for name, value in values.items()
    }
