"""config.json from the keys of a GGUF file."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from . import gpt_oss
from .errors import ConvertError, short
from .gguf_keys import Keys, token_id
from .rope import llama3_divisors, yarn_magnitude
from .to_hf_families import FAMILIES, LEFT_OUT, Family, has_window

# What changes the arithmetic and has no place in config.json, with the values that change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("expert_count", "expert_used_count", "nextn_predict_layers"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (0,)),
    **dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias", "pooling_type"), (0,)),
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale"), (0, 1)),
    "attention.causal": (True,),
    "attention.temperature_scale": (0,),
    "rope.scaling.yarn_ext_factor": (1,),
}


def _refuse_special(keys: Keys, family: Family, head_dim: int, context: int) -> None:
    for suffix, neutral in NEUTRAL.items():
        if suffix not in family.own and keys.get(suffix, neutral[0]) not in neutral:
            raise keys.fail(suffix, f"{neutral[-1]}, as config.json cannot say otherwise")
    scale = keys.number("attention.scale", 0)
    usual = scale == 0 or abs(scale * math.sqrt(head_dim) - 1) <= 1e-5
    if not usual and "attention.scale" not in family.own:
        raise keys.fail("attention.scale", f"1 / sqrt({head_dim}), config.json cannot say another")
    if "attention.sliding_window" not in family.own and has_window(keys, context):
        raise keys.fail("attention.sliding_window", f"0 or at least the context of {context}")
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise keys.fail("attention.value_length", f"key_length {head_dim}")
    rotated = keys.integer("rope.dimension_count", head_dim)
    if "rope.dimension_count" not in family.own and rotated != head_dim:
        raise keys.fail("rope.dimension_count", f"the {head_dim} dimensions of a head")


def _rope_scaling(keys: Keys, divisors: np.ndarray | None, head_dim: int) -> Any:
    theta = keys.number("rope.freq_base", 10000.0)
    if divisors is not None:
        # The file has only the result; try the parameters of the published models.
        if len(divisors) != head_dim // 2 or not np.all((divisors > 0) & (divisors < np.inf)):
            raise ConvertError(
                f"{keys.path}: 'rope_freqs.weight' should hold {head_dim // 2} positive numbers"
            )
        factor = float(divisors.max())
        for context in (8192.0, 4096.0, 16384.0):
            if np.allclose(llama3_divisors(theta, head_dim, factor, 1, 4, context), divisors, 1e-4):
                return {
                    "rope_type": "llama3",
                    "factor": round(factor, 4),
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 4.0,
                    "original_max_position_embeddings": int(context),
                }
        raise ConvertError(f"{keys.path}: unknown rope factors in 'rope_freqs.weight'")
    factor = keys.number("rope.scaling.factor", keys.number("rope.scale_linear", 1.0))
    kind = keys.get("rope.scaling.type", "linear")
    own = "rope.scaling.attn_factor" in FAMILIES[keys.arch].own
    if kind != "yarn" and not own and keys.number("rope.scaling.attn_factor", 1) not in (0, 1):
        raise keys.fail("rope.scaling.attn_factor", "1, as config.json cannot say otherwise")
    if kind == "none" or (kind == "linear" and factor in (0, 1)):
        return None
    if kind not in ("linear", "yarn"):
        raise ConvertError(f"{keys.path}: rope scaling '{short(kind)}' is not supported")
    found = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        context = keys.integer("context_length")
        original = keys.integer("rope.scaling.original_context_length", context)
        found["original_max_position_embeddings"] = original
        for name in ("beta_fast", "beta_slow"):
            if keys.get(f"rope.scaling.yarn_{name}") is not None:
                found[name] = keys.number(f"rope.scaling.yarn_{name}")
        found |= _yarn_magnitude(keys, factor)
        if not keys.flag("rope.scaling.yarn_truncate", keys.arch != gpt_oss.ARCH):
            found["truncate"] = False
    return found


def _yarn_magnitude(keys: Keys, factor: float) -> dict[str, float]:
    """The factor of cos and sin where it is not the usual one, as the engine reads it."""
    usual = yarn_magnitude(factor)
    magnitude = keys.number("rope.scaling.yarn_attn_factor", 1)
    all_dims = keys.number("rope.scaling.yarn_log_multiplier", 0)
    if magnitude == 1:
        magnitude = usual / (yarn_magnitude(factor, all_dims) if all_dims else 1)
    scale = np.float32(keys.number("rope.scaling.attn_factor", 1))
    magnitude *= float(scale)
    if magnitude == usual:
        return {}
    # The shortest number that the file's rounded one can come from.
    tries = (round(magnitude, digits) for digits in range(1, 10))
    found = (number for number in tries if np.float32(number / usual) == scale)
    return {"attention_factor": next(found, magnitude)}


def make_config(all_keys: dict[str, Any], tensors: dict[str, Any], path: pathlib.Path) -> dict:
    """config.json of a GGUF file."""
    keys = Keys(all_keys, path)
    family = FAMILIES.get(keys.arch)
    if family is None:
        raise ConvertError(f"{path}: architecture '{short(keys.arch)}' is not supported")
    parts = all_keys.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ConvertError(f"{path}: is one of {parts} files that make a model; join them first")
    if "token_embd.weight" not in tensors:
        raise ConvertError(f"{path}: tensor 'token_embd.weight' is missing")
    hidden, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", max(1, hidden // n_heads))
    context = keys.integer("context_length")
    _refuse_special(keys, family, head_dim, context)
    divisors = tensors.get("rope_freqs.weight")
    values = None if divisors is None else np.array(divisors.data, np.float32)
    config: dict[str, Any] = {
        "architectures": [f"{family.name}ForCausalLM"],
        "model_type": family.model_type,
        "hidden_size": hidden,
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": keys.integer("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "intermediate_size": keys.integer(
            "feed_forward_length", keys.get("expert_feed_forward_length")
        ),
        "max_position_embeddings": context,
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "hidden_act": "silu",
        "rms_norm_eps": keys.number(family.epsilon),
        "rope_theta": keys.number("rope.freq_base", 10000.0),
        "rope_scaling": _rope_scaling(keys, values, head_dim),
    }
    for name in ("bos", "eos"):
        config[f"{name}_token_id"] = token_id(all_keys, name)
    family.change(keys, config, tensors)
    return {key: value for key, value in config.items() if value is not LEFT_OUT}
