"""A draft that learns to predict what its target predicts: acceptance is what counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from training import loop


@torch.no_grad()
def narrow_embeddings(target: nn.Module, draft: nn.Module) -> None:
    """Starts the draft's embeddings as the target's, in the directions in which they vary most."""
    pairs = [(target.get_input_embeddings(), draft.get_input_embeddings())]
    if target.get_output_embeddings().weight is not target.get_input_embeddings().weight:
        pairs.append((target.get_output_embeddings(), draft.get_output_embeddings()))
    for wide, narrow in pairs:
        n = narrow.weight.shape[1]
        left, size, _ = torch.linalg.svd(wide.weight.float(), full_matrices=False)
        rows = left[:, :n] * size[:n]
        narrow.weight.copy_(rows * (wide.weight.std() / rows.std()))


def loss_against(target: nn.Module) -> Callable[[nn.Module, torch.Tensor], torch.Tensor]:
    """Kullback-Leibler divergence from the target's distribution, and a little of the text."""

    def loss(draft: nn.Module, batch: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = target(input_ids=batch[:, :-1]).logits.flatten(0, 1).float().log_softmax(-1)
        found = draft(input_ids=batch[:, :-1]).logits.flatten(0, 1).float().log_softmax(-1)
        own = nn.functional.nll_loss(found, batch[:, 1:].flatten())
        divergence = nn.functional.kl_div(found, wanted, log_target=True, reduction="batchmean")
        return divergence + 0.1 * own

    return loss


def mixed(texts: Iterator[torch.Tensor], written: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """Batches of both."""
    for text, own in zip(texts, written, strict=False):
        yield torch.cat([text, own])


@torch.no_grad()
def write_texts(
    target: nn.Module, row: np.ndarray, *, n_tokens: int, seed: int, log: Callable[[str], None]
) -> np.ndarray:
    """What the target writes after pieces of the corpus: half greedily, half sampled."""
    start, length = 32, 224
    batch = min(48, 1 + n_tokens // (start + length))
    target.eval()
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    written: list[np.ndarray] = []
    while sum(len(part) for part in written) < n_tokens:
        places = rng.integers(0, len(row) - start, batch)
        prompts = np.stack([row[p : p + start] for p in places]).astype(np.int64)
        ids = torch.from_numpy(prompts).to(loop.device())
        sampling = {"do_sample": True, "temperature": 0.7, "top_k": 0}
        with loop.autocast():
            out = target.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                min_new_tokens=length,
                max_new_tokens=length,
                use_cache=True,
                pad_token_id=0,
                **(sampling if len(written) % 2 else {"do_sample": False}),
            )
        written.append(out.cpu().numpy().astype(np.uint16).reshape(-1))
        log(f"texts: {sum(len(part) for part in written)} tokens")
    return np.concatenate(written)


@torch.no_grad()
def agreement(target: nn.Module, draft: nn.Module, row: np.ndarray, window: int) -> float:
    """The part of a text's positions where both have the same most likely next token."""
    target.eval()
    draft.eval()
    starts = np.linspace(0, len(row) - window - 1, 48).astype(int)
    cut = np.stack([row[s : s + window] for s in starts]).astype(np.int64)
    same = []
    for part in torch.from_numpy(cut).to(loop.device()).split(16):
        both = [model(input_ids=part).logits.argmax(-1) for model in (target, draft)]
        same.append((both[0] == both[1]).float().mean().item())
    return float(np.mean(same))
