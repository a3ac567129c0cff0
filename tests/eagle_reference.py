"""EAGLE-3 heads: the arithmetic in NumPy, and random files for the targets of tiny_models.

A head reads three taps of its target, f_P = the residual stream entering three of its layers at
position P. Its row P is the pair (t_{P+1}, g_P) at RoPE position P with g_P = fc(f_P): the head is
one token behind its target, and t_0 is never embedded. For rows without target features the head's
own output before the last norm is g.

    config = head_for(target_config)
    path = write_eagle3(tmp_path / "head.gguf", config, target_config)
    head = Head(config, random_tensors(config), target_tensors)
    cache = Cache(config)
    hidden, logits = head.ingest(cache, tokens[1:], taps[:-1])  # the prompt's rows
    ids, hidden = head.chain(cache, hidden[-1], logits[-1], 4)  # drafts after it

Files follow llama.cpp, tensors and rotation too: pairs of neighbours rotate (LLaMA's order in GGUF
files, whatever the target's is), so that a converter permutes the rows of q and k.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

import tiny_models
from tiny_models import Metadata, Tensors, TinyConfig


@dataclasses.dataclass(frozen=True)
class EagleConfig:
    """Shapes of a head. `draft_vocab_size` None: all of the target's ids, without a map."""

    target_layers: tuple[int, int, int]
    target_hidden_size: int = 64
    target_vocab_size: int = 272
    hidden_size: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 16
    intermediate_size: int = 96
    draft_vocab_size: int | None = 160
    norm_before_residual: bool = False  # what the layer adds to is the normed g
    norm_before_fc: bool = False  # one norm over the three taps together
    own_embedding: bool = False
    own_output: bool = True  # False: the target's, and draft_vocab_size None
    rope_theta: float = 10000.0
    divided_frequencies: bool = False  # a rope_freqs tensor, as Llama 3's
    norm_epsilon: float = 1e-5
    context_length: int = 1024


