"""Converted tokenizers give the ids of the originals on 3 000 strings."""

from __future__ import annotations

import json
import pathlib
import random
import unicodedata
from typing import Any

import pytest

from helpers import native
from hf_checkpoints import (
    llama_config,
    neox_config,
    trained_bpe,
    trained_spm,
    write_checkpoint,
    write_json,
)

pytest.importorskip("gguf", reason="gguf is not installed")
tokenizers = pytest.importorskip("tokenizers", reason="tokenizers is not installed")
sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
native_tokenizer = native("tokenizer")

from test_tokenizer_peers import assert_equal, random_texts  # noqa: E402

from gguf_convert import ConvertError, convert  # noqa: E402
from gguf_convert.pre_tokenizers import (  # noqa: E402
    BY_NAME_ONLY,
    KNOWN,
    describe,
    identify,
    known_names,
)

N_STRINGS = 3_000


def strings(special: list[str]) -> list[str]:
    """Unicode, white space, digits, code; a tenth with special tokens inside."""
    rng = random.Random(11)
    texts = list(random_texts(N_STRINGS))
    for i in range(0, len(texts), 10):
        at = rng.randint(0, len(texts[i]))
        inside = "".join(rng.choices(special, k=rng.randint(1, 2)))
        texts[i] = texts[i][:at] + inside + texts[i][at:]
    return texts


def ours(path: pathlib.Path, texts: list[str], **options: Any) -> list[list[int]]:
    tokenizer = native_tokenizer.Tokenizer.open(str(path))
    return [tokenizer.encode(text.encode(), parse_special=True, **options) for text in texts]


def reference(folder: pathlib.Path) -> Any:
    """Encodes a batch as transformers does, or as the library below it where it is missing."""
    try:
        import transformers
    except ImportError:
        fast = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        return lambda texts, special: [
            e.ids for e in fast.encode_batch(texts, add_special_tokens=special)
        ]
    auto = transformers.AutoTokenizer.from_pretrained(str(folder))
    return lambda texts, special: auto(texts, add_special_tokens=special)["input_ids"]


def add_tokens(text: str, added: dict[str, bool], **changes: Any) -> str:
    """A tokenizer.json with more added tokens (text -> special) and changed parts."""
    values = json.loads(text)
    next_id = max(values["model"]["vocab"].values()) + 1
    for content, special in added.items():
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        entry = {"id": next_id, "content": content, "special": special}
        values["added_tokens"].append(entry | flags)
        next_id += 1
    return json.dumps(values | changes)


def template(name: str, token: int) -> dict[str, Any]:
    """The post-processor of Llama 3."""
    special = {"id": name, "ids": [token], "tokens": [name]}
    single = [
        {"SpecialToken": {"id": name, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    processing = {"type": "TemplateProcessing", "single": single, "pair": single}
    processing["special_tokens"] = {name: special}
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    processors = [byte_level | {"use_regex": True}, processing]
    return {"type": "Sequence", "processors": processors}


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "qwen2", "llama-bpe", "dbrx"])
def test_byte_level_bpe_gives_the_same_ids(pre: str, tmp_path: pathlib.Path) -> None:
    steps, ignore_merges = describe(pre)
    text = add_tokens(
        trained_bpe(700, digits=pre == "smollm"),
        {"<|im_start|>": True, "<|im_end|>": True, "  ": False, "<tool>": False},
        pre_tokenizer={"type": "Sequence", "pretokenizers": steps},
        post_processor=template("<|endoftext|>", 0) if pre == "llama-bpe" else None,
    )
    values = json.loads(text)
    values["model"]["ignore_merges"] = ignore_merges
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, llama_config(vocab_size=720))
    write_json(folder / "tokenizer.json", values)
    convert(folder, tmp_path / "model.gguf", outtype="f32")

    texts = strings(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool>"])
    encode = reference(folder)
    assert_equal(texts, ours(tmp_path / "model.gguf", texts), encode(texts, False))
    default = native_tokenizer.Tokenizer.open(str(tmp_path / "model.gguf"))
    assert default.add_bos == (pre == "llama-bpe")
    few = texts[:100]
    with_bos = ours(tmp_path / "model.gguf", few, add_bos=default.add_bos)
    assert_equal(few, with_bos, encode(few, True))


def test_text_is_normalised_by_the_caller_where_the_tokenizer_asks_for_nfc(
    tmp_path: pathlib.Path,
) -> None:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, neox_config())
    text = add_tokens(trained_bpe(300), {}, normalizer={"type": "NFC"})
    (folder / "tokenizer.json").write_text(text, "utf-8")
    plan = convert(folder, tmp_path / "model.gguf", outtype="f32")
    assert any("NFC" in note for note in plan.notes)
    texts = strings(["<|endoftext|>"])
    composed = [unicodedata.normalize("NFC", t) for t in texts]
    # Ten years of Unicode lie between Python's and the library's tables: compare what both compose.
    normalizer = tokenizers.normalizers.NFC()
    texts, composed = zip(
        *((t, c) for t, c in zip(texts, composed, strict=True) if normalizer.normalize_str(t) == c),
        strict=True,
    )
    assert len(texts) > 0.99 * N_STRINGS
    found = ours(tmp_path / "model.gguf", list(composed))
    assert_equal(list(texts), found, reference(folder)(list(texts), False))


