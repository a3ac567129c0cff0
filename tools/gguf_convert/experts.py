"""Mixtures of experts: checkpoints hold a matrix for each expert, GGUF files stacks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .hf_config import Config
from .model_description import Expected, Model
from .stacks import Piece
from .tensors import Rows, Source

if TYPE_CHECKING:
    from .gguf_keys import Keys


@dataclass(frozen=True)
class Mixture:
    """A layer's experts, and how a family names them."""

    count: int
    used: int
    size: int  # their intermediate size
    router: str = "mlp.gate"
    expert: str = "mlp.experts.{}"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    stacked: str | None = None  # where checkpoints may have all of a layer in one tensor
    shared: int = 0  # the intermediate size of an expert that all rows use, if there is one

    def keys(self, arch: str) -> dict[str, int]:
        keys = {f"{arch}.expert_count": self.count, f"{arch}.expert_used_count": self.used}
        return keys | (
            {f"{arch}.expert_shared_feed_forward_length": self.shared} if self.shared else {}
        )

    def expect(self, model: Model, to: str, of: str, hidden: int) -> None:
        router = f"{of}.{self.router}.weight"
        model.expect(f"{to}.ffn_gate_inp.weight", router, (self.count, hidden))
        for name, part, shape in (
            ("gate", self.gate, (self.size, hidden)),
            ("up", self.up, (self.size, hidden)),
            ("down", self.down, (hidden, self.size)),
        ):
            target = f"{to}.ffn_{name}_exps.weight"
            entry = model.expect(target, target, (self.count, *shape))
            entry.stack = tuple(
                f"{of}.{self.expert.format(expert)}.{part}.weight" for expert in range(self.count)
            )
            if self.stacked is not None:
                self._expect_stacked(entry, of, name)
        if self.shared:
            self.expect_shared(model, to, of, hidden)

    def _expect_stacked(self, entry: Expected, of: str, name: str) -> None:
        """Rows of each expert's gate are before those of its up."""
        fused = name != "down"
        entry.sources = (f"{of}.{self.stacked}.{'gate_up' if fused else 'down'}_proj",)
        entry.piece = Piece(self.size if name == "up" else 0)
        n, n_out, n_in = entry.shape
        entry.source_shape = (n, 2 * n_out if fused else n_out, n_in)

    def expect_shared(self, model: Model, to: str, of: str, hidden: int) -> None:
        router = model.expect(
            f"{to}.ffn_gate_inp_shexp.weight", f"{of}.mlp.shared_expert_gate.weight", (hidden,)
        )
        router.source_shape = (1, hidden)
        for name, shape in (
            ("gate", (self.shared, hidden)),
            ("up", (self.shared, hidden)),
            ("down", (hidden, self.shared)),
        ):
            source = f"{of}.mlp.shared_expert.{name}_proj.weight"
            model.expect(f"{to}.ffn_{name}_shexp.weight", source, shape)


@dataclass(frozen=True)
class GraniteMixture(Mixture):
    """Of which checkpoints have stacks, and gates and ups in one."""

    def expect(self, model: Model, to: str, of: str, hidden: int) -> None:
        of_router = f"{of}.block_sparse_moe.router.layer.weight"
        model.expect(f"{to}.ffn_gate_inp.weight", of_router, (self.count, hidden))
        n, size = self.count, self.size
        for name, source, first, n_out, n_in, n_rows in (
            ("gate", "input_linear", 0, size, hidden, 2 * size),
            ("up", "input_linear", size, size, hidden, 2 * size),
            ("down", "output_linear", 0, hidden, size, hidden),
        ):
            source = f"{of}.block_sparse_moe.{source}.weight"
            entry = model.expect(f"{to}.ffn_{name}_exps.weight", source, (n, n_out, n_in))
            entry.piece, entry.source_shape = Piece(first), (n, n_rows, n_in)
        if not self.shared:
            return
        for name, first in (("gate", 0), ("up", self.shared)):
            source = f"{of}.shared_mlp.input_linear.weight"
            rows = np.arange(first, first + self.shared)
            entry = model.expect(
                f"{to}.ffn_{name}_shexp.weight", source, (self.shared, hidden), row_order=rows
            )
            entry.source_shape = (2 * self.shared, hidden)
        source = f"{of}.shared_mlp.output_linear.weight"
        model.expect(f"{to}.ffn_down_shexp.weight", source, (hidden, self.shared))


def read_mixture(config: Config, count_key: str, size_key: str | None = None) -> Mixture:
    """`size_key`: None: the experts have the intermediate_size."""
    config.has("num_experts")
    config.has("num_local_experts")
    config.has("output_router_logits")
    config.has("router_aux_loss_coef")
    config.has("router_jitter_noise")
    other = {"num_experts": "num_local_experts"}.get(count_key, "num_experts")
    count = config.integer(count_key if count_key in config.values else other)
    used = config.integer("num_experts_per_tok")
    if used > count:
        raise config.fail("num_experts_per_tok", f"at most {count} experts", used)
    return Mixture(count, used, config.integer(size_key or "intermediate_size"))


@dataclass
class Stacked:
    """Matrices of one shape as a tensor of one dimension more; a row is a whole matrix."""

    name: str
    parts: list[Source]

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.parts), *self.parts[0].shape)

    @property
    def dtype(self) -> str:
        dtypes = {part.dtype for part in self.parts}
        return dtypes.pop() if len(dtypes) == 1 else "F32"

    def read(self, first: int, count: int) -> Rows:
        parts = self.parts[first : first + count]
        return np.stack([part.read(0, part.shape[0]).reshape(-1) for part in parts])


def mixture_config(keys: Keys, *, count: str, size: str | None) -> dict[str, int]:
    """What config.json says about them, by these names."""
    used = keys.integer("expert_used_count")
    config = {count: keys.integer("expert_count"), "num_experts_per_tok": used}
    if size is None:
        return config
    if keys.get("expert_feed_forward_length") is not None:
        return config | {size: keys.integer("expert_feed_forward_length")}
    return config | {size: keys.integer("feed_forward_length")}
