"""Phi-3, Phi-3.5, Phi-4 and Phi-4-mini: fused matrices, rope of a part of each head, longrope."""

from __future__ import annotations

from .hf_config import Config
from .model_description import Model, context_length, read_sizes
from .rope import read_rope
from .tensors import Computed, Target

ARCH = "phi3"
WINDOW_NOTE = (
    "the sliding window of {} positions is written; llama.cpp ignores it in this architecture and "
    "gives other logits beyond it"
)


def _window(config: Config, context: int) -> int:
    """0: none."""
    if config.get("sliding_window") is None:
        return 0
    window = config.integer("sliding_window")
    if window < context:
        config.notes.append(WINDOW_NOTE.format(window))
    return window


def phi3(config: Config) -> Model:
    context = context_length(config, 4096)
    model, hidden, n_layers, n_heads, head_dim = read_sizes(config, ARCH, context)
    n_kv_heads = config.integer("num_key_value_heads", n_heads)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads", n_kv_heads)
    config.require("hidden_act", ("silu", "swish"), "only SiLU is supported", "silu")
    config.require("attention_bias", (False,), "biases there are not supported", False)
    for key in ("mlp_bias", "lm_head_bias"):
        config.require(key, (False,), "biases there are not supported", False)
    for key in ("full_attn_mod", "interpolate_factor"):  # of Phi-4-mini's own code
        config.require(key, (1,), "transformers knows no other", 1)
    config.has("original_max_position_embeddings")
    rope = read_rope(config, head_dim, context, divisors=False, longrope=True)
    share = 1.0 if rope.rotated_share is None else rope.rotated_share
    n_rot = int(head_dim * share)
    if not 2 <= n_rot <= head_dim or n_rot % 2:
        text = f"an even part of the head's {head_dim} dimensions"
        raise config.fail("partial_rotary_factor", text, share)
    model.keys |= {
        f"{ARCH}.attention.head_count_kv": n_kv_heads,
        f"{ARCH}.attention.key_length": head_dim,
        f"{ARCH}.attention.value_length": head_dim,
        f"{ARCH}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-5),
        f"{ARCH}.attention.sliding_window": _window(config, context),
        f"{ARCH}.rope.dimension_count": n_rot,
        f"{ARCH}.rope.freq_base": rope.theta,
    } | {f"{ARCH}.rope.{key}": value for key, value in rope.keys.items()}
    for name, factors in (("long", rope.long_factors), ("short", rope.short_factors)):
        if factors is not None:
            source = Computed("(rope scaling of config.json)", factors)
            model.computed.append(Target(f"rope_factors_{name}.weight", source))

    ffn = model.keys[f"{ARCH}.feed_forward_length"]
    q_size, kv_size = n_heads * head_dim, n_kv_heads * head_dim
    model.heads = ("lm_head.weight",)
    model.expect("token_embd.weight", "model.embed_tokens.weight", (model.n_vocab, hidden))
    for layer in range(n_layers):
        to, of = f"blk.{layer}", f"model.layers.{layer}"
        for name, source, shape in (
            ("attn_norm", "input_layernorm", (hidden,)),
            ("attn_qkv", "self_attn.qkv_proj", (q_size + 2 * kv_size, hidden)),
            ("attn_output", "self_attn.o_proj", (hidden, q_size)),
            ("ffn_norm", "post_attention_layernorm", (hidden,)),
            ("ffn_up", "mlp.gate_up_proj", (2 * ffn, hidden)),
            ("ffn_down", "mlp.down_proj", (hidden, ffn)),
        ):
            model.expect(f"{to}.{name}.weight", f"{of}.{source}.weight", shape)
    model.expect("output_norm.weight", "model.norm.weight", (hidden,))
    return model
