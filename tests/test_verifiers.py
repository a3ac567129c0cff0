"""Every branch of the compiled verifiers is enumerated: their output law is the target's."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from decode_reference import total_variation
from helpers import native

m = native("decode")

LOSSLESS = [name for name, traits in m.verifiers().items() if traits["lossless"]]
Path = tuple[int, ...]


class Toy:
    """Random laws after every path: `target` and `draft`, with zeros and ties now and then."""

    def __init__(self, vocab: int, seed: int, kind: str) -> None:
        self.vocab, self.seed, self.kind = vocab, seed, kind
        self._rows: dict[tuple[Path, int], list[float]] = {}

    def _row(self, path: Path, salt: int) -> list[float]:
        if (path, salt) not in self._rows:
            self._rows[path, salt] = self._fresh_row(path, salt)
        return self._rows[path, salt]

    def _fresh_row(self, path: Path, salt: int) -> list[float]:
        rng = np.random.default_rng([self.seed, salt, *[t + 1 for t in path]])
        row = rng.dirichlet(np.full(self.vocab, 0.7))
        if self.kind == "zeros":
            row[rng.integers(self.vocab)] = 0.0
            row = row + (row.sum() == 0)
        return list(row / row.sum())

    def target(self, path: Path) -> list[float]:
        if self.kind == "greedy":
            return list(np.eye(self.vocab)[int(np.argmax(self._row(path, 1)))])
        return self._row(path, 1)

    def draft(self, path: Path) -> list[float]:
        return self.target(path) if self.kind == "same" else self._row(path, 2)


def law_of(toy: Toy, length: int, start: Path = ()) -> dict[Path, float]:
    law: dict[Path, float] = {}
    for tokens in itertools.product(range(toy.vocab), repeat=length):
        p = 1.0
        for i, token in enumerate(tokens):
            p *= toy.target((*start, *tokens[:i]))[token]
        if p > 0:
            law[tokens] = p
    return law


def proposals(toy: Toy, length: int, sampled: bool, start: Path) -> list[tuple[Path, float]]:
    """Every draft with its probability; a deterministic one is the draft's best path."""
    if not sampled:
        path: Path = ()
        while len(path) < length:
            path = (*path, int(np.argmax(toy.draft((*start, *path)))))
        return [(path, 1.0)]
    found = []
    for tokens in itertools.product(range(toy.vocab), repeat=length):
        p = 1.0
        for i, token in enumerate(tokens):
            p *= toy.draft((*start, *tokens[:i]))[token]
        if p > 0:
            found.append((tokens, p))
    return found


def round_law(
    toy: Toy, verifier: str, length: int, sampled: bool, start: Path, declare: Any = None
) -> dict[Path, float]:
    """Law of what one round emits after `start`."""
    law: dict[Path, float] = {}
    for tokens, p in proposals(toy, length, sampled, start):
        prefixes = [(*start, *tokens[:i]) for i in range(length + 1)]
        draft_rows = [(declare or toy.draft)(q) for q in prefixes[:-1]] if sampled else []
        target_rows = [toy.target(q) for q in prefixes]
        for (accepted, token), q in m.verdict_law(verifier, tokens, [], draft_rows, target_rows):
            assert accepted == list(range(len(accepted)))
            emitted = (*tokens[: len(accepted)], token)
            law[emitted] = law.get(emitted, 0.0) + p * q
    return law


def rounds_law(
    toy: Toy, verifier: str, gamma: int, total: int, sampled: bool, declare: Any = None
) -> dict[Path, float]:
    """Law of the first `total` tokens from rounds in a row; the last rounds draft less."""
    law: dict[Path, float] = {}
    open_: dict[Path, float] = {(): 1.0}
    while open_:
        path, p = open_.popitem()
        if len(path) == total:
            law[path] = law.get(path, 0.0) + p
            continue
        length = min(gamma, total - len(path) - 1)
        for emitted, q in round_law(toy, verifier, length, sampled, path, declare).items():
            longer = (*path, *emitted)
            open_[longer] = open_.get(longer, 0.0) + p * q
    return law


def kinds_for(verifier: str) -> list[str]:
    return (
        ["greedy"]
        if m.verifiers()[verifier]["greedy_only"]
        else ["plain", "zeros", "same", "greedy"]
    )


CASES = [(v, k) for v in LOSSLESS for k in kinds_for(v)]


