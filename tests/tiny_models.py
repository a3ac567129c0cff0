"""Small models with random weights, written as GGUF files, for tests."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gguf
import numpy as np

import tiny_experts
import tiny_hybrid
import weight_formats

Metadata = dict[str, Any]


@dataclass(frozen=True)
class RawTensor:
    """Packed rows of a weight format: data is uint8 [n_out, row_bytes]."""

    data: np.ndarray
    dtype: str


Tensors = dict[str, "np.ndarray | RawTensor"]


@dataclass(frozen=True)
class TinyConfig:
    """Shapes of a random model. `vocab_size` counts embedding rows, `n_tokens` the real tokens."""

    arch: str = "llama"
    n_layers: int = 2
    hidden_size: int = 64
    n_heads: int = 4
    n_kv_heads: int = 2
    head_dim: int = 16
    intermediate_size: int = 96
    vocab_size: int = 272
    context_length: int = 1024
    rope_theta: float = 10000.0
    n_rot: int | None = None
    norm_epsilon: float = 1e-5
    tied: bool = False
    qkv_bias: bool = False
    fused_qkv: bool = False
    parallel_residual: bool = True
    recurrent_dim: int = 16  # of the heads of qwen35's recurrent layers
    n_experts: int = 0  # of all layers, of the intermediate size
    n_experts_used: int = 2
    shared_size: int = 0  # of the expert that all rows use, if there is one
    window: int = 0  # on all but every second layer

    @property
    def is_neox(self) -> bool:
        return self.arch == "gptneox"


# One of each architecture for tests that walk them all: two layers that differ where they may,
# windows shorter than a test's texts.
FAMILIES = {
    "llama": TinyConfig(window=40),
    "qwen2": TinyConfig(arch="qwen2"),
    "qwen3": TinyConfig(arch="qwen3", window=40),
    "qwen3moe": TinyConfig(arch="qwen3moe", n_experts=5),
    "qwen35": TinyConfig(arch="qwen35", n_layers=5, n_rot=8),
    "qwen35moe": TinyConfig(
        arch="qwen35moe", n_layers=5, n_rot=8, n_experts=5, intermediate_size=64, shared_size=96
    ),
    "qwen3next": TinyConfig(
        arch="qwen3next", n_layers=5, n_rot=8, n_experts=4, intermediate_size=64, shared_size=32
    ),
    "smollm3": TinyConfig(arch="smollm3", n_layers=4, tied=True),
    "granite": TinyConfig(arch="granite"),
    "granitemoe": TinyConfig(arch="granitemoe", n_experts=5, shared_size=32),
    "gemma2": TinyConfig(arch="gemma2", tied=True, window=24),
    "gemma3": TinyConfig(arch="gemma3", tied=True, window=24),
    "olmo2": TinyConfig(arch="olmo2", window=24),
    "olmoe": TinyConfig(arch="olmoe", n_experts=4),
    "phi3": TinyConfig(arch="phi3", n_rot=12, window=40),
    "gpt-oss": TinyConfig(arch="gpt-oss", n_experts=5, window=24),
    "gptneox": TinyConfig(arch="gptneox", n_kv_heads=4, n_rot=8),
}

# ---------------------------------------------------------------- random models


def metadata(config: TinyConfig) -> Metadata:
    """Hyper-parameters as GGUF keys; without a tokenizer."""
    arch = config.arch
    epsilon = "layer_norm_epsilon" if config.is_neox else "layer_norm_rms_epsilon"
    keys: Metadata = {
        "general.architecture": arch,
        "general.name": "tiny",
        f"{arch}.block_count": config.n_layers,
        f"{arch}.context_length": config.context_length,
        f"{arch}.embedding_length": config.hidden_size,
        f"{arch}.feed_forward_length": config.intermediate_size,
        f"{arch}.attention.head_count": config.n_heads,
        f"{arch}.attention.head_count_kv": config.n_kv_heads,
        f"{arch}.attention.key_length": config.head_dim,
        f"{arch}.attention.value_length": config.head_dim,
        f"{arch}.attention.{epsilon}": config.norm_epsilon,
        f"{arch}.rope.freq_base": config.rope_theta,
        f"{arch}.rope.dimension_count": config.n_rot or config.head_dim,
    }
    if config.is_neox:
        keys["gptneox.use_parallel_residual"] = config.parallel_residual
    if config.n_experts:
        keys[f"{arch}.expert_count"] = config.n_experts
        keys[f"{arch}.expert_used_count"] = config.n_experts_used
    if config.shared_size:
        keys[f"{arch}.expert_shared_feed_forward_length"] = config.shared_size
    if config.window:
        keys[f"{arch}.attention.sliding_window"] = config.window
        keys[f"{arch}.attention.sliding_window_pattern"] = 2
    if arch == "gemma3":
        keys["gemma3.rope.freq_base"] = 1e6
    if arch == "gemma2":  # small, so that they bite
        keys |= {"gemma2.attn_logit_softcapping": 2.0, "gemma2.final_logit_softcapping": 4.0}
    if arch == "phi3":
        keys |= {
            "phi3.rope.scaling.original_context_length": 64,
            "phi3.rope.scaling.attn_factor": 1.2,
        }
    if arch.startswith("granite"):
        scales = {"embedding_scale": 6.0, "residual_scale": 0.3, "logit_scale": 3.0}
        keys |= {f"{arch}.{name}": value for name, value in scales.items()}
        keys[f"{arch}.attention.scale"] = 0.11
    if arch == "gpt-oss":
        keys |= tiny_experts.gpt_oss_keys()
    if arch in tiny_hybrid.ARCHS:
        keys |= tiny_hybrid.sizes(arch, config.recurrent_dim)
    return keys


def random_tensors(config: TinyConfig, seed: int = 0) -> Tensors:
    """F32 weights, scaled so that activations stay near 1."""
    if config.arch in tiny_hybrid.ARCHS:
        return tiny_hybrid.random_tensors(config, seed)
    rng = np.random.default_rng(seed)
    tensors: Tensors = {}

    def matrix(name: str, n_out: int, n_in: int) -> None:
        scale = 1.0 / np.sqrt(n_in)
        tensors[f"{name}.weight"] = (rng.standard_normal((n_out, n_in)) * scale).astype(np.float32)

    def vector(name: str, n: int, mean: float) -> None:
        tensors[name] = (mean + 0.2 * rng.standard_normal(n)).astype(np.float32)

    def norm(name: str) -> None:
        vector(f"{name}.weight", config.hidden_size, 1.0)
        if config.is_neox:
            vector(f"{name}.bias", config.hidden_size, 0.0)

    hidden = config.hidden_size
    q_size = config.n_heads * config.head_dim
    kv_size = config.n_kv_heads * config.head_dim
    qkv_bias = config.qkv_bias or config.arch in ("qwen2", "gptneox", "gpt-oss")
    spread = 0.15 if config.arch.startswith("gemma") else 1.0  # it is scaled up
    tensors["token_embd.weight"] = (
        spread * rng.standard_normal((config.vocab_size, hidden))
    ).astype(np.float32)
    for layer in range(config.n_layers):
        block = f"blk.{layer}"
        if config.arch != "olmo2":
            norm(f"{block}.attn_norm")
        if config.fused_qkv or config.is_neox or config.arch == "phi3":
            parts = [("attn_qkv", q_size + 2 * kv_size)]
        else:
            parts = [("attn_q", q_size), ("attn_k", kv_size), ("attn_v", kv_size)]
        for part, n_out in parts:
            matrix(f"{block}.{part}", n_out, hidden)
            if qkv_bias:
                vector(f"{block}.{part}.bias", n_out, 0.0)
        if config.arch in ("qwen3", "qwen3moe", "gemma3"):
            vector(f"{block}.attn_q_norm.weight", config.head_dim, 1.0)
            vector(f"{block}.attn_k_norm.weight", config.head_dim, 1.0)
        if config.arch in ("olmo2", "olmoe"):
            vector(f"{block}.attn_q_norm.weight", q_size, 1.0)
            vector(f"{block}.attn_k_norm.weight", kv_size, 1.0)
        matrix(f"{block}.attn_output", hidden, q_size)
        if config.arch != "olmo2":
            norm(f"{block}.ffn_norm")
        if config.n_experts:
            tensors |= tiny_experts.mixture(block, config, rng)
        else:
            fused = config.arch == "phi3"
            if not config.is_neox and not fused:
                matrix(f"{block}.ffn_gate", config.intermediate_size, hidden)
            matrix(f"{block}.ffn_up", config.intermediate_size * (2 if fused else 1), hidden)
            matrix(f"{block}.ffn_down", hidden, config.intermediate_size)
        if config.arch in ("gemma2", "gemma3", "olmo2"):
            norm(f"{block}.post_attention_norm")
            norm(f"{block}.post_ffw_norm")
        if config.is_neox:
            vector(f"{block}.attn_output.bias", hidden, 0.0)
            vector(f"{block}.ffn_up.bias", config.intermediate_size, 0.0)
            vector(f"{block}.ffn_down.bias", hidden, 0.0)
    norm("output_norm")
    if config.arch == "gpt-oss":
        tiny_experts.add_gpt_oss(tensors, config, rng)
    if config.arch == "phi3":
        n_pairs = (config.n_rot or config.head_dim) // 2
        for name, largest in (("short", 1.5), ("long", 8.0)):
            factors = rng.uniform(1.0, largest, n_pairs).astype(np.float32)
            tensors[f"rope_factors_{name}.weight"] = factors
    if not config.tied:
        matrix("output", config.vocab_size, hidden)
    return tensors


# ---------------------------------------------------------------- tokenizer


def byte_tokenizer(n_tokens: int = 272, *, add_bos: bool = False) -> Metadata:
    """A byte-level BPE vocabulary: 256 bytes, a few merges, `<|endoftext|>` last."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {b: chr(b) for b in printable}
    for n, b in enumerate(b for b in range(256) if b not in alphabet):
        alphabet[b] = chr(256 + n)
    tokens = [alphabet[b] for b in range(256)]
    space = alphabet[32]
    merges = [f"{space} t", "h e", f"{space}t he", "i n", "e r"]
    tokens += [merge.replace(" ", "") for merge in merges]
    if n_tokens < len(tokens) + 1:
        raise ValueError(f"n_tokens should be at least {len(tokens) + 1}")
    types = [1] * len(tokens)
    n_unused = n_tokens - len(tokens) - 1
    tokens += [f"[PAD{i}]" for i in range(n_unused)] + ["<|endoftext|>"]
    types += [5] * n_unused + [3]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": n_tokens - 1,
        "tokenizer.ggml.eos_token_id": n_tokens - 1,
        "tokenizer.ggml.add_bos_token": add_bos,
    }


