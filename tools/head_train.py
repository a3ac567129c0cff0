"""Trains a head as it will be used: several steps deep on its own outputs, towards the target's
laws over the ids that it can draft."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from draft_data import ANSWER, TURN
from draft_gguf import Target
from draft_loss import LEAST_PROBABILITY, HeadLoss, PartOfVocabulary, label_weights
from draft_train import TURN_SHARE, frequencies, n_learnt_from, pieces
from head_data import TappedText, from_bits
from head_net import Head, HeadShape
from training_loop import Training, adamw

OUTPUT_RATE = 0.5  # of the learning rate: its rows begin as the target's
STEP_WEIGHT = 0.8  # of a step against the one before
EVALUATED_TOKENS = 1024  # of a held-out text, from its beginning
# Architectures whose q and k rotate pairs of neighbours in GGUF files, as a head's do.
NEIGHBOURS = ("llama", "granite", "granitemoe", "smollm3")


@dataclasses.dataclass
class HeadOptions:
    minutes: float
    epochs: float
    context: int = 384
    batch_tokens: int = 4096
    learning_rate: float = 6e-4
    n_steps: int = 4
    hard: float = 0.5  # weight of the target's best token against its whole law
    n_common: int = 2048  # most frequent ids, in every step's output
    bf16: bool = False  # multiply in bfloat16
    seed: int = 0


class HeadBatch:
    """Padded windows [begin, end) of texts; row t has the taps of position begin + t.

    Attributes:
        tokens: int64 [n_batch, n + n_steps - 1], those after each row's position.
        taps: float32 [n_batch, n, 3 * hidden_size].
        row, position: int64 [m], of the labels: which window, and where in it.
        top_ids, top_logprobs: [m, N_TOP], the target's law there.
        answer: bool [m], whether it is the target's answer.
        said: bool [m], whether the text has the target's best token there.
    """

    def __init__(
        self,
        windows: Sequence[tuple[TappedText, int, int]],
        n_steps: int,
        rng: np.random.Generator,
    ) -> None:
        n = max(end - begin for _, begin, end in windows) - 1
        width = windows[0][0].taps.shape[1]
        self.n = n
        tokens = np.zeros((len(windows), n + n_steps - 1), np.int64)
        taps = np.zeros((len(windows), n, width), np.int16)
        columns: list[tuple[np.ndarray, ...]] = []
        for row, (text, begin, end) in enumerate(windows):
            tokens[row, : end - begin - 1] = text.tokens[begin + 1 : end]
            taps[row, : end - begin - 1] = text.taps[begin : end - 1]
            part = text.part[begin:end]
            wanted = part == ANSWER
            wanted |= (part == TURN) & (rng.random(len(part)) < TURN_SHARE)
            wanted[:2] = False  # row 0 drafts position 2
            at = np.flatnonzero(wanted)
            ids = text.top_ids[begin + at]
            columns.append(
                (
                    np.full(len(at), row),
                    at,
                    ids.astype(np.int64),
                    text.top_logprobs[begin + at].astype(np.float32),
                    part[at] == ANSWER,
                    ids[:, 0] == text.tokens[begin + at],
                )
            )
        self.tokens, self.taps = torch.from_numpy(tokens), from_bits(taps)
        whole = [torch.from_numpy(np.concatenate(column)) for column in zip(*columns, strict=True)]
        self.row, self.position, self.top_ids, self.top_logprobs, self.answer, self.said = whole

    def at(self, step: int) -> tuple[Tensor, Tensor]:
        """The labels of a step, and where its rows are in a flattened [n_batch, n]."""
        chosen = (self.position >= 2 + step).nonzero()[:, 0]
        return chosen, self.row[chosen] * self.n + self.position[chosen] - 2 - step

    def wanted(self) -> Tensor:
        """The rows of a flattened [n_batch, n] that draft something labelled."""
        steps = range(self.tokens.shape[1] - self.n + 1)
        return torch.cat([self.at(step)[1] for step in steps]).unique()


class HeadTrainer(Training[HeadBatch]):
    """
    Args:
        embedding: the target's, float32 [n_tokens, hidden_size]; it is not trained.
        ids: int64 [n_draft], the target's ids that the head drafts, ascending.
    """

    def __init__(
        self,
        head: Head,
        embedding: Tensor,
        ids: Tensor,
        texts: Sequence[TappedText],
        options: HeadOptions,
    ) -> None:
        self.head = head
        self.embedding = embedding
        self.ids = ids
        self.texts = texts
        self.options = options
        self.place = torch.full((len(embedding),), -1, dtype=torch.int64)
        self.place[ids] = torch.arange(len(ids))
        counts = frequencies(texts, len(embedding))[ids.numpy()]
        self.part = PartOfVocabulary(counts, options.n_common)
        matrices = [p for p in head.parameters() if p.ndim == 2 and p is not head.output]
        vectors = [p for p in head.parameters() if p.ndim == 1]
        optimizer = adamw(matrices, 0.02, vectors, head.output, OUTPUT_RATE)
        super().__init__(head, optimizer, options, n_learnt_from(texts, options.context))

    def batches(self) -> Iterator[HeadBatch]:
        options = self.options
        for group in pieces(self.texts, options.context, options.batch_tokens, self.rng):
            batch = HeadBatch(group, options.n_steps, self.rng)
            if bool(self.can_say(batch).any()):  # else there is no loss
                yield batch

    def can_say(self, batch: HeadBatch) -> Tensor:
        """bool [m], whether the target's best token is among the head's ids."""
        return self.place[batch.top_ids[:, 0].clamp(min=0)] >= 0

    def size(self, batch: HeadBatch) -> int:
        return batch.taps.shape[0] * batch.taps.shape[1]

    def loss(self, batch: HeadBatch) -> Tensor:
        known = self.place[batch.top_ids.clamp(min=0)]
        kept = (batch.top_ids >= 0) & (batch.top_logprobs > math.log(LEAST_PROBABILITY))
        kept &= known >= 0
        learnt = kept[:, 0] = self.can_say(batch)
        known = torch.where(kept, known, known[:, :1])
        ids, correction, place = self.part.draw(known[learnt], self.rng)
        output = functional.embedding(ids, self.head.output)
        weights = label_weights(batch.top_logprobs, kept, self.options.hard)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            embedded = functional.embedding(batch.tokens, self.embedding)
            steps = self.head.unroll(embedded, batch.taps, self.options.n_steps, batch.wanted())
        loss = torch.zeros(())
        for step, rows in enumerate(steps):
            chosen, at = batch.at(step)
            both = learnt[chosen]
            chosen, at = chosen[both], at[both]
            if len(at) == 0:
                continue
            hidden = rows.flatten(0, 1).index_select(0, at).float()
            own: Tensor = HeadLoss.apply(
                hidden, output, correction, place[known[chosen]], weights[chosen],
                self.options.bf16,
            )  # fmt: skip
            loss = loss + STEP_WEIGHT**step * own
        return loss / sum(STEP_WEIGHT**step for step in range(len(steps)))

    def state(self) -> dict[str, Any]:
        shape = dataclasses.asdict(self.head.shape)
        own = {"shape": shape, "ids": self.ids, "head": self.head.state_dict()}
        return own | super().state()

    def restore(self, state: dict[str, Any]) -> None:
        if not torch.equal(state["ids"], self.ids):
            raise ValueError("it drafts other ids")
        self.head.load_state_dict(state["head"])
        super().restore(state)


def saved_ids(state: dict[str, Any], n_tokens: int, n_draft: int) -> Tensor:
    """Those of a state, of which its output is. Raises KeyError or ValueError."""
    ids = state["ids"]
    whole = isinstance(ids, Tensor) and ids.dtype == torch.int64 and ids.shape == (n_draft,)
    if not whole or ids[0] < 0 or ids[-1] >= n_tokens or not bool((ids.diff() > 0).all()):
        raise ValueError(f"its ids are not {n_draft} of {n_tokens}, ascending")
    return torch.as_tensor(ids)


def choose_ids(texts: Sequence[TappedText], n_tokens: int, n_draft: int) -> Tensor:
    """The most frequent ids of the texts, ascending; low ids where there are not enough."""
    order = np.argsort(-frequencies(texts, n_tokens), kind="stable")
    return torch.from_numpy(np.sort(order[:n_draft]).astype(np.int64))


def mean_taps(texts: Sequence[TappedText], most: int = 20000) -> Tensor:
    """Mean size of each number of the taps over some texts: [3 * hidden_size]."""
    total, n = torch.zeros(texts[0].taps.shape[1]), 0
    for text in texts:
        values = from_bits(np.array(text.taps))
        total += values.abs().sum(0)
        n += len(values)
        if n >= most:
            break
    return (total / max(n, 1)).clamp(min=1e-4)


@torch.no_grad()
def new_head(shape: HeadShape, target: Target, ids: Tensor, tap_scale: Tensor, seed: int) -> Head:
    """Begins as a step from the highest tap through the target's last layer to its output."""
    torch.manual_seed(seed)
    head = Head(shape)
    h = shape.hidden_size
    head.tap_scale.copy_(tap_scale)
    head.fc.weight.zero_()
    head.fc.weight[:, 2 * h :] = torch.diag(tap_scale[2 * h :])
    head.output.copy_(target.embedding[ids])
    block = f"blk.{int(target.of_arch('block_count')) - 1}"

    def take(name: str, into: Tensor, neighbours: bool = False) -> None:
        if name not in target.tensors:
            return
        values = target.tensor(name)
        if values.shape != into.shape:
            return
        if neighbours and target.value("general.architecture") not in NEIGHBOURS:
            d = shape.head_dim
            values = values.view(-1, 2, d // 2, values.shape[1]).transpose(1, 2)
        into.copy_(values.reshape(into.shape))

    take("output_norm.weight", head.output_norm.weight)
    take(f"{block}.attn_norm.weight", head.attn_norm_2.weight)
    for part in ("q", "k", "v"):
        weight: Tensor = getattr(head, f"attn_{part}").weight
        weight[:, :h] *= 0.5
        take(f"{block}.attn_{part}.weight", weight[:, h:], neighbours=part != "v")
    take(f"{block}.attn_output.weight", head.attn_output.weight)
    take(f"{block}.ffn_norm.weight", head.ffn_norm.weight)
    parts = [f"{block}.ffn_{part}.weight" for part in ("gate", "up", "down")]
    if all(part in target.tensors for part in parts):
        inner = strongest(*(target.tensor(part) for part in parts), shape.intermediate_size)
        own = (head.ffn_gate, head.ffn_up, head.ffn_down)
        for part, values in zip(own, inner, strict=True):
            if part.weight.shape == values.shape:
                part.weight.copy_(values)
    return head


def strongest(gate: Tensor, up: Tensor, down: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Those n inner numbers of a feed-forward part that have the largest weights."""
    sizes = gate.norm(dim=1) * up.norm(dim=1) * down.norm(dim=0)
    kept = sizes.topk(min(n, len(sizes))).indices.sort().values
    return gate[kept], up[kept], down[:, kept]


@torch.no_grad()
def evaluate(
    head: Head,
    embedding: Tensor,
    ids: Tensor,
    texts: Sequence[TappedText],
    *,
    n_steps: int = 4,
    max_rounds: int = 4000,
) -> dict[str, Any]:
    """What greedy chains of `n_steps` drafts would do on held-out answers.

    Returns:
        rounds: a chain each, from the first token of an answer on and then from behind what was
        accepted and the target's own token, as decoding goes; only where the text has the
        target's best tokens, so that it is what greedy decoding gives.
        accepted: for each position the part of rounds in which it and all before it were right.
        tokens_per_pass: 1 + the sum of `accepted`.
        agreement: the part of all positions at which the first draft is right; loss: its
        cross-entropy to the target's law, over the ids that the head has.
    """
    rng = np.random.default_rng(0)
    accepted, n = torch.zeros(n_steps), 0
    losses, n_losses, n_right = 0.0, 0, 0
    place = torch.full((len(embedding),), -1, dtype=torch.int64)
    place[ids] = torch.arange(len(ids))
    for text in texts:
        window = (text, 0, min(len(text.tokens), EVALUATED_TOKENS))
        if window[2] < 3:
            continue
        batch = HeadBatch([window], n_steps, rng)
        steps = head.unroll(embedding[batch.tokens], batch.taps, n_steps)
        fits = torch.ones(batch.n, dtype=torch.bool)
        right = torch.zeros((n_steps, batch.n), dtype=torch.bool)
        for step, rows in enumerate(steps):
            chosen, at = batch.at(step)
            chosen, at = chosen[batch.answer[chosen]], at[batch.answer[chosen]]
            here = torch.zeros(batch.n, dtype=torch.bool)
            here[at] = True
            laws = (rows.flatten(0, 1)[at] @ head.output.T).log_softmax(-1)
            right[step][at] = ids[laws.argmax(-1)] == batch.top_ids[chosen, 0]
            if step == 0:
                known = place[batch.top_ids[chosen].clamp(min=0)]
                weights = batch.top_logprobs[chosen].exp() * (batch.top_ids[chosen] >= 0)
                weights *= known >= 0
                found = weights.sum(-1) > 0
                weights = weights[found] / weights[found].sum(-1, keepdim=True)
                losses -= float((weights * laws[found].gather(1, known[found].clamp(min=0))).sum())
                n_losses += int(found.sum())
                n_right += int(right[0][at[found]].sum())
            if step < n_steps - 1:  # the text goes on as greedy decoding would
                here[at] &= batch.said[chosen]
            fits &= here
        for chain in walk(right.cumprod(0).sum(0), fits):
            accepted[:chain] += 1
            n += 1
        if n >= max_rounds:
            break
    shares = (accepted / max(n, 1)).tolist()
    return {
        "rounds": n,
        "accepted": shares,
        "tokens_per_pass": 1 + sum(shares),
        "agreement": n_right / max(n_losses, 1),
        "loss": losses / max(n_losses, 1),
    }


def walk(n_right: Tensor, fits: Tensor) -> Iterator[int]:
    """The lengths accepted in the rounds of a text. `n_right`: of the chain at each position;
    `fits`: whether a round can be there."""
    at = 0
    while at < len(n_right):
        if fits[at]:
            yield int(n_right[at])
            at += int(n_right[at])
        at += 1
