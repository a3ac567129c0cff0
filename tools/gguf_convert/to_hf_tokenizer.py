"""tokenizer.json and the files beside it from the tokenizer keys of a GGUF file."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from .errors import ConvertError, short
from .pre_tokenizers import describe
from .sentencepiece_model import BPE, Piece, SentencePieceModel, encode_model
from .special_tokens import SPECIAL_NAMES
from .spm_vocabulary import SPACE_MARK
from .to_hf_config import token_id
from .vocabulary import (
    AS_SPELT,
    BYTE,
    CONTROL,
    IN_PREPARED_TEXT,
    NORMAL,
    SINGLE_WORD,
    TAKES_LEFT_SPACES,
    TAKES_RIGHT_SPACES,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
)

Json = dict[str, Any]


class _Tokens:
    def __init__(self, keys: Json, path: pathlib.Path) -> None:
        self.path = path
        self.keys = {
            key.removeprefix("tokenizer.ggml."): value
            for key, value in keys.items()
            if key.startswith("tokenizer.ggml.")
        }
        self.texts: list[str] = self.keys.get("tokens") or []
        if not self.texts:
            raise ConvertError(f"{path}: the file has no tokenizer")
        own = {k.removeprefix("specdec.tokenizer."): v for k, v in keys.items()}
        self.flags: dict[int, int] = dict(
            zip(own.get("added_tokens") or [], own.get("added_token_flags") or [], strict=False)
        )
        self.space_prefix: str = own.get("space_prefix", "segments")
        self.escape_whitespaces: bool = own.get("escape_whitespaces", True)
        self.fuse_unknown: bool = own.get("fuse_unknown", True)
        self.types: list[int] = self.keys.get("token_type") or [NORMAL] * len(self.texts)
        self.ids = {kind: token_id(keys, kind) for kind in SPECIAL_NAMES.values()}
        self.templates = {
            key.removeprefix("tokenizer.chat_template").removeprefix(".") or "default": value
            for key, value in keys.items()
            if key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template.")
        }

    @property
    def only_sentencepiece(self) -> bool:
        """Does it prepare texts in a way that no tokenizer.json can?"""
        return (
            any(flags & AS_SPELT for flags in self.flags.values())
            or bool(self.keys.get("remove_extra_whitespaces"))
            or not self.escape_whitespaces
        )

    def name(self, kind: str) -> str | None:
        token = self.ids.get(kind)
        return None if token is None else self.texts[token]

    def vocab(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for token, text in enumerate(self.texts):
            if self.types[token] != UNUSED:
                found.setdefault(text, token)
        return found

    def added(self) -> list[Json]:
        return [
            {
                "id": token,
                "content": text,
                "single_word": bool(self.flags.get(token, 0) & SINGLE_WORD),
                "lstrip": bool(self.flags.get(token, 0) & TAKES_LEFT_SPACES),
                "rstrip": bool(self.flags.get(token, 0) & TAKES_RIGHT_SPACES),
                "normalized": bool(self.flags.get(token, 0) & IN_PREPARED_TEXT),
                "special": self.types[token] != USER_DEFINED,
            }
            for token, text in enumerate(self.texts)
            if self.types[token] in (CONTROL, UNKNOWN, USER_DEFINED)
        ]

    def template_processing(self, default_bos: bool) -> Json | None:
        """The post-processor that adds BOS and EOS."""
        parts: list[Json] = [{"Sequence": {"id": "A", "type_id": 0}}]
        pair: list[Json] = [{"Sequence": {"id": "B", "type_id": 1}}]
        special: Json = {}
        for kind, default in (("bos", default_bos), ("eos", False)):
            text = self.name(kind)
            if not self.keys.get(f"add_{kind}_token", default) or text is None:
                continue
            token = {"SpecialToken": {"id": text, "type_id": 0}}
            parts.insert(0 if kind == "bos" else len(parts), token)
            special[text] = {"id": text, "ids": [self.ids[kind]], "tokens": [text]}
        if not special:
            return None
        return {
            "type": "TemplateProcessing",
            "single": parts,
            "pair": parts + pair,
            "special_tokens": special,
        }


def _byte_level(tokens: _Tokens) -> Json:
    pre = tokens.keys.get("pre", "default")
    described = describe(str(pre))
    if described is None:
        raise ConvertError(f"{tokens.path}: no tokenizer.json for the pre-tokenizer '{short(pre)}'")
    steps, ignore_merges = described
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": ignore_merges,
        "vocab": tokens.vocab(),
        "merges": [_split(merge) for merge in tokens.keys.get("merges") or []],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": tokens.template_processing(ignore_merges)
        or byte_level | {"use_regex": True},
        "decoder": byte_level | {"use_regex": True},
        "model": model,
    }


def _split(merge: str) -> list[str]:
    space = merge.find(" ", 1)
    return [merge[:space], merge[space + 1 :]]


def _spm_merges(tokens: _Tokens) -> list[list[str]]:
    """All pairs of tokens that make a token, the best score first."""

    def merged(token: int) -> bool:
        """May merges make it? Also an added token that the model's own vocabulary has."""
        flags = tokens.flags.get(token, 0)
        added = tokens.types[token] == USER_DEFINED and 0 < flags < AS_SPELT
        return added or tokens.types[token] == NORMAL

    plain = {text for text, i in tokens.vocab().items() if merged(i)}
    scores = tokens.keys.get("scores") or []
    found: list[list[str]] = []
    for i in sorted(range(len(tokens.texts)), key=lambda i: -scores[i]):
        text = tokens.texts[i]
        if text not in plain or not merged(i):
            continue
        for cut in range(1, len(text)):
            if text[:cut] in plain and text[cut:] in plain:
                found.append([text[:cut], text[cut:]])
    return found


