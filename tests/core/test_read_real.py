"""Numbers as text: without std::from_chars, as some C++ libraries are, they are read as with it."""

from __future__ import annotations

import locale
import struct

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers import examples, native

base = native("base")

CASES = [
    "", "-", ".", "-.", "+1", " 1", "0", "-0", "0.0", "1", "1.", ".5", "-.5e3", "1e", "1e+", "1e5",
    "1E-5", "1.5.5", "1,5", "0x10", "1e400", "-1e400", "1e-400", "-0.0001e-400", "0e999",
    "0.000e-999", "1e39", "1e-50", "inf", "-INF", "infinity", "infinit", "nan", "-NaN", "nan(1)",
    "nan()", "nan(a_1)x", "nan(", "nan(-)", "nanx", "in", "1_000", "123abc", "1e5e5", "12\0",
    "0.1", "2.2250738585072011e-308",
    "4.9e-324", "2.4e-324", "179769313486231580793728971405301e276",
    "9007199254740993", "0." + "0" * 400 + "1", "9" * 400, "1" + "0" * 30 + "e-30",
]  # fmt: skip
# Only what a number is made of, so that most texts begin with one.
TEXTS = st.text(alphabet="0123456789.eE+-", max_size=40)


def bits(result: tuple[int, int, float]) -> tuple[int, int, bytes]:
    error, n_bytes, number = result
    nan = number != number  # a NaN's sign and payload are the library's business
    return error, n_bytes, b"nan" if nan else struct.pack("<d", number)


def check(text: str, fixed: bool) -> None:
    for library, ours in base.read_reals(text, fixed):
        assert bits(ours) == bits(library), text


@pytest.mark.parametrize("text", CASES)
@pytest.mark.parametrize("fixed", [False, True])
def test_every_kind_of_text_is_read_alike(text: str, fixed: bool) -> None:
    check(text, fixed)


@settings(max_examples=examples(500))
@given(TEXTS, st.booleans())
@example("1e-5", True)
def test_any_text_is_read_alike(text: str, fixed: bool) -> None:
    check(text, fixed)


@settings(max_examples=examples(300))
@given(st.floats(), st.booleans())
def test_any_number_is_read_alike(number: float, fixed: bool) -> None:
    check(repr(number), fixed)
    check(f"{number:.3g}", fixed)


def test_the_locale_does_not_matter() -> None:
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        for name in ("de_DE.UTF-8", "fr_FR.UTF-8", "de_DE", "fr_FR"):
            try:
                locale.setlocale(locale.LC_NUMERIC, name)
            except locale.Error:
                continue
            check("1.5", False)
            check("1,5", False)
            return
        pytest.skip("no locale with a decimal comma is installed")
    finally:
        locale.setlocale(locale.LC_NUMERIC, before)