def head_for(target: TinyConfig, **changes: Any) -> EagleConfig:
    """A head for a tiny target of at least three layers."""
    n = target.n_layers
    if n < 3:
        raise ValueError("three taps need a target of at least three layers")
    layers = (2, n // 2, n - 3) if n > 6 else (n - 3, n - 2, n - 1)
    width = changes.get("hidden_size", target.hidden_size)
    config = EagleConfig(
        target_layers=layers,
        target_hidden_size=target.hidden_size,
        target_vocab_size=target.vocab_size,
        hidden_size=width,
        own_embedding=width != target.hidden_size,
    )
    return dataclasses.replace(config, **changes)


# ---------------------------------------------------------------- files


def metadata(config: EagleConfig) -> Metadata:
    """Keys of the file without a tokenizer."""
    return {
        "general.architecture": "eagle3",
        "general.name": "tiny head",
        "eagle3.block_count": 1,
        "eagle3.context_length": config.context_length,
        "eagle3.embedding_length": config.hidden_size,
        "eagle3.feed_forward_length": config.intermediate_size,
        "eagle3.attention.head_count": config.n_heads,
        "eagle3.attention.head_count_kv": config.n_kv_heads,
        "eagle3.attention.key_length": config.head_dim,
        "eagle3.attention.value_length": config.head_dim,
        "eagle3.attention.layer_norm_rms_epsilon": config.norm_epsilon,
        "eagle3.rope.freq_base": config.rope_theta,
        "eagle3.rope.dimension_count": config.head_dim,
        "eagle3.vocab_size": config.target_vocab_size,
        "eagle3.target_layers": list(config.target_layers),
        "eagle3.target_hidden_size": config.target_hidden_size,
        "eagle3.norm_before_residual": config.norm_before_residual,
        "eagle3.norm_before_fc": config.norm_before_fc,
    }


def random_tensors(config: EagleConfig, seed: int = 0) -> Tensors:
    """F32 weights under the file's names and int64 ids in d2t, scaled as tiny_models does."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}

    def matrix(name: str, n_out: int, n_in: int) -> None:
        values = rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)
        tensors[f"{name}.weight"] = values.astype(np.float32)

    def norm(name: str, n: int) -> None:
        tensors[f"{name}.weight"] = (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

    hidden, taps = config.hidden_size, 3 * config.target_hidden_size
    q_size, kv_size = config.n_heads * config.head_dim, config.n_kv_heads * config.head_dim
    matrix("fc", hidden, taps)
    if config.norm_before_fc:
        norm("enc.output_norm", taps)
    norm("blk.0.attn_norm", hidden)
    norm("blk.0.attn_norm_2", hidden)
    matrix("blk.0.attn_q", q_size, 2 * hidden)
    matrix("blk.0.attn_k", kv_size, 2 * hidden)
    matrix("blk.0.attn_v", kv_size, 2 * hidden)
    matrix("blk.0.attn_output", hidden, q_size)
    norm("blk.0.ffn_norm", hidden)
    matrix("blk.0.ffn_gate", config.intermediate_size, hidden)
    matrix("blk.0.ffn_up", config.intermediate_size, hidden)
    matrix("blk.0.ffn_down", hidden, config.intermediate_size)
    norm("output_norm", hidden)
    if config.own_output:
        n_draft = config.draft_vocab_size or config.target_vocab_size
        matrix("output", n_draft, hidden)
    if config.own_embedding:
        rows = rng.standard_normal((config.target_vocab_size, hidden))
        tensors["token_embd.weight"] = rows.astype(np.float32)
    if config.divided_frequencies:
        factors = rng.uniform(1, 8, config.head_dim // 2)
        tensors["rope_freqs.weight"] = factors.astype(np.float32)
    if config.draft_vocab_size is not None:
        ids = rng.choice(config.target_vocab_size, config.draft_vocab_size, replace=False)
        tensors["d2t"] = np.sort(ids).astype(np.int64)
    return tensors


def write_eagle3(
    path: pathlib.Path,
    config: EagleConfig,
    target: TinyConfig,
    *,
    dtype: str = "F32",
    seed: int = 0,
    tensors: Tensors | None = None,
    tokenizer: bool = True,
    extra: Metadata | None = None,
) -> pathlib.Path:
    """A random head in one call; its tokenizer is that of `write_tiny(target)`.

    Args:
        dtype: of the matrices; norms, frequencies and ids keep theirs.
        tensors: instead of `random_tensors(config, seed)`.
        extra: keys that are added or replaced.
    """
    keys = metadata(config)
    if tokenizer:
        keys |= tiny_models.byte_tokenizer(target.vocab_size)
    keys |= extra or {}
    if tensors is None:
        tensors = random_tensors(config, seed)
    if dtype != "F32":
        tensors = tiny_models.quantise(tensors, dtype, seed)
    return tiny_models.write_gguf(path, keys, tensors)


# ---------------------------------------------------------------- arithmetic


@dataclasses.dataclass
class Cache:
    """Keys (rotated) and values of the rows so far: [n, n_kv_heads, head_dim]."""

    config: EagleConfig
    keys: np.ndarray = dataclasses.field(init=False)
    values: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        shape = (0, self.config.n_kv_heads, self.config.head_dim)
        self.keys, self.values = np.zeros(shape), np.zeros(shape)

    def __len__(self) -> int:
        return len(self.keys)

    def truncate(self, n: int) -> None:
        self.keys, self.values = self.keys[:n], self.values[:n]

    def copy(self) -> Cache:
        other = Cache(self.config)
        other.keys, other.values = self.keys, self.values
        return other


class Head:
    """The forward pass. `kind` is the precision of all arithmetic."""

    def __init__(
        self,
        config: EagleConfig,
        tensors: Tensors,
        target: Tensors | None = None,
        kind: type[np.floating[Any]] = np.float64,
    ) -> None:
        """`tensors` and `target` may be quantised; `target` gives what the head does not have."""
        self.config, self.kind = config, kind
        plain = {k: v for k, v in tensors.items() if k != "d2t"}
        self.weights = {
            name: np.asarray(t).astype(kind) for name, t in tiny_models.dequantise(plain).items()
        }
        for name in ("token_embd.weight", "output.weight"):
            if name not in self.weights and target is not None:
                source = name if name in target else "token_embd.weight"
                self.weights[name] = tiny_models.unpack(target[source]).astype(kind)
        n_draft = len(self.weights["output.weight"])
        ids = tensors.get("d2t", np.arange(n_draft))
        self.target_ids: np.ndarray = np.asarray(ids)

    def norm(self, x: np.ndarray, name: str) -> np.ndarray:
        mean = np.mean(x * x, axis=-1, keepdims=True)
        return x / np.sqrt(mean + self.kind(self.config.norm_epsilon)) * self.weights[name]

    def fuse(self, taps: np.ndarray) -> np.ndarray:
        """g of target features, [..., 3 * target_hidden_size] in the order of target_layers."""
        taps = np.asarray(taps, self.kind)
        if self.config.norm_before_fc:
            taps = self.norm(taps, "enc.output_norm.weight")
        return taps @ self.weights["fc.weight"].T

    def rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """x: [n, heads, head_dim]; neighbours 2i and 2i + 1 are a pair."""
        half = self.config.head_dim // 2
        frequencies = self.config.rope_theta ** (-np.arange(half) / half)
        if self.config.divided_frequencies:
            frequencies = frequencies / self.weights["rope_freqs.weight"]
        angles = np.asarray(positions)[:, None, None] * frequencies
        cos, sin = np.cos(angles).astype(self.kind), np.sin(angles).astype(self.kind)
        a, b = x[..., 0::2], x[..., 1::2]
        return np.stack((a * cos - b * sin, a * sin + b * cos), -1).reshape(x.shape)

    def rows(
        self,
        cache: Cache,
        tokens: Sequence[int] | np.ndarray,
        g: np.ndarray,
        positions: Sequence[int] | np.ndarray,
        visible: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adds n rows to the cache.

        Args:
            g: [n, hidden_size], not normed.
            visible: bool [n, len(cache) + n], which rows each one attends to; None: all of the
                cache, and those of this call up to itself.

        Returns:
            The hidden states before the last norm [n, hidden_size], which are the next g, and
            logits [n, draft vocabulary].
        """
        config, w = self.config, self.weights
        n, before = len(tokens), len(cache)
        if visible is None:
            visible = np.tri(n, before + n, before, dtype=bool)
        g = np.asarray(g, self.kind)
        embedded = w["token_embd.weight"][np.asarray(tokens)]
        normed = self.norm(g, "blk.0.attn_norm_2.weight")
        x = np.concatenate((self.norm(embedded, "blk.0.attn_norm.weight"), normed), -1)

        def heads(name: str, count: int) -> np.ndarray:
            return (x @ w[f"blk.0.{name}.weight"].T).reshape(n, count, config.head_dim)

        q = self.rotate(heads("attn_q", config.n_heads), np.asarray(positions))
        k = self.rotate(heads("attn_k", config.n_kv_heads), np.asarray(positions))
        cache.keys = np.concatenate((cache.keys, k)).astype(self.kind)
        v = heads("attn_v", config.n_kv_heads)
        cache.values = np.concatenate((cache.values, v)).astype(self.kind)
        attended = self._attend(q, cache, visible) @ w["blk.0.attn_output.weight"].T
        residual = (normed if config.norm_before_residual else g) + attended
        hidden = residual + self._feed_forward(self.norm(residual, "blk.0.ffn_norm.weight"))
        return hidden, self.norm(hidden, "output_norm.weight") @ w["output.weight"].T

    def _attend(self, q: np.ndarray, cache: Cache, visible: np.ndarray) -> np.ndarray:
        out = np.empty_like(q)
        shared = self.config.n_heads // self.config.n_kv_heads
        for i in range(len(q)):
            seen = np.flatnonzero(visible[i])
            for head in range(self.config.n_heads):
                keys = cache.keys[seen, head // shared]
                scores = keys @ q[i, head] / self.kind(np.sqrt(self.config.head_dim))
                weights = np.exp(scores - scores.max())
                out[i, head] = weights / weights.sum() @ cache.values[seen, head // shared]
        return out.reshape(len(q), -1)

    def _feed_forward(self, x: np.ndarray) -> np.ndarray:
        gate, up = (x @ self.weights[f"blk.0.ffn_{part}.weight"].T for part in ("gate", "up"))
        return (gate / (1 + np.exp(-gate)) * up) @ self.weights["blk.0.ffn_down.weight"].T

    # ------------------------------------------------------------ decoding

    def ingest(
        self, cache: Cache, next_tokens: Sequence[int] | np.ndarray, taps: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Committed rows: `taps` of positions len(cache), len(cache) + 1, ... with the token that
        follows each. Self-fed rows must have been truncated before."""
        first = len(cache)
        positions = np.arange(first, first + len(next_tokens))
        return self.rows(cache, next_tokens, self.fuse(taps), positions)

    def best(self, logits: np.ndarray) -> int:
        """The target's id of the likeliest token; ties go to the lowest."""
        return int(self.target_ids[int(np.argmax(logits))])

    def full_logits(self, logits: np.ndarray) -> np.ndarray:
        """Over the target's ids; -inf for those that the head does not know."""
        out = np.full((*logits.shape[:-1], self.config.target_vocab_size), -np.inf)
        out[..., self.target_ids] = logits
        return out

    def chain(
        self, cache: Cache, hidden: np.ndarray, logits: np.ndarray, n: int
    ) -> tuple[list[int], np.ndarray]:
        """Greedy drafts after the row that gave `hidden` and `logits`.

        Returns:
            n ids, and the draft logits that gave each [n, draft vocabulary]. The cache has n - 1
            self-fed rows more.
        """
        ids, laws = [self.best(logits)], [logits]
        while len(ids) < n:
            out, rows = self.rows(cache, ids[-1:], hidden[None], [len(cache)])
            hidden, logits = out[0], rows[0]
            ids.append(self.best(logits))
            laws.append(logits)
        return ids, np.stack(laws)

    def tree(
        self,
        cache: Cache,
        hidden: np.ndarray,
        tokens: Sequence[int],
        parents: Sequence[int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows of draft nodes: node i holds tokens[i] and hangs below node parents[i] < i, or
        below the last committed row (-1), whose hidden state is `hidden`.

        Returns:
            Hidden states and logits of all nodes; the cache has their rows in that order.
        """
        base = len(cache)
        hiddens: list[np.ndarray] = []
        laws: list[np.ndarray] = []
        depths: list[int] = []
        for i, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
            visible = np.zeros((1, base + i + 1), bool)
            visible[0, :base] = visible[0, base + i] = True
            above = parent
            while above >= 0:
                visible[0, base + above] = True
                above = parents[above]
            g = hiddens[parent] if parent >= 0 else hidden
            out, rows = self.rows(cache, [token], g[None], [base + depths[i]], visible)
            hiddens.append(out[0])
            laws.append(rows[0])
        return np.stack(hiddens), np.stack(laws)
