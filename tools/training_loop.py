"""A training that ends by time or by passes over its texts, says how far it is, and is saved now
and then: what drafts and heads have in common."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from training_safety import ToolError

LONGEST_STEP_S = 15.0  # what a step took longer the process was stopped
SAVE_SECONDS = 180.0
SAY_SECONDS = 20.0
WARM_UP = 100  # steps
LAST_RATE = 0.02  # of the learning rate

AnyBatch = TypeVar("AnyBatch")


class Limits(Protocol):
    """Of a training's options, those that the loop reads."""

    minutes: float
    epochs: float
    learning_rate: float
    seed: int


def adamw(
    matrices: list[nn.Parameter],
    decay: float,
    others: list[nn.Parameter],
    table: nn.Parameter,
    scale: float,
) -> torch.optim.Optimizer:
    """Weights of matrices decay; what is looked up by token learns at its own rate. The loop sets
    the rate of every step."""
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": others, "weight_decay": 0.0},
        {"params": [table], "weight_decay": 0.0, "scale": scale},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-9, fused=True)


class Training(Generic[AnyBatch]):
    """Subclasses say what a pass over the texts is and what is lost on a batch.

    Args:
        optimizer: groups may have a `scale` of the learning rate.
        n_tokens: of the texts: one epoch.
    """

    def __init__(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, limits: Limits, n_tokens: int
    ) -> None:
        self.module = module
        self.optimizer = optimizer
        self.limits = limits
        self.n_text_tokens = n_tokens
        self.rng = np.random.default_rng(limits.seed)
        self.epoch = 0.0
        self.spent_s = 0.0
        self.n_steps = 0
        self.n_tokens = 0

    def batches(self) -> Iterator[AnyBatch]:
        """One pass over the texts."""
        raise NotImplementedError

    def size(self, batch: AnyBatch) -> int:
        """Tokens, padding included."""
        raise NotImplementedError

    def loss(self, batch: AnyBatch) -> Tensor:
        raise NotImplementedError

    def progress(self) -> float:
        """0 to 1, of time or of epochs, whichever ends first."""
        spent = max(self.spent_s / 60 / self.limits.minutes, self.epoch / self.limits.epochs)
        return min(spent, 1.0)

    def rate(self) -> float:
        """Up over some steps, then down as a cosine."""
        warm = min(self.n_steps / WARM_UP, 1.0)
        falling = 0.5 * (1 + math.cos(math.pi * self.progress()))
        return self.limits.learning_rate * warm * (LAST_RATE + (1 - LAST_RATE) * falling)

    def step(self, batch: AnyBatch) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate() * group.get("scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
        self.optimizer.step()
        self.n_steps += 1
        self.n_tokens += self.size(batch)
        self.epoch += self.size(batch) / self.n_text_tokens
        value = loss.item()
        if not math.isfinite(value):
            raise ToolError(
                f"training diverged in step {self.n_steps}: the loss is {value}. What was saved "
                "before is kept; train anew with a lower --learning-rate"
            )
        return value

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
        while self.progress() < 1:
            before = self.n_steps
            for batch in self.batches():
                losses.append(self.step(batch))
                now = time.monotonic()
                self.spent_s += min(now - last, LONGEST_STEP_S)
                last = now
                if now - said > SAY_SECONDS:
                    report(
                        f"training: {self.progress():.0%}, epoch {self.epoch:.1f}, step "
                        f"{self.n_steps}, loss {np.mean(losses[-50:]):.3f}, "
                        f"{self.n_tokens / self.spent_s:.0f} tokens/s"
                    )
                    said = now
                if now - saved > SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
                    last = saved
                if stopped():
                    return
                if self.progress() >= 1:
                    break
            if self.n_steps == before:
                raise ToolError("the texts have nothing that can be learnt: give others")

    def state(self) -> dict[str, Any]:
        """What `restore` takes, without the module's weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.epoch,
            "spent_s": self.spent_s,
            "n_steps": self.n_steps,
            "n_tokens": self.n_tokens,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Raises ValueError, KeyError, ... if something in it is not what `state` gives."""
        for name in ("epoch", "spent_s", "n_steps", "n_tokens"):
            value = state[name]
            kinds = (int,) if name.startswith("n_") else (int, float)
            if type(value) not in kinds or not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value!r}, expected a number from 0")
        self.optimizer.load_state_dict(state["optimizer"])
        for parameter, kept in self.optimizer.state.items():
            for name in ("exp_avg", "exp_avg_sq"):
                if kept[name].shape != parameter.shape:
                    raise ValueError(f"the optimizer's {name} has other sizes than its weights")
        self.epoch, self.spent_s = state["epoch"], state["spent_s"]
        self.n_steps, self.n_tokens = state["n_steps"], state["n_tokens"]
        self.rng = np.random.default_rng((self.limits.seed, self.n_steps))
