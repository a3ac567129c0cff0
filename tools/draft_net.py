"""The draft in PyTorch: the `llama` architecture with one matrix as embedding and output head."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclasses.dataclass(frozen=True)
class DraftShape:
    """Sizes of a draft; head_dim = hidden_size / n_heads."""

    vocab_size: int
    hidden_size: int = 128
    n_layers: int = 2
    n_heads: int = 4
    intermediate_size: int = 384
    rope_theta: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.n_heads


class RMSNorm(nn.Module):
    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.epsilon)


class Block(nn.Module):
    def __init__(self, shape: DraftShape) -> None:
        super().__init__()
        h, f = shape.hidden_size, shape.intermediate_size
        self.n_heads = shape.n_heads
        self.attn_norm = RMSNorm(h, shape.epsilon)
        self.attn_q = nn.Linear(h, h, bias=False)
        self.attn_k = nn.Linear(h, h, bias=False)
        self.attn_v = nn.Linear(h, h, bias=False)
        self.attn_output = nn.Linear(h, h, bias=False)
        self.ffn_norm = RMSNorm(h, shape.epsilon)
        self.ffn_gate = nn.Linear(h, f, bias=False)
        self.ffn_up = nn.Linear(h, f, bias=False)
        self.ffn_down = nn.Linear(f, h, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        n_batch, n, h = x.shape
        y = self.attn_norm(x)
        q, k, v = (
            part(y).view(n_batch, n, self.n_heads, -1).transpose(1, 2)
            for part in (self.attn_q, self.attn_k, self.attn_v)
        )
        with torch.autocast("cpu", enabled=False):  # slower in bfloat16
            q, k = rotate(q.float(), cos, sin), rotate(k.float(), cos, sin)
            y = functional.scaled_dot_product_attention(q, k, v.float(), is_causal=True)
        x = x + self.attn_output(y.transpose(1, 2).reshape(n_batch, n, h))
        y = self.ffn_norm(x)
        return x + self.ffn_down(functional.silu(self.ffn_gate(y)) * self.ffn_up(y))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding on pairs (2i, 2i + 1), as `llama` files have it."""
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class Draft(nn.Module):
    def __init__(self, shape: DraftShape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Parameter(torch.empty(shape.vocab_size, shape.hidden_size))
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.n_layers))
        self.output_norm = RMSNorm(shape.hidden_size, shape.epsilon)
        nn.init.normal_(self.embedding, std=1 / math.sqrt(shape.hidden_size))
        for name, parameter in self.blocks.named_parameters():
            if parameter.ndim == 2:
                std = 1 / math.sqrt(parameter.shape[1])
                if name.endswith(("attn_output.weight", "ffn_down.weight")):
                    std /= math.sqrt(2 * shape.n_layers)
                nn.init.normal_(parameter, std=std)

    def hidden(self, tokens: Tensor) -> Tensor:
        """[n_batch, n] ids -> [n_batch, n, hidden_size], normalised, ready for the head."""
        return self.run(functional.embedding(tokens, self.embedding))

    def run(self, x: Tensor) -> Tensor:
        """The same from the rows of the embedding, [n_batch, n, hidden_size]."""
        n, d = x.shape[1], self.shape.head_dim
        frequencies = self.shape.rope_theta ** (-torch.arange(0, d, 2, dtype=torch.float32) / d)
        angles = torch.arange(n, dtype=torch.float32)[:, None] * frequencies
        cos, sin = angles.cos(), angles.sin()
        for block in self.blocks:
            x = block(x, cos, sin)
        return self.output_norm(x)

    def logits(self, tokens: Tensor) -> Tensor:
        return self.hidden(tokens) @ self.embedding.T


def project(embedding: Tensor, size: int, weights: Tensor) -> Tensor:
    """The rows in the `size` directions in which they differ most, by weight of each row.

    A wider draft than its target gets zeros for what is missing.
    """
    wide = embedding.shape[1]
    scaled = embedding * weights.sqrt()[:, None]
    _, vectors = torch.linalg.eigh(scaled.T.double() @ scaled.double())
    basis = vectors.flip(1)[:, :size].float()
    rows = embedding @ basis
    if size > wide:
        rows = functional.pad(rows, (0, size - wide))
    return rows / rows.pow(2).mean().sqrt() / math.sqrt(size)
