"""Rotary embedding of a checkpoint as GGUF keys and, for Llama 3, as the tensor of divisors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .errors import ConvertError, short
from .hf_config import Config


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
    if value is None:
        value = default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ConvertError(
            f"{config.path}: rope parameter '{key}' should be a positive number, "
            f"found {short(repr(value))}"
        )
    return float(value)


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
    original = _number(config, parameters, "original_max_position_embeddings", context)
    rope.keys["scaling.original_context_length"] = int(original)
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
    rope = Rope(theta)
    kind = parameters.pop("rope_type", None) or parameters.pop("type", None) or "default"
    parameters.pop("type", None)
    share = parameters.pop("partial_rotary_factor", config.get("partial_rotary_factor"))
    rope.rotated_share = None if share is None else float(share)
    if kind == "default":
        parameters.pop("factor", None)
    elif kind in ("linear", "yarn"):
        rope.keys["scaling.type"] = kind
        rope.keys["scaling.factor"] = _number(config, parameters, "factor")
        if kind == "yarn":
            _add_yarn(config, parameters, rope, context)
    elif kind == "llama3" and divisors:
        rope.divisors = llama3_divisors(
            theta,
            n_rot,
            _number(config, parameters, "factor", 8.0),
            _number(config, parameters, "low_freq_factor", 1.0),
            _number(config, parameters, "high_freq_factor", 4.0),
            _number(config, parameters, "original_max_position_embeddings", 8192),
        )
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
