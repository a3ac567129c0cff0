"""What drafters propose, and how little they compute for it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_decode import DRAFT, LOOPING, TARGET, plain_greedy, run

from decode_reference import NGramReference
from helpers import examples, native

m = native("decode")


# --- n-gram ---


@given(
    n=st.sampled_from([1, 2, 4, 6]),
    min_count=st.sampled_from([1, 2]),
    filler=st.sampled_from([1, 3]),
    vocab=st.sampled_from([2, 4, 12]),
    text=st.lists(st.integers(0, 11), min_size=1, max_size=30),
    rounds=st.lists(
        st.tuples(
            st.lists(
                st.tuples(st.integers(0, 11), st.permutations(range(12))), min_size=1, max_size=4
            ),
            st.integers(1, 11),
        ),
        max_size=15,
    ),
)
@settings(max_examples=examples(25))
def test_ngram_equals_the_slow_reference(
    n: int,
    min_count: int,
    filler: int,
    vocab: int,
    text: list[int],
    rounds: list[tuple[list[tuple[int, list[int]]], int]],
) -> None:
    session = m.Session(
        {"vocab_size": vocab},
        {"kind": "ngram", "n": n, "min_count": min_count, "filler_top_k": filler},
    )
    reference = NGramReference(n, min_count)
    text = [token % vocab for token in text]
    session.begin(text)
    reference.begin(text)
    for new, limit in rounds:
        assert session.propose(text, limit) == reference.propose(text, limit)
        top = []
        for token, order in new:
            if filler > 1:
                best = [t for t in order if t < vocab][:filler]
                top.append(best)
                for other in reversed(best):
                    reference.count(text, other)
            reference.count(text, token % vocab)
            text.append(token % vocab)
        session.commit(text, len(new), top)


def test_ngram_takes_the_longest_match_first_and_the_most_recent_on_ties() -> None:
    session = m.Session({"vocab_size": 10}, {"kind": "ngram", "n": 2})
    session.begin([1, 2, 3, 9, 2, 4, 9, 2, 4, 1, 2])  # after (1, 2): 3; after 2 alone: mostly 4
    assert session.propose([1, 2], 1) == [3]
    assert session.propose([5, 2], 1) == [4]
    session.begin([1, 2, 1, 3, 1])  # a tie between 2 and 3
    assert session.propose([1], 1) == [3]
    assert session.propose([7], 3) == []  # nothing known: no draft


def test_ngram_stops_after_an_end_of_sequence_token_and_at_the_limit() -> None:
    session = m.Session({"vocab_size": 10}, {"kind": "ngram"})
    cycle = [1, 2, 3, 4] * 5
    session.begin(cycle, [3])
    assert session.propose(cycle, 7) == [1, 2, 3]
    session.begin(cycle)
    assert session.propose(cycle, 64) == [1, 2, 3, 4] * 16
    assert session.propose(cycle, 2) == [1, 2]


def test_ngram_forgets_between_requests_unless_asked_to_keep() -> None:
    for keep, want in ((False, []), (True, [2])):
        session = m.Session({"vocab_size": 10}, {"kind": "ngram", "keep_store": keep})
        session.begin([1, 2, 3])
        session.begin([5, 1])
        assert session.propose([5, 1], 1) == want
        session.reset()  # the decoder's reset forgets in any case
        session.begin([5, 1])
        assert session.propose([5, 1], 1) == []


def test_filler_counts_come_from_the_target() -> None:
    target = {"vocab_size": 6, "seed": 4, "order": 1, "n_ctx": 128}
    plain = m.Session(target, {"kind": "ngram", "n": 1})
    filled = m.Session(target, {"kind": "ngram", "n": 1, "filler_top_k": 3})
    outs = [
        run(s, prompt=[0], max_tokens=60, gamma=4, sampling={"temperature": 2.0, "seed": 1})
        for s in (plain, filled)
    ]
    assert outs[0]["token_ids"] == outs[1]["token_ids"]
    assert outs[1]["stats"]["drafted"] != outs[0]["stats"]["drafted"]


@pytest.mark.parametrize(
    ("option", "bad"),
    [("n", 0), ("n", 17), ("filler_top_k", 0), ("min_count", 0)],
)
def test_ngram_options_are_named_with_their_range(option: str, bad: int) -> None:
    with pytest.raises(m.Error, match=f"invalid_argument: ngram {option} must be in"):
        m.Session(TARGET, {"kind": "ngram", option: bad})


# --- draft model ---


def model_session(target: dict[str, Any] = TARGET, **options: Any) -> Any:
    return m.Session(
        target, {"kind": "model", "toy": {**DRAFT, **options.pop("toy", {})}, **options}
    )


def test_a_draft_model_lacks_one_token_after_a_rejection_and_two_after_full_acceptance() -> None:
    session = model_session(toy={"seed": 1, "mix": 0.0})  # equal models: all accepted
    run(session, prompt=[1, 2, 3], max_tokens=16, gamma=3)
    assert session.batches("draft") == [3, 1, 1] + [2, 1, 1] * 3
    assert session.batches("target") == [2] + [4] * 4

    session = model_session(toy={"mix": 0.0})  # strangers: mostly rejected
    out = run(session, prompt=[1, 2, 3], max_tokens=40, gamma=3)
    batches = session.batches("draft")
    at = 0
    for i, (drafted, _accepted, _) in enumerate(out["rounds"]):
        if not drafted:
            continue
        full_before = i > 0 and len(out["rounds"][i - 1][1]) == len(out["rounds"][i - 1][0])
        assert batches[at] == (3 if i == 0 else 2 if full_before else 1)
        assert batches[at + 1 : at + len(drafted)] == [1] * (len(drafted) - 1)
        at += len(drafted)
    assert at == len(batches)
    assert any(not accepted for _, accepted, _ in out["rounds"])


def test_a_draft_model_reads_a_shared_prompt_prefix_once() -> None:
    session = model_session()
    out = run(session, prompt=[1, 2, 3, 4, 5], max_tokens=8, gamma=2)
    text = [1, 2, 3, 4, 5, *out["token_ids"]]
    known = len(session.draft_cache())
    session.batches("draft")
    run(session, prompt=[*text, 6, 6], max_tokens=4, gamma=2)
    assert session.batches("draft")[0] == len(text) + 2 - known
    run(session, prompt=[1, 2, 3, 7], max_tokens=4, gamma=2, speculate=False)
    assert session.draft_cache() == [1, 2, 3]  # in line with the target although it rests
    session.batches("draft")
    run(session, prompt=[1, 2, 3, 7, 7], max_tokens=4, gamma=2)
    assert session.batches("draft")[0] == 2


def test_greedy_drafts_are_the_draft_models_own_greedy_text() -> None:
    session = model_session(mode="greedy")
    text = [1, 2]
    out = run(session, prompt=text, max_tokens=30, gamma=4)
    for drafted, accepted, token in out["rounds"]:
        path = list(text)
        for want in drafted:
            assert want == int(np.argmax(session.logits("draft", path)))
            path.append(want)
        text = [*text, *[drafted[i] for i in accepted], token]


def test_greedy_drafts_stay_greedy_when_the_target_samples() -> None:
    session = model_session(mode="greedy")
    out = run(
        session, prompt=[1, 2], max_tokens=30, gamma=4, sampling={"temperature": 1.0, "seed": 3}
    )
    drafted, _accepted, _ = out["rounds"][0]
    path = [1, 2]
    for want in drafted:
        assert want == int(np.argmax(session.logits("draft", path)))
        path.append(want)


def test_coupled_drafts_use_the_targets_noise() -> None:
    session = model_session(mode="coupled")
    out = run(
        session, prompt=[1, 2], max_tokens=6, gamma=4, sampling={"temperature": 1.0, "seed": 9}
    )
    path = [1, 2]
    for token in out["rounds"][0][0]:
        scores = [
            x + m.gumbel_noise(9, len(path), i) for i, x in enumerate(session.logits("draft", path))
        ]
        assert token == int(np.argmax(scores))
        path.append(token)


def test_coupled_drafts_are_chosen_from_the_best_tokens_of_a_row() -> None:
    """Which is enough to guess what the noise picks, and spares a pass over the vocabulary."""
    draft = {"vocab_size": 4500, "seed": 3, "n_ctx": 128, "scale": 9.0}
    session = m.Session({**draft, "seed": 4}, {"kind": "model", "toy": draft, "mode": "coupled"})
    out = run(
        session, prompt=[1, 2], max_tokens=24, gamma=4, sampling={"temperature": 1.5, "seed": 9}
    )
    path, n_drafted, outside = [1, 2], 0, 0
    for drafted, accepted, next_token in out["rounds"]:
        ahead = list(path)
        for token in drafted:
            logits = np.asarray(session.logits("draft", ahead))
            scores = logits / 1.5 + [m.gumbel_noise(9, len(ahead), i) for i in range(4500)]
            best = np.argsort(-logits, kind="stable")[:32]
            outside += int(np.argmax(scores)) not in best
            assert token == best[np.argmax(scores[best])]
            ahead.append(token)
            n_drafted += 1
        path += [drafted[i] for i in accepted] + [next_token]
    assert n_drafted > 20
    assert outside > 0  # or the test could not fail


def test_sampled_drafts_are_not_repeated_after_a_rejection() -> None:
    """The draft's draws are keyed by round: a position drafted again is drawn anew."""
    same = total = 0
    for seed in range(60):
        session = m.Session(
            {**TARGET, "order": 1},
            {"kind": "model", "toy": {**TARGET, "seed": 9, "order": 1}, "mode": "sampled"},
        )
        out = session.run(
            prompt=[1, 2],
            max_tokens=20,
            gamma=3,
            verifier="standard",
            sampling={"temperature": 3.0, "seed": seed},
        )
        at = [0]
        for _, accepted, _ in out["rounds"]:
            at.append(at[-1] + len(accepted) + 1)
        drafts: dict[int, list[int]] = {}
        for start, (drafted, _, _) in zip(at, out["rounds"], strict=False):
            for i, token in enumerate(drafted):
                drafts.setdefault(start + i, []).append(token)
        for tokens in drafts.values():
            total += len(tokens) - 1
            same += sum(a == b for a, b in itertools.pairwise(tokens))
    assert total > 200
    assert same < 0.5 * total


