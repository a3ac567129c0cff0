"""Blocks that predict further tokens as models: arithmetic against NumPy, bad files."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest
from test_eagle_model import close, rows_of

import mtp_reference as mtp
import tiny_models
from helpers import native
from mtp_reference import MtpConfig

testing = native("model")

TARGET = tiny_models.FAMILIES["qwen35"]
N = TARGET.n_layers
TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, 270, 24)]

VARIANTS: dict[str, MtpConfig] = {
    "plain": MtpConfig(TARGET),
    "the model's norm": MtpConfig(TARGET, own_norm=False),
    "own head": MtpConfig(TARGET, own_output=True),
    "own embedding": MtpConfig(TARGET, own_embedding=True),
    "tied": MtpConfig(dataclasses.replace(TARGET, tied=True)),
    "odd": MtpConfig(
        dataclasses.replace(TARGET, n_heads=3, n_kv_heads=1, head_dim=24, intermediate_size=160)
    ),
    "several blocks": MtpConfig(TARGET, n_blocks=2),
    "experts": MtpConfig(tiny_models.FAMILIES["qwen35moe"]),
    "grouped heads and experts": MtpConfig(tiny_models.FAMILIES["qwen3next"]),
}


class Pair:
    """A model, its block and the block's reference."""

    def __init__(
        self, folder: pathlib.Path, config: MtpConfig, dtype: str = "F32", alone: bool = False
    ) -> None:
        self.config = config
        path = mtp.write_mtp(folder / "model.gguf", config, dtype=dtype)
        self.target = testing.Model(str(path))
        if alone:
            path = mtp.write_mtp(folder / "mtp.gguf", config, dtype=dtype, alone=True)
        self.model = testing.Model(str(path), next_tokens=not alone)
        tensors = mtp.model_tensors(config) | mtp.block_tensors(config)
        if dtype != "F32":
            tensors = tiny_models.quantise(tensors, dtype, 1)
        self.reference = mtp.Block(config, tensors, {})
        self.taps = self.taps_of(self.target, config.target.n_layers)

    @staticmethod
    def taps_of(target: Any, layer: int) -> np.ndarray:
        session = target.session()
        session.forward(TOKENS, taps=[layer])
        return np.array([session.taps(r) for r in range(len(TOKENS))])

    def session(self, **options: Any) -> Any:
        return self.model.head_session(self.target, **options)

    def fuse(self, session: Any, taps: np.ndarray) -> np.ndarray:
        found: np.ndarray = session.fuse(taps.ravel().tolist())
        return found.reshape(len(taps), self.config.target.hidden_size)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_hidden_states_and_logits_are_those_of_the_reference(
    variant: str, alone: bool, tmp_path: pathlib.Path
) -> None:
    pair = Pair(tmp_path, VARIANTS[variant], alone=alone)
    session, cache = pair.session(), mtp.new_cache(pair.config)
    features = pair.fuse(session, pair.taps[:-1])
    assert close(features, pair.reference.fuse(pair.taps[:-1]))
    said, logits = rows_of(session, TOKENS[1:], features)
    expected = pair.reference.ingest(cache, TOKENS[1:], pair.taps[:-1])
    assert close(said, expected[0])
    assert close(logits, expected[1])

    # A chain on its own output, each step's own.
    row, ids = said[-1], [int(np.argmax(logits[-1]))]
    wanted, laws = pair.reference.chain(cache, expected[0][-1], expected[1][-1], 5)
    for step in range(1, 5):
        assert ids[-1] == wanted[step - 1]
        out, logits = rows_of(session, ids[-1:], row[None])
        assert close(logits[0], laws[step])
        row = out[0]
        ids.append(int(np.argmax(logits[0])))


def test_what_the_model_says_is_what_it_says_without_the_block(tmp_path: pathlib.Path) -> None:
    config = VARIANTS["plain"]
    plain = tiny_models.write_tiny(tmp_path / "plain.gguf", TARGET, seed=1)
    both = mtp.write_mtp(tmp_path / "both.gguf", config)
    found = [testing.Model(str(path)).session().forward(TOKENS) for path in (plain, both)]
    assert np.array_equal(found[0], found[1])
    assert testing.Model(str(both)).config["n_layers"] == N
    own = mtp.write_mtp(tmp_path / "own.gguf", VARIANTS["own embedding"])
    for path in (both, own):
        block = testing.Model(str(path), next_tokens=True)
        assert block.config["n_layers"] == 1
        assert block.progress[-1][0] == block.progress[-1][1]


def test_rows_have_the_same_bits_in_every_pass(tmp_path: pathlib.Path) -> None:
    pair = Pair(tmp_path, VARIANTS["plain"], dtype="Q4_0")
    session = pair.session()
    features = pair.fuse(session, pair.taps[:-1])
    for r in (0, 7, 22):
        assert np.array_equal(pair.fuse(session, pair.taps[r : r + 1])[0], features[r])
    whole = rows_of(session, TOKENS[1:], features)
    one = pair.session()
    for r, token in enumerate(TOKENS[1:]):
        said, logits = rows_of(one, [token], features[r : r + 1])
        assert np.array_equal(said[0], whole[0][r])
        assert np.array_equal(logits[0], whole[1][r])
    # Whatever was accepted and rejected leaves the cache of a fresh one.
    rng = np.random.default_rng(3)
    for _ in range(8):
        back, at = pair.session(), 0
        while at < 20:
            n = int(rng.integers(1, 6))
            stop = min(at + n, 20)
            part = features[at:stop]
            back.forward(TOKENS[at + 1 : stop + 1], hidden=part.ravel().tolist(), output="none")
            if rng.random() < 0.7:
                rows_of(back, [int(t) for t in rng.integers(0, 270, 3)], rng.random((3, 64)))
                keep = int(rng.integers(at + 1, stop + 1))
                back.truncate(keep)
                at = keep
            else:
                at = stop
        said, logits = rows_of(back, TOKENS[21:], features[20:])
        assert np.array_equal(said, whole[0][20:])
        assert np.array_equal(logits, whole[1][20:])


