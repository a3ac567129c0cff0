"""Models with the shapes of real ones and random weights: for speeds where no model is at hand.
Their text means nothing, so only passes are timed with them."""

from __future__ import annotations

import math
import pathlib
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from gguf_convert.gguf_file import encode_key, padded

PIECE_BYTES = 32 << 20  # random bytes are made once and used again
# id, elements and bytes per block, offset of the f16 scale, and of that of the minima
TYPES = {
    "F32": (0, 1, 4, None, None),
    "Q8_0": (8, 32, 34, 0, None),
    "Q4_K": (12, 256, 144, 0, 2),
    "Q6_K": (14, 256, 210, 208, None),
}


@dataclass(frozen=True)
class Shape:
    arch: str
    n_layers: int
    hidden: int
    ffn: int
    n_heads: int
    n_kv_heads: int
    n_tokens: int
    tied: bool
    body: str = "Q4_K"
    fine: str = "Q6_K"  # the head, and half of the layers' v and down


SHAPES = {
    "0.5b": Shape("qwen2", 24, 896, 4864, 14, 2, 151936, True, "Q8_0", "Q8_0"),
    "1.5b": Shape("qwen2", 28, 1536, 8960, 12, 2, 151936, True),
    "8b": Shape("llama", 32, 4096, 14336, 32, 8, 128256, False),
    "tiny": Shape("llama", 2, 256, 512, 4, 2, 300, True),
}


def keys_of(shape: Shape, name: str) -> dict[str, Any]:
    arch, head_dim = shape.arch, shape.hidden // shape.n_heads
    alphabet = [chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))]
    alphabet += [chr(256 + i) for i in range(256 - len(alphabet))]
    tokens = alphabet + [f"[PAD{i}]" for i in range(shape.n_tokens - 257)] + ["<|end|>"]
    return {
        "general.architecture": arch,
        "general.name": f"random weights, {name}",
        f"{arch}.block_count": shape.n_layers,
        f"{arch}.context_length": 8192,
        f"{arch}.embedding_length": shape.hidden,
        f"{arch}.feed_forward_length": shape.ffn,
        f"{arch}.attention.head_count": shape.n_heads,
        f"{arch}.attention.head_count_kv": shape.n_kv_heads,
        f"{arch}.attention.layer_norm_rms_epsilon": 1e-5,
        f"{arch}.rope.freq_base": 1e6,
        f"{arch}.rope.dimension_count": head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [5] * (shape.n_tokens - 257) + [3],
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.eos_token_id": shape.n_tokens - 1,
    }


def tensors_of(shape: Shape) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, type, (rows, columns) or (length,)."""
    hidden, head_dim = shape.hidden, shape.hidden // shape.n_heads
    kv = shape.n_kv_heads * head_dim
    out: list[tuple[str, str, tuple[int, ...]]] = []
    head = shape.fine if shape.tied else shape.body
    out.append(("token_embd.weight", head, (shape.n_tokens, hidden)))
    for i in range(shape.n_layers):
        fine = shape.fine if i % 2 == 0 else shape.body
        parts = (
            ("attn_q", shape.body, (hidden, hidden)),
            ("attn_k", shape.body, (kv, hidden)),
            ("attn_v", fine, (kv, hidden)),
            ("attn_output", shape.body, (hidden, hidden)),
            ("ffn_gate", shape.body, (shape.ffn, hidden)),
            ("ffn_up", shape.body, (shape.ffn, hidden)),
            ("ffn_down", fine, (hidden, shape.ffn)),
        )
        for name, dtype, size in parts:
            out.append((f"blk.{i}.{name}.weight", dtype, size))
            if shape.arch == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                out.append((f"blk.{i}.{name}.bias", "F32", size[:1]))
        out += [(f"blk.{i}.{name}.weight", "F32", (hidden,)) for name in ("attn_norm", "ffn_norm")]
    out.append(("output_norm.weight", "F32", (hidden,)))
    if not shape.tied:
        out.append(("output.weight", shape.fine, (shape.n_tokens, hidden)))
    return out


def n_bytes(dtype: str, size: tuple[int, ...]) -> int:
    _, elements, block, _, _ = TYPES[dtype]
    return math.prod(size) // elements * block


def random_piece(dtype: str, n_in: int, rng: np.random.Generator) -> bytes:
    """Blocks whose weights have about the spread that keeps activations near 1."""
    _, _, block, d_at, min_at = TYPES[dtype]
    blocks = rng.integers(0, 256, (PIECE_BYTES // block, block), dtype=np.uint8)
    # The spread of q * scale where d is 1: of int8; of 4 bits and 6-bit scales; of 6 bits and int8.
    spread = {"Q8_0": 74.0, "Q4_K": 245.0, "Q6_K": 1370.0}[dtype]
    d = 1 / (spread * math.sqrt(n_in)) * rng.uniform(0.8, 1.2, len(blocks))
    assert d_at is not None
    blocks[:, d_at : d_at + 2] = d.astype("<f2").view(np.uint8).reshape(-1, 2)
    if min_at is not None:
        minimum = 7.5 * d
        blocks[:, min_at : min_at + 2] = minimum.astype("<f2").view(np.uint8).reshape(-1, 2)
    return blocks.tobytes()


def write(path: pathlib.Path, name: str) -> pathlib.Path:
    """The model called `name` of SHAPES."""
    shape = SHAPES[name]
    rng = np.random.default_rng(1)
    keys, tensors = keys_of(shape, name), tensors_of(shape)
    parts = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(keys))]
    parts += [encode_key(key, value) for key, value in keys.items()]
    offset = 0
    for tensor, dtype, size in tensors:
        raw = tensor.encode()
        parts.append(struct.pack("<Q", len(raw)) + raw)
        parts.append(struct.pack(f"<I{len(size)}Q", len(size), *reversed(size)))
        parts.append(struct.pack("<IQ", TYPES[dtype][0], offset))
        offset += padded(n_bytes(dtype, size))
    header = b"".join(parts)
    pieces: dict[tuple[str, int], memoryview] = {}
    with path.open("wb") as file:
        file.write(header.ljust(padded(len(header)), b"\0"))
        for tensor, dtype, size in tensors:
            total = n_bytes(dtype, size)
            if dtype == "F32":
                values = np.full(size, 1.0 if tensor.endswith(".weight") else 0.0, "<f4")
                file.write(values.tobytes())
            else:
                key = (dtype, size[1])
                if key not in pieces:
                    pieces[key] = memoryview(random_piece(dtype, size[1], rng))
                piece = pieces[key]
                for done in range(0, total, len(piece)):
                    file.write(piece[: min(len(piece), total - done)])
            file.write(b"\0" * (padded(total) - total))
    return path
