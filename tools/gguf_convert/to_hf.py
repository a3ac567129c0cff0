"""The way back: a GGUF file as a Hugging Face checkpoint with plain weights.

The lists of tensors are those of the converter, read from right to left.
"""

from __future__ import annotations

import json
import pathlib
import struct
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np

from .architectures import Expected, Model, read_model
from .atomic_file import OutputFile, complete_or_nothing, write_atomically
from .element_types import encode_rows, tensor_bytes
from .errors import ConvertError, short
from .gguf_metadata import FILE_NAME, difference, read_typed
from .hf_config import Config
from .pipeline import file_keys
from .progress import Progress
from .stacks import JoinedRows, JoinedSource, Reshaped
from .tensors import Rows, Target, row_length
from .to_hf_config import make_config
from .to_hf_tokenizer import tokenizer_files
from .vocabulary_loader import load_vocabulary

SAFETENSORS_TYPES = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
WRITTEN = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", FILE_NAME)
FOREIGN = (
    "model.safetensors.index.json pytorch_model*.bin* special_tokens_map.json added_tokens.json "
    "chat_template.jinja additional_chat_templates adapter_config.json"
).split()


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


@dataclass
class ExpertSource(GgufSource):
    """One matrix of a stack."""

    expert: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return super().shape[1:]

    def read(self, first: int, count: int) -> Rows:
        import gguf

        rows = self.tensor.data[self.expert][first : first + count]
        values = gguf.quants.dequantize(np.ascontiguousarray(rows), self.tensor.tensor_type)
        return values.astype(np.float32).reshape(count, row_length(self.shape))


def _targets(expected: list[Expected], tensors: dict[str, Any], path: pathlib.Path, dtype: str):
    left = dict(tensors)
    for name in ("rope_freqs", "rope_factors_short", "rope_factors_long"):
        left.pop(f"{name}.weight", None)
    joined: dict[str, JoinedSource] = {}
    rows: dict[str, JoinedRows] = {}
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
        if entry.stack:
            for expert, name in enumerate(entry.stack):
                part = ExpertSource(entry.target, tensor, expert=expert)
                yield Target(name, part, None, dtype)
            continue
        if entry.piece is not None:
            name = entry.sources[0]
            if name not in joined:
                joined[name] = JoinedSource(name, entry.source_shape or entry.shape)
                yield Target(name, joined[name], None, "F32" if entry.plain else dtype)
            joined[name].pieces.append((entry.piece, source))
            continue
        if entry.has_some_rows:
            name = entry.sources[0]
            if name not in rows:
                rows[name] = JoinedRows(name, entry.source_shape or entry.shape)
                yield Target(name, rows[name], None, dtype)
            rows[name].parts.append((entry.row_order, source))
            continue
        if entry.is_reshaped:
            source = Reshaped(entry.target, source, entry.source_shape or entry.shape)
        # Vectors stay F32, as in the GGUF file.
        kind = dtype if len(entry.shape) == 2 and not entry.plain else "F32"
        columns = None if entry.column_order is None else np.argsort(entry.column_order)
        yield Target(
            entry.sources[0],
            source,
            order,
            kind,
            -entry.plus,
            columns,
            entry.change and entry.change.back,
            entry.source_shape,
        )
    if left:
        raise ConvertError(f"{path}: unknown tensors: {short(', '.join(sorted(left)), 300)}")


def write_safetensors(
    path: pathlib.Path, final: pathlib.Path, targets: list[Target], *, progress: bool
) -> None:
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
    with OutputFile(path, final) as file:
        file.write(struct.pack("<Q", len(raw)) + raw)
        for target in targets:
            for rows in target.blocks():
                block = encode_rows(rows, target.dtype, target.source.name)
                file.write(block)
                shown.add(len(block), target.name)
    shown.finish()


def _derived_keys(files: dict[str, bytes], model: Model) -> dict[str, Any]:
    """What the converter would make of these files; nothing where it refuses them."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for file_name, content in files.items():
            (folder / file_name).write_bytes(content)
        try:
            vocab = load_vocabulary(folder, json.loads(files["config.json"]))
            vocab.pad_to(model.n_vocab, str(folder))
        except ConvertError:
            return {}
        return file_keys(model, vocab, "F32")


def _check_folder(out_dir: pathlib.Path, source: pathlib.Path) -> None:
    """Refuses files of another checkpoint that a reader would take for parts of this one."""
    if out_dir.exists() and not out_dir.is_dir():
        raise ConvertError(f"{out_dir}: is not a folder")
    for pattern in FOREIGN:
        there = sorted(out_dir.glob(pattern))
        if there:
            raise ConvertError(
                f"{out_dir}: holds {there[0].name} of another checkpoint; give an empty folder"
            )
    if source.parent.resolve() == out_dir.resolve() and source.name in WRITTEN:
        raise ConvertError(f"{source}: would be overwritten; give another folder")


def gguf_to_hf(
    path: str | pathlib.Path,
    out_dir: str | pathlib.Path,
    *,
    dtype: str = "F32",
    progress: bool = False,
) -> list[str]:
    """Writes config.json, model.safetensors, the tokenizer's files and gguf_metadata.json into
    `out_dir`; returns notes."""
    import gguf

    path, out_dir = pathlib.Path(path), pathlib.Path(out_dir)
    if not path.is_file():
        raise ConvertError(f"{path}: not a readable GGUF file: no such file")
    try:
        reader = gguf.GGUFReader(path)
        typed, notes = read_typed(reader)
        keys = {key: value.value for key, value in typed.items()}
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise ConvertError(f"{path}: not a readable GGUF file: {short(error)}") from None
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = make_config(keys, tensors, path)
    config["torch_dtype"] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    model = read_model(Config(dict(config), path))
    expected = list(model.expected)
    if keys.get(f"{model.arch}.nextn_predict_layers"):  # else make_config() refuses it
        model.keys |= model.further_keys
        expected += model.further
    if not config["tie_word_embeddings"]:
        expected.append(Expected("output.weight", model.heads, expected[0].shape))
    targets = list(_targets(expected, tensors, path, dtype))
    files = tokenizer_files(keys, path, config["max_position_embeddings"])
    files["config.json"] = json.dumps(config, indent=2).encode() + b"\n"
    files[FILE_NAME] = difference(typed, _derived_keys(files, model))
    _check_folder(out_dir, path)
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConvertError(f"{out_dir}: cannot be made: {error.strerror}") from None
    weights = out_dir / "model.safetensors"
    with complete_or_nothing(weights) as temporary:
        write_safetensors(temporary, weights, targets, progress=progress)
        for name, content in files.items():
            write_atomically(out_dir / name, content)
    return notes
