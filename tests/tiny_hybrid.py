"""Small models of the qwen35 kind: gated delta rules and, every fourth layer, gated attention; in
other architectures experts too, and heads that are grouped by their key head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import tiny_experts

if TYPE_CHECKING:
    from tiny_models import Metadata, Tensors, TinyConfig

N_HEADS, N_KEY_HEADS, N_TAPS = 6, 2, 4
ARCHS = ("qwen35", "qwen35moe", "qwen3next")
GROUPED = ("qwen3next",)


def is_recurrent(layer: int) -> bool:
    return (layer + 1) % 4 != 0


def sizes(
    arch: str,
    dim: int,
    n_heads: int = N_HEADS,
    n_key_heads: int = N_KEY_HEADS,
    n_taps: int = N_TAPS,
) -> Metadata:
    return {
        f"{arch}.ssm.conv_kernel": n_taps,
        f"{arch}.ssm.state_size": dim,
        f"{arch}.ssm.group_count": n_key_heads,
        f"{arch}.ssm.time_step_rank": n_heads,
        f"{arch}.ssm.inner_size": n_heads * dim,
        f"{arch}.full_attention_interval": 4,
    }


def random_tensors(config: TinyConfig, seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}
    hidden, ffn, dim = config.hidden_size, config.intermediate_size, config.recurrent_dim
    n_values = N_HEADS * dim
    n_channels = 2 * N_KEY_HEADS * dim + n_values

    def matrix(name: str, n_out: int, n_in: int) -> None:
        values = rng.standard_normal((n_out, n_in)) / np.sqrt(n_in)
        tensors[f"{name}.weight"] = values.astype(np.float32)

    def vector(name: str, n: int, mean: float = 1.0, spread: float = 0.2) -> None:
        tensors[name] = (mean + spread * rng.standard_normal(n)).astype(np.float32)

    matrix("token_embd", config.vocab_size, hidden)
    tensors["token_embd.weight"] *= np.float32(np.sqrt(hidden))
    for layer in range(config.n_layers):
        of = f"blk.{layer}"
        vector(f"{of}.attn_norm.weight", hidden)
        if is_recurrent(layer):
            matrix(f"{of}.attn_qkv", n_channels, hidden)
            matrix(f"{of}.attn_gate", n_values, hidden)
            if config.arch in GROUPED:
                matrix(f"{of}.ssm_ba", 2 * N_HEADS, hidden)
            else:
                matrix(f"{of}.ssm_alpha", N_HEADS, hidden)
                matrix(f"{of}.ssm_beta", N_HEADS, hidden)
            matrix(f"{of}.ssm_conv1d", n_channels, N_TAPS)
            vector(f"{of}.ssm_dt.bias", N_HEADS, -2.0, 0.7)
            tensors[f"{of}.ssm_a"] = -np.exp(rng.normal(-1.0, 0.7, N_HEADS)).astype(np.float32)
            vector(f"{of}.ssm_norm.weight", dim)
            matrix(f"{of}.ssm_out", hidden, n_values)
        else:
            q_size = config.n_heads * config.head_dim
            kv_size = config.n_kv_heads * config.head_dim
            matrix(f"{of}.attn_q", 2 * q_size, hidden)
            matrix(f"{of}.attn_k", kv_size, hidden)
            matrix(f"{of}.attn_v", kv_size, hidden)
            vector(f"{of}.attn_q_norm.weight", config.head_dim)
            vector(f"{of}.attn_k_norm.weight", config.head_dim)
            matrix(f"{of}.attn_output", hidden, q_size)
        vector(f"{of}.post_attention_norm.weight", hidden)
        if config.n_experts:
            tensors |= tiny_experts.mixture(of, config, rng)
            continue
        matrix(f"{of}.ffn_gate", ffn, hidden)
        matrix(f"{of}.ffn_up", ffn, hidden)
        matrix(f"{of}.ffn_down", hidden, ffn)
    vector("output_norm.weight", hidden)
    if not config.tied:
        matrix("output", config.vocab_size, hidden)
    return tensors


# ---------------------------------------------------------------- from transformers


def tiled(values: np.ndarray, n_heads: int, n_key_heads: int) -> np.ndarray:
    """Rows of value heads grouped by their key head, as files have them: key heads in turn."""
    heads = values.reshape(n_key_heads, n_heads // n_key_heads, -1, *values.shape[1:])
    return np.ascontiguousarray(heads.swapaxes(0, 1)).reshape(values.shape)


def from_transformers(
    arch: str, hf: Any, state: dict[str, np.ndarray], keys: Metadata
) -> tuple[Any, Any]:
    """Keys and tensors of a causal model; `keys`: those of every architecture."""
    n_heads, n_key_heads = hf.linear_num_value_heads, hf.linear_num_key_heads
    rope = hf.rope_parameters
    keys = keys | sizes(
        arch, hf.linear_key_head_dim, n_heads, n_key_heads, hf.linear_conv_kernel_dim
    )
    del keys[f"{arch}.full_attention_interval"]
    keys |= {
        f"{arch}.attention.recurrent_layers": [
            int(kind == "linear_attention") for kind in hf.layer_types
        ],
        f"{arch}.rope.freq_base": float(rope["rope_theta"]),
        f"{arch}.rope.dimension_count": int(hf.head_dim * rope["partial_rotary_factor"]),
    }
    if "mrope_section" in rope:
        keys[f"{arch}.rope.dimension_sections"] = [*rope["mrope_section"], 0]

    tensors: Tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"] + 1,
    }
    if not hf.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    for layer, kind in enumerate(hf.layer_types):
        to, of = f"blk.{layer}", f"model.layers.{layer}"
        tensors[f"{to}.attn_norm.weight"] = state[f"{of}.input_layernorm.weight"] + 1
        if kind == "linear_attention":
            part = {k.removeprefix(f"{of}.linear_attn."): v for k, v in state.items()}
            own = _grouped(hf, part) if arch in GROUPED else _in_turn(hf, part)
            tensors |= {f"{to}.{name}": values for name, values in own.items()}
        else:
            of += ".self_attn"
            for name in ("q", "k", "v"):
                tensors[f"{to}.attn_{name}.weight"] = state[f"{of}.{name}_proj.weight"]
            for name in ("q", "k"):
                tensors[f"{to}.attn_{name}_norm.weight"] = state[f"{of}.{name}_norm.weight"] + 1
            tensors[f"{to}.attn_output.weight"] = state[f"{of}.o_proj.weight"]
        of = f"model.layers.{layer}"
        norm = state[f"{of}.post_attention_layernorm.weight"] + 1
        tensors[f"{to}.post_attention_norm.weight"] = norm
        if arch != "qwen35":
            tensors |= tiny_experts.of_qwen(to, f"{of}.mlp", state)
            continue
        for name in ("gate", "up", "down"):
            tensors[f"{to}.ffn_{name}.weight"] = state[f"{of}.mlp.{name}_proj.weight"]
    return keys, tensors


def _in_turn(hf: Any, state: dict[str, np.ndarray]) -> Tensors:
    """A layer's own tensors; value heads are put in another order."""

    def values(rows: np.ndarray) -> np.ndarray:
        return tiled(rows, hf.linear_num_value_heads, hf.linear_num_key_heads)

    n_keys = 2 * hf.linear_num_key_heads * hf.linear_key_head_dim
    qkv, conv = state["in_proj_qkv.weight"], state["conv1d.weight"][:, 0]
    return {
        "attn_qkv.weight": np.concatenate([qkv[:n_keys], values(qkv[n_keys:])]),
        "ssm_conv1d.weight": np.concatenate([conv[:n_keys], values(conv[n_keys:])]),
        "attn_gate.weight": values(state["in_proj_z.weight"]),
        "ssm_alpha.weight": values(state["in_proj_a.weight"]),
        "ssm_beta.weight": values(state["in_proj_b.weight"]),
        "ssm_dt.bias": values(state["dt_bias"]),
        "ssm_a": values(-np.exp(state["A_log"])),
        "ssm_norm.weight": state["norm.weight"],
        "ssm_out.weight": values(state["out_proj.weight"].T).T,
    }


def _grouped(hf: Any, state: dict[str, np.ndarray]) -> Tensors:
    """Likewise; q, k, v and z of each key head follow each other."""
    n, dim = hf.linear_num_key_heads, hf.linear_key_head_dim
    of_values = hf.linear_num_value_heads // n * hf.linear_value_head_dim
    rows = state["in_proj_qkvz.weight"]
    parts = np.split(rows.reshape(n, -1, rows.shape[1]), np.cumsum([dim, dim, of_values]), axis=1)
    q, k, v, z = (np.ascontiguousarray(part).reshape(-1, rows.shape[1]) for part in parts)
    return {
        "attn_qkv.weight": np.concatenate([q, k, v]),
        "ssm_conv1d.weight": state["conv1d.weight"][:, 0],
        "attn_gate.weight": z,
        "ssm_ba.weight": state["in_proj_ba.weight"],
        "ssm_dt.bias": state["dt_bias"],
        "ssm_a": -np.exp(state["A_log"]),
        "ssm_norm.weight": state["norm.weight"],
        "ssm_out.weight": state["out_proj.weight"],
    }
