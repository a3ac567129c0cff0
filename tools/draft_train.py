"""Distillation: the draft learns what the target thought of every next token of its own texts."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from draft_data import ANSWER, FRAME, TURN, Text
from draft_net import Draft, DraftShape, project
from training_safety import ToolError

EMBEDDING_RATE = 0.25  # it begins with something to lose, and most weights are its
LEAST_PROBABILITY = 0.02  # of an id to be learnt
N_RANDOM = 512  # ids drawn in every step to stand for all the rare ones
CHUNK = 256  # rows of logits at a time
LONGEST_STEP_S = 15.0  # what a step took longer the process was stopped
HELD_OUT = 20  # every so many-th round is not trained on
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


def split(texts: Sequence[tuple[int, Text]]) -> tuple[list[Text], list[Text]]:
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


def batches(
    texts: Sequence[Text], options: TrainOptions, rng: np.random.Generator
) -> Iterator[Batch]:
    """One pass over the texts in windows of the context, each epoch cut elsewhere."""
    pieces = []
    for text in texts:
        n = len(text.tokens)
        if n < 3:
            continue
        begin = 0 if rng.random() < 0.5 else int(rng.integers(0, min(options.context, n - 2)))
        while n - begin >= 2:
            end = min(begin + options.context + 1, n)
            pieces.append((text, begin, end))
            begin = end - 1
    order = rng.permutation(len(pieces))
    pool = 512  # rows of like length share a batch, little is padding
    groups: list[list[tuple[Text, int, int]]] = []
    for first in range(0, len(order), pool):
        chosen = sorted((pieces[i] for i in order[first : first + pool]), key=lambda p: p[2] - p[1])
        group: list[tuple[Text, int, int]] = []
        for piece in chosen:
            width = piece[2] - piece[1]
            if group and width * (len(group) + 1) > options.batch_tokens:
                groups.append(group)
                group = []
            group.append(piece)
        if group:
            groups.append(group)
    for i in rng.permutation(len(groups)):
        batch = Batch(groups[i], rng)
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
        loss = torch.zeros(())
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


class Trainer:
    def __init__(self, draft: Draft, texts: Sequence[Text], options: TrainOptions) -> None:
        self.draft = draft
        self.texts = texts
        self.options = options
        self.counts = frequencies(texts, draft.shape.vocab_size)
        order = np.argsort(-self.counts, kind="stable")
        self.common = torch.from_numpy(np.sort(order[: options.n_common]))
        rare = np.ones(draft.shape.vocab_size, bool)
        rare[self.common.numpy()] = False
        self.rare = np.flatnonzero(rare)
        matrices = [p for p in draft.blocks.parameters() if p.ndim == 2]
        vectors = [p for p in draft.parameters() if p.ndim == 1]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": 0.05},
                {"params": vectors, "weight_decay": 0.0},
                {"params": [draft.embedding], "weight_decay": 0.0, "scale": EMBEDDING_RATE},
            ],
            lr=options.learning_rate,
            betas=(0.9, 0.98),
            eps=1e-9,
            fused=True,
        )
        self.rng = np.random.default_rng(options.seed)
        self.epoch = 0.0
        self.spent_s = 0.0
        self.n_steps = 0
        self.n_tokens = 0

    def loss(self, batch: Batch) -> Tensor:
        """Cross-entropy over the ids of the batch, the common ids and some of the rest."""
        # Unlikely ids would only make the head wide.
        kept = (batch.top_ids >= 0) & (batch.top_logprobs > math.log(LEAST_PROBABILITY))
        kept[:, 0] = True
        known = torch.where(kept, batch.top_ids, batch.top_ids[:, :1])
        listed = torch.cat((self.common, batch.tokens.flatten(), known.flatten())).unique()
        n_rare = min(N_RANDOM, len(self.rare))
        drawn = torch.from_numpy(self.rng.choice(self.rare, n_rare, replace=False))
        place = torch.full((self.draft.shape.vocab_size,), -1, dtype=torch.int64)
        place[listed] = torch.arange(len(listed))
        extra = drawn[place[drawn] < 0]
        rows = functional.embedding(torch.cat((listed, extra)), self.draft.embedding)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.options.bf16):
            inputs = functional.embedding(place[batch.tokens], rows)
            hidden = self.draft.run(functional.dropout(inputs, self.options.dropout))
            hidden = hidden.flatten(0, 1).index_select(0, batch.at).float()
            hidden = functional.dropout(hidden, self.options.dropout)
        correction = torch.zeros(len(rows))
        if len(extra) > 0:  # each stands for several
            n_left = self.draft.shape.vocab_size - len(listed)
            correction[len(listed) :] = math.log(n_left / len(extra))
        weights = batch.top_logprobs.exp() * kept
        weights = (1 - self.options.hard) * weights / weights.sum(-1, keepdim=True)
        weights[:, 0] += self.options.hard
        loss: Tensor = HeadLoss.apply(
            hidden, rows, correction, place[known], weights, self.options.bf16
        )
        return loss

    def progress(self) -> float:
        """0 to 1, of time or of epochs, whichever ends first."""
        options = self.options
        return min(max(self.spent_s / 60 / options.minutes, self.epoch / options.epochs), 1.0)

    def rate(self) -> float:
        warm = min(self.n_steps / 100, 1.0)
        return (
            self.options.learning_rate
            * warm
            * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * self.progress())))
        )

    def run(
        self,
        report: Callable[[str], None],
        save: Callable[[], None],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Trains until time or epochs are over or `stopped`; `save` is called now and then, but
        not at the end."""
        losses: list[float] = []
        last = saved = time.monotonic()
        said = 0.0
        n_texts = sum(len(text.tokens) for text in self.texts)
        while self.progress() < 1:
            for batch in batches(self.texts, self.options, self.rng):
                for group in self.optimizer.param_groups:
                    group["lr"] = self.rate() * group.get("scale", 1.0)
                self.optimizer.zero_grad(set_to_none=True)
                loss = self.loss(batch)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.draft.parameters(), 1.0)
                self.optimizer.step()
                self.n_steps += 1
                self.n_tokens += batch.tokens.numel()
                self.epoch += batch.tokens.numel() / n_texts
                now = time.monotonic()
                self.spent_s += min(now - last, LONGEST_STEP_S)
                last = now
                losses.append(loss.item())
                if not math.isfinite(losses[-1]):
                    raise ToolError(
                        f"training diverged in step {self.n_steps}: the loss is {losses[-1]}. What "
                        "was saved before is kept; train anew with a lower --learning-rate"
                    )
                if now - said > 20:
                    report(
                        f"training: {self.progress():.0%}, epoch {self.epoch:.1f}, step "
                        f"{self.n_steps}, loss {np.mean(losses[-50:]):.3f}, "
                        f"{self.n_tokens / self.spent_s:.0f} tokens/s"
                    )
                    said = now
                if now - saved > 180:
                    save()
                    saved = time.monotonic()
                    last = saved
                if stopped():
                    return
                if self.progress() >= 1:
                    break

    def state(self) -> dict[str, Any]:
        return {
            "shape": dataclasses.asdict(self.draft.shape),
            "draft": self.draft.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "spent_s": self.spent_s,
            "n_steps": self.n_steps,
            "n_tokens": self.n_tokens,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.draft.load_state_dict(state["draft"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.spent_s = state["epoch"], state["spent_s"]
        self.n_steps, self.n_tokens = state["n_steps"], state["n_tokens"]
        self.rng = np.random.default_rng((self.options.seed, self.n_steps))


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


def has_bf16() -> bool:
    """Whether this processor multiplies in bfloat16 faster."""
    try:
        flags = pathlib.Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
