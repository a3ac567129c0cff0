"""Blocks that predict further tokens: the arithmetic in NumPy, and files that have them.

Such a block was trained with the model it stands behind. It reads h_P, the model's last hidden
state behind the output norm at position P, beside the embedding of t_{P+1}; what it says, behind a
norm of its own, is the next h. Row P is the pair (t_{P+1}, h_P) at RoPE position P, as in
eagle_reference; where others count from t_0 with a state of zeros, all positions are one higher,
which RoPE does not see.

    config = MtpConfig(tiny_models.FAMILIES["qwen35"])
    path = write_mtp(tmp_path / "model.gguf", config)  # the model, and the block behind it
    block = Block(config, model_tensors(config), block_tensors(config))
    hidden, logits = block.ingest(cache, tokens[1:], taps[:-1])
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

import tiny_experts
import tiny_models
from eagle_reference import Cache
from tiny_models import Metadata, Tensors, TinyConfig


@dataclasses.dataclass(frozen=True)
class MtpConfig:
    """A model and the block behind it."""

    target: TinyConfig
    n_blocks: int = 1
    own_norm: bool = True  # before the head
    own_output: bool = False
    own_embedding: bool = False

    @property
    def n_kv_heads(self) -> int:  # as Cache asks for it
        return self.target.n_kv_heads

    @property
    def head_dim(self) -> int:
        return self.target.head_dim


# ---------------------------------------------------------------- files


def metadata(config: MtpConfig) -> Metadata:
    target = config.target
    return (
        tiny_models.metadata(target)
        | tiny_models.byte_tokenizer(target.vocab_size)
        | {
            f"{target.arch}.block_count": target.n_layers + config.n_blocks,
            f"{target.arch}.nextn_predict_layers": config.n_blocks,
        }
    )


def model_tensors(config: MtpConfig, seed: int = 1) -> Tensors:
    return tiny_models.random_tensors(config.target, seed)


def block_tensors(config: MtpConfig, seed: int = 2) -> Tensors:
    """Of all blocks, with the names of the file."""
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    c = config.target
    hidden = c.hidden_size

    def matrix(name: str, n_out: int, n_in: int) -> None:
        values = rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)
        tensors[f"{name}.weight"] = values.astype(np.float32)

    def norm(name: str, n: int = hidden) -> None:
        tensors[f"{name}.weight"] = (1 + 0.2 * rng.standard_normal(n)).astype(np.float32)

    for block in range(c.n_layers, c.n_layers + config.n_blocks):
        of = f"blk.{block}"
        matrix(f"{of}.nextn.eh_proj", hidden, 2 * hidden)
        norm(f"{of}.nextn.enorm")
        norm(f"{of}.nextn.hnorm")
        if config.own_norm:
            norm(f"{of}.nextn.shared_head_norm")
        if config.own_output:
            matrix(f"{of}.nextn.shared_head_head", c.vocab_size, hidden)
        if config.own_embedding:
            rows = rng.standard_normal((c.vocab_size, hidden))
            tensors[f"{of}.nextn.embed_tokens.weight"] = rows.astype(np.float32)
        norm(f"{of}.attn_norm")
        matrix(f"{of}.attn_q", 2 * c.n_heads * c.head_dim, hidden)
        matrix(f"{of}.attn_k", c.n_kv_heads * c.head_dim, hidden)
        matrix(f"{of}.attn_v", c.n_kv_heads * c.head_dim, hidden)
        norm(f"{of}.attn_q_norm", c.head_dim)
        norm(f"{of}.attn_k_norm", c.head_dim)
        matrix(f"{of}.attn_output", hidden, c.n_heads * c.head_dim)
        norm(f"{of}.post_attention_norm")
        if c.n_experts:
            tensors |= tiny_experts.mixture(of, c, rng)
            continue
        matrix(f"{of}.ffn_gate", c.intermediate_size, hidden)
        matrix(f"{of}.ffn_up", c.intermediate_size, hidden)
        matrix(f"{of}.ffn_down", hidden, c.intermediate_size)
    return tensors


def write_mtp(
    path: pathlib.Path,
    config: MtpConfig,
    *,
    alone: bool = False,
    dtype: str = "F32",
    seed: int = 1,
    block: Tensors | None = None,
    extra: Metadata | None = None,
) -> pathlib.Path:
    """The model and its block, or the block `alone` with what it shares with the model."""
    tensors = model_tensors(config, seed)
    if alone:
        shared = ("token_embd.weight", "output_norm.weight", "output.weight")
        tensors = {name: t for name, t in tensors.items() if name in shared}
    tensors |= block_tensors(config, seed + 1) if block is None else block
    if dtype != "F32":
        tensors = tiny_models.quantise(tensors, dtype, seed)
    return tiny_models.write_gguf(path, metadata(config) | (extra or {}), tensors)


# ---------------------------------------------------------------- arithmetic


class Block:
    """The forward pass of the first block, in float64."""

    def __init__(self, config: MtpConfig, model: Tensors, block: Tensors) -> None:
        self.config, self.c = config, config.target
        self.banned: list[int] = []  # ids that are never said
        of = f"blk.{self.c.n_layers}."
        plain = tiny_models.dequantise(dict(model) | dict(block))
        everything = {name: np.asarray(t, np.float64) for name, t in plain.items()}
        self.weights = {
            name.removeprefix(of): t for name, t in everything.items() if name.startswith(of)
        }
        own = self.weights.get
        embedding = everything["token_embd.weight"]
        self.output_norm = everything["output_norm.weight"]
        self.embedding = own("nextn.embed_tokens.weight", embedding)
        self.output = own(
            "nextn.shared_head_head.weight", everything.get("output.weight", embedding)
        )
        self.last_norm = own("nextn.shared_head_norm.weight", self.output_norm)

    def norm(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        mean = np.mean(x * x, axis=-1, keepdims=True)
        out: np.ndarray = x / np.sqrt(mean + self.c.norm_epsilon) * weight
        return out

    def fuse(self, taps: np.ndarray) -> np.ndarray:
        """h of what leaves the model's last layer."""
        return self.norm(np.asarray(taps, np.float64), self.output_norm)

    def rotate(self, x: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """x: [n, heads, head_dim]; i and i + n_rot / 2 are a pair, the rest stays."""
        n_rot = self.c.n_rot or self.c.head_dim
        half = n_rot // 2
        angles = np.asarray(positions)[:, None, None] * self.c.rope_theta ** (
            -np.arange(half) / half
        )
        a, b = x[..., :half], x[..., half:n_rot]
        turned = (a * np.cos(angles) - b * np.sin(angles), a * np.sin(angles) + b * np.cos(angles))
        return np.concatenate((*turned, x[..., n_rot:]), -1)

    def rows(
        self, cache: Cache, tokens: Sequence[int] | np.ndarray, h: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Adds a chain of n rows to the cache: what they say behind the norm, and logits."""
        c, w = self.c, self.weights
        n, before = len(tokens), len(cache)
        positions = np.arange(before, before + n)
        embedded = self.norm(self.embedding[np.asarray(tokens)], w["nextn.enorm.weight"])
        joined = np.concatenate((embedded, self.norm(h, w["nextn.hnorm.weight"])), -1)
        x = joined @ w["nextn.eh_proj.weight"].T
        normed = self.norm(x, w["attn_norm.weight"])

        def heads(name: str, count: int, size: int) -> np.ndarray:
            return (normed @ w[f"{name}.weight"].T).reshape(n, count, size)

        q, gate = np.split(heads("attn_q", c.n_heads, 2 * c.head_dim), 2, axis=-1)
        q = self.rotate(self.norm(q, w["attn_q_norm.weight"]), positions)
        k = heads("attn_k", c.n_kv_heads, c.head_dim)
        k = self.rotate(self.norm(k, w["attn_k_norm.weight"]), positions)
        cache.keys = np.concatenate((cache.keys, k))
        v = heads("attn_v", c.n_kv_heads, c.head_dim)
        cache.values = np.concatenate((cache.values, v))
        attended = np.empty_like(q)
        for i in range(n):
            for head in range(c.n_heads):
                of = head // (c.n_heads // c.n_kv_heads)
                scores = cache.keys[: before + i + 1, of] @ q[i, head] / np.sqrt(c.head_dim)
                weights = np.exp(scores - scores.max())
                attended[i, head] = weights / weights.sum() @ cache.values[: before + i + 1, of]
        attended /= 1 + np.exp(-gate)
        x = x + attended.reshape(n, -1) @ w["attn_output.weight"].T
        normed = self.norm(x, w["post_attention_norm.weight"])
        x = x + (self._mixture(normed) if c.n_experts else self._network(normed, ""))
        said = self.norm(x, self.last_norm)
        logits = said @ self.output.T
        logits[:, self.banned] = -np.inf
        return said, logits

    def _network(self, x: np.ndarray, kind: str, expert: int | None = None) -> np.ndarray:
        def of(part: str) -> np.ndarray:
            rows = self.weights[f"ffn_{part}{kind}.weight"]
            return rows if expert is None else rows[expert]

        gate = x @ of("gate").T
        out: np.ndarray = (gate / (1 + np.exp(-gate)) * (x @ of("up").T)) @ of("down").T
        return out

    def _mixture(self, x: np.ndarray) -> np.ndarray:
        scores = np.exp(x @ self.weights["ffn_gate_inp.weight"].T)
        out = np.zeros_like(x)
        for row in range(len(x)):
            best = np.argsort(-scores[row])[: self.c.n_experts_used]
            for expert in best:
                share = scores[row, expert] / scores[row, best].sum()
                out[row] += share * self._network(x[row : row + 1], "_exps", int(expert))[0]
        if "ffn_gate_inp_shexp.weight" in self.weights:
            router = x @ self.weights["ffn_gate_inp_shexp.weight"].reshape(1, -1).T
            out += self._network(x, "_shexp") / (1 + np.exp(-router))
        return out

    def ingest(
        self, cache: Cache, next_tokens: Sequence[int] | np.ndarray, taps: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Committed rows behind those of the cache."""
        return self.rows(cache, next_tokens, self.fuse(taps))

    def chain(
        self, cache: Cache, said: np.ndarray, logits: np.ndarray, n: int
    ) -> tuple[list[int], np.ndarray]:
        """Greedy drafts behind the row that gave `said` and `logits`; as Head.chain()."""
        ids, laws = [int(np.argmax(logits))], [logits]
        while len(ids) < n:
            out, rows = self.rows(cache, ids[-1:], said[None])
            said, logits = out[0], rows[0]
            ids.append(int(np.argmax(logits)))
            laws.append(logits)
        return ids, np.stack(laws)


def new_cache(config: MtpConfig) -> Cache:
    cache: Any = Cache(config)  # type: ignore[arg-type]
    return cache
