"""Keys of a GGUF file for which a Hugging Face checkpoint has no place: gguf_metadata.json.

gguf_to_hf.py compares the keys of its input with those that the converter would make of its output,
and writes the differences down: a licence, tags, a type, a spelling, a key too many. The converter
puts each back where what it makes of the checkpoint is still the same; what was changed since, such
as a chat template, wins.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import struct
from typing import Any

from .errors import ConvertError, short
from .gguf_file import KINDS, Typed, encode_key
from .safe_json import MAX_TOKENIZER, read_object

FILE_NAME = "gguf_metadata.json"
# Said of the new file, not of the old one: types of the weights, alignment, how it was quantised
# or cut into several files.
OF_THE_FILE = ("general.file_type", "general.quantization_version", "general.alignment")
OF_THE_FILE_PREFIXES = ("quantize.", "split.")
ANY = "any"


def is_of_the_file(key: str) -> bool:
    return key in OF_THE_FILE or key.startswith(OF_THE_FILE_PREFIXES)


def read_typed(reader: Any) -> tuple[dict[str, Typed], list[str]]:
    """All keys of a `gguf.GGUFReader` in order with their types, and notes."""
    import gguf

    found: dict[str, Typed] = {}
    notes: list[str] = []
    for key, field in reader.fields.items():
        if key.startswith("GGUF."):  # the reader's own
            continue
        kind, item = field.types[0].name.lower(), None
        if kind == "array":
            item = gguf.GGUFValueType(int(field.parts[3][0])).name.lower()
            if item == "array":
                notes.append(f"key '{short(key)}' is an array of arrays: left out")
                continue
        value = field.contents()
        found[key] = Typed(kind, [] if item and value is None else value, item)
    return found, notes


def _digest(key: str, keys: dict[str, Any]) -> str | None:
    if key not in keys:
        return None
    return hashlib.sha256(encode_key(key, keys[key])).hexdigest()


def difference(original: dict[str, Typed], derived: dict[str, Any]) -> bytes:
    """The content of gguf_metadata.json. `derived`: the keys that the converter makes."""
    changes = []
    for key in [*original, *(key for key in derived if key not in original)]:
        typed = original.get(key)
        instead_of = _digest(key, derived)
        if is_of_the_file(key):
            continue
        if typed is not None and _digest(key, dict(original)) == instead_of:
            continue
        entry: dict[str, Any] = {"key": key, "instead_of": instead_of}
        if key == "general.name":
            entry["instead_of"] = ANY  # made of the folder's name
        if typed is not None:
            entry |= {"type": typed.kind, "value": typed.value}
            if typed.item is not None:
                entry["items"] = typed.item
        changes.append(entry)
    content = {
        "about": "keys of the GGUF file that this checkpoint was made of; "
        "convert_hf_to_gguf.py puts them back",
        "order": list(original),
        "keys": changes,
    }
    return json.dumps(content, ensure_ascii=False, indent=1).encode() + b"\n"


def _entries(path: pathlib.Path) -> tuple[list[str], list[dict[str, Any]]]:
    values = read_object(path, MAX_TOKENIZER)
    order, entries = values.get("order"), values.get("keys")
    if not isinstance(order, list) or not all(isinstance(key, str) for key in order):
        raise ConvertError(f"{path}: 'order' should be a list of keys")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("key"), str) for entry in entries
    ):
        raise ConvertError(f"{path}: 'keys' should be a list of objects, each with a 'key'")
    return order, entries


def restore(
    folder: pathlib.Path, keys: dict[str, Any], notes: list[str], *, named: bool
) -> dict[str, Any]:
    """`keys` with those of the checkpoint's gguf_metadata.json. `named`: the user gave a name."""
    path = folder / FILE_NAME
    if not path.is_file():
        return keys
    order, entries = _entries(path)
    found = dict(keys)
    changed = []
    for entry in entries:
        key = entry["key"]
        if (
            is_of_the_file(key)
            or key == "general.architecture"
            or (key == "general.name" and named)
        ):
            continue
        if entry.get("instead_of") not in (_digest(key, keys), ANY):
            changed.append(key)
            continue
        if "type" not in entry:
            found.pop(key, None)
            continue
        kind, item = entry["type"], entry.get("items")
        typed = Typed(kind, entry.get("value"), item)
        known = isinstance(kind, str) and kind in KINDS and isinstance(item, (str, type(None)))
        if not known or (kind == "array") != (item in KINDS) or item == "array":
            raise ConvertError(f"{path}: '{short(key)}' has the unknown type '{short(kind)}'")
        try:
            encode_key(key, typed)
        except (TypeError, ValueError, AttributeError, OverflowError, struct.error):
            raise ConvertError(
                f"{path}: '{short(key)}' is no {kind}: {short(repr(typed.value))}"
            ) from None
        found[key] = typed
    if changed:
        notes.append(
            f"{FILE_NAME}: the checkpoint has changed since: its own "
            f"{short(', '.join(changed), 200)} written"
        )
    first = {key: found[key] for key in order if key in found}
    return first | {key: value for key, value in found.items() if key not in first}
