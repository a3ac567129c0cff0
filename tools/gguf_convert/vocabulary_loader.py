"""Finds a checkpoint's tokenizer and makes GGUF's vocabulary of it."""

from __future__ import annotations

import pathlib
from typing import Any

from .errors import ConvertError, short
from .special_tokens import TokenizerFiles
from .tokenizer_json import TokenizerJson
from .vocabulary import AddedToken, Vocabulary, fill_holes, place_added


def _merge_added(first: list[AddedToken], second: list[AddedToken], where: str) -> list[AddedToken]:
    found = {token.id: token for token in second}
    for token in first:
        other = found.get(token.id)
        if other is not None and other.text != token.text:
            raise ConvertError(
                f"{where}: id {token.id} is '{short(token.text)}' in tokenizer.json and "
                f"'{short(other.text)}' in the files beside it"
            )
        found[token.id] = token
    return [found[i] for i in sorted(found)]


def _note_added(vocab: Vocabulary, added: list[AddedToken]) -> None:
    strips = [token.text for token in added if token.strips]
    if strips:
        vocab.notes.append(
            "these added tokens also take the spaces beside them in transformers, not here: "
            + short(", ".join(strips), 200)
        )


def _set_ends(vocab: Vocabulary, files: TokenizerFiles, json: TokenizerJson | None) -> None:
    """add_bos and add_eos: tokenizer_config.json says, else the post-processor."""
    template = json.template_tokens() if json is not None else None
    for name in ("bos", "eos"):
        texts = None if template is None else template[0 if name == "bos" else 1]
        token = vocab.special_ids.get(name)
        if texts and (token is None or [vocab.tokens[token]] != texts):
            raise ConvertError(
                f"{files.folder / 'tokenizer.json'}: the post-processor adds {short(texts)}, only "
                f"the {name.upper()} token can be added there"
            )
        said = files.flag(f"add_{name}_token")
        default = vocab.model == "llama" and name == "bos" if json is None else bool(texts)
        setattr(vocab, f"add_{name}", default if said is None else said)


def _byte_level(json: TokenizerJson, files: TokenizerFiles, pre: str | None) -> Vocabulary:
    normalizers = json.check_normalizer(("NFC",))
    tokens, types = json.base_tokens()
    added = _merge_added(json.added, files.added_tokens(), str(files.folder))
    place_added(added, tokens, types, str(json.path))
    vocab = Vocabulary("gpt2", [], types)
    vocab.tokens = fill_holes(tokens, vocab.notes)
    vocab.merges = [f"{left} {right}" for left, right in json.merges]
    vocab.pre = pre or json.pre_tokenizer_name()
    if normalizers:
        vocab.notes.append(
            "the tokenizer normalises text to NFC; GGUF cannot say so: compose text beforehand"
        )
    _note_added(vocab, added)
    return vocab


def load_vocabulary(
    folder: pathlib.Path, model_config: dict[str, Any], *, pre: str | None = None
) -> Vocabulary:
    """`pre` overrides the name of the pre-tokenizer of a byte-level BPE."""
    files = TokenizerFiles(folder, model_config)
    json_path = folder / "tokenizer.json"
    if not json_path.is_file():
        raise ConvertError(f"{folder}: no tokenizer: expected tokenizer.json or tokenizer.model")
    json = TokenizerJson(json_path)
    vocab = _byte_level(json, files, pre)
    files.set_special_ids(vocab)
    _set_ends(vocab, files, json)
    vocab.chat_templates = files.chat_templates()
    vocab.check(str(folder))
    return vocab
