"""gpt-oss: stacked experts with interleaved gates, in plain numbers or MXFP4."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .experts import mixture_config, read_mixture
from .hf_config import Config
from .model_description import Model, context_length, read_sizes
from .rope import read_rope
from .stacks import BLOCK, Piece
from .windows import layer_types, usual_windows, windowed_layers

if TYPE_CHECKING:
    from .gguf_keys import Keys

ARCH = "gpt-oss"
PERIOD = 2  # every second layer has no window
ALPHA, LIMIT = 1.702, 7.0  # of SwiGLU; GGUF files have no keys for them
YARN = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}


def _is_packed(config: Config, size: int, hidden: int) -> bool:
    quantisation: Any = config.get("quantization_config")
    if quantisation is None:
        return False
    if not isinstance(quantisation, dict) or quantisation.get("quant_method") != "mxfp4":
        raise config.fail("quantization_config", "null, or of the quant_method mxfp4")
    if size % BLOCK or hidden % BLOCK:
        raise config.fail("intermediate_size", f"as hidden_size, a multiple of {BLOCK}", size)
    return True


def _expect_experts(
    model: Model, to: str, of: str, sizes: tuple[int, int, int], packed: bool
) -> None:
    n, size, hidden = sizes
    of += ".mlp.experts"
    for name, source, first, step, n_out, n_in in (
        ("gate", "gate_up_proj", 0, 2, size, hidden),
        ("up", "gate_up_proj", 1, 2, size, hidden),
        ("down", "down_proj", 0, 1, hidden, size),
    ):
        target = f"{to}.ffn_{name}_exps"
        weight = model.expect(f"{target}.weight", f"{of}.{source}", (n, n_out, n_in))
        weight.piece = Piece(first, step, turned=not packed)
        weight.source_shape = (n, n_in, n_out * step)
        weight.packed = packed
        bias = model.expect(f"{target}.bias", f"{of}.{source}_bias", (n, n_out))
        bias.piece, bias.source_shape = Piece(first, step), (n, n_out * step)
        bias.plain = True


def gpt_oss(config: Config) -> Model:
    context = context_length(config, 131072)
    model, hidden, n_layers, n_heads, head_dim = read_sizes(config, ARCH, context, 64)
    n_kv_heads = config.integer("num_key_value_heads", 8)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads", n_kv_heads)
    config.require("hidden_act", ("silu", "swish"), "only SiLU is supported", "silu")
    config.require("attention_bias", (True,), "its biases are expected", True)
    config.require("swiglu_alpha", (ALPHA,), "another one is not supported", ALPHA)
    config.require("swiglu_limit", (LIMIT,), "another one is not supported", LIMIT)
    config.has("initial_context_length")  # said by the rope's parameters too
    config.has("experts_per_token")  # as num_experts_per_tok
    mixture = read_mixture(config, "num_local_experts")
    packed = _is_packed(config, mixture.size, hidden)
    if not config.has("rope_scaling") and not config.has("rope_parameters"):
        config.values["rope_parameters"] = dict(YARN)
    config.values.setdefault("rope_theta", 150000.0)
    rope = read_rope(config, head_dim, context, divisors=False, truncates=False)
    model.keys |= {
        f"{ARCH}.attention.head_count_kv": n_kv_heads,
        f"{ARCH}.attention.key_length": head_dim,
        f"{ARCH}.attention.value_length": head_dim,
        f"{ARCH}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-5),
        f"{ARCH}.rope.freq_base": rope.theta,
        f"{ARCH}.rope.dimension_count": head_dim,
        f"{ARCH}.expert_feed_forward_length": mixture.size,
    }
    model.keys |= {f"{ARCH}.rope.{key}": value for key, value in rope.keys.items()}
    windows = usual_windows(config, 128, PERIOD)
    model.keys |= {f"{ARCH}.{key}": value for key, value in windows.items()}
    model.keys |= mixture.keys(ARCH)
    model.heads = ("lm_head.weight",)
    model.expect("token_embd.weight", "model.embed_tokens.weight", (model.n_vocab, hidden))
    q_size, kv_size = n_heads * head_dim, n_kv_heads * head_dim
    for layer in range(n_layers):
        to, of = f"blk.{layer}", f"model.layers.{layer}"
        model.expect(f"{to}.attn_norm.weight", f"{of}.input_layernorm.weight", (hidden,))
        for name, source, n_out, n_in in (
            ("attn_q", "self_attn.q_proj", q_size, hidden),
            ("attn_k", "self_attn.k_proj", kv_size, hidden),
            ("attn_v", "self_attn.v_proj", kv_size, hidden),
            ("attn_output", "self_attn.o_proj", hidden, q_size),
            ("ffn_gate_inp", "mlp.router", mixture.count, hidden),
        ):
            model.expect(f"{to}.{name}.weight", f"{of}.{source}.weight", (n_out, n_in))
            model.expect(f"{to}.{name}.bias", f"{of}.{source}.bias", (n_out,))
        model.expect(f"{to}.attn_sinks.weight", f"{of}.self_attn.sinks", (n_heads,))
        norm = f"{of}.post_attention_layernorm.weight"
        model.expect(f"{to}.post_attention_norm.weight", norm, (hidden,))
        _expect_experts(model, to, of, (mixture.count, mixture.size, hidden), packed)
    model.expect("output_norm.weight", "model.norm.weight", (hidden,))
    return model


def config_json(keys: Keys) -> dict[str, Any]:
    """What config.json of such a file says beside what all have."""
    return mixture_config(keys, count="num_local_experts", size=None) | {
        "attention_bias": True,
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": layer_types(windowed_layers(keys, PERIOD)),
    }
