"""Rotary embedding of a checkpoint as GGUF keys and, for Llama 3, as the tensor of divisors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ConvertError, short
from .hf_config import Config

LEAST_THETA = 1.001  # the engine's


@dataclass
class Rope:
    theta: float
    keys: dict[str, Any] = field(default_factory=dict)  # below "ARCH.rope."
    divisors: np.ndarray | None = None  # f32 [n_rot / 2]
    short_factors: np.ndarray | None = None  # likewise: longrope's
    long_factors: np.ndarray | None = None
    rotated_share: float | None = None


def _parameters(config: Config) -> dict[str, Any]:
    """Newer files have rope_parameters, older ones rope_scaling."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = config.get(key, {})
        if not isinstance(value, dict):
            raise config.fail(key, "an object or null")
        found |= value
    return found


def _number(config: Config, parameters: dict[str, Any], key: str, default: Any = None) -> float:
    value = parameters.pop(key, default)
    return config.checked_number(key, default if value is None else value)


def _whole(config: Config, parameters: dict[str, Any], key: str, default: int) -> int:
    value = _number(config, parameters, key, default)
    if not 1 <= value < 1 << 31:
        raise config.fail(key, "a whole number from 1", value)
    return int(value)


def llama3_divisors(
    theta: float, n_rot: int, factor: float, low: float, high: float, context: float
) -> np.ndarray:
    """What each frequency is divided by: 1 for fast pairs, `factor` for slow ones."""
    divisors = []
    for pair in range(n_rot // 2):
        wavelength = 2 * math.pi * theta ** (2 * pair / n_rot)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(factor)
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(divisors, np.float32)


def yarn_magnitude(factor: float, scale: float = 1.0) -> float:
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def _add_yarn(
    config: Config,
    parameters: dict[str, Any],
    rope: Rope,
    context: int,
    nested: bool,
    truncates: bool,
) -> None:
    original = _whole(config, parameters, "original_max_position_embeddings", context)
    factor = _number(config, parameters, "factor", context / original)
    rope.keys["scaling.factor"] = factor
    rope.keys["scaling.original_context_length"] = original
    if parameters.get("beta_fast") is not None or parameters.get("beta_slow") is not None:
        rope.keys["scaling.yarn_beta_fast"] = _number(config, parameters, "beta_fast", 32.0)
        rope.keys["scaling.yarn_beta_slow"] = _number(config, parameters, "beta_slow", 1.0)
    for key in ("beta_fast", "beta_slow"):
        parameters.pop(key, None)
    usual = yarn_magnitude(factor)
    scales = [parameters.pop(key, None) or 0 for key in ("mscale", "mscale_all_dim")]
    if all(scales):
        of, to = (yarn_magnitude(factor, config.checked_number("mscale", s)) for s in scales)
        magnitude = of / to
    else:
        magnitude = usual
    magnitude = _number(config, parameters, "attention_factor", magnitude)
    if abs(magnitude - usual) > 1e-6:  # what engines multiply their own factor with
        rope.keys["scaling.attn_factor"] = magnitude / usual
    truncate = parameters.pop("truncate", None)
    if truncate not in (None, True, False):
        raise config.fail("truncate", "true or false", truncate)
    if truncate is False and nested:
        config.notes.append("YaRN's truncate is left out: transformers does not look at it there")
        return
    truncate = truncate is not False
    if truncate != truncates:
        rope.keys["scaling.yarn_truncate"] = truncate
    if not truncate:
        config.notes.append("YaRN without truncation is written; llama.cpp truncates all the same")


def _factors(config: Config, parameters: dict[str, Any], key: str, n: int) -> np.ndarray:
    values = parameters.pop(key, None)
    if not isinstance(values, list) or len(values) != n:
        raise config.fail(key, f"a list of {n} numbers", values)
    return np.array([config.checked_number(key, value) for value in values], np.float32)


def _add_longrope(
    config: Config, parameters: dict[str, Any], rope: Rope, n_rot: int, context: int
) -> None:
    if n_rot < 2 or n_rot % 2:
        text = "an even part of the head's dimensions"
        raise config.fail("partial_rotary_factor", text, rope.rotated_share)
    parameters.pop("original_max_position_embeddings", None)  # transformers takes the other one
    original = config.integer("original_max_position_embeddings", 4096)
    rope.short_factors = _factors(config, parameters, "short_factor", n_rot // 2)
    rope.long_factors = _factors(config, parameters, "long_factor", n_rot // 2)
    factor = _number(config, parameters, "factor", context / original)
    usual = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    rope.keys["scaling.original_context_length"] = original
    rope.keys["scaling.attn_factor"] = _number(config, parameters, "attention_factor", usual)


def nested_ropes(config: Config, n_rot: int, context: int) -> tuple[Rope, Rope] | None:
    """Of full layers and of windowed ones, where each kind has its own; None: there is one."""
    nested = config.get("rope_parameters")
    if not isinstance(nested, dict) or "full_attention" not in nested:
        return None
    kinds = ("full_attention", "sliding_attention")
    if set(nested) - set(kinds) or not all(isinstance(nested.get(kind), dict) for kind in kinds):
        raise config.fail("rope_parameters", "those of full_attention and of sliding_attention")
    ropes = []
    for kind in kinds:
        part = Config({"rope_parameters": nested[kind]}, config.path)
        ropes.append(read_rope(part, n_rot, context, divisors=False, nested=True))
        config.notes += part.notes
    if ropes[1].keys:
        raise config.fail("rope_parameters", "without scaling for sliding_attention")
    return ropes[0], ropes[1]


def read_rope(
    config: Config,
    n_rot: int,
    context: int,
    *,
    divisors: bool,
    longrope: bool = False,
    nested: bool = False,
    truncates: bool = True,
) -> Rope:
    """`divisors`: whether the architecture has rope_freqs.weight. `longrope`: whether it is Phi-3,
    in which other names mean that too. `nested`: whether layers differ. `truncates`: what YaRN does
    in files without a key for it."""
    parameters = _parameters(config)
    theta = _number(config, parameters, "rope_theta", config.get("rope_theta", 10000.0))
    if theta < LEAST_THETA:
        raise config.fail("rope_theta", f"at least {LEAST_THETA}", theta)
    rope = Rope(theta)
    kind = parameters.pop("rope_type", None) or parameters.pop("type", None) or "default"
    parameters.pop("type", None)
    share = parameters.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    if share is not None:
        rope.rotated_share = config.checked_number("partial_rotary_factor", share)
    if longrope and kind in ("longrope", "su", "yarn"):
        share = 1.0 if rope.rotated_share is None else rope.rotated_share
        _add_longrope(config, parameters, rope, int(n_rot * share), context)
    elif kind == "default":
        parameters.pop("factor", None)
    elif kind in ("linear", "yarn"):
        rope.keys["scaling.type"] = kind
        if kind == "yarn":
            _add_yarn(config, parameters, rope, context, nested, truncates)
        else:
            rope.keys["scaling.factor"] = _number(config, parameters, "factor")
    elif kind == "llama3" and divisors:
        factor = _number(config, parameters, "factor", 8.0)
        low = _number(config, parameters, "low_freq_factor", 1.0)
        high = _number(config, parameters, "high_freq_factor", 4.0)
        if not low < high:
            raise config.fail("high_freq_factor", f"more than low_freq_factor {low:g}", high)
        original = _whole(config, parameters, "original_max_position_embeddings", 8192)
        rope.divisors = llama3_divisors(theta, n_rot, factor, low, high, original)
    elif kind == "dynamic":
        raise ConvertError(
            f"{config.path}: rope scaling 'dynamic' is not supported: it rotates by the length so "
            "far, so that a prompt gives other logits than the same tokens one by one"
        )
    else:
        known = "longrope" if longrope else "linear, yarn" + " and llama3" * divisors
        raise ConvertError(
            f"{config.path}: rope scaling '{short(kind)}' is not supported; supported are default, "
            + known
        )
    parameters.pop("original_max_position_embeddings", None)
    left = {key for key, value in parameters.items() if value is not None}
    if left:
        raise ConvertError(
            f"{config.path}: unknown rope parameters: {short(', '.join(sorted(left)))}"
        )
    return rope
