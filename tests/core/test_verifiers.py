"""Every branch of the compiled verifiers is enumerated: their output law is the target's."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decode_reference import total_variation
from helpers import examples, native
from verifier_laws import (
    KINDS,
    Drafts,
    Path,
    Toy,
    completed,
    drafts_for,
    kinds_for,
    round_law,
    rounds_law,
    target_law,
    tokens_per_round,
)

m = native("decode")

VERIFIERS = m.verifiers()
LOSSLESS = [name for name, traits in VERIFIERS.items() if traits["lossless"]]
SAMPLED, BEST, PLAIN = Drafts("sampled"), Drafts("best"), Drafts("plain")
CASES = [
    pytest.param(v, k, d, id=f"{v}-{k}-{d}")
    for v in LOSSLESS
    for k in kinds_for(VERIFIERS[v])
    for d in drafts_for(VERIFIERS[v])
]


def test_the_lossless_verifiers_are_known() -> None:
    assert LOSSLESS == ["greedy", "match", "standard", "block", "topk_importance"]
    assert not VERIFIERS["topk_importance_published"]["lossless"]


@pytest.mark.parametrize("most", [130, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("verifier", "kind", "drafts"), CASES)
def test_one_round_emits_the_target_law(
    verifier: str, kind: str, drafts: Drafts, most: int
) -> None:
    for vocab, length in itertools.product((3, 4, 5), (0, 1, 2, 3)):
        if vocab**length * drafts.branch > most:  # the largest combs take minutes
            continue
        toy = Toy(vocab, 10 * vocab + length, kind)
        law = completed(toy, round_law(m, toy, verifier, length, drafts), length + 1)
        assert abs(sum(law.values()) - 1) < 1e-12
        assert total_variation(law, target_law(toy, length + 1)) < 1e-12


@pytest.mark.parametrize(("verifier", "kind", "drafts"), CASES)
def test_several_rounds_emit_the_target_law(verifier: str, kind: str, drafts: Drafts) -> None:
    for vocab, gamma, total in [(3, 1, 4), (3, 2, 4), (3, 3, 4), (4, 2, 3)]:
        toy = Toy(vocab, 7 * gamma + total, kind)
        law = rounds_law(m, toy, verifier, gamma, total, drafts)
        assert total_variation(law, target_law(toy, total)) < 1e-12


TREES = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 2)), min_size=1, max_size=6)


@pytest.mark.parametrize("verifier", [v for v in LOSSLESS if VERIFIERS[v]["trees"]])
@given(rows=TREES, seed=st.integers(0, 99))
@settings(max_examples=examples(12))
def test_trees_emit_the_target_law_along_a_path(
    verifier: str, rows: list[tuple[int, int]], seed: int
) -> None:
    toy = Toy(3, seed, kinds_for(VERIFIERS[verifier])[0])
    tokens: list[int] = []
    parents: list[int] = []
    for parent, token in rows:  # no two of a parent's are the same
        parent = min(parent, len(tokens) - 1)
        if (parent, token) not in zip(parents, tokens, strict=True):
            tokens.append(token)
            parents.append(parent)

    def path_of(row: int) -> Path:
        return () if row < 0 else (*path_of(parents[row]), tokens[row])

    target_rows = [toy.target(path_of(r)) for r in range(-1, len(tokens))]
    depth = max(len(path_of(r)) for r in range(len(tokens))) + 1
    law: dict[Path, float] = {}
    for (accepted, token), p in m.verdict_law(verifier, tokens, parents, [], target_rows):
        at = -1
        for row in accepted:  # one path from the root
            assert parents[row] == at
            at = row
        emitted = (*path_of(at), token)
        law[emitted] = law.get(emitted, 0.0) + p
    assert total_variation(completed(toy, law, depth), target_law(toy, depth)) < 1e-12


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_perfect_sampled_draft_is_always_accepted(verifier: str, length: int) -> None:
    law = round_law(m, Toy(4, 1, "same"), verifier, length, SAMPLED)
    assert sum(p for emitted, p in law.items() if len(emitted) <= length) < 1e-12


def test_acceptance_of_standard_is_the_overlap_of_both_laws() -> None:
    toy = Toy(5, 3, "plain")
    law = round_law(m, toy, "standard", 1, SAMPLED)
    accepted = sum(p for emitted, p in law.items() if len(emitted) == 2)
    overlap = sum(map(min, toy.target(()), toy.draft(())))
    assert abs(accepted - overlap) < 1e-12


@pytest.mark.parametrize("kind", ["plain", "zeros", "sparse"])
def test_block_is_never_shorter_than_standard_and_often_longer(kind: str) -> None:
    gains = []
    for seed in range(20):
        toy = Toy(3, seed, kind)
        block, standard = (
            tokens_per_round(round_law(m, toy, v, 3, SAMPLED)) for v in ("block", "standard")
        )
        gains.append(block - standard)
    assert min(gains) > -1e-12
    assert sum(g > 1e-3 for g in gains) > 10


def test_one_token_blocks_and_single_candidates_are_standard() -> None:
    for kind in KINDS:
        toy = Toy(4, 8, kind)
        want = round_law(m, toy, "standard", 1, SAMPLED)
        assert total_variation(round_law(m, toy, "block", 1, SAMPLED), want) < 1e-12
        for mode in (SAMPLED, PLAIN):
            want = round_law(m, toy, "standard", 3, mode)
            got = round_law(m, toy, "topk_importance", 3, mode)
            assert total_variation(got, want) < 1e-12


def test_more_candidates_are_accepted_more_often() -> None:
    for seed in range(2):
        toy = Toy(5, seed, "plain")
        for mode in ("sampled", "best"):
            lengths = [
                tokens_per_round(round_law(m, toy, "topk_importance", 2, Drafts(mode, b)))
                for b in (1, 2, 3, 4)
            ]
            assert lengths == sorted(lengths)
            assert lengths[3] > lengths[0] + 0.1


def test_laws_of_chosen_candidates_only_feed_the_figures() -> None:
    toy = Toy(4, 2, "plain")
    for verifier, b in [("standard", 1), ("block", 1), ("match", 2), ("topk_importance", 2)]:
        plain = round_law(m, toy, verifier, 2, Drafts("plain", b))
        assert total_variation(round_law(m, toy, verifier, 2, Drafts("best", b)), plain) < 1e-15


# --- negative controls ---


@pytest.mark.parametrize(
    ("fault", "branch"),
    [
        ("missing_residual", 1),
        ("always_accept", 1),
        ("bonus_row", 1),
        ("block_unscaled_residual", 1),
        ("block_own_coin_only", 1),
        ("comb_full_draft_law", 2),
        ("comb_target_residual", 2),
        ("comb_forgets_off_support", 2),
    ],
)
def test_broken_verifiers_are_caught(fault: str, branch: int) -> None:
    toy = Toy(4, 5, "sparse" if fault == "comb_forgets_off_support" else "plain")
    law = rounds_law(m, toy, fault, 2, 3, Drafts("sampled", branch))
    assert abs(sum(law.values()) - 1) < 1e-12
    assert total_variation(law, target_law(toy, 3)) > 1e-3


@pytest.mark.parametrize(
    ("verifier", "branch"), [("standard", 1), ("block", 1), ("topk_importance", 2)]
)
def test_wrongly_declared_draft_probabilities_are_caught(verifier: str, branch: int) -> None:
    toy = Toy(3, 5, "plain")
    drafts = Drafts("sampled", branch)
    law = rounds_law(m, toy, verifier, 2, 4, drafts, declare=lambda path: [1 / 3] * 3)
    assert total_variation(law, target_law(toy, 4)) > 1e-3


@pytest.mark.parametrize("drafts", [SAMPLED, BEST, Drafts("sampled", 2)], ids=str)
def test_the_published_rule_is_caught(drafts: Drafts) -> None:
    toy = Toy(4, 6, "plain")
    law = rounds_law(m, toy, "topk_importance_published", 2, 3, drafts)
    assert abs(sum(law.values()) - 1) < 1e-12
    assert total_variation(law, target_law(toy, 3)) > 1e-2


def test_the_published_rule_makes_a_perfect_draft_uniform() -> None:
    toy = Toy(4, 6, "same")
    law = round_law(m, toy, "topk_importance_published", 1, SAMPLED)
    first: dict[int, float] = {}
    for emitted, p in law.items():
        first[emitted[0]] = first.get(emitted[0], 0.0) + p
    assert all(abs(p - 0.25) < 1e-12 for p in first.values())


HALF = [0.5, 0.5, 0.0]
NO_LAW: list[float] = []


@pytest.mark.parametrize(
    ("takers", "tokens", "parents", "laws", "message"),
    [
        ("chains", [2], [], [HALF], "does not carry the distribution"),
        ("chains", [0, 1], [], [HALF, NO_LAW], "does not carry the distribution"),
        ("chains", [7], [], [HALF], "does not carry the distribution"),
        ("chains", [0, 1], [], [HALF], "is missing, or its distribution is"),
        ("chains", [0, 1], [-1], [], "is missing, or its parent is"),
        ("chains", [0, 1], [-1, 1], [], "follows a later one"),
        ("chains", [0], [-2], [], "follows a later one"),
        ("only chains", [0, 1], [-1, -1], [], "takes chains only"),
        ("combs", [0, 1], [-1, -1], [HALF, HALF], "a distribution beside its sibling's"),
        ("combs", [0, 0], [-1, -1], [HALF, NO_LAW], "was drawn twice"),
        ("combs", [0, 2], [-1, -1], [HALF, NO_LAW], "does not carry the distribution"),
    ],
)
def test_drafts_without_the_laws_they_were_drawn_from_are_refused(
    takers: str,
    tokens: list[int],
    parents: list[int],
    laws: list[list[float]],
    message: str,
) -> None:
    names = {
        "chains": ["standard", "block", "topk_importance", "topk_importance_published"],
        "only chains": ["standard", "block"],
        "combs": ["topk_importance", "topk_importance_published"],
    }[takers]
    for name in names:
        with pytest.raises(m.Error, match=f"internal: .*{message}"):
            m.verdict_law(name, tokens, parents, laws, [HALF] * (len(tokens) + 1))


def test_auto_is_greedy_at_zero_and_match_above() -> None:
    assert m.resolve_verifier("auto", 0.0) == "greedy"
    assert m.resolve_verifier("auto", 0.5) == "match"
    assert m.resolve_verifier("standard", 0.0) == "standard"


def test_combinations_that_would_not_be_exact_are_refused() -> None:
    with pytest.raises(m.Error, match="'greedy' needs temperature 0"):
        m.resolve_verifier("greedy", 0.7)
    with pytest.raises(m.Error, match="verifier must be one of auto, greedy, match, standard"):
        m.resolve_verifier("mtach", 0.7)
