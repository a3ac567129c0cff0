"""GGUF's SentencePiece vocabulary from tokenizer.model, or from a tokenizer.json of that kind.

tokenizer.json has merges instead of scores. GGUF's tokenizer joins the neighbours whose joined text
is the token with the highest score, so the merges must be all that the tokens allow, in an order
that can be read as a score of each token; if they are not, the two would split text differently.
"""

from __future__ import annotations

import json as json_module
from dataclasses import dataclass, field
from typing import Any

from .errors import ConvertError, short
from .sentencepiece_model import BYTE_TOKEN, SentencePieceModel
from .tokenizer_json import TokenizerJson
from .vocabulary import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED

SPACE_MARK = "\u2581"


@dataclass
class Pieces:
    """Tokens by id, before added tokens."""

    tokens: list[str | bytes | None]
    types: list[int]
    scores: list[float]
    add_space_prefix: bool
    space_prefix: str = "segments"
    remove_extra_whitespaces: bool = False
    escape_whitespaces: bool = True
    fuse_unknown: bool = True
    notes: list[str] = field(default_factory=list)


def pieces_of_model(model: SentencePieceModel) -> Pieces:
    return Pieces(
        [piece.text for piece in model.pieces],
        [piece.type for piece in model.pieces],
        [piece.score for piece in model.pieces],
        model.add_dummy_prefix,
        remove_extra_whitespaces=model.remove_extra_whitespaces,
        escape_whitespaces=model.escape_whitespaces,
    )


def check_same(pieces: Pieces, json: TokenizerJson) -> None:
    """tokenizer.model and tokenizer.json must be the same vocabulary."""
    for text, token in json.vocab.items():
        there = pieces.tokens[token] if token < len(pieces.tokens) else None
        if there is not None and there != text:
            raise ConvertError(
                f"{json.path}: token {token} is '{short(text)}', but '{short(there)}' in "
                "tokenizer.model; remove the file that does not belong to the model"
            )


def space_prefix(json: TokenizerJson, notes: list[str]) -> tuple[bool, str]:
    """Whether and when a text gets a space in front; refuses other ways to prepare a text."""
    node = json.values.get("normalizer")
    nodes = [] if node is None else [node]
    if isinstance(node, dict) and node.get("type") == "Sequence":
        nodes = node.get("normalizers") or []
    prefix = replaced = False
    for step in nodes:
        kind = step.get("type") if isinstance(step, dict) else None
        if kind == "Prepend" and step.get("prepend") == SPACE_MARK and not prefix:
            prefix = True
        elif (
            kind == "Replace"
            and step.get("pattern") == {"String": " "}
            and step.get("content") == SPACE_MARK
        ):
            replaced = True
        else:
            raise json.fail(f"the normalizer {_shown(step)} is not supported")
    split = json.values.get("pre_tokenizer")
    if split is None:
        if not replaced:
            raise json.fail("expected a normalizer that replaces spaces")
        return prefix, "segments"
    if (
        not isinstance(split, dict)
        or split.get("type") != "Metaspace"
        or split.get("replacement") != SPACE_MARK
        or split.get("split") is not False
    ):
        raise json.fail(f"the pre_tokenizer {_shown(split)} is not supported")
    scheme = split.get("prepend_scheme", "always")
    if scheme not in ("always", "first", "never"):
        raise json.fail(f"the prepend_scheme '{short(scheme)}' is not supported")
    if prefix or replaced:
        raise json.fail("a Metaspace step after a normalizer for spaces is not supported")
    if scheme != "never":
        notes.append(
            "transformers puts no space before a text that begins with one"
            + (", nor after special tokens" if scheme == "first" else "")
            + "; only specdec reads the key that says so"
        )
    return scheme != "never", "first" if scheme == "first" else "always"


def _shown(node: Any) -> str:
    return short(json_module.dumps(node, ensure_ascii=False), 300)


def pieces_of_json(json: TokenizerJson) -> Pieces:
    if json.ignore_merges:
        raise json.fail("ignore_merges in a tokenizer of this kind is not supported")
    notes: list[str] = []
    if not json.byte_fallback and json.unknown not in json.vocab:
        raise json.fail(
            "neither byte_fallback nor an unk_token of the vocabulary: characters without a token "
            "would be lost, which is not supported"
        )
    prefix, scheme = space_prefix(json, notes)
    tokens, types = json.base_tokens()
    special = {token.text for token in json.added if token.special}
    for text, token in json.vocab.items():
        if json.byte_fallback and BYTE_TOKEN.fullmatch(text):
            types[token] = BYTE
        elif text == json.unknown:
            types[token] = UNKNOWN
        elif text in special:
            types[token] = CONTROL
    order = _token_order(json)
    _check_complete(json, types)
    # Scores as sentencepiece's BPE trainer gives them: 0, -1, -2 by the order of merging, then the
    # single characters.
    scores = [0.0] * len(tokens)
    singles = [
        token
        for token, text in enumerate(tokens)
        if text is not None and types[token] == NORMAL and text not in order
    ]
    for text, rank in order.items():
        scores[json.vocab[text]] = -float(rank)
    for rank, token in enumerate(singles, start=len(order)):
        scores[token] = -float(rank)
    for token, kind in enumerate(types):
        if kind == UNUSED:
            scores[token] = -1000.0
    return Pieces(
        tokens, types, scores, prefix, scheme, fuse_unknown=json.fuse_unknown, notes=notes
    )


def _token_order(json: TokenizerJson) -> dict[str, int]:
    """Tokens by the rank of their merges; refuses merges that no order of tokens explains."""
    order: dict[str, int] = {}
    last = ""
    for left, right in json.merges:
        text = left + right
        if text != last and text in order:
            raise json.fail(
                f"the merges that make '{short(text)}' are not next to each other; GGUF cannot "
                "express this mixture of merges and byte_fallback"
            )
        order.setdefault(text, len(order))
        last = text
    return order


def _check_complete(json: TokenizerJson, types: list[int]) -> None:
    known = set(json.merges)
    plain = {text for text, token in json.vocab.items() if types[token] == NORMAL}
    for text in plain:
        for cut in range(1, len(text)):
            pair = (text[:cut], text[cut:])
            if pair not in known and pair[0] in plain and pair[1] in plain:
                raise json.fail(
                    f"'{short(pair[0])}' and '{short(pair[1])}' make the token '{short(text)}', "
                    "but there is no such merge; GGUF's SentencePiece tokenizer would join them"
                )
