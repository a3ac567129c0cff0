"""What an option is: the words in which the tables of this folder are written."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

INT_MAX = 2**31 - 1


class Kind:
    """The values of an option. `annotation` is Python's, without ``None``."""

    annotation: str

    def range_text(self) -> str:
        return ""

    def check(self) -> str:
        """The expression of `_checks.py` that checks such a value."""
        raise NotImplementedError


@dataclass(frozen=True)
class Whole(Kind):
    low: int = 0
    high: int = INT_MAX
    annotation: str = "int"

    def range_text(self) -> str:
        return f"{self.low} or more" if self.high >= INT_MAX else f"{self.low} to {self.high}"

    def check(self) -> str:
        return f"Whole({self.low}, {self.high})"


@dataclass(frozen=True)
class Real(Kind):
    low: float = 0
    high: float = 1
    open_low: bool = False
    open_high: bool = False
    annotation: str = "float"

    def range_text(self) -> str:
        left, right = "(" if self.open_low else "[", ")" if self.open_high else "]"
        return f"{left}{self.low:.15g}, {self.high:.15g}{right}"

    def check(self) -> str:
        opens = ", open_low=True" if self.open_low else ""
        opens += ", open_high=True" if self.open_high else ""
        return f"Real({self.low:.15g}, {self.high:.15g}{opens})"


@dataclass(frozen=True)
class Choice(Kind):
    """One of some words; `source` names a function that lists them where only the build knows."""

    values: tuple[str, ...] = ()
    annotation: str = "str"

    def check(self) -> str:
        return f"Choice({self.values!r})"


@dataclass(frozen=True)
class Truth(Kind):
    annotation: str = "bool"

    def check(self) -> str:
        return "Truth()"


@dataclass(frozen=True)
class Text(Kind):
    annotation: str = "str"

    def check(self) -> str:
        return "Text()"


@dataclass(frozen=True)
class TextOrPath(Kind):
    annotation: str = "str | os.PathLike[str]"

    def check(self) -> str:
        return "TextOrPath()"


@dataclass(frozen=True)
class Callback(Kind):
    annotation: str

    def check(self) -> str:
        return "Callback()"


@dataclass(frozen=True)
class Table(Kind):
    annotation: str

    def check(self) -> str:
        return "Table()"


@dataclass(frozen=True)
class Items(Kind):
    annotation: str

    def check(self) -> str:
        return "Items()"


@dataclass(frozen=True)
class Other(Kind):
    """Checked by hand."""

    annotation: str

    def check(self) -> str:
        return ""


class _Same:
    def __repr__(self) -> str:
        return "SAME"


REQUIRED: Any = _Same()
SAME: Any = _Same()


@dataclass(frozen=True)
class Flag:
    """An option on the command line.

    Attributes:
        names: separated by spaces; the last one names it in messages.
        commands: which have it.
        metavar: what `--help` calls its value; "" for one that takes none.
        text: what `--help` says if not the option's text. ``{default}`` becomes the default.
        none: the number that stands for None.
        default: if it is not the option's.
        sets: what a flag without value sets.
    """

    names: str
    commands: str
    metavar: str = ""
    text: str = ""
    none: int | None = None
    default: Any = SAME
    sets: bool = True


@dataclass(frozen=True)
class Option:
    """One option of one place.

    Attributes:
        place: where it applies: a class of Python's, or a command for what only the command line
            has.
        name: Python's, and that of messages.
        default: ``REQUIRED``: there is none.
        text: what it does; the range and None's meaning stand before and after it.
        none: what None means; "" where None is not a value.
        calls: methods or functions that take it besides `place`.
        defaults: defaults of some calls that differ.
        positional: may be given without its name.
        overrides: a single option that, given, overrides a field of `params`.
    """

    place: str
    name: str
    kind: Kind
    default: Any
    text: str
    _: dataclasses.KW_ONLY
    none: str = ""
    flag: Flag | None = None
    calls: tuple[str, ...] = ()
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    positional: bool = False
    overrides: bool = False
    factory: str = ""  # of a field of a dataclass, where the default is not a constant

    @property
    def id(self) -> str:
        return f"{self.place}.{self.name}"

    @property
    def may_be_none(self) -> bool:
        return bool(self.none)

    @property
    def annotation(self) -> str:
        return f"{self.kind.annotation} | None" if self.may_be_none else self.kind.annotation

    def doc(self) -> str:
        """The sentence of docstrings and tables."""
        none = "" if isinstance(self.kind, Callback) or not self.none else f"None: {self.none}"
        parts = [self.kind.range_text(), self.text, none]
        return "; ".join(part for part in parts if part).rstrip(".") + "."

    @property
    def flag_default(self) -> Any:
        assert self.flag is not None
        if self.flag.default is not SAME:
            return self.flag.default
        return self.flag.none if self.default is None else self.default

    def flag_help(self) -> str:
        assert self.flag is not None
        text = self.flag.text or self.text.rstrip(".") + "."
        return text.replace("{default}", shown(self.flag_default))


def shown(value: Any) -> str:
    """A default as one types it."""
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value)
