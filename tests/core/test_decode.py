"""The whole decoding loop on toy models whose logits depend on every token of the path."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_reference import chi_square_z, sequence_law, total_variation
from helpers import examples, native

m = native("decode")

TARGET = {"vocab_size": 8, "seed": 1, "n_ctx": 128}
DRAFT = {"vocab_size": 8, "seed": 2, "n_ctx": 128, "mix_seed": 1, "mix": 0.8}
# A text that repeats, so that n-grams match: short memory, few tokens.
LOOPING = {"vocab_size": 4, "seed": 3, "n_ctx": 128, "order": 2, "scale": 6.0}


def drafters(target: dict[str, Any]) -> list[dict[str, Any] | None]:
    toy = {**target, "seed": 77, "mix_seed": target["seed"], "mix": 0.8}
    return [
        None,
        {"kind": "model", "toy": toy},
        {"kind": "model", "toy": toy, "mode": "greedy"},
        {"kind": "model", "toy": toy, "mode": "sampled", "temperature": 1.5},
        {"kind": "model", "toy": {**toy, "mix": 0.0}},
        {"kind": "model", "toy": target},
        {"kind": "eagle", "toy": toy},
        {"kind": "eagle", "toy": toy, "mode": "sampled", "temperature": 1.5},
        {"kind": "eagle", "toy": {**toy, "mix": 0.0}, "known": [0, 2, 3]},
        {"kind": "mtp", "toy": toy},
        {"kind": "mtp", "toy": toy, "mode": "sampled", "head_tokens": 3},
        {"kind": "ngram"},
        {"kind": "ngram", "n": 1, "filler_top_k": 3},
        {"kind": "python", "propose": lambda committed, n: [0] * n},
    ]


def check_stats(out: dict[str, Any]) -> None:
    s = out["stats"]
    n = len(out["token_ids"])
    assert s["emitted"] == n == len(out["from_draft"])
    assert s["emitted"] == s["accepted"] + s["rounds"] + s["plain_steps"] - s["cut"]
    assert s["accepted"] == sum(out["from_draft"]) == sum(s["accepted_per_position"])
    assert s["drafted"] == sum(s["drafted_per_position"])
    assert sum(s["accepted_histogram"]) == s["rounds"]
    assert sum(i * k for i, k in enumerate(s["accepted_histogram"])) == s["accepted"]
    assert len(out["rounds"]) == s["rounds"] + s["plain_steps"]
    assert sum(len(r[0]) for r in out["rounds"]) == s["drafted"]
    assert sum(len(r[1]) for r in out["rounds"]) == s["accepted"] + s["accepted_cut"]
    assert s["accepted"] + s["accepted_cut"] <= s["drafted"]
    assert all(
        a <= d for a, d in zip(s["accepted_per_position"], s["drafted_per_position"], strict=True)
    )
    assert s["accepted_per_position"] == sorted(s["accepted_per_position"], reverse=True)
    rate, length = s["acceptance_rate"], s["mean_acceptance_length"]
    assert rate == (s["accepted"] / s["drafted"] if s["drafted"] else None)
    assert length == (1 + s["accepted"] / s["rounds"] if s["rounds"] else None)
    assert s["decode_ms"] == s["total_ms"] - s["prompt_ms"]
    assert min(s[k] for k in s if k.endswith("_ms")) >= 0
    assert s["draft_ms"] + s["verify_ms"] + s["sample_ms"] <= s["decode_ms"]
    chunks = out["chunks"]
    assert [t for c in chunks for t in c["token_ids"]] == out["token_ids"]
    assert [f for c in chunks for f in c["from_draft"]] == out["from_draft"]
    assert b"".join(c["text"] for c in chunks) == out["text"]


def check_caches(session: Any, prompt: list[int], out: dict[str, Any]) -> None:
    committed = prompt + out["token_ids"]
    assert session.target_cache() == committed[:-1]
    draft = session.draft_cache()
    assert draft == committed[:-1][: len(draft)]


def run(session: Any, **options: Any) -> dict[str, Any]:
    out = session.run(**options)
    check_stats(out)
    check_caches(session, options["prompt"], out)
    return out


def plain_greedy(session: Any, prompt: list[int], n: int) -> list[int]:
    text = list(prompt)
    for _ in range(n):
        text.append(int(np.argmax(session.logits("target", text))))
    return text[len(prompt) :]


@pytest.mark.parametrize("drafter", range(len(drafters(TARGET))))
@pytest.mark.parametrize("target", [TARGET, LOOPING, {**TARGET, "levels": 2}])
def test_greedy_text_is_the_plain_text_for_every_drafter_and_length(
    target: dict[str, Any], drafter: int
) -> None:
    session = m.Session(target, drafters(target)[drafter])
    for prompt in ([1], [3, 2, 1, 0, 3, 2, 1]):
        want = plain_greedy(session, prompt, 40)
        for verifier in ("auto", "match", "standard"):
            for gamma in (0, 1, 2, 3, 5, 8):
                out = run(session, prompt=prompt, max_tokens=40, gamma=gamma, verifier=verifier)
                assert out["token_ids"] == want
                assert out["finish_reason"] == "length"


def test_greedy_drafts_are_really_used() -> None:
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    s = run(session, prompt=[1, 2], max_tokens=100, gamma=3)["stats"]
    assert 0 < s["accepted"] < s["drafted"]
    session = m.Session(LOOPING, {"kind": "ngram"})
    assert run(session, prompt=[1, 2], max_tokens=100)["stats"]["accepted"] > 20


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.6, "top_k": 3},
        {"temperature": 0.8, "top_p": 0.8, "repetition_penalty": 1.3, "penalty_last_n": 5},
        {"temperature": 1.0, "top_k": 4, "noise_scale": 0.7},
    ],
    ids=lambda p: ",".join(p),
)
@pytest.mark.parametrize("target", [TARGET, LOOPING])
def test_match_gives_one_text_per_seed_for_every_drafter_and_length(
    target: dict[str, Any], sampling: dict[str, Any]
) -> None:
    texts = set()
    for seed in range(6):
        params = {**sampling, "seed": seed}
        found = set()
        for drafter in drafters(target):
            session = m.Session(target, drafter)
            for gamma in (0, 1, 4, 7):
                out = run(session, prompt=[1, 2, 3], max_tokens=30, gamma=gamma, sampling=params)
                found.add(tuple(out["token_ids"]))
        assert len(found) == 1
        texts |= found
    assert len(texts) > 2  # and the seed matters


def test_match_equals_the_noise_field_applied_to_the_plain_law() -> None:
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    out = run(session, prompt=[5, 1], max_tokens=50, sampling={"temperature": 0.9, "seed": 4})
    text = [5, 1]
    for token in out["token_ids"]:
        scores = [
            x / 0.9 + m.gumbel_noise(4, len(text), i)
            for i, x in enumerate(session.logits("target", text))
        ]
        assert token == int(np.argmax(scores))
        text.append(token)


def test_coupled_drafts_are_accepted_more_often_than_independent_ones() -> None:
    accepted = {}
    for mode in ("coupled", "sampled"):
        session = m.Session(TARGET, {"kind": "model", "toy": DRAFT, "mode": mode})
        accepted[mode] = sum(
            run(
                session,
                prompt=[1],
                max_tokens=100,
                gamma=3,
                sampling={"temperature": 1.0, "seed": s},
            )["stats"]["accepted"]
            for s in range(5)
        )
    assert accepted["coupled"] > 1.2 * accepted["sampled"]


def test_coupled_drafts_need_the_matching_verifier() -> None:
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT, "mode": "coupled"})
    with pytest.raises(m.Error, match="coupled drafts need"):
        session.run(prompt=[1], max_tokens=5, verifier="standard", sampling={"temperature": 1.0})


# --- exact laws through the whole loop ---

SMALL = {"vocab_size": 3, "seed": 5, "n_ctx": 32, "scale": 1.5}
SMALL_DRAFT = {**SMALL, "seed": 6}
LAWS = [
    ("match", {"kind": "model", "toy": SMALL_DRAFT, "mode": "sampled"}),
    ("match", {"kind": "model", "toy": SMALL_DRAFT, "mode": "greedy"}),
    ("match", {"kind": "ngram", "n": 2}),
    ("standard", {"kind": "model", "toy": SMALL_DRAFT}),
    ("standard", {"kind": "model", "toy": SMALL_DRAFT, "temperature": 0.5, "top_k": 2}),
    ("standard", {"kind": "model", "toy": SMALL_DRAFT, "mode": "greedy"}),
    ("standard", {"kind": "ngram", "n": 2}),
    ("standard", {"kind": "python", "propose": lambda committed, n: [1] * n}),
    ("standard", None),
    ("match", None),
]


@pytest.mark.parametrize(("verifier", "drafter"), LAWS)
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 0.8, "top_k": 2, "noise_scale": 0.5},
        {
            "temperature": 1.2,
            "repetition_penalty": 1.5,
            "frequency_penalty": 0.4,
            "logit_bias": [(0, 0.5)],
        },
    ],
    ids=["plain", "two-stage", "penalties"],
)
@pytest.mark.parametrize("gamma", [1, 2, 3])
def test_the_loop_follows_the_target_law_exactly(
    verifier: str, drafter: dict[str, Any] | None, sampling: dict[str, Any], gamma: int
) -> None:
    session = m.Session(SMALL, drafter)
    prompt = [0, 2, 0, 2, 0]
    law = {
        tuple(k): p
        for k, p in session.law(
            prompt=prompt, max_tokens=4, gamma=gamma, verifier=verifier, sampling=sampling
        )
    }
    if "noise_scale" in sampling:  # the noise is a fixed field of the position
        want = two_stage_law(session, prompt, 4, sampling)
    else:
        want = sequence_law(lambda p: session.logits("target", p), prompt, 4, sampling)
    assert abs(sum(law.values()) - 1) < 1e-12
    assert total_variation(law, want) < 1e-12


def two_stage_law(
    session: Any, prompt: list[int], length: int, sampling: dict[str, Any]
) -> dict[tuple[int, ...], float]:
    law = {(): 1.0}
    for _ in range(length):
        longer: dict[tuple[int, ...], float] = {}
        for done, p in law.items():
            text = [*prompt, *done]
            tokens, probs = m.warp(session.logits("target", text), sampling, text, len(text))
            for token, q in zip(tokens, probs, strict=True):
                longer[(*done, token)] = p * q
        law = longer
    return law


@pytest.mark.parametrize("verifier", ["match", "standard"])
def test_the_law_is_exact_when_an_end_of_sequence_token_may_come(verifier: str) -> None:
    session = m.Session(SMALL, {"kind": "model", "toy": SMALL_DRAFT, "mode": "sampled"})
    options = {"prompt": [1, 2], "max_tokens": 4, "gamma": 2, "sampling": {"temperature": 1.0}}
    law = {tuple(k): p for k, p in session.law(verifier=verifier, eog=[1], **options)}
    want = sequence_law(
        lambda p: session.logits("target", p), [1, 2], 4, {"temperature": 1.0}, eog=[1]
    )
    assert total_variation(law, want) < 1e-12
    banned = {
        tuple(k): p for k, p in session.law(verifier=verifier, eog=[1], ignore_eos=True, **options)
    }
    want = sequence_law(
        lambda p: session.logits("target", p),
        [1, 2],
        4,
        {"temperature": 1.0, "logit_bias": [(1, -np.inf)]},
    )
    assert total_variation(banned, want) < 1e-12


def test_a_drafter_that_lies_about_its_law_is_caught() -> None:
    session = m.Session(SMALL, {"kind": "lying"})
    options = {"prompt": [1, 2], "max_tokens": 3, "sampling": {"temperature": 1.0}, "gamma": 2}
    want = sequence_law(lambda p: session.logits("target", p), [1, 2], 3, {"temperature": 1.0})
    law = {tuple(k): p for k, p in session.law(verifier="standard", **options)}
    assert total_variation(law, want) > 1e-2
    law = {tuple(k): p for k, p in session.law(verifier="match", **options)}
    assert total_variation(law, want) < 1e-12  # match needs no draft law


@pytest.mark.parametrize(
    ("verifier", "drafter"),
    [
        ("match", {"kind": "model", "toy": SMALL_DRAFT}),
        ("match", None),
        ("standard", {"kind": "model", "toy": SMALL_DRAFT}),
        ("standard", {"kind": "ngram"}),
    ],
)
def test_seeded_joint_triples_pass_a_chi_square_test(verifier: str, drafter: Any) -> None:
    session = m.Session(SMALL, drafter)
    prompt = [0, 2, 0, 2, 0]
    options = {
        "prompt": prompt,
        "max_tokens": 5,
        "gamma": 2,
        "verifier": verifier,
        "sampling": {"temperature": 1.0},
    }
    want = sequence_law(lambda p: session.logits("target", p), prompt, 5, {"temperature": 1.0})
    counts = {tuple(k): n for k, n in session.counts(options, 1000, 60_000)}
    for first in (0, 1, 2):  # triples inside and across rounds
        assert chi_square_z(triples(counts, first), triples(want, first)) < 4.5


def triples(table: dict[tuple[int, ...], Any], first: int) -> dict[tuple[int, ...], Any]:
    found: dict[tuple[int, ...], Any] = {}
    for tokens, value in table.items():
        key = tokens[first : first + 3]
        found[key] = found.get(key, 0) + value
    return found


def test_numbers_that_are_used_twice_are_caught() -> None:
    session = m.Session(SMALL, {"kind": "model", "toy": SMALL_DRAFT})
    options = {
        "prompt": [1, 2],
        "max_tokens": 5,
        "gamma": 2,
        "verifier": "standard",
        "sampling": {"temperature": 1.0},
    }
    want = sequence_law(lambda p: session.logits("target", p), [1, 2], 5, {"temperature": 1.0})
    counts = {tuple(k): n for k, n in session.counts(options, 0, 20_000, reuse="round")}
    assert chi_square_z(triples(counts, 0), triples(want, 0)) > 10


def test_standard_repeats_its_text_for_one_seed() -> None:
    def text(seed: int) -> list[int]:
        session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
        sampling = {"temperature": 1.0, "seed": seed}
        out = session.run(
            prompt=[1], max_tokens=40, gamma=3, verifier="standard", sampling=sampling
        )
        return list(out["token_ids"])

    assert text(3) == text(3) != text(4)


# --- bookkeeping ---


@pytest.mark.parametrize("k", [1, 2, 3, 5, 16])
def test_a_draft_right_for_j_of_k_tokens_has_j_accepted(k: int) -> None:
    target = {**TARGET, "n_ctx": 256}
    truth = plain_greedy(m.Session(target), [1, 2], 60)
    for j in range(k + 1):

        def propose(committed: list[int], n: int, j: int = j) -> list[int]:
            rest = truth[len(committed) - 2 :][:n]
            return [t if i < j else (t + 1) % 8 for i, t in enumerate(rest)]

        session = m.Session(target, {"kind": "python", "propose": propose})
        out = run(session, prompt=[1, 2], max_tokens=k + 1, gamma=k)
        assert out["token_ids"] == truth[: k + 1]
        first = out["rounds"][0]
        assert len(first[0]) == k
        assert first[1] == list(range(j))
        assert first[2] == truth[j]
        assert out["from_draft"][: j + 1] == ([1] * j + [0])
        assert session.batches("target")[:2] == [1, k + 1]  # one prompt token, one pass


# Of a tree: each token, and how far back its parent is.
TREES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 7)), min_size=1, max_size=8)


@given(trees=st.lists(TREES, min_size=1, max_size=20), temperature=st.sampled_from([0.0, 1.0]))
def test_trees_are_verified_and_leave_the_cache_as_plain_decoding_does(
    trees: list[list[tuple[int, int]]], temperature: float
) -> None:
    asked = itertools.cycle(trees)

    def propose(committed: list[int], n: int) -> tuple[list[int], list[int]]:
        tree = next(asked)[:n]
        return [token for token, _ in tree], [max(-1, i - 1 - up) for i, (_, up) in enumerate(tree)]

    sampling = {"temperature": temperature, "seed": 3}
    want = run(m.Session(LOOPING), prompt=[1, 2], max_tokens=80, sampling=sampling)["token_ids"]
    session = m.Session(LOOPING, {"kind": "python", "propose": propose})
    out = run(session, prompt=[1, 2], max_tokens=80, sampling=sampling, gamma=8)
    assert out["token_ids"] == want


def test_trees_find_more_than_their_first_paths() -> None:
    every = {"kind": "python", "propose": lambda committed, n: (list(range(n)), [-1] * n)}
    out = run(m.Session(LOOPING, every), prompt=[1, 2], max_tokens=80, gamma=4)
    assert out["stats"]["accepted"] >= out["stats"]["rounds"] - 1 > 30
    with pytest.raises(m.Error, match="takes chains only"):
        m.Session(LOOPING, every).run(prompt=[1, 2], max_tokens=20, gamma=4, verifier="standard")


def maybe(values: st.SearchStrategy[Any], otherwise: Any = None) -> st.SearchStrategy[Any]:
    return st.one_of(st.just(otherwise), values)


REQUESTS = st.fixed_dictionaries(
    {
        "prompt": st.lists(st.integers(0, 7), min_size=1, max_size=10),
        "max_tokens": maybe(st.integers(0, 39)),
        "gamma": maybe(st.integers(0, 6)),
        "draft_max": maybe(st.integers(0, 6)),
        "draft_min": st.integers(0, 2),
        "eog": st.sampled_from([[], [6, 7]]),
        "ignore_eos": st.booleans(),
        "stop": st.sampled_from([[], ["abc", "ca", "bb"]]),
        "n_logprobs": maybe(st.just(2)),
        "speculate": st.sampled_from([True, True, True, False]),
        "sampling": st.fixed_dictionaries(
            {"temperature": st.sampled_from([0.0, 1.0]), "seed": st.integers(0, 98)}
        ),
        "stop_after_chunks": maybe(st.integers(1, 8), 0),
    }
)


@given(
    seed=st.integers(0, 99),
    order=st.integers(0, 2),
    n_ctx=st.integers(12, 59),
    which=st.integers(0, len(drafters(TARGET)) - 1),
    requests=st.lists(REQUESTS, min_size=1, max_size=3),
)
@settings(max_examples=examples(50))
def test_figures_reconcile(
    seed: int, order: int, n_ctx: int, which: int, requests: list[dict[str, Any]]
) -> None:
    target = {**TARGET, "seed": seed, "order": order, "n_ctx": n_ctx}
    session = m.Session(target, drafters(target)[which])
    for request in requests:
        out = run(session, pieces=["a", "b", "ab", "", "c", "ca", "x", "y"], **request)
        assert len(request["prompt"]) + len(out["token_ids"]) <= n_ctx


def test_logprobs_are_the_targets_and_do_not_depend_on_speculation() -> None:
    sampling = {"temperature": 0.7, "seed": 2, "repetition_penalty": 1.2}
    options = {"prompt": [1, 2, 3], "max_tokens": 30, "n_logprobs": 3, "sampling": sampling}
    want = m.Session(TARGET).run(**options)["logprobs"]
    assert len(want) == 30
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    text = [1, 2, 3]
    out = run(session, gamma=3, **options)
    assert out["logprobs"] == want  # to the last bit
    for token, logprob, top in want:
        row = np.array(
            m.adjusted_logits(session.logits("target", text), sampling, text), np.float64
        )
        row -= row.max() + np.log(np.exp(row - row.max()).sum())
        assert abs(row[token] - logprob) < 1e-12
        assert [t for t, _ in top] == np.argsort(-row, kind="stable")[:3].tolist()
        text.append(token)
    greedy = {**options, "sampling": {}}
    assert run(session, **greedy)["logprobs"] == m.Session(TARGET).run(**greedy)["logprobs"]


def test_penalties_look_at_the_drafted_path_too() -> None:
    sampling = {
        "temperature": 0.0,
        "repetition_penalty": 3.0,
        "frequency_penalty": 1.0,
        "penalty_last_n": -1,
    }
    want = run(m.Session(LOOPING), prompt=[1, 2], max_tokens=60, sampling=sampling)["token_ids"]
    plain = run(m.Session(LOOPING), prompt=[1, 2], max_tokens=60)["token_ids"]
    assert want != plain
    for drafter in drafters(LOOPING)[1:]:
        session = m.Session(LOOPING, drafter)
        out = run(session, prompt=[1, 2], max_tokens=60, gamma=6, sampling=sampling)
        assert out["token_ids"] == want


def test_drafts_are_never_longer_than_useful() -> None:
    seen: list[tuple[int, int]] = []

    def propose(committed: list[int], n: int) -> list[int]:
        seen.append((len(committed), n))
        return [0] * n

    session = m.Session({**TARGET, "n_ctx": 20}, {"kind": "python", "propose": propose})
    run(session, prompt=[1, 2, 3], max_tokens=10, gamma=6)
    assert all(n == min(6, 3 + 10 - length - 1) for length, n in seen)
    seen.clear()
    run(session, prompt=[1, 2, 3], gamma=6)
    assert all(n == min(6, 20 - length - 1) for length, n in seen)
    assert all(n >= 1 for _, n in seen)


def test_speculation_is_reported_with_its_reason() -> None:
    def speculation(session: Any, **options: Any) -> str:
        return str(run(session, prompt=[1], max_tokens=3, **options)["stats"]["speculation"])

    drafted = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    assert speculation(m.Session(TARGET)) == "off: no drafter"
    assert speculation(drafted) == "on"
    assert speculation(drafted, gamma=0) == "off: the draft length is 0"
    assert speculation(drafted, speculate=False) == "off: switched off for this request"
    drafted.inject("draft", "fail", 1, "resource")
    assert speculation(drafted).startswith("off: the drafter failed: toy failure at forward")


@pytest.mark.parametrize("what", ["fail", "nan"])
def test_a_failing_draft_model_only_ends_speculation(what: str) -> None:
    want = plain_greedy(m.Session(TARGET), [1, 2], 30)
    sampling = {"logit_bias": [(0, 0.0)]}  # full rows, so that NaN shows
    for at in range(1, 12):
        session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
        session.inject("draft", what, at)
        out = run(session, prompt=[1, 2], max_tokens=30, gamma=3, sampling=sampling)
        assert out["token_ids"] == want
        assert out["stats"]["speculation"].startswith("off: the drafter failed")
        session.inject("draft", what, 0)
        again = run(session, prompt=[1, 2], max_tokens=30, gamma=3, sampling=sampling)
        assert again["token_ids"] == want
        assert again["stats"]["speculation"] == "on"


def test_bad_requests_are_refused_up_front() -> None:
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT})
    for options, message in [
        ({"prompt": []}, "prompt has no tokens"),
        ({"prompt": [8]}, r"prompt token 8 is not in \[0, 8\)"),
        ({"prompt": [1], "max_tokens": -1}, "max_tokens must be >= 0, got -1"),
        ({"prompt": [1], "gamma": -1}, "gamma must be 0 to 64"),
        ({"prompt": [1], "draft_max": -2}, "draft_max must be 0 to 64"),
        ({"prompt": [1], "draft_min": -2}, "draft_min must be 0 to 64"),
        ({"prompt": [1], "n_logprobs": 9}, "n_logprobs must be in"),
        ({"prompt": [1], "stop": ["x"]}, "stop strings need the text"),
        ({"prompt": [1], "stop": [""], "pieces": ["a"] * 8}, "empty string"),
        ({"prompt": [1], "sampling": {"logit_bias": [(8, 1.0)]}}, "logit_bias token id 8"),
        (
            {"prompt": [1], "sampling": {"temperature": 0.5}, "verifier": "greedy"},
            "needs temperature 0",
        ),
        ({"prompt": [1], "verifier": "nope"}, "verifier must be one of"),
    ]:
        with pytest.raises(m.Error, match=f"invalid_argument: .*{message}"):
            session.run(**options)
    assert session.batches("target") == []


def test_every_listed_drafter_is_lossless_with_every_listed_verifier() -> None:
    names = m.drafters()
    assert {"model", "ngram"} <= set(names)
    for (name, needs_model), verifier in itertools.product(names.items(), m.verifiers()):
        drafter = {"kind": name, **({"toy": SMALL_DRAFT} if needs_model else {})}
        traits = m.verifiers()[verifier]
        sampling = {"temperature": 0.0 if traits["greedy_only"] else 1.0}
        session = m.Session(SMALL, drafter)
        law = {
            tuple(k): p
            for k, p in session.law(
                prompt=[0, 1, 0, 1, 0], max_tokens=3, gamma=2, verifier=verifier, sampling=sampling
            )
        }
        want = sequence_law(
            lambda p, s=session: s.logits("target", p), [0, 1, 0, 1, 0], 3, sampling
        )
        distance = total_variation(law, want)
        if traits["lossless"]:
            assert distance < 1e-12
        elif needs_model:  # a drafted law that differs from the target's shows the difference
            assert distance > 1e-3
