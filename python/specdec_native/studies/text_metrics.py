"""How far a text is from a reference, and how varied it is. The packages come with the extra."""

from __future__ import annotations

import functools
from typing import Any

PACKAGES = ("rouge_score", "sacrebleu", "rapidfuzz")
OVERLAP = ("rouge1", "rouge2", "rougeL", "bleu", "edit_distance")


@functools.cache
def _rouge() -> Any:
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)


def rouge(text: str, reference: str) -> dict[str, float]:
    """F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, with Porter's stemmer."""
    return {name: float(score.fmeasure) for name, score in _rouge().score(reference, text).items()}


def bleu(text: str, reference: str) -> float:
    """Of one sentence, 0 to 100, over the lengths of n-grams that it has."""
    import sacrebleu

    return float(sacrebleu.sentence_bleu(text, [reference]).score)


def edit_distance(text: str, reference: str) -> int:
    """Levenshtein's, in characters."""
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(text, reference))


def overlap(text: str, reference: str) -> dict[str, float | None]:
    """All of `OVERLAP`; nothing where there is no reference."""
    if not reference:
        return dict.fromkeys(OVERLAP)
    return {
        **rouge(text, reference),
        "bleu": bleu(text, reference),
        "edit_distance": edit_distance(text, reference),
    }


def distinct(text: str, n: int) -> float | None:
    """Different n-grams of words over all of them; None for a text that has none."""
    words = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
