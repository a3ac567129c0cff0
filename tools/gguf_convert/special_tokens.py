"""What the files beside the vocabulary say: added and special tokens, chat templates."""

from __future__ import annotations

import pathlib
from typing import Any

from .errors import ConvertError, short
from .safe_json import read_object
from .vocabulary import AddedToken, Vocabulary

# Name in Hugging Face files -> name in GGUF keys.
SPECIAL_NAMES = {
    "bos": "bos",
    "eos": "eos",
    "unk": "unknown",
    "pad": "padding",
    "sep": "seperator",  # spelt so in the format
    "mask": "mask",
}
MAX_TEMPLATE = 4 << 20


class TokenizerFiles:
    """The small JSON files of a checkpoint's tokenizer; absent ones are empty."""

    def __init__(self, folder: pathlib.Path, model_config: dict[str, Any]) -> None:
        self.folder = folder
        self.model_config = model_config
        self.config = self._optional("tokenizer_config.json")
        self._special_map = self._optional("special_tokens_map.json")
        self._added = self._optional("added_tokens.json")

    def _optional(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_object(path) if path.is_file() else {}

    @property
    def where(self) -> str:
        return str(self.folder / "tokenizer_config.json")

    def flag(self, key: str) -> bool | None:
        value = self.config.get(key)
        if value is not None and not isinstance(value, bool):
            raise ConvertError(f"{self.where}: '{key}' should be true or false")
        return value

    def added_tokens(self) -> list[AddedToken]:
        """From tokenizer_config.json and added_tokens.json, without repetitions."""
        found: dict[int, AddedToken] = {}
        decoder = self.config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise ConvertError(f"{self.where}: 'added_tokens_decoder' should be an object")
        for key, entry in decoder.items():
            if not key.isdecimal() or len(key) > 9 or not isinstance(entry, dict):
                raise ConvertError(f"{self.where}: bad added token '{short(key)}'")
            token = parse_added(entry | {"id": int(key)}, self.where)
            found[token.id] = token
        names = set(map(_content, (self.config | self._special_map).values()))
        for text, token_id in self._added.items():
            if isinstance(token_id, bool) or not isinstance(token_id, int):
                raise ConvertError(
                    f"{self.folder / 'added_tokens.json'}: bad id of '{short(text)}'"
                )
            if token_id not in found:
                found[token_id] = AddedToken(token_id, text, special=text in names)
            elif found[token_id].text != text:
                raise ConvertError(
                    f"{self.folder}: id {token_id} is '{short(text)}' in added_tokens.json and "
                    f"'{short(found[token_id].text)}' in tokenizer_config.json"
                )
        return list(found.values())

    def set_special_ids(self, vocab: Vocabulary) -> None:
        """By name from the tokenizer's files; else by id from the model's configuration."""
        ids: dict[str, int] = {}
        for i, token in enumerate(vocab.tokens):
            text = token.decode(errors="replace") if isinstance(token, bytes) else token
            ids.setdefault(text, i)
        for name, gguf_name in SPECIAL_NAMES.items():
            key = f"{name}_token"
            text = _content(self.config.get(key)) or _content(self._special_map.get(key))
            if text is not None:
                if text not in ids and name not in ("bos", "eos"):
                    vocab.notes.append(f"{key} '{short(text)}' is not in the vocabulary: left out")
                    continue
                if text not in ids:
                    raise ConvertError(
                        f"{self.where}: {key} is '{short(text)}', which is not in the vocabulary"
                    )
                vocab.special_ids[gguf_name] = ids[text]
                continue
            token_id = self.model_config.get(f"{name}_token_id")
            if isinstance(token_id, list) and token_id:
                token_id = token_id[0]
            if isinstance(token_id, int) and not isinstance(token_id, bool) and token_id >= 0:
                if token_id >= len(vocab.tokens):
                    vocab.notes.append(
                        f"config.json: {name}_token_id is {token_id}, but there are "
                        f"{len(vocab.tokens)} tokens: left out"
                    )
                    continue
                vocab.special_ids.setdefault(gguf_name, token_id)

    def chat_templates(self) -> dict[str, str]:
        found: dict[str, str] = {}
        template = self.config.get("chat_template")
        if isinstance(template, str):
            found["default"] = template
        elif isinstance(template, list):
            for entry in template:
                if not isinstance(entry, dict) or not isinstance(entry.get("template"), str):
                    raise ConvertError(
                        f"{self.where}: 'chat_template' should hold name and template"
                    )
                found[_template_name(entry.get("name"), self.where)] = entry["template"]
        elif template is not None:
            raise ConvertError(f"{self.where}: 'chat_template' should be text or a list")
        if (self.folder / "chat_template.jinja").is_file():
            found["default"] = self._template_file(self.folder / "chat_template.jinja")
        for path in sorted((self.folder / "additional_chat_templates").glob("*.jinja")):
            found[_template_name(path.stem, str(path))] = self._template_file(path)
        return found

    def _template_file(self, path: pathlib.Path) -> str:
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_TEMPLATE + 1)
            if len(raw) > MAX_TEMPLATE:
                raise ConvertError(f"{path}: a chat template of more than {MAX_TEMPLATE} bytes")
            return raw.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ConvertError(f"{path}: cannot be read: {short(error)}") from None


def _template_name(name: Any, where: str) -> str:
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise ConvertError(f"{where}: bad name of a chat template: {short(repr(name))}")
    return name


def _content(value: Any) -> str | None:
    """A special token is text, or an object with its text as `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def parse_added(entry: Any, where: str) -> AddedToken:
    if not isinstance(entry, dict):
        raise ConvertError(f"{where}: an added token should be an object")
    token_id, text = entry.get("id"), entry.get("content")
    if isinstance(token_id, bool) or not isinstance(token_id, int) or not isinstance(text, str):
        raise ConvertError(f"{where}: an added token needs id and content: {short(entry)}")
    return AddedToken(
        token_id,
        text,
        entry.get("special") is True,
        normalized=entry.get("normalized") is True,
        lstrip=entry.get("lstrip") is True,
        rstrip=entry.get("rstrip") is True,
        single_word=entry.get("single_word") is True,
    )
