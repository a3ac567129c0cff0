"""tokenizer.json: byte-level BPE, and the SentencePiece-like BPE of Llama 2 and TinyLlama."""

from __future__ import annotations

import pathlib
from typing import Any

from .errors import ConvertError, short
from .pre_tokenizers import identify
from .safe_json import MAX_TOKENIZER, read_object
from .special_tokens import parse_added
from .vocabulary import MAX_TOKENS, NORMAL, UNUSED, AddedToken


class TokenizerJson:
    """The parts of a tokenizer.json, checked."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.values = read_object(path, MAX_TOKENIZER)
        model = self.values.get("model")
        if not isinstance(model, dict):
            raise self.fail("'model' should be an object")
        self.model: dict[str, Any] = model
        kind = model.get("type", "BPE" if "merges" in model else None)
        if kind != "BPE":
            raise self.fail(f"tokenizer models of type '{short(kind)}' are not supported, only BPE")
        self.byte_fallback = model.get("byte_fallback") is True
        self.fuse_unknown = model.get("fuse_unk") is True
        self.ignore_merges = model.get("ignore_merges") is True
        self.unknown: str | None = model.get("unk_token")
        if model.get("dropout"):
            raise self.fail("BPE with dropout is not supported")
        for key in ("continuing_subword_prefix", "end_of_word_suffix"):
            if model.get(key):
                raise self.fail(f"BPE with {key} is not supported")
        self.vocab = self._read_vocab()
        self.merges = self._read_merges()
        added = self.values.get("added_tokens") or []
        if not isinstance(added, list):
            raise self.fail("'added_tokens' should be a list")
        self.added: list[AddedToken] = [parse_added(entry, str(path)) for entry in added]

    @property
    def like_sentencepiece(self) -> bool:
        """Are its tokens texts with marks for spaces, not bytes?"""
        if self.byte_fallback:
            return True
        split, normalizer = self.values.get("pre_tokenizer"), self.values.get("normalizer")
        if isinstance(split, dict):
            return split.get("type") == "Metaspace"
        return split is None and isinstance(normalizer, dict)

    def fail(self, what: str) -> ConvertError:
        return ConvertError(f"{self.path}: {what}")

    def _read_vocab(self) -> dict[str, int]:
        vocab = self.model.get("vocab")
        if not isinstance(vocab, dict) or not vocab or len(vocab) > MAX_TOKENS:
            raise self.fail(f"the vocabulary should hold 1 to {MAX_TOKENS} tokens")
        seen: dict[int, str] = {}
        for text, token in vocab.items():
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < MAX_TOKENS:
                raise self.fail(f"token '{short(text)}' has the id {short(repr(token))}")
            if token in seen:
                raise self.fail(f"id {token} is both '{short(seen[token])}' and '{short(text)}'")
            seen[token] = text
        return vocab

    def _read_merges(self) -> list[tuple[str, str]]:
        merges = self.model.get("merges")
        if not isinstance(merges, list) or len(merges) > 4 * MAX_TOKENS:
            raise self.fail("'merges' should be a list")
        found: list[tuple[str, str]] = []
        for i, merge in enumerate(merges):
            parts = merge.split(" ") if isinstance(merge, str) else merge
            if (
                not isinstance(parts, list)
                or len(parts) != 2
                or not all(isinstance(part, str) and part for part in parts)
            ):
                raise self.fail(f"merge {i} should have two parts, found {short(repr(merge))}")
            left, right = parts
            for part in (left, right, left + right):
                if part not in self.vocab:
                    raise self.fail(
                        f"merge {i} uses '{short(part)}', which is not in the vocabulary"
                    )
            found.append((left, right))
        return found

    def base_tokens(self) -> tuple[list[str | bytes | None], list[int]]:
        """Texts and types by id, before added tokens."""
        n_tokens = max(self.vocab.values()) + 1
        tokens: list[str | bytes | None] = [None] * n_tokens
        types = [UNUSED] * n_tokens
        for text, token in self.vocab.items():
            tokens[token], types[token] = text, NORMAL
        return tokens, types

    def check_normalizer(self, allowed: tuple[str, ...]) -> list[str]:
        """Names of the normalisers, all of them in `allowed`."""
        node = self.values.get("normalizer")
        nodes = [] if node is None else [node]
        if isinstance(node, dict) and node.get("type") == "Sequence":
            nodes = node.get("normalizers") or []
        names = [str(n.get("type")) if isinstance(n, dict) else "?" for n in nodes]
        for name in names:
            if name not in allowed:
                raise self.fail(f"the normalizer '{short(name)}' is not supported")
        return names

    def pre_tokenizer_name(self) -> str:
        """As GGUF calls it."""
        return identify(self.values.get("pre_tokenizer"), self.ignore_merges, str(self.path))

    def template_tokens(self) -> tuple[list[str], list[str]] | None:
        """Special tokens that the post-processor puts before and after a text; None without one."""
        node = self.values.get("post_processor")
        nodes = [] if node is None else [node]
        if isinstance(node, dict) and node.get("type") == "Sequence":
            nodes = node.get("processors") or []
        found: tuple[list[str], list[str]] | None = None
        for processor in nodes:
            kind = processor.get("type") if isinstance(processor, dict) else None
            if kind == "ByteLevel":
                continue  # only moves offsets
            if kind != "TemplateProcessing" or found is not None:
                raise self.fail(f"the post-processor '{short(kind)}' is not supported")
            found = self._split_template(processor)
        return found

    def _split_template(self, processor: dict[str, Any]) -> tuple[list[str], list[str]]:
        before: list[str] = []
        after: list[str] = []
        side = before
        pieces = processor.get("single")
        if not isinstance(pieces, list):
            raise self.fail("the post-processor has no template")
        for piece in pieces:
            if isinstance(piece, dict) and "Sequence" in piece:
                side = after
            elif isinstance(piece, dict) and isinstance(piece.get("SpecialToken"), dict):
                side.append(str(piece["SpecialToken"].get("id")))
            else:
                raise self.fail(f"unknown part of a template: {short(piece)}")
        return before, after
