"""An EAGLE-3 head in PyTorch: one decoder layer over [token ; fused taps of the target], and the
unrolled pass of its training, in which it reads its own outputs as it will while drafting."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from draft_net import RMSNorm, rotate


@dataclasses.dataclass(frozen=True)
class HeadShape:
    """Sizes of a head and of what it reads; its width is its target's.

    Attributes:
        target_layers: the layers whose inputs are the taps.
        n_draft: ids that it can draft.
    """

    target_layers: tuple[int, int, int]
    hidden_size: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    intermediate_size: int
    n_draft: int
    rope_theta: float = 10000.0
    epsilon: float = 1e-5


class Head(nn.Module):
    """Weights under the names of GGUF files. Pairs (2i, 2i + 1) rotate.

    Attributes:
        tap_scale: [3 * hidden_size], about the mean size of each number of the taps. `fc` reads
            them divided by it, so that all its weights learn at one pace; files have the product.
    """

    tap_scale: Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.shape = shape
        h, f = shape.hidden_size, shape.intermediate_size
        q, kv = shape.n_heads * shape.head_dim, shape.n_kv_heads * shape.head_dim
        self.fc = nn.Linear(3 * h, h, bias=False)
        self.attn_norm = RMSNorm(h, shape.epsilon)  # of the token
        self.attn_norm_2 = RMSNorm(h, shape.epsilon)  # of the fused taps
        self.attn_q = nn.Linear(2 * h, q, bias=False)
        self.attn_k = nn.Linear(2 * h, kv, bias=False)
        self.attn_v = nn.Linear(2 * h, kv, bias=False)
        self.attn_output = nn.Linear(q, h, bias=False)
        self.ffn_norm = RMSNorm(h, shape.epsilon)
        self.ffn_gate = nn.Linear(h, f, bias=False)
        self.ffn_up = nn.Linear(h, f, bias=False)
        self.ffn_down = nn.Linear(f, h, bias=False)
        self.output_norm = RMSNorm(h, shape.epsilon)
        self.output = nn.Parameter(torch.empty(shape.n_draft, h))
        self.register_buffer("tap_scale", torch.ones(3 * h))
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=1 / math.sqrt(parameter.shape[1]))

    def fuse(self, taps: Tensor) -> Tensor:
        """[..., 3 * hidden_size] -> g, [..., hidden_size], float32 as all residuals."""
        g: Tensor = self.fc(taps / self.tap_scale).float()
        return g

    def unroll(
        self, embedded: Tensor, taps: Tensor, n_steps: int, wanted: Tensor | None = None
    ) -> list[Tensor]:
        """Row t of step s drafts the token t + 2 + s of a text from the taps of position t and,
        one after the other, its tokens t + 1 to t + 1 + s.

        Args:
            embedded: tokens 1, 2, ... [n_batch, n + n_steps - 1, hidden_size].
            taps: [n_batch, n, 3 * hidden_size] of positions 0, 1, ...
            wanted: int64, rows of the flattened [n_batch, n] whose outputs are read, default all.
                Of the others only what the taps give to attention is computed.

        Returns:
            For each step the normed rows [n_batch, n, hidden_size], ready for the output matrix.
        """
        n = taps.shape[1]
        g = self.fuse(taps)
        keys: list[Tensor] = []
        values: list[Tensor] = []
        rows = []
        for step in range(n_steps):
            g = self.layer(embedded[:, step : step + n], g, step, keys, values, wanted)
            rows.append(self.output_norm(g))
        return rows

    def layer(
        self,
        embedded: Tensor,
        g: Tensor,
        step: int,
        keys: list[Tensor],
        values: list[Tensor],
        wanted: Tensor | None = None,
    ) -> Tensor:
        """One step of all rows; adds to `keys` and `values`. Returns the next g, not normed, which
        of rows that are not `wanted` stays what it was."""
        n_batch, n, width = g.shape
        shape = self.shape

        def rows(of: Tensor) -> Tensor:
            of = of.reshape(n_batch * n, -1)
            return of if wanted is None else of[wanted]

        def heads(part: nn.Linear, x: Tensor, all_rows: bool) -> Tensor:
            y = part(x)
            if wanted is not None and not all_rows:
                y = y.new_zeros(n_batch * n, y.shape[1]).index_copy(0, wanted, y)
            return y.view(n_batch, n, -1, shape.head_dim).transpose(1, 2).float()

        x = torch.cat((self.attn_norm(embedded), self.attn_norm_2(g)), -1).flatten(0, 1)
        own = rows(x)
        q = heads(self.attn_q, own, False)
        # Later rows read the keys of the first step, which come from the taps.
        k, v = (heads(p, own if step else x, step == 0) for p in (self.attn_k, self.attn_v))
        with torch.autocast(x.device.type, enabled=False):  # slower in bfloat16
            cos, sin = self.angles(n, step, x.device)
            keys.append(rotate(k, cos, sin))
            values.append(v)
            y = self.attend(rotate(q, cos, sin), keys, values)
        residual = rows(g) + self.attn_output(rows(y.transpose(1, 2)))
        y = self.ffn_norm(residual)
        mlp = self.ffn_down(functional.silu(self.ffn_gate(y)) * self.ffn_up(y))
        out: Tensor = residual + mlp
        if wanted is not None:
            out = g.flatten(0, 1).index_copy(0, wanted, out)
        return out.view(n_batch, n, width)

    def angles(self, n: int, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
        half = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float32, device=device)
        frequencies = self.shape.rope_theta ** (-half / self.shape.head_dim)
        positions = torch.arange(step, step + n, dtype=torch.float32, device=device)
        angles = positions[:, None] * frequencies
        return angles.cos(), angles.sin()

    def attend(self, q: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
        """Row t sees the rows up to t of the first step, which have the target's features, and of
        every later step its own: those are the tokens drafted after it."""
        n_batch, n_heads, n, d = q.shape
        n_kv = self.shape.n_kv_heads
        q = q.view(n_batch, n_kv, n_heads // n_kv, n, d) / math.sqrt(d)
        scores = q @ keys[0][:, :, None].transpose(-1, -2)
        above = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        parts = [scores.masked_fill(above, -math.inf)]
        parts += [(q * k[:, :, None]).sum(-1, keepdim=True) for k in keys[1:]]
        weights = torch.cat(parts, -1).softmax(-1)
        out = weights[..., :n] @ values[0][:, :, None]
        for i, v in enumerate(values[1:]):
            out = out + weights[..., n + i : n + i + 1] * v[:, :, None]
        return out.view(n_batch, n_heads, n, d)

    def stored(self) -> dict[str, nn.Parameter]:
        """All weights by their name in a file; there `fc` is divided by `tap_scale`."""
        found = {"fc.weight": self.fc.weight}
        for name, weight in self.named_parameters():
            if name.startswith(("attn", "ffn")):
                found[f"blk.0.{name}"] = weight
        return found | {"output_norm.weight": self.output_norm.weight, "output.weight": self.output}

    def tensors(self) -> dict[str, Tensor]:
        """All weights of a file by name, but the ids."""
        return {**self.stored(), "fc.weight": self.fc.weight / self.tap_scale}
