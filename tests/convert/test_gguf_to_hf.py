"""GGUF to a Hugging Face checkpoint and back: the same weights, tokens and perplexity."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import hf_checkpoints as hf
import tiny_models
from helpers import model_path, native, specdec_binary

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
native_tokenizer = native("tokenizer")

from test_tokenizer_peers import assert_equal, random_texts  # noqa: E402

from gguf_convert import ConvertError, convert  # noqa: E402
from gguf_convert.to_hf import gguf_to_hf  # noqa: E402

SCRIPT = hf.TOOLS / "gguf_to_hf.py"


def dequantised(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors
    }


@pytest.mark.parametrize("outtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("arch", ["llama", "gptneox"])
def test_there_and_back_is_the_same_file(arch: str, outtype: str, tmp_path: pathlib.Path) -> None:
    config = hf.llama_config() if arch == "llama" else hf.neox_config(vocab_size=384)
    hf.write_checkpoint(tmp_path / "c", config)
    convert(tmp_path / "c", tmp_path / "one.gguf", outtype=outtype, name="same")
    command = [sys.executable, SCRIPT, tmp_path / "one.gguf", tmp_path / "back", "--dtype", outtype]
    subprocess.run(command, check=True, capture_output=True)
    assert not list((tmp_path / "back").glob("*.partial"))
    convert(tmp_path / "back", tmp_path / "two.gguf", outtype=outtype, name="same")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()


@pytest.mark.parametrize("dtype", ["Q4_0", "Q8_0", "Q4_K", "Q6_K"])
def test_quantised_weights_come_back_dequantised(dtype: str, tmp_path: pathlib.Path) -> None:
    config = tiny_models.TinyConfig(hidden_size=256, intermediate_size=256, head_dim=64)
    path = tiny_models.write_tiny(tmp_path / "one.gguf", config, dtype=dtype)
    gguf_to_hf(path, tmp_path / "back")
    convert(tmp_path / "back", tmp_path / "two.gguf", outtype="f32")
    one, two = dequantised(path), dequantised(tmp_path / "two.gguf")
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_a_sentencepiece_vocabulary_comes_back(tmp_path: pathlib.Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    tokenizers = pytest.importorskip("tokenizers")
    hf.write_checkpoint(tmp_path / "c", hf.llama_config(vocab_size=704), tokenizer=False)
    (tmp_path / "c" / "tokenizer.model").write_bytes(hf.trained_spm())
    convert(tmp_path / "c", tmp_path / "one.gguf", outtype="f32", name="same")
    gguf_to_hf(tmp_path / "one.gguf", tmp_path / "back")
    convert(tmp_path / "back", tmp_path / "two.gguf", outtype="f32", name="same")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()

    texts = list(random_texts(10_000))
    expected = sentencepiece.SentencePieceProcessor(model_proto=hf.trained_spm()).encode(texts)
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    encoded = fast.encode_batch(texts, add_special_tokens=False)
    assert_equal(texts, [encoding.ids for encoding in encoded], expected)
    assert fast.encode("a").ids[0] == 1

    (tmp_path / "back" / "tokenizer.model").unlink()  # scores from merges
    convert(tmp_path / "back", tmp_path / "three.gguf", outtype="f32")
    ours = native_tokenizer.Tokenizer.open(str(tmp_path / "three.gguf"))
    assert_equal(texts, ours.encode_batch([text.encode() for text in texts]), expected)


def test_what_it_cannot_write_is_refused(tmp_path: pathlib.Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    no_tokenizer = tiny_models.write_tiny(tmp_path / "no.gguf", tokenizer=False)
    odd = tiny_models.write_tiny(tmp_path / "odd.gguf", extra={"tokenizer.ggml.pre": "viking"})
    for path, message in [
        (tmp_path / "bad.gguf", "not a readable GGUF file"),
        (tmp_path / "nowhere.gguf", "not a readable GGUF file"),
        (no_tokenizer, "has no tokenizer"),
        (odd, "no tokenizer.json for the pre-tokenizer 'viking'"),
    ]:
        with pytest.raises(ConvertError, match=message):
            gguf_to_hf(path, tmp_path / "back")
        done = subprocess.run(
            [sys.executable, SCRIPT, path, tmp_path / "back"], capture_output=True, text=True
        )
        assert done.returncode == 3
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "back" / "model.safetensors").exists()


def perplexity(path: pathlib.Path, text: pathlib.Path) -> float:
    command = [specdec_binary(), "perplexity", "-m", path, "-f", text, "-c", "256", "--json"]
    done = subprocess.run([*map(str, command), "--chunks", "4"], capture_output=True, check=True)
    return float(json.loads(done.stdout)["perplexity"])


@pytest.mark.slow
def test_smollm2_keeps_its_weights_tokens_and_perplexity(tmp_path: pathlib.Path) -> None:
    original = model_path("SmolLM2-135M-Instruct.Q4_1.gguf")
    gguf_to_hf(original, tmp_path / "back")
    for outtype in ("f32", "f16", "q4_1"):
        convert(tmp_path / "back", tmp_path / f"{outtype}.gguf", outtype=outtype)
    one = dequantised(original)
    for outtype in ("f32", "q4_1"):
        two = dequantised(tmp_path / f"{outtype}.gguf")
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[name], two[name]) for name in one)

    text = tmp_path / "text.txt"
    text.write_text("\n".join(hf.corpus()), "utf-8")
    # The same weights through the same kernels; then plain weights, exact and rounded.
    q4_1 = perplexity(tmp_path / "q4_1.gguf", text)
    assert q4_1 == pytest.approx(perplexity(original, text), rel=1e-3)
    f32, f16 = (perplexity(tmp_path / f"{t}.gguf", text) for t in ("f32", "f16"))
    assert f16 == pytest.approx(f32, rel=1e-3)
    assert f32 == pytest.approx(q4_1, rel=2e-2)  # activations are rounded to 8 bits in the latter

    tokenizers = pytest.importorskip("tokenizers")
    texts = list(random_texts(10_000))
    fast = tokenizers.Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    theirs = [e.ids for e in fast.encode_batch(texts, add_special_tokens=False)]
    ours = native_tokenizer.Tokenizer.open(str(tmp_path / "f16.gguf"))
    assert_equal(texts, ours.encode_batch([t.encode() for t in texts]), theirs)
