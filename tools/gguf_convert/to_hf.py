"""The way back: a GGUF file as a Hugging Face checkpoint with plain weights.

The lists of tensors are those of the converter, read from right to left.
"""

from __future__ import annotations

import json
import os
import pathlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from .architectures import Expected, read_model
from .element_types import encode_rows, tensor_bytes
from .errors import ConvertError, short
from .hf_config import Config
from .progress import Progress
from .rope import llama3_divisors
from .tensors import Rows, Target, row_length
from .to_hf_tokenizer import tokenizer_files

SAFETENSORS_TYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}


@dataclass
class GgufSource:
    """A tensor of a GGUF file; rows are dequantised as they are read."""

    name: str
    tensor: Any  # gguf.ReaderTensor
    dtype: str = "F32"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(size) for size in reversed(self.tensor.shape))

    def read(self, first: int, count: int) -> Rows:
        import gguf

        rows = self.tensor.data[first : first + count]
        values = gguf.quants.dequantize(np.ascontiguousarray(rows), self.tensor.tensor_type)
        return values.astype(np.float32).reshape(count, row_length(self.shape))


def read_keys(reader: Any) -> dict[str, Any]:
    return {key: field.contents() for key, field in reader.fields.items() if "." in key}


class _Keys:
    def __init__(self, keys: dict[str, Any], path: pathlib.Path) -> None:
        self.values, self.path = keys, path
        self.arch = str(keys.get("general.architecture"))

    def need(self, suffix: str) -> Any:
        return self.get(suffix, required=True)

    def get(self, suffix: str, default: Any = None, *, required: bool = False) -> Any:
        key = f"{self.arch}.{suffix}"
        if key not in self.values and required:
            raise ConvertError(f"{self.path}: key '{key}' is missing")
        return self.values.get(key, default)


def _rope_scaling(keys: _Keys, divisors: np.ndarray | None, head_dim: int) -> Any:
    theta = float(keys.get("rope.freq_base", 10000.0))
    if divisors is not None:
        # The file has only the result; try the parameters of the published models.
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
    kind = keys.get("rope.scaling.type", "none")
    factor = float(keys.get("rope.scaling.factor", 1.0))
    if kind == "none" or (kind == "linear" and factor == 1.0):
        return None
    if kind not in ("linear", "yarn"):
        raise ConvertError(f"{keys.path}: rope scaling '{short(kind)}' is not supported")
    found = {"rope_type": kind, "factor": factor}
    if kind == "yarn":
        context = keys.get("rope.scaling.original_context_length", keys.need("context_length"))
        found["original_max_position_embeddings"] = int(context)
    return found