def test_tokens_that_were_drawn_stand_although_the_model_fails_behind_them() -> None:
    """Dropped, those behind which it fails would be emitted too seldom."""
    for what in ("fail", "nan"):
        for mode, kept in (("sampled", 2), ("greedy", 0)):
            session = m.Session(TARGET, {"kind": "model", "toy": DRAFT, "mode": mode})
            session.inject("draft", what, 3)
            out = session.run(
                prompt=[1, 2],
                max_tokens=20,
                gamma=5,
                verifier="standard",
                sampling={"temperature": 1.0, "seed": 1, "top_p": 0.999},
            )
            assert [len(drafted) for drafted, _, _ in out["rounds"]][:2] == [kept, 0]
            assert out["stats"]["speculation"].startswith("off: the drafter failed")


def test_a_draft_ends_with_an_end_of_sequence_token() -> None:
    equal = {**TARGET, "mix": 0.0}
    truth = plain_greedy(m.Session(TARGET), [1, 2], 20)
    session = m.Session(TARGET, {"kind": "model", "toy": equal})
    out = run(session, prompt=[1, 2], max_tokens=20, gamma=8, eog=[truth[3]])
    first = truth.index(truth[3])
    assert out["rounds"][0][0] == truth[: first + 1]
    assert out["token_ids"] == truth[:first]


