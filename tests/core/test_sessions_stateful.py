"""Sessions that go on, go back, fork, are cancelled or kept in a file say what a new one says."""

from __future__ import annotations

import pathlib
import tempfile
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

import tiny_models
from helpers import examples, native

engine = native("engine")

N_CTX = 640
LONGEST = N_CTX - 20  # prompt
MOST = 3  # sessions at once
MOST_TOKENS = 9  # of an answer
TEXT = [int(t) for t in np.random.default_rng(3).integers(97, 105, LONGEST)]
WHICH = st.integers(0, MOST - 1)
MODELS = {
    "full": tiny_models.TinyConfig(head_dim=32, n_heads=1, n_kv_heads=1, hidden_size=32),
    "window": tiny_models.TinyConfig(
        arch="gemma2", head_dim=32, n_heads=1, n_kv_heads=1, hidden_size=32, window=24
    ),
    "recurrent": tiny_models.TinyConfig(
        arch="qwen35", head_dim=32, n_heads=1, n_kv_heads=1, n_layers=4, n_rot=8
    ),
    "draft": tiny_models.TinyConfig(
        head_dim=32, n_heads=1, n_kv_heads=1, hidden_size=32, n_layers=1
    ),
}
DRAFTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "ngram": {"gamma": 5},
    "suffix": {"draft_max": 9},
    "recycling": {},
    "layerskip": {"gamma": 3, "draft_layers": 1},
    "model": {"gamma": 4},
}


def common(a: list[int], b: list[int]) -> int:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return n


