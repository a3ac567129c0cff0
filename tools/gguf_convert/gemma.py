"""Gemma 2, and the text models of Gemma 3."""

from __future__ import annotations

from .errors import ConvertError
from .hf_config import Config
from .model_description import Model, context_length, read_sizes
from .rope import Rope, nested_ropes, read_rope
from .windows import usual_windows

PERIODS = {"gemma2": 2, "gemma3": 6}  # of files that say nothing: every so many layers are full
# Whose scores are scaled by the heads' share of the width: the 27B models.
LAYERS_OF_LARGEST = {"gemma2": 46, "gemma3": 62}


def _ropes(config: Config, head_dim: int, context: int) -> tuple[Rope, float]:
    """That of full layers, and the base of windowed ones."""
    ropes = nested_ropes(config, head_dim, context)
    if ropes is None:
        config.values.setdefault("rope_theta", 1e6)
        local = config.number("rope_local_base_freq", 10000.0)
        return read_rope(config, head_dim, context, divisors=False), local
    config.has("rope_local_base_freq")
    return ropes[0], ropes[1].theta


def attention_scalar(arch: str, hidden: int, n_layers: int, n_heads: int, head_dim: int) -> float:
    return hidden / n_heads if n_layers == LAYERS_OF_LARGEST[arch] else head_dim


def _check_scale(config: Config, usual: float) -> None:
    scalar = config.number("query_pre_attn_scalar", 256)
    if scalar != usual:
        raise ConvertError(
            f"{config.fail('query_pre_attn_scalar', f'{usual:g}', scalar)}: "
            "GGUF files of this family cannot say another"
        )


def _soft_caps(config: Config, arch: str, usual: dict[str, float | None]) -> dict[str, float]:
    """`usual`: where config.json is silent; null is none."""
    caps = {}
    for key, default in usual.items():
        value = config.values.get(key, default)
        config.has(key)
        if value is not None:
            caps[f"{arch}.{key}"] = config.checked_number(key, value)
        elif default is not None:
            caps[f"{arch}.{key}"] = 0.0
    return caps


def _gemma(config: Config, arch: str, context: int) -> Model:
    """All but rope and soft caps."""
    config.values.setdefault("tie_word_embeddings", True)
    model, hidden, n_layers, n_heads, head_dim = read_sizes(config, arch, context, 256)
    n_kv_heads = config.integer("num_key_value_heads", 4)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads", n_kv_heads)
    gelu = "gelu_pytorch_tanh"
    config.require("hidden_activation", (gelu,), "only the tanh GELU is supported", gelu)
    config.require("attention_bias", (False,), "biases there are not supported", False)
    config.require("use_bidirectional_attention", (False,), "it is not supported", False)
    config.has("cache_implementation")
    config.has("hidden_act")  # transformers looks at hidden_activation
    _check_scale(config, attention_scalar(arch, hidden, n_layers, n_heads, head_dim))
    model.keys |= {
        f"{arch}.attention.head_count_kv": n_kv_heads,
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-6),
        f"{arch}.rope.dimension_count": head_dim,
    }
    windows = usual_windows(config, 4096, PERIODS[arch])
    model.keys |= {f"{arch}.{key}": value for key, value in windows.items()}

    ffn = model.keys[f"{arch}.feed_forward_length"]
    q_size, kv_size = n_heads * head_dim, n_kv_heads * head_dim
    model.heads = ("lm_head.weight",)
    model.expect("token_embd.weight", "model.embed_tokens.weight", (model.n_vocab, hidden))
    matrices = {
        "attn_q": ("self_attn.q_proj", (q_size, hidden)),
        "attn_k": ("self_attn.k_proj", (kv_size, hidden)),
        "attn_v": ("self_attn.v_proj", (kv_size, hidden)),
        "attn_output": ("self_attn.o_proj", (hidden, q_size)),
        "ffn_gate": ("mlp.gate_proj", (ffn, hidden)),
        "ffn_up": ("mlp.up_proj", (ffn, hidden)),
        "ffn_down": ("mlp.down_proj", (hidden, ffn)),
    }
    norms = {
        "attn_norm": ("input_layernorm", hidden),
        "post_attention_norm": ("post_attention_layernorm", hidden),
        "ffn_norm": ("pre_feedforward_layernorm", hidden),
        "post_ffw_norm": ("post_feedforward_layernorm", hidden),
    }
    if arch == "gemma3":
        norms["attn_q_norm"] = ("self_attn.q_norm", head_dim)
        norms["attn_k_norm"] = ("self_attn.k_norm", head_dim)
    for layer in range(n_layers):
        to, of = f"blk.{layer}", f"model.layers.{layer}"
        for name, (source, shape) in matrices.items():
            model.expect(f"{to}.{name}.weight", f"{of}.{source}.weight", shape)
        for name, (source, size) in norms.items():  # checkpoints hold what is added to 1
            model.expect(f"{to}.{name}.weight", f"{of}.{source}.weight", (size,), plus=1)
    model.expect("output_norm.weight", "model.norm.weight", (hidden,), plus=1)
    return model


def gemma2(config: Config) -> Model:
    context = context_length(config, 8192)
    model = _gemma(config, "gemma2", context)
    caps = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    model.keys |= _soft_caps(config, "gemma2", caps)
    rope = read_rope(config, model.keys["gemma2.attention.key_length"], context, divisors=False)
    keys = {"freq_base": rope.theta, **rope.keys}
    model.keys |= {f"gemma2.rope.{key}": value for key, value in keys.items()}
    return model


def gemma3(config: Config) -> Model:
    context = context_length(config, 131072)
    model = _gemma(config, "gemma3", context)
    model.keys |= _soft_caps(config, "gemma3", {"final_logit_softcapping": None})
    rope, local = _ropes(config, model.keys["gemma3.attention.key_length"], context)
    keys = {"freq_base": rope.theta, "freq_base_swa": local, **rope.keys}
    model.keys |= {f"gemma3.rope.{key}": value for key, value in keys.items()}
    return model
