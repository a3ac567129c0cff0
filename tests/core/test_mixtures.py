"""What holds for every architecture with experts, and for other ways that files may hold them."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from test_model import CHAIN, bits, load, testing

import specdec_native as sd
import tiny_models
from tiny_models import RawTensor, Tensors

MIXTURES = {name: c for name, c in tiny_models.FAMILIES.items() if c.n_experts}
MIXTURES["mixtral"] = tiny_models.TinyConfig(n_experts=4)


@pytest.mark.parametrize("name", MIXTURES)
def test_mapped_experts_give_the_same_bits(name: str, tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "m.gguf", MIXTURES[name], dtype="Q8_0")
    whole = load(path)
    mapped = load(path, max_expert_bytes=0)
    assert mapped.memory[0] < whole.memory[0]
    want = whole.session().forward(CHAIN[:50])
    session = mapped.session()
    found = np.concatenate([session.forward(CHAIN[:41]), session.forward(CHAIN[41:50])])
    assert bits(found) == bits(want)


def fuse(tensors: Tensors) -> Tensors:
    """Gates and ups in one stack, the rows of each expert's gate first."""
    out: Tensors = {}
    for name, gate in tensors.items():
        if name.endswith("ffn_up_exps.weight"):
            continue
        if not name.endswith("ffn_gate_exps.weight"):
            out[name] = gate
            continue
        up = tensors[name.replace("gate", "up")]
        assert isinstance(gate, RawTensor)
        assert isinstance(up, RawTensor)
        both = np.concatenate([gate.data, up.data], axis=1)
        out[name.replace("gate", "gate_up")] = RawTensor(both, gate.dtype)
    return out


@pytest.mark.parametrize("name", [name for name in MIXTURES if name != "gpt-oss"])
def test_gates_and_ups_in_one_stack_are_the_same_model(name: str, tmp_path: pathlib.Path) -> None:
    keys = tiny_models.metadata(MIXTURES[name]) | tiny_models.byte_tokenizer()
    tensors = tiny_models.quantise(tiny_models.random_tensors(MIXTURES[name]), "Q8_0")
    apart = tiny_models.write_gguf(tmp_path / "apart.gguf", keys, tensors)
    fused = tiny_models.write_gguf(tmp_path / "fused.gguf", keys, fuse(tensors))
    for options in ({}, {"max_expert_bytes": 0}):
        one, other = load(apart, **options), load(fused, **options)
        assert one.memory == other.memory
        sessions = one.session(), other.session()
        want, found = (session.forward(CHAIN[:30]) for session in sessions)
        assert bits(found) == bits(want)
        assert sessions[0].reading == sessions[1].reading
    tensors["blk.0.ffn_gate_up_exps.weight"] = fuse(tensors)["blk.0.ffn_gate_up_exps.weight"]
    twice = tiny_models.write_gguf(tmp_path / "twice.gguf", keys, tensors)
    with pytest.raises(testing.NativeError) as caught:
        load(twice)
    assert caught.value.args[1] == "unexpected_tensor"
    assert caught.value.args[3] == "blk.0.ffn_gate_exps.weight"


@pytest.mark.parametrize(
    ("name", "what"), [("gpt-oss", "sinks"), ("granitemoe", "shared"), ("qwen35moe", "shared")]
)
def test_what_runs_on_the_cpu_only_is_refused_by_name(
    name: str, what: str, tmp_path: pathlib.Path
) -> None:
    path = tiny_models.write_tiny(tmp_path / "m.gguf", MIXTURES[name])
    with pytest.raises(testing.NativeError) as caught:
        load(path, "emulated", n_device_layers=2)
    assert caught.value.args[0] == "unsupported"
    assert what in caught.value.args[4]


def test_files_need_not_say_the_size_of_networks_that_they_lack(tmp_path: pathlib.Path) -> None:
    config = MIXTURES["qwen35moe"]
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer()
    tensors = tiny_models.random_tensors(config)
    size = keys.pop("qwen35moe.feed_forward_length")
    keys["qwen35moe.expert_feed_forward_length"] = size
    path = tiny_models.write_gguf(tmp_path / "m.gguf", keys, tensors)
    want = load(tiny_models.write_tiny(tmp_path / "said.gguf", config)).session().forward(CHAIN[:9])
    assert bits(load(path).session().forward(CHAIN[:9])) == bits(want)
    assert sd.Model(path).info.ffn_size == size