def sentencepiece_ids(model: bytes, texts: list[str]) -> list[list[int]]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return processor.encode(texts, out_type=int)


def test_a_sentencepiece_model_gives_the_same_ids(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, llama_config(vocab_size=700), tokenizer=False)
    (folder / "tokenizer.model").write_bytes(trained_spm())
    convert(folder, tmp_path / "model.gguf", outtype="f32")
    texts = list(random_texts(N_STRINGS))
    found = ours(tmp_path / "model.gguf", texts)
    assert_equal(texts, found, sentencepiece_ids(trained_spm(), texts))
    tokenizer = native_tokenizer.Tokenizer.open(str(tmp_path / "model.gguf"))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, True)


def llama2_json(model: bytes) -> dict[str, Any]:
    """The tokenizer.json that transformers used to make of a LLaMA tokenizer.model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocab = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    plain = [t for t, i in vocab.items() if not processor.is_byte(i) and i > 2]
    merges = []
    for text in sorted(plain, key=lambda t: -processor.get_score(vocab[t])):
        pairs = [(text[:i], text[i:]) for i in range(1, len(text))]
        pairs = [p for p in pairs if p[0] in vocab and p[1] in vocab]
        merges += sorted(pairs, key=lambda p: (vocab[p[0]], vocab[p[1]]))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    names = enumerate(["<unk>", "<s>", "</s>"])
    mark = "\u2581"
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t, "special": True, **flags} for i, t in names],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": mark},
                {"type": "Replace", "pattern": {"String": " "}, "content": mark},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": template("<s>", 1)["processors"][1],
        "decoder": {"type": "ByteFallback"},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": vocab,
            "merges": [list(merge) for merge in merges],
        },
    }


@pytest.mark.parametrize("with_model", [True, False])
def test_a_llama_2_tokenizer_json_gives_the_same_ids(
    with_model: bool, tmp_path: pathlib.Path
) -> None:
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, llama_config(vocab_size=704), tokenizer=False)
    values = llama2_json(trained_spm())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    for i, text in enumerate(["<|im_start|>", "<|im_end|>"]):
        values["added_tokens"].append({"id": 700 + i, "content": text, "special": True, **flags})
    write_json(folder / "tokenizer.json", values)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(
        folder / "tokenizer_config.json", names | {"tokenizer_class": "PreTrainedTokenizerFast"}
    )
    if with_model:
        (folder / "tokenizer.model").write_bytes(trained_spm())
    convert(folder, tmp_path / "model.gguf", outtype="f32")

    texts = strings(["<s>", "</s>", "<|im_start|>", "<|im_end|>"])
    found = ours(tmp_path / "model.gguf", texts)
    assert_equal(texts, found, reference(folder)(texts, False))
    tokenizer = native_tokenizer.Tokenizer.open(str(tmp_path / "model.gguf"))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, True)
    assert tokenizer.n_tokens == 704


def test_user_defined_symbols_and_added_tokens_of_a_sentencepiece_model(
    tmp_path: pathlib.Path,
) -> None:
    model = trained_spm(720, user_defined_symbols="[INST],<sep>", control_symbols="[SYS]")
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, llama_config(vocab_size=728), tokenizer=False)
    (folder / "tokenizer.model").write_bytes(model)
    write_json(folder / "added_tokens.json", {"<|im_end|>": 720, "<x>": 722})
    write_json(folder / "tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}})
    plan = convert(folder, tmp_path / "model.gguf", outtype="f32")
    tokens, types = (plan.keys[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    kinds = dict(zip(tokens, types, strict=True))
    assert kinds["[INST]"] == kinds["<sep>"] == kinds["<x>"] == 4
    assert kinds["[SYS]"] == kinds["<|im_end|>"] == kinds["<s>"] == 3
    assert kinds["<unk>"] == 2
    assert kinds["<0x0A>"] == 6
    assert [t for t, kind in kinds.items() if kind == 5] == [
        f"[PAD{i}]" for i in (721, 723, 724, 725, 726, 727)
    ]
    assert plan.keys["tokenizer.ggml.eos_token_id"] == 720
    assert len(plan.keys["tokenizer.ggml.scores"]) == 728


@pytest.mark.parametrize("steps", KNOWN, ids=lambda s: "-".join(n or "" for n in KNOWN[s]))
def test_every_known_pre_tokenizer_splits_as_the_original(steps: tuple[Any, ...]) -> None:
    for ignore_merges, name in enumerate(KNOWN[steps]):
        if name is None:
            continue
        nodes, _ = describe(name)
        if KNOWN[steps] == ("gpt-2", None) or name == "smollm":  # two ways to say it
            nodes = []
            for kind, value in steps:
                if kind == "split":
                    pattern = {"Regex": value}
                    nodes.append({"type": "Split", "pattern": pattern} | SPLIT_FLAGS)
                elif kind == "digits":
                    nodes.append({"type": "Digits", "individual_digits": value})
                else:
                    nodes.append({"type": "ByteLevel", "use_regex": value} | BYTE_FLAGS)
        node = {"type": "Sequence", "pretokenizers": nodes}
        assert identify(node, bool(ignore_merges), "here") == name
        # Without the last step's spelling of bytes, to compare texts.
        values = json.loads(trained_bpe(300)) | {"pre_tokenizer": node}
        original = tokenizers.Tokenizer.from_str(json.dumps(values)).pre_tokenizer
        for text in random_texts(N_STRINGS)[:2000]:
            if any(unicodedata.category(c) == "Cn" for c in text):
                continue  # `tokenizers` has two tables of classes; they differ in the newest digits
            ends = [end for _, (_, end) in original.pre_tokenize_str(text)]
            raw, words = text.encode(), native_tokenizer.split_words(name, text.encode())
            at, found = 0, []
            for word in words:
                at += len(word)
                found.append(len(raw[:at].decode()))
            assert found == ends, (name, text)


SPLIT_FLAGS = {"behavior": "Isolated", "invert": False}
BYTE_FLAGS = {"add_prefix_space": False, "trim_offsets": True}


def test_every_name_of_a_pre_tokenizer_is_known_to_the_tokenizer() -> None:
    names = native_tokenizer.known_pre_tokenizers()
    known = set(names.split(", ") if isinstance(names, str) else names)
    assert {*known_names(), *BY_NAME_ONLY.split()} == known


def test_a_pre_tokenizer_that_nobody_knows_is_refused(tmp_path: pathlib.Path) -> None:
    write_checkpoint(tmp_path)
    with pytest.raises(
        ConvertError, match=r"--pre-tokenizer 'gpt9' is not known; known are .*gpt-2"
    ):
        convert(tmp_path, tmp_path / "out.gguf", pre_tokenizer="gpt9")
    plan = convert(tmp_path, tmp_path / "out.gguf", pre_tokenizer="viking")
    assert plan.keys["tokenizer.ggml.pre"] == "viking"
    write_checkpoint(tmp_path / "s", llama_config(vocab_size=700), tokenizer=False)
    (tmp_path / "s" / "tokenizer.model").write_bytes(trained_spm())
    plan = convert(tmp_path / "s", tmp_path / "out.gguf", pre_tokenizer="gpt-2")
    assert plan.keys["tokenizer.ggml.pre"] == "default"
    assert any("SentencePiece needs none" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre_tokenizer": {"type": "Whitespace"}}, r"Whitespace.*gpt-2.*--pre-tokenizer"),
        ({"pre_tokenizer": None}, "Found null"),
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}},
            "puts a space before the text",
        ),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer 'Lowercase'"),
        ({"post_processor": {"type": "BertProcessing"}}, "post-processor 'BertProcessing'"),
        ({"model": {"type": "WordPiece", "vocab": {"a": 0}}}, "'WordPiece' are not supported"),
        ({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}}, "merge 0 uses 'b'"),
        ({"model": {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}}, "both 'a' and 'b'"),
        ({"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}, "token 'a' has the id -1"),
        ({"added_tokens": [{"id": 5, "content": "x"}]}, "id 5 is both"),
    ],
)
def test_tokenizers_of_another_kind_are_refused_by_name(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    write_checkpoint(tmp_path)
    values = json.loads((tmp_path / "tokenizer.json").read_text("utf-8"))
    write_json(tmp_path / "tokenizer.json", values | changes)
    with pytest.raises(ConvertError, match=message):
        convert(tmp_path, tmp_path / "out.gguf")


def test_a_byte_fallback_tokenizer_that_scores_cannot_express_is_refused(
    tmp_path: pathlib.Path,
) -> None:
    write_checkpoint(tmp_path, llama_config(vocab_size=700), tokenizer=False)
    values = llama2_json(trained_spm())
    merges = values["model"]["merges"]
    values["model"]["merges"] = merges[:-1]
    write_json(tmp_path / "tokenizer.json", values)
    with pytest.raises(ConvertError, match="there is no such merge"):
        convert(tmp_path, tmp_path / "out.gguf")
    by_text: dict[str, list[int]] = {}
    for i, merge in enumerate(merges):
        by_text.setdefault("".join(merge), []).append(i)
    i = next(ranks[0] for ranks in by_text.values() if len(ranks) > 1)
    values["model"]["merges"] = [*merges[:i], *merges[i + 1 :], merges[i]]
    write_json(tmp_path / "tokenizer.json", values)
    with pytest.raises(ConvertError, match="are not next to each other"):
        convert(tmp_path, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model_type": "unigram"}, "unigram are not supported"),
        ({"normalization_rule_name": "nmt_nfkc"}, "normalises text"),
        ({"treat_whitespace_as_suffix": True}, "whitespace_as_suffix = True"),
    ],
)
def test_sentencepiece_models_of_another_kind_are_refused(
    options: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    write_checkpoint(tmp_path, llama_config(vocab_size=700), tokenizer=False)
    (tmp_path / "tokenizer.model").write_bytes(trained_spm(700, **options))
    with pytest.raises(ConvertError, match=message):
        convert(tmp_path, tmp_path / "out.gguf")


def test_a_damaged_sentencepiece_model_is_refused(tmp_path: pathlib.Path) -> None:
    write_checkpoint(tmp_path, llama_config(vocab_size=700), tokenizer=False)
    good = trained_spm()
    rng = random.Random(3)
    for _ in range(60):
        raw = bytearray(good[: rng.randint(1, len(good) - 1)])
        for _ in range(3):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        (tmp_path / "tokenizer.model").write_bytes(bytes(raw))
        with pytest.raises(ConvertError):
            convert(tmp_path, tmp_path / "out.gguf")


def test_our_writer_of_sentencepiece_models_is_read_by_sentencepiece(
    tmp_path: pathlib.Path,
) -> None:
    from gguf_convert.sentencepiece_model import encode_model, read_model

    (tmp_path / "tokenizer.model").write_bytes(trained_spm())
    again = encode_model(read_model(tmp_path / "tokenizer.model"))
    texts = list(random_texts(N_STRINGS))[:500]
    assert sentencepiece_ids(again, texts) == sentencepiece_ids(trained_spm(), texts)


@pytest.mark.parametrize("kind", ["spm", "bpe"])
def test_llama_cpp_reads_the_same_tokenizer(kind: str, tmp_path: pathlib.Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, llama_config(vocab_size=720), tokenizer=kind == "bpe")
    if kind == "spm":
        (folder / "tokenizer.model").write_bytes(trained_spm())
    else:
        (folder / "tokenizer.json").write_text(trained_bpe(700), "utf-8")
    path = tmp_path / "model.gguf"
    convert(folder, path, outtype="f32")
    peer = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    special = ["<s>", "</s>"] if kind == "spm" else ["<|endoftext|>"]
    texts = [t for t in strings(special)[:2000] if t and "\0" not in t]  # it stops at a NUL
    theirs = [peer.tokenize(text.encode(), add_bos=False, special=True) for text in texts]
    assert_equal(texts, ours(path, texts), theirs)
    assert peer.token_eos() == (2 if kind == "spm" else 0)
    peer.close()
