"""Special and added tokens that do not fit: those that only pad are left out with a note."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import hf_checkpoints as hf
from helpers import native

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
native_tokenizer = native("tokenizer")

from gguf_convert import ConvertError, convert  # noqa: E402

ROWS = 300


def checkpoint(folder: pathlib.Path, added: list[str], **names: Any) -> pathlib.Path:
    """An embedding of as many rows as the tokenizer had tokens before some were added."""
    hf.write_checkpoint(folder, hf.llama_config(vocab_size=ROWS))
    values = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i, text in enumerate(added):
        values["added_tokens"].append({"id": ROWS + i, "content": text, "special": True, **flags})
    hf.write_json(folder / "tokenizer.json", values)
    path = folder / "tokenizer_config.json"
    hf.write_json(path, json.loads(path.read_text("utf-8")) | names)
    return folder


PADDING = ["[PAD]", "<pad>", "<|pad|>", "<PAD>", "<|padding|>", "<pad_token>", "<|_pad_3|>"]


@pytest.mark.parametrize("text", PADDING)
def test_padding_beyond_the_embedding_is_left_out(text: str, tmp_path: pathlib.Path) -> None:
    # "<|padding|>" is a token of the small tokenizer already.
    text = text.replace("<|padding|>", "[PADDING]")
    folder = checkpoint(tmp_path / "c", [text], pad_token=text)
    plan = convert(folder, tmp_path / "out.gguf", outtype="f32")
    assert any(f"300 rows: left out are {text}" in note for note in plan.notes)
    assert len(plan.keys["tokenizer.ggml.tokens"]) == ROWS
    assert len(plan.keys["tokenizer.ggml.token_type"]) == ROWS
    assert "tokenizer.ggml.padding_token_id" not in plan.keys
    assert native_tokenizer.Tokenizer.open(str(tmp_path / "out.gguf")).n_tokens == ROWS


def test_a_padding_token_of_any_name_is_one(tmp_path: pathlib.Path) -> None:
    folder = checkpoint(tmp_path / "c", ["<nothing>"], pad_token="<nothing>")
    assert len(convert(folder, tmp_path / "o").keys["tokenizer.ggml.tokens"]) == ROWS


def test_a_sentencepiece_tokenizer_with_padding_beyond_the_embedding(
    tmp_path: pathlib.Path,
) -> None:
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    hf.write_checkpoint(tmp_path, hf.llama_config(vocab_size=700), tokenizer=False)
    (tmp_path / "tokenizer.model").write_bytes(hf.trained_spm())
    hf.write_json(tmp_path / "added_tokens.json", {"<pad>": 700, "[PAD]": 702})
    plan = convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
    assert {len(plan.keys[f"tokenizer.ggml.{k}"]) for k in ("tokens", "token_type", "scores")} == {
        700
    }
    assert native_tokenizer.Tokenizer.open(str(tmp_path / "out.gguf")).n_tokens == 700


def test_other_tokens_beyond_the_embedding_are_refused_by_name(tmp_path: pathlib.Path) -> None:
    folder = checkpoint(tmp_path / "c", ["<pad>", "<|im_start|>", "<paddle>"], pad_token="<pad>")
    message = r"303 tokens but the embedding 300 rows; 2 of .*301 '<\|im_start\|>', 302"
    with pytest.raises(ConvertError, match=message):
        convert(folder, tmp_path / "out.gguf")


def test_ids_that_no_token_has_are_left_out_with_a_note(tmp_path: pathlib.Path) -> None:
    for name, token_id in (("eos", 999), ("pad", 300), ("unk", 2**32 - 1), ("bos", 10**20)):
        hf.write_checkpoint(tmp_path, hf.llama_config(**{f"{name}_token_id": token_id}))
        (tmp_path / "tokenizer_config.json").unlink()
        plan = convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
        wanted = f"config.json: {name}_token_id is {token_id}, but there are 300 tokens: left out"
        assert wanted in plan.notes
        assert not [key for key in plan.keys if key.endswith("_token_id")]
    for token_id in (-1, None, [], "x", True):
        hf.write_checkpoint(tmp_path, hf.llama_config(pad_token_id=token_id))
        plan = convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
        assert "tokenizer.ggml.padding_token_id" not in plan.keys


def test_a_name_that_no_token_has(tmp_path: pathlib.Path) -> None:
    for kind in ("unk", "pad", "sep", "mask"):
        folder = checkpoint(tmp_path / kind, [], **{f"{kind}_token": "<no>"})
        notes = convert(folder, tmp_path / "out.gguf", outtype="f32").notes
        assert f"{kind}_token '<no>' is not in the vocabulary: left out" in notes


def test_a_sentencepiece_model_without_bos_adds_none(tmp_path: pathlib.Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    model = hf.trained_spm(700, bos_id=-1, eos_id=1)
    hf.write_checkpoint(tmp_path, hf.llama_config(vocab_size=700), tokenizer=False)
    (tmp_path / "tokenizer.model").write_bytes(model)
    keys = convert(tmp_path, tmp_path / "out.gguf", outtype="f32").keys
    assert keys["tokenizer.ggml.add_bos_token"] is False
    assert "tokenizer.ggml.bos_token_id" not in keys
    assert keys["tokenizer.ggml.eos_token_id"] == 1
    ours = native_tokenizer.Tokenizer.open(str(tmp_path / "out.gguf"))
    assert not ours.add_bos
    theirs = sentencepiece.SentencePieceProcessor(model_proto=model)
    for text in ("the tokens", " a\n\nb", "ü"):
        assert ours.encode(text.encode(), add_bos=ours.add_bos) == theirs.encode(text)
    hf.write_json(tmp_path / "tokenizer_config.json", {"add_bos_token": True})
    with pytest.raises(ConvertError, match="adds a BOS token, but none is named"):
        convert(tmp_path, tmp_path / "out.gguf")
