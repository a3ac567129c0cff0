"""Qwen3.5 and Qwen3-Next: layers of a gated delta rule and layers of gated attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ConvertError
from .experts import Mixture, mixture_config, read_mixture
from .hf_config import Config
from .model_description import Model, context_length, read_sizes
from .rope import read_rope
from .tensors import Change

if TYPE_CHECKING:
    from .gguf_keys import Keys

GROUPED = ("qwen3next",)  # value heads stay with their key head
# Of models that also see images the class, the one of the part that writes text, and its type.
WITH_IMAGES = {
    "Qwen3_5ForConditionalGeneration": ("Qwen3_5ForCausalLM", "qwen3_5_text"),
    "Qwen3_5MoeForConditionalGeneration": ("Qwen3_5MoeForCausalLM", "qwen3_5_moe_text"),
}
INTERVAL = 4  # of files that say nothing: every fourth layer has attention
KINDS = {"linear_attention": True, "full_attention": False}
SECTIONS = [11, 11, 10]
MTP = "mtp."  # what the names of a block that predicts further tokens begin with


def _logarithm(x: np.ndarray) -> np.ndarray:
    """Of -x: the numbers next to it, where their exponential is nearer."""
    near = np.log(-x).astype(np.float32)
    for towards in (-np.inf, np.inf):
        other = near
        for _ in range(4):
            other = np.nextafter(other, np.float32(towards))
            better = np.abs(np.exp(other) + x) < np.abs(np.exp(near) + x)
            near = np.where(better, other, near)
    return near


NEGATIVE_EXPONENTIAL = Change(lambda x: -np.exp(x), _logarithm)


def text_part(config: Config) -> Config:
    """Of a model that also sees images: the part that writes text."""
    names = config.values.get("architectures")
    if not isinstance(names, list) or len(names) != 1 or names[0] not in WITH_IMAGES:
        return config
    text = config.values.get("text_config")
    if not isinstance(text, dict):
        raise config.fail("text_config", "an object")
    name, model_type = WITH_IMAGES[names[0]]
    values = text | {"architectures": [name], "model_type": model_type}
    for key in ("tie_word_embeddings", "_name_or_path"):
        if key in config.values:
            values[key] = config.values[key]
    part = Config(values, config.path, config.ignored)
    part.notes.append("what sees images is left out")
    return part


def _recurrent_layers(config: Config, n_layers: int) -> list[bool]:
    interval = config.integer("full_attention_interval", INTERVAL)
    types: Any = config.get("layer_types")
    if types is None:
        return [(layer + 1) % interval != 0 for layer in range(n_layers)]
    if not isinstance(types, list) or len(types) != n_layers or set(map(str, types)) - set(KINDS):
        text = f"a list of linear_attention and full_attention for {n_layers} layers"
        raise config.fail("layer_types", text)
    return [KINDS[str(kind)] for kind in types]


def values_order(n_heads: int, n_key_heads: int, dim: int) -> np.ndarray:
    """Rows of value heads, grouped by their key head in checkpoints: key heads in turn."""
    order = np.arange(n_heads * dim).reshape(n_key_heads, n_heads // n_key_heads, dim)
    return order.swapaxes(0, 1).reshape(-1)


def _sections(config: Config, n_rot: int) -> list[int]:
    """What read_rope() does not know is taken out of the parameters."""
    found: Any = SECTIONS
    for key in ("rope_scaling", "rope_parameters"):
        parameters = config.get(key)
        if not isinstance(parameters, dict):
            continue
        found = parameters.get("mrope_section", found)
        own = ("mrope_section", "mrope_interleaved")
        config.values[key] = {name: v for name, v in parameters.items() if name not in own}
    whole = isinstance(found, list) and all(type(n) is int and n >= 0 for n in found)
    if not whole or len(found) != 3 or sum(found) < n_rot // 2:
        raise config.fail("mrope_section", f"three numbers that make {n_rot // 2} at least", found)
    return list(found)


def _expect_inputs(model: Model, to: str, of: str, hidden: int, s: dict[str, int]) -> None:
    """What is multiplied with the hidden state; value heads are put in turn."""
    n_heads, n_keys = s["heads"], 2 * s["key_heads"] * s["dim"]
    n_values = n_heads * s["dim"]
    heads = values_order(n_heads, s["key_heads"], 1)
    values = values_order(n_heads, s["key_heads"], s["dim"])
    channels = np.concatenate([np.arange(n_keys), n_keys + values])
    for name, source, n_out, order in (
        ("attn_qkv", "in_proj_qkv", n_keys + n_values, channels),
        ("attn_gate", "in_proj_z", n_values, values),
        ("ssm_alpha", "in_proj_a", n_heads, heads),
        ("ssm_beta", "in_proj_b", n_heads, heads),
    ):
        model.expect(
            f"{to}.{name}.weight", f"{of}.{source}.weight", (n_out, hidden), row_order=order
        )


def _expect_grouped_inputs(model: Model, to: str, of: str, hidden: int, s: dict[str, int]) -> None:
    """Likewise; checkpoints have q, k, v and z of each key head together."""
    dim = s["dim"]
    of_values = s["heads"] // s["key_heads"] * dim
    rows = np.arange(s["key_heads"] * 2 * (dim + of_values)).reshape(s["key_heads"], -1)
    q, k, v, z = (
        part.reshape(-1) for part in np.split(rows, np.cumsum([dim, dim, of_values]), axis=1)
    )
    for name, order in (("attn_qkv", np.concatenate([q, k, v])), ("attn_gate", z)):
        entry = model.expect(
            f"{to}.{name}.weight",
            f"{of}.in_proj_qkvz.weight",
            (len(order), hidden),
            row_order=order,
        )
        entry.source_shape = (rows.size, hidden)
    model.expect(f"{to}.ssm_ba.weight", f"{of}.in_proj_ba.weight", (2 * s["heads"], hidden))


def _expect_recurrent(model: Model, to: str, of: str, hidden: int, s: dict[str, int]) -> None:
    n_heads, n_key_heads, dim, n_taps = s["heads"], s["key_heads"], s["dim"], s["taps"]
    n_keys, n_values = 2 * n_key_heads * dim, n_heads * dim
    n_channels = n_keys + n_values
    of += ".linear_attn"
    heads = values = channels = None
    if model.arch in GROUPED:
        _expect_grouped_inputs(model, to, of, hidden, s)
    else:
        _expect_inputs(model, to, of, hidden, s)
        heads = values_order(n_heads, n_key_heads, 1)
        values = values_order(n_heads, n_key_heads, dim)
        channels = np.concatenate([np.arange(n_keys), n_keys + values])
    conv = model.expect(
        f"{to}.ssm_conv1d.weight", f"{of}.conv1d.weight", (n_channels, n_taps), row_order=channels
    )
    conv.source_shape, conv.plain = (n_channels, 1, n_taps), True
    model.expect(f"{to}.ssm_dt.bias", f"{of}.dt_bias", (n_heads,), row_order=heads)
    decay = model.expect(f"{to}.ssm_a", f"{of}.A_log", (n_heads,), row_order=heads)
    decay.change = NEGATIVE_EXPONENTIAL
    model.expect(f"{to}.ssm_norm.weight", f"{of}.norm.weight", (dim,))
    out = model.expect(f"{to}.ssm_out.weight", f"{of}.out_proj.weight", (hidden, n_values))
    out.column_order = values


def _read_shape(config: Config, model: Model) -> dict[str, int]:
    shape = {
        "heads": config.integer("linear_num_value_heads", 32),
        "key_heads": config.integer("linear_num_key_heads", 16),
        "dim": config.integer("linear_value_head_dim", 128),
        "taps": config.integer("linear_conv_kernel_dim", 4),
    }
    if config.integer("linear_key_head_dim", 128) != shape["dim"]:
        raise config.fail("linear_key_head_dim", f"linear_value_head_dim, {shape['dim']}")
    if shape["heads"] % shape["key_heads"]:
        text = f"a divisor of {shape['heads']} value heads"
        raise config.fail("linear_num_key_heads", text, shape["key_heads"])
    model.keys |= {
        f"{model.arch}.ssm.conv_kernel": shape["taps"],
        f"{model.arch}.ssm.state_size": shape["dim"],
        f"{model.arch}.ssm.group_count": shape["key_heads"],
        f"{model.arch}.ssm.time_step_rank": shape["heads"],
        f"{model.arch}.ssm.inner_size": shape["dim"] * shape["heads"],
    }
    return shape


def qwen35(config: Config) -> Model:
    return _hybrid(config, "qwen35", 4)


def _mixture(config: Config) -> Mixture:
    mixture = read_mixture(config, "num_experts", "moe_intermediate_size")
    shared = config.integer("shared_expert_intermediate_size", 512)
    return replace(mixture, stacked="mlp.experts", shared=shared)


def qwen35moe(config: Config) -> Model:
    mixture = _mixture(config)
    has_size = config.has("intermediate_size")
    config.values.setdefault("intermediate_size", mixture.size)  # of no network
    model = _hybrid(config, "qwen35moe", 2, mixture)
    if not has_size:
        del model.keys["qwen35moe.feed_forward_length"]
    return model


def qwen3next(config: Config) -> Model:
    config.require("norm_topk_prob", (True,), "weights of all experts are not supported", True)
    config.require("decoder_sparse_step", (1,), "all layers must have experts", 1)
    config.require("mlp_only_layers", ([], None), "all layers must have experts", [])
    config.values.setdefault("intermediate_size", 5632)
    return _hybrid(config, "qwen3next", 2, _mixture(config))


@dataclass(frozen=True)
class Layer:
    """What layers of attention and networks are made of."""

    hidden: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    mixture: Mixture | None

    def expect_attention(self, model: Model, to: str, of: str) -> None:
        hidden, q_size = self.hidden, self.n_heads * self.head_dim
        kv_size = self.n_kv_heads * self.head_dim
        norm = f"{of}.input_layernorm.weight"
        model.expect(f"{to}.attn_norm.weight", norm, (hidden,), plus=1)
        of += ".self_attn"
        for name, rows in (("q", 2 * q_size), ("k", kv_size), ("v", kv_size)):
            model.expect(f"{to}.attn_{name}.weight", f"{of}.{name}_proj.weight", (rows, hidden))
        for name in ("q", "k"):
            source = f"{of}.{name}_norm.weight"
            model.expect(f"{to}.attn_{name}_norm.weight", source, (self.head_dim,), plus=1)
        model.expect(f"{to}.attn_output.weight", f"{of}.o_proj.weight", (hidden, q_size))

    def expect_feed_forward(self, model: Model, to: str, of: str) -> None:
        norm = f"{of}.post_attention_layernorm.weight"
        model.expect(f"{to}.post_attention_norm.weight", norm, (self.hidden,), plus=1)
        if self.mixture is not None:
            self.mixture.expect(model, to, of, self.hidden)
            return
        ffn = model.keys[f"{model.arch}.feed_forward_length"]
        for name, shape in (
            ("gate", (ffn, self.hidden)),
            ("up", (ffn, self.hidden)),
            ("down", (self.hidden, ffn)),
        ):
            model.expect(f"{to}.ffn_{name}.weight", f"{of}.mlp.{name}_proj.weight", shape)


def _hybrid(config: Config, arch: str, n_kv: int, mixture: Mixture | None = None) -> Model:
    """`n_kv`: heads of keys where config.json is silent."""
    context = context_length(config, 32768)
    model, hidden, n_layers, n_heads, head_dim = read_sizes(config, arch, context, 256)
    n_kv_heads = config.integer("num_key_value_heads", n_kv)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads", n_kv_heads)
    config.require("hidden_act", ("silu", "swish"), "only SiLU is supported", "silu")
    config.require("attention_bias", (False,), "biases there are not supported", False)
    config.require("attn_output_gate", (True,), "attention without a gate is not supported", True)
    config.require("use_sliding_window", (False, None), "windows are not supported", None)
    config.has("mamba_ssm_dtype")  # states are F32 here
    config.has("mtp_num_hidden_layers")
    config.has("mtp_use_dedicated_embeddings")
    recurrent = _recurrent_layers(config, n_layers)
    if all(recurrent):
        raise ConvertError(f"{config.path}: a model without a layer of attention is not supported")
    share = config.get("partial_rotary_factor", 0.25)
    rope_parameters = config.get("rope_parameters")
    if isinstance(rope_parameters, dict):
        share = rope_parameters.get("partial_rotary_factor", share)
    n_rot = int(head_dim * config.checked_number("partial_rotary_factor", share))
    if not 2 <= n_rot <= head_dim or n_rot % 2:
        raise config.fail("partial_rotary_factor", f"an even part of {head_dim} dimensions", share)
    sections = [] if arch == "qwen3next" else _sections(config, n_rot)
    rope = read_rope(config, n_rot, context, divisors=False)
    model.keys |= {
        f"{model.arch}.attention.head_count_kv": n_kv_heads,
        f"{model.arch}.attention.key_length": head_dim,
        f"{model.arch}.attention.value_length": head_dim,
        f"{model.arch}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-6),
        f"{model.arch}.rope.freq_base": rope.theta,
        f"{model.arch}.rope.dimension_count": n_rot,
    } | {f"{model.arch}.rope.{key}": value for key, value in rope.keys.items()}
    if sections:
        model.keys[f"{arch}.rope.dimension_sections"] = [*sections, 0]
    usual = [(layer + 1) % INTERVAL != 0 for layer in range(n_layers)]
    if recurrent == usual:
        model.keys[f"{model.arch}.full_attention_interval"] = INTERVAL
    else:
        model.keys[f"{model.arch}.attention.recurrent_layers"] = [int(r) for r in recurrent]
    shape = _read_shape(config, model)
    if mixture is not None:
        model.keys[f"{arch}.expert_feed_forward_length"] = mixture.size
        model.keys |= mixture.keys(arch)
    model.skipped = (MTP, "model.visual.")
    model.heads = ("lm_head.weight",)
    model.expect("token_embd.weight", "model.embed_tokens.weight", (model.n_vocab, hidden))
    layer = Layer(hidden, n_heads, n_kv_heads, head_dim, mixture)
    for i in range(n_layers):
        to, of = f"blk.{i}", f"model.layers.{i}"
        if recurrent[i]:
            norm = f"{of}.input_layernorm.weight"
            model.expect(f"{to}.attn_norm.weight", norm, (hidden,), plus=1)
            _expect_recurrent(model, to, of, hidden, shape)
        else:
            layer.expect_attention(model, to, of)
        layer.expect_feed_forward(model, to, of)
    model.expect("output_norm.weight", "model.norm.weight", (hidden,), plus=1)
    _expect_further(model, config, n_layers, layer)
    return model


def _expect_further(model: Model, config: Config, n_layers: int, layer: Layer) -> None:
    """The block behind the layers that predicts further tokens, where llama.cpp knows it."""
    n_blocks = config.get("mtp_num_hidden_layers")
    own_rows = config.get("mtp_use_dedicated_embeddings")
    if model.arch in GROUPED or n_blocks in (None, 0):
        return
    if n_blocks != 1 or own_rows:
        model.notes.append(
            f"{n_blocks} blocks that predict further tokens"
            + (" with embeddings of their own" if own_rows else "")
            + " are left out: only one with the model's embedding is supported"
        )
        return
    model.skipped = tuple(prefix for prefix in model.skipped if prefix != MTP)
    model.further_base = MTP
    model.further_keys = {
        f"{model.arch}.block_count": n_layers + 1,
        f"{model.arch}.nextn_predict_layers": 1,
    }
    flags = model.keys.get(f"{model.arch}.attention.recurrent_layers")
    if flags is not None:
        model.further_keys[f"{model.arch}.attention.recurrent_layers"] = [*flags, 0]
    to, hidden = f"blk.{n_layers}", layer.hidden
    block = Model(model.arch, model.n_vocab, keys=model.keys)
    layer.expect_attention(block, to, f"{MTP}layers.0")
    layer.expect_feed_forward(block, to, f"{MTP}layers.0")
    block.expect(f"{to}.nextn.eh_proj.weight", f"{MTP}fc.weight", (hidden, 2 * hidden))
    for name, source in (
        ("enorm", "pre_fc_norm_embedding"),
        ("hnorm", "pre_fc_norm_hidden"),
        ("shared_head_norm", "norm"),
    ):
        block.expect(f"{to}.nextn.{name}.weight", f"{MTP}{source}.weight", (hidden,), plus=1)
    model.further = block.expected


def config_json(keys: Keys, scaling: Any) -> dict[str, Any]:
    """What config.json of such a file says beside what all have."""
    head_dim = keys.integer("attention.key_length")
    n_next: Any = keys.get("nextn_predict_layers", 0)
    if n_next not in ((0,) if keys.arch in GROUPED else (0, 1)):
        raise keys.fail("nextn_predict_layers", "0" if keys.arch in GROUPED else "0 or 1")
    n_layers = keys.integer("block_count") - n_next
    interval = keys.integer("full_attention_interval", INTERVAL)
    flags: Any = keys.get("attention.recurrent_layers")
    if flags is None:
        flags = [(layer + 1) % interval != 0 for layer in range(n_layers)]
    elif isinstance(flags, list) and n_next and not any(flags[n_layers:]):
        flags = flags[:n_layers]
    if not isinstance(flags, list) or len(flags) != n_layers:
        raise keys.fail("attention.recurrent_layers", f"{n_layers} truth values")
    sections = keys.get("rope.dimension_sections", [*SECTIONS, 0])
    if not isinstance(sections, list) or len(sections) < 3:
        raise keys.fail("rope.dimension_sections", "a list of numbers")
    names = {recurrent: kind for kind, recurrent in KINDS.items()}
    dim = keys.integer("ssm.state_size")
    rope = {
        "rope_type": "default",
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "partial_rotary_factor": keys.integer("rope.dimension_count", head_dim) / head_dim,
    }
    if keys.arch != "qwen3next":
        rope["mrope_section"] = [int(n) for n in sections[:3]]
    config: dict[str, Any] = {}
    if keys.arch != "qwen35":
        config = mixture_config(keys, count="num_experts", size="moe_intermediate_size")
        config["shared_expert_intermediate_size"] = keys.integer(
            "expert_shared_feed_forward_length", keys.get("feed_forward_length")
        )
    if keys.arch == "qwen3next":
        config["norm_topk_prob"] = True
    if n_next:
        config["mtp_num_hidden_layers"] = n_next
    return config | {
        "num_hidden_layers": n_layers,
        "layer_types": [names[bool(flag)] for flag in flags],
        "linear_conv_kernel_dim": keys.integer("ssm.conv_kernel"),
        "linear_key_head_dim": dim,
        "linear_value_head_dim": dim,
        "linear_num_key_heads": keys.integer("ssm.group_count"),
        "linear_num_value_heads": keys.integer("ssm.time_step_rank"),
        "rope_parameters": rope | (scaling or {}),
    }
