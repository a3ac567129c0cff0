"""Reads what a draft takes over from its target's GGUF file, and writes drafts."""

from __future__ import annotations

import pathlib
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
    """The parts of a target's file that its draft needs.

    Attributes:
        embedding: float32 [n_rows, hidden_size], the output head where the file has one.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.reader = gguf.GGUFReader(path)
        tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        tensor = tensors.get("output.weight") or tensors["token_embd.weight"]
        rows = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        self.embedding = torch.from_numpy(np.ascontiguousarray(rows, np.float32))

    def value(self, key: str, default: Any = None) -> Any:
        field = self.reader.get_field(key)
        return default if field is None else field.contents()

    @property
    def context_length(self) -> int:
        return int(self.value(f"{self.value('general.architecture')}.context_length", 2048))

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
    try:
        with complete_or_nothing(path) as temporary:
            _write(draft, target, temporary, outtype, name, head_tokens)
    except ConvertError as error:
        raise NotSaved(str(error)) from None
    except OSError as error:
        raise NotSaved(f"{path}: cannot be written: {error.strerror}") from None


def _write(
    draft: Draft, target: Target, temporary: pathlib.Path, outtype: str, name: str, head_tokens: int
) -> None:
    shape = draft.shape
    writer = gguf.GGUFWriter(temporary, "llama")
    writer.add_name(name)
    writer.add_description(
        f"Draft for speculative decoding with {target.value('general.name', '')}"
    )
    licence = target.value("general.license")
    if licence:
        writer.add_license(licence)
    writer.add_context_length(target.context_length)
    writer.add_embedding_length(shape.hidden_size)
    writer.add_block_count(shape.n_layers)
    writer.add_feed_forward_length(shape.intermediate_size)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_heads)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(shape.rope_theta)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_vocab_size(shape.vocab_size)
    if head_tokens > 0:
        writer.add_uint32(HEAD_TOKENS_KEY, head_tokens)
    target.copy_tokenizer(writer)
    kind = gguf.GGMLQuantizationType[outtype.upper()]
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)

    def add(tensor_name: str, tensor: torch.Tensor) -> None:
        data = tensor.detach().float().contiguous().numpy()
        if data.ndim == 1 or outtype == "f32":
            writer.add_tensor(tensor_name, data)
            return
        block = gguf.GGML_QUANT_SIZES[kind][0]
        chosen = kind if data.shape[1] % block == 0 else gguf.GGMLQuantizationType.F16
        writer.add_tensor(tensor_name, gguf.quants.quantize(data, chosen), raw_dtype=chosen)

    add("token_embd.weight", draft.embedding)
    for i, block in enumerate(draft.blocks):
        for part, tensor in block.named_parameters():
            add(f"blk.{i}.{part}", tensor)
    add("output_norm.weight", draft.output_norm.weight)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