def _sentencepiece(tokens: _Tokens) -> Json:
    if len(tokens.keys.get("scores") or []) != len(tokens.texts):
        raise ConvertError(f"{tokens.path}: the tokenizer has no scores")
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE_MARK}
    steps: list[Json] = [{"type": "Prepend", "prepend": SPACE_MARK}, replace]
    prefix = tokens.keys.get("add_space_prefix", True)
    back = {"type": "Replace", "pattern": {"String": SPACE_MARK}, "content": " "}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": tokens.name("unknown"),
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": tokens.fuse_unknown,
        "byte_fallback": BYTE in tokens.types,
        "ignore_merges": False,
        "vocab": tokens.vocab(),
        "merges": _spm_merges(tokens),
    }
    normalizer: Json | None = {"type": "Sequence", "normalizers": steps if prefix else steps[1:]}
    split: Json | None = None
    if tokens.space_prefix != "segments":
        normalizer = None
        scheme = tokens.space_prefix if prefix else "never"
        split = {"type": "Metaspace", "replacement": SPACE_MARK, "prepend_scheme": scheme}
        split["split"] = False
    return {
        "normalizer": normalizer,
        "pre_tokenizer": split,
        "post_processor": tokens.template_processing(True),
        "decoder": {
            "type": "Sequence",
            "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}, *(strip * prefix)],
        },
        "model": model,
    }


def _model_file(tokens: _Tokens) -> bytes:
    """tokenizer.model, up to the padding."""
    n_tokens = len(tokens.texts)
    while n_tokens and tokens.types[n_tokens - 1] == UNUSED:
        n_tokens -= 1
    rows = zip(tokens.texts, tokens.keys["scores"], tokens.types, strict=True)
    model = SentencePieceModel([Piece(*row) for row in rows][:n_tokens], BPE)
    model.remove_extra_whitespaces = bool(tokens.keys.get("remove_extra_whitespaces"))
    model.escape_whitespaces = tokens.escape_whitespaces
    model.add_dummy_prefix = bool(tokens.keys.get("add_space_prefix", True))
    for kind, name in (("unknown", "unk"), ("bos", "bos"), ("eos", "eos"), ("padding", "pad")):
        token = tokens.ids[kind]
        setattr(model, f"{name}_id", -1 if token is None else token)
    return encode_model(model)


def tokenizer_files(keys: Json, path: pathlib.Path, context: int) -> dict[str, bytes]:
    """File name -> content."""
    tokens = _Tokens(keys, path)
    kind = tokens.keys.get("model")
    files: dict[str, bytes] = {}
    if kind == "gpt2":
        body = _byte_level(tokens)
        default_bos = body["model"]["ignore_merges"]
    elif kind == "llama":
        body = _sentencepiece(tokens)
        default_bos = True
        files["tokenizer.model"] = _model_file(tokens)
    else:
        raise ConvertError(f"{path}: the tokenizer '{short(kind)}' is not supported")
    head = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens.added()}
    if not tokens.only_sentencepiece:
        text = json.dumps(head | body, ensure_ascii=False, indent=1)
        files["tokenizer.json"] = text.encode()
    config: Json = {
        "tokenizer_class": "LlamaTokenizer"
        if tokens.only_sentencepiece
        else "PreTrainedTokenizerFast",
        "model_max_length": context,
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(tokens.keys.get("add_bos_token", default_bos)),
        "add_eos_token": bool(tokens.keys.get("add_eos_token", False)),
    }
    for name, gguf_name in SPECIAL_NAMES.items():
        if (text_of := tokens.name(gguf_name)) is not None:
            config[f"{name}_token"] = text_of
    if set(tokens.templates) == {"default"}:
        config["chat_template"] = tokens.templates["default"]
    elif tokens.templates:
        named = [{"name": name, "template": text} for name, text in tokens.templates.items()]
        config["chat_template"] = named
    files["tokenizer_config.json"] = json.dumps(config, ensure_ascii=False, indent=1).encode()
    return files