class Sessions(RuleBasedStateMachine):
    """Some sessions of one model with one drafter."""

    models: dict[str, Any]
    plain: dict[Any, Any]  # what new sessions said

    @initialize(name=st.sampled_from(list(MODELS)[:-1]), drafter=st.sampled_from(list(DRAFTERS)))
    def begin(self, name: str, drafter: str) -> None:
        self.name, self.drafter = name, drafter
        self.sessions = [(self.new(), TEXT[:5])]

    def new(self) -> Any:
        draft = self.models["draft"] if self.drafter == "model" else None
        options = {"drafter": self.drafter, **DRAFTERS[self.drafter]}
        return engine.Session(self.models[self.name], draft, n_ctx=N_CTX, kv_type="f32", **options)

    def at(self, which: int) -> tuple[Any, list[int]]:
        """A session and the text that it had last."""
        return self.sessions[which % len(self.sessions)]

    def request(self, prompt: list[int], temperature: float) -> dict[str, Any]:
        return {
            "prompt_ids": prompt, "temperature": temperature, "top_k": 20, "seed": 3,
            "ignore_eos": True, "n_logprobs": 2,
        }  # fmt: skip

    def expected(self, request: dict[str, Any]) -> Any:
        key = (self.name, tuple(request["prompt_ids"]), request["temperature"])
        if key not in self.plain:
            session = engine.Session(
                self.models[self.name], None, n_ctx=N_CTX, kv_type="f32", drafter="none"
            )
            self.plain[key] = session.generate(max_tokens=MOST_TOKENS, **request)
        return self.plain[key]

    def prompt(self, which: int, drawn: st.DataObject) -> list[int]:
        """Goes on where a session's text ends, or somewhere before; or another text."""
        last = self.at(which)[1]
        n = drawn.draw(
            st.one_of(
                st.just(len(last)),
                st.integers(max(0, len(last) - 80), len(last)),
                st.integers(0, len(last)),
            ),
            label="kept",
        )
        at = drawn.draw(st.integers(0, 300), label="from")
        more = drawn.draw(st.sampled_from([1, 1, 2, 7, 30, 70, 290]), label="more")
        return (last[:n] + TEXT[at : at + more])[-LONGEST:]

    @rule(
        which=WHICH,
        n=st.sampled_from([0, 1, 2, MOST_TOKENS]),
        temperature=st.sampled_from([0.0, 0.9]),
        drawn=st.data(),
    )
    def generate(self, which: int, n: int, temperature: float, drawn: st.DataObject) -> None:
        session, _ = self.at(which)
        prompt = self.prompt(which, drawn)
        before = session.cached_tokens()
        request = self.request(prompt, temperature)
        found = session.generate(max_tokens=n, **request)
        expected = self.expected(request)
        assert found["token_ids"] == expected["token_ids"][:n]
        assert found["logprobs"] == expected["logprobs"][:n]
        reused = min(common(before, prompt), len(prompt) - 1)
        assert found["n_reused_tokens"] <= reused
        if self.name == "full" and n > 0:
            assert found["n_reused_tokens"] == reused
        text = prompt + found["token_ids"]
        cached = session.cached_tokens()
        assert cached == text[: len(cached)]
        assert len(cached) >= len(text) - 1 or n == 0
        self.note(which, text)

    def note(self, which: int, text: list[int]) -> None:
        at = which % len(self.sessions)
        self.sessions[at] = (self.sessions[at][0], text)

    @rule(which=WHICH, after=st.integers(0, 5), drawn=st.data())
    def cancel(self, which: int, after: int, drawn: st.DataObject) -> None:
        session, _ = self.at(which)
        prompt = self.prompt(which, drawn)
        request = self.request(prompt, 0.0)
        token = engine.Token()
        seen: list[int] = []

        def on_chunk(chunk: dict[str, Any]) -> None:
            seen.extend(chunk["token_ids"])
            if len(seen) >= after:
                token.set()

        if after == 0:
            token.set()
        found = session.generate(max_tokens=MOST_TOKENS, on_chunk=on_chunk, cancel=token, **request)
        expected = self.expected(request)
        n = len(found["token_ids"])
        assert found["token_ids"] == expected["token_ids"][:n]
        assert found["finish_reason"] == "cancelled" or n == MOST_TOKENS
        cached = session.cached_tokens()
        text = prompt + found["token_ids"]
        assert cached == text[: len(cached)]
        self.note(which, text)

    @rule(which=WHICH, n=st.sampled_from([N_CTX, N_CTX + 1, 2 * N_CTX]))
    def refuse(self, which: int, n: int) -> None:
        session, _ = self.at(which)
        before = session.cached_tokens()
        with pytest.raises(engine.Error, match="context"):
            session.generate(prompt_ids=(TEXT * 3)[:n], max_tokens=2)
        assert session.cached_tokens() == before

    @rule(which=WHICH)
    def reset(self, which: int) -> None:
        self.at(which)[0].reset()
        assert self.at(which)[0].cached_tokens() == []

    @precondition(lambda self: len(self.sessions) < MOST)
    @rule(which=WHICH)
    def fork(self, which: int) -> None:
        session, text = self.at(which)
        self.sessions.append((session.fork(), text))
        assert self.sessions[-1][0].cached_tokens() == session.cached_tokens()

    @precondition(lambda self: len(self.sessions) < MOST)
    @rule(which=WHICH)
    def keep(self, which: int) -> None:
        session, text = self.at(which)
        if not session.cached_tokens():
            return
        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "kept")
            session.save(path)
            other = self.new()
            other.load(path)
        assert other.cached_tokens() == session.cached_tokens()
        self.sessions.append((other, text))

    @precondition(lambda self: len(self.sessions) > 1)
    @rule(which=WHICH)
    def drop(self, which: int) -> None:
        del self.sessions[which % len(self.sessions)]

    @invariant()
    def none_is_busy(self) -> None:
        assert not any(session.busy for session, _ in self.sessions)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("sessions")
    return {
        name: engine.load(
            str(tiny_models.write_tiny(folder / f"{name}.gguf", config, seed=7)), n_threads=1
        )
        for name, config in MODELS.items()
    }


@pytest.mark.hypothesis
def test_sessions_say_what_a_new_one_says(models: dict[str, Any]) -> None:
    Sessions.models, Sessions.plain = models, {}
    some = settings(max_examples=examples(20), stateful_step_count=20)
    run_state_machine_as_test(Sessions, settings=some)
