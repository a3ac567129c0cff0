"""Small models of the qwen35 kind: gated delta rules and, every fourth layer, gated attention."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tiny_models import Metadata, Tensors, TinyConfig

N_HEADS, N_KEY_HEADS, N_TAPS = 6, 2, 4


def is_recurrent(layer: int) -> bool:
    return (layer + 1) % 4 != 0


def sizes(
    dim: int, n_heads: int = N_HEADS, n_key_heads: int = N_KEY_HEADS, n_taps: int = N_TAPS
) -> Metadata:
    return {
        "qwen35.ssm.conv_kernel": n_taps,
        "qwen35.ssm.state_size": dim,
        "qwen35.ssm.group_count": n_key_heads,
        "qwen35.ssm.time_step_rank": n_heads,
        "qwen35.ssm.inner_size": n_heads * dim,
        "qwen35.full_attention_interval": 4,
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


def from_transformers(hf: Any, state: dict[str, np.ndarray], keys: Metadata) -> tuple[Any, Any]:
    """Keys and tensors of a Qwen3_5ForCausalLM; `keys`: those of every architecture."""
    n_heads, n_key_heads = hf.linear_num_value_heads, hf.linear_num_key_heads
    rope = hf.rope_parameters
    keys = keys | sizes(hf.linear_key_head_dim, n_heads, n_key_heads, hf.linear_conv_kernel_dim)
    del keys["qwen35.full_attention_interval"]
    keys |= {
        "qwen35.attention.recurrent_layers": [
            int(kind == "linear_attention") for kind in hf.layer_types
        ],
        "qwen35.rope.freq_base": float(rope["rope_theta"]),
        "qwen35.rope.dimension_count": int(hf.head_dim * rope["partial_rotary_factor"]),
        "qwen35.rope.dimension_sections": [*rope["mrope_section"], 0],
    }

    def values(rows: np.ndarray) -> np.ndarray:
        return tiled(rows, n_heads, n_key_heads)

    tensors: Tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"] + 1,
    }
    if not hf.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    n_keys = 2 * n_key_heads * hf.linear_key_head_dim
    for layer, kind in enumerate(hf.layer_types):
        to, of = f"blk.{layer}", f"model.layers.{layer}"
        tensors[f"{to}.attn_norm.weight"] = state[f"{of}.input_layernorm.weight"] + 1
        if kind == "linear_attention":
            of += ".linear_attn"
            qkv, conv = state[f"{of}.in_proj_qkv.weight"], state[f"{of}.conv1d.weight"][:, 0]
            tensors |= {
                f"{to}.attn_qkv.weight": np.concatenate([qkv[:n_keys], values(qkv[n_keys:])]),
                f"{to}.ssm_conv1d.weight": np.concatenate([conv[:n_keys], values(conv[n_keys:])]),
                f"{to}.attn_gate.weight": values(state[f"{of}.in_proj_z.weight"]),
                f"{to}.ssm_alpha.weight": values(state[f"{of}.in_proj_a.weight"]),
                f"{to}.ssm_beta.weight": values(state[f"{of}.in_proj_b.weight"]),
                f"{to}.ssm_dt.bias": values(state[f"{of}.dt_bias"]),
                f"{to}.ssm_a": values(-np.exp(state[f"{of}.A_log"])),
                f"{to}.ssm_norm.weight": state[f"{of}.norm.weight"],
                f"{to}.ssm_out.weight": values(state[f"{of}.out_proj.weight"].T).T,
            }
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
        for name in ("gate", "up", "down"):
            tensors[f"{to}.ffn_{name}.weight"] = state[f"{of}.mlp.{name}_proj.weight"]
    return keys, tensors
