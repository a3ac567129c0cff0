"""Finds a checkpoint's tokenizer and makes GGUF's vocabulary of it."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Container
from typing import Any

from .errors import ConvertError, short
from .pre_tokenizers import check_name
from .sentencepiece_model import SentencePieceModel, read_model
from .special_tokens import TokenizerFiles
from .spm_vocabulary import check_same, pieces_of_json, pieces_of_model, space_prefix
from .tokenizer_json import TokenizerJson
from .vocabulary import (
    AS_SPELT,
    BYTE,
    IN_PREPARED_TEXT,
    NEVER_MERGED,
    USER_DEFINED,
    AddedToken,
    Vocabulary,
    fill_holes,
    place_added,
)


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


def _set_flags(vocab: Vocabulary, added: list[AddedToken], own: Container[str]) -> None:
    """What added tokens match; `own`: texts that the model itself has and may be merged."""
    for token in added:
        flags = token.flags()
        if flags and token.text not in own:
            flags |= NEVER_MERGED
        if flags:
            vocab.added_flags[token.id] = flags
    if vocab.model == "gpt2" and all(token.normalized for token in added):
        # Nothing is prepared there: it only says which tokens are looked for first.
        for i in vocab.added_flags:
            vocab.added_flags[i] &= ~IN_PREPARED_TEXT
    special = [token.text for token in added if token.flags()]
    if any(flags & ~NEVER_MERGED for flags in vocab.added_flags.values()):
        vocab.notes.append(
            "only specdec reads the keys that say where these added tokens match (normalized, "
            "lstrip, rstrip, single_word): " + short(", ".join(special), 200)
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
        default = bool(texts)
        if json is None:  # sentencepiece's LLaMA adds BOS, where the model has one
            default = vocab.model == "llama" and name == "bos" and token is not None
        setattr(vocab, f"add_{name}", default if said is None else said)


def _byte_level(json: TokenizerJson, files: TokenizerFiles, pre: str | None) -> Vocabulary:
    normalizers = json.check_normalizer(("NFC",))
    tokens, types = json.base_tokens()
    added = _merge_added(json.added, files.added_tokens(), str(files.folder))
    place_added(added, tokens, types, str(json.path))
    vocab = Vocabulary("gpt2", [], types)
    vocab.tokens = fill_holes(tokens, vocab.notes)
    vocab.merges = [f"{left} {right}" for left, right in json.merges]
    vocab.pre = check_name(pre, str(json.path)) if pre else json.pre_tokenizer_name()
    if normalizers:
        vocab.notes.append(
            "the tokenizer normalises text to NFC; GGUF cannot say so: compose text beforehand"
        )
    _set_flags(vocab, added, json.vocab)
    return vocab


def _sentencepiece(
    model: SentencePieceModel | None, json: TokenizerJson | None, files: TokenizerFiles
) -> Vocabulary:
    """From tokenizer.model where there is one, else from a tokenizer.json of that kind."""
    if model is not None:
        pieces = pieces_of_model(model)
        if json is not None:
            check_same(pieces, json)
            pieces.add_space_prefix, pieces.space_prefix = space_prefix(json, pieces.notes)
            pieces.remove_extra_whitespaces, pieces.escape_whitespaces = False, True
            pieces.fuse_unknown = json.fuse_unknown
        elif files.flag("add_prefix_space") is False:
            pieces.add_space_prefix = False
    else:
        assert json is not None
        pieces = pieces_of_json(json)
    n_pieces = len(pieces.tokens)
    added = files.added_tokens()
    if json is not None:
        added = _merge_added(json.added, added, str(files.folder))
    place_added(added, pieces.tokens, pieces.types, str(files.folder))
    vocab = Vocabulary("llama", [], pieces.types, notes=pieces.notes)
    vocab.tokens = fill_holes(pieces.tokens, vocab.notes)
    vocab.scores = pieces.scores + [-1000.0] * (len(vocab.tokens) - n_pieces)
    vocab.add_space_prefix = pieces.add_space_prefix
    vocab.space_prefix = pieces.space_prefix
    vocab.remove_extra_whitespaces = pieces.remove_extra_whitespaces
    vocab.escape_whitespaces = pieces.escape_whitespaces
    vocab.fuse_unknown = pieces.fuse_unknown or vocab.types.count(BYTE) == 256
    if model is not None:
        ids = {"bos": model.bos_id, "eos": model.eos_id, "unknown": model.unk_id}
        ids["padding"] = model.pad_id
        vocab.special_ids = {name: i for name, i in ids.items() if 0 <= i < n_pieces}
    elif json is not None and json.unknown in json.vocab:
        vocab.special_ids["unknown"] = json.vocab[json.unknown]
    own = {text for text in vocab.tokens[:n_pieces] if isinstance(text, str)}
    _set_flags(vocab, added, own if json is None else json.vocab)
    if json is None:
        placed = {token.id for token in added}
        for i, kind in enumerate(vocab.types[:n_pieces]):
            if kind == USER_DEFINED and i not in placed:
                vocab.added_flags[i] = AS_SPELT
    return vocab


def _is_rank_list(path: pathlib.Path) -> bool:
    """Llama 3's own tokenizer.model is a list of base64 texts and ranks, not sentencepiece."""
    with path.open("rb") as file:
        return re.match(rb"[A-Za-z0-9+/]+=* [0-9]+\n", file.read(200)) is not None


def load_vocabulary(
    folder: pathlib.Path, model_config: dict[str, Any], *, pre: str | None = None
) -> Vocabulary:
    """`pre` overrides the name of the pre-tokenizer of a byte-level BPE."""
    files = TokenizerFiles(folder, model_config)
    json_path, model_path = folder / "tokenizer.json", folder / "tokenizer.model"
    json = TokenizerJson(json_path) if json_path.is_file() else None
    model = None
    if model_path.is_file() and not _is_rank_list(model_path):
        model = read_model(model_path)
    if json is None and model is None:
        raise ConvertError(
            f"{folder}: no tokenizer: expected tokenizer.json, or a sentencepiece tokenizer.model; "
            "transformers writes one: AutoTokenizer.from_pretrained(...).save_pretrained(...)"
        )
    if model is not None or (json is not None and json.like_sentencepiece):
        if json is not None and not json.like_sentencepiece:
            raise ConvertError(
                f"{folder}: tokenizer.json is a byte-level BPE but tokenizer.model a sentencepiece "
                "model; remove the one that does not belong to the checkpoint"
            )
        vocab = _sentencepiece(model, json, files)
        if pre:
            vocab.notes.append(f"--pre-tokenizer {short(pre)}: SentencePiece needs none, left out")
    else:
        assert json is not None
        vocab = _byte_level(json, files, pre)
    files.set_special_ids(vocab)
    _set_ends(vocab, files, json)
    vocab.chat_templates = files.chat_templates()
    vocab.check(str(folder))
    return vocab
