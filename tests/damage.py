"""Files that something happened to: what readers of untrusted bytes are tried on."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import strategies as st

NUMBERS = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
Change = Callable[[bytearray], None]


def put(at: int, packed: bytes) -> Change:
    return lambda content: content.__setitem__(slice(at, at + len(packed)), packed)


def flip(at: int, bit: int) -> Change:
    here = slice(at, at + 1)
    return lambda content: content.__setitem__(here, bytes(b ^ 1 << bit for b in content[here]))


def cut(at: int, n: int) -> Change:
    return lambda content: content.__delitem__(slice(at, at + n))


def insert(at: int, source: int, n: int) -> Change:
    return lambda content: content.__setitem__(slice(at, at), content[source : source + n])


def changed(content: bytes, changes: list[Change]) -> bytes:
    data = bytearray(content)
    for change in changes:
        change(data)
    return bytes(data)


def damaged(
    content: bytes,
    first: int = 0,
    end: int | None = None,
    *,
    numbers: list[int] | None = None,
    same_size: bool = False,
    most: int = 4,
) -> st.SearchStrategy[bytes]:
    """Content with up to `most` changes of the bytes from `first` to `end`: other numbers, bytes,
    what is cut out or put in twice."""
    places = st.integers(first, (len(content) if end is None else end) - 9)
    values = st.sampled_from(NUMBERS if numbers is None else numbers)
    kinds = [
        st.builds(put, places, values.map(lambda n: struct.pack("<Q", n))),
        st.builds(put, places, values.map(lambda n: struct.pack("<I", n & 0xFFFFFFFF))),
        st.builds(put, places, st.binary(min_size=1, max_size=4)),
        st.builds(flip, places, st.integers(0, 7)),
    ]
    if not same_size:
        kinds += [
            st.builds(cut, places, st.integers(1, 40)),
            st.builds(insert, places, places, st.integers(1, 60)),
        ]
    changes = st.lists(st.one_of(kinds), min_size=1, max_size=most)
    return changes.map(lambda some: changed(content, some))
