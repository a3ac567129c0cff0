"""Sliding windows: which layers have one, in config.json and in GGUF keys, both ways."""

from __future__ import annotations

from typing import Any

from .errors import ConvertError, short
from .gguf_keys import Keys
from .hf_config import Config

KINDS = {"full_attention": False, "sliding_attention": True}
PATTERN = "attention.sliding_window_pattern"


def by_period(n_layers: int, period: int) -> list[bool]:
    """All but every `period`th; 0: all."""
    return [period == 0 or layer % period < period - 1 for layer in range(n_layers)]


def read_layer_types(config: Config, n_layers: int) -> list[bool] | None:
    types: Any = config.get("layer_types")
    if not types and isinstance(types, (list, type(None))):
        return None
    if not isinstance(types, list) or set(map(str, types)) - set(KINDS):
        raise config.fail("layer_types", "a list of full_attention and sliding_attention")
    if len(types) != n_layers:
        raise config.fail("layer_types", f"a list of {n_layers} layers", len(types))
    return [KINDS[str(kind)] for kind in types]


def pattern_keys(window: int, flags: list[bool], usual: int) -> dict[str, Any]:
    """`usual`: the period of files that say nothing."""
    keys: dict[str, Any] = {"attention.sliding_window": window}
    for period in (usual, *range(1, len(flags) + 1), 0):
        if flags == by_period(len(flags), period):
            return keys if period == usual else keys | {PATTERN: period}
    return keys | {PATTERN: [int(flag) for flag in flags]}


def usual_windows(config: Config, default: Any, usual: int) -> dict[str, Any]:
    """Of a family all of whose models have windows: layer_types, or a period, says where."""
    n_layers = config.integer("num_hidden_layers")
    config.has("_sliding_window_pattern")
    period = config.integer("sliding_window_pattern", config.get("_sliding_window_pattern", usual))
    flags = read_layer_types(config, n_layers) or by_period(n_layers, period)
    if config.values.get("sliding_window", default) is None:
        raise config.fail("sliding_window", "a whole number from 1")
    return pattern_keys(config.integer("sliding_window", default), flags, usual)


def optional_window(
    config: Config, family: str, n_layers: int, context: int, default: Any
) -> dict[str, Any]:
    """Keys of a sliding window that the context can outgrow, where one applies: in Mistral, Qwen
    and their kin, on all layers if no key names some."""
    window: Any = config.values.get("sliding_window", default)
    config.has("sliding_window")
    if "sliding_window" in config.ignored:
        window = None
    types = read_layer_types(config, n_layers)
    flags = types if types is not None and not any(types) else [True] * n_layers
    if family in ("Qwen2", "Qwen3"):
        if not config.flag("use_sliding_window", False):
            window = None
        first = config.integer("max_window_layers", 28, low=0)
        flags = types or [layer >= first for layer in range(n_layers)]
    else:
        if family == "SmolLM3" and not config.flag("use_sliding_window", False):
            window = None
        config.has("use_sliding_window")
        config.has("max_window_layers")
    if window is None or not any(flags):
        return {}
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise config.fail("sliding_window", "a whole number from 1, or null")
    if window >= context:
        return {}
    if family == "SmolLM3":
        raise ConvertError(
            f"{config.path}: a sliding window is not supported in {family}: sliding_window "
            f"is {short(repr(window))}, less than the context of {context} tokens"
        )
    config.notes.append(
        f"the sliding window of {window} positions is written; llama.cpp ignores it in this "
        "architecture and gives other logits beyond it"
    )
    keys = pattern_keys(window, flags, 0)
    if PATTERN in keys:
        keys[PATTERN] = [int(flag) for flag in flags]
    return keys


def windowed_layers(keys: Keys, usual: int) -> list[bool]:
    """Of a GGUF file."""
    n_layers = keys.integer("block_count")
    pattern = keys.get(PATTERN, usual)
    if isinstance(pattern, list):
        if len(pattern) != n_layers or set(pattern) - {0, 1}:
            raise keys.fail(PATTERN, f"{n_layers} zeros and ones")
        return [bool(flag) for flag in pattern]
    return by_period(n_layers, 0 if pattern == 0 else keys.integer(PATTERN, usual or 1))


def layer_types(flags: list[bool]) -> list[str]:
    names = {flag: name for name, flag in KINDS.items()}
    return [names[flag] for flag in flags]
