"""Where a generation ends: stop conditions inside a draft, full contexts, cancel, failures."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_decode import (
    DRAFT,
    LOOPING,
    TARGET,
    check_caches,
    check_stats,
    drafters,
    plain_greedy,
    run,
)

from helpers import examples, native

m = native("decode")
PIECES = [f"<{i}>" for i in range(8)]


def scripted(truth: list[int], n_prompt: int, right: int = 99) -> dict[str, Any]:
    """A drafter that knows the text and is right for the first `right` tokens of each draft."""

    def propose(committed: list[int], n: int) -> list[int]:
        rest = truth[len(committed) - n_prompt :][:n]
        return [t if i < right else (t + 1) % 8 for i, t in enumerate(rest)]

    return {"kind": "python", "propose": propose}


# --- end of sequence and stop strings ---


@pytest.mark.parametrize("right", [0, 1, 2, 99])
@pytest.mark.parametrize("gamma", [0, 1, 4])
def test_end_of_sequence_at_every_position_of_a_draft(gamma: int, right: int) -> None:
    prompt = [1, 2]
    truth = plain_greedy(m.Session(TARGET), prompt, 20)
    for eog in set(truth):
        cut = truth.index(eog)
        session = m.Session(TARGET, scripted(truth, 2, right))
        out = run(session, prompt=prompt, max_tokens=20, gamma=gamma, eog=[eog])
        assert out["token_ids"] == truth[:cut]
        assert out["finish_reason"] == "stop"
        assert out["stop_token"] == eog
        # The conversation goes on exactly as a fresh one would.
        longer = [*prompt, *out["token_ids"], 5]
        again = run(session, prompt=longer, max_tokens=10, gamma=gamma)
        assert again["token_ids"] == plain_greedy(session, longer, 10)
        assert again["stats"]["reused_prompt_tokens"] == len(longer) - 2


def test_the_first_of_several_end_tokens_counts_and_ignore_eos_forbids_all() -> None:
    truth = plain_greedy(m.Session(TARGET), [3], 30)
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    out = run(session, prompt=[3], max_tokens=30, eog=[truth[4], truth[2]], gamma=5)
    assert out["token_ids"] == truth[: min(truth.index(truth[4]), truth.index(truth[2]))]
    out = run(
        session, prompt=[3], max_tokens=30, eog=[truth[4], truth[2]], ignore_eos=True, gamma=5
    )
    assert len(out["token_ids"]) == 30
    assert not {truth[4], truth[2]} & set(out["token_ids"])
    assert out["finish_reason"] == "length"


@pytest.mark.parametrize("limit", range(12))
@pytest.mark.parametrize("right", [1, 99])
def test_max_tokens_is_exact_at_every_position_of_a_draft(limit: int, right: int) -> None:
    truth = plain_greedy(m.Session(TARGET), [1, 2], 20)
    for gamma in range(6):
        session = m.Session(TARGET, scripted(truth, 2, right))
        out = run(session, prompt=[1, 2], max_tokens=limit, gamma=gamma)
        assert out["token_ids"] == truth[:limit]
        assert out["finish_reason"] == "length"
        assert out["stats"]["note"] == ""
        assert out["stats"]["cut"] == 0  # nothing is computed only to be thrown away


def reference_stop(pieces: list[str], truth: list[int], stop: list[str]) -> tuple[str, int] | None:
    """Text and number of tokens up to the stop string that is complete first, byte by byte."""
    text = ""
    ends = []
    for token in truth:
        for byte in pieces[token]:
            text += byte
            for s in sorted(stop, key=len, reverse=True):
                if text.endswith(s):
                    begin = len(text) - len(s)
                    starts = [0, *ends]
                    return text[:begin], sum(start < begin for start in starts)
        ends.append(len(text))
    return None


@pytest.mark.parametrize("gamma", [0, 1, 3, 8])
def test_stop_strings_over_every_split_of_tokens(gamma: int) -> None:
    prompt = [1, 2]
    truth = plain_greedy(m.Session(TARGET), prompt, 24)
    full = "".join(PIECES[t] for t in truth)
    for begin, length in itertools.product(range(0, 40), (1, 2, 3, 4, 6, 9)):
        stop = [full[begin : begin + length]]
        want = reference_stop(PIECES, truth, stop)
        assert want is not None
        session = m.Session(TARGET, scripted(truth, 2, 3))
        out = run(session, prompt=prompt, max_tokens=24, gamma=gamma, stop=stop, pieces=PIECES)
        assert out["text"].decode() == want[0]
        assert out["token_ids"] == truth[: want[1]]
        assert out["finish_reason"] == "stop"
        assert out["stop_string"] == stop[0]


@given(
    seed=st.integers(0, 99),
    pieces=st.lists(st.text("abcd", max_size=4), min_size=8, max_size=8),
    stop=st.lists(st.text("abcd", min_size=1, max_size=6), min_size=1, max_size=3),
    gamma=st.integers(1, 6),
    right=st.integers(0, 4),
)
@example(1, ["abc", "a", "bca", "b", "", "c", "d", "abcd"], ["abcd", "c"], 4, 2)
@example(1, ["a", "b", "c", "", "d", "ca", "bc", "ab"], ["cab", "bca"], 4, 2)
@settings(max_examples=examples(60))
def test_stop_strings_do_not_depend_on_how_tokens_divide_the_text(
    seed: int, pieces: list[str], stop: list[str], gamma: int, right: int
) -> None:
    target = {**TARGET, "seed": seed}
    truth = plain_greedy(m.Session(target), [1], 30)
    want = reference_stop(pieces, truth, stop) or ("".join(pieces[t] for t in truth), 30)
    for n in (0, gamma):
        session = m.Session(target, scripted(truth, 1, right))
        out = run(session, prompt=[1], max_tokens=30, gamma=n, stop=stop, pieces=pieces)
        assert (out["text"].decode(), out["token_ids"]) == (want[0], truth[: want[1]])
        assert (out["finish_reason"] == "stop") == (out["stop_string"] in stop)


def test_a_partial_stop_string_is_held_back_until_it_is_decided() -> None:
    truth = plain_greedy(m.Session(TARGET), [1, 2], 12)
    full = "".join(PIECES[t] for t in truth)
    # Held to the end: all but the last character of the stop string came.
    stop = [full[6:] + "!"]
    session = m.Session(TARGET, scripted(truth, 2))
    out = run(session, prompt=[1, 2], max_tokens=12, gamma=3, stop=stop, pieces=PIECES)
    assert out["text"].decode() == full
    assert out["finish_reason"] == "length"
    assert [len(c["token_ids"]) for c in out["chunks"]] == [2, 10]
    # What was streamed is never longer than the final text.
    stop = [full[20:30]]
    out = run(session, prompt=[1, 2], max_tokens=12, gamma=3, stop=stop, pieces=PIECES)
    assert out["text"].decode() == full[:20]
    assert out["stats"]["cut"] + out["stats"]["accepted_cut"] > 0


def test_tokens_held_back_by_a_stop_string_are_not_counted_as_accepted() -> None:
    truth = plain_greedy(m.Session(TARGET), [1, 2], 16)
    full = "".join(PIECES[t] for t in truth)
    session = m.Session(TARGET, scripted(truth, 2))
    out = run(session, prompt=[1, 2], max_tokens=16, gamma=3, stop=[full[3:40]], pieces=PIECES)
    assert out["token_ids"] == truth[:1]
    s = out["stats"]
    assert (s["emitted"], s["accepted"], s["accepted_per_position"][0]) == (1, 1, 1)
    assert s["rounds"] == 4
    assert s["cut"] == 4
    assert s["accepted_cut"] == 11


# --- contexts ---


@pytest.mark.parametrize("drafter", range(len(drafters(TARGET))))
def test_every_context_length_from_the_prompt_on(drafter: int) -> None:
    prompt = [1, 2, 3, 1, 2]
    k = 4
    truth = plain_greedy(m.Session({**TARGET, "n_ctx": 99}), prompt, 60)
    for n_ctx in range(1, len(prompt) + 2 * k + 1):
        target = {**TARGET, "n_ctx": n_ctx}
        session = m.Session(target, drafters({**target, "n_ctx": 99})[drafter])
        room = n_ctx - len(prompt)
        if room < 1:
            with pytest.raises(
                m.Error, match=f"context_full: the prompt has 5 tokens and the context {n_ctx}"
            ):
                session.run(prompt=prompt, gamma=k)
            continue
        for limit in (None, room, room + 1, 1000):
            out = run(session, prompt=prompt, gamma=k, max_tokens=limit)
            assert out["token_ids"] == truth[:room]
            assert out["finish_reason"] == "length"
            full = f"the context of {n_ctx} tokens is full"
            assert out["stats"]["note"] == ("" if limit == room else full)


def test_a_draft_model_with_a_shorter_context_stops_drafting_when_it_is_full() -> None:
    prompt = [1, 2, 3, 1, 2]
    truth = plain_greedy(m.Session(TARGET), prompt, 40)
    for n_ctx in range(1, 50):
        session = m.Session(TARGET, {"kind": "model", "toy": {**DRAFT, "n_ctx": n_ctx}})
        out = run(session, prompt=prompt, max_tokens=40, gamma=4)
        assert out["token_ids"] == truth
        assert out["stats"]["speculation"] == "on"
        assert (out["stats"]["rounds"] > 0) == (n_ctx >= len(prompt))
        # As soon as there is room again it drafts again.
        assert run(session, prompt=[7], max_tokens=4, gamma=4)["stats"]["rounds"] > 0


# --- cancel, callbacks, failures ---


@pytest.mark.parametrize("drafter", [1, 6, 9, 11])
def test_cancel_at_every_pass_leaves_a_session_that_goes_on(drafter: int) -> None:
    prompt = [1, 2, 3]
    truth = plain_greedy(m.Session(LOOPING), prompt, 30)
    for at in range(1, 14):
        for code in (None, "cancelled"):  # the flag, or the model itself gives up
            session = m.Session(LOOPING, drafters(LOOPING)[drafter])
            session.inject("target", "cancel" if code is None else "fail", at, code or "resource")
            out = session.run(prompt=prompt, max_tokens=30, gamma=3)
            if out["finish_reason"] == "length":
                break
            check_stats(out)
            if out["rounds"]:
                check_caches(session, prompt, out)
            else:  # the prompt was not read to its end
                assert session.target_cache() in ([], [1, 2])
            n = len(out["token_ids"])
            assert out["finish_reason"] == "cancelled"
            assert out["token_ids"] == truth[:n]
            session.inject("target", "cancel", 0)
            rest = run(session, prompt=prompt + truth[:n], max_tokens=30 - n, gamma=3)
            assert rest["token_ids"] == truth[n:]


def test_cancel_before_the_start_reads_nothing() -> None:
    session = m.Session(TARGET)
    session.set_cancel(True)
    out = session.run(prompt=[1, 2, 3], max_tokens=5)
    assert out["finish_reason"] == "cancelled"
    assert out["token_ids"] == []
    assert session.target_cache() == []


def test_a_long_prompt_is_read_in_pieces_and_cancel_is_seen_between_them() -> None:
    target = {**TARGET, "n_ctx": 4000, "order": 3}
    prompt = [i * i % 7 for i in range(2000)]
    session = m.Session(target, {"kind": "model", "toy": {**target, "seed": 4}})
    out = run(session, prompt=prompt, max_tokens=3, gamma=1)
    assert session.batches("target")[:4] == [512, 512, 512, 463]
    assert out["prompt_progress"] == [
        (0, 1999),
        (512, 1999),
        (1024, 1999),
        (1536, 1999),
        (1999, 1999),
    ]
    assert session.batches("draft")[:4] == [512, 512, 512, 464]
    session.reset()
    session.inject("target", "cancel", 2)
    out = session.run(prompt=prompt, max_tokens=3)
    assert out["finish_reason"] == "cancelled"
    assert session.target_cache() == prompt[:1024]
    session.inject("target", "cancel", 0)
    assert run(session, prompt=prompt, max_tokens=3)["stats"]["reused_prompt_tokens"] == 1024


@pytest.mark.parametrize("n", range(1, 8))
def test_a_callback_that_says_no_keeps_exactly_what_it_was_given(n: int) -> None:
    truth = plain_greedy(m.Session(TARGET), [1, 2], 40)
    session = m.Session(TARGET, scripted(truth, 2, 2))
    stop = ["".join(PIECES[t] for t in truth[3:9])[1:] + "!"]  # some tokens are held back meanwhile
    out = run(
        session,
        prompt=[1, 2],
        max_tokens=40,
        gamma=3,
        stop_after_chunks=n,
        stop=stop,
        pieces=PIECES,
    )
    assert out["finish_reason"] == "cancelled"
    assert len(out["chunks"]) == n
    kept = len(out["token_ids"])
    assert out["token_ids"] == truth[:kept]
    again = run(session, prompt=[1, 2, *truth[:kept]], max_tokens=5)
    assert again["token_ids"] == truth[kept : kept + 5]


def failing_run(session: Any, **options: Any) -> None:
    with pytest.raises((m.Error, ValueError)):
        session.run(**options)


@pytest.mark.parametrize("drafter", [0, 1, 6, 9, 11])
@pytest.mark.parametrize("code", ["internal", "resource", "device"])
def test_a_target_that_fails_at_any_pass_leaves_consistent_caches(drafter: int, code: str) -> None:
    prompt = [1, 2, 3]
    truth = plain_greedy(m.Session(LOOPING), prompt, 30)
    text = prompt + truth
    for at in itertools.count(1):
        session = m.Session(LOOPING, drafters(LOOPING)[drafter])
        session.inject("target", "fail", at, code)
        try:
            session.run(prompt=prompt, max_tokens=30, gamma=3)
        except m.Error as raised:
            error = str(raised)
        else:
            break
        assert error.startswith(code)
        cache, draft = session.target_cache(), session.draft_cache()
        assert cache == text[: len(cache)]
        assert draft == cache[: len(draft)]
        session.inject("target", "fail", 0)
        assert run(session, prompt=prompt, max_tokens=30, gamma=3)["token_ids"] == truth
    assert at > 5


def test_a_draft_model_with_a_bug_raises_and_leaves_consistent_caches() -> None:
    prompt = [1, 2, 3]
    truth = plain_greedy(m.Session(TARGET), prompt, 30)
    for at in range(1, 15):
        session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
        session.inject("draft", "fail", at, "internal")
        with pytest.raises(m.Error, match="internal"):
            session.run(prompt=prompt, max_tokens=30, gamma=3)
        cache, draft = session.target_cache(), session.draft_cache()
        assert cache == (prompt + truth)[: len(cache)]
        assert len(cache) >= 2
        assert draft == cache[: len(draft)]
        session.inject("draft", "fail", 0)
        assert run(session, prompt=prompt, max_tokens=30, gamma=3)["token_ids"] == truth


def test_a_callback_that_raises_leaves_consistent_caches() -> None:
    prompt = [1, 2, 3]
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    truth = plain_greedy(session, prompt, 30)
    for at in range(1, 10):
        with pytest.raises(ValueError, match="raised in the callback"):
            session.run(prompt=prompt, max_tokens=30, gamma=3, raise_at_chunk=at)
        cache, draft = session.target_cache(), session.draft_cache()
        assert cache == (prompt + truth)[: len(cache)]
        assert draft == cache[: len(draft)]
        assert run(session, prompt=prompt, max_tokens=30, gamma=3)["token_ids"] == truth


def test_drafts_that_break_the_contract_are_refused_and_leave_consistent_caches() -> None:
    for bad in ([1, 2, 3, 4, 5], [8], [-1], ([1, 2], [-1, 1]), ([1, 2], [-1]), ([1], [-2])):
        session = m.Session(
            TARGET, {"kind": "python", "propose": lambda committed, n, bad=bad: bad}
        )
        failing_run(session, prompt=[1, 2, 3], max_tokens=9, gamma=4)
        assert session.target_cache() == [1, 2]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_a_numerical_error(temperature: float) -> None:
    for at in range(2, 6):
        session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
        session.inject("target", "nan", at)
        with pytest.raises(m.Error, match="numerical"):
            session.run(
                prompt=[1, 2], max_tokens=30, gamma=3, sampling={"temperature": temperature}
            )
        session.inject("target", "nan", 0)
        want = plain_greedy(session, [1, 2], 10)
        assert run(session, prompt=[1, 2], max_tokens=10)["token_ids"] == want


# --- prefix reuse ---


@pytest.mark.parametrize("kind", [None, "model", "eagle", "mtp", "ngram"])
def test_a_prompt_with_a_known_prefix_is_only_read_from_where_it_differs(kind: str | None) -> None:
    drafter = next(d for d in drafters(TARGET) if (d and d["kind"]) == kind)
    session = m.Session(TARGET, drafter)
    # A head wants what the target says at the last row that stays: its own row went with the next
    # token.
    again = 1 if kind in ("eagle", "mtp") else 0
    first = run(session, prompt=[1, 2, 3, 4], max_tokens=10, gamma=3)
    text = [1, 2, 3, 4, *first["token_ids"]]
    for prompt, reused in [
        ([*text, 5, 6], len(text) - 1),
        ([1, 2, 3, 4], 3),
        ([1, 2, 7, 7, 7], 2 - again),
        ([1, 2, 7, 7, 7], 4),
        ([5], 0),
        ([5, 5], 1 - again),
    ]:
        session.batches("target")
        out = run(session, prompt=prompt, max_tokens=6, gamma=3)
        assert out["stats"]["reused_prompt_tokens"] == reused
        assert out["token_ids"] == plain_greedy(session, prompt, 6)
        if len(prompt) - 1 - reused > 0:
            assert session.batches("target")[0] == len(prompt) - 1 - reused
    session.reset()
    assert session.target_cache() == []
    assert session.draft_cache() == []
    assert run(session, prompt=[5, 5], max_tokens=2)["stats"]["reused_prompt_tokens"] == 0


TURNS = st.tuples(
    st.integers(0, 99),  # so many tokens of the text before stay
    st.lists(st.integers(0, 3), max_size=4),
    st.sampled_from(["", "", "cancel", "fail", "nan"]),
    st.sampled_from(["target", "draft"]),
    st.integers(1, 8),
    st.integers(0, 5),
    st.sampled_from([0.0, 1.0]),
)


@given(drafter=st.sampled_from(drafters(LOOPING)), turns=st.lists(TURNS, min_size=1, max_size=8))
@settings(max_examples=examples(50))
def test_conversations_equal_fresh_sessions(drafter: dict[str, Any], turns: list[Any]) -> None:
    """Any sequence of requests, failures and cancels leaves no trace in the next one."""
    session = m.Session(LOOPING, drafter)
    fresh = m.Session(LOOPING)
    text = [1]
    for n_kept, new, kind, where, at, gamma, temperature in turns:
        text = [*text[: max(n_kept, 1)], *new][:90]
        who = where if drafter is not None and "toy" in drafter else "target"
        session.inject(who, kind, at if kind else 0, "device")
        options = {
            "prompt": text,
            "max_tokens": 20,
            "gamma": gamma,
            "sampling": {"temperature": temperature, "seed": 5},
        }
        try:
            out = session.run(**options)
        except m.Error:
            session.inject(who, "fail", 0)
            continue
        session.inject(who, "fail", 0)
        check_stats(out)
        if out["finish_reason"] == "length":
            check_caches(session, text, out)
        fresh.reset()
        plain = fresh.run(**{**options, "gamma": 0})
        n = len(out["token_ids"])
        assert out["token_ids"] == plain["token_ids"][:n]
        text = [*text, *out["token_ids"]]
