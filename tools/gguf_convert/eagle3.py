"""EAGLE-3 heads: checkpoints of one decoder layer that reads its target's hidden states.

The layouts of SafeAILab/EAGLE and SpecForge (and AngelSlim's, which is SpecForge's) name the layer
`midlayer`, speculators names it `layers.0` and nests its sizes. A head has no tokenizer: that, the
number of layers and the width come from its target. In GGUF files, as llama.cpp writes them, the
rope rotates pairs of neighbours whatever the target does, and `d2t` holds the target's ids
themselves, not their distance from the head's.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checkpoint_tensors import find
from .eagle3_ids import Ids, target_ids
from .errors import ConvertError, short
from .gguf_metadata import read_typed
from .hf_config import Config
from .model_description import Expected, Model, context_length, read_sizes
from .qwen35 import text_part
from .rope import read_rope
from .tensors import Computed, Source, Target, rope_pairs_order
from .vocabulary_loader import load_vocabulary

ARCH = "eagle3"
ARCHITECTURES = (
    "LlamaForCausalLMEagle3",
    "Eagle3LlamaForCausalLM",
    "Eagle3Speculator",
    "Eagle3DraftModel",
)
# Keys of the trainers that say nothing of the arithmetic.
OF_TRAINING = (
    "embed_requires_grad", "has_no_defaults_at_init", "modal_type", "speculators_config",
    "speculators_model_type", "speculators_version", "target_model_type", "target_vocab_size",
)  # fmt: skip
BIASES = tuple(f"self_attn.{part}_proj.bias" for part in ("q", "k", "v", "o"))
SAMPLED_ROWS = 64


def is_head(values: dict[str, Any]) -> bool:
    named = values.get("architectures")
    return (
        values.get("draft_vocab_size") is not None
        or values.get("speculators_model_type") == "eagle3"
        or (isinstance(named, list) and any(name in ARCHITECTURES for name in named))
    )


# ---------------------------------------------------------------- the target


@dataclass
class TargetFacts:
    """What a head takes from its target."""

    where: str
    n_layers: int
    hidden_size: int
    n_vocab: int  # rows of the embedding
    tokenizer: dict[str, Any]  # keys
    embedding: np.ndarray | None  # some rows, evenly spread, where they are at hand


def spread(n_rows: int) -> np.ndarray:
    return np.linspace(0, n_rows - 1, min(n_rows, SAMPLED_ROWS)).astype(np.int64)


def read_target(path: pathlib.Path, pre: str | None) -> TargetFacts:
    """Of a GGUF file or a checkpoint folder."""
    if path.is_dir():
        return _of_folder(path, pre)
    if not path.is_file():
        raise ConvertError(f"--target {path}: no such file or folder")
    return _of_gguf(path)


def _of_folder(path: pathlib.Path, pre: str | None) -> TargetFacts:
    config = text_part(Config.load(path))
    vocab = load_vocabulary(path, config.values, pre=pre)
    n_vocab = config.integer("vocab_size")
    vocab.pad_to(n_vocab, str(path))
    return TargetFacts(
        str(path),
        config.integer("num_hidden_layers"),
        config.integer("hidden_size"),
        n_vocab,
        vocab.keys(),
        None,
    )


def _of_gguf(path: pathlib.Path) -> TargetFacts:
    import gguf

    try:
        reader = gguf.GGUFReader(path)
        keys, _ = read_typed(reader)
        arch = keys["general.architecture"].value
        n_layers = keys[f"{arch}.block_count"].value
        nextn = keys.get(f"{arch}.nextn_predict_layers")
        table = next(t for t in reader.tensors if t.name == "token_embd.weight")
        n_vocab, hidden = int(table.shape[1]), int(table.shape[0])
        rows = gguf.quants.dequantize(table.data[spread(n_vocab)], table.tensor_type)
    except (ValueError, KeyError, StopIteration, IndexError, TypeError, OSError) as error:
        raise ConvertError(
            f"--target {path}: cannot be read as a model in GGUF: {short(repr(error), 200)}"
        ) from None
    return TargetFacts(
        str(path),
        int(n_layers) - (0 if nextn is None else int(nextn.value)),
        hidden,
        n_vocab,
        {key: value for key, value in keys.items() if key.startswith("tokenizer.")},
        np.asarray(rows, np.float32),
    )


# ---------------------------------------------------------------- config.json


def head_config(config: Config) -> tuple[Config, bool]:
    """One level of keys, and whether speculators wrote them."""
    values = dict(config.values)
    nested = values.pop("transformer_layer_config", None)
    if nested is not None and not isinstance(nested, dict):
        raise config.fail("transformer_layer_config", "an object")
    aux = values.pop("eagle_config", None)
    if aux is not None and not isinstance(aux, dict):
        raise config.fail("eagle_config", "an object or null")
    found = Config({**(nested or {}), **values, **(aux or {})}, config.path, config.ignored)
    by_speculators = nested is not None or found.has("speculators_model_type")
    for key in OF_TRAINING:
        found.has(key)
    return found, by_speculators


def _refuse_variants(config: Config, by_speculators: bool) -> None:
    """By name: what llama.cpp's files have no place for."""
    here = "heads of this kind are not supported"
    config.require("num_hidden_layers", (1,), f"more than one layer: {here}")
    config.require("use_aux_hidden_state", (True, None), f"without taps of the target: {here}")
    config.require("fc_norm", (False, None), f"a norm for each tap before fc: {here}")
    config.require("attention_bias", (False, None), f"biases: {here}")
    config.require("mlp_bias", (False, None), f"biases: {here}")
    config.require("hidden_act", ("silu", "swish"), "only SiLU is supported", "silu")
    # One name for two things: speculators feeds the normed output back; with SpecForge the norm
    # before lm_head is left out where it is false.
    if by_speculators:
        config.require("norm_output", (False, None), f"a normed output that is fed back: {here}")
    else:
        config.require("norm_output", (True, None), f"without a norm before lm_head: {here}")
    kind = config.get("model_type")
    if isinstance(kind, str) and kind.startswith("llama4"):
        raise config.fail("model_type", "of a head that rotates halves, as all but Llama 4's do")
    config.has("model_type")


