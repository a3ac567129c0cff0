"""Slow, independent references for sampling and decoding, in NumPy and plain Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def adjusted(logits: Sequence[float], params: dict[str, Any], prefix: Sequence[int]) -> np.ndarray:
    """Bias, then penalties, in single precision."""
    row = np.array(logits, dtype=np.float32)
    for token, bias in params.get("logit_bias", []):
        row[token] += np.float32(bias)
    last_n = params.get("penalty_last_n", 64)
    window = list(prefix) if last_n == -1 else list(prefix)[max(0, len(prefix) - last_n) :]
    repetition = np.float32(params.get("repetition_penalty", 1.0))
    presence = np.float32(params.get("presence_penalty", 0.0))
    frequency = np.float32(params.get("frequency_penalty", 0.0))
    if (repetition, presence, frequency) != (1.0, 0.0, 0.0):
        for token in set(window):
            row[token] = row[token] / repetition if row[token] > 0 else row[token] * repetition
            row[token] -= presence + np.float32(window.count(token)) * frequency
    return row


def warped(
    logits: Sequence[float],
    params: dict[str, Any],
    prefix: Sequence[int] = (),
    noise: Any = None,
) -> np.ndarray:
    """Probabilities over the whole vocabulary; `noise(token)` is the two-stage noise."""
    row = adjusted(logits, params, prefix).astype(np.float64)
    n = len(row)
    temperature = params.get("temperature", 0.0)
    result = np.zeros(n)
    order = sorted(range(n), key=lambda i: (-row[i], i))  # best first, ties to the lowest id
    if temperature == 0.0:
        result[order[0]] = 1.0
        return result
    weights = (row - row.max()) / temperature
    alive = order
    top_k = params.get("top_k", 0)
    if 0 < top_k < n:
        alive = alive[:top_k]
    top_p = params.get("top_p", 1.0)
    if top_p < 1.0:
        mass = sum(math.exp(weights[i]) for i in alive)
        total, keep = 0.0, []
        for i in alive:
            keep.append(i)
            total += math.exp(weights[i]) / mass
            if total >= top_p:
                break
        alive = keep
    min_p = params.get("min_p", 0.0)
    if min_p > 0.0:
        alive = [i for i in alive if math.exp(weights[i]) >= min_p * math.exp(weights[alive[0]])]
    scale = params.get("noise_scale", 0.0)
    final = {i: weights[i] + (scale * noise(i) if scale > 0 else 0.0) for i in alive}
    peak = max(final.values())
    total = sum(math.exp(w - peak) for w in final.values())
    for i, w in final.items():
        result[i] = math.exp(w - peak) / total
    return result


def sequence_law(
    logits_after: Any,
    prompt: Sequence[int],
    length: int,
    params: dict[str, Any],
    eog: Sequence[int] = (),
) -> dict[tuple[int, ...], float]:
    """Law of the generated tokens of plain sampling; an eog token ends one and is left out."""
    law: dict[tuple[int, ...], float] = {}

    def walk(done: tuple[int, ...], probability: float) -> None:
        if len(done) == length:
            law[done] = law.get(done, 0.0) + probability
            return
        prefix = [*prompt, *done]
        row = warped(logits_after(prefix), params, prefix)
        for token in np.flatnonzero(row):
            p = probability * float(row[token])
            if int(token) in eog:
                law[done] = law.get(done, 0.0) + p
            else:
                walk((*done, int(token)), p)

    walk((), 1.0)
    return law


def total_variation(a: dict[Any, float], b: dict[Any, float]) -> float:
    return 0.5 * sum(abs(a.get(k, 0.0) - b.get(k, 0.0)) for k in {*a, *b})


def chi_square_z(counts: dict[Any, int], law: dict[Any, float]) -> float:
    """Wilson-Hilferty z-score of the chi-square statistic; cells below 5 expected are merged."""
    n = sum(counts.values())
    assert not any(law.get(k, 0.0) == 0.0 for k in counts), "an outcome of probability 0 came"
    statistic, rest_seen, rest_expected, cells = 0.0, 0, 0.0, 0
    for key, p in law.items():
        expected, seen = n * p, counts.get(key, 0)
        if expected < 5:
            rest_seen += seen
            rest_expected += expected
            continue
        statistic += (seen - expected) ** 2 / expected
        cells += 1
    if rest_expected >= 5:
        statistic += (rest_seen - rest_expected) ** 2 / rest_expected
        cells += 1
    dof = max(cells - 1, 1)
    spread = 2.0 / (9.0 * dof)
    return float(((statistic / dof) ** (1 / 3) - (1 - spread)) / math.sqrt(spread))


class NGramReference:
    """Counts of what followed every context of 1..n tokens, recomputed from the event list."""

    def __init__(self, n: int, min_count: int = 1) -> None:
        self.n, self.min_count = n, min_count
        self.events: list[tuple[tuple[int, ...], int]] = []  # (context of up to n tokens, follower)

    def count(self, context: Sequence[int], follower: int) -> None:
        self.events.append((tuple(context[max(0, len(context) - self.n) :]), follower))

    def begin(self, prompt: Sequence[int]) -> None:
        self.events.clear()
        for i in range(1, len(prompt)):
            self.count(prompt[:i], prompt[i])

    def query(self, text: Sequence[int]) -> int | None:
        for length in range(min(self.n, len(text)), 0, -1):
            context = tuple(text[len(text) - length :])
            counts: dict[int, int] = {}
            best, best_count = None, 0
            for seen, follower in self.events:
                if len(seen) >= length and seen[len(seen) - length :] == context:
                    counts[follower] = counts.get(follower, 0) + 1
                    if counts[follower] >= best_count:  # ties go to the most recent
                        best, best_count = follower, counts[follower]
            if best is not None and best_count >= self.min_count:
                return best
        return None

    def propose(self, text: Sequence[int], limit: int) -> list[int]:
        draft: list[int] = []
        while len(draft) < limit:
            token = self.query([*text, *draft])
            if token is None:
                break
            draft.append(token)
        return draft
