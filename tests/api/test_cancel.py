"""Cancelling: no request between the first line of a call and its end is lost, and none remains."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

import pytest

from helpers import native

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
engine = native("engine")

PROMPT = "the cat in the hat the cat in the hat the cat in the "
MESSAGES = [{"role": "user", "content": "the cat in the hat"}]
N_CTX = 1 << 18
# Would run for minutes: a test that passes has ended it.
ENDLESS = {"max_tokens": N_CTX - 1000, "ignore_eos": True}
SHORT = {"max_tokens": 12, "ignore_eos": True}


class Meeting:
    """Stops a call at a point until another thread has done something to it."""

    def __init__(self) -> None:
        self.there, self.go_on = threading.Event(), threading.Event()

    def stop(self, *args: object) -> None:
        if not self.there.is_set():
            self.there.set()
            assert self.go_on.wait(60)


class Stopping(Sequence):
    """A sequence that meets whoever iterates over it."""

    def __init__(self, items, meeting):
        self.items, self.meeting = items, meeting

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.meeting.stop()
        return self.items[index]

    def __iter__(self):
        self.meeting.stop()
        return iter(self.items)


# Where in a call: its options are checked, its prompt is, the prompt begins to be read, the last
# token of the prompt has been read, the first pass is over.
POINTS = ["options", "prompt", "reading", "read", "round"]


def arguments(call, point, meeting):
    prompt = MESSAGES if call.endswith("chat") else [1, 2, 3, 4, 5]
    options = dict(ENDLESS)
    if point == "options":
        options["stop"] = Stopping(["never to be seen"], meeting)
    if point == "prompt":
        prompt = Stopping(prompt, meeting)
    if point == "reading":
        options["on_progress"] = meeting.stop
    if point == "read":
        options["on_progress"] = lambda n, total: meeting.stop() if n == total else None
    if point == "round":
        options["on_round"] = meeting.stop
    return prompt, options


@pytest.mark.parametrize("end", ["cancel", "close"])
@pytest.mark.parametrize("call", ["generate", "chat", "stream", "stream_chat"])
@pytest.mark.parametrize("point", POINTS)
def test_a_call_that_has_begun_can_be_ended_at_every_point(tiny, call, point, end):
    decoder = sd.Decoder(tiny, drafter=sd.NGram(), n_ctx=N_CTX)
    meeting = Meeting()
    prompt, options = arguments(call, point, meeting)
    found = []

    def work():
        result = getattr(decoder, call)(prompt, **options)
        if isinstance(result, sd.Stream):
            assert sum(len(chunk.token_ids) for chunk in result) < 200
            result = result.result
        found.append(result)

    thread = threading.Thread(target=work)
    thread.start()
    assert meeting.there.wait(60)
    assert decoder.busy
    if end == "close":
        closing = threading.Thread(target=decoder.close)  # it waits for a stream
        closing.start()
        while not decoder.closed:
            pass
        meeting.go_on.set()
        closing.join(60)
    else:
        getattr(decoder, end)()
        meeting.go_on.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [result.finish_reason for result in found] == ["cancelled"]
    assert len(found[0].token_ids) <= (17 if point == "round" else 1)
    if end == "close":
        with pytest.raises(sd.ClosedError):
            decoder.generate(PROMPT)
        return
    assert not decoder.busy
    again = decoder.generate(PROMPT, **SHORT)
    assert again.finish_reason == "length"  # nothing of it remains
    assert again.token_ids == sd.Decoder(tiny).generate(PROMPT, **SHORT).token_ids


def test_cancelling_a_verified_call_ends_the_check_too(tiny):
    decoder = sd.Decoder(tiny, drafter=sd.NGram())
    n_calls = itertools.count()

    def last(n, total):
        if n == total:
            next(n_calls)
            decoder.cancel()

    result = decoder.generate(PROMPT, verify_output=True, on_progress=last, **SHORT)
    assert (result.finish_reason, result.check) == ("cancelled", None)
    assert decoder.generate(PROMPT, verify_output=True, **SHORT).check.identical


def test_an_idle_decoder_has_nothing_to_cancel(tiny):
    decoder = sd.Decoder(tiny)
    decoder.cancel()
    assert decoder.generate(PROMPT, **SHORT).finish_reason == "length"
    decoder.cancel()
    assert len(list(decoder.stream(PROMPT, max_tokens=3, ignore_eos=True))) > 0
    decoder.close()
    decoder.cancel()


@pytest.mark.parametrize("call", ["generate", "stream"])
def test_a_call_seen_to_run_is_cancelled_every_time(tiny, call):
    # The other thread runs freely: what the tests above force, and all that lies between.
    decoder = sd.Decoder(tiny, drafter=sd.NGram(), n_ctx=N_CTX)
    for _ in range(60):
        reasons = []

        def work(reasons=reasons):
            result = getattr(decoder, call)(PROMPT, **ENDLESS)
            if isinstance(result, sd.Stream):
                list(result)
                result = result.result
            reasons.append(result.finish_reason)

        thread = threading.Thread(target=work)
        thread.start()
        while not decoder.busy:
            pass
        decoder.cancel()
        thread.join(60)
        assert reasons == ["cancelled"]


# ---------------------------------------------------------------- every question, also calibrating


@pytest.fixture(scope="module")
def pair(tiny_path, tiny_draft_path):
    return [engine.load(str(path), n_threads=1) for path in (tiny_path, tiny_draft_path)]


def fresh_session(pair, monkeypatch, folder, drafter):
    """One whose first call measures the model's speed."""
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(folder))
    target, draft = pair
    return engine.Session(target, draft, drafter=drafter, n_ctx=256)