# ---------------------------------------------------------------- weight formats

# Mean and spread of (d, dmin) that give random blocks of a k-quant weights of mean 0 and spread 1.
_K_MIN_RATIO = {"Q2_K": 1.5, "Q4_K": 7.5, "Q5_K": 15.5}
FORMATS = tuple(weight_formats.FORMATS)


def _random_k_blocks(dtype: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    qtype = gguf.GGMLQuantizationType[dtype]
    n_elements, n_bytes = gguf.GGML_QUANT_SIZES[qtype]
    blocks = rng.integers(0, 256, size=(shape[0], shape[1] // n_elements, n_bytes), dtype=np.uint8)
    d_at, min_at = (*weight_formats.FORMATS[dtype].halves, None)[:2]

    def set_scale(at: int, values: np.ndarray) -> None:
        weight_formats.set_halves(blocks, at, values.astype(np.float16))

    d = rng.uniform(0.5, 1.5, size=blocks.shape[:2])
    factor = 1.0
    for _ in range(2):  # measure the spread with d near 1, then scale it
        set_scale(d_at, d * factor)
        if min_at is not None:
            set_scale(min_at, d * factor * _K_MIN_RATIO[dtype])
        values = gguf.quants.dequantize(blocks.reshape(shape[0], -1), qtype)
        factor *= 1.0 / (np.sqrt(shape[1]) * float(values.std()))
    return blocks.reshape(shape[0], -1)


def pack(values: np.ndarray, dtype: str, rng: np.random.Generator) -> RawTensor:
    """Rows in a weight format; those that the package cannot make are random."""
    if dtype.endswith("K") or dtype.startswith("IQ"):
        return RawTensor(_random_k_blocks(dtype, (values.shape[0], values.shape[1]), rng), dtype)
    qtype = gguf.GGMLQuantizationType[dtype]
    packed = gguf.quants.quantize(values, qtype)
    return RawTensor(np.ascontiguousarray(packed).view(np.uint8), dtype)


def unpack(tensor: np.ndarray | RawTensor) -> np.ndarray:
    if not isinstance(tensor, RawTensor):
        return tensor
    qtype = gguf.GGMLQuantizationType[tensor.dtype]
    plain = {"F32": np.float32, "F16": np.float16}.get(tensor.dtype)
    data = tensor.data.view(plain) if plain else tensor.data
    return gguf.quants.dequantize(data, qtype).astype(np.float32)


def _pack_stack(values: np.ndarray, dtype: str, rng: np.random.Generator) -> RawTensor:
    packed = [pack(matrix, dtype, rng) for matrix in values]
    return RawTensor(np.stack([p.data for p in packed]), dtype)


def quantise(tensors: Tensors, dtype: str, seed: int = 0) -> Tensors:
    """All matrices in one format; norms, biases and routers stay F32."""
    rng = np.random.default_rng(seed)
    out: Tensors = {}
    for name, t in tensors.items():
        out[name] = t
        plain = name.endswith(("ffn_gate_inp.weight", "ssm_conv1d.weight"))
        if isinstance(t, RawTensor) or t.ndim < 2 or plain:
            continue
        out[name] = pack(t, dtype, rng) if t.ndim == 2 else _pack_stack(t, dtype, rng)
    return out


def dequantise(tensors: Tensors) -> Tensors:
    return {name: unpack(t) for name, t in tensors.items()}


# ---------------------------------------------------------------- writing


def _add_key(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    types = gguf.GGUFValueType
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        if value < 0:
            writer.add_int32(key, value)
        elif value < 2**32:
            writer.add_uint32(key, value)
        else:
            writer.add_uint64(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    elif isinstance(value, Sequence) and value and isinstance(value[0], int):
        writer.add_key_value(key, list(value), types.ARRAY, sub_type=types.INT32)
    else:
        writer.add_array(key, value)


def write_gguf(path: pathlib.Path, keys: Mapping[str, Any], tensors: Tensors) -> pathlib.Path:
    """Writes the file; values of `keys` choose their GGUF type by their Python type."""
    keys = dict(keys)
    writer = gguf.GGUFWriter(path, keys.pop("general.architecture"))
    for key, value in keys.items():
        _add_key(writer, key, value)
    for name, tensor in tensors.items():
        if isinstance(tensor, RawTensor):
            qtype = gguf.GGMLQuantizationType[tensor.dtype]
            plain = {"F32": np.float32, "F16": np.float16}.get(tensor.dtype)
            data = tensor.data.view(plain) if plain else tensor.data
            writer.add_tensor(name, data, raw_dtype=qtype)
        else:
            writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_tiny(
    path: pathlib.Path,
    config: TinyConfig | None = None,
    *,
    dtype: str = "F32",
    seed: int = 0,
    tokenizer: bool = True,
    extra: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """A random model in one call."""
    config = config or TinyConfig()
    keys = metadata(config)
    if tokenizer:
        keys |= byte_tokenizer(config.vocab_size)
    keys |= dict(extra or {})
    tensors = random_tensors(config, seed)
    return write_gguf(path, keys, tensors if dtype == "F32" else quantise(tensors, dtype, seed))


# ---------------------------------------------------------------- from transformers


def _permute(rows: np.ndarray, n_heads: int) -> np.ndarray:
    """Half-split rope rows to the neighbouring pairs in which llama files store q and k."""
    per_head = rows.shape[0] // n_heads
    split = rows.reshape(n_heads, 2, per_head // 2, *rows.shape[1:])
    return split.swapaxes(1, 2).reshape(rows.shape)


def _numpy_state(model: Any) -> dict[str, np.ndarray]:
    return {name: t.detach().float().numpy() for name, t in model.state_dict().items()}


def _rope_keys(arch: str, hf: Any, original_context: int | None) -> Metadata:
    rope = dict(getattr(hf, "rope_parameters", None) or getattr(hf, "rope_scaling", None) or {})
    rope = rope.get("full_attention", rope)
    theta = rope.get("rope_theta", getattr(hf, "rope_theta", 10000.0))
    keys: Metadata = {f"{arch}.rope.freq_base": float(theta)}
    kind = rope.get("rope_type", "default")
    if kind in ("linear", "yarn"):
        keys[f"{arch}.rope.scaling.type"] = kind
        keys[f"{arch}.rope.scaling.factor"] = float(rope["factor"])
    if kind == "yarn":
        context = rope.get("original_max_position_embeddings", original_context)
        keys[f"{arch}.rope.scaling.original_context_length"] = int(context)
        truncates = rope.get("truncate", True)
        if truncates != (arch != "gpt-oss"):
            keys[f"{arch}.rope.scaling.yarn_truncate"] = truncates
    return keys


def _llama3_divisors(hf: Any, head_dim: int) -> np.ndarray | None:
    """rope_freqs.weight as converters write it."""
    rope = dict(getattr(hf, "rope_parameters", None) or getattr(hf, "rope_scaling", None) or {})
    if rope.get("rope_type") != "llama3":
        return None
    theta = rope.get("rope_theta", getattr(hf, "rope_theta", 10000.0))
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    divisors = []
    for i in range(head_dim // 2):
        wavelength = 2 * np.pi * theta ** (2 * i / head_dim)
        if wavelength < context / high:
            divisors.append(1.0)
        elif wavelength > context / low:
            divisors.append(float(rope["factor"]))
        else:
            smooth = (context / wavelength - low) / (high - low)
            divisors.append(1.0 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def _split_experts(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """In memory transformers has gate and up of all experts in one tensor."""
    out = {}
    for name, values in state.items():
        if name.endswith("experts.gate_up_proj"):
            for part, half in zip(("gate", "up"), np.split(values, 2, axis=1), strict=True):
                out[name.replace("gate_up_proj", f"{part}_proj.weight")] = half
        else:
            out[name + ".weight" if name.endswith("experts.down_proj") else name] = values
    return out


def _intermediate_size(hf: Any, arch: str) -> int:
    hybrid = arch in tiny_hybrid.ARCHS and arch != "qwen35"
    return int(hf.moe_intermediate_size if hybrid else hf.intermediate_size)


def _shared_size(hf: Any) -> int:
    names = ("shared_expert_intermediate_size", "shared_intermediate_size")
    return next((getattr(hf, name) for name in names if hasattr(hf, name)), 0)


def _llama_like(model: Any, arch: str) -> tuple[Metadata, Tensors]:
    hf = model.config
    state = _numpy_state(model)
    head_dim = getattr(hf, "head_dim", None) or hf.hidden_size // hf.num_attention_heads
    config = TinyConfig(
        arch=arch,
        n_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        n_heads=hf.num_attention_heads,
        n_kv_heads=hf.num_key_value_heads,
        head_dim=head_dim,
        intermediate_size=_intermediate_size(hf, arch),
        context_length=hf.max_position_embeddings,
        norm_epsilon=hf.rms_norm_eps,
        shared_size=_shared_size(hf),
        n_experts=getattr(hf, "num_experts", 0) or getattr(hf, "num_local_experts", 0),
        n_experts_used=getattr(hf, "num_experts_per_tok", 0),
    )
    tensors: Tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if arch in tiny_hybrid.ARCHS:
        return tiny_hybrid.from_transformers(arch, hf, state, metadata(config))
    if not hf.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    divisors = _llama3_divisors(hf, head_dim)
    if divisors is not None:
        tensors["rope_freqs.weight"] = divisors
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.q_norm": "attn_q_norm",
        "self_attn.k_norm": "attn_k_norm",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    if arch in ("gemma2", "gemma3"):
        names |= {
            "post_attention_layernorm": "post_attention_norm",
            "pre_feedforward_layernorm": "ffn_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    if arch == "olmo2":
        names |= {
            "post_attention_layernorm": "post_attention_norm",
            "post_feedforward_layernorm": "post_ffw_norm",
        }
    if arch in ("gemma2", "gemma3"):
        state = {k: v + 1 if k.endswith("norm.weight") else v for k, v in state.items()}
        tensors["output_norm.weight"] = state["model.norm.weight"]
    interleaved = arch in ("llama", "smollm3", "granite", "granitemoe")
    if arch == "gpt-oss":
        state = tiny_experts.gpt_oss_state(state)
        names |= {"self_attn.sinks": "attn_sinks", "mlp.router": "ffn_gate_inp"}
        names["post_attention_layernorm"] = "post_attention_norm"
    if arch == "granitemoe":
        state = tiny_experts.granite_state(state)
        names |= {f"shared_mlp.{part}": f"ffn_{part}_shexp" for part in ("gate", "up", "down")}
    if config.n_experts:
        state = _split_experts(state)
        names |= {"mlp.gate": "ffn_gate_inp"}
        names |= {f"mlp.experts.{part}_proj": f"ffn_{part}_exps" for part in ("gate", "up", "down")}
    permuted = {"attn_q": config.n_heads, "attn_k": config.n_kv_heads} if interleaved else {}
    for layer in range(config.n_layers):
        for source, name in names.items():
            for kind in ("weight", "bias"):
                values = state.get(f"model.layers.{layer}.{source}.{kind}")
                if values is None:
                    continue
                if name in permuted:
                    values = _permute(values, permuted[name])
                tensors[f"blk.{layer}.{name}.{kind}"] = values
    if arch == "gemma3":
        return metadata(config) | _gemma3_keys(hf), tensors
    keys = metadata(config) | _rope_keys(arch, hf, hf.max_position_embeddings)
    if type(hf).__name__ == "MixtralConfig" and hf.sliding_window:
        keys["llama.attention.sliding_window"] = hf.sliding_window
    if config.n_experts and hasattr(hf, "moe_intermediate_size"):
        keys[f"{arch}.expert_feed_forward_length"] = hf.moe_intermediate_size
    if arch == "gpt-oss":
        keys |= tiny_experts.gpt_oss_window(hf)
    if type(hf).__name__ == "Olmo3Config":
        keys["olmo2.attention.sliding_window"] = hf.sliding_window
        keys["olmo2.attention.sliding_window_pattern"] = [
            int(kind == "sliding_attention") for kind in hf.layer_types
        ]
    if arch == "gemma2":
        keys |= {
            "gemma2.attention.sliding_window": hf.sliding_window,
            "gemma2.attn_logit_softcapping": float(hf.attn_logit_softcapping or 0),
            "gemma2.final_logit_softcapping": float(hf.final_logit_softcapping or 0),
        }
    if arch.startswith("granite"):
        keys |= {
            f"{arch}.embedding_scale": float(hf.embedding_multiplier),
            f"{arch}.residual_scale": float(hf.residual_multiplier),
            f"{arch}.logit_scale": float(hf.logits_scaling),
            f"{arch}.attention.scale": float(hf.attention_multiplier),
        }
    return keys, tensors


def _gemma3_keys(hf: Any) -> Metadata:
    full = hf.rope_parameters["full_attention"]
    keys: Metadata = {
        "gemma3.rope.freq_base": float(full["rope_theta"]),
        "gemma3.rope.freq_base_swa": float(hf.rope_parameters["sliding_attention"]["rope_theta"]),
        "gemma3.attention.sliding_window": hf.sliding_window,
        "gemma3.attention.sliding_window_pattern": [
            int(kind == "sliding_attention") for kind in hf.layer_types
        ],
    }
    if hf.final_logit_softcapping is not None:
        keys["gemma3.final_logit_softcapping"] = float(hf.final_logit_softcapping)
    if full["rope_type"] == "linear":
        keys["gemma3.rope.scaling.type"] = "linear"
        keys["gemma3.rope.scaling.factor"] = float(full["factor"])
    return keys


def _phi3(model: Any) -> tuple[Metadata, Tensors]:
    hf = model.config
    state = _numpy_state(model)
    rope = hf.rope_parameters
    head_dim = hf.hidden_size // hf.num_attention_heads
    config = TinyConfig(
        arch="phi3",
        n_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        n_heads=hf.num_attention_heads,
        n_kv_heads=hf.num_key_value_heads,
        head_dim=head_dim,
        intermediate_size=hf.intermediate_size,
        context_length=hf.max_position_embeddings,
        n_rot=int(head_dim * rope["partial_rotary_factor"]),
        norm_epsilon=hf.rms_norm_eps,
    )
    tensors: Tensors = {
        "token_embd.weight": state["model.embed_tokens.weight"],
        "output_norm.weight": state["model.norm.weight"],
    }
    if not hf.tie_word_embeddings:
        tensors["output.weight"] = state["lm_head.weight"]
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.qkv_proj": "attn_qkv",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for layer in range(config.n_layers):
        for source, name in names.items():
            values = state[f"model.layers.{layer}.{source}.weight"]
            tensors[f"blk.{layer}.{name}.weight"] = values
    keys = metadata(config) | _rope_keys("phi3", hf, None)
    del keys["phi3.rope.scaling.attn_factor"]
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        factor = rope.get("factor") or hf.max_position_embeddings / original
        usual = np.sqrt(1 + np.log(factor) / np.log(original))
        keys["phi3.rope.scaling.original_context_length"] = original
        keys["phi3.rope.scaling.attn_factor"] = float(rope.get("attention_factor") or usual)
        for name in ("short", "long"):
            factors = np.array(rope[f"{name}_factor"], np.float32)
            tensors[f"rope_factors_{name}.weight"] = factors
    keys["phi3.attention.sliding_window"] = hf.sliding_window or 0
    return keys, tensors


def _neox(model: Any) -> tuple[Metadata, Tensors]:
    hf = model.config
    state = _numpy_state(model)
    head_dim = hf.hidden_size // hf.num_attention_heads
    rope = dict(getattr(hf, "rope_parameters", None) or {})
    rotary = rope.get("partial_rotary_factor", getattr(hf, "rotary_pct", 1.0))
    config = TinyConfig(
        arch="gptneox",
        n_layers=hf.num_hidden_layers,
        hidden_size=hf.hidden_size,
        n_heads=hf.num_attention_heads,
        n_kv_heads=hf.num_attention_heads,
        head_dim=head_dim,
        intermediate_size=hf.intermediate_size,
        context_length=hf.max_position_embeddings,
        n_rot=int(head_dim * rotary),
        norm_epsilon=hf.layer_norm_eps,
        parallel_residual=hf.use_parallel_residual,
    )
    tensors: Tensors = {
        "token_embd.weight": state["gpt_neox.embed_in.weight"],
        "output_norm.weight": state["gpt_neox.final_layer_norm.weight"],
        "output_norm.bias": state["gpt_neox.final_layer_norm.bias"],
    }
    if not hf.tie_word_embeddings:
        head = model.get_output_embeddings().weight  # embed_out or lm_head, by version
        tensors["output.weight"] = head.detach().float().numpy()
    names = {
        "input_layernorm": "attn_norm",
        "attention.query_key_value": "attn_qkv",
        "attention.dense": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.dense_h_to_4h": "ffn_up",
        "mlp.dense_4h_to_h": "ffn_down",
    }
    for layer in range(config.n_layers):
        for source, name in names.items():
            for kind in ("weight", "bias"):
                values = state[f"gpt_neox.layers.{layer}.{source}.{kind}"]
                if name == "attn_qkv":  # per head [q; k; v] to [Q; K; V]
                    heads = values.reshape(config.n_heads, 3, head_dim, *values.shape[1:])
                    values = np.concatenate(
                        [heads[:, i].reshape(-1, *values.shape[1:]) for i in range(3)]
                    )
                tensors[f"blk.{layer}.{name}.{kind}"] = values
    return metadata(config) | _rope_keys("gptneox", hf, None), tensors


def from_transformers(model: Any) -> tuple[Metadata, Tensors]:
    """Metadata and tensors of a causal model of transformers."""
    kind = type(model).__name__
    if kind == "LlamaForCausalLM":
        return _llama_like(model, "llama")
    if kind == "MixtralForCausalLM":
        return _llama_like(model, "llama")
    if kind == "Qwen2ForCausalLM":
        return _llama_like(model, "qwen2")
    if kind == "Qwen3ForCausalLM":
        return _llama_like(model, "qwen3")
    others = {"Qwen3_5": "qwen35", "Qwen3_5Moe": "qwen35moe", "Qwen3Next": "qwen3next"}
    others |= {"Qwen3Moe": "qwen3moe", "GptOss": "gpt-oss", "Olmo3": "olmo2"}
    others["GraniteMoeShared"] = "granitemoe"
    if kind.removesuffix("ForCausalLM") in others:
        return _llama_like(model, others[kind.removesuffix("ForCausalLM")])
    for name in ("SmolLM3", "Granite", "GraniteMoe", "Gemma2", "Gemma3", "Olmo2", "Olmoe"):
        if kind == f"{name}ForCausalLM":
            return _llama_like(model, name.lower())
    if kind == "Phi3ForCausalLM":
        return _phi3(model)
    if kind == "GPTNeoXForCausalLM":
        return _neox(model)
    raise ValueError(f"no conversion for {kind}")
