"""Reads (and writes) sentencepiece's `tokenizer.model`, the few protobuf fields that matter.

An own reader, because the file comes from strangers and needs bounds, and because the package does
not tell how the text is normalised.
"""

from __future__ import annotations

import math
import pathlib
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from .errors import ConvertError, short
from .vocabulary import BYTE, MAX_TOKENS

MAX_FILE = 64 << 20
BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")
UNIGRAM, BPE = 1, 2
KINDS = {UNIGRAM: "unigram", BPE: "BPE", 3: "word", 4: "char"}


@dataclass
class Piece:
    text: str
    score: float
    type: int


@dataclass
class SentencePieceModel:
    pieces: list[Piece] = field(default_factory=list)
    model_type: int = UNIGRAM
    unk_id: int = 0
    bos_id: int = 1
    eos_id: int = 2
    pad_id: int = -1
    whitespace_as_suffix: bool = False
    charsmap_bytes: int = 0  # of the normalisation table
    add_dummy_prefix: bool = True
    remove_extra_whitespaces: bool = True
    escape_whitespaces: bool = True


class _Damaged(Exception):
    pass


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(raw) or shift > 63:
            raise _Damaged
        value |= (raw[at] & 0x7F) << shift
        shift += 7
        at += 1
        if raw[at - 1] < 0x80:
            return value, at


def _fields(raw: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field; fixed-width values as bytes."""
    at = 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        wire = tag & 7
        if wire == 0:
            value, at = _varint(raw, at)
            yield tag >> 3, value
            continue
        if wire == 2:
            size, at = _varint(raw, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _Damaged
        if size > len(raw) - at:
            raise _Damaged
        yield tag >> 3, raw[at : at + size]
        at += size


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


def _piece(raw: bytes) -> Piece:
    piece = Piece("", 0.0, 1)
    for number, value in _fields(raw):
        if number == 1 and isinstance(value, bytes):
            piece.text = value.decode()
        elif number == 2 and isinstance(value, bytes) and len(value) == 4:
            (piece.score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            piece.type = value
    return piece


def _trainer(raw: bytes, model: SentencePieceModel) -> None:
    ids = {40: "unk_id", 41: "bos_id", 42: "eos_id", 43: "pad_id"}
    for number, value in _fields(raw):
        if not isinstance(value, int):
            continue
        if number == 3:
            model.model_type = value
        elif number == 24:
            model.whitespace_as_suffix = bool(value)
        elif number in ids:
            setattr(model, ids[number], _signed(value))


def _normalizer(raw: bytes, model: SentencePieceModel) -> None:
    flags = {3: "add_dummy_prefix", 4: "remove_extra_whitespaces", 5: "escape_whitespaces"}
    for number, value in _fields(raw):
        if number == 2 and isinstance(value, bytes):
            model.charsmap_bytes = len(value)
        elif number in flags and isinstance(value, int):
            setattr(model, flags[number], bool(value))


def _parse(raw: bytes) -> SentencePieceModel:
    model = SentencePieceModel()
    for number, value in _fields(raw):
        if not isinstance(value, bytes):
            continue
        if number == 1:
            model.pieces.append(_piece(value))
            if len(model.pieces) > MAX_TOKENS:
                raise _Damaged
        elif number == 2:
            _trainer(value, model)
        elif number == 3:
            _normalizer(value, model)
    return model


def read_model(path: pathlib.Path) -> SentencePieceModel:
    """Refuses what GGUF's SentencePiece tokenizer cannot express."""
    if path.stat().st_size > MAX_FILE:
        raise ConvertError(f"{path}: larger than {MAX_FILE} bytes")
    try:
        model = _parse(path.read_bytes())
    except (_Damaged, UnicodeDecodeError, struct.error):
        raise ConvertError(f"{path}: not a sentencepiece model, or a damaged one") from None
    if not model.pieces:
        raise ConvertError(f"{path}: a sentencepiece model without pieces")
    if model.model_type != BPE:
        kind = KINDS.get(model.model_type, str(model.model_type))
        raise ConvertError(
            f"{path}: sentencepiece models of kind {kind} are not supported, only BPE"
        )
    if model.charsmap_bytes:
        raise ConvertError(
            f"{path}: the model normalises text (a table of {model.charsmap_bytes} bytes), which "
            "GGUF cannot express; only 'identity' normalisation is supported"
        )
    if model.whitespace_as_suffix:
        raise ConvertError(f"{path}: whitespace_as_suffix = True is not supported")
    for i, piece in enumerate(model.pieces):
        if not math.isfinite(piece.score) or not 1 <= piece.type <= BYTE:
            raise ConvertError(f"{path}: piece {i} '{short(piece.text)}' has a bad score or type")
        if piece.type == BYTE and not BYTE_TOKEN.fullmatch(piece.text):
            raise ConvertError(f"{path}: byte piece {i} is '{short(piece.text)}'")
    return model


# ---------------------------------------------------------------- writing


def _encode_varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, content: int | float | bytes) -> bytes:
    if isinstance(content, float):
        return _encode_varint(number << 3 | 5) + struct.pack("<f", content)
    if isinstance(content, bytes):
        return _encode_varint(number << 3 | 2) + _encode_varint(len(content)) + content
    return _encode_varint(number << 3) + _encode_varint(int(content))


def encode_model(model: SentencePieceModel) -> bytes:
    out = bytearray()
    for piece in model.pieces:
        content = _field(1, piece.text.encode()) + _field(2, float(piece.score))
        out += _field(1, content + (_field(3, piece.type) if piece.type != 1 else b""))
    byte_fallback = any(piece.type == BYTE for piece in model.pieces)
    trainer = _field(3, model.model_type) + _field(35, byte_fallback)
    for number, value in ((40, model.unk_id), (41, model.bos_id), (42, model.eos_id)):
        trainer += _field(number, value)
    trainer += _field(43, model.pad_id)
    normalizer = _field(1, b"identity") + _field(3, model.add_dummy_prefix)
    normalizer += _field(4, model.remove_extra_whitespaces) + _field(5, model.escape_whitespaces)
    return bytes(out + _field(2, trainer) + _field(3, normalizer))