@pytest.mark.parametrize(("verifier", "kind"), CASES)
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("vocab", [3, 4, 5])
@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_one_round_emits_the_target_law(
    verifier: str, kind: str, sampled: bool, vocab: int, length: int
) -> None:
    toy = Toy(vocab, 10 * vocab + length, kind)
    # What a round emits is completed from the target to a fixed length.
    law: dict[Path, float] = {}
    for emitted, p in round_law(toy, verifier, length, sampled, ()).items():
        for rest, q in law_of(toy, length + 1 - len(emitted), emitted).items():
            law[(*emitted, *rest)] = law.get((*emitted, *rest), 0.0) + p * q
    assert abs(sum(law.values()) - 1) < 1e-12
    assert total_variation(law, law_of(toy, length + 1)) < 1e-12


@pytest.mark.parametrize(("verifier", "kind"), CASES)
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize(("vocab", "gamma", "total"), [(3, 1, 4), (3, 2, 4), (3, 3, 4), (4, 2, 3)])
def test_several_rounds_emit_the_target_law(
    verifier: str, kind: str, sampled: bool, vocab: int, gamma: int, total: int
) -> None:
    toy = Toy(vocab, 7 * gamma + total, kind)
    law = rounds_law(toy, verifier, gamma, total, sampled)
    assert total_variation(law, law_of(toy, total)) < 1e-12


def random_tree(rng: np.random.Generator, vocab: int, rows: int) -> tuple[list[int], list[int]]:
    tokens: list[int] = []
    parents: list[int] = []
    while len(tokens) < rows:
        parent = int(rng.integers(-1, len(tokens)))
        taken = {t for t, p in zip(tokens, parents, strict=True) if p == parent}
        free = [t for t in range(vocab) if t not in taken]
        if free:
            tokens.append(int(rng.choice(free)))
            parents.append(parent)
    return tokens, parents


@pytest.mark.parametrize("verifier", [v for v in LOSSLESS if m.verifiers()[v]["trees"]])
@pytest.mark.parametrize("seed", range(12))
def test_trees_emit_the_target_law_along_a_path(verifier: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    toy = Toy(3, seed, kinds_for(verifier)[0])
    tokens, parents = random_tree(rng, 3, 6)

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
        for rest, q in law_of(toy, depth - len(emitted), emitted).items():
            law[(*emitted, *rest)] = law.get((*emitted, *rest), 0.0) + p * q
    assert total_variation(law, law_of(toy, depth)) < 1e-12


def test_a_perfect_draft_is_always_accepted_by_standard() -> None:
    toy = Toy(4, 1, "same")
    for emitted in round_law(toy, "standard", 3, True, ()):
        assert len(emitted) == 4


def test_acceptance_of_standard_is_the_overlap_of_both_laws() -> None:
    toy = Toy(5, 3, "plain")
    law = round_law(toy, "standard", 1, True, ())
    accepted = sum(p for emitted, p in law.items() if len(emitted) == 2)
    overlap = sum(map(min, toy.target(()), toy.draft(())))
    assert abs(accepted - overlap) < 1e-12


@pytest.mark.parametrize("fault", ["missing_residual", "always_accept", "bonus_row"])
def test_broken_verifiers_are_caught(fault: str) -> None:
    toy = Toy(3, 5, "plain")
    law = rounds_law(toy, fault, 2, 4, sampled=True)
    assert abs(sum(law.values()) - 1) < 1e-12
    assert total_variation(law, law_of(toy, 4)) > 1e-3


def test_wrongly_declared_draft_probabilities_are_caught() -> None:
    toy = Toy(3, 5, "plain")
    law = rounds_law(toy, "standard", 2, 4, sampled=True, declare=lambda path: [1 / 3] * 3)
    assert total_variation(law, law_of(toy, 4)) > 1e-3


def test_auto_is_greedy_at_zero_and_match_above() -> None:
    assert m.resolve_verifier("auto", 0.0) == "greedy"
    assert m.resolve_verifier("auto", 0.5) == "match"
    assert m.resolve_verifier("standard", 0.0) == "standard"


def test_combinations_that_would_not_be_exact_are_refused() -> None:
    with pytest.raises(m.Error, match="'greedy' needs temperature 0"):
        m.resolve_verifier("greedy", 0.7)
    with pytest.raises(m.Error, match="verifier must be one of auto, greedy, match, standard"):
        m.resolve_verifier("mtach", 0.7)
