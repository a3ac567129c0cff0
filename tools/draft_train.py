"""Distillation: the draft learns what the target thought of every next token of its own texts."""

from __future__ import annotations

import argparse
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from draft_data import ANSWER, FRAME, TURN, Text
from draft_loss import LEAST_PROBABILITY, HeadLoss, PartOfVocabulary, label_weights
from draft_net import Draft, DraftShape, project
from training_loop import Training, adamw

EMBEDDING_RATE = 0.25  # it begins with something to lose, and most weights are its
HELD_OUT = 20  # every so many-th round is not trained on
AnyText = TypeVar("AnyText", bound=Text)
TURN_SHARE = 0.3  # of the user's words are learnt: answers are what will be drafted


@dataclasses.dataclass
class TrainOptions:
    minutes: float
    epochs: float
    context: int = 256
    batch_tokens: int = 6144
    learning_rate: float = 2e-3
    hard: float = 0.5  # weight of the target's best token against its whole law
    dropout: float = 0.1  # of what goes into the layers and into the head
    n_common: int = 8192  # most frequent ids, in every step's head
    bf16: bool = False  # multiply in bfloat16
    seed: int = 0


class Batch:
    """Padded rows, and the positions whose next token is learnt."""

    def __init__(self, pieces: Sequence[tuple[Text, int, int]], rng: np.random.Generator) -> None:
        n = max(end - begin for _, begin, end in pieces) - 1
        tokens = np.zeros((len(pieces), n), np.int64)
        at: list[np.ndarray] = []
        ids: list[np.ndarray] = []
        logprobs: list[np.ndarray] = []
        answers: list[np.ndarray] = []
        for row, (text, begin, end) in enumerate(pieces):
            tokens[row, : end - begin - 1] = text.tokens[begin : end - 1]
            part = text.part[begin + 1 : end]
            wanted = part == ANSWER
            wanted |= (part == TURN) & (rng.random(len(part)) < TURN_SHARE)
            where = np.flatnonzero(wanted)
            at.append(row * n + where)
            ids.append(text.top_ids[begin + 1 + where])
            logprobs.append(text.top_logprobs[begin + 1 + where])
            answers.append(part[where] == ANSWER)
        self.tokens = torch.from_numpy(tokens)
        self.at = torch.from_numpy(np.concatenate(at))
        self.top_ids = torch.from_numpy(np.concatenate(ids).astype(np.int64))
        self.top_logprobs = torch.from_numpy(np.concatenate(logprobs).astype(np.float32))
        self.answer = torch.from_numpy(np.concatenate(answers))


