"""EAGLE-3 heads in the layouts that are published, converted and compared number by number."""

from __future__ import annotations

import io
import json
import pathlib
from typing import Any

import gguf
import numpy as np
import pytest

import hf_checkpoints as hf
from eagle_reference import EagleConfig, head_for, metadata, random_tensors
from gguf_convert import ConvertError, convert
from gguf_convert.cli import main
from tiny_models import TinyConfig, write_tiny

TARGET = TinyConfig(n_layers=12, vocab_size=320)
NAMES = {
    "fc": "fc",
    "enc.output_norm": "input_norm",
    "blk.0.attn_norm": "layers.0.input_layernorm",
    "blk.0.attn_norm_2": "layers.0.hidden_norm",
    "blk.0.ffn_norm": "layers.0.post_attention_layernorm",
    "blk.0.attn_q": "layers.0.self_attn.q_proj",
    "blk.0.attn_k": "layers.0.self_attn.k_proj",
    "blk.0.attn_v": "layers.0.self_attn.v_proj",
    "blk.0.attn_output": "layers.0.self_attn.o_proj",
    "blk.0.ffn_gate": "layers.0.mlp.gate_proj",
    "blk.0.ffn_up": "layers.0.mlp.up_proj",
    "blk.0.ffn_down": "layers.0.mlp.down_proj",
    "output_norm": "norm",
    "output": "lm_head",
    "token_embd": "embed_tokens",
}


def halves(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """From neighbouring pairs, as files have them, to the halves of checkpoints."""
    split = rows.reshape(-1, head_dim // 2, 2, rows.shape[1])
    return split.swapaxes(1, 2).reshape(rows.shape)


def state_of(config: EagleConfig, layer: str, seed: int = 0) -> tuple[hf.State, hf.State]:
    """A checkpoint's tensors, and those of the file that it should give."""
    tensors = {name: np.asarray(t) for name, t in random_tensors(config, seed).items()}
    state: hf.State = {}
    for name, values in tensors.items():
        if name == "d2t":
            state["d2t"] = values - np.arange(len(values))
            state["t2d"] = np.isin(np.arange(config.target_vocab_size), values)
            continue
        if name.endswith(("attn_q.weight", "attn_k.weight")):
            values = halves(values, config.head_dim)
        state[NAMES[name.removesuffix(".weight")].replace("layers.0", layer) + ".weight"] = values
    return state, tensors


def sizes(config: EagleConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.head_dim,
        "num_hidden_layers": 1,
        "max_position_embeddings": config.context_length,
        "vocab_size": config.target_vocab_size,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_epsilon,
        "rope_theta": config.rope_theta,
        "model_type": "llama",
    }


def layout(name: str, config: EagleConfig) -> tuple[dict[str, Any], str]:
    """config.json as each trainer writes it, and what its layer is called."""
    draft = {"draft_vocab_size": config.draft_vocab_size or config.target_vocab_size}
    layers = list(config.target_layers)
    if name == "eagle":
        return sizes(config) | draft | {"architectures": ["LlamaForCausalLM"]}, "midlayer"
    if name in ("specforge", "angelslim"):
        aux = {"eagle_aux_hidden_state_layer_ids": layers, "use_aux_hidden_state": True}
        own = {"eagle_config": aux, "target_model_type": "llama", "tie_word_embeddings": True}
        own["architectures"] = (
            ["LlamaForCausalLMEagle3"] if name == "specforge" else ["Eagle3LlamaForCausalLM"]
        )
        return sizes(config) | draft | own, "midlayer"
    values = {
        "architectures": ["Eagle3Speculator"],
        "speculators_model_type": "eagle3",
        "speculators_version": "0.3.0",
        "speculators_config": {"algorithm": "eagle3"},
        "transformer_layer_config": sizes(config),
        "norm_before_residual": config.norm_before_residual,
        "norm_before_fc": config.norm_before_fc,
        "embed_requires_grad": False,
        "target_hidden_size": None if config.hidden_size == 64 else 64,
        "eagle_aux_hidden_state_layer_ids": layers,
    }
    return values | draft, "layers.0"


def write(
    folder: pathlib.Path, values: dict[str, Any], state: hf.State, dtype: str = "F32"
) -> pathlib.Path:
    folder.mkdir(exist_ok=True)
    hf.write_json(folder / "config.json", values)
    (folder / "model.safetensors").write_bytes(hf.safetensors_bytes(state, dtype))
    return folder


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_tiny(tmp_path_factory.mktemp("target") / "target.gguf", TARGET, dtype="Q8_0")


def read(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    reader = gguf.GGUFReader(path)
    keys = {key: field.contents() for key, field in reader.fields.items()}
    tensors = {t.name: t.data for t in reader.tensors}
    return keys, tensors


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "eagle": ("eagle", {}),
    "specforge": ("specforge", {}),
    "angelslim": ("angelslim", {"target_layers": (1, 5, 11)}),
    "speculators": ("speculators", {}),
    "norm before the residual": ("speculators", {"norm_before_residual": True}),
    "norm before fc": ("speculators", {"norm_before_fc": True}),
    "of another width": ("speculators", {"hidden_size": 32, "n_heads": 2, "n_kv_heads": 1}),
    "own embedding": ("specforge", {"own_embedding": True}),
    "whole vocabulary": ("eagle", {"draft_vocab_size": None}),
}


@pytest.mark.parametrize("case", CASES)
def test_heads_give_the_files_that_llama_cpp_reads(
    case: str, target: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    name, changes = CASES[case]
    config = head_for(TARGET, **changes)
    values, layer = layout(name, config)
    state, expected = state_of(config, layer)
    folder = write(tmp_path / "head", values, state)
    convert(folder, tmp_path / "head.gguf", outtype="f32", target=target)
    keys, tensors = read(tmp_path / "head.gguf")
    assert set(tensors) == set(expected)
    for tensor, content in expected.items():
        assert np.array_equal(tensors[tensor], content), tensor
    for key, value in metadata(config).items():
        if not key.startswith("general.name"):
            assert keys[key] == pytest.approx(value), key
    assert keys["tokenizer.ggml.tokens"] == read(target)[0]["tokenizer.ggml.tokens"]


def test_a_folder_is_a_target_too_and_rope_scaling_is_written(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path / "target", hf.llama_config(num_hidden_layers=12))
    config = head_for(TARGET)
    values, layer = layout("specforge", config)
    values["rope_scaling"] = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    }  # fmt: skip
    folder = write(tmp_path / "head", values, state_of(config, layer)[0])
    convert(folder, tmp_path / "head.gguf", outtype="q8_0", target=tmp_path / "target")
    keys, tensors = read(tmp_path / "head.gguf")
    assert tensors["rope_freqs.weight"].shape == (8,)
    assert tensors["rope_freqs.weight"].max() == 8
    assert len(keys["tokenizer.ggml.tokens"]) == 320


def test_torch_files_and_types(target: pathlib.Path, tmp_path: pathlib.Path) -> None:
    torch = pytest.importorskip("torch")
    config = head_for(TARGET)
    values, layer = layout("eagle", config)
    state, expected = state_of(config, layer)
    folder = tmp_path / "head"
    folder.mkdir()
    hf.write_json(folder / "config.json", values)
    buffer = io.BytesIO()
    torch.save({name: torch.from_numpy(t) for name, t in state.items()}, buffer)
    (folder / "pytorch_model.bin").write_bytes(buffer.getvalue())
    convert(folder, tmp_path / "head.gguf", outtype="q4_0", target=target)
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "head.gguf").tensors}
    assert kinds["d2t"] == "I64"
    assert kinds["output.weight"] == kinds["fc.weight"] == "Q4_0"
    assert np.array_equal(read(tmp_path / "head.gguf")[1]["d2t"], expected["d2t"])