def test_a_padded_draft_vocabulary_never_leaves_the_targets() -> None:
    for mode in ("greedy", "coupled", "sampled"):
        session = m.Session(
            TARGET,
            {"kind": "model", "toy": {"vocab_size": 40, "seed": 3, "n_ctx": 128}, "mode": mode},
        )
        for temperature in (0.0, 1.0):
            out = run(
                session, prompt=[1], max_tokens=40, gamma=5, sampling={"temperature": temperature}
            )
            assert all(t < 8 for drafted, _, _ in out["rounds"] for t in drafted)
            assert out["stats"]["speculation"] == "on"


def test_a_smaller_draft_vocabulary_ends_speculation_only_when_it_matters() -> None:
    want = plain_greedy(m.Session(TARGET), [1], 30)
    session = m.Session(
        TARGET, {"kind": "model", "toy": {"vocab_size": 5, "seed": 3, "n_ctx": 128}}
    )
    out = run(session, prompt=[1], max_tokens=30, gamma=3)
    assert out["token_ids"] == want
    assert max(want) >= 5
    assert "the draft model has no token" in out["stats"]["speculation"]


def test_draft_min_refuses_short_drafts_before_they_are_drawn() -> None:
    session = model_session()
    out = run(session, prompt=[1, 2], max_tokens=20, gamma=4, draft_min=3)
    assert {len(drafted) for drafted, _, _ in out["rounds"]} <= {0, 3, 4}
    session = m.Session(LOOPING, {"kind": "ngram"})
    out = run(session, prompt=[1, 2, 3, 1, 2], max_tokens=40, draft_min=5)
    assert {len(drafted) for drafted, _, _ in out["rounds"]} <= {0, 5, 6, 7}


def test_drafters_are_made_by_name() -> None:
    with pytest.raises(m.Error, match=r"drafter must be one of model, ngram, .*; got 'suffiks'"):
        m.Session(TARGET, {"kind": "suffiks"})
    with pytest.raises(m.Error, match="drafter 'model' needs a draft model"):
        m.Session(TARGET, {"kind": "model"})
    with pytest.raises(m.Error, match="temperature must be"):
        model_session(temperature=-1.0)


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0, "top_k": 4, "noise_scale": 0.7, "seed": 2},
        {"temperature": 1.0, "repetition_penalty": 1.6, "frequency_penalty": 0.5, "seed": 2},
        {"temperature": 0.0, "presence_penalty": 2.0, "logit_bias": [(3, 1.0)]},
    ],
    ids=lambda p: ",".join(p),
)
@pytest.mark.parametrize("verifier", ["auto", "standard"])
def test_equal_models_agree_on_every_token_under_every_warp(
    sampling: dict[str, Any], verifier: str
) -> None:
    session = m.Session(TARGET, {"kind": "model", "toy": TARGET})
    out = run(session, prompt=[1, 2], max_tokens=40, gamma=4, sampling=sampling, verifier=verifier)
    assert out["stats"]["acceptance_rate"] == 1.0
