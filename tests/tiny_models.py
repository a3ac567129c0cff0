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
            kind = tensor.dtype if tensor.dtype == np.int64 else np.float32
            writer.add_tensor(name, np.ascontiguousarray(tensor, dtype=kind))
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
