"""A checkpoint as the converter sees it: GGUF keys and a list of expected tensors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .hf_config import Config
from .stacks import Piece
from .tensors import Change, Target


@dataclass
class Expected:
    target: str
    sources: tuple[str, ...]  # names it may have
    shape: tuple[int, ...]
    row_order: np.ndarray | None = None
    plus: float = 0  # is added to every number
    column_order: np.ndarray | None = None
    change: Change | None = None
    source_shape: tuple[int, ...] | None = None  # where it is another than `shape`
    plain: bool = False  # F32 although it is no vector
    stack: tuple[str, ...] = ()  # names of the matrices that it is a stack of, if it is one
    piece: Piece | None = None  # it is one of each matrix of the source's stack
    packed: bool = False  # the source is in MXFP4

    @property
    def is_reshaped(self) -> bool:
        of = self.source_shape
        return (
            of is not None
            and self.row_order is None
            and math.prod(of[1:]) != math.prod(self.shape[1:])
            and self.piece is None
        )

    @property
    def has_some_rows(self) -> bool:
        """The source has rows of others too."""
        of = self.source_shape
        return of is not None and self.row_order is not None and of[0] != self.shape[0]


@dataclass
class Model:
    """Everything about a checkpoint but its weights and its tokenizer."""

    arch: str
    n_vocab: int  # rows of the embedding
    keys: dict[str, Any] = field(default_factory=dict)
    expected: list[Expected] = field(default_factory=list)
    computed: list[Target] = field(default_factory=list)
    tied: bool = False
    base: str = "model."  # what names of all tensors but the head begin with
    heads: tuple[str, ...] = ()  # names of an own output matrix
    copy_tied_head: bool = False  # the file must hold the output matrix even when it is tied
    skipped: tuple[str, ...] = ()  # tensors whose names begin so are left out
    # Of a block behind the layers that a checkpoint may have or not, below names of its own.
    further: list[Expected] = field(default_factory=list)
    further_base: str = ""
    further_keys: dict[str, Any] = field(default_factory=dict)  # in place of those without it
    notes: list[str] = field(default_factory=list)

    def expect(
        self,
        target: str,
        source: str,
        shape: tuple[int, ...],
        *,
        row_order: np.ndarray | None = None,
        plus: float = 0,
    ) -> Expected:
        self.expected.append(Expected(target, (source,), shape, row_order, plus))
        return self.expected[-1]


@dataclass(frozen=True)
class Defaults:
    """What transformers takes where config.json is silent (of the keys that files leave out)."""

    context: int
    n_kv_heads: int | None = None  # None: as many as heads
    window: int | None = None
    head_dim: int | None = None  # None: hidden_size / heads
    epsilon: float = 1e-6


def context_length(config: Config, default: int) -> int:
    """The first conversions of LLaMA have max_sequence_length instead, or neither."""
    old = config.get("max_sequence_length")
    if old is not None and not config.has("max_position_embeddings"):
        return config.integer("max_sequence_length")
    return config.integer("max_position_embeddings", default)


def read_sizes(
    config: Config, arch: str, context: int, head_dim: int | None = None
) -> tuple[Model, int, int, int, int]:
    """`head_dim`: where config.json is silent; None: what the heads share."""
    hidden = config.integer("hidden_size")
    n_layers = config.integer("num_hidden_layers")
    n_heads = config.integer("num_attention_heads")
    model = Model(arch, config.integer("vocab_size"))
    model.tied = config.flag("tie_word_embeddings", False)
    model.keys = {
        f"{arch}.vocab_size": model.n_vocab,
        f"{arch}.context_length": context,
        f"{arch}.embedding_length": hidden,
        f"{arch}.block_count": n_layers,
        f"{arch}.feed_forward_length": config.integer("intermediate_size"),
        f"{arch}.attention.head_count": n_heads,
    }
    if n_layers > 4096:
        raise config.fail("num_hidden_layers", "at most 4096")
    if not config.has("head_dim") and head_dim is None and hidden % n_heads != 0:
        raise config.fail("num_attention_heads", f"a divisor of hidden_size {hidden}")
    head_dim = config.integer("head_dim", head_dim or max(hidden // n_heads, 1))
    if head_dim % 2 or head_dim * n_heads > 1 << 20:
        where = "head_dim" if config.has("head_dim") else "hidden_size / num_attention_heads"
        raise config.fail(
            where, f"an even number that with {n_heads} heads makes at most 2^20", head_dim
        )
    return model, hidden, n_layers, n_heads, head_dim