@pytest.mark.parametrize("drafter", ["auto", "layerskip,ngram"])
@pytest.mark.parametrize("how", ["token", "answer", "raise"])
def test_a_call_ends_at_every_question_even_while_it_calibrates(
    pair, monkeypatch, tmp_path, drafter, how
):
    plain = engine.Session(pair[0], drafter="none", n_ctx=256)
    expected = plain.generate(prompt=PROMPT, **SHORT)["token_ids"]
    asked = itertools.count()
    session = fresh_session(pair, monkeypatch, tmp_path / "all", drafter)
    session.generate(prompt=PROMPT, should_cancel=lambda: next(asked) < 0, **SHORT)
    n_questions = next(asked)
    n_files = 0
    assert n_questions > 30
    for k in range(0, n_questions + 3, 3):
        folder = tmp_path / str(k)
        session = fresh_session(pair, monkeypatch, folder, drafter)
        token, asked = engine.Token(), itertools.count()

        def question(k=k, token=token, asked=asked):
            if next(asked) < k:
                return False
            if how == "raise":
                raise KeyError("mine")
            token.set()
            return how == "answer"

        call = {"prompt": PROMPT, "should_cancel": question, "cancel": token, **SHORT}
        if how == "raise" and k < 5:
            with pytest.raises(KeyError, match="mine"):
                session.generate(**call)
        else:
            try:
                result = session.generate(**call)
            except KeyError:
                assert how == "raise"
            else:
                if how != "raise" and k < n_questions // 2:
                    assert result["finish_reason"] == "cancelled"
                assert result["token_ids"] == expected[: len(result["token_ids"])]
        n_files += folder.exists()
        again = session.generate(prompt=PROMPT, **SHORT)
        assert again["token_ids"] == expected
        assert [file.suffix for file in folder.iterdir()] == [".txt"]
    # Nothing is kept of a calibration that was ended.
    assert 0 <= n_files < n_questions // 3


def test_a_token_set_before_the_call_ends_it(pair):
    session = engine.Session(pair[0], n_ctx=256)
    token = engine.Token()
    token.set()
    result = session.generate(prompt=PROMPT, cancel=token, **SHORT)
    assert (result["finish_reason"], result["token_ids"]) == ("cancelled", [])
    assert session.generate(prompt=PROMPT, **SHORT)["finish_reason"] == "length"


def test_a_long_text_is_left_in_the_middle(pair):
    class Enough(Exception):
        pass

    text = "the cat in the hat " * 100_000
    n_polls = itertools.count()
    pair[0].encode([(text, False)], poll=lambda: next(n_polls))
    assert next(n_polls) > 20

    def poll():
        raise Enough

    with pytest.raises(Enough):
        pair[0].encode([(text, False)], poll=poll)
    token = engine.Token()
    token.set()
    session = engine.Session(pair[0], n_ctx=256)
    result = session.generate(prompt=text, cancel=token)  # too long for the context, but not read
    assert (result["finish_reason"], result["n_prompt_tokens"]) == ("cancelled", 0)


# ---------------------------------------------------------------- progress


@pytest.mark.parametrize("drafter", ["none", "ngram", "model", "layerskip", "auto"])
@pytest.mark.parametrize("n", [1, 2, 33, 700])
def test_progress_of_a_prompt_rises_to_its_total_before_the_first_token(pair, drafter, n):
    session = engine.Session(*pair, drafter=drafter, n_ctx=1024)
    ids = [(7 * i * i + i) % 200 for i in range(n)]
    for prompt in (ids, ids, [*ids, 5, 6, 7]):  # new, known already, known in part
        told, chunks = [], []

        def progress(done, total, told=told, chunks=chunks):
            assert not chunks
            told.append((done, total))

        session.generate(prompt_ids=prompt, on_progress=progress, on_chunk=chunks.append, **SHORT)
        assert told[-1] == (len(prompt), len(prompt))
        assert told == sorted(set(told))
        assert chunks


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
@pytest.mark.parametrize("call", ["generate", "chat", "stream", "stream_chat"])
def test_progress_reaches_its_total_in_every_call(tiny, call, max_tokens):
    decoder = sd.Decoder(tiny)
    told = []
    prompt = MESSAGES if call.endswith("chat") else PROMPT
    result = getattr(decoder, call)(
        prompt, max_tokens=max_tokens, on_progress=lambda *n: told.append(n), ignore_eos=True
    )
    if isinstance(result, sd.Stream):
        list(result)
        result = result.result
    assert told[-1] == (result.prompt_tokens, result.prompt_tokens)


def test_many_prompts_load_and_quantize_report_their_end(tiny, tiny_path, tmp_path):
    told = []
    sd.generate_many(
        tiny, ["a", "b c", "d"], max_tokens=[0, 3, 5], n_parallel=2, ignore_eos=True,
        on_done=lambda *n: told.append(n),
    )  # fmt: skip
    assert told[-1] == (3, 3)
    fractions = []
    sd.Model(tiny_path, on_progress=fractions.append).close()
    assert fractions[-1] == 1.0
    fractions.clear()
    sd.quantize(
        tiny_path, tmp_path / "q.gguf", "q4_0", allow_requantize=True, on_progress=fractions.append
    )
    assert fractions[-1] == 1.0
    assert fractions == sorted(fractions)
