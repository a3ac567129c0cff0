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
    all_complete_or_nothing,
    complete_or_nothing,
    refuse_special,
    remove_stale,
    temporary_beside,
)
from .checkpoint import Checkpoint
from .checkpoint_tensors import build_targets
from .eagle3 import head_config, head_targets, is_head, read_head, read_target
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
from .parts import Limits, cut, parse_limits, part_keys, part_paths
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
    limits: Limits = field(default_factory=Limits)  # of one part

    @property
    def parts(self) -> list[tuple[dict[str, Any], list[Target]]]:
        """Keys and tensors of each file."""
        found = cut(self.targets, Limits() if self.is_native else self.limits)
        return [
            (part_keys(self.keys, i, len(found), len(self.targets)), targets)
            for i, targets in enumerate(found)
        ]

    @property
    def n_bytes(self) -> int:
        return sum(file_bytes(keys, targets) for keys, targets in self.parts)

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
    target: pathlib.Path | None = None,
) -> Plan:
    """`target`: of an EAGLE-3 head."""
    plain = Config.load(checkpoint.folder, ignored_keys)
    if is_head(plain.values):
        return _plan_of_head(checkpoint, plain, outtype, name, pre_tokenizer, target)
    if target is not None:
        raise ConvertError(f"{checkpoint.folder}: is no EAGLE-3 head: --target is for those only")
    config = text_part(plain)
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


def _plan_of_head(
    checkpoint: Checkpoint,
    plain: Config,
    outtype: str,
    name: str | None,
    pre_tokenizer: str | None,
    target: pathlib.Path | None,
) -> Plan:
    where = str(checkpoint.folder)
    if target is None:
        raise ConvertError(
            f"{where}: is an EAGLE-3 head and has no tokenizer: give its target, a GGUF file or a "
            "checkpoint folder, as --target"
        )
    if outtype in NATIVE_OUTTYPES:
        known = ", ".join(kind.lower() for kind in FILE_TYPES)
        raise ConvertError(f"{where}: an EAGLE-3 head can be written as one of {known}")
    facts = read_target(target, pre_tokenizer)
    config, by_speculators = head_config(plain)
    model = read_head(config, by_speculators, facts)
    targets = head_targets(model, checkpoint.tensors, facts, where)
    choose_types(targets, outtype, keeps_head=False)
    keys = first_keys(model.arch, outtype) | model.keys | facts.tokenizer
    keys["general.name"] = name or _default_name(checkpoint.folder, plain)
    return Plan(outtype, outtype, keys, targets, model.notes)


def first_keys(arch: str, written: str) -> dict[str, Any]:
    """Of every file, with an empty name."""
    return {
        "general.architecture": arch,
        "general.type": "model",
        "general.name": "",
        "general.file_type": FILE_TYPES[written],
        "general.quantization_version": 2,
    }


def file_keys(model: Model, vocab: Vocabulary, written: str) -> dict[str, Any]:
    """All keys, in order, with an empty name."""
    return first_keys(model.arch, written) | model.keys | vocab.keys()


def _default_name(folder: pathlib.Path, config: Config) -> str:
    said = config.values.get("_name_or_path")
    if isinstance(said, str) and said and not said.startswith((".", "/")):
        return said.rstrip("/").rsplit("/", 1)[-1]
    return folder.resolve().name


def write_files(
    plan: Plan, paths: list[pathlib.Path], outputs: list[pathlib.Path], *, progress: bool
) -> None:
    """Overwrites `paths`, which should be temporary ones; messages name `outputs`."""
    shown = Progress(sum(map(tensor_bytes, plan.targets)), enabled=progress)
    for (keys, targets), path, output in zip(plan.parts, paths, outputs, strict=True):
        with OutputFile(path, output) as file:
            file.write(header(keys, targets))
            for target in targets:
                _write_tensor(target, file, shown)
    shown.finish()


def _write_tensor(target: Target, file: OutputFile, shown: Progress) -> None:
    n_bytes = 0
    for rows in target.blocks():
        raw = encode_rows(rows, target.dtype, target.source.name)
        file.write(raw)
        n_bytes += len(raw)
        shown.add(len(raw), target.name)
    expected = tensor_bytes(target)
    if n_bytes != expected:
        raise AssertionError(f"{target.name}: {n_bytes} bytes, planned {expected}")
    file.write(padding(n_bytes))


def _check_output(output: pathlib.Path, checkpoint: Checkpoint) -> None:
    refuse_special(output)
    if not output.parent.is_dir():
        raise ConvertError(f"{output.parent}: no such folder")
    if output.exists() and any(output.samefile(file.path) for file in checkpoint.files):
        raise ConvertError(f"{output}: is a file of the checkpoint")
    remove_stale(output)  # they may take the space that is needed


def run(
    plan: Plan, checkpoint: Checkpoint, output: pathlib.Path, *, progress: bool
) -> list[pathlib.Path]:
    """Writes the model; returns its files."""
    outputs = part_paths(output, len(plan.parts))
    for path in outputs:
        _check_output(path, checkpoint)
    free = shutil.disk_usage(output.parent).free
    if plan.n_bytes > free:
        raise ConvertError(f"{output.parent}: {plan.n_bytes} bytes are needed, {free} are free")
    if not plan.is_native:
        with all_complete_or_nothing(outputs) as paths:
            write_files(plan, paths, outputs, progress=progress)
        return outputs
    if not native.is_available():
        native.quantize(output, output, plan.outtype, plan.limits)  # words the error at once
    with temporary_beside(output) as plain:
        write_files(plan, [plain], [output], progress=progress)
        if plan.limits:
            return native.quantize(plain, output, plan.outtype, plan.limits)
        with complete_or_nothing(output) as path:
            native.quantize(plain, path, plan.outtype, plan.limits)
    return outputs


def convert(
    checkpoint_dir: str | pathlib.Path,
    out: str | pathlib.Path,
    *,
    outtype: str = "f16",
    name: str | None = None,
    pre_tokenizer: str | None = None,
    ignored_keys: tuple[str, ...] = (),
    split_max_size: str | None = None,
    split_max_tensors: int | None = None,
    target: str | pathlib.Path | None = None,
    progress: bool = False,
) -> Plan:
    """Converts a Hugging Face checkpoint folder; raises ConvertError with one clear message.

    `target`: of an EAGLE-3 head, a GGUF file or a checkpoint folder.
    """
    limits = parse_limits(split_max_size, split_max_tensors)
    wanted = check_outtype(outtype)
    with Checkpoint(pathlib.Path(checkpoint_dir)) as checkpoint:
        plan = make_plan(
            checkpoint,
            wanted,
            name=name,
            pre_tokenizer=pre_tokenizer,
            ignored_keys=ignored_keys,
            target=None if target is None else pathlib.Path(target),
        )
        plan.limits = limits
        run(plan, checkpoint, pathlib.Path(out), progress=progress)
    return plan
