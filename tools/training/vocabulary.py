"""A byte-level BPE vocabulary, and documents as token ids."""

from __future__ import annotations

import pathlib

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from training.corpus import Document
from training_safety import ToolError

END = "<|endoftext|>"


def train(documents: list[Document], size: int, *, split_digits: bool) -> tokenizers.Tokenizer:
    """With the word pattern of GPT-2; split_digits makes it that of SmolLM."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if split_digits:
        digits = pre_tokenizers.Digits(individual_digits=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    else:
        tokenizer.pre_tokenizer = byte_level
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((document.text for document in documents), trainer)
    if tokenizer.get_vocab_size() != size:
        raise ToolError(
            f"the texts give only {tokenizer.get_vocab_size()} of {size} tokens: give more text"
        )
    return tokenizer


def encode(tokenizer: tokenizers.Tokenizer, documents: list[Document]) -> np.ndarray:
    """All documents as one row of ids, an end mark before each."""
    end = tokenizer.token_to_id(END)
    row: list[int] = []
    for encoded in tokenizer.encode_batch([d.text for d in documents], add_special_tokens=False):
        row.append(end)
        row.extend(encoded.ids)
    row.append(end)
    return np.asarray(row, dtype=np.uint16)


def load(folder: pathlib.Path) -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
