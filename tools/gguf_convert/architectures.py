"""What each supported architecture's checkpoint holds, and what becomes of it.

An architecture turns config.json into GGUF keys and a list of expected tensors, which
`checkpoint_tensors` then compares with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .errors import ConvertError, short
from .experts import GraniteMixture, Mixture, read_mixture
from .gemma import gemma2, gemma3
from .gpt_oss import gpt_oss
from .hf_config import Config
from .model_description import Defaults, Expected, Model, context_length, read_sizes
from .phi import phi3
from .qwen35 import qwen3next, qwen35, qwen35moe
from .rope import Rope, nested_ropes, read_rope
from .tensors import Computed, Target, fused_qkv_order, rope_pairs_order
from .windows import optional_window, usual_windows

__all__ = ["Expected", "Model", "read_model"]


# Where the name in GGUF files is not that of transformers.
ARCHS = {"mistral": "llama", "mixtral": "llama", "qwen3_moe": "qwen3moe", "olmo3": "olmo2"}
ARCHS["granitemoeshared"] = "granitemoe"
GRANITE = ("granite", "granitemoe", "granitemoeshared")


def _one_rope(config: Config, name: str, head_dim: int, context: int) -> Rope:
    """Windowed layers of OLMo 3 have its base alone."""
    if name == "olmo3":
        ropes = nested_ropes(config, head_dim, context)
        if ropes is None:
            return read_rope(config, head_dim, context, divisors=False, nested=True)
        if ropes[0].theta != ropes[1].theta:
            text = "with one rope_theta, as GGUF files of this family have"
            raise config.fail("rope_parameters", text)
        config.has("rope_theta")
        return ropes[0]
    return read_rope(config, head_dim, context, divisors=name in ("llama", "mistral", "mixtral"))


def _llama_like(
    config: Config, name: str, defaults: Defaults, mixture: Mixture | None = None
) -> Model:
    """`name`: by what transformers calls it; `mixture`: in place of the feed-forward network."""
    arch = ARCHS.get(name, name)
    context = context_length(config, defaults.context)
    model, hidden, n_layers, n_heads, head_dim = read_sizes(
        config, arch, context, defaults.head_dim
    )
    default_kv = defaults.n_kv_heads
    if default_kv is None or "num_key_value_heads" in config.values:  # null: as many as heads
        default_kv = n_heads
    n_kv_heads = config.integer("num_key_value_heads", default_kv)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads", n_kv_heads)
    config.require("hidden_act", ("silu", "swish"), "only SiLU is supported", "silu")
    config.require("mlp_bias", (False,), "biases there are not supported", False)
    if name in ("llama", "olmo2", "olmoe", *GRANITE):
        # They have no window in transformers: such keys are left over from another model.
        for key in ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types"):
            if config.has(key):
                model.notes.append(f"'{key}' means nothing for {KINDS[name][0]}: left out")
    elif name == "olmo3":
        keys = usual_windows(config, 4096, 4)
        model.keys |= {f"{arch}.{key}": value for key, value in keys.items()}
    else:
        keys = optional_window(config, KINDS[name][0], n_layers, context, defaults.window)
        model.keys |= {f"{arch}.{key}": value for key, value in keys.items()}
    permuted = arch in ("llama", "smollm3", *GRANITE)
    # Qwen2 has biases whatever the key says; whether they are there is checked below.
    qkv_bias = config.flag("attention_bias", False) or name == "qwen2"
    if name not in ("llama", "mistral", "mixtral", "qwen2", *GRANITE) and qkv_bias:
        text = f"false: such biases of {KINDS[name][0]} are not supported"
        raise config.fail("attention_bias", text, True)
    rope = _one_rope(config, name, head_dim, context)
    if rope.rotated_share not in (None, 1.0):
        problem = config.fail("partial_rotary_factor", f"1 for {name}", rope.rotated_share)
        raise ConvertError(f"{problem}: rotating a part of each head is not supported there")
    model.keys |= {
        f"{arch}.attention.head_count_kv": n_kv_heads,
        f"{arch}.attention.key_length": head_dim,
        f"{arch}.attention.value_length": head_dim,
        f"{arch}.attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", defaults.epsilon),
        f"{arch}.rope.freq_base": rope.theta,
        f"{arch}.rope.dimension_count": head_dim,
    } | {f"{arch}.rope.{key}": value for key, value in rope.keys.items()}
    model.keys |= {} if mixture is None else mixture.keys(arch)
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
        if arch != "olmo2":
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
        if arch in ("qwen3", "qwen3moe", "olmo2", "olmoe"):
            rows = (q_size, kv_size) if arch.startswith("olmo") else (head_dim, head_dim)
            for part, size in zip(("q", "k"), rows, strict=True):
                name = f"{of}.self_attn.{part}_norm.weight"
                model.expect(f"{to}.attn_{part}_norm.weight", name, (size,))
        name = f"{of}.self_attn.o_proj"
        model.expect(f"{to}.attn_output.weight", f"{name}.weight", (hidden, q_size))
        if qkv_bias and permuted:
            model.expect(f"{to}.attn_output.bias", f"{name}.bias", (hidden,))
        norms = {"ffn_norm": "post_attention_layernorm"}
        if arch == "olmo2":
            norms = {
                "post_attention_norm": "post_attention_layernorm",
                "post_ffw_norm": "post_feedforward_layernorm",
            }
        for norm, name in norms.items():
            model.expect(f"{to}.{norm}.weight", f"{of}.{name}.weight", (hidden,))
        if mixture is not None:
            mixture.expect(model, to, of, hidden)
            continue
        model.expect(f"{to}.ffn_gate.weight", f"{of}.mlp.gate_proj.weight", (ffn, hidden))
        model.expect(f"{to}.ffn_up.weight", f"{of}.mlp.up_proj.weight", (ffn, hidden))
        model.expect(f"{to}.ffn_down.weight", f"{of}.mlp.down_proj.weight", (hidden, ffn))
    model.expect("output_norm.weight", "model.norm.weight", (hidden,))
    return model


def llama(config: Config) -> Model:
    return _llama_like(config, "llama", Defaults(2048))


def mistral(config: Config) -> Model:
    return _llama_like(config, "mistral", Defaults(131072, 8, 4096))


def mixtral(config: Config) -> Model:
    experts = "block_sparse_moe.experts.{}"
    names = {"router": "block_sparse_moe.gate", "expert": experts}
    names |= {"gate": "w1", "up": "w3", "down": "w2"}
    mixture = replace(read_mixture(config, "num_local_experts"), **names)
    return _llama_like(config, "mixtral", Defaults(131072, 8, epsilon=1e-5), mixture)


def qwen2(config: Config) -> Model:
    return _llama_like(config, "qwen2", Defaults(32768, 32, 4096))


def qwen3(config: Config) -> Model:
    return _llama_like(config, "qwen3", Defaults(32768, 32, 4096, head_dim=128))


def qwen3_moe(config: Config) -> Model:
    config.require("norm_topk_prob", (True,), "weights of all experts are not supported", False)
    config.require("decoder_sparse_step", (1,), "all layers must have experts", 1)
    config.require("mlp_only_layers", ([], None), "all layers must have experts", [])
    mixture = read_mixture(config, "num_experts", "moe_intermediate_size")
    model = _llama_like(config, "qwen3_moe", Defaults(32768, 4, 4096), mixture)
    model.keys["qwen3moe.expert_feed_forward_length"] = mixture.size
    return model


def smollm3(config: Config) -> Model:
    config.values.setdefault("tie_word_embeddings", True)
    config.values.setdefault("rope_theta", 2000000.0)
    n_layers = config.integer("num_hidden_layers")
    config.require("no_rope_layer_interval", (4,), "only every fourth layer may lack rope", 4)
    usual = [int((layer + 1) % 4 != 0) for layer in range(n_layers)]
    if config.get("no_rope_layers", usual) != usual:
        raise config.fail("no_rope_layers", "0 for every fourth layer and 1 for the others")
    return _llama_like(config, "smollm3", Defaults(32768, 4))


def granite(config: Config, name: str = "granite", mixture: Mixture | None = None) -> Model:
    model = _llama_like(config, name, Defaults(2048), mixture)
    for key, scale in (
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
        ("attention_multiplier", "attention.scale"),
    ):
        model.keys[f"{model.arch}.{scale}"] = config.number(key, 1.0)
    return model


def granite_moe(config: Config) -> Model:
    mixture = read_mixture(config, "num_local_experts")
    return granite(config, "granitemoe", GraniteMixture(mixture.count, mixture.used, mixture.size))


def granite_moe_shared(config: Config) -> Model:
    mixture = read_mixture(config, "num_local_experts")
    shared = config.integer("shared_intermediate_size", 1024, low=0)
    mixture = GraniteMixture(mixture.count, mixture.used, mixture.size, shared=shared)
    return granite(config, "granitemoeshared", mixture)


def olmo2(config: Config) -> Model:
    return _llama_like(config, "olmo2", Defaults(2048, epsilon=1e-5))


def olmo3(config: Config) -> Model:
    config.values.setdefault("rope_theta", 500000.0)
    return _llama_like(config, "olmo3", Defaults(2048, epsilon=1e-5))


def olmoe(config: Config) -> Model:
    config.require("norm_topk_prob", (False,), "weights that sum up to 1 are not supported", False)
    config.require("clip_qkv", (None,), "clipping is not supported", None)
    mixture = read_mixture(config, "num_experts")
    return _llama_like(config, "olmoe", Defaults(4096, epsilon=1e-5), mixture)


def gptneox(config: Config) -> Model:
    arch = "gptneox"
    context = context_length(config, 2048)
    model, hidden, n_layers, n_heads, head_dim = read_sizes(config, arch, context)
    if head_dim * n_heads != hidden:
        raise config.fail("hidden_size", f"{n_heads} heads of {head_dim}")
    exact = ("gelu", "gelu_python")
    config.require("hidden_act", exact, "only the exact GELU is supported", "gelu")
    config.require("attention_bias", (True,), "its biases are expected", True)
    share = config.number("rotary_pct", 0.25)
    base = config.get("rotary_emb_base")
    if base is not None:
        config.values.setdefault("rope_theta", base)
    rope = read_rope(config, head_dim, context, divisors=False)
    share = share if rope.rotated_share is None else rope.rotated_share
    n_rot = int(head_dim * share)
    if not 2 <= n_rot <= head_dim or n_rot % 2:
        where = "rotary_pct" if rope.rotated_share is None else "partial_rotary_factor"
        raise config.fail(where, f"an even part of the head's {head_dim} dimensions", share)
    model.keys |= {
        f"{arch}.attention.head_count_kv": n_heads,
        f"{arch}.attention.layer_norm_epsilon": config.number("layer_norm_eps", 1e-5),
        f"{arch}.rope.dimension_count": n_rot,
        f"{arch}.rope.freq_base": rope.theta,
        f"{arch}.use_parallel_residual": config.flag("use_parallel_residual", True),
    } | {f"{arch}.rope.{key}": value for key, value in rope.keys.items()}

    ffn = model.keys[f"{arch}.feed_forward_length"]
    order = fused_qkv_order(n_heads, head_dim)
    model.base = "gpt_neox."
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


# By model_type; the classes of transformers, with and without an output head, begin with a name.
KINDS: dict[str, tuple[str, Callable[[Config], Model]]] = {
    "llama": ("Llama", llama),
    "mistral": ("Mistral", mistral),
    "mixtral": ("Mixtral", mixtral),
    "qwen2": ("Qwen2", qwen2),
    "qwen3": ("Qwen3", qwen3),
    "qwen3_5_text": ("Qwen3_5", qwen35),
    "qwen3_5_moe_text": ("Qwen3_5Moe", qwen35moe),
    "qwen3_moe": ("Qwen3Moe", qwen3_moe),
    "qwen3_next": ("Qwen3Next", qwen3next),
    "smollm3": ("SmolLM3", smollm3),
    "granite": ("Granite", granite),
    "granitemoe": ("GraniteMoe", granite_moe),
    "granitemoeshared": ("GraniteMoeShared", granite_moe_shared),
    "gemma2": ("Gemma2", gemma2),
    "gemma3_text": ("Gemma3", gemma3),
    "olmo2": ("Olmo2", olmo2),
    "olmoe": ("Olmoe", olmoe),
    "olmo3": ("Olmo3", olmo3),
    "phi3": ("Phi3", phi3),
    "gpt_oss": ("GptOss", gpt_oss),
    "gpt_neox": ("GPTNeoX", gptneox),
}
ARCHITECTURES = {
    f"{name}{ending}": kind
    for kind, (name, _) in KINDS.items()
    for ending in ("ForCausalLM", "Model")
}
ARCHITECTURES["LLaMAForCausalLM"] = "llama"  # the first conversions of LLaMA 1 spelt it so


def _kind(config: Config, notes: list[str]) -> str:
    """Which of KINDS it is: `architectures` says so, or `model_type` alone."""
    names = config.get("architectures") or []
    model_type = config.get("model_type")
    if not isinstance(names, list) or len(names) > 1 or not all(isinstance(n, str) for n in names):
        raise config.fail("architectures", "a list with one name")
    supported = ", ".join(f"{name}ForCausalLM" for name, _ in KINDS.values())
    if not names:
        if model_type not in KINDS:
            raise ConvertError(
                f"{config.path}: 'architectures' is missing and 'model_type' is "
                f"{short(repr(model_type))}; supported are {supported}, or a model_type of "
                + ", ".join(KINDS)
            )
        notes.append(f"'architectures' is missing: taken for {KINDS[model_type][0]} by model_type")
        return str(model_type)
    kind = ARCHITECTURES.get(names[0])
    if kind is None:
        raise ConvertError(
            f"{config.path}: architecture '{short(names[0])}' is not supported; supported are "
            + supported
        )
    if model_type in KINDS and model_type != kind:
        raise ConvertError(
            f"{config.path}: 'architectures' says {names[0]} but 'model_type' {model_type}; "
            "correct the one that is wrong"
        )
    if model_type not in (None, kind):
        notes.append(
            f"model_type is {short(repr(model_type))}: converted as {names[0]} all the same"
        )
    return kind


def read_model(config: Config) -> Model:
    notes: list[str] = []
    kind = _kind(config, notes)
    if config.has("auto_map"):
        notes.append(f"the code that 'auto_map' names is not looked at: converted as {kind}")
    model = KINDS[kind][1](config)
    config.refuse_unknown()
    model.notes = config.notes + notes + model.notes
    return model
