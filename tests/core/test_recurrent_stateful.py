"""After any passes, drafts, trees, rollbacks and forks recurrent layers have the bits of a sequence
that only read what was kept."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from test_recurrent import N_LAYERS, TEXT, bits, model, testing

from helpers import examples

__all__ = ["model"]  # a fixture
LONGEST = 500
WRONG = 9  # tokens that are no part of the text
MOST = 3  # sessions at once
WHICH = st.integers(0, MOST - 1)
ROWS = st.sampled_from([1, 1, 2, 5, 9, 17, 33, 63, 64, 65, 90, 130])


class Expected:
    """The row behind each beginning of TEXT, which is read one by one."""

    def __init__(self, model: Any) -> None:
        self.session = model.session(kv_type="f32")
        self.rows: list[bytes] = []

    def after(self, n: int) -> bytes:
        while len(self.rows) <= n:
            self.rows.append(bits(self.session.fork().forward([11])))
            self.session.forward([TEXT[self.session.length]], output="none")
        return self.rows[n]


class Sequences(RuleBasedStateMachine):
    """Sessions, each of which holds a beginning of TEXT after every step."""

    model: Any
    expected: Expected

    @initialize()
    def begin(self) -> None:
        self.sessions = [self.model.session(kv_type="f32")]

    def at(self, which: int, n_rows: int = 0) -> tuple[Any, int]:
        """A session with room for so many rows, and its length."""
        session = self.sessions[which % len(self.sessions)]
        if session.length + n_rows > LONGEST:
            session.truncate(session.reachable(session.length // 3))
        self.changed = session
        return session, session.length

    @rule(which=WHICH, n=ROWS, output=st.sampled_from(["none", "argmax", "logits"]))
    def read(self, which: int, n: int, output: str) -> None:
        session, at = self.at(which, n)
        session.forward(TEXT[at : at + n], output=output)
        assert session.reachable(at + n) == at + n
        if output != "none":  # so some of the rows may be dropped
            assert session.reachable(at + n // 2) == at + n // 2

    @rule(which=WHICH, n=ROWS, drawn=st.data())
    def draft(self, which: int, n: int, drawn: st.DataObject) -> None:
        session, at = self.at(which, n)
        n_right = drawn.draw(st.integers(0, n), label="right")
        session.forward(TEXT[at : at + n_right] + [WRONG] * (n - n_right))
        assert session.reachable(at + n_right) == at + n_right
        session.truncate(at + n_right)

    @rule(which=WHICH, n=ROWS, drawn=st.data())
    def tree(self, which: int, n: int, drawn: st.DataObject) -> None:
        session, at = self.at(which, n)
        path = sorted(drawn.draw(st.sets(st.integers(0, n - 1), max_size=9), label="path"))
        shape = drawn.draw(st.integers(0, 3), label="shape of the rest")
        tokens, parents, n_path = [], [], 0
        for row in range(n):
            if row in path:
                parents.append(path[n_path - 1] if n_path > 0 else -1)
                tokens.append(TEXT[at + n_path])
                n_path += 1
            else:
                parents.append(row * shape // 3 - 1)
                tokens.append(WRONG)
        session.forward(tokens, parents=parents)
        n_kept = drawn.draw(st.integers(0, len(path)), label="kept")
        session.keep_path(at, path[:n_kept])
        assert session.length == at + n_kept

    @rule(which=WHICH, n=ROWS, n_layers=st.integers(1, N_LAYERS - 1), drawn=st.data())
    def draft_with_some_layers(
        self, which: int, n: int, n_layers: int, drawn: st.DataObject
    ) -> None:
        n = min(n, 9)
        session, at = self.at(which, n)
        hidden = [
            session.forward([token], output="hidden", layers=(0, n_layers))
            for token in TEXT[at : at + n]
        ]
        used = drawn.draw(st.integers(0, n), label="used")
        session.truncate(at + used)
        if used > 0:
            rows = np.concatenate(hidden[:used]).ravel().tolist()
            layers = (n_layers, -1)
            session.forward(TEXT[at : at + used], layers=layers, hidden=rows, n_present=used)
        assert session.length == at + used

    @rule(which=WHICH, n=ROWS, n_layers=st.integers(1, N_LAYERS - 1))
    def end_in_the_middle(self, which: int, n: int, n_layers: int) -> None:
        session, at = self.at(which, n)
        session.forward([WRONG] * n, output="none", layers=(0, n_layers))
        session.truncate(at)

    @rule(which=WHICH, n=ROWS, output=st.sampled_from(["none", "logits"]))
    def cancel(self, which: int, n: int, output: str) -> None:
        session, at = self.at(which, n)
        with pytest.raises(testing.NativeError, match="cancel"):
            session.forward([WRONG] * n, output=output, cancelled=True)
        assert session.length == at

    @rule(which=WHICH, to=st.integers(0, LONGEST), drawn=st.data())
    def go_back(self, which: int, to: int, drawn: st.DataObject) -> None:
        session, at = self.at(which)
        to = at - to % 100 if drawn.draw(st.booleans(), label="a little") else to
        to = max(0, min(to, at))
        reached = session.reachable(to)
        assert 0 <= reached <= to
        if reached < to:
            with pytest.raises(testing.NativeError, match=rf"only to {reached}"):
                session.truncate(to)
            assert session.length == at
        session.truncate(reached)

    @precondition(lambda self: len(self.sessions) < MOST)
    @rule(which=WHICH)
    def fork(self, which: int) -> None:
        self.sessions.append(self.at(which)[0].fork())

    @precondition(lambda self: len(self.sessions) > 1)
    @rule(which=WHICH)
    def drop(self, which: int) -> None:
        del self.sessions[which % len(self.sessions)]

    @invariant()
    def the_next_row_is_that_of_what_was_kept(self) -> None:
        for session in self.sessions:
            row = bits(session.fork().forward([11]))
            assert row == self.expected.after(session.length), session.length


@pytest.mark.hypothesis
def test_whatever_was_taken_back_the_next_row_is_that_of_what_was_kept(model: Any) -> None:
    class Bound(Sequences):
        pass

    Bound.model, Bound.expected = model, Expected(model)
    some = settings(max_examples=examples(10), stateful_step_count=25)
    run_state_machine_as_test(Bound, settings=some)