def make_config(all_keys: dict[str, Any], tensors: dict[str, Any], path: pathlib.Path) -> dict:
    """config.json of a GGUF file."""
    keys = _Keys(all_keys, path)
    arch = keys.arch
    if arch not in ("llama", "qwen2", "gptneox"):
        raise ConvertError(f"{path}: architecture '{short(arch)}' is not supported")
    if "token_embd.weight" not in tensors:
        raise ConvertError(f"{path}: tensor 'token_embd.weight' is missing")
    hidden, n_heads = int(keys.need("embedding_length")), int(keys.need("attention.head_count"))
    head_dim = int(keys.get("attention.key_length", hidden // n_heads))
    config: dict[str, Any] = {
        "hidden_size": hidden,
        "num_hidden_layers": int(keys.need("block_count")),
        "num_attention_heads": n_heads,
        "intermediate_size": int(keys.need("feed_forward_length")),
        "max_position_embeddings": int(keys.need("context_length")),
        "vocab_size": int(tensors["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "rope_theta": float(keys.get("rope.freq_base", 10000.0)),
    }
    for name in ("bos", "eos"):
        token = all_keys.get(f"tokenizer.ggml.{name}_token_id")
        config[f"{name}_token_id"] = None if token is None else int(token)
    if arch == "gptneox":
        n_rot = int(keys.get("rope.dimension_count", head_dim))
        return config | {
            "architectures": ["GPTNeoXForCausalLM"],
            "model_type": "gpt_neox",
            "hidden_act": "gelu",
            "rotary_emb_base": config.pop("rope_theta"),
            "rotary_pct": n_rot / head_dim,
            "layer_norm_eps": float(keys.need("attention.layer_norm_epsilon")),
            "use_parallel_residual": bool(keys.get("use_parallel_residual", True)),
        }
    divisors = tensors.get("rope_freqs.weight")
    values = None if divisors is None else np.array(divisors.data, np.float32)
    config |= {
        "num_key_value_heads": int(keys.get("attention.head_count_kv", n_heads)),
        "head_dim": head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": float(keys.need("attention.layer_norm_rms_epsilon")),
        "rope_scaling": _rope_scaling(keys, values, head_dim),
    }
    if arch == "llama":
        bias = "blk.0.attn_q.bias" in tensors
        names = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
        return config | names | {"attention_bias": bias}
    if config["rope_scaling"] is None:
        del config["rope_scaling"]
    return config | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def _targets(expected: list[Expected], tensors: dict[str, Any], path: pathlib.Path, dtype: str):
    left = dict(tensors)
    left.pop("rope_freqs.weight", None)
    for entry in expected:
        tensor = left.pop(entry.target, None)
        if tensor is None:
            raise ConvertError(f"{path}: tensor '{entry.target}' is missing")
        source = GgufSource(entry.target, tensor)
        if source.shape != entry.shape:
            raise ConvertError(
                f"{path}: tensor '{entry.target}' should have the shape {list(entry.shape)}, found "
                f"{list(source.shape)}"
            )
        order = None if entry.row_order is None else np.argsort(entry.row_order)
        # Vectors stay F32, as in the GGUF file.
        kind = dtype if len(entry.shape) == 2 else "F32"
        yield Target(entry.sources[0], source, order, kind)
    if left:
        raise ConvertError(f"{path}: unknown tensors: {short(', '.join(sorted(left)), 300)}")


def write_safetensors(path: pathlib.Path, targets: list[Target], *, progress: bool) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for target in targets:
        size = tensor_bytes(target)
        header[target.name] = {
            "dtype": SAFETENSORS_TYPES[target.dtype],
            "shape": list(target.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw = raw.ljust((len(raw) + 7) // 8 * 8)
    shown = Progress(at, enabled=progress)
    with path.open("wb", buffering=1 << 20) as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for target in targets:
            for rows in target.blocks():
                block = encode_rows(rows, target.dtype, target.source.name)
                file.write(block)
                shown.add(len(block), target.name)
    shown.finish()


def gguf_to_hf(
    path: str | pathlib.Path,
    out_dir: str | pathlib.Path,
    *,
    dtype: str = "F32",
    progress: bool = False,
) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files into `out_dir`."""
    import gguf

    path, out_dir = pathlib.Path(path), pathlib.Path(out_dir)
    try:
        reader = gguf.GGUFReader(path)
        keys = read_keys(reader)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ConvertError(f"{path}: not a readable GGUF file: {short(error)}") from None
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = make_config(keys, tensors, path)
    config["torch_dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    model = read_model(Config(dict(config), path))
    expected = list(model.expected)
    if not config["tie_word_embeddings"]:
        expected.append(Expected("output.weight", model.heads, expected[0].shape))
    targets = list(_targets(expected, tensors, path, dtype))
    files = tokenizer_files(keys, path, config["max_position_embeddings"])
    files["config.json"] = json.dumps(config, indent=2).encode() + b"\n"
    out_dir.mkdir(parents=True, exist_ok=True)
    temporary = out_dir / f"model.safetensors.{os.getpid()}.partial"
    try:
        write_safetensors(temporary, targets, progress=progress)
        for name, content in files.items():
            (out_dir / name).write_bytes(content)
        temporary.replace(out_dir / "model.safetensors")
    finally:
        temporary.unlink(missing_ok=True)
