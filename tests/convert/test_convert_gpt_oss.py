"""MXFP4 checkpoints of gpt-oss become the same numbers; what could not be the same is refused."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

import hf_checkpoints as hf
from helpers import native

testing = native("model")
torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("transformers", reason="transformers is not installed")
gguf = pytest.importorskip("gguf", reason="gguf is not installed")
safetensors = pytest.importorskip("safetensors.numpy", reason="safetensors is not installed")

from test_model_transformers import expected_logits, gpt_oss, randomise, rope  # noqa: E402

from gguf_convert import convert  # noqa: E402
from gguf_convert.errors import ConvertError  # noqa: E402

VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
VALUES = np.concatenate([VALUES, -VALUES])  # of the codes of FP4
SCALE = {"gate_up_proj": 124, "down_proj": 121}  # exponents of 2, plus 127


def packed(shape: tuple[int, ...], scale: int, rng: np.random.Generator) -> Any:
    """Blocks and scales of [..., n_in] random numbers, and the numbers."""
    codes = rng.integers(0, 16, (*shape[:-1], shape[-1] // 32, 32)).astype(np.uint8)
    scales = rng.integers(scale - 1, scale + 2, codes.shape[:-1]).astype(np.uint8)
    numbers = VALUES[codes] * np.exp2(scales.astype(np.float32) - 127)[..., None]
    return codes[..., 0::2] | codes[..., 1::2] << 4, scales, numbers.reshape(shape)


@pytest.fixture
def checkpoint(tmp_path: pathlib.Path) -> tuple[pathlib.Path, Any, dict[str, np.ndarray]]:
    """A folder, the model with the same numbers, and the experts' matrices."""
    torch.manual_seed(1)
    # All experts: near ties would turn over. Truncating as llama.cpp does.
    model = gpt_oss(
        num_experts_per_tok=5,
        rope_parameters=rope("yarn", original_max_position_embeddings=128),
    )
    randomise(model)
    rng = np.random.default_rng(2)
    folder = tmp_path / "c"
    matrices: dict[str, np.ndarray] = {}
    tensors: dict[str, np.ndarray] = {}
    for name, p in model.named_parameters():
        end = name.rsplit(".", 1)[-1]
        if end not in SCALE:
            continue
        n, n_in, n_out = p.shape  # transformers turns them when it loads
        blocks, scales, numbers = packed((n, n_out, n_in), SCALE[end], rng)
        with torch.no_grad():
            p.copy_(torch.from_numpy(numbers).swapaxes(1, 2))
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        matrices[name] = numbers
    model.save_pretrained(folder)
    hf.add_bpe(folder)
    path = folder / "model.safetensors"
    plain = {k: v for k, v in safetensors.load_file(path).items() if k not in matrices}
    safetensors.save_file(plain | tensors, path)
    change_config(folder, quantization_config={"quant_method": "mxfp4"})
    return folder, model, matrices


def change_config(folder: pathlib.Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


@pytest.mark.parametrize("outtype", ["f32", "f16", "q8_0"])
def test_mxfp4_stays_what_it_is(checkpoint: Any, outtype: str, tmp_path: pathlib.Path) -> None:
    folder, model, matrices = checkpoint
    convert(folder, tmp_path / "out.gguf", outtype=outtype)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    for name, numbers in matrices.items():
        layer = name.split(".")[2]
        parts = {"down": numbers}
        if name.endswith("gate_up_proj"):
            parts = {"gate": numbers[:, 0::2], "up": numbers[:, 1::2]}
        for part, expected in parts.items():
            tensor = found[f"blk.{layer}.ffn_{part}_exps.weight"]
            assert tensor.tensor_type.name == "MXFP4"
            values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            np.testing.assert_array_equal(values, expected)
    assert reader.fields["general.file_type"].contents() == 38
    if outtype != "f32":
        return
    tokens = np.random.default_rng(1).integers(0, 300, 60).tolist()
    # Plain loops, which do not round activations.
    session = testing.Model(str(tmp_path / "out.gguf"), backend="reference").session(kv_type="f32")
    expected = expected_logits(model, tokens)
    assert np.abs(session.forward(tokens) - expected).max() < 1e-4
    fast = testing.Model(str(tmp_path / "out.gguf")).session(kv_type="f32")
    assert np.abs(fast.forward(tokens) - expected).max() < 0.2 * expected.std()


def refusal(folder: pathlib.Path, outtype: str = "f16") -> str:
    with pytest.raises(ConvertError) as caught:
        convert(folder, folder / "out.gguf", outtype=outtype)
    return str(caught.value)


def test_what_cannot_be_kept_is_refused_by_name(checkpoint: Any) -> None:
    folder, *_ = checkpoint
    assert "stay so" in refusal(folder, "q4_k_m")
    change_config(folder, quantization_config={"quant_method": "gptq"})
    assert "'quantization_config' should be" in refusal(folder)
    change_config(folder, quantization_config={"quant_method": "mxfp4"}, swiglu_limit=8.0)
    assert "'swiglu_limit' should be 7.0" in refusal(folder)
    change_config(folder, swiglu_limit=7.0, swiglu_alpha=1.0)
    assert "'swiglu_alpha' should be 1.702" in refusal(folder)
    change_config(folder, swiglu_alpha=1.702)
    path = folder / "model.safetensors"
    tensors = safetensors.load_file(path)
    name = "model.layers.0.mlp.experts.down_proj_scales"
    scales = tensors.pop(name)
    safetensors.save_file(tensors, path)
    assert f"'{name}' [5, 64, 5] is missing" in refusal(folder)
    safetensors.save_file(tensors | {name: scales.astype(np.float32)}, path)
    assert f"'{name}' should have the shape [5, 64, 5] of bytes" in refusal(folder)
    change_config(folder, quantization_config=None)
    assert "experts.gate_up_proj' [5, 160, 64] is missing" in refusal(folder)


def test_llama_cpp_reads_the_same_experts(checkpoint: Any, tmp_path: pathlib.Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder, model, _ = checkpoint
    convert(folder, tmp_path / "out.gguf", outtype="f32")
    tokens = np.random.default_rng(1).integers(0, 300, 60).tolist()
    peer = llama_cpp.Llama(
        str(tmp_path / "out.gguf"), n_ctx=128, n_threads=2, logits_all=True, verbose=False
    )
    peer.eval(tokens)
    theirs = np.array(peer.scores[: len(tokens)])
    peer.close()
    ours = testing.Model(str(tmp_path / "out.gguf")).session(kv_type="f32").forward(tokens)
    expected = expected_logits(model, tokens)
    same = int((theirs.argmax(1) == ours.argmax(1)).sum())
    apart = [float(np.abs(rows - expected).max() / expected.std()) for rows in (ours, theirs)]
    print(f"top-1 {same}/60, to transformers {apart[0]:.1e} and llama.cpp {apart[1]:.1e}")
    assert same >= 54  # both round activations to 8 bits, each its way
    assert max(apart) < 0.2
