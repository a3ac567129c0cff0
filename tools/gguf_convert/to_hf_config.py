"""config.json from the keys of a GGUF file."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from . import qwen35
from .errors import ConvertError, short
from .gemma import PERIOD, attention_scalar
from .rope import llama3_divisors
from .windows import PATTERN, layer_types, windowed_layers


class Keys:
    """Typed access to the keys of an architecture, which nobody vouches for."""

    def __init__(self, keys: dict[str, Any], path: pathlib.Path) -> None:
        self.values, self.path = keys, path
        self.arch = str(keys.get("general.architecture"))

    def fail(self, suffix: str, expected: str) -> ConvertError:
        key = f"{self.arch}.{suffix}"
        if key not in self.values:
            return ConvertError(f"{self.path}: key '{key}' is missing")
        found = short(repr(self.values[key]))
        return ConvertError(f"{self.path}: key '{key}' should be {expected}, found {found}")

    def get(self, suffix: str, default: Any = None) -> Any:
        return self.values.get(f"{self.arch}.{suffix}", default)

    def integer(self, suffix: str, default: int | None = None) -> int:
        value = self.get(suffix, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 31:
            raise self.fail(suffix, "one whole number from 1")
        return value

    def number(self, suffix: str, default: float | None = None) -> float:
        value = self.get(suffix, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.fail(suffix, "a number")
        if not math.isfinite(value):
            raise self.fail(suffix, "a finite number")
        return float(value)

    def flag(self, suffix: str, default: bool) -> bool:
        value = self.get(suffix, default)
        if not isinstance(value, bool):
            raise self.fail(suffix, "true or false")
        return value


# What changes the arithmetic and has no place in config.json, with the values that change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("expert_count", "expert_used_count", "nextn_predict_layers"), (0,)),
    **dict.fromkeys(("attn_logit_softcapping", "final_logit_softcapping"), (0,)),
    **dict.fromkeys(("attention.clamp_kqv", "attention.max_alibi_bias", "pooling_type"), (0,)),
    **dict.fromkeys(("logit_scale", "residual_scale", "embedding_scale"), (0, 1)),
    "attention.causal": (True,),
    "attention.temperature_scale": (0,),
    "rope.scaling.yarn_ext_factor": (1,),
    "rope.scaling.yarn_attn_factor": (1,),
    "rope.scaling.attn_factor": (0, 1),
    "rope.scaling.yarn_log_multiplier": (0,),
}
# Of those, what config.json of an architecture can say.
OWN = {"granite": ("logit_scale", "residual_scale", "embedding_scale")}
WINDOWS = ("llama", "qwen2", "qwen3", "gemma3")


def has_window(keys: Keys, context: int) -> bool:
    return 0 < keys.number("attention.sliding_window", 0) < context


def _refuse_special(keys: Keys, head_dim: int, context: int, rotated: int | None) -> None:
    """`rotated`: how many dimensions of a head must be, where the architecture rotates all."""
    for suffix, neutral in NEUTRAL.items():
        if suffix in OWN.get(keys.arch, ()):
            continue
        if keys.get(suffix, neutral[0]) not in neutral:
            raise keys.fail(suffix, f"{neutral[-1]}, as config.json cannot say otherwise")
    scale = keys.number("attention.scale", 0)
    if keys.arch != "granite" and scale != 0 and abs(scale * math.sqrt(head_dim) - 1) > 1e-5:
        raise keys.fail("attention.scale", f"1 / sqrt({head_dim}), config.json cannot say another")
    if keys.arch not in WINDOWS and has_window(keys, context):
        raise keys.fail("attention.sliding_window", f"0 or at least the context of {context}")
    if keys.integer("attention.value_length", head_dim) != head_dim:
        raise keys.fail("attention.value_length", f"key_length {head_dim}")
    if rotated is not None and keys.integer("rope.dimension_count", rotated) != rotated:
        raise keys.fail("rope.dimension_count", f"the {rotated} dimensions of a head")


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
    return found


def make_config(all_keys: dict[str, Any], tensors: dict[str, Any], path: pathlib.Path) -> dict:
    """config.json of a GGUF file."""
    keys = Keys(all_keys, path)
    arch = keys.arch
    if arch not in (
        "llama",
        "qwen2",
        "qwen3",
        "qwen35",
        "smollm3",
        "granite",
        "gemma3",
        "olmo2",
        "gptneox",
    ):
        raise ConvertError(f"{path}: architecture '{short(arch)}' is not supported")
    parts = all_keys.get("split.count")
    if isinstance(parts, int) and parts > 1:
        raise ConvertError(f"{path}: is one of {parts} files that make a model; join them first")
    if "token_embd.weight" not in tensors:
        raise ConvertError(f"{path}: tensor 'token_embd.weight' is missing")
    hidden, n_heads = keys.integer("embedding_length"), keys.integer("attention.head_count")
    head_dim = keys.integer("attention.key_length", max(1, hidden // n_heads))
    context = keys.integer("context_length")
    _refuse_special(keys, head_dim, context, None if arch in ("gptneox", "qwen35") else head_dim)
    config: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": keys.integer("block_count"),
        "num_attention_heads": n_heads,
        "intermediate_size": keys.integer("feed_forward_length"),
        "max_position_embeddings": context,
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_theta": keys.number("rope.freq_base", 10000.0),
    }
    for name in ("bos", "eos"):
        config[f"{name}_token_id"] = token_id(all_keys, name)
    if arch == "gptneox":
        n_rot = keys.integer("rope.dimension_count", head_dim)
        config |= {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "hidden_act": "gelu",
            "rotary_emb_base": config.pop("rope_theta"),
            "rotary_pct": n_rot / head_dim,
            "layer_norm_eps": keys.number("attention.layer_norm_epsilon"),
            "use_parallel_residual": keys.flag("use_parallel_residual", True),
        }
        scaling = _rope_scaling(keys, None, head_dim)
        return config if scaling is None else config | {"rope_scaling": scaling}
    divisors = tensors.get("rope_freqs.weight")
    values = None if divisors is None else np.array(divisors.data, np.float32)
    config |= {
        "num_key_value_heads": keys.integer("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_scaling": _rope_scaling(keys, values, head_dim),
    }
    if arch == "qwen35":
        scaling = config.pop("rope_scaling")
        del config["rope_theta"]
        return config | qwen35.config_json(keys, scaling)
    if arch == "gemma3":
        scaling = config.pop("rope_scaling")
        del config["rope_theta"], config["hidden_act"]
        return config | _gemma3(keys, head_dim, scaling)
    if arch == "llama":
        bias = "blk.0.attn_q.bias" in tensors
        names = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        if has_window(keys, context):
            names = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
            config["sliding_window"] = _window_of_all(keys)
        return config | names | {"attention_bias": bias}
    if config["rope_scaling"] is None:
        del config["rope_scaling"]
    if arch in ("qwen2", "qwen3") and has_window(keys, context):
        config |= {
            "use_sliding_window": True,
            "sliding_window": keys.integer("attention.sliding_window"),
            "layer_types": layer_types(windowed_layers(keys, 0)),
        }
    if arch == "smollm3":  # whose default is a token that small vocabularies lack
        config["pad_token_id"] = token_id(all_keys, "padding")
    if arch == "granite":
        config |= _granite_scales(keys, head_dim) | {
            "attention_bias": "blk.0.attn_q.bias" in tensors
        }
    name = {
        "qwen2": "Qwen2",
        "qwen3": "Qwen3",
        "smollm3": "SmolLM3",
        "granite": "Granite",
        "olmo2": "Olmo2",
    }[arch]
    return config | {"architectures": [f"{name}ForCausalLM"], "model_type": arch}


def _window_of_all(keys: Keys) -> int:
    if not all(windowed_layers(keys, 0)):
        raise keys.fail(PATTERN, "that of all layers, as config.json cannot say otherwise")
    return keys.integer("attention.sliding_window")


def _granite_scales(keys: Keys, head_dim: int) -> dict[str, float]:
    return {
        "embedding_multiplier": keys.number("embedding_scale", 0) or 1.0,
        "residual_multiplier": keys.number("residual_scale", 0) or 1.0,
        "logits_scaling": keys.number("logit_scale", 0) or 1.0,
        "attention_multiplier": keys.number("attention.scale", 0) or head_dim**-0.5,
    }


def _gemma3(keys: Keys, head_dim: int, scaling: Any) -> dict[str, Any]:
    n_layers = keys.integer("block_count")
    full = {"rope_type": "default", "rope_theta": keys.number("rope.freq_base", 10000.0)}
    local = {"rope_type": "default", "rope_theta": keys.number("rope.freq_base_swa", 10000.0)}
    return {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": attention_scalar(
            keys.integer("embedding_length"),
            n_layers,
            keys.integer("attention.head_count"),
            head_dim,
        ),
        "sliding_window": keys.integer("attention.sliding_window"),
        "layer_types": layer_types(windowed_layers(keys, PERIOD)),
        "rope_parameters": {
            "full_attention": full | (scaling or {}),
            "sliding_attention": local,
        },
    }


def token_id(all_keys: dict[str, Any], name: str) -> int | None:
    """None where the file has none, or one that no token has, as files in use do."""
    value = all_keys.get(f"tokenizer.ggml.{name}_token_id")
    tokens = all_keys.get("tokenizer.ggml.tokens")
    n_tokens = len(tokens) if isinstance(tokens, list) else 0
    return value if isinstance(value, int) and 0 <= value < n_tokens else None
