"""What each supported architecture's checkpoint holds, and what becomes of it.

An architecture turns config.json into GGUF keys and a list of expected tensors. `build_targets`
then checks the list against the checkpoint: nothing missing, nothing unknown, every shape right.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ConvertError, short
from .hf_config import Config
from .rope import read_rope
from .tensors import Computed, Source, Target, fused_qkv_order, rope_pairs_order


@dataclass
class Expected:
    target: str
    sources: tuple[str, ...]  # names it may have
    shape: tuple[int, ...]
    optional: bool = False
    row_order: np.ndarray | None = None


@dataclass
class Model:
    """Everything about a checkpoint but its weights and its tokenizer."""

    arch: str
    n_vocab: int  # rows of the embedding
    keys: dict[str, Any] = field(default_factory=dict)
    expected: list[Expected] = field(default_factory=list)
    computed: list[Target] = field(default_factory=list)
    tied: bool = False
    heads: tuple[str, ...] = ()  # names of an own output matrix
    copy_tied_head: bool = False  # the file must hold the output matrix even when it is tied

    def expect(
        self,
        target: str,
        source: str,
        shape: tuple[int, ...],
        *,
        optional: bool = False,
        row_order: np.ndarray | None = None,
    ) -> None:
        self.expected.append(Expected(target, (source,), shape, optional, row_order))


# Buffers that older transformers saved along with the weights.
SKIPPED = re.compile(
    r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attention\.(masked_)?bias|rope\.freqs)"
)


def _read_sizes(config: Config, arch: str) -> tuple[Model, int, int, int, int]:
    hidden = config.integer("hidden_size")
    n_layers = config.integer("num_hidden_layers")
    n_heads = config.integer("num_attention_heads")
    model = Model(arch, config.integer("vocab_size"))
    model.tied = config.flag("tie_word_embeddings", False)
    model.keys = {
        f"{arch}.vocab_size": model.n_vocab,
        f"{arch}.context_length": config.integer("max_position_embeddings"),
        f"{arch}.embedding_length": hidden,
        f"{arch}.block_count": n_layers,
        f"{arch}.feed_forward_length": config.integer("intermediate_size"),
        f"{arch}.attention.head_count": n_heads,
    }
    if n_layers > 4096:
        raise config.fail("num_hidden_layers", "at most 4096")
    if not config.has("head_dim") and hidden % n_heads != 0:
        raise config.fail("num_attention_heads", f"a divisor of hidden_size {hidden}")
    head_dim = config.integer("head_dim", hidden // n_heads, low=2)
    if head_dim % 2 or head_dim * n_heads > 1 << 20:
        raise config.fail(
            "head_dim", f"an even number that with {n_heads} heads makes at most 2^20"
        )
    return model, hidden, n_layers, n_heads, head_dim


def _refuse_windows(config: Config, default_window: int | None) -> None:
    """A sliding window that a context can outgrow changes the attention."""
    context = config.integer("max_position_embeddings")
    window: Any = config.values.get("sliding_window", default_window)
    config.has("sliding_window")
    switched_on = config.flag("use_sliding_window", True)
    config.has("max_window_layers")
    layer_types = config.get("layer_types", [])
    if not isinstance(layer_types, list) or set(map(str, layer_types)) - {
        "full_attention",
        "sliding_attention",
    }:
        raise config.fail("layer_types", "a list of full_attention and sliding_attention")
    if layer_types and "sliding_attention" not in layer_types:
        return
    if window is None or not switched_on:
        return
    if isinstance(window, bool) or not isinstance(window, int) or window < context:
        raise ConvertError(
            f"{config.path}: sliding-window attention is not supported: sliding_window is "
            f"{short(repr(window))}, less than the context of {context} tokens"
        )


def _llama_like(config: Config, arch: str, default_window: int | None) -> Model:
    model, hidden, n_layers, n_heads, head_dim = _read_sizes(config, arch)
    # Only llama's configuration defaults to one key-value head per head.
    default_kv = n_heads if config.values.get("model_type", "llama") == "llama" else None
    n_kv_heads = config.integer("num_key_value_heads", default_kv)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads")
    config.require("hidden_act", ("silu",), "only SiLU is supported", "silu")
    config.require("mlp_bias", (False,), "biases there are not supported", False)
    _refuse_windows(config, default_window)
    permuted = arch == "llama"
    qkv_bias = config.flag("attention_bias", False) if permuted else True
    if not permuted:
        config.require("attention_bias", (True,), "Qwen2 has these biases", True)
    rope = read_rope(config, head_dim, config.integer("max_position_embeddings"), divisors=permuted)
    if rope.rotated_share not in (None, 1.0):
        raise config.fail("partial_rotary_factor", "1")
    model.keys |= {
        f"{arch}.attention.head_count_kv": n_kv_heads,
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-6),
        f"{arch}.rope.freq_base": rope.theta,
        f"{arch}.rope.dimension_count": head_dim,
    } | {f"{arch}.rope.{key}": value for key, value in rope.keys.items()}
    if rope.divisors is not None:
        divisors = Computed("(rope scaling of config.json)", rope.divisors)
        model.computed.append(Target("rope_freqs.weight", divisors))

    ffn = model.keys[f"{arch}.feed_forward_length"]
    q_size, kv_size = n_heads * head_dim, n_kv_heads * head_dim
    q_order = rope_pairs_order(n_heads, head_dim) if permuted else None
    k_order = rope_pairs_order(n_kv_heads, head_dim) if permuted else None
    model.heads = ("lm_head.weight",)
    model.expect("token_embd.weight", "model.embed_tokens.weight", (model.n_vocab, hidden))
    for layer in range(n_layers):
        to, of = f"blk.{layer}", f"model.layers.{layer}"
        model.expect(f"{to}.attn_norm.weight", f"{of}.input_layernorm.weight", (hidden,))
        for part, size, order in (
            ("q", q_size, q_order),
            ("k", kv_size, k_order),
            ("v", kv_size, None),
        ):
            name = f"{of}.self_attn.{part}_proj"
            model.expect(
                f"{to}.attn_{part}.weight", f"{name}.weight", (size, hidden), row_order=order
            )
            if qkv_bias:
                model.expect(f"{to}.attn_{part}.bias", f"{name}.bias", (size,), row_order=order)
        name = f"{of}.self_attn.o_proj"
        model.expect(f"{to}.attn_output.weight", f"{name}.weight", (hidden, q_size))
        if qkv_bias and permuted:
            model.expect(f"{to}.attn_output.bias", f"{name}.bias", (hidden,))
        model.expect(f"{to}.ffn_norm.weight", f"{of}.post_attention_layernorm.weight", (hidden,))
        model.expect(f"{to}.ffn_gate.weight", f"{of}.mlp.gate_proj.weight", (ffn, hidden))
        model.expect(f"{to}.ffn_up.weight", f"{of}.mlp.up_proj.weight", (ffn, hidden))
        model.expect(f"{to}.ffn_down.weight", f"{of}.mlp.down_proj.weight", (hidden, ffn))
    model.expect("output_norm.weight", "model.norm.weight", (hidden,))
    return model


def llama(config: Config) -> Model:
    return _llama_like(config, "llama", None)


def mistral(config: Config) -> Model:
    return _llama_like(config, "llama", 4096)  # its configuration's default


def qwen2(config: Config) -> Model:
    config.get("use_sliding_window", False)
    config.values.setdefault("use_sliding_window", False)  # its configuration's default
    return _llama_like(config, "qwen2", None)


def gptneox(config: Config) -> Model:
    arch = "gptneox"
    model, hidden, n_layers, n_heads, head_dim = _read_sizes(config, arch)
    if head_dim * n_heads != hidden:
        raise config.fail("hidden_size", f"{n_heads} heads of {head_dim}")
    config.require("hidden_act", ("gelu",), "only the exact GELU is supported", "gelu")
    config.require("attention_bias", (True,), "its biases are expected", True)
    share = config.number("rotary_pct", 0.25)
    context = config.integer("max_position_embeddings")
    base = config.get("rotary_emb_base")
    if base is not None:
        config.values.setdefault("rope_theta", base)
    rope = read_rope(config, head_dim, context, divisors=False)
    share = share if rope.rotated_share is None else rope.rotated_share
    n_rot = int(head_dim * share)
    if not 2 <= n_rot <= head_dim or n_rot % 2:
        raise config.fail("rotary_pct", f"an even part of the head's {head_dim} dimensions")
    model.keys |= {
        f"{arch}.attention.head_count_kv": n_heads,
        f"{arch}.attention.layer_norm_epsilon": config.number("layer_norm_eps", 1e-5),
        f"{arch}.rope.dimension_count": n_rot,
        f"{arch}.rope.freq_base": rope.theta,
        f"{arch}.use_parallel_residual": config.flag("use_parallel_residual", True),
    } | {f"{arch}.rope.{key}": value for key, value in rope.keys.items()}

    ffn = model.keys[f"{arch}.feed_forward_length"]
    order = fused_qkv_order(n_heads, head_dim)
    model.heads = ("embed_out.weight", "lm_head.weight")
    model.copy_tied_head = True  # llama.cpp wants it

    def pair(target: str, source: str, *shape: int, row_order: np.ndarray | None = None) -> None:
        model.expect(f"{target}.weight", f"{source}.weight", shape, row_order=row_order)
        model.expect(f"{target}.bias", f"{source}.bias", shape[:1], row_order=row_order)

    model.expect("token_embd.weight", "gpt_neox.embed_in.weight", (model.n_vocab, hidden))
    for layer in range(n_layers):
        to, of = f"blk.{layer}", f"gpt_neox.layers.{layer}"
        pair(f"{to}.attn_norm", f"{of}.input_layernorm", hidden)
        pair(
            f"{to}.attn_qkv", f"{of}.attention.query_key_value", 3 * hidden, hidden, row_order=order
        )
        pair(f"{to}.attn_output", f"{of}.attention.dense", hidden, hidden)
        pair(f"{to}.ffn_norm", f"{of}.post_attention_layernorm", hidden)
        pair(f"{to}.ffn_up", f"{of}.mlp.dense_h_to_4h", ffn, hidden)
        pair(f"{to}.ffn_down", f"{of}.mlp.dense_4h_to_h", hidden, ffn)
    pair("output_norm", "gpt_neox.final_layer_norm", hidden)
    return model


ARCHITECTURES: dict[str, Callable[[Config], Model]] = {
    "LlamaForCausalLM": llama,
    "LLaMAForCausalLM": llama,  # the first conversions of LLaMA 1 spelt it so
    "MistralForCausalLM": mistral,
    "Qwen2ForCausalLM": qwen2,
    "GPTNeoXForCausalLM": gptneox,
}


def read_model(config: Config, ignored_keys: tuple[str, ...] = ()) -> Model:
    names = config.get("architectures", [])
    if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str):
        raise config.fail("architectures", "a list with one name")
    build = ARCHITECTURES.get(names[0])
    if build is None:
        raise ConvertError(
            f"{config.path}: architecture '{short(names[0])}' is not supported; supported are "
            + ", ".join(name for name in ARCHITECTURES if name != "LLaMAForCausalLM")
        )
    model = build(config)
    config.refuse_unknown(ignored_keys)
    return model


def _find(expected: Expected, tensors: dict[str, Source], where: str) -> Source | None:
    for name in expected.sources:
        if name in tensors:
            source = tensors[name]
            break
    else:
        if expected.optional:
            return None
        names = " or ".join(f"'{name}'" for name in expected.sources)
        raise ConvertError(f"{where}: tensor {names} {list(expected.shape)} is missing")
    if source.shape != expected.shape:
        raise ConvertError(
            f"{where}: tensor '{source.name}' should have the shape {list(expected.shape)} by "
            f"config.json, found {list(source.shape)}"
        )
    if source.dtype not in ("F64", "F32", "F16", "BF16"):
        raise ConvertError(
            f"{where}: tensor '{source.name}' has the type {source.dtype}; only F64, F32, F16 and "
            "BF16 can be converted, not checkpoints that are quantised already"
        )
    return source


def build_targets(model: Model, tensors: dict[str, Source], where: str) -> list[Target]:
    """The tensors of the GGUF file in order; refuses what is missing, unknown or misshapen."""
    targets: list[Target] = []
    expected = list(model.expected)
    shape = expected[0].shape
    if not model.tied:
        expected.append(Expected("output.weight", model.heads, shape))
    elif model.copy_tied_head:
        expected.append(Expected("output.weight", expected[0].sources, shape))
    used = set(model.heads) if model.tied else set()  # a saved copy of the embedding
    for entry in expected:
        source = _find(entry, tensors, where)
        if source is not None:
            used.add(source.name)
            targets.append(Target(entry.target, source, entry.row_order))
    unknown = sorted(name for name in set(tensors) - used if not SKIPPED.fullmatch(name))
    if unknown:
        raise ConvertError(
            f"{where}: {len(unknown)} tensors do not belong in a {model.arch} model: "
            + short(", ".join(unknown), 400)
        )
    return model.computed + targets
