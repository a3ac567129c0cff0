"""Reads what drafts and heads take over from their target's GGUF file, and writes them."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import gguf
import numpy as np
import torch

from draft_net import Draft
from gguf_convert.atomic_file import complete_or_nothing
from gguf_convert.errors import ConvertError
from training_safety import NotSaved

# So many of the first ids, and those of the text, are drafted unless the user says otherwise.
HEAD_TOKENS_KEY = "specdec.draft.head_tokens"


class Target:
    """The parts of a target's file that its draft or head needs.

    Attributes:
        embedding: float32 [n_rows, hidden_size], the output head where the file has one.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.reader = gguf.GGUFReader(path)
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}

    @functools.cached_property
    def embedding(self) -> torch.Tensor:
        name = "output.weight"
        return self.tensor(name if name in self.tensors else "token_embd.weight")

    def tensor(self, name: str) -> torch.Tensor:
        """As float32, rows first."""
        tensor = self.tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))

    def of_arch(self, key: str, default: Any = None) -> Any:
        """A key below the architecture's name; of an array over layers the last one."""
        value = self.value(f"{self.value('general.architecture')}.{key}", default)
        return value[-1] if isinstance(value, list) and value else value

    def value(self, key: str, default: Any = None) -> Any:
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    @property
    def context_length(self) -> int:
        return int(self.of_arch("context_length", 2048))

    def copy_tokenizer(self, writer: gguf.GGUFWriter) -> None:
        for key, field in self.reader.fields.items():
            if not key.startswith("tokenizer."):
                continue
            types = list(field.types)
            sub_type = types[1] if types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), types[0], sub_type=sub_type)


def write_draft(
    draft: Draft, target: Target, path: pathlib.Path, outtype: str, name: str, head_tokens: int = 0
) -> None:
    """To a temporary file first: the path never holds half a file."""
    shape = draft.shape
    keys = {
        "llama.context_length": target.context_length,
        "llama.embedding_length": shape.hidden_size,
        "llama.block_count": shape.n_layers,
        "llama.feed_forward_length": shape.intermediate_size,
        "llama.attention.head_count": shape.n_heads,
        "llama.attention.head_count_kv": shape.n_heads,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.rope.freq_base": shape.rope_theta,
        "llama.attention.layer_norm_rms_epsilon": shape.epsilon,
        "llama.vocab_size": shape.vocab_size,
    }
    if head_tokens > 0:
        keys[HEAD_TOKENS_KEY] = head_tokens
    tensors = {"token_embd.weight": draft.embedding}
    for i, block in enumerate(draft.blocks):
        for part, tensor in block.named_parameters():
            tensors[f"blk.{i}.{part}"] = tensor
    tensors["output_norm.weight"] = draft.output_norm.weight
    write_model(path, "llama", name, target, keys, tensors, {"": outtype})


def write_model(
    path: pathlib.Path,
    arch: str,
    name: str,
    target: Target,
    keys: Mapping[str, Any],
    tensors: Mapping[str, torch.Tensor],
    outtypes: Mapping[str, str],
) -> None:
    """With the target's tokenizer, to a temporary file first.

    Args:
        keys: int, float, bool, or a list of int.
        outtypes: of matrices whose names begin so; the last that fits counts.
    """
    try:
        with complete_or_nothing(path) as temporary:
            writer = gguf.GGUFWriter(temporary, arch)
            _add_keys(writer, name, target, keys)
            for tensor_name, tensor in tensors.items():
                fitting = [t for begin, t in outtypes.items() if tensor_name.startswith(begin)]
                _add_tensor(writer, tensor_name, tensor, fitting[-1])
            try:
                _write(writer)
            finally:
                writer.close()
    except ConvertError as error:
        raise NotSaved(str(error)) from None
    except OSError as error:
        raise NotSaved(f"{path}: cannot be written: {error.strerror}") from None


def _write(writer: gguf.GGUFWriter) -> None:
    """Not by the writer's own `tofile` of NumPy, which says nothing when the disk is full while its
    buffer is written out: the file would be cut off."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    (file,) = writer.fout
    writer.write_padding(file, file.tell())
    for info in writer.tensors[0].values():
        file.write(info.tensor.tobytes())
        writer.write_padding(file, info.nbytes)


def _add_keys(writer: gguf.GGUFWriter, name: str, target: Target, keys: Mapping[str, Any]) -> None:
    writer.add_name(name)
    writer.add_description(
        f"Draft for speculative decoding with {target.value('general.name', '')}"
    )
    licence = target.value("general.license")
    if licence:
        writer.add_license(licence)
    for key, value in keys.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        else:
            writer.add_array(key, value)
    target.copy_tokenizer(writer)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tensor(writer: gguf.GGUFWriter, name: str, tensor: torch.Tensor, outtype: str) -> None:
    if tensor.dtype == torch.int64:
        writer.add_tensor(name, tensor.numpy())
        return
    data = tensor.detach().float().cpu().contiguous().numpy()
    if data.ndim == 1 or outtype == "f32":
        writer.add_tensor(name, data)
        return
    kind = gguf.GGMLQuantizationType[outtype.upper()]
    block = gguf.GGML_QUANT_SIZES[kind][0]
    chosen = kind if data.shape[1] % block == 0 else gguf.GGMLQuantizationType.F16
    writer.add_tensor(name, gguf.quants.quantize(data, chosen), raw_dtype=chosen)
