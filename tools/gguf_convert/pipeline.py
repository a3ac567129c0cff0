"""From a checkpoint folder to a complete GGUF file, a block of rows at a time."""

from __future__ import annotations

import pathlib
import shutil
from dataclasses import dataclass, field
from typing import Any

from . import native
from .architectures import Model, read_model
from .atomic_file import (
    OutputFile,
    complete_or_nothing,
    refuse_special,
    remove_stale,
    temporary_beside,
)
from .checkpoint import Checkpoint
from .checkpoint_tensors import build_targets
from .element_types import (
    ALL_FILE_TYPES,
    FILE_TYPES,
    NATIVE_OUTTYPES,
    OUTTYPES,
    choose_types,
    encode_rows,
    lossless_type,
    tensor_bytes,
)
from .errors import ConvertError
from .gguf_file import file_bytes, header, padding
from .gguf_metadata import restore
from .hf_config import Config
from .progress import Progress
from .qwen35 import text_part
from .stacks import PACKED
from .tensors import Target
from .vocabulary import Vocabulary
from .vocabulary_loader import load_vocabulary


@dataclass
class Plan:
    """All of a file but the weights."""

    outtype: str  # as asked for
    written_type: str  # what this package writes; the native quantiser does the rest
    keys: dict[str, Any]
    targets: list[Target]
    notes: list[str] = field(default_factory=list)

    @property
    def n_bytes(self) -> int:
        return file_bytes(self.keys, self.targets)

    @property
    def is_native(self) -> bool:
        return self.outtype in NATIVE_OUTTYPES


def check_outtype(outtype: str) -> str:
    name = outtype.upper()
    if name not in OUTTYPES:
        known = ", ".join(t.lower() for t in OUTTYPES)
        raise ConvertError(f"unknown --outtype '{outtype}'; known are {known}")
    return name


def make_plan(
    checkpoint: Checkpoint,
    outtype: str,
    *,
    name: str | None = None,
    pre_tokenizer: str | None = None,
    ignored_keys: tuple[str, ...] = (),
) -> Plan:
    config = text_part(Config.load(checkpoint.folder, ignored_keys))
    model = read_model(config)
    targets = build_targets(model, checkpoint.tensors, str(checkpoint.folder))
    vocab = load_vocabulary(checkpoint.folder, config.values, pre=pre_tokenizer)
    vocab.pad_to(model.n_vocab, str(checkpoint.folder))
    written = lossless_type(targets) if outtype in NATIVE_OUTTYPES else outtype
    choose_types(targets, written)
    keys = file_keys(model, vocab, written)
    if any(target.dtype == PACKED for target in targets):
        if outtype in NATIVE_OUTTYPES:
            raise ConvertError(
                f"{checkpoint.folder}: experts are in MXFP4 already and stay so; --outtype "
                f"{outtype.lower()} is made from plain weights only: choose one of "
                + ", ".join(known.lower() for known in FILE_TYPES)
            )
        keys["general.file_type"] = ALL_FILE_TYPES[PACKED]
    keys["general.name"] = name or _default_name(checkpoint.folder, config)
    notes = model.notes + vocab.notes
    keys = restore(checkpoint.folder, keys, notes, named=bool(name))
    return Plan(outtype, written, keys, targets, notes)


def file_keys(model: Model, vocab: Vocabulary, written: str) -> dict[str, Any]:
    """All keys, in order, with an empty name."""
    keys: dict[str, Any] = {
        "general.architecture": model.arch,
        "general.type": "model",
        "general.name": "",
        "general.file_type": FILE_TYPES[written],
        "general.quantization_version": 2,
    }
    return keys | model.keys | vocab.keys()


def _default_name(folder: pathlib.Path, config: Config) -> str:
    said = config.values.get("_name_or_path")
    if isinstance(said, str) and said and not said.startswith((".", "/")):
        return said.rstrip("/").rsplit("/", 1)[-1]
    return folder.resolve().name


def write_file(
    plan: Plan, path: pathlib.Path, *, progress: bool, output: pathlib.Path | None = None
) -> None:
    """Overwrites `path`, which should be a temporary one; messages name `output`."""
    sizes = [tensor_bytes(target) for target in plan.targets]
    shown = Progress(sum(sizes), enabled=progress)
    with OutputFile(path, output or path) as file:
        file.write(header(plan.keys, plan.targets))
        for target, expected in zip(plan.targets, sizes, strict=True):
            n_bytes = 0
            for rows in target.blocks():
                raw = encode_rows(rows, target.dtype, target.source.name)
                file.write(raw)
                n_bytes += len(raw)
                shown.add(len(raw), target.name)
            if n_bytes != expected:
                raise AssertionError(f"{target.name}: {n_bytes} bytes, planned {expected}")
            file.write(padding(n_bytes))
    shown.finish()


def _check_output(output: pathlib.Path, checkpoint: Checkpoint, n_bytes: int) -> None:
    refuse_special(output)
    if not output.parent.is_dir():
        raise ConvertError(f"{output.parent}: no such folder")
    if output.exists() and any(output.samefile(file.path) for file in checkpoint.files):
        raise ConvertError(f"{output}: is a file of the checkpoint")
    remove_stale(output)  # they may take the space that is needed
    free = shutil.disk_usage(output.parent).free
    if n_bytes > free:
        raise ConvertError(f"{output.parent}: {n_bytes} bytes are needed, {free} are free")


def run(plan: Plan, checkpoint: Checkpoint, output: pathlib.Path, *, progress: bool) -> None:
    _check_output(output, checkpoint, plan.n_bytes)
    if not plan.is_native:
        with complete_or_nothing(output) as path:
            write_file(plan, path, progress=progress, output=output)
        return
    if not native.is_available():
        native.quantize(output, output, plan.outtype)  # words the error before an hour of work
    with temporary_beside(output) as plain:
        write_file(plan, plain, progress=progress, output=output)
        with complete_or_nothing(output) as path:
            native.quantize(plain, path, plan.outtype)


def convert(
    checkpoint_dir: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    outtype: str = "f16",
    name: str | None = None,
    pre_tokenizer: str | None = None,
    ignored_keys: tuple[str, ...] = (),
    progress: bool = False,
) -> Plan:
    """Converts a Hugging Face checkpoint folder; raises ConvertError with one clear message."""
    wanted = check_outtype(outtype)
    with Checkpoint(pathlib.Path(checkpoint_dir)) as checkpoint:
        plan = make_plan(
            checkpoint, wanted, name=name, pre_tokenizer=pre_tokenizer, ignored_keys=ignored_keys
        )
        run(plan, checkpoint, pathlib.Path(out), progress=progress)
    return plan