@pytest.mark.parametrize("dtype", ["Q4_0", "Q8_0", "Q4_K", "Q6_K", "BF16"])
def test_quantised_blocks_compute_what_their_weights_say(
    dtype: str, tmp_path: pathlib.Path
) -> None:
    target = dataclasses.replace(TARGET, hidden_size=256, intermediate_size=256, head_dim=64)
    target = dataclasses.replace(target, recurrent_dim=128)
    pair = Pair(tmp_path, MtpConfig(target), dtype=dtype)
    session, cache = pair.session(), mtp.new_cache(pair.config)
    said, logits = rows_of(session, TOKENS[1:], pair.fuse(session, pair.taps[:-1]))
    expected = pair.reference.ingest(cache, TOKENS[1:], pair.taps[:-1])
    # Activations are rounded to 8 bits for quantised weights.
    limit = 1e-2 if dtype == "BF16" else 0.1
    assert close(said, expected[0], limit)
    assert close(logits, expected[1], limit)


def test_a_block_says_nothing_by_itself(tmp_path: pathlib.Path) -> None:
    pair = Pair(tmp_path, VARIANTS["plain"])
    with pytest.raises(testing.NativeError, match="says nothing by itself"):
        pair.session().forward([1, 2])


# ---------------------------------------------------------------- files


CONFIG = VARIANTS["plain"]
BLOCK = mtp.block_tensors(CONFIG)
OF = f"blk.{N}"
BAD_TENSORS: list[tuple[str, Any, str]] = [
    ("nextn.eh_proj", np.zeros((64, 64), np.float32), r"should have the shape \[128, 64\]"),
    ("nextn.eh_proj", None, "there is no block that predicts further tokens"),
    ("nextn.enorm", None, "'blk.5.nextn.enorm.weight' .* is missing"),
    ("nextn.hnorm", np.ones(32, np.float32), r"should have the shape \[64\]"),
    ("nextn.shared_head_norm", np.ones(32, np.float32), r"should have the shape \[64\]"),
    ("nextn.shared_head_head", np.ones((8, 64), np.float32), r"should have the shape \[64, 272\]"),
    ("nextn.embed_tokens", np.ones((272, 32), np.float32), r"should have the shape \[64, 272\]"),
    ("attn_q", np.zeros((64, 64), np.float32), r"should have the shape \[64, 128\]"),
    ("attn_k_norm", None, "is missing"),
    ("post_attention_norm", None, "is missing"),
    ("ffn_down", None, "is missing"),
    ("ffn_down", np.zeros((64, 96), np.int64), "has type I64, expected weights"),
]


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(("name", "value", "text"), BAD_TENSORS)
def test_bad_tensors_are_refused(
    name: str, value: Any, text: str, alone: bool, tmp_path: pathlib.Path
) -> None:
    block = {key: t for key, t in BLOCK.items() if key != f"{OF}.{name}.weight"}
    if value is not None:
        block[f"{OF}.{name}.weight"] = value
    path = mtp.write_mtp(tmp_path / "m.gguf", CONFIG, block=block, alone=alone)
    if not alone:  # the model is what it was
        testing.Model(str(path)).session().forward(TOKENS[:2])
    elif name == "nextn.eh_proj" and value is None:
        text = "is missing"
    with pytest.raises(testing.NativeError, match=text):
        testing.Model(str(path), next_tokens=not alone)


def test_bad_keys_and_strange_tensors_are_refused(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "m.gguf"
    for extra, text in (
        ({"qwen35.nextn_predict_layers": 0}, "does not belong|there is no block"),
        ({"qwen35.nextn_predict_layers": N + 1}, "nextn_predict_layers"),
        ({"qwen35.block_count": N}, "blk.4.nextn.eh_proj|is missing|no block"),
    ):
        mtp.write_mtp(path, CONFIG, extra=extra)
        with pytest.raises(testing.NativeError, match=text):
            testing.Model(str(path), next_tokens=True)
    stray = {"blk.2.attn_norm.weight": np.ones(64, np.float32)}
    mtp.write_mtp(path, CONFIG, alone=True, block=BLOCK | stray)
    with pytest.raises(testing.NativeError, match=r"'blk\.2\.attn_norm\.weight' does not belong"):
        testing.Model(str(path))
    tiny_models.write_tiny(path, tiny_models.FAMILIES["qwen3"])
    with pytest.raises(testing.NativeError, match="no block that predicts further tokens"):
        testing.Model(str(path), next_tokens=True)


def test_a_block_alone_needs_what_it_does_not_share(tmp_path: pathlib.Path) -> None:
    path = mtp.write_mtp(tmp_path / "m.gguf", CONFIG, alone=True)
    model = testing.Model(str(path))
    assert model.config["n_layers"] == 1
    block = {k: t for k, t in BLOCK.items() if "shared_head_norm" not in k}
    tensors = {k: t for k, t in mtp.model_tensors(CONFIG).items() if k == "token_embd.weight"}
    tiny_models.write_gguf(path, mtp.metadata(CONFIG), tensors | block)
    with pytest.raises(testing.NativeError, match=r"'output_norm\.weight' .* is missing"):
        testing.Model(str(path))
