"""Every lossless verifier in the whole decoding loop: exact laws, chi-square, ends of all kinds."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from decode_reference import chi_square_z, sequence_law, total_variation
from helpers import native

m = native("decode")

TARGET = {"vocab_size": 3, "seed": 5, "n_ctx": 32, "scale": 1.5}
DRAFT = {**TARGET, "seed": 6}
PROMPT = [0, 2, 0, 2, 0]
VERIFIERS = m.verifiers()
SAMPLING_VERIFIERS = [
    name for name, t in VERIFIERS.items() if t["lossless"] and not t["greedy_only"]
]


def drafters_for(verifier: str) -> dict[str, dict[str, Any]]:
    drafters: dict[str, dict[str, Any]] = {
        "sampled": {"kind": "model", "toy": DRAFT, "mode": "sampled"},
        "flat top 2": {
            "kind": "model", "toy": DRAFT, "mode": "sampled", "temperature": 3.0, "top_k": 2,
        },
        "greedy": {"kind": "model", "toy": DRAFT, "mode": "greedy"},
    }  # fmt: skip
    drafters["head of two tokens"] = {"kind": "eagle", "toy": DRAFT, "known": [0, 2]}
    drafters["mtp, sampled"] = {"kind": "mtp", "toy": DRAFT, "mode": "sampled"}
    if VERIFIERS[verifier]["trees"]:
        drafters["sampled comb"] = {**drafters["sampled"], "branch": 2}
        drafters["greedy comb"] = {**drafters["greedy"], "branch": 2}
    for name, needs_model in m.drafters().items():
        drafters.setdefault(name, {"kind": name, **({"toy": DRAFT} if needs_model else {})})
    return drafters


CASES = [
    pytest.param(v, d, id=f"{v}-{name}")
    for v in SAMPLING_VERIFIERS
    for name, d in drafters_for(v).items()
]
BLOCKS_AND_COMBS = [c for c in CASES if c.values[0] in ("block", "topk_importance")]


def law_of(session: Any, **options: Any) -> dict[tuple[int, ...], float]:
    return {tuple(k): p for k, p in session.law(**options)}


def target_law(session: Any, n: int, sampling: dict[str, Any], **options: Any) -> Any:
    return sequence_law(lambda p: session.logits("target", p), PROMPT, n, sampling, **options)


@pytest.mark.parametrize(("verifier", "drafter"), BLOCKS_AND_COMBS)
@pytest.mark.parametrize("gamma", [1, 2, 3])
@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 1.0},
        {"temperature": 1.2, "repetition_penalty": 1.5, "logit_bias": [(0, 0.5)]},
        {"temperature": 0.9, "top_k": 2},
    ],
    ids=["plain", "penalties", "top-k"],
)
def test_the_loop_follows_the_target_law_exactly(
    verifier: str, drafter: dict[str, Any], gamma: int, sampling: dict[str, Any]
) -> None:
    session = m.Session(TARGET, drafter)
    n = 3 if drafter.get("branch", 1) > 1 and gamma == 3 else 4
    law = law_of(
        session, prompt=PROMPT, max_tokens=n, gamma=gamma, verifier=verifier, sampling=sampling
    )
    assert abs(sum(law.values()) - 1) < 1e-12
    assert total_variation(law, target_law(session, n, sampling)) < 1e-12


@pytest.mark.parametrize(("verifier", "drafter"), BLOCKS_AND_COMBS)
def test_the_law_is_exact_when_an_end_of_sequence_token_may_come(
    verifier: str, drafter: dict[str, Any]
) -> None:
    session = m.Session(TARGET, drafter)
    options = {"prompt": PROMPT, "max_tokens": 4, "gamma": 2, "verifier": verifier, "eog": [1]}
    sampling = {"temperature": 1.0}
    law = law_of(session, sampling=sampling, **options)
    assert total_variation(law, target_law(session, 4, sampling, eog=[1])) < 1e-12
    banned = law_of(session, sampling=sampling, ignore_eos=True, **options)
    sampling = {"temperature": 1.0, "logit_bias": [(1, -np.inf)]}
    assert total_variation(banned, target_law(session, 4, sampling)) < 1e-12


@pytest.mark.parametrize("verifier", SAMPLING_VERIFIERS)
def test_a_draft_vocabulary_padded_beyond_the_targets_changes_nothing(verifier: str) -> None:
    toy = {**DRAFT, "vocab_size": 5}
    session = m.Session(TARGET, {"kind": "model", "toy": toy, "mode": "sampled"})
    sampling = {"temperature": 1.0}
    law = law_of(
        session, prompt=PROMPT, max_tokens=4, gamma=2, verifier=verifier, sampling=sampling
    )
    assert total_variation(law, target_law(session, 4, sampling)) < 1e-12
    smaller = m.Session({**TARGET, "vocab_size": 4}, {"kind": "model", "toy": DRAFT})
    law = law_of(
        smaller, prompt=PROMPT, max_tokens=3, gamma=2, verifier=verifier, sampling=sampling
    )
    assert total_variation(law, target_law(smaller, 3, sampling)) < 1e-12


# --- seeded numbers ---


def triples(table: dict[tuple[int, ...], Any], first: int) -> dict[tuple[int, ...], Any]:
    found: dict[tuple[int, ...], Any] = {}
    for tokens, value in table.items():
        key = tokens[first : first + 3]
        found[key] = found.get(key, 0) + value
    return found


def worst_z(session: Any, verifier: str, n_runs: int, **counting: Any) -> float:
    options = {
        "prompt": PROMPT,
        "max_tokens": 6,
        "gamma": 3,
        "verifier": verifier,
        "sampling": {"temperature": 1.0},
    }
    want = target_law(session, 6, {"temperature": 1.0})
    counts = {tuple(k): n for k, n in session.counts(options, 1000, n_runs, **counting)}
    # Triples inside and across rounds; 6.0 standard deviations: about 1e-9.
    return max(chi_square_z(triples(counts, i), triples(want, i)) for i in range(4))


@pytest.mark.parametrize(("verifier", "drafter"), CASES)
def test_joint_triples_pass_a_chi_square_test(verifier: str, drafter: dict[str, Any]) -> None:
    assert worst_z(m.Session(TARGET, drafter), verifier, 10_000) < 6.0


@pytest.mark.parametrize("reuse", ["drafts", "coins", "round"])
def test_block_with_numbers_used_again_is_caught(reuse: str) -> None:
    session = m.Session(TARGET, {"kind": "model", "toy": DRAFT, "mode": "sampled"})
    assert worst_z(session, "block", 100_000, reuse=reuse) > 6.0
    if reuse == "drafts":  # `standard` never looks at them: the fault is one of block alone
        assert worst_z(session, "standard", 100_000, reuse=reuse) < 6.0


@pytest.mark.parametrize("branch", [1, 2])
def test_the_published_rule_fails_the_chi_square_test(branch: int) -> None:
    drafter = {"kind": "model", "toy": DRAFT, "mode": "sampled", "branch": branch}
    assert worst_z(m.Session(TARGET, drafter), "topk_importance_published", 10_000) > 20


# --- ends of all kinds ---

WIDE = {"vocab_size": 8, "seed": 1, "n_ctx": 48, "scale": 4.0}
WIDE_DRAFT = {**WIDE, "seed": 2, "mix_seed": 1, "mix": 0.9}


@pytest.mark.parametrize("verifier", [*VERIFIERS, "auto"])
@pytest.mark.parametrize("branch", [1, 3])
def test_ends_inside_a_draft_leave_everything_in_order(verifier: str, branch: int) -> None:
    traits = VERIFIERS.get(verifier, {"trees": True, "greedy_only": True})
    if branch > 1 and not traits["trees"]:
        pytest.skip("takes chains only")
    temperatures = [0.0] if traits["greedy_only"] else [0.0, 1.0]
    session = m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT, "branch": branch})
    reasons, accepted_cut = set(), 0
    for temperature, seed in itertools.product(temperatures, range(12)):
        for options in (
            {"eog": [6, 7], "max_tokens": 20},
            {"stop": ["bc", "ha"], "pieces": list("abcdefgh"), "max_tokens": 20},
            {"max_tokens": 5},
            {"gamma": 0, "max_tokens": 4},
            {"max_tokens": None},  # to the end of the context
        ):
            prompt = [seed % 8, 3, 1]
            out = session.run(
                prompt=prompt,
                verifier=verifier,
                sampling={"temperature": temperature, "seed": seed},
                **{"gamma": 4, **options},
            )
            n, s = len(out["token_ids"]), out["stats"]
            assert s["emitted"] == n == s["accepted"] + s["rounds"] + s["plain_steps"] - s["cut"]
            assert session.target_cache() == (prompt + out["token_ids"])[:-1]
            assert not {6, 7} & set(out["token_ids"]) or "eog" not in options
            assert "eog" in options or "stop" in options or out["finish_reason"] == "length"
            if options.get("max_tokens") is None:
                assert len(prompt) + n == WIDE["n_ctx"]
            if options.get("gamma") == 0:
                assert s["rounds"] == 0
            reasons.add(out["finish_reason"])
            accepted_cut += s["accepted_cut"]
    assert reasons == {"stop", "length"}
    assert accepted_cut > 0  # the cases really lie inside drafts


def test_combs_are_drafted_whole_and_accepted_along_both_kinds_of_branches() -> None:
    session = m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT, "branch": 3})
    sampling = {"temperature": 1.0, "seed": 3}
    sizes, siblings = set(), 0
    out = session.run(
        prompt=[1, 2], max_tokens=40, gamma=3, verifier="topk_importance", sampling=sampling
    )
    for drafted, accepted, _ in out["rounds"]:
        sizes.add(len(drafted))
        siblings += any(i % 3 for i in accepted)
    assert 9 in sizes
    assert siblings >= 2
    s = out["stats"]
    assert s["accepted"] > s["rounds"]
    assert s["drafted_per_position"][0] == 3 * s["rounds"]
    assert 0 < s["candidate_acceptance"] <= 1
    assert 0.9 < s["in_set"] <= 1  # K = 50 is the whole vocabulary


def test_in_set_is_the_targets_mass_on_the_drafts_top_k() -> None:
    drafter = {"kind": "model", "toy": WIDE_DRAFT, "mode": "sampled", "top_k": 2}
    for verifier in ("topk_importance", "topk_importance_published"):
        session = m.Session(WIDE, drafter)
        out = session.run(
            prompt=[1, 2], max_tokens=2, gamma=1, verifier=verifier, sampling={"temperature": 1.0}
        )
        row = np.array(session.logits("target", [1, 2]))
        draft = np.array(session.logits("draft", [1, 2]))
        probs = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        want = probs[np.argsort(-draft)[:2]].sum()
        assert out["stats"]["candidate_positions"] == 1
        assert abs(out["stats"]["in_set"] - want) < 1e-6


@pytest.mark.parametrize("k", [1, 2, 4])
def test_in_set_at_temperature_zero_says_how_often_the_best_token_is_a_candidate(k: int) -> None:
    session = m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT, "top_k": k})
    out = session.run(prompt=[1, 2], max_tokens=40, gamma=3, verifier="topk_importance")
    s = out["stats"]
    assert s["in_set"] == 1 if k == 8 else 0.5 < s["in_set"] <= 1
    if k == 1:
        assert s["in_set"] == s["candidate_acceptance"]
    plain = m.Session(WIDE).run(prompt=[1, 2], max_tokens=40)
    assert out["token_ids"] == plain["token_ids"]


def test_combs_under_match_and_greedy_change_no_text() -> None:
    for sampling in ({"temperature": 0.0}, {"temperature": 0.8, "seed": 5}):
        want = m.Session(WIDE).run(prompt=[1], max_tokens=40, sampling=sampling)["token_ids"]
        lengths = []
        for branch in (1, 3):
            session = m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT, "branch": branch})
            out = session.run(prompt=[1], max_tokens=40, gamma=3, sampling=sampling)
            assert out["token_ids"] == want
            lengths.append(out["stats"]["mean_acceptance_length"])
        assert lengths[1] > lengths[0]


def test_only_a_lossy_verifier_is_noted() -> None:
    session = m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT})
    for verifier, traits in VERIFIERS.items():
        note = session.run(prompt=[1], max_tokens=3, verifier=verifier)["stats"]["note"]
        assert ("not lossless" in note) == (not traits["lossless"])


def test_combs_and_their_options_are_checked() -> None:
    for options, message in [
        ({"branch": 0}, r"branch must be in \[1, 16\]"),
        ({"branch": 17}, r"branch must be in \[1, 16\]"),
        ({"branch": 4, "top_k": 3}, "draft_top_k must be at least branch"),
        ({"mode": "greedy", "temperature": 0.5}, "draft temperature must not be given for greedy"),
    ]:
        with pytest.raises(m.Error, match=message):
            m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT, **options})
    session = m.Session(WIDE, {"kind": "model", "toy": WIDE_DRAFT, "branch": 2})
    for verifier in ("standard", "block"):
        with pytest.raises(m.Error, match="branch 2 needs a verifier that takes trees"):
            session.run(prompt=[1], max_tokens=3, verifier=verifier)
