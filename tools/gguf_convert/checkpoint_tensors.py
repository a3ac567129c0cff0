"""The tensors of a checkpoint against those that its architecture has: names, shapes, the head.

Names that a wrapper lengthened or that lack the model's own prefix are put right where there is
only one way to read them; all else that is missing, unknown or misshapen is refused.
"""

from __future__ import annotations

import re

import numpy as np

from .architectures import Expected, Model
from .errors import ConvertError, short
from .experts import Stacked
from .stacks import PackedSource, PieceSource, Reshaped, packed_names, packed_shapes
from .tensors import Source, Target

ANCHOR = "layers.0.post_attention_layernorm.weight"  # every architecture has it once
CHILDREN = re.compile(r"(embed_tokens|embed_in|layers|norm|final_layer_norm|rotary_emb)\.")
# Buffers that older transformers saved along with the weights.
SKIPPED = re.compile(
    r"(.*\.)?(rotary_emb\.(inv_freq|cos_cached|sin_cached)|attention\.(masked_)?bias|rope\.freqs)"
)
ADAPTER = re.compile(
    r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|base_layer|modules_to_save)\."
)


def plain_names(model: Model, tensors: dict[str, Source], where: str) -> dict[str, Source]:
    """By the names that transformers gives: "model.layers.0...", "lm_head.weight"."""
    adapters = sorted(name for name in tensors if ADAPTER.search(name))
    if adapters:
        raise ConvertError(
            f"{where}: {len(adapters)} tensors belong to an adapter that is not merged into the "
            f"weights, as '{short(adapters[0])}'; merge it first (merge_and_unload() of peft)"
        )
    found = {
        name[: -len(ANCHOR)] for name in tensors if name == ANCHOR or name.endswith("." + ANCHOR)
    }
    if len(found) > 1:
        raise ConvertError(
            f"{where}: the tensors of {len(found)} models, below "
            + " and ".join(f"'{short(prefix)}'" for prefix in sorted(found)[:4])
            + "; keep the files of one"
        )
    prefix = found.pop() if found else model.base
    if prefix == model.base:
        return tensors
    wrapper = prefix.removesuffix(model.base) if prefix.endswith("." + model.base) else prefix
    renamed: dict[str, Source] = {}
    for name, tensor in tensors.items():
        rest = name.removeprefix(wrapper)
        if CHILDREN.match(rest) and name.startswith(prefix):
            rest = model.base + rest
        if rest in renamed:
            raise ConvertError(
                f"{where}: two tensors are '{short(rest)}' without '{short(prefix)}'"
            )
        renamed[rest] = tensor
    model.notes.append(
        f"names of tensors begin with '{short(prefix)}': read as '{model.base}'"
        if prefix
        else f"names of tensors lack '{model.base}': added"
    )
    return renamed


def _is_same(one: Source, other: Source) -> bool:
    if one.shape != other.shape:
        return False
    blocks = zip(Target("", one).blocks(), Target("", other).blocks(), strict=True)
    return all(np.array_equal(a, b) for a, b in blocks)


def _head(model: Model, tensors: dict[str, Source], where: str) -> Expected | None:
    """The output matrix, None where the embedding serves as one. The weights have the last word:
    merged adapters have a trained head while config.json still says that it is tied."""
    embedding = model.expected[0]
    own = Expected("output.weight", model.heads, embedding.shape)
    copied = Expected("output.weight", embedding.sources, embedding.shape)
    heads = [tensors[head] for head in model.heads if head in tensors]
    for head in heads:
        _check(head, embedding.shape, where)
    if len(heads) > 1 and not _is_same(*heads):
        raise ConvertError(f"{where}: {' and '.join(model.heads)} differ; remove the wrong one")
    if not model.tied:
        if not heads:
            raise ConvertError(
                f"{where}: tensor {_names(model.heads)} {list(embedding.shape)} is missing: the "
                "checkpoint has no output head, and config.json does not say tie_word_embeddings"
            )
        return own
    saved = next((tensors[name] for name in embedding.sources if name in tensors), None)
    if heads and saved is None:  # the one that was saved serves as both
        model.notes.append(f"{_names(embedding.sources)} is missing: the tied head is taken for it")
        embedding.sources = copied.sources = (*embedding.sources, *model.heads)
    elif heads and saved is not None and not _is_same(saved, heads[0]):
        model.notes.append(
            f"'{heads[0].name}' differs from the embedding although config.json says "
            "tie_word_embeddings: written as an output matrix of its own"
        )
        return own
    return copied if model.copy_tied_head else None


