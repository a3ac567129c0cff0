"""Experts that checkpoints hold in other ways become the same file."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

from test_convert_transformers import convert, save  # noqa: E402


def stack_experts(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All of a layer in one tensor, the rows of gates before those of ups."""
    out = {name: values for name, values in tensors.items() if ".experts." not in name}
    for layer in range(4):
        of = f"model.layers.{layer}.mlp.experts"
        gate, up, down = (
            np.stack([tensors[f"{of}.{e}.{part}_proj.weight"] for e in range(5)])
            for part in ("gate", "up", "down")
        )
        out[f"{of}.gate_up_proj"] = np.concatenate([gate, up], axis=1)
        out[f"{of}.down_proj"] = down
    return out


def test_stacks_of_a_model_that_also_sees_images(tmp_path: pathlib.Path) -> None:
    for name in ("each", "all"):
        save("qwen35moe", tmp_path / name)
    weights = tmp_path / "all" / "model.safetensors"
    tensors = {
        name.replace("model.", "model.language_model.", 1): values
        for name, values in stack_experts(safetensors.load_file(weights)).items()
    }
    safetensors.save_file(tensors, weights)
    config = json.loads((tmp_path / "all" / "config.json").read_text())
    (tmp_path / "all" / "config.json").write_text(
        json.dumps(
            {
                "architectures": ["Qwen3_5MoeForConditionalGeneration"],
                "model_type": "qwen3_5_moe",
                "text_config": config,
                "tie_word_embeddings": config["tie_word_embeddings"],
            }
        )
    )
    for name in ("each", "all"):
        convert(tmp_path / name, tmp_path / f"{name}.gguf", outtype="q8_0", name="same")
    assert (tmp_path / "each.gguf").read_bytes() == (tmp_path / "all.gguf").read_bytes()
