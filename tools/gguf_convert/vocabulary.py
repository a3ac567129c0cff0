"""A tokenizer as GGUF keys, and the checks that all kinds share."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from .errors import ConvertError, short

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
MAX_TOKENS = 1 << 20
# Bits of specdec.tokenizer.added_token_flags: cpp/tokenizer/vocab_data.h says what they mean.
IN_PREPARED_TEXT, TAKES_LEFT_SPACES, TAKES_RIGHT_SPACES, SINGLE_WORD = 1, 2, 4, 8
AS_SPELT, NEVER_MERGED = 16, 32
# What fine-tuning adds where the model has no padding token: [PAD], <pad>, <|pad|>, <pad_token>.
PADDING = re.compile(r"[\[<|]+_*pad(ding)?(_?token)?[0-9_]*[\]>|]+", re.IGNORECASE)


def _shown(token: str | bytes) -> str:
    return token.decode(errors="replace") if isinstance(token, bytes) else token


@dataclass
class Vocabulary:
    model: str  # gpt2 or llama
    tokens: list[str | bytes]
    types: list[int]
    scores: list[float] | None = None
    merges: list[str] | None = None
    pre: str | None = None
    add_space_prefix: bool | None = None
    space_prefix: str = "segments"  # when: or "always", "first", as Metaspace has them
    remove_extra_whitespaces: bool = False
    escape_whitespaces: bool = True
    fuse_unknown: bool = True
    added_flags: dict[int, int] = field(default_factory=dict)  # by id, those that are not 0
    add_bos: bool = False
    add_eos: bool = False
    special_ids: dict[str, int] = field(default_factory=dict)  # by the name in GGUF: bos, eos, ...
    chat_templates: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)  # what a user should know

    def pad_to(self, n_rows: int, where: str) -> None:
        """Gives every row of the embedding a token, and no token that has no row."""
        if len(self.tokens) > n_rows:
            self._drop_padding(n_rows, where)
        n_tokens = len(self.tokens)
        missing = n_rows - n_tokens
        if missing > max(1024, n_rows // 50):
            raise ConvertError(
                f"{where}: the embedding has {n_rows} rows but the tokenizer only {n_tokens} "
                "tokens; that is more than padding, the tokenizer belongs to another model"
            )
        self.tokens += [f"[PAD{i}]" for i in range(n_tokens, n_rows)]
        self.types += [UNUSED] * missing
        if self.scores is not None:
            self.scores += [-1000.0] * missing
        if missing:
            self.notes.append(
                f"{missing} rows of the embedding are padding: unused tokens fill them"
            )

    def _drop_padding(self, n_rows: int, where: str) -> None:
        """Drops the tokens beyond the embedding if they only pad: no model was trained on them."""
        texts = [_shown(token) for token in self.tokens]
        padding = {self.special_ids.get("padding")}
        padding |= {i for i, kind in enumerate(self.types) if kind == UNUSED}
        padding |= {
            i
            for i, kind in enumerate(self.types)
            if kind in (CONTROL, USER_DEFINED) and PADDING.fullmatch(texts[i])
        }
        beyond = range(n_rows, len(texts))
        others = [i for i in beyond if i not in padding]
        if others:
            names = ", ".join(f"{i} '{short(texts[i], 40)}'" for i in others[:4])
            raise ConvertError(
                f"{where}: the tokenizer has {len(texts)} tokens but the embedding {n_rows} rows; "
                f"{len(others)} of those beyond it are more than padding ({names}): it belongs to "
                "another model, or tokens were added without resizing the embedding"
            )
        for values in (self.tokens, self.types, self.scores):
            if values is not None:
                del values[n_rows:]
        self.added_flags = {i: flags for i, flags in self.added_flags.items() if i < n_rows}
        self.special_ids = {k: i for k, i in self.special_ids.items() if i < n_rows}
        self.notes.append(
            f"the tokenizer has {len(texts)} tokens but the embedding {n_rows} rows: left out are "
            + short(", ".join(texts[i] for i in beyond), 200)
        )

    def check(self, where: str) -> None:
        for name, token in self.special_ids.items():
            if not 0 <= token < len(self.tokens):
                raise ConvertError(
                    f"{where}: {name}_token_id {token} is not a token, there are {len(self.tokens)}"
                )
        for name, wanted in (("bos", self.add_bos), ("eos", self.add_eos)):
            if wanted and name not in self.special_ids:
                raise ConvertError(
                    f"{where}: the tokenizer adds a {name.upper()} token, but none is named"
                )

    def keys(self) -> dict[str, Any]:
        found: dict[str, Any] = {"tokenizer.ggml.model": self.model}
        if self.pre is not None:
            found["tokenizer.ggml.pre"] = self.pre
        elif self.model == "llama":
            found["tokenizer.ggml.pre"] = "default"
        found["tokenizer.ggml.tokens"] = self.tokens
        if self.scores is not None:
            found["tokenizer.ggml.scores"] = self.scores
        found["tokenizer.ggml.token_type"] = self.types
        if self.merges is not None:
            found["tokenizer.ggml.merges"] = self.merges
        for name, token in self.special_ids.items():
            found[f"tokenizer.ggml.{name}_token_id"] = token
        found["tokenizer.ggml.add_bos_token"] = self.add_bos
        found["tokenizer.ggml.add_eos_token"] = self.add_eos
        if self.add_space_prefix is not None:
            found["tokenizer.ggml.add_space_prefix"] = self.add_space_prefix
        if self.remove_extra_whitespaces:
            found["tokenizer.ggml.remove_extra_whitespaces"] = True
        if self.space_prefix != "segments":
            found["specdec.tokenizer.space_prefix"] = self.space_prefix
        if not self.escape_whitespaces:
            found["specdec.tokenizer.escape_whitespaces"] = False
        if not self.fuse_unknown:
            found["specdec.tokenizer.fuse_unknown"] = False
        if self.added_flags:
            found["specdec.tokenizer.added_tokens"] = list(self.added_flags)
            found["specdec.tokenizer.added_token_flags"] = list(self.added_flags.values())
        if "default" in self.chat_templates:
            found["tokenizer.chat_template"] = self.chat_templates["default"]
        others = sorted(set(self.chat_templates) - {"default"})
        if others:
            found["tokenizer.chat_templates"] = others
            for name in others:
                found[f"tokenizer.chat_template.{name}"] = self.chat_templates[name]
        return found


@dataclass
class AddedToken:
    id: int
    text: str
    special: bool
    normalized: bool = False  # found in the prepared text, and prepared itself
    lstrip: bool = False  # takes the white space before it
    rstrip: bool = False
    single_word: bool = False

    def flags(self) -> int:
        """As specdec.tokenizer.added_token_flags holds them."""
        names = ((self.normalized, IN_PREPARED_TEXT), (self.lstrip, TAKES_LEFT_SPACES))
        names += ((self.rstrip, TAKES_RIGHT_SPACES), (self.single_word, SINGLE_WORD))
        return sum(flag for is_set, flag in names if is_set)


def place_added(
    added: list[AddedToken],
    tokens: list[str | bytes | None],
    types: list[int],
    where: str,
) -> None:
    """Puts tokens at their ids. `tokens` grows; holes stay None."""
    for token in sorted(added, key=lambda t: t.id):
        if not 0 <= token.id < MAX_TOKENS:
            raise ConvertError(f"{where}: added token '{short(token.text)}' has the id {token.id}")
        while len(tokens) <= token.id:
            tokens.append(None)
            types.append(UNUSED)
        there = tokens[token.id]
        kind = CONTROL if token.special else USER_DEFINED
        if there is None:
            tokens[token.id] = token.text
            types[token.id] = kind
            continue
        text = _shown(there)
        if text != token.text:
            raise ConvertError(
                f"{where}: id {token.id} is both '{short(text)}' and '{short(token.text)}'"
            )
        if types[token.id] == NORMAL:
            types[token.id] = kind


def fill_holes(tokens: list[str | bytes | None], notes: list[str]) -> list[str | bytes]:
    holes = sum(token is None for token in tokens)
    if holes:
        notes.append(f"{holes} ids below the largest have no token: unused tokens fill them")
    return [f"[PAD{i}]" if token is None else token for i, token in enumerate(tokens)]
