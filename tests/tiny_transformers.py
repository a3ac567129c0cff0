"""Models of transformers as keys and tensors of GGUF files, without the project's converter."""

from __future__ import annotations

from typing import Any

import numpy as np

import tiny_experts
import tiny_hybrid
from tiny_models import Metadata, Tensors, TinyConfig, metadata


def _permute(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Half-split rope rows to the neighbouring pairs in which llama files store q and k."""
    per_head = rows.shape[0] // n_heads
    split = rows.reshape(n_heads, 2, per_head // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _numpy_state(model: Any) -> dict[str, np.ndarray]:
    return {name: t.detach().float().numpy() for name, t in model.state_dict().items()}


def _rope_keys(arch: str, hf: Any, original_context: int | None) -> Metadata:
    rope = dict(getattr(hf, "rope_parameters", None) or getattr(hf, "rope_scaling", None) or {})
    rope = rope.get("full_attention", rope)
    theta = rope.get("rope_theta", getattr(hf, "rope_theta", 10000.0))
    keys: Metadata = {f"{arch}.rope.freq_base": float(theta)}
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        keys[f"{arch}.rope.scaling.type"] = kind
        keys[f"{arch}.rope.scaling.factor"] = float(rope["factor"])
    if kind == "yarn":
        context = rope.get("original_max_position_embeddings", original_context)
        keys[f"{arch}.rope.scaling.original_context_length"] = int(context)
        truncates = rope.get("truncate", True)
        if truncates != (arch != "gpt-oss"):
            keys[f"{arch}.rope.scaling.yarn_truncate"] = truncates
    return keys


def _llama3_divisors(hf: Any, head_dim: int) -> np.ndarray | None:
    """rope_freqs.weight as converters write it."""
    rope = dict(getattr(hf, "rope_parameters", None) or getattr(hf, "rope_scaling", None) or {})
    if rope.get("rope_type") != "llama3":
        return None
    theta = rope.get("rope_theta", getattr(hf, "rope_theta", 10000.0))
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    divisors = []
    for i in range(head_dim // 2):
        wavelength = 2 * np.pi * theta ** (2 * i / head_dim)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(float(rope["factor"]))
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1.0 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def _split_experts(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """In memory transformers has gate and up of all experts in one tensor."""
    out = {}
    for name, values in state.items():
        if name.endswith("experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
                out[name.replace("gate_up_proj", f"{part}_proj.weight")] = half
        else:
            out[name + ".weight" if name.endswith("experts.down_proj") else name] = values
    return out


def _config(hf: Any, arch: str, **own: Any) -> TinyConfig:
    """Sizes, by the names that most configurations have for them; `own`: those of this one."""

    def first(*names: str, default: int = 0) -> Any:
        return next((getattr(hf, name) for name in names if getattr(hf, name, None)), default)

    hybrid_of_experts = arch in tiny_hybrid.ARCHS and arch != "qwen35"
    sizes: Metadata = {
        "arch": arch,
        "n_layers": hf.num_hidden_layers,
        "hidden_size": hf.hidden_size,
        "n_heads": hf.num_attention_heads,
        "n_kv_heads": first("num_key_value_heads", "num_attention_heads"),
        "head_dim": first("head_dim", default=hf.hidden_size // hf.num_attention_heads),
        "intermediate_size": hf.moe_intermediate_size
        if hybrid_of_experts
        else hf.intermediate_size,
        "context_length": hf.max_position_embeddings,
        "norm_epsilon": first("rms_norm_eps", "layer_norm_eps"),
        "n_experts": first("num_experts", "num_local_experts"),
        "n_experts_used": first("num_experts_per_tok"),
        "shared_size": first("shared_expert_intermediate_size", "shared_intermediate_size"),
    }
    return TinyConfig(**(sizes | own))


def _outer_tensors(model: Any, state: dict[str, np.ndarray]) -> Tensors:
    tensors: Tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not model.config.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    return tensors


def _llama_like(model: Any, arch: str) -> tuple[Metadata, Tensors]:
    hf = model.config
    state = _numpy_state(model)
    config = _config(hf, arch)
    if arch in tiny_hybrid.ARCHS:
        return tiny_hybrid.from_transformers(arch, hf, state, metadata(config))
    tensors = _outer_tensors(model, state)
    divisors = _llama3_divisors(hf, config.head_dim)
    if divisors is not None:
        tensors["rope_freqs.weight"] = divisors
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    if arch in ("gemma2", "gemma3"):
        names |= {
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    if arch == "olmo2":
        names |= {
            "post_attention_layernorm": "post_attention_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    if arch in ("gemma2", "gemma3"):
        state = {k: v + 1 if k.endswith("norm.weight") else v for k, v in state.items()}
        tensors["output_norm.weight"] = state["model.norm.weight"]
    interleaved = arch in ("llama", "smollm3", "granite", "granitemoe")
    if arch == "gpt-oss":
        state = tiny_experts.gpt_oss_state(state)
        names |= {"self_attn.sinks": "attn_sinks", "mlp.router": "ffn_gate_inp"}
        names["post_attention_layernorm"] = "post_attention_norm"
    if arch == "granitemoe":
        state = tiny_experts.granite_state(state)
        names |= {f"shared_mlp.{part}": f"ffn_{part}_shexp" for part in ("gate", "up", "down")}
    if config.n_experts:
        state = _split_experts(state)
        names |= {"mlp.gate": "ffn_gate_inp"}
        names |= {f"mlp.experts.{part}_proj": f"ffn_{part}_exps" for part in ("gate", "up", "down")}
    permuted = {"attn_q": config.n_heads, "attn_k": config.n_kv_heads} if interleaved else {}
    for layer in range(config.n_layers):
        for source, name in names.items():
            for kind in ("weight", "bias"):
                values = state.get(f"model.layers.{layer}.{source}.{kind}")
                if values is None:
                    continue
                if name in permuted:
                    values = _permute(values, permuted[name])
                tensors[f"blk.{layer}.{name}.{kind}"] = values
    if arch == "gemma3":
        return metadata(config) | _gemma3_keys(hf), tensors
    keys = metadata(config) | _rope_keys(arch, hf, hf.max_position_embeddings)
    if type(hf).__name__ == "MixtralConfig" and hf.sliding_window:
        keys["llama.attention.sliding_window"] = hf.sliding_window
    if config.n_experts and hasattr(hf, "moe_intermediate_size"):
        keys[f"{arch}.expert_feed_forward_length"] = hf.moe_intermediate_size
    if arch == "gpt-oss":
        keys |= tiny_experts.gpt_oss_window(hf)
    if type(hf).__name__ == "Olmo3Config":
        keys["olmo2.attention.sliding_window"] = hf.sliding_window
        keys["olmo2.attention.sliding_window_pattern"] = [
            int(kind == "sliding_attention") for kind in hf.layer_types
        ]
    if arch == "gemma2":
        keys |= {
            "gemma2.attention.sliding_window": hf.sliding_window,
            "gemma2.attn_logit_softcapping": float(hf.attn_logit_softcapping or 0),
            "gemma2.final_logit_softcapping": float(hf.final_logit_softcapping or 0),
        }
    if arch.startswith("granite"):
        keys |= {
            f"{arch}.embedding_scale": float(hf.embedding_multiplier),
            f"{arch}.residual_scale": float(hf.residual_multiplier),
            f"{arch}.logit_scale": float(hf.logits_scaling),
            f"{arch}.attention.scale": float(hf.attention_multiplier),
        }
    return keys, tensors


def _gemma3_keys(hf: Any) -> Metadata:
    full = hf.rope_parameters["full_attention"]
    keys: Metadata = {
        "gemma3.rope.freq_base": float(full["rope_theta"]),
        "gemma3.rope.freq_base_swa": float(hf.rope_parameters["sliding_attention"]["rope_theta"]),
        "gemma3.attention.sliding_window": hf.sliding_window,
        "gemma3.attention.sliding_window_pattern": [
            int(kind == "sliding_attention") for kind in hf.layer_types
        ],
    }
    if hf.final_logit_softcapping is not None:
        keys["gemma3.final_logit_softcapping"] = float(hf.final_logit_softcapping)
    if full["rope_type"] == "linear":
        keys["gemma3.rope.scaling.type"] = "linear"
        keys["gemma3.rope.scaling.factor"] = float(full["factor"])
    return keys


def _phi3(model: Any) -> tuple[Metadata, Tensors]:
    hf = model.config
    state = _numpy_state(model)
    rope = hf.rope_parameters
    head_dim = hf.hidden_size // hf.num_attention_heads
    config = _config(hf, "phi3", n_rot=int(head_dim * rope["partial_rotary_factor"]))
    tensors = _outer_tensors(model, state)
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config.n_layers):
        for source, name in names.items():
            values = state[f"model.layers.{layer}.{source}.weight"]
            tensors[f"blk.{layer}.{name}.weight"] = values
    keys = metadata(config) | _rope_keys("phi3", hf, None)
    del keys["phi3.rope.scaling.attn_factor"]
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        factor = rope.get("factor") or hf.max_position_embeddings / original
        usual = np.sqrt(1 + np.log(factor) / np.log(original))
        keys["phi3.rope.scaling.original_context_length"] = original
        keys["phi3.rope.scaling.attn_factor"] = float(rope.get("attention_factor") or usual)
        for name in ("short", "long"):
            factors = np.array(rope[f"{name}_factor"], np.float32)
            tensors[f"rope_factors_{name}.weight"] = factors
    keys["phi3.attention.sliding_window"] = hf.sliding_window or 0
    return keys, tensors


def _neox(model: Any) -> tuple[Metadata, Tensors]:
    hf = model.config
    state = _numpy_state(model)
    head_dim = hf.hidden_size // hf.num_attention_heads
    rope = dict(getattr(hf, "rope_parameters", None) or {})
    rotary = rope.get("partial_rotary_factor", getattr(hf, "rotary_pct", 1.0))
    config = _config(
        hf,
        "gptneox",
        n_rot=int(head_dim * rotary),
        parallel_residual=hf.use_parallel_residual,
    )
    tensors: Tensors = {
        "token_embd.weight": state["gpt_neox.embed_in.weight"],
        "output_norm.weight": state["gpt_neox.final_layer_norm.weight"],
        "output_norm.bias": state["gpt_neox.final_layer_norm.bias"],
    }
    if not hf.tie_word_embeddings:
        head = model.get_output_embeddings().weight  # embed_out or lm_head, by version
        tensors["output.weight"] = head.detach().float().numpy()
    names = {
        "input_layernorm": "attn_norm",
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    }
    for layer in range(config.n_layers):
        for source, name in names.items():
            for kind in ("weight", "bias"):
                values = state[f"gpt_neox.layers.{layer}.{source}.{kind}"]
                if name == "attn_qkv":  # per head [q; k; v] to [Q; K; V]
                    heads = values.reshape(config.n_heads, 3, head_dim, *values.shape[1:])
                    values = np.concatenate(
                        [heads[:, i].reshape(-1, *values.shape[1:]) for i in range(3)]
                    )
                tensors[f"blk.{layer}.{name}.{kind}"] = values
    return metadata(config) | _rope_keys("gptneox", hf, None), tensors


# By what the classes of transformers begin with.
ARCHS = {
    "Llama": "llama",
    "Mixtral": "llama",
    "Qwen2": "qwen2",
    "Qwen3": "qwen3",
    "Qwen3Moe": "qwen3moe",
    "Qwen3_5": "qwen35",
    "Qwen3_5Moe": "qwen35moe",
    "Qwen3Next": "qwen3next",
    "SmolLM3": "smollm3",
    "Granite": "granite",
    "GraniteMoe": "granitemoe",
    "GraniteMoeShared": "granitemoe",
    "Gemma2": "gemma2",
    "Gemma3": "gemma3",
    "Olmo2": "olmo2",
    "Olmo3": "olmo2",
    "Olmoe": "olmoe",
    "GptOss": "gpt-oss",
}


def from_transformers(model: Any) -> tuple[Metadata, Tensors]:
    """Metadata and tensors of a causal model of transformers."""
    name = type(model).__name__.removesuffix("ForCausalLM")
    if name == "Phi3":
        return _phi3(model)
    if name == "GPTNeoX":
        return _neox(model)
    return _llama_like(model, ARCHS[name])
