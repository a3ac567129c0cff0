"""Watching rounds, and checking the output against plain decoding: Python and the program."""

from __future__ import annotations

import json
import pathlib
import subprocess

import pytest

import tiny_models
from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat the cat in the hat the cat in the "


def drafters(tiny, tiny_draft):
    return [None, sd.NGram(), sd.DraftModel(tiny_draft), sd.DraftModel(tiny, gamma=3), "auto"]


# ---------------------------------------------------------------- rounds


@pytest.mark.parametrize("which", range(5))
def test_rounds_add_up_to_the_output_and_the_statistics(tiny, tiny_draft, which):
    rounds = []
    with sd.Decoder(tiny, drafter=drafters(tiny, tiny_draft)[which]) as decoder:
        result = decoder.generate(PROMPT, max_tokens=40, ignore_eos=True, on_round=rounds.append)
    assert [r.index for r in rounds] == list(range(len(rounds)))
    assert tuple(t for r in rounds for t in r.token_ids) == result.token_ids
    speculative = [r for r in rounds if r.drafted]
    assert len(speculative) == result.stats.rounds
    assert len(rounds) - len(speculative) == result.stats.plain_steps
    assert sum(len(r.drafted) for r in rounds) == result.stats.drafted
    assert sum(len(r.accepted) for r in rounds) == result.stats.accepted
    for r in rounds:
        assert r.reason
        assert (r.source == "") == (r.outcome == "plain") == (not r.drafted)
        if r.drafted and not r.parents:
            assert r.accepted == tuple(range(len(r.accepted)))
            assert (r.outcome == "bonus") == (len(r.accepted) == len(r.drafted))


def test_a_perfect_draft_ends_in_the_bonus_token(tiny):
    rounds = []
    with sd.Decoder(tiny, drafter=sd.DraftModel(tiny, gamma=3)) as decoder:
        decoder.generate(PROMPT, max_tokens=12, ignore_eos=True, on_round=rounds.append)
    assert [(r.outcome, r.source, len(r.drafted)) for r in rounds] == [("bonus", "model", 3)] * 3


def test_an_exception_of_on_round_ends_the_call_and_passes_through(tiny):
    def stop(_round):
        raise ZeroDivisionError("enough")

    with sd.Decoder(tiny) as decoder:
        with pytest.raises(ZeroDivisionError, match="enough"):
            decoder.generate(PROMPT, max_tokens=4, on_round=stop)
        assert decoder.generate(PROMPT, max_tokens=2, ignore_eos=True).stats.emitted == 2


def test_streams_tell_rounds_too(tiny):
    rounds = []
    with sd.Decoder(tiny, drafter=sd.NGram()) as decoder:
        with decoder.stream(PROMPT, max_tokens=9, ignore_eos=True, on_round=rounds.append) as out:
            tokens = [t for chunk in out for t in chunk.token_ids]
    assert [t for r in rounds for t in r.token_ids][:9] == tokens


# ---------------------------------------------------------------- checking


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_every_drafter_passes_the_check(tiny, tiny_draft, which, temperature):
    with sd.Decoder(tiny, drafter=drafters(tiny, tiny_draft)[which]) as decoder:
        result = decoder.generate(
            PROMPT, max_tokens=30, temperature=temperature, top_k=20, seed=3, verify_output=True
        )
        assert result.check is not None
        assert result.check.identical
        assert result.check.plain_token_ids == result.token_ids
        assert (result.check.difference, result.check.first_difference) == ("", None)
        # Plain, and without help from what the decoder's cache holds.
        assert result.check.plain_stats.drafted == 0
        assert result.check.plain_stats.reused_prompt_tokens == 0


def test_chats_can_be_checked_and_nothing_is_checked_unasked(tiny):
    with sd.Decoder(tiny, drafter=sd.NGram()) as decoder:
        messages = [{"role": "user", "content": PROMPT}]
        assert decoder.chat(messages, max_tokens=8, verify_output=True).check.identical
        assert decoder.chat(messages, max_tokens=8).check is None


def test_stop_strings_end_the_plain_text_at_the_same_place(tiny):
    with sd.Decoder(tiny, drafter=sd.NGram()) as decoder:
        text = decoder.generate(PROMPT, max_tokens=40, ignore_eos=True).text
        stop = next(c for c in text[3:] if c not in ("\ufffd", *text[:3]))
        result = decoder.generate(PROMPT, max_tokens=40, stop=stop, verify_output=True)
        assert result.finish_reason == "stop"
        assert result.check.identical


