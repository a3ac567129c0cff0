"""Added tokens, white space and unknown characters as sentencepiece and `tokenizers` have them.

Every model is trained, converted and compared on random strings; `-m slow` takes ten times as many.
"""

from __future__ import annotations

import itertools
import json
import pathlib
import random
from typing import Any

import pytest

from helpers import native
from hf_checkpoints import llama_config, trained_bpe, trained_spm, write_checkpoint, write_json

pytest.importorskip("gguf", reason="gguf is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
native_tokenizer = native("tokenizer")

from test_convert_tokenizers import llama2_json  # noqa: E402
from test_tokenizer_peers import assert_equal, random_texts  # noqa: E402

from gguf_convert import convert  # noqa: E402
from gguf_convert.pre_tokenizers import describe  # noqa: E402
from gguf_convert.sentencepiece_model import encode_model, read_model  # noqa: E402
from gguf_convert.to_hf import gguf_to_hf  # noqa: E402

MARK = "\u2581"
ALPHABET = [*"abcxyz[]_ ▁<>|1½_\t\n", "  ", "   ", "[X]", "é", "e\u0301", "ة", "中", "🚀", "Ⓐ", "´"]


def texts(special: list[str], count: int, seed: int = 1) -> list[str]:
    """Half of them from few characters and the special texts, half Unicode with some inside."""
    rng = random.Random(seed)
    near = ALPHABET + special * 3
    found = ["".join(rng.choices(near, k=rng.randint(0, 10))) for _ in range(count // 2)]
    for text in random_texts()[: count - len(found)]:
        at = rng.randint(0, len(text))
        found.append(text[:at] + "".join(rng.choices(special, k=rng.randint(0, 2))) + text[at:])
    return found


def convert_folder(folder: pathlib.Path) -> Any:
    convert(folder, folder / "model.gguf", outtype="f32")
    return native_tokenizer.Tokenizer.open(str(folder / "model.gguf"))


SYMBOLS = ["[INST]", "<sep>", "[X]", "ab", "é"]


def spm_folder(folder: pathlib.Path, model: bytes, *, escape: bool = True) -> bytes:
    write_checkpoint(folder, llama_config(vocab_size=720), tokenizer=False)
    (folder / "tokenizer.model").write_bytes(model)
    if not escape:  # sentencepiece trains no such BPE but reads them
        values = read_model(folder / "tokenizer.model")
        values.escape_whitespaces = False
        model = encode_model(values)
        (folder / "tokenizer.model").write_bytes(model)
    return model


def compare_with_sentencepiece(folder: pathlib.Path, model: bytes, count: int) -> None:
    tokenizer = convert_folder(folder)
    strings = texts(SYMBOLS, count)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = [tokenizer.encode(text.encode()) for text in strings]
    assert_equal(strings, ours, processor.encode(strings, out_type=int))


GRID = list(itertools.product([True, False], repeat=4))
GRID_NAMES = ["bytes", "prefix", "extra", "escape"]
GRID_IDS = ["-".join(n for n, on in zip(GRID_NAMES, row, strict=True) if on) for row in GRID]


def trained(bytes_: bool, prefix: bool, extra: bool) -> bytes:
    return trained_spm(
        720,
        user_defined_symbols=",".join(SYMBOLS),
        control_symbols="[SYS]",
        byte_fallback=bytes_,
        add_dummy_prefix=prefix,
        remove_extra_whitespaces=extra,
    )


@pytest.mark.parametrize(("bytes_", "prefix", "extra", "escape"), GRID, ids=GRID_IDS)
def test_a_sentencepiece_model_of_any_settings_gives_the_same_ids(
    bytes_: bool, prefix: bool, extra: bool, escape: bool, tmp_path: pathlib.Path
) -> None:
    model = spm_folder(tmp_path, trained(bytes_, prefix, extra), escape=escape)
    compare_with_sentencepiece(tmp_path, model, 1500)


@pytest.mark.slow
@pytest.mark.parametrize(("bytes_", "prefix", "extra", "escape"), GRID, ids=GRID_IDS)
def test_sentencepiece_settings_on_many_strings(
    bytes_: bool, prefix: bool, extra: bool, escape: bool, tmp_path: pathlib.Path
) -> None:
    model = spm_folder(tmp_path, trained(bytes_, prefix, extra), escape=escape)
    compare_with_sentencepiece(tmp_path, model, 40_000)


def test_runs_of_unknown_characters_are_one_unknown_token(tmp_path: pathlib.Path) -> None:
    spm_folder(tmp_path, trained(False, True, False))
    tokenizer = convert_folder(tmp_path)
    unknown = tokenizer.unknown_id
    a, prefix = tokenizer.find_token(b"a"), tokenizer.find_token(MARK.encode())
    assert tokenizer.encode("🚀🚀é🚀".encode()).count(unknown) == 2  # "é" is a symbol
    assert tokenizer.encode("🚀中🚀a🚀".encode()) == [prefix, unknown, a, unknown]


def test_a_symbol_of_the_model_gets_no_space_before_what_follows(tmp_path: pathlib.Path) -> None:
    spm_folder(tmp_path, trained(True, True, False))
    tokenizer = convert_folder(tmp_path)
    pieces = [tokenizer.token_text(i).decode() for i in tokenizer.encode(b"[X]_[X]")]
    assert pieces == [MARK, "[X]", "_", "[X]"]


ADDED: dict[str, dict[str, bool]] = {
    "[X]": {"normalized": True},
    "<l>": {"lstrip": True},
    "<r>": {"rstrip": True},
    "<lr>": {"lstrip": True, "rstrip": True},
    "<w>": {"single_word": True},
    "ab": {"normalized": True, "single_word": True},
    "<|im|>": {"special": True},
    "b c": {"normalized": True},
    "bc": {},
    "  ": {},
    "<n>": {"normalized": True, "special": True, "rstrip": True},
    "zz": {"normalized": True},
    "cz": {"normalized": True, "lstrip": True},
    "z z1": {"lstrip": True, "single_word": True},
}
FLAGS = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


def with_added(values: dict[str, Any]) -> dict[str, Any]:
    """Tokens of the vocabulary keep their ids, as `tokenizers` sees to."""
    vocab = values["model"]["vocab"]
    free = itertools.count(max(vocab.values()) + 1)
    for text, flags in ADDED.items():
        token = vocab[text] if text in vocab else next(free)
        entry = {"id": token, "content": text, "special": False}
        values["added_tokens"].append(entry | FLAGS | flags)
    return values


def json_folder(folder: pathlib.Path, values: dict[str, Any]) -> None:
    write_checkpoint(folder, llama_config(vocab_size=730), tokenizer=False)
    write_json(folder / "tokenizer.json", values)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = names if values["model"].get("unk_token") else {}
    write_json(folder / "tokenizer_config.json", config)


def compare_with_tokenizers(tokenizer: Any, path: pathlib.Path, count: int) -> None:
    strings = texts([*ADDED, "<s>", "</s>", " [X]", " <n>", " ab"], count)
    original = tokenizers.Tokenizer.from_file(str(path))
    theirs = original.encode_batch(strings, add_special_tokens=False)
    ours = [tokenizer.encode(text.encode(), parse_special=True) for text in strings]
    assert_equal(strings, ours, [encoding.ids for encoding in theirs])


REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
PREPEND = {"type": "Prepend", "prepend": MARK}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": list(steps)}


def metaspace(scheme: str) -> dict[str, Any]:
    return {
        "type": "Metaspace",
        "replacement": MARK,
        "prepend_scheme": scheme,
        "split": False,
    }


# How tokenizer.json says that texts get marks for spaces: normalizer, pre_tokenizer.
MARKED: dict[str, tuple[Any, Any]] = {
    "prepend": (sequence(PREPEND, REPLACE), None),
    "replace": (REPLACE, None),
    "always": (None, metaspace("always")),
    "first": (None, metaspace("first")),
    "never": (None, metaspace("never")),
}
UNKNOWN = {"bytes": (True, True), "fused": (False, True), "single": (False, False)}


def marked_json(kind: str, unknown: str) -> dict[str, Any]:
    byte_fallback, fuse = UNKNOWN[unknown]
    values = llama2_json(trained_spm(700, byte_fallback=byte_fallback))
    values["model"] |= {"byte_fallback": byte_fallback, "fuse_unk": fuse}
    values["normalizer"], values["pre_tokenizer"] = MARKED[kind]
    return with_added(values)


@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("kind", MARKED)
def test_added_tokens_of_a_marked_tokenizer_match_as_in_tokenizers(
    kind: str, unknown: str, tmp_path: pathlib.Path
) -> None:
    json_folder(tmp_path, marked_json(kind, unknown))
    tokenizer = convert_folder(tmp_path)
    compare_with_tokenizers(tokenizer, tmp_path / "tokenizer.json", 1500)


@pytest.mark.slow
@pytest.mark.parametrize("unknown", UNKNOWN)
@pytest.mark.parametrize("kind", MARKED)
def test_added_tokens_of_a_marked_tokenizer_on_many_strings(
    kind: str, unknown: str, tmp_path: pathlib.Path
) -> None:
    json_folder(tmp_path, marked_json(kind, unknown))
    compare_with_tokenizers(convert_folder(tmp_path), tmp_path / "tokenizer.json", 40_000)


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_added_tokens_of_a_byte_level_tokenizer_match_as_in_tokenizers(
    pre: str, tmp_path: pathlib.Path
) -> None:
    steps, ignore_merges = describe(pre)
    values = json.loads(trained_bpe(700, digits=pre == "smollm"))
    values["model"]["ignore_merges"] = ignore_merges
    values["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    json_folder(tmp_path, with_added(values))
    tokenizer = convert_folder(tmp_path)
    compare_with_tokenizers(tokenizer, tmp_path / "tokenizer.json", 3000)


def test_a_normalized_token_matches_with_the_space_before_it(tmp_path: pathlib.Path) -> None:
    json_folder(tmp_path, marked_json("prepend", "bytes"))
    tokenizer = convert_folder(tmp_path)

    def pieces(text: str) -> list[str]:
        return [tokenizer.token_text(i).decode() for i in tokenizer.encode(text.encode())]

    assert pieces("[X]_") == ["[X]", "_"]
    assert "[X]" not in pieces("c[X]")
    assert pieces("c [X]") == [MARK + "c", "[X]"]


def test_user_text_makes_no_control_token_in_the_prepared_text(tmp_path: pathlib.Path) -> None:
    json_folder(tmp_path, marked_json("prepend", "bytes"))
    tokenizer = convert_folder(tmp_path)
    control = tokenizer.find_token(b"<n>")
    assert control in tokenizer.encode(b"a <n>", parse_special=True)
    assert control not in tokenizer.encode(b"a <n>")
    for pieces in (
        [(b"a ", True), (b" <n>", False)],
        [(b"a <", True), (b"n>", False)],
        [(b"a ", False), (b"<n>", True)],  # the space belongs to the token and is the user's
    ):
        assert control not in tokenizer.encode_chat(pieces), pieces
    assert control in tokenizer.encode_chat([(b"a", False), (b" <n>", True), (b" <n>", False)])


@pytest.mark.parametrize("kind", ["prepend", "first", "never"])
def test_the_way_back_keeps_what_added_tokens_match(kind: str, tmp_path: pathlib.Path) -> None:
    json_folder(tmp_path, marked_json(kind, "fused"))
    tokenizer = convert_folder(tmp_path)
    gguf_to_hf(tmp_path / "model.gguf", tmp_path / "back")
    compare_with_tokenizers(tokenizer, tmp_path / "back" / "tokenizer.json", 1500)


def test_the_way_back_keeps_the_settings_of_a_sentencepiece_model(tmp_path: pathlib.Path) -> None:
    spm_folder(tmp_path, trained(False, True, True))
    tokenizer = convert_folder(tmp_path)
    gguf_to_hf(tmp_path / "model.gguf", tmp_path / "back")
    assert not (tmp_path / "back" / "tokenizer.json").exists()  # it cannot say the same
    again = convert_folder(tmp_path / "back")
    strings = [text.encode() for text in texts(SYMBOLS, 1000)]
    assert [again.encode(text) for text in strings] == [tokenizer.encode(text) for text in strings]
