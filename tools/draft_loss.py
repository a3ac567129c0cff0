"""Cross-entropy of an output head over part of its vocabulary: a whole one would take most of the
time of a training step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

LEAST_PROBABILITY = 0.02  # of an id to be learnt: unlikely ones would only make the head wide
N_RANDOM = 512  # ids drawn in every step to stand for all the rare ones
CHUNK = 256  # rows of logits at a time


class HeadLoss(torch.autograd.Function):
    """Mean cross-entropy of hidden @ rows.T + correction to the laws that give ids[i, k] the
    weight weights[i, k]. A few rows at a time with their gradients: logits stay in the cache."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,
        hidden: Tensor,
        rows: Tensor,
        correction: Tensor,
        ids: Tensor,
        weights: Tensor,
        bf16: bool,
    ) -> Tensor:
        kind = torch.bfloat16 if bf16 else torch.float32
        matrix = rows.to(kind)
        d_hidden, d_rows = torch.empty_like(hidden), torch.zeros_like(rows)
        loss = hidden.new_zeros(())
        for first in range(0, len(hidden), CHUNK):
            chunk = slice(first, first + CHUNK)
            inputs = hidden[chunk].to(kind)
            logits = (inputs @ matrix.T).float().add_(correction)
            found = (logits.gather(1, ids[chunk]) * weights[chunk]).sum()
            largest = logits.amax(-1, keepdim=True)
            sums = logits.sub_(largest).exp_().sum(-1, keepdim=True)
            loss += (largest + sums.log()).sum() - found
            logits.div_(sums).scatter_add_(1, ids[chunk], -weights[chunk])
            gradient = logits.to(kind)
            d_hidden[chunk] = gradient @ matrix
            d_rows += gradient.T @ inputs
        ctx.save_for_backward(d_hidden / len(hidden), d_rows / len(hidden))
        return loss / len(hidden)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        d_hidden, d_rows = ctx.saved_tensors
        return gradient * d_hidden, gradient * d_rows, None, None, None, None


def label_weights(logprobs: Tensor, kept: Tensor, hard: float) -> Tensor:
    """[n, k] that sum to 1 in each row: `hard` for the first, the rest as the kept law is."""
    weights = logprobs.exp() * kept
    weights = (1 - hard) * weights / weights.sum(-1, keepdim=True)
    weights[:, 0] += hard
    return weights


class PartOfVocabulary:
    """Which rows of the output matrix a training step computes: those of the ids that it needs,
    the most frequent ones, and some of the rest that stand for all of them.

    Args:
        counts: of each id in the texts.
        n_common: most frequent ids, in every step's part.
    """

    def __init__(self, counts: np.ndarray, n_common: int) -> None:
        self.n_ids = len(counts)
        order = np.argsort(-counts, kind="stable")
        self.common = torch.from_numpy(np.sort(order[:n_common]))
        rare = np.ones(self.n_ids, bool)
        rare[self.common.numpy()] = False
        self.rare = np.flatnonzero(rare)

    def draw(self, needed: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """The ids of the part; what is added to each one's logit; and for all ids their place in
        the part, which those drawn by chance do not have (-1)."""
        listed = torch.cat((self.common, needed.flatten())).unique()
        n_rare = min(N_RANDOM, len(self.rare))
        drawn = torch.from_numpy(rng.choice(self.rare, n_rare, replace=False))
        place = torch.full((self.n_ids,), -1, dtype=torch.int64)
        place[listed] = torch.arange(len(listed))
        extra = drawn[place[drawn] < 0]
        ids = torch.cat((listed, extra))
        correction = torch.zeros(len(ids))
        if len(extra) > 0:  # each stands for several
            correction[len(listed) :] = math.log((self.n_ids - len(listed)) / len(extra))
        return ids, correction, place
