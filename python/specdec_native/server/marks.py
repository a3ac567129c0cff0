"""Marks of calls that are control tokens, which a model's text leaves out: puts them back."""

from __future__ import annotations

import codecs
import weakref
from collections import deque
from collections.abc import Mapping, Sequence

from ..model import Model
from .call_forms import marks_of

_pieces: weakref.WeakKeyDictionary[Model, list[bytes]] = weakref.WeakKeyDictionary()


def hidden_marks(model: Model, template: str) -> dict[int, str]:
    """Those of this chat template that are one token each and no text: id -> spelling."""
    found = {}
    for mark in marks_of(template):
        ids = model.tokenize(mark, add_special=False, parse_special=True)
        if len(ids) == 1 and not model.detokenize(ids):
            found[ids[0]] = mark
    if found and model not in _pieces:
        pieces = model._native.token_bytes()
        for token in model._native.hidden_ids():
            pieces[token] = b""
        _pieces[model] = pieces
    return found


class MarkedText:
    """The text of one choice. Other control tokens, as those that end a turn, stay out of it.

    Args:
        model: whose text it is.
        marks: of `hidden_marks`, and not empty.
    """

    def __init__(self, model: Model, marks: Mapping[int, str]) -> None:
        self._pieces = _pieces[model]
        self._marks = marks
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._n_known = 0  # characters of the tokens so far
        self._n_given = 0  # of the text so far, which lags behind: it may end in a stop string
        self._due: deque[tuple[int, str]] = deque()  # behind so many characters

    def feed(self, text: str, token_ids: Sequence[int]) -> str:
        for token in token_ids:
            if token in self._marks:
                self._due.append((self._n_known, self._marks[token]))
            else:
                self._n_known += len(self._decoder.decode(self._pieces[token]))
        end = self._n_given + len(text)
        out = ""
        while self._due and self._due[0][0] <= end:
            at, mark = self._due.popleft()
            size = max(0, at - self._n_given)
            out += text[:size] + mark
            text = text[size:]
            self._n_given += size
        self._n_given = end
        return out + text
