"""Builds small GGUF files that hold nothing but a vocabulary."""

from __future__ import annotations

from typing import Any

import gguf_fixtures as fx
from helpers import native

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
REMOVED = object()  # as the value of a key: leave it out

native_tokenizer = native("tokenizer")


def byte_alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(0x100, 0x200))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


def in_alphabet(text: str | bytes) -> str:
    raw = text.encode() if isinstance(text, str) else text
    return "".join(byte_alphabet()[byte] for byte in raw)


def file_of(keys: dict[str, Any], changes: dict[str, Any]) -> bytes:
    """A file with keys "tokenizer.ggml.NAME"; a value is (kind, value) or inferred.

    `n_rows` adds an embedding of so many rows.
    """
    items: list[Any] = [("general.architecture", "llama")]
    rows = changes.pop("n_rows", None)
    for name, value in {**keys, **changes}.items():
        key = name if "." in name else f"tokenizer.ggml.{name}"
        if value is REMOVED:
            continue
        items.append((key, *value) if isinstance(value, tuple) else (key, value))
    tensors = [] if rows is None else [fx.Tensor("token_embd.weight", (8, rows))]
    return fx.build(kv=items, tensors=tensors)


def bpe_file(
    pairs: list[tuple[str, str]] | None = None,
    /,
    special: list[tuple[str | bytes, int]] | None = None,
    **changes: Any,
) -> bytes:
    """All bytes, what merging the pairs makes, then the special tokens; ids in this order."""
    if pairs is None:
        pairs = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), (" ", "w")]
    if special is None:
        special = [("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<tool>", USER_DEFINED)]
    tokens: list[str | bytes] = [*byte_alphabet()]
    for left, right in pairs:
        joined = in_alphabet(left + right)
        if joined not in tokens:
            tokens.append(joined)
    types = [NORMAL] * len(tokens)
    for text, type_ in special:
        tokens.append(text)
        types.append(type_)
    keys = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ("[string]", tokens),
        "token_type": ("[i32]", types),
        "merges": ("[string]", [f"{in_alphabet(a)} {in_alphabet(b)}" for a, b in pairs]),
    }
    return file_of(keys, changes)


def spm_file(
    pieces: list[tuple[str | bytes, float]] | None = None,
    special: list[tuple[str | bytes, int]] | None = None,
    **changes: Any,
) -> bytes:
    """<unk>, <s>, </s>, 256 byte tokens, the pieces, then the special tokens."""
    if pieces is None:
        words = ["▁", "a", "b", "c", "▁a", "ab", "abc", "▁ab", "▁abc", "bc"]
        pieces = [(word, -float(i)) for i, word in enumerate(words)]
    tokens: list[str | bytes] = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
    ]
    types = [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256
    scores = [0.0] * len(tokens)
    for text, score in pieces:
        tokens.append(text)
        types.append(NORMAL)
        scores.append(score)
    for text, type_ in special or []:
        tokens.append(text)
        types.append(type_)
        scores.append(0.0)
    keys = {
        "model": "llama",
        "tokens": ("[string]", tokens),
        "token_type": ("[i32]", types),
        "scores": ("[f32]", scores),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
    }
    return file_of(keys, changes)


def parse(file: bytes) -> Any:
    return native_tokenizer.Tokenizer.parse(file)