@pytest.mark.parametrize("verifier", ["standard"])
def test_what_keeps_only_the_distribution_cannot_be_checked(tiny, verifier):
    with sd.Decoder(tiny, drafter=sd.NGram(), verifier=verifier) as decoder:
        with pytest.raises(sd.InvalidArgumentError, match="match"):
            decoder.generate(PROMPT, temperature=0.8, verify_output=True)
        assert decoder.generate(PROMPT, max_tokens=8, verify_output=True).check.identical


def test_a_call_that_is_cancelled_is_not_checked(tiny):
    with sd.Decoder(tiny) as decoder:
        result = decoder.generate(PROMPT, on_token=lambda _: False, verify_output=True)
    assert (result.finish_reason, result.check) == ("cancelled", None)


def test_a_difference_is_found_and_located(tiny):
    from specdec_native import _core
    from specdec_native._convert import to_check

    with sd.Decoder(tiny) as decoder:
        request = _core.GenerateRequest()
        request.set_prompt(PROMPT.encode())
        request.max_tokens = 6
        request.ignore_eos = True
        request.sampling.seed = 1

        def run(**changes):
            for name, value in changes.items():
                setattr(request, name, value)
            return decoder._native.generate(
                request, on_chunk=None, on_progress=None, on_round=None,
                cancel=_core.CancelFlag(), poll_signals=False,
            )  # fmt: skip

        def check(result):
            return to_check(
                decoder._native.check_output(
                    request, result, cancel=_core.CancelFlag(), poll_signals=False
                )
            )

        whole = run()
        assert check(whole).identical
        short = run(max_tokens=4)
        request.max_tokens = 6
        found = check(short)
        assert not found.identical
        assert found.first_difference == 4
        assert "position 4 is the end, plain decoding has token" in found.difference
        banned = _core.SamplingParams()
        banned.logit_bias = [(whole.token_ids[2], -100.0)]
        other = run(sampling=banned)
        request.sampling = _core.SamplingParams()
        request.sampling.temperature = 0
        found = check(other)
        assert found.first_difference == next(
            i for i, t in enumerate(other.token_ids) if t != whole.token_ids[i]
        )
        assert found.plain_token_ids == tuple(whole.token_ids)
        flag = _core.CancelFlag()
        flag.set()
        native = decoder._native.check_output(request, whole, cancel=flag, poll_signals=False)
        assert native.cancelled
        assert not native.identical


def test_a_difference_raises_with_the_result(tiny, monkeypatch):
    from specdec_native import _core

    monkeypatch.setattr(_core.OutputCheck, "identical", False)
    with sd.Decoder(tiny) as decoder:
        with pytest.raises(sd.OutputMismatchError, match="plain decoding") as caught:
            decoder.generate(PROMPT, max_tokens=3, verify_output=True)
    assert caught.value.result.check is not None
    assert caught.value.code == "output_mismatch"


# ---------------------------------------------------------------- the program


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    return tiny_models.write_tiny(tmp_path_factory.mktemp("trace") / "tiny.gguf", seed=1)


def specdec(model, *arguments, code=0):
    done = subprocess.run(
        [specdec_binary(), "generate", "-m", model, "-p", PROMPT, "-n", "20", *arguments],
        capture_output=True, encoding="utf-8", errors="replace", timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def test_trace_tells_every_round_on_stderr(model):
    # Named, because `auto` need not draft on a machine that is busy.
    done = specdec(model, "--drafter", "ngram", "--trace", "--json", "--ignore-eos")
    stats = json.loads(done.stdout)["stats"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("specdec: round ")]
    assert len(lines) == stats["rounds"] + stats["plain_steps"]
    assert sum(": plain, " in line for line in lines) == stats["plain_steps"]
    assert sum(" drafted " in line for line in lines) == stats["rounds"]
    assert stats["rounds"] > 0
    assert "specdec: round " not in specdec(model, "--json").stderr


def test_check_says_how_many_tokens_are_identical(model):
    done = specdec(model, "--check", "--ignore-eos")
    assert "specdec: checked: identical to plain decoding, 20 tokens" in done.stderr
    result = json.loads(specdec(model, "--check", "--json", "--temp", "0.8", "-s", "4").stdout)
    assert result["check"]["identical"] is True
    assert result["check"]["plain_token_ids"] == result["token_ids"]
    assert result["check"]["plain_stats"]["drafted"] == 0


def test_what_cannot_be_checked_is_refused_before_anything_runs(model):
    done = specdec(model, "--check", "--temp", "0.8", "--verify", "standard", code=2)
    assert "match" in done.stderr
    assert done.stdout == ""