def test_a_copy_of_the_targets_embedding_is_left_out(tmp_path: pathlib.Path) -> None:
    """Also where the target is quantised; and ids that are no offsets are told by t2d."""
    config = head_for(TARGET)
    path = write_tiny(tmp_path / "target.gguf", TARGET, dtype="Q4_0", seed=3)
    exact = write_tiny(tmp_path / "exact.gguf", TARGET, seed=3)
    values, layer = layout("specforge", config)
    state, expected = state_of(config, layer)
    state["embed_tokens.weight"] = np.array(read(exact)[1]["token_embd.weight"])
    state["d2t"] = expected["d2t"].astype(np.int32)
    folder = write(tmp_path / "head", values, state)
    plan = convert(folder, tmp_path / "head.gguf", target=path)
    _, tensors = read(tmp_path / "head.gguf")
    assert "token_embd.weight" not in tensors
    assert np.array_equal(tensors["d2t"], expected["d2t"])
    assert any("is the target's: left out" in note for note in plan.notes)
    assert any("holds ids, not offsets" in note for note in plan.notes)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "two layers": (
        {"num_hidden_layers": 2},
        "'num_hidden_layers' should be 1.*more than one layer",
    ),
    "fc_norm": ({"fc_norm": True}, "'fc_norm' should be .*a norm for each tap"),
    "biases": ({"attention_bias": True}, "'attention_bias' should be .*biases"),
    "no taps": ({"eagle_config": {"use_aux_hidden_state": False}}, "use_aux_hidden_state.*taps"),
    "normed output": ({"norm_output": False}, "'norm_output' should be .*norm before lm_head"),
    "five taps": (
        {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [1, 2, 3, 4, 5]}},
        "three layers: other numbers are not supported, found .1, 2, 3, 4, 5",
    ),
    "taps too high": (
        {"eagle_config": {"eagle_aux_hidden_state_layer_ids": [2, 6, 40]}},
        "ascending and from 0 to the target's 12",
    ),
    "other vocabulary": ({"vocab_size": 321}, "'vocab_size' should be 320, that of"),
    "other width": ({"target_hidden_size": 128}, "'target_hidden_size' should be 64"),
    "llama 4": ({"model_type": "llama4_text"}, "'model_type' should be of a head that rotates"),
    "unknown key": ({"brand_new": 1}, "unknown keys: brand_new"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_supported_is_refused_by_name(
    case: str, target: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    changes, message = BAD[case]
    config = head_for(TARGET)
    values, layer = layout("specforge", config)
    folder = write(tmp_path / "head", values | changes, state_of(config, layer)[0])
    with pytest.raises(ConvertError, match=message):
        convert(folder, tmp_path / "head.gguf", target=target)
    assert not (tmp_path / "head.gguf").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("d2t"), r"'d2t' \[160\] is missing"),
        (lambda s: s.update(d2t=s["d2t"][:-1]), r"'d2t' should have the shape \[160\]"),
        (lambda s: s.update(d2t=s["d2t"] + 400), "the head's id 0 would be 4"),
        (lambda s: s.update(d2t=-np.arange(160)), "0 would occur twice"),
        (lambda s: s.update(t2d=~s["t2d"]), "not those that 't2d' marks"),
        (lambda s: s.update(t2d=s["t2d"][:-1]), r"'t2d' should have the shape \[320\]"),
        (lambda s: s.update(d2t=s["d2t"].astype(np.float32)), "vector of whole numbers"),
        (lambda s: s.pop("midlayer.hidden_norm.weight"), "hidden_norm.weight' .* is missing"),
        (lambda s: s.update({"fc.weight": s["fc.weight"][:, :128]}), r"\[64, 192\] by config"),
        (lambda s: s.update({"fc_norm.0.weight": np.ones(64, np.float32)}), "norm for each tap"),
        (lambda s: s.update({"layers.1.x": np.ones(64, np.float32)}), "more than one layer"),
        (
            lambda s: s.update({"midlayer.self_attn.q_proj.bias": np.ones(64, np.float32)}),
            "biases are not supported",
        ),
        (
            lambda s: s.update({"layers.0.hidden_norm.weight": np.ones(64, np.float32)}),
            r"'layers\.0\.hidden_norm\.weight' is there twice, as 'midlayer",
        ),
        (lambda s: s.update({"extra": np.ones(64, np.float32)}), "1 tensors do not belong"),
    ],
)
def test_wrong_tensors_are_named(
    change: Any, message: str, target: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    config = head_for(TARGET)
    values, layer = layout("specforge", config)
    state, _ = state_of(config, layer)
    change(state)
    folder = write(tmp_path / "head", values, state)
    with pytest.raises(ConvertError, match=message):
        convert(folder, tmp_path / "head.gguf", target=target)


def test_the_command_asks_for_the_target_and_shows_the_plan(
    target: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = head_for(TARGET)
    values, layer = layout("eagle", config)
    folder = write(tmp_path / "head", values, state_of(config, layer)[0], "BF16")
    out = tmp_path / "head.gguf"
    assert main([str(folder), str(out)]) == 3
    assert "is an EAGLE-3 head and has no tokenizer: give its target" in capsys.readouterr().err
    assert main([str(folder), str(out), "--target", str(target), "--outtype", "q4_k_m"]) == 3
    assert "can be written as one of" in capsys.readouterr().err
    assert main([str(folder), str(out), "--target", str(tmp_path / "no.gguf")]) == 3
    assert "no such file or folder" in capsys.readouterr().err
    assert main([str(folder), "--target", str(target), "--dry-run"]) == 0
    shown = capsys.readouterr()
    assert "architecture eagle3" in shown.out
    assert "the usual [2, 6, 9] of 12 are written" in shown.err
    assert "(rows reordered)" in shown.out
    hf.write_checkpoint(tmp_path / "plain")
    assert main([str(tmp_path / "plain"), str(out), "--target", str(target)]) == 3
    assert "is no EAGLE-3 head" in capsys.readouterr().err


def test_damaged_targets_are_named(tmp_path: pathlib.Path) -> None:
    config = head_for(TARGET)
    values, layer = layout("eagle", config)
    folder = write(tmp_path / "head", values, state_of(config, layer)[0])
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF nonsense")
    with pytest.raises(ConvertError, match=r"broken\.gguf: cannot be read as a model"):
        convert(folder, tmp_path / "head.gguf", target=broken)
    assert json.loads((folder / "config.json").read_text()) == values
