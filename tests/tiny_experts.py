"""Small models with experts of other kinds: the tensors that they have and others lack."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tiny_models import Metadata, Tensors, TinyConfig


def gpt_oss_keys() -> Metadata:
    return {
        "gpt-oss.rope.scaling.type": "yarn",
        "gpt-oss.rope.scaling.factor": 4.0,
        "gpt-oss.rope.scaling.original_context_length": 256,
    }


def add_gpt_oss(tensors: Tensors, config: TinyConfig, rng: np.random.Generator) -> None:
    """Biases and sinks, to what others have too; weights so large that the clamps bite."""

    def numbers(*shape: int) -> np.ndarray:
        return (0.4 * rng.standard_normal(shape)).astype(np.float32)

    for layer in range(config.n_layers):
        of = f"blk.{layer}"
        tensors[f"{of}.post_attention_norm.weight"] = tensors.pop(f"{of}.ffn_norm.weight")
        tensors[f"{of}.attn_output.bias"] = numbers(config.hidden_size)
        tensors[f"{of}.attn_sinks.weight"] = numbers(config.n_heads)
        tensors[f"{of}.ffn_gate_inp.bias"] = numbers(config.n_experts)
        for name in ("gate", "up", "down"):
            stack = tensors[f"{of}.ffn_{name}_exps.weight"]
            assert isinstance(stack, np.ndarray)
            stack *= np.float32(0.2 if name == "down" else 4)
            tensors[f"{of}.ffn_{name}_exps.bias"] = numbers(*stack.shape[:2])


def gpt_oss_state(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By the names that others have; gates are interleaved, and matrices turned."""
    out = {}
    for name, values in state.items():
        if ".experts.gate_up_proj" in name:
            kind = "bias" if name.endswith("_bias") else "weight"
            for part, first in (("gate", 0), ("up", 1)):
                rows = values[..., first::2]
                to = name.split("gate_up_proj")[0] + f"{part}_proj.{kind}"
                out[to] = rows if kind == "bias" else rows.swapaxes(1, 2)
        elif name.endswith("experts.down_proj"):
            out[name + ".weight"] = values.swapaxes(1, 2)
        elif name.endswith("experts.down_proj_bias"):
            out[name.removesuffix("_bias") + ".bias"] = values
        else:
            out[name + ".weight" if name.endswith("sinks") else name] = values
    return out


def gpt_oss_window(hf: Any) -> Metadata:
    return {
        "gpt-oss.attention.sliding_window": hf.sliding_window,
        "gpt-oss.attention.sliding_window_pattern": [
            int(kind == "sliding_attention") for kind in hf.layer_types
        ],
    }


# ---------------------------------------------------------------- with a shared expert


def mixture(of: str, config: TinyConfig, rng: np.random.Generator) -> Tensors:
    """A router and experts below `of`; one more that all rows use where it has a size."""
    n, size, hidden = config.n_experts, config.intermediate_size, config.hidden_size

    def numbers(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    tensors: Tensors = {
        f"{of}.ffn_gate_inp.weight": numbers(n, hidden),
        f"{of}.ffn_gate_exps.weight": numbers(n, size, hidden),
        f"{of}.ffn_up_exps.weight": numbers(n, size, hidden),
        f"{of}.ffn_down_exps.weight": numbers(n, hidden, size),
    }
    size = config.shared_size
    if size == 0:
        return tensors
    if config.arch.startswith("qwen"):
        tensors[f"{of}.ffn_gate_inp_shexp.weight"] = numbers(hidden)
    return tensors | {
        f"{of}.ffn_gate_shexp.weight": numbers(size, hidden),
        f"{of}.ffn_up_shexp.weight": numbers(size, hidden),
        f"{of}.ffn_down_shexp.weight": numbers(hidden, size),
    }


def of_qwen(to: str, of: str, state: dict[str, np.ndarray]) -> Tensors:
    gate, up = np.split(state[f"{of}.experts.gate_up_proj"], 2, axis=1)
    tensors: Tensors = {
        f"{to}.ffn_gate_inp.weight": state[f"{of}.gate.weight"],
        f"{to}.ffn_gate_exps.weight": gate,
        f"{to}.ffn_up_exps.weight": up,
        f"{to}.ffn_down_exps.weight": state[f"{of}.experts.down_proj"],
        f"{to}.ffn_gate_inp_shexp.weight": state[f"{of}.shared_expert_gate.weight"][0],
    }
    for name in ("gate", "up", "down"):
        values = state[f"{of}.shared_expert.{name}_proj.weight"]
        tensors[f"{to}.ffn_{name}_shexp.weight"] = values
    return tensors


def granite_state(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By names that others have, with the shared expert's matrices apart."""
    out = {}
    for name, values in state.items():
        name = name.replace("block_sparse_moe.router", "mlp.gate")
        name = name.replace("block_sparse_moe.experts", "mlp.experts")
        if name.endswith("shared_mlp.input_linear.weight"):
            for part, half in zip(("gate", "up"), np.split(values, 2), strict=True):
                out[name.replace("input_linear", part)] = half
        else:
            out[name.replace("shared_mlp.output_linear", "shared_mlp.down")] = values
    return out
