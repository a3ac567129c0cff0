"""The training loop: packed windows, Muon for matrices and AdamW for the rest, resumable."""

from __future__ import annotations

import math
import pathlib
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from training_safety import NotSaved, ToolError, check_finite, save_torch, stop_on_request

WARM_UP = 40  # steps
COOL_DOWN = 0.5  # last part of the run, over which the rate falls to zero
LONG_PART = 0.3  # last part of the run, with windows of twice the length
SAVE_SECONDS = 120.0


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast() -> torch.autocast:
    return torch.autocast(device().type, dtype=torch.bfloat16)


def windows(row: np.ndarray, window: int, batch: int, seed: int) -> Iterator[torch.Tensor]:
    """Batches of window + 1 tokens without end; every epoch cuts the row at other places."""
    if len(row) < (batch + 1) * window + 2:
        raise ToolError(
            f"{len(row)} tokens are too few for {batch} windows of {window}: give more text"
        )
    rng = np.random.default_rng(seed)
    while True:
        starts = np.arange(int(rng.integers(window)), len(row) - window - 1, window)
        rng.shuffle(starts)
        for i in range(0, len(starts) - batch + 1, batch):
            cut = np.stack([row[s : s + window + 1] for s in starts[i : i + batch]])
            yield torch.from_numpy(cut.astype(np.int64)).to(device())


def optimizers(
    model: nn.Module, matrix_rate: float, other_rate: float
) -> list[torch.optim.Optimizer]:
    """Muon for the hidden matrices: it learns more per token; AdamW for all else."""
    hidden, other = [], []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name and parameter.ndim == 2
        (hidden if inside else other).append(parameter)
    muon = torch.optim.Muon(
        hidden, lr=matrix_rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(other, lr=other_rate, betas=(0.9, 0.97), weight_decay=0.01)
    for group in (*muon.param_groups, *adamw.param_groups):
        group["full_rate"] = group["lr"]
    return [muon, adamw]


def rate_at(step: int, progress: float) -> float:
    """Up over some steps, then level, then down to zero."""
    return min(1.0, (step + 1) / WARM_UP) * min(1.0, max(0.0, 1.0 - progress) / COOL_DOWN)


def train(
    model: nn.Module,
    batches_of: Callable[[bool, int], Iterator[torch.Tensor]],
    loss_of: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    *,
    rates: tuple[float, float],
    minutes: float,
    max_steps: int,
    checkpoint: pathlib.Path,
    log: Callable[[str], None],
    evaluate: Callable[[], float],
    label: str,
) -> dict[str, float]:
    """Trains until the minutes or the steps are used up; continues a checkpoint that is there.

    batches_of(are_long, seed) gives the batches; the seed is another one after each continuation.
    Ctrl-C, SIGTERM and SIGHUP end it after a step, with everything saved.
    """
    with stop_on_request(log) as stopped:
        state = _train(
            model, batches_of, loss_of, rates, minutes, max_steps, checkpoint, log, evaluate, label,
            stopped,
        )  # fmt: skip
        stopped.raise_again()
    return state | {"minutes": minutes}


def _restore(
    checkpoint: pathlib.Path, model: nn.Module, opts: list[torch.optim.Optimizer]
) -> dict[str, float]:
    try:
        saved = torch.load(checkpoint, map_location=device(), weights_only=True)
        model.load_state_dict(saved["model"])
        for opt, content in zip(opts, saved["optimizers"], strict=True):
            opt.load_state_dict(content)
        state = {name: saved["state"][name] for name in ("step", "tokens", "seconds")}
        check_finite(model.parameters(), f"{checkpoint}: the training")
    except ToolError:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ToolError(
            f"{checkpoint}: cannot be continued ({reason}); delete it to begin anew"
        ) from None
    return state


def _train(
    model: nn.Module,
    batches_of: Callable[[bool, int], Iterator[torch.Tensor]],
    loss_of: Callable[[nn.Module, torch.Tensor], torch.Tensor],
    rates: tuple[float, float],
    minutes: float,
    max_steps: int,
    checkpoint: pathlib.Path,
    log: Callable[[str], None],
    evaluate: Callable[[], float],
    label: str,
    stopped: Callable[[], bool],
) -> dict[str, float]:
    opts = optimizers(model, *rates)
    state = {"step": 0, "tokens": 0, "seconds": 0.0}
    if checkpoint.exists():
        state = _restore(checkpoint, model, opts)
        log(f"continues at step {state['step']}")
    batches = [batches_of(are_long, state["step"]) for are_long in (False, True)]
    model.train()
    last_step = last_save = shown_at = time.monotonic()
    shown, running = state["tokens"], math.nan
    while True:
        now = time.monotonic()
        # Time for which the process was stopped does not count.
        state["seconds"] += min(now - last_step, 15.0)
        last_step = now
        progress = max(state["step"] / max_steps, state["seconds"] / (60 * minutes))
        if stopped():
            _save(checkpoint, model, opts, state)
            log(f"step {state['step']}: saved as {checkpoint}")
            return state
        done = progress >= 1.0
        if done or now - last_save > SAVE_SECONDS:
            try:
                _save(checkpoint, model, opts, state)
            except NotSaved as error:
                if done:
                    raise
                log(f"{error}; goes on all the same")  # there may be room again next time
            last_save = now
            log(f"step {state['step']}: {label} {evaluate():.4f}")
            model.train()
        if done:
            return state
        batch = next(batches[progress > 1.0 - LONG_PART])
        factor = rate_at(state["step"], progress)
        for opt in opts:
            for group in opt.param_groups:
                group["lr"] = group["full_rate"] * factor
        with autocast():
            loss = loss_of(model, batch)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for opt in opts:
            opt.step()
            opt.zero_grad(set_to_none=True)
        value = loss.item()
        if not math.isfinite(value):
            raise ToolError(
                f"training diverged after step {state['step']}: the loss is {value}. What was "
                "saved before is kept"
            )
        running = value if math.isnan(running) else 0.95 * running + 0.05 * value
        state["step"] += 1
        state["tokens"] += batch.shape[0] * (batch.shape[1] - 1)
        if state["step"] % 20 == 0:
            speed = (state["tokens"] - shown) / (now - shown_at)
            log(
                f"step {state['step']}: loss {running:.4f}, {state['tokens'] / 1e6:.2f} M tokens, "
                f"{speed:.0f} tokens/s, {100 * progress:.0f} %"
            )
            shown, shown_at = state["tokens"], now


def next_token_loss(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=batch[:, :-1]).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1).float(), batch[:, 1:].flatten())


@torch.no_grad()
def held_out_loss(model: nn.Module, row: np.ndarray, window: int, max_windows: int = 64) -> float:
    """Mean over windows spread evenly through the row."""
    model.eval()
    n = min(max_windows, (len(row) - 1) // window)
    starts = np.linspace(0, len(row) - window - 1, n).astype(int)
    total = 0.0
    for i in range(0, n, 16):
        cut = np.stack([row[s : s + window + 1] for s in starts[i : i + 16]]).astype(np.int64)
        batch = torch.from_numpy(cut).to(device())
        total += next_token_loss(model, batch).item() * len(cut)
    return total / n


def _save(
    path: pathlib.Path, model: nn.Module, opts: list[torch.optim.Optimizer], state: dict
) -> None:
    content = {
        "model": model.state_dict(),
        "optimizers": [opt.state_dict() for opt in opts],
        "state": state,
    }
    check_finite(model.parameters(), "the training")
    save_torch(path, content)
