"""`make_head.py --init`: what a head's file has and this program does not train is refused."""

from __future__ import annotations

import importlib.util
import math
import pathlib

import numpy as np
import pytest

import eagle_reference
import tiny_models

pytest.importorskip("specdec_native", reason="the package is not installed")
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="PyTorch is not installed"
)
TOOLS = pathlib.Path(__file__).resolve().parents[2] / "tools"
CONFIG = eagle_reference.EagleConfig((1, 2, 3))
GONE = object()


@pytest.fixture(autouse=True)
def tools_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    folder = tmp_path_factory.mktemp("target")
    return tiny_models.write_tiny(folder / "target.gguf", tiny_models.TinyConfig(n_layers=4))


def write_head(path, keys=None, tensors=None):
    """With keys of eagle3 and tensors changed, or left out where they are GONE."""
    own = eagle_reference.metadata(CONFIG)
    own |= {f"eagle3.{key}": value for key, value in (keys or {}).items()}
    weights = eagle_reference.random_tensors(CONFIG) | (tensors or {})
    return tiny_models.write_gguf(
        path,
        {key: value for key, value in own.items() if value is not GONE},
        {name: values for name, values in weights.items() if values is not GONE},
    )


def first_head(path, target):
    import draft_gguf
    import head_init

    return head_init.FirstHead(path, draft_gguf.Target(target))


def refused(path, target):
    from training_safety import ToolError

    with pytest.raises(ToolError) as found:
        first_head(path, target)
    message = str(found.value)
    assert message.startswith(f"--init {path}: ")
    assert message.endswith("; give a head that make_head.py made for it")
    assert len(message.splitlines()) == 1
    return message


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("keys", "tensors", "text"),
    [
        ({}, {"token_embd.weight": ones(272, 64)}, "has token_embd.weight, which"),
        ({}, {"rope_freqs.weight": ones(8)}, "has rope_freqs.weight, which"),
        ({}, {"enc.output_norm.weight": ones(192)}, "has enc.output_norm.weight, which"),
        ({}, {"blk.0.attn_q.bias": ones(64)}, "has blk.0.attn_q.bias, which"),
        ({}, {"blk.1.ffn_norm.weight": ones(64)}, "has blk.1.ffn_norm.weight, which"),
        ({"rope.scaling.type": "yarn"}, {}, "has rope.scaling.type 'yarn', which"),
        ({"rope.scaling.factor": 8.0}, {}, "has rope.scaling.factor 8.0, which"),
        ({"rope.scale_linear": 2.0}, {}, "has rope.scale_linear 2.0, which"),
        ({"attention.scale": 0.5}, {}, "has attention.scale 0.5, which"),
        ({"rope.dimension_count": 8}, {}, "has rope.dimension_count 8, expected 16"),
        ({"attention.value_length": 8}, {}, "has attention.value_length 8, expected 16"),
        ({"block_count": 2}, {}, "has block_count 2, expected 1"),
        ({"target_hidden_size": 32}, {}, "has target_hidden_size 32, expected 64"),
        ({"norm_before_fc": True}, {}, "has norm_before_fc, which"),
    ],
)
def test_parts_that_would_be_lost_are_refused(tmp_path, target, keys, tensors, text):
    assert text in refused(write_head(tmp_path / "head.gguf", keys, tensors), target)


EPSILON = "attention.layer_norm_rms_epsilon"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention.head_count", GONE), ("attention.head_count", 0), ("attention.head_count", -3),
        ("attention.head_count", "four"), ("attention.head_count", [4]),
        ("attention.head_count_kv", 0), ("attention.head_count_kv", 3),
        ("attention.head_count_kv", 8), ("attention.key_length", 0),
        ("attention.key_length", 15), ("attention.key_length", 16.0),
        ("feed_forward_length", GONE), ("feed_forward_length", 0), ("feed_forward_length", "96"),
        ("feed_forward_length", 2**31),
        (EPSILON, math.nan), (EPSILON, 0.0), (EPSILON, -1.0), (EPSILON, "small"),
        ("rope.freq_base", 0.0), ("rope.freq_base", math.inf), ("rope.freq_base", "x"),
    ],
)  # fmt: skip
def test_sizes_and_numbers_that_cannot_be_are_named(tmp_path, target, key, value):
    message = refused(write_head(tmp_path / "head.gguf", {key: value}), target)
    assert f"has {key} " in message
    assert ", expected " in message


@pytest.mark.parametrize("value", ["123", [1.0, 2.0, 3.0], ["1", "2", "3"], 1, True])
def test_layers_that_are_no_numbers_are_named(tmp_path, target, value):
    path = write_head(tmp_path / "head.gguf", {"target_layers": value})
    assert "reads the layers " in refused(path, target)


def test_a_width_that_is_no_number_is_named(tmp_path, target):
    path = write_head(tmp_path / "head.gguf", {"embedding_length": "wide"})
    assert "has width 'wide'" in refused(path, target)


@pytest.mark.parametrize(
    "ids",
    [
        np.arange(160, dtype=np.float32),
        np.arange(160, dtype=np.int64).reshape(2, 80),
        np.arange(160, dtype=np.int64).reshape(1, 160),
    ],
)
def test_ids_that_are_no_vector_of_whole_numbers_are_named(tmp_path, target, ids):
    path = write_head(tmp_path / "head.gguf", tensors={"d2t": ids})
    assert "has a tensor d2t of " in refused(path, target)


def test_a_head_without_ids_is_named(tmp_path, target):
    import gguf

    path = write_head(tmp_path / "head.gguf")
    field = next(t.field for t in gguf.GGUFReader(path).tensors if t.name == "d2t")
    raw = bytearray(path.read_bytes())
    at = field.offset + 8 + len("d2t") + 4  # behind the name and the number of dimensions
    assert int.from_bytes(raw[at : at + 8], "little") == 160
    raw[at : at + 8] = bytes(8)
    path.write_bytes(raw)
    refused(path, target)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"attention.head_count_kv": 2, "rope.freq_base": GONE, EPSILON: GONE},
        {"attention.key_length": GONE, "attention.value_length": GONE},
        {"rope.dimension_count": GONE, "rope.scaling.type": "none", "rope.scaling.factor": 1.0},
    ],
)
def test_heads_without_such_parts_are_taken(tmp_path, target, keys):
    found = first_head(write_head(tmp_path / "head.gguf", keys), target)
    assert (found.shape.n_heads, found.shape.n_kv_heads, found.shape.head_dim) == (4, 2, 16)
    assert (found.shape.rope_theta, found.shape.epsilon) == pytest.approx((10000, 1e-5))
    assert len(found.ids) == 160
