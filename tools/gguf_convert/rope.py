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


def _add_yarn(config: Config, parameters: dict[str, Any], rope: Rope, context: int) -> None:
    factor = rope.keys["scaling.factor"]
    original = _whole(config, parameters, "original_max_position_embeddings", context)
    rope.keys["scaling.original_context_length"] = original
    if parameters.get("beta_fast") is not None or parameters.get("beta_slow") is not None:
        rope.keys["scaling.yarn_beta_fast"] = _number(config, parameters, "beta_fast", 32.0)
        rope.keys["scaling.yarn_beta_slow"] = _number(config, parameters, "beta_slow", 1.0)
    usual = 0.1 * math.log(max(factor, 1.0)) + 1
    attention_factor = _number(config, parameters, "attention_factor", usual)
    if abs(attention_factor - usual) > 1e-6:
        raise ConvertError(
            f"{config.path}: YaRN's attention_factor {attention_factor} is not supported, only "
            f"the usual one, {usual:.6g} for factor {factor:g}"
        )
    for key in ("beta_fast", "beta_slow"):
        parameters.pop(key, None)
    if parameters.pop("truncate", True) is not True:
        raise ConvertError(f"{config.path}: YaRN with truncate = false is not supported")


def read_rope(config: Config, n_rot: int, context: int, *, divisors: bool) -> Rope:
    """`divisors`: whether the architecture has rope_freqs.weight."""
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
    if kind == "default":
        parameters.pop("factor", None)
    elif kind in ("linear", "yarn"):
        rope.keys["scaling.type"] = kind
        rope.keys["scaling.factor"] = _number(config, parameters, "factor")
        if kind == "yarn":
            _add_yarn(config, parameters, rope, context)
    elif kind == "llama3" and divisors:
        factor = _number(config, parameters, "factor", 8.0)
        low = _number(config, parameters, "low_freq_factor", 1.0)
        high = _number(config, parameters, "high_freq_factor", 4.0)
        if not low < high:
            raise config.fail("high_freq_factor", f"more than low_freq_factor {low:g}", high)
        original = _whole(config, parameters, "original_max_position_embeddings", 8192)
        rope.divisors = llama3_divisors(theta, n_rot, factor, low, high, original)
    else:
        raise ConvertError(
            f"{config.path}: rope scaling '{short(kind)}' is not supported; supported are default, "
            f"linear, yarn{' and llama3' if divisors else ''}"
        )
    parameters.pop("original_max_position_embeddings", None)
    left = {key for key, value in parameters.items() if value is not None}
    if left:
        raise ConvertError(
            f"{config.path}: unknown rope parameters: {short(', '.join(sorted(left)))}"
        )
    return rope