def _taps(config: Config, target: TargetFacts) -> list[int]:
    layers = config.get("eagle_aux_hidden_state_layer_ids")
    n = target.n_layers
    if layers is None:
        layers = [2, n // 2, n - 3]
        if not 2 < n // 2 < n - 3:
            text = f"given: the target has {n} layers, too few for the usual three taps"
            raise config.fail("eagle_aux_hidden_state_layer_ids", text)
        config.notes.append(f"no layers are named: the usual {layers} of {n} are written")
    whole = isinstance(layers, list) and all(
        isinstance(i, int) and not isinstance(i, bool) for i in layers
    )
    if not whole or len(layers) != 3:
        raise config.fail(
            "eagle_aux_hidden_state_layer_ids", "three layers: other numbers are not supported",
            layers,
        )  # fmt: skip
    if sorted(set(layers)) != layers or layers[0] < 0 or layers[2] > n:
        raise config.fail(
            "eagle_aux_hidden_state_layer_ids", f"ascending and from 0 to the target's {n}", layers
        )
    return list(layers)


# ---------------------------------------------------------------- the file


def read_head(config: Config, by_speculators: bool, target: TargetFacts) -> Model:
    """Keys and expected tensors, under names with `layers.0.`."""
    _refuse_variants(config, by_speculators)
    context = context_length(config, 2048)
    model, hidden, _, n_heads, head_dim = read_sizes(config, ARCH, context)
    n_kv_heads = config.integer("num_key_value_heads", n_heads)
    if n_heads % n_kv_heads:
        raise config.fail("num_key_value_heads", f"a divisor of {n_heads} heads", n_kv_heads)
    if config.integer("target_hidden_size", target.hidden_size) != target.hidden_size:
        text = f"{target.hidden_size}, the width of {target.where}"
        raise config.fail("target_hidden_size", text)
    if model.n_vocab != target.n_vocab:
        raise config.fail("vocab_size", f"{target.n_vocab}, that of {target.where}")
    rope = read_rope(config, head_dim, context, divisors=True)
    if rope.rotated_share not in (None, 1.0):
        raise config.fail("partial_rotary_factor", "1 for heads", rope.rotated_share)
    before_fc = config.flag("norm_before_fc", False)
    own = {
        "attention.head_count_kv": n_kv_heads,
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "attention.layer_norm_rms_epsilon": config.number("rms_norm_eps", 1e-6),
        "rope.freq_base": rope.theta,
        "rope.dimension_count": head_dim,
        "target_layers": _taps(config, target),
        "target_hidden_size": target.hidden_size,
        "norm_before_residual": config.flag("norm_before_residual", False),
        "norm_before_fc": before_fc,
    } | {f"rope.{key}": value for key, value in rope.keys.items()}
    model.keys |= {f"{ARCH}.{key}": value for key, value in own.items()}
    if rope.divisors is not None:
        divisors = Computed("(rope scaling of config.json)", rope.divisors)
        model.computed.append(Target("rope_freqs.weight", divisors))
    n_draft = config.integer("draft_vocab_size", model.n_vocab)
    if before_fc:
        model.expect("enc.output_norm.weight", "input_norm.weight", (3 * target.hidden_size,))
    _expect(model, hidden, 3 * target.hidden_size, (n_heads, n_kv_heads, head_dim), n_draft)
    config.refuse_unknown()
    model.notes += config.notes
    return model


def _expect(
    model: Model, hidden: int, taps: int, heads: tuple[int, int, int], n_draft: int
) -> None:
    n_heads, n_kv_heads, head_dim = heads
    ffn = model.keys[f"{ARCH}.feed_forward_length"]
    model.expect("fc.weight", "fc.weight", (hidden, taps))
    for to, of in (
        ("attn_norm", "input_layernorm"),
        ("attn_norm_2", "hidden_norm"),
        ("ffn_norm", "post_attention_layernorm"),
    ):
        model.expect(f"blk.0.{to}.weight", f"layers.0.{of}.weight", (hidden,))
    for part, n in (("q", n_heads), ("k", n_kv_heads), ("v", n_kv_heads)):
        model.expect(
            f"blk.0.attn_{part}.weight",
            f"layers.0.self_attn.{part}_proj.weight",
            (n * head_dim, 2 * hidden),
            row_order=None if part == "v" else rope_pairs_order(n, head_dim),
        )
    of = "layers.0.self_attn.o_proj.weight"
    model.expect("blk.0.attn_output.weight", of, (hidden, n_heads * head_dim))
    for part, shape in (("gate", (ffn, hidden)), ("up", (ffn, hidden)), ("down", (hidden, ffn))):
        model.expect(f"blk.0.ffn_{part}.weight", f"layers.0.mlp.{part}_proj.weight", shape)
    model.expect("output_norm.weight", "norm.weight", (hidden,))
    model.expect("output.weight", "lm_head.weight", (n_draft, hidden))


def _is_targets(embedding: Source, target: TargetFacts) -> bool:
    """Whether a head's embedding is a copy of its target's, which may be quantised."""
    shape = (target.n_vocab, target.hidden_size)
    if target.embedding is None or embedding.shape != shape:
        return False
    own = np.concatenate([embedding.read(int(row), 1) for row in spread(target.n_vocab)])
    return float(np.square(own - target.embedding).mean()) < 0.05 * float(np.square(own).mean())


def _plain_names(tensors: dict[str, Source], where: str) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for name, tensor in tensors.items():
        plain = name
        if name.startswith("midlayer."):
            plain = f"layers.0.{name.removeprefix('midlayer.')}"
        if plain in found:
            raise ConvertError(
                f"{where}: '{short(plain)}' is there twice, as 'midlayer.' and as 'layers.0.': "
                "expected one layer; remove one of both"
            )
        found[plain] = tensor
    return found


def head_targets(
    model: Model, found: dict[str, Source], target: TargetFacts, where: str
) -> list[Target]:
    """The tensors of the GGUF file in order."""
    tensors = _plain_names(found, where)
    for name in tensors:
        if name.startswith("fc_norm."):
            raise ConvertError(f"{where}: '{name}': a norm for each tap before fc is not supported")
        if name.startswith("layers.") and not name.startswith("layers.0."):
            raise ConvertError(f"{where}: '{short(name)}': more than one layer is not supported")
        if name.endswith(BIASES):
            raise ConvertError(f"{where}: '{short(name)}': biases are not supported in heads")
    n_draft = model.expected[-1].shape[0]
    expected = list(model.expected)
    embedding = tensors.get("embed_tokens.weight")
    hidden = model.keys[f"{ARCH}.embedding_length"]
    if embedding is None and hidden != target.hidden_size:
        raise ConvertError(
            f"{where}: tensor 'embed_tokens.weight' {[target.n_vocab, hidden]} is missing: the "
            f"target's embedding is {target.hidden_size} wide"
        )
    if embedding is not None and _is_targets(embedding, target):
        model.notes.append("'embed_tokens.weight' is the target's: left out")
    elif embedding is not None:
        shape = (target.n_vocab, hidden)
        expected.append(Expected("token_embd.weight", ("embed_tokens.weight",), shape))
    targets = [Target(e.target, find(e, tensors, where), e.row_order) for e in expected]
    ids = target_ids(tensors, n_draft, target.n_vocab, where, model.notes)
    if ids is not None:
        targets.append(Target("d2t", Ids(ids)))
    used = {name for entry in expected for name in entry.sources}
    unknown = sorted(set(tensors) - used - {"d2t", "t2d", "embed_tokens.weight"})
    if unknown:
        raise ConvertError(
            f"{where}: {len(unknown)} tensors do not belong in an EAGLE-3 head: "
            + short(", ".join(unknown), 400)
        )
    return model.computed + targets