def _names(names: tuple[str, ...]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def _check(source: Source, shape: tuple[int, ...], where: str) -> None:
    if source.shape != shape:
        raise ConvertError(
            f"{where}: tensor '{short(source.name)}' should have the shape {list(shape)} by "
            f"config.json, found {list(source.shape)}"
        )
    if source.dtype not in ("F64", "F32", "F16", "BF16"):
        raise ConvertError(
            f"{where}: tensor '{short(source.name)}' has the type {source.dtype}; only F64, F32, "
            "F16 and BF16 can be converted, not checkpoints that are quantised already"
        )


def _find_packed(expected: Expected, tensors: dict[str, Source], where: str) -> Source:
    assert expected.piece is not None
    n, n_rows, n_in = expected.shape
    parts = []
    shapes = packed_shapes(n, n_rows * expected.piece.step, n_in)
    for name, shape in zip(packed_names(expected.sources[0]), shapes, strict=True):
        part = tensors.get(name)
        if part is None:
            raise ConvertError(
                f"{where}: tensor '{name}' {list(shape)} is missing: config.json says that experts "
                "are in MXFP4"
            )
        if part.shape != shape or part.dtype != "U8":
            raise ConvertError(
                f"{where}: tensor '{short(name)}' should have the shape {list(shape)} of bytes, "
                f"found {list(part.shape)} of {part.dtype}"
            )
        parts.append(part)
    return PackedSource(expected.target, *parts, expected.piece, expected.shape)


def find(expected: Expected, tensors: dict[str, Source], where: str) -> Source:
    """Where an expected tensor's numbers come from."""
    if expected.packed:
        return _find_packed(expected, tensors, where)
    whole = expected.piece is not None and expected.sources[0] in tensors
    if expected.stack and not whole:
        part = expected.shape[1:]
        return Stacked(
            expected.target,
            [find(Expected(name, (name,), part), tensors, where) for name in expected.stack],
        )
    for name in expected.sources:
        if name in tensors:
            _check(tensors[name], expected.source_shape or expected.shape, where)
            if expected.is_reshaped:
                return Reshaped(expected.target, tensors[name], expected.shape)
            if expected.piece is None:
                return tensors[name]
            return PieceSource(expected.target, tensors[name], expected.piece, expected.shape)
    shape = list(expected.shape)
    raise ConvertError(f"{where}: tensor {_names(expected.sources)} {shape} is missing")


def _names_of(entry: Expected) -> tuple[str, ...]:
    if entry.packed:
        return packed_names(entry.sources[0])
    return (*entry.stack, *entry.sources) if entry.stack else entry.sources


def _take_further(model: Model, found: dict[str, Source]) -> dict[str, Source]:
    """Of a block that a checkpoint may have: its tensors, which the model has from now on."""
    if not model.further:
        return {}
    below = {name: t for name, t in found.items() if name.startswith(model.further_base)}
    if below:
        model.keys |= model.further_keys
        for name in below:
            del found[name]
    return below


def build_targets(model: Model, found: dict[str, Source], where: str) -> list[Target]:
    """The tensors of the GGUF file in order."""
    found = dict(found)
    further = _take_further(model, found)
    for prefix in model.skipped:
        n_all = len(found)
        found = {name: tensor for name, tensor in found.items() if not name.startswith(prefix)}
        if len(found) < n_all:
            model.notes.append(f"{n_all - len(found)} tensors below '{prefix}' are left out")
    tensors = plain_names(model, found, where) | further
    head = _head(model, tensors, where)
    expected = model.expected + ([] if head is None else [head])
    if further:
        expected += model.further
    targets = [
        Target(
            entry.target,
            find(entry, tensors, where),
            entry.row_order,
            plus=entry.plus,
            column_order=entry.column_order,
            change=entry.change and entry.change.there,
            new_shape=entry.shape,
            plain=entry.plain,
        )
        for entry in expected
    ]
    used = {name for entry in expected for name in _names_of(entry)}
    used |= set(model.heads)
    unknown = sorted(name for name in set(tensors) - used if not SKIPPED.fullmatch(name))
    if unknown:
        raise ConvertError(
            f"{where}: {len(unknown)} tensors do not belong in a {model.arch} model: "
            + short(", ".join(unknown), 400)
        )
    return model.computed + targets