def split(texts: Sequence[tuple[int, AnyText]]) -> tuple[list[AnyText], list[AnyText]]:
    """Texts to train on, and held out ones: whole rounds, so that openings are not shared."""
    rounds = sorted({index for index, _ in texts})
    held = set(rounds[HELD_OUT // 2 :: HELD_OUT]) or set(rounds[-1:])
    if len(rounds) == 1:  # little data: every eighth text
        every = [text for _, text in texts]
        return [t for i, t in enumerate(every) if i % 8], every[::8]
    return (
        [text for index, text in texts if index not in held],
        [text for index, text in texts if index in held],
    )


def learnt_from(text: Text, context: int) -> int:
    """Where what is trained on begins: at most a context before the first token to learn."""
    written = np.flatnonzero(text.part != FRAME)
    return max(0, int(written[0]) - context) if len(written) else len(text.tokens)


def n_learnt_from(texts: Sequence[Text], context: int) -> int:
    """Tokens of one pass over the texts."""
    return sum(len(text.tokens) - learnt_from(text, context) for text in texts)


def pieces(
    texts: Sequence[AnyText], context: int, batch_tokens: int, rng: np.random.Generator
) -> Iterator[list[tuple[AnyText, int, int]]]:
    """One pass over the texts in windows [begin, end) of the context + 1, each pass cut elsewhere,
    several of like length at a time."""
    found = []
    for text in texts:
        first, n = learnt_from(text, context), len(text.tokens)
        if n - first < 3:
            continue
        begin = first
        if rng.random() >= 0.5:
            begin += int(rng.integers(0, min(context, n - first - 2)))
        while n - begin >= 2:
            end = min(begin + context + 1, n)
            found.append((text, begin, end))
            begin = end - 1
    order = rng.permutation(len(found))
    pool = 512  # rows of like length share a batch, little is padding
    groups: list[list[tuple[AnyText, int, int]]] = []
    for first in range(0, len(order), pool):
        chosen = sorted((found[i] for i in order[first : first + pool]), key=lambda p: p[2] - p[1])
        group: list[tuple[AnyText, int, int]] = []
        for piece in chosen:
            width = piece[2] - piece[1]
            if group and width * (len(group) + 1) > batch_tokens:
                groups.append(group)
                group = []
            group.append(piece)
        if group:
            groups.append(group)
    for i in rng.permutation(len(groups)):
        yield groups[i]


def batches(
    texts: Sequence[Text], options: TrainOptions, rng: np.random.Generator
) -> Iterator[Batch]:
    for group in pieces(texts, options.context, options.batch_tokens, rng):
        batch = Batch(group, rng)
        if len(batch.at) > 0:
            yield batch


def frequencies(texts: Sequence[Text], vocab_size: int) -> np.ndarray:
    """How often each id was text or among the target's best tokens."""
    counts = np.zeros(vocab_size)
    for text in texts:
        counts += np.bincount(text.tokens, minlength=vocab_size)
        written = text.part != FRAME
        ids = text.top_ids[written].ravel()
        weights = np.exp(text.top_logprobs[written].astype(np.float32)).ravel()
        counts += np.bincount(ids[ids >= 0], weights[ids >= 0], minlength=vocab_size)
    return counts


class Trainer(Training[Batch]):
    def __init__(self, draft: Draft, texts: Sequence[Text], options: TrainOptions) -> None:
        self.draft = draft
        self.texts = texts
        self.options = options
        self.counts = frequencies(texts, draft.shape.vocab_size)
        self.part = PartOfVocabulary(self.counts, options.n_common)
        matrices = [p for p in draft.blocks.parameters() if p.ndim == 2]
        vectors = [p for p in draft.parameters() if p.ndim == 1]
        optimizer = adamw(matrices, 0.05, vectors, draft.embedding, EMBEDDING_RATE)
        super().__init__(draft, optimizer, options, n_learnt_from(texts, options.context))

    def batches(self) -> Iterator[Batch]:
        return batches(self.texts, self.options, self.rng)

    def size(self, batch: Batch) -> int:
        return batch.tokens.numel()

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the ids of the batch, the common ids and some of the rest."""
        kept = (batch.top_ids >= 0) & (batch.top_logprobs > math.log(LEAST_PROBABILITY))
        kept[:, 0] = True
        known = torch.where(kept, batch.top_ids, batch.top_ids[:, :1])
        needed = torch.cat((batch.tokens.flatten(), known.flatten()))
        ids, correction, place = self.part.draw(needed, self.rng)
        rows = functional.embedding(ids, self.draft.embedding)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            inputs = functional.embedding(place[batch.tokens], rows)
            hidden = self.draft.run(functional.dropout(inputs, self.options.dropout))
            hidden = hidden.flatten(0, 1).index_select(0, batch.at).float()
            hidden = functional.dropout(hidden, self.options.dropout)
        weights = label_weights(batch.top_logprobs, kept, self.options.hard)
        loss: Tensor = HeadLoss.apply(
            hidden, rows, correction, place[known], weights, self.options.bf16
        )
        return loss

    def state(self) -> dict[str, Any]:
        shape = dataclasses.asdict(self.draft.shape)
        return {"shape": shape, "draft": self.draft.state_dict(), **super().state()}

    def restore(self, state: dict[str, Any]) -> None:
        self.draft.load_state_dict(state["draft"])
        super().restore(state)


def new_draft(shape: DraftShape, embedding: Tensor, counts: np.ndarray, seed: int) -> Draft:
    """Starts from the target's own embedding, in fewer directions."""
    torch.manual_seed(seed)
    draft = Draft(shape)
    weights = torch.from_numpy(np.sqrt(counts + 1)).float()
    with torch.no_grad():
        draft.embedding.copy_(project(embedding, shape.hidden_size, weights))
        draft.output_norm.weight.fill_(1 / 3)  # else it begins sure that every token is repeated
    return draft


@torch.no_grad()
def evaluate(draft: Draft, texts: Sequence[Text], max_tokens: int = 20000) -> dict[str, float]:
    """On held-out answers: cross-entropy to the target's law, how often the best token agrees."""
    options = TrainOptions(1, 1, context=512, batch_tokens=1024)
    rng = np.random.default_rng(0)
    losses, agree, n = 0.0, 0, 0
    for batch in batches(texts, options, rng):
        hidden = draft.hidden(batch.tokens).flatten(0, 1)[batch.at[batch.answer]]
        laws = (hidden @ draft.embedding.T).log_softmax(-1)
        ids = batch.top_ids[batch.answer]
        weights = batch.top_logprobs[batch.answer].exp() * (ids >= 0)
        losses -= float((weights * laws.gather(1, ids.clamp(min=0))).sum())
        agree += int((laws.argmax(-1) == ids[:, 0]).sum())
        n += len(ids)
        if n >= max_tokens:
            break
    return {"loss": losses / max(n, 1), "agreement": agree / max(n, 1), "tokens": n}


def options_of(args: argparse.Namespace) -> dict[str, Any]:
    """Those that a draft's training and a head's have in common."""
    names = ("minutes", "epochs", "context", "batch_tokens", "learning_rate", "seed")
    bf16 = args.precision == "bf16" or (args.precision == "auto" and has_bf16())
    return {name: getattr(args, name) for name in names} | {"bf16": bf16}


def has_bf16() -> bool:
    """Whether this processor multiplies in bfloat16 faster."""
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
