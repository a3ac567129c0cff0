"""What config.json of each architecture says beside what all say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import gpt_oss, qwen35
from .experts import mixture_config
from .gemma import PERIODS, attention_scalar
from .gguf_keys import Keys, token_id
from .windows import PATTERN, layer_types, windowed_layers

WINDOW = "attention.sliding_window"
LARGEST = 1 << 31  # more than any context
LEFT_OUT = object()  # the value of a key that this architecture does not have
Json = dict[str, Any]


@dataclass(frozen=True)
class Family:
    name: str  # that transformers' classes begin with
    model_type: str
    change: Callable[[Keys, Json, Json], None]  # (keys, config, tensors) -> config
    own: tuple[str, ...] = ()  # keys that change the arithmetic and that config.json can say
    epsilon: str = "attention.layer_norm_rms_epsilon"


def has_window(keys: Keys, context: int) -> bool:
    return 0 < keys.number("attention.sliding_window", 0) < context


def _windowed(keys: Keys, config: Json) -> bool:
    return has_window(keys, config["max_position_embeddings"])


def _drop_no_scaling(config: Json) -> None:
    if config["rope_scaling"] is None:
        config["rope_scaling"] = LEFT_OUT


def _llama(keys: Keys, config: Json, tensors: Json) -> None:
    if keys.get("expert_count", 0):
        config |= {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}
        config |= mixture_config(keys, count="num_local_experts", size=None)
        _drop_no_scaling(config)
    else:
        config["attention_bias"] = "blk.0.attn_q.bias" in tensors
    if not _windowed(keys, config):
        return
    if config["model_type"] == "llama":
        config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    if not all(windowed_layers(keys, 0)):
        raise keys.fail(PATTERN, "that of all layers, as config.json cannot say otherwise")
    config["sliding_window"] = keys.integer("attention.sliding_window")


def _qwen(keys: Keys, config: Json, _: Json) -> None:
    _drop_no_scaling(config)
    if _windowed(keys, config):
        config["use_sliding_window"] = True
        config["sliding_window"] = keys.integer("attention.sliding_window")
        config["layer_types"] = layer_types(windowed_layers(keys, 0))


def _qwen35(keys: Keys, config: Json, _: Json) -> None:
    config |= qwen35.config_json(keys, config["rope_scaling"])
    if keys.arch == "qwen35moe" and keys.get("feed_forward_length") is None:
        config["intermediate_size"] = LEFT_OUT
    config["rope_scaling"] = config["rope_theta"] = LEFT_OUT


def _qwen3moe(keys: Keys, config: Json, tensors: Json) -> None:
    _qwen(keys, config, tensors)
    config |= mixture_config(keys, count="num_experts", size="moe_intermediate_size")
    config["norm_topk_prob"] = True


def _smollm3(keys: Keys, config: Json, _: Json) -> None:
    _drop_no_scaling(config)
    # The default is a token that small vocabularies lack.
    config["pad_token_id"] = token_id(keys.values, "padding")


def _granite(keys: Keys, config: Json, tensors: Json) -> None:
    _drop_no_scaling(config)
    config |= {
        "embedding_multiplier": keys.number("embedding_scale", 0) or 1.0,
        "residual_multiplier": keys.number("residual_scale", 0) or 1.0,
        "logits_scaling": keys.number("logit_scale", 0) or 1.0,
        "attention_multiplier": keys.number("attention.scale", 0) or config["head_dim"] ** -0.5,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
    }


def _granitemoe(keys: Keys, config: Json, tensors: Json) -> None:
    _granite(keys, config, tensors)
    config["head_dim"] = LEFT_OUT
    config |= mixture_config(keys, count="num_local_experts", size=None)
    shared = keys.get("expert_shared_feed_forward_length", 0)
    if shared:
        config |= {
            "architectures": ["GraniteMoeSharedForCausalLM"],
            "model_type": "granitemoeshared",
            "shared_intermediate_size": shared,
        }


def _olmo2(keys: Keys, config: Json, _: Json) -> None:
    if not has_window(keys, LARGEST):
        _drop_no_scaling(config)
        return
    config |= {
        "architectures": ["Olmo3ForCausalLM"],
        "model_type": "olmo3",
        "sliding_window": keys.integer(WINDOW),
        "layer_types": layer_types(windowed_layers(keys, 4)),
    }
    _nest_ropes(config, config["rope_theta"])


def _nest_ropes(config: Json, local: float) -> None:
    """Windowed layers have a rope without scaling."""
    full = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    config["rope_parameters"] = {
        "full_attention": full | (config["rope_scaling"] or {}),
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    config["rope_scaling"] = config["rope_theta"] = LEFT_OUT


def _olmoe(keys: Keys, config: Json, _: Json) -> None:
    _drop_no_scaling(config)
    config["head_dim"] = LEFT_OUT
    config |= mixture_config(keys, count="num_experts", size=None)


def _gemma(keys: Keys, config: Json) -> None:
    config["hidden_act"] = LEFT_OUT
    config |= {
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": attention_scalar(
            keys.arch,
            config["hidden_size"],
            config["num_hidden_layers"],
            config["num_attention_heads"],
            config["head_dim"],
        ),
        "sliding_window": keys.integer("attention.sliding_window", 4096),
        "layer_types": layer_types(windowed_layers(keys, PERIODS[keys.arch])),
    }


def _gemma2(keys: Keys, config: Json, _: Json) -> None:
    _drop_no_scaling(config)
    _gemma(keys, config)
    for name, usual in (("attn", 50.0), ("final", 30.0)):
        config[f"{name}_logit_softcapping"] = (
            keys.number(f"{name}_logit_softcapping", usual) or None
        )


def _gemma3(keys: Keys, config: Json, _: Json) -> None:
    _gemma(keys, config)
    config["final_logit_softcapping"] = keys.number("final_logit_softcapping", 0) or None
    _nest_ropes(config, keys.number("rope.freq_base_swa", 10000.0))


def _phi3(keys: Keys, config: Json, tensors: Json) -> None:
    _drop_no_scaling(config)
    config["head_dim"] = LEFT_OUT
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    if keys.integer("attention.key_length", head_dim) != head_dim:
        raise keys.fail("attention.key_length", f"the {head_dim} dimensions that heads share")
    config["sliding_window"] = keys.get(WINDOW) or None
    config["pad_token_id"] = token_id(keys.values, "padding")
    config["partial_rotary_factor"] = keys.integer("rope.dimension_count", head_dim) / head_dim
    factors = [tensors.get(f"rope_factors_{name}.weight") for name in ("short", "long")]
    if any(factor is None for factor in factors):
        return
    config["original_max_position_embeddings"] = keys.integer(
        "rope.scaling.original_context_length", config["max_position_embeddings"]
    )
    config["rope_scaling"] = {
        "rope_type": "longrope",
        "short_factor": [float(number) for number in factors[0].data],
        "long_factor": [float(number) for number in factors[1].data],
        "attention_factor": keys.number("rope.scaling.attn_factor", 1.0),
    }


def _gpt_oss(keys: Keys, config: Json, _: Json) -> None:
    if config["rope_scaling"] is None:
        # Nothing would mean the released models' scaling.
        config["rope_scaling"] = {"rope_type": "default"}
    config |= gpt_oss.config_json(keys)


def _gptneox(keys: Keys, config: Json, _: Json) -> None:
    _drop_no_scaling(config)
    config |= {
        "hidden_act": "gelu",
        "rotary_emb_base": config["rope_theta"],
        "rotary_pct": keys.integer("rope.dimension_count", config["head_dim"]) / config["head_dim"],
        "layer_norm_eps": config["rms_norm_eps"],
        "use_parallel_residual": keys.flag("use_parallel_residual", True),
    }
    for name in ("num_key_value_heads", "head_dim", "rms_norm_eps", "rope_theta"):
        config[name] = LEFT_OUT


SCALES = ("logit_scale", "residual_scale", "embedding_scale", "attention.scale")
EXPERTS = ("expert_count", "expert_used_count")
CAPS = ("attn_logit_softcapping", "final_logit_softcapping")
FAMILIES = {
    "llama": Family("Llama", "llama", _llama, (WINDOW, *EXPERTS)),
    "qwen2": Family("Qwen2", "qwen2", _qwen, (WINDOW,)),
    "qwen3": Family("Qwen3", "qwen3", _qwen, (WINDOW,)),
    "qwen35": Family(
        "Qwen3_5", "qwen3_5_text", _qwen35, ("rope.dimension_count", "nextn_predict_layers")
    ),
    "qwen35moe": Family(
        "Qwen3_5Moe",
        "qwen3_5_moe_text",
        _qwen35,
        ("rope.dimension_count", "nextn_predict_layers", *EXPERTS),
    ),
    "qwen3next": Family("Qwen3Next", "qwen3_next", _qwen35, ("rope.dimension_count", *EXPERTS)),
    "qwen3moe": Family("Qwen3Moe", "qwen3_moe", _qwen3moe, (WINDOW, *EXPERTS)),
    "smollm3": Family("SmolLM3", "smollm3", _smollm3),
    "granite": Family("Granite", "granite", _granite, SCALES),
    "granitemoe": Family("GraniteMoe", "granitemoe", _granitemoe, (*SCALES, *EXPERTS)),
    "gemma2": Family("Gemma2", "gemma2", _gemma2, (WINDOW, *CAPS)),
    "gemma3": Family("Gemma3", "gemma3_text", _gemma3, (WINDOW, CAPS[1])),
    "olmo2": Family("Olmo2", "olmo2", _olmo2, (WINDOW,)),
    "olmoe": Family("Olmoe", "olmoe", _olmoe, EXPERTS),
    "phi3": Family(
        "Phi3", "phi3", _phi3, (WINDOW, "rope.dimension_count", "rope.scaling.attn_factor")
    ),
    "gpt-oss": Family("GptOss", "gpt_oss", _gpt_oss, (WINDOW, *EXPERTS)),
    "gptneox": Family(
        "GPTNeoX",
        "gpt_neox",
        _gptneox,
        ("rope.dimension_count",),
        epsilon="attention.layer_norm_epsilon",
    ),
}
