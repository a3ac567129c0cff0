"""Merged adapters, wrappers, bare models: the weights say what the model is, not config.json."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hf_checkpoints as hf
from helpers import native

testing = native("model")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")

from test_convert_transformers import (  # noqa: E402
    mistral,
    our_logits,
    random_tokens,
    randomise_weights,
)
from test_model_transformers import expected_logits, llama, neox, qwen2, qwen3  # noqa: E402

from gguf_convert import ConvertError, convert  # noqa: E402

MODELS: dict[str, Callable[..., Any]] = {
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "gptneox": neox,
}
HEAD = {"gptneox": "embed_out.weight"}
EMBEDDING = {"gptneox": "gpt_neox.embed_in.weight"}
State = dict[str, Any]


def head_of(name: str) -> str:
    return HEAD.get(name, "lm_head.weight")


def embedding_of(name: str) -> str:
    return EMBEDDING.get(name, "model.embed_tokens.weight")


def save(name: str, folder: pathlib.Path, *, tied: bool) -> tuple[Any, State]:
    """A model of transformers as a folder, and its tensors for changes."""
    torch.manual_seed(5)
    model = MODELS[name](tie_word_embeddings=tied)
    randomise_weights(model)
    model.save_pretrained(folder)
    hf.add_bpe(folder)
    from safetensors.torch import load_file

    return model, load_file(folder / "model.safetensors")


def write(folder: pathlib.Path, state: State, **changes: Any) -> None:
    from safetensors.torch import save_file

    save_file({k: v.clone() for k, v in state.items()}, folder / "model.safetensors")
    path = folder / "config.json"
    config = json.loads(path.read_text("utf-8")) | changes
    hf.write_json(path, {key: value for key, value in config.items() if value != "absent"})


def assert_same_logits(path: pathlib.Path, model: Any) -> None:
    tokens = random_tokens()
    found, expected = our_logits(path, tokens), expected_logits(model, tokens)
    assert expected.std() > 0.3
    assert float(np.abs(found - expected).max()) < 1e-4


@pytest.mark.parametrize("name", MODELS)
def test_a_trained_head_is_kept_though_the_configuration_says_tied(
    name: str, tmp_path: pathlib.Path
) -> None:
    model, state = save(name, tmp_path / "c", tied=False)
    write(tmp_path / "c", state, tie_word_embeddings=True)
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert any("differs from the embedding" in note for note in plan.notes)
    assert_same_logits(tmp_path / "out.gguf", model)
    # One weight of the last row is enough.
    state[head_of(name)] = state[embedding_of(name)].clone()
    state[head_of(name)][-1, -1] += 1
    write(tmp_path / "c", state)
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert any("differs from the embedding" in note for note in plan.notes)


@pytest.mark.parametrize("name", MODELS)
def test_a_head_that_is_the_embedding_stays_tied(name: str, tmp_path: pathlib.Path) -> None:
    model, state = save(name, tmp_path / "c", tied=True)
    state[head_of(name)] = state[embedding_of(name)]
    write(tmp_path / "c", state)
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert plan.notes == []
    assert ("output.weight" in {t.name for t in plan.targets}) == (name == "gptneox")
    assert_same_logits(tmp_path / "out.gguf", model)


@pytest.mark.parametrize("name", MODELS)
def test_a_tied_embedding_saved_as_the_head_only_is_both(name: str, tmp_path: pathlib.Path) -> None:
    model, state = save(name, tmp_path / "c", tied=True)
    state[head_of(name)] = state.pop(embedding_of(name))
    write(tmp_path / "c", state)
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert any("is missing: the tied head" in note for note in plan.notes)
    assert_same_logits(tmp_path / "out.gguf", model)
    write(tmp_path / "c", state, tie_word_embeddings=False)
    with pytest.raises(ConvertError, match=f"'{embedding_of(name)}' .* is missing"):
        convert(tmp_path / "c", tmp_path / "out.gguf")


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("wrapper", ["base_model.model.", "module.", "_orig_mod.module.", "bare"])
def test_names_that_a_wrapper_changed_are_read(
    wrapper: str, name: str, tmp_path: pathlib.Path
) -> None:
    model, state = save(name, tmp_path / "c", tied=False)
    if wrapper == "bare":  # as LlamaModel names them, beside a head
        base = embedding_of(name).split(".")[0] + "."
        changed = {key.removeprefix(base): value for key, value in state.items()}
    else:
        changed = {wrapper + key: value for key, value in state.items()}
    write(tmp_path / "c", changed)
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert any(note.startswith("names of tensors") for note in plan.notes)
    assert_same_logits(tmp_path / "out.gguf", model)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_without_a_head_is_converted_where_it_is_tied(
    name: str, tmp_path: pathlib.Path
) -> None:
    torch.manual_seed(6)
    model = MODELS[name](tie_word_embeddings=True)
    randomise_weights(model)
    model.base_model.save_pretrained(tmp_path / "c")  # LlamaModel and so on
    hf.add_bpe(tmp_path / "c")
    config = json.loads((tmp_path / "c" / "config.json").read_text("utf-8"))
    assert config["architectures"][0].endswith("Model")
    convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert_same_logits(tmp_path / "out.gguf", model)

    hf.write_json(tmp_path / "c" / "config.json", config | {"tie_word_embeddings": False})
    with pytest.raises(ConvertError, match=r"has no output head, and config.json does not say tie"):
        convert(tmp_path / "c", tmp_path / "out.gguf")


@pytest.mark.parametrize("name", MODELS)
def test_without_architectures_the_model_type_says_what_it_is(
    name: str, tmp_path: pathlib.Path
) -> None:
    model, state = save(name, tmp_path / "c", tied=False)
    write(tmp_path / "c", state, architectures="absent")
    plan = convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert any("'architectures' is missing: taken for" in note for note in plan.notes)
    assert_same_logits(tmp_path / "out.gguf", model)


def test_what_has_two_readings_is_refused(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "c"
    _, state = save("llama", folder, tied=False)
    lora = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"
    for changed, message in [
        (state | {lora: torch.ones(4, 64)}, r"not merged into the weights.*merge_and_unload"),
        (
            {f"{w}.{k}": v for w in ("student", "teacher") for k, v in state.items()},
            r"the tensors of 2 models, below 'student.model.' and 'teacher.model.'",
        ),
        (
            {f"module.{k}": v for k, v in state.items()}
            | {"lm_head.weight": state["lm_head.weight"]},
            "two tensors are 'lm_head.weight'",
        ),
    ]:
        write(folder, changed)
        with pytest.raises(ConvertError, match=message):
            convert(folder, tmp_path / "out.gguf")
    _, state = save("gptneox", tmp_path / "n", tied=False)
    write(tmp_path / "n", state | {"lm_head.weight": torch.ones(300, 64)})
    with pytest.raises(ConvertError, match=r"embed_out.weight and lm_head.weight differ"):
        convert(tmp_path / "n", tmp_path / "out.gguf")
    write(tmp_path / "n", state | {"embed_out.weight": torch.ones(290, 64)})
    with pytest.raises(ConvertError, match=r"'embed_out.weight' should have the shape"):
        convert(tmp_path / "n", tmp_path / "out.gguf")


def test_an_adapter_alone_is_named_as_one(tmp_path: pathlib.Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ConvertError, match=r"an adapter \(peft\), not a checkpoint: merge it"):
        convert(tmp_path, tmp_path / "out.gguf")
