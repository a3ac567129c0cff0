"""EAGLE-3 heads as models: their arithmetic against NumPy, and files that are refused."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

import eagle_reference as eagle
import tiny_models
from helpers import native
from tiny_models import TinyConfig

testing = native("model")

TARGET = dataclasses.replace(tiny_models.FAMILIES["qwen2"], n_layers=4)
TIED = dataclasses.replace(TARGET, tied=True)
RNG = np.random.default_rng(5)
TOKENS = [int(t) for t in RNG.integers(0, 270, 24)]

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "norm_before_residual": {"norm_before_residual": True},
    "norm_before_fc": {"norm_before_fc": True},
    "all_tokens": {"draft_vocab_size": None},
    "the target's head": {"draft_vocab_size": None, "own_output": False},
    "own embedding": {"own_embedding": True},
    "wider": {"hidden_size": 96, "own_embedding": True, "n_heads": 6, "n_kv_heads": 3},
    "odd": {"n_heads": 3, "n_kv_heads": 1, "head_dim": 24, "intermediate_size": 160},
    "divided frequencies": {"divided_frequencies": True, "rope_theta": 500000.0},
}


class Pair:
    """A target, a head and its reference."""

    def __init__(
        self, folder: pathlib.Path, changes: dict[str, Any], target: TinyConfig = TARGET,
        dtype: str = "F32",
    ) -> None:  # fmt: skip
        self.config = eagle.head_for(target, **changes)
        target_tensors = tiny_models.random_tensors(target, 1)
        tensors = eagle.random_tensors(self.config, 2)
        if dtype != "F32":
            tensors = tiny_models.quantise(tensors, dtype, 2)
        tiny_models.write_tiny(folder / "target.gguf", target, seed=1)
        eagle.write_eagle3(folder / "head.gguf", self.config, target, tensors=tensors)
        self.target = testing.Model(str(folder / "target.gguf"))
        self.model = testing.Model(str(folder / "head.gguf"))
        self.reference = eagle.Head(self.config, tensors, target_tensors)
        session = self.target.session()
        session.forward(TOKENS, taps=list(self.config.target_layers))
        self.taps = np.array([session.taps(r) for r in range(len(TOKENS))])

    def session(self, **options: Any) -> Any:
        return self.model.head_session(self.target, **options)

    def fuse(self, session: Any, taps: np.ndarray) -> np.ndarray:
        return session.fuse(taps.ravel().tolist()).reshape(len(taps), self.config.hidden_size)


def rows_of(
    session: Any, tokens: list[int], features: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """What rows hand to the next one, and logits."""
    logits = session.forward(tokens, hidden=features.ravel().tolist(), keep_hidden=True, **options)
    return np.array([session.hidden(r) for r in range(len(tokens))]), logits


def close(found: np.ndarray, expected: np.ndarray, limit: float = 1e-4) -> bool:
    return bool(np.abs(found - expected).max() <= limit * max(1.0, np.abs(expected).max()))


@pytest.fixture(params=list(VARIANTS))
def pair(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Pair:
    return Pair(tmp_path, VARIANTS[request.param])


def test_hidden_states_and_logits_are_those_of_the_reference(pair: Pair) -> None:
    session, cache = pair.session(), eagle.Cache(pair.config)
    features = pair.fuse(session, pair.taps[:-1])
    assert close(features, pair.reference.fuse(pair.taps[:-1]))
    hidden, logits = rows_of(session, TOKENS[1:], features)
    expected = pair.reference.ingest(cache, TOKENS[1:], pair.taps[:-1])
    assert logits.shape[1] == pair.config.draft_vocab_size or TARGET.vocab_size
    assert close(hidden, expected[0])
    assert close(logits, expected[1])

    # A chain on its own output, each step's own.
    row, ids = hidden[-1], [int(np.argmax(logits[-1]))]
    wanted, laws = pair.reference.chain(cache, expected[0][-1], expected[1][-1], 5)
    for step in range(1, 5):
        token = int(pair.reference.target_ids[ids[-1]])
        assert token == wanted[step - 1]
        out, logits = rows_of(session, [token], row[None])
        assert close(logits[0], laws[step])
        row = out[0]
        ids.append(int(np.argmax(logits[0])))


def test_a_tree_of_drafts_is_that_of_the_reference(pair: Pair) -> None:
    """Level by level, every node from the feature of its parent."""
    session, cache = pair.session(), eagle.Cache(pair.config)
    hidden, _ = rows_of(session, TOKENS[1:], pair.fuse(session, pair.taps[:-1]))
    expected, _ = pair.reference.ingest(cache, TOKENS[1:], pair.taps[:-1])
    tokens, parents = [7, 9, 11, 13, 15, 17, 19], [-1, -1, 0, 0, 1, 2, 4]
    wanted, laws = pair.reference.tree(cache, expected[-1], tokens, parents)
    # A whole tree in one pass: features of all nodes are known here.
    features = np.array([wanted[p] if p >= 0 else hidden[-1] for p in parents])
    found, logits = rows_of(session, tokens, features, parents=parents)
    assert close(found, wanted)
    assert close(logits, laws)


def test_rows_of_a_head_have_the_same_bits_in_every_pass(tmp_path: pathlib.Path) -> None:
    pair = Pair(tmp_path, {}, dtype="Q4_0")
    session = pair.session()
    features = pair.fuse(session, pair.taps[:-1])
    for r in (0, 7, 22):
        assert np.array_equal(pair.fuse(session, pair.taps[r : r + 1])[0], features[r])
    whole = rows_of(session, TOKENS[1:], features)
    one = pair.session()
    for r, token in enumerate(TOKENS[1:]):
        hidden, logits = rows_of(one, [token], features[r : r + 1])
        assert np.array_equal(hidden[0], whole[0][r])
        assert np.array_equal(logits[0], whole[1][r])
    # Reading without outputs, and what is rolled back, leave the same cache.
    silent = pair.session()
    silent.forward(TOKENS[1:20], hidden=features[:19].ravel().tolist(), output="none")
    rows_of(silent, [5, 6], features[3:5])
    silent.truncate(19)
    hidden, logits = rows_of(silent, TOKENS[20:], features[19:])
    assert np.array_equal(hidden, whole[0][19:])
    assert np.array_equal(logits, whole[1][19:])


@pytest.mark.parametrize("dtype", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "BF16"])
def test_quantised_heads_compute_what_their_weights_say(dtype: str, tmp_path: pathlib.Path) -> None:
    wide = {"hidden_size": 256, "own_embedding": True, "intermediate_size": 256, "head_dim": 64}
    target = dataclasses.replace(TARGET, hidden_size=256, head_dim=32)
    pair = Pair(tmp_path, wide, target, dtype=dtype)
    session, cache = pair.session(), eagle.Cache(pair.config)
    features = pair.fuse(session, pair.taps[:-1])
    hidden, logits = rows_of(session, TOKENS[1:], features)
    expected = pair.reference.ingest(cache, TOKENS[1:], pair.taps[:-1])
    # Activations are rounded to 8 bits for quantised weights.
    limit = 1e-2 if dtype == "BF16" else 0.1
    assert close(hidden, expected[0], limit)
    assert close(logits, expected[1], limit)


def test_a_head_of_a_tied_target_uses_its_embedding_as_output(tmp_path: pathlib.Path) -> None:
    pair = Pair(tmp_path, {"draft_vocab_size": None, "own_output": False}, TIED)
    session, cache = pair.session(), eagle.Cache(pair.config)
    hidden, logits = rows_of(session, TOKENS[1:], pair.fuse(session, pair.taps[:-1]))
    expected = pair.reference.ingest(cache, TOKENS[1:], pair.taps[:-1])
    assert close(hidden, expected[0])
    assert close(logits, expected[1])


def test_a_head_says_nothing_by_itself(tmp_path: pathlib.Path) -> None:
    pair = Pair(tmp_path, {})
    with pytest.raises(testing.NativeError, match="says nothing by itself"):
        pair.session().forward([1, 2])
    with pytest.raises(testing.NativeError, match="run on the CPU only"):
        testing.Model(str(tmp_path / "head.gguf"), backend="emulated", n_device_layers=1)


# ---------------------------------------------------------------- files


def changed(tensors: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    if value is None:
        return {key: t for key, t in tensors.items() if key != name}
    return tensors | {name: value}


def twice(ids: np.ndarray) -> np.ndarray:
    ids = ids.copy()
    ids[7] = ids[3]
    return ids


CONFIG = eagle.head_for(TARGET)
TENSORS = eagle.random_tensors(CONFIG, 2)
IDS = TENSORS["d2t"]
OUTPUT = TENSORS["output.weight"]
BAD_TENSORS = [
    ("d2t", twice(IDS), "was there before; the ids are the target's, not offsets"),
    ("d2t", IDS - IDS[0] - 1, r"id -1 at index 0 is not in \[0, 272\)"),
    ("d2t", IDS + (272 - IDS[-1]), r"id 272 at index 159 is not in"),
    ("d2t", IDS[:-1].copy(), "the 160 ids of the rows of output.weight, found 159"),
    ("d2t", IDS.astype(np.float32), "the ids should be I64, found F32"),
    ("d2t", None, "has 160 rows for the vocabulary of 272 and there is no 'd2t'"),
    ("output.weight", None, "there is no output.weight that has these rows"),
    ("output.weight", np.zeros((300, 64), np.float32), "has 300 rows for the vocabulary of 272"),
    ("fc.weight", np.zeros((64, 128), np.float32), r"should have the shape \[192, 64\]"),
    ("fc.weight", None, "tensor 'fc.weight' .* is missing"),
    ("blk.0.attn_q.weight", np.zeros((64, 64), np.float32), r"should have the shape \[128, 64\]"),
    ("blk.0.attn_norm_2.weight", None, "is missing"),
    ("enc.output_norm.weight", np.ones(192, np.float32), "does not belong"),
    ("blk.1.attn_norm.weight", np.ones(64, np.float32), "does not belong"),
    ("blk.0.ffn_norm.weight", np.ones(64, np.int64), "has type I64, expected weights"),
]
BAD_KEYS = [
    ("target_layers", None, "eagle3.target_layers"),
    ("target_layers", [2, 2, 3], "ascending layers from 0 to 4096, found 2 at index 1"),
    ("target_layers", [3, 2, 1], "ascending layers"),
    ("target_layers", [1, 2, 99999], "ascending layers from 0 to 4096, found 99999"),
    ("target_layers", 3, "expected array of integers"),
    ("target_layers", list(range(9)), "should be 1 to 8 layers of the target, found 9"),
    ("target_hidden_size", 0, "target_hidden_size"),
    ("target_hidden_size", 128, "in a head that uses the target's embedding"),
    ("block_count", 2, "the one layer of a head"),
    ("norm_before_fc", True, "tensor 'enc.output_norm.weight' .* is missing"),
]


@pytest.mark.parametrize(("name", "value", "text"), BAD_TENSORS)
def test_bad_tensors_are_refused(name: str, value: Any, text: str, tmp_path: pathlib.Path) -> None:
    path = eagle.write_eagle3(
        tmp_path / "head.gguf", CONFIG, TARGET, tensors=changed(TENSORS, name, value)
    )
    with pytest.raises(testing.NativeError, match=text):
        testing.Model(str(path))


@pytest.mark.parametrize(("key", "value", "text"), BAD_KEYS)
def test_bad_keys_are_refused(key: str, value: Any, text: str, tmp_path: pathlib.Path) -> None:
    keys = eagle.metadata(CONFIG) | tiny_models.byte_tokenizer(TARGET.vocab_size)
    keys.pop(f"eagle3.{key}", None)
    if value is not None:
        keys[f"eagle3.{key}"] = value
    path = tiny_models.write_gguf(tmp_path / "head.gguf", keys, TENSORS)
    with pytest.raises(testing.NativeError, match=text):
        testing.Model(str(path))


def test_ids_belong_in_heads_only(tmp_path: pathlib.Path) -> None:
    """A tensor of whole numbers is nothing that another model could compute with."""
    tensors = tiny_models.random_tensors(TARGET, 1)
    keys = tiny_models.metadata(TARGET) | tiny_models.byte_tokenizer(TARGET.vocab_size)
    path = tmp_path / "m.gguf"
    tiny_models.write_gguf(path, keys, tensors | {"d2t": IDS})
    with pytest.raises(testing.NativeError, match="does not belong"):
        testing.Model(str(path))
    tensors["token_embd.weight"] = tensors["token_embd.weight"].astype(np.int64)
    tiny_models.write_gguf(path, keys, tensors)
    with pytest.raises(testing.NativeError, match="has type I64, expected weights"):
        testing.Model(str(path))
