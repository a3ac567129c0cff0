"""The tokenizers against the originals: the vocabularies' cases, `tokenizers`, `sentencepiece`."""

from __future__ import annotations

import functools
import os
import pathlib
import random
import re
import struct
from typing import Any

import pytest

from helpers import model_path, models_dir, native

native_tokenizer = native("tokenizer")

N_STRINGS = 20_000
MANY = [N_STRINGS, pytest.param(100_000, marks=pytest.mark.slow)]
SEPARATOR = b"\n__ggml_vocab_test__\n"
VOCABS = [
    "aquila", "baichuan", "command-r", "deepseek-coder", "deepseek-llm", "falcon", "gpt-2",
    "gpt-neox", "llama-bpe", "llama-spm", "mpt", "phi-3", "qwen2", "qwen35", "refact", "starcoder",
]  # fmt: skip


def vocab_path(name: str) -> pathlib.Path:
    if name.endswith(".gguf"):
        return model_path(name)
    return model_path(f"vocabs/ggml-vocab-{name}.gguf")


@functools.cache
def open_vocab(name: str) -> Any:
    return native_tokenizer.Tokenizer.open(str(vocab_path(name)))


def read_metadata(path: pathlib.Path) -> dict[str, Any]:
    """The keys of a GGUF file that begin with "tokenizer.ggml"; strings as bytes."""
    scalars = dict(zip([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12], "BbHhIif?Qqd", strict=True))
    with path.open("rb") as file:

        def number(kind: str) -> Any:
            return struct.unpack("<" + kind, file.read(struct.calcsize(kind)))[0]

        def value(kind: int) -> Any:
            if kind == 8:
                return file.read(number("Q"))
            if kind == 9:
                element, count = number("I"), number("Q")
                if element == 8:
                    return [file.read(number("Q")) for _ in range(count)]
                format_ = f"<{count}{scalars[element]}"
                return list(struct.unpack(format_, file.read(struct.calcsize(format_))))
            return number(scalars[kind])

        file.seek(16)
        found = {}
        for _ in range(number("Q")):
            key = file.read(number("Q")).decode()
            content = value(number("I"))
            if key.startswith("tokenizer.ggml."):
                found[key.removeprefix("tokenizer.ggml.")] = content
        return found


ALPHABETS = [
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "0123456789",
    "    \n",
    " \t\n\r\v\f\x1c\x85\u00a0\u1680\u2003\u2028\u2029\u202f\u3000\u200b\ufeff",
    ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+`~",
    "äöüßéèñçøåÄÖÜÉſKŁłžǅǈªº",
    "αβγδεζηθΑΒΓΔабвгдежзАБВГДЕЖЗѢ",
    "中文字符测试你好世界我们的是不了人在有",
    "ひらがなカタカナー々〇。、「」",
    "한국어조선말ㄱㅏ가각힣",
    "สวัสดีครับ",
    "नमस्तेकखगघ\u093e\u093f\u094d",
    "مرحبابالعالم٠١٢٣؟،",
    "שלום\u05b0\u05b7",
    "\u0301\u0308\u0327\u20dd\u0e49",
    "²³¹½¼Ⅷⅳ①٣৩𝟘𝟙",
    "😀🚀👩👨👧\u200d\ufe0f🏽🇩🇪❤",
    "€£¥©®±×÷√∑∞≠≤→←⇒",
    "“”‘’—–…«»„‚•·¿¡§¶",
    "\x00\x01\x07\x1b\x7f\x9f\u00ad\ufffd\ufffe\uffff",
    "𝒜𝓑𝔠𝕯𐐀𐐨𐓀𠀀𠮷𪜶",
]
FRAGMENTS = [
    "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'LL", "'ſ", "\r\n",
    "\n\n", "\n\n\n", "    ", "  ", " \n", "\t\t", "1234567", "3.14", "00", "http://", "();", "==",
    "//", "/*", "->", "don't", "I'm", "def f(x):\n    return x", "Hello", " world", "été",
    "e\u0301", "HTTPServer",
]  # fmt: skip


@functools.cache
def random_texts(count: int = N_STRINGS) -> list[str]:
    """Strings of up to some tens of characters from mixtures of alphabets."""
    rng = random.Random(20240607)
    anything = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = []
    for _ in range(count):
        pools = rng.sample(ALPHABETS, rng.randint(1, 4))
        parts: list[str] = []
        for _ in range(rng.randint(0, 8)):
            kind = rng.random()
            if kind < 0.7:
                parts.append("".join(rng.choices(rng.choice(pools), k=rng.randint(1, 8))))
            elif kind < 0.85:
                parts.append(rng.choice(FRAGMENTS))
            elif kind < 0.95:
                parts.append(rng.choice([" ", "\n", "  ", "\t"]))
            else:
                parts.append("".join(map(chr, rng.choices(anything, k=2))))
        texts.append("".join(parts))
    return texts


def assert_equal(texts: list[str], ours: list[list[int]], theirs: list[list[int]]) -> None:
    assert len(ours) == len(theirs) == len(texts)
    if ours == theirs:
        return
    wrong = [i for i in range(len(texts)) if ours[i] != theirs[i]]
    shown = "\n".join(f"{texts[i]!r}: ours {ours[i]}, theirs {theirs[i]}" for i in wrong[:5])
    pytest.fail(f"{len(wrong)} of {len(texts)} texts differ:\n{shown}")


@pytest.mark.parametrize("name", VOCABS)
def test_every_case_of_the_vocabulary_passes(name: str) -> None:
    path = vocab_path(name)
    tokenizer = open_vocab(name)
    inputs_path = path.with_suffix(".gguf.inp")
    if not inputs_path.exists():
        # No cases come with these; they must load and give their own text back.
        text = "Hello, wörld! 123 \n\t 中文 'll".encode()
        assert tokenizer.decode(tokenizer.encode(text), strip_space_prefix=True) == text
        return
    inputs = inputs_path.read_bytes().split(SEPARATOR)
    expected = path.with_suffix(".gguf.out").read_text().split("\n")
    assert len(inputs) == len(expected) >= 40
    for text, line in zip(inputs, expected, strict=True):
        assert tokenizer.encode(text) == [int(token) for token in line.split()], text


def test_every_vocabulary_of_another_kind_is_refused_by_name() -> None:
    folder = models_dir() / "vocabs"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    refused = set()
    for path in sorted(folder.glob("*.gguf")):
        model = read_metadata(path)["model"].decode()
        if model in ("gpt2", "llama"):
            assert path.name.removeprefix("ggml-vocab-").removesuffix(".gguf") in VOCABS
            continue
        with pytest.raises(native_tokenizer.NativeError, match=f"'{model}'") as caught:
            native_tokenizer.Tokenizer.open(str(path))
        assert (caught.value.code, caught.value.reason) == ("unsupported", "tokenizer_model")
        refused.add(model)
    assert refused == {"bert", "gemma4", "t5"}


CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + TAIL
QWEN2 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + TAIL
QWEN35 = (
    CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
CASED_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
GPT4O = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?"
    rf"|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|" + CASED_TAIL
)
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}|"
    + CASED_TAIL
)
CJK = "[一-龥\u0800-一가-\ud7ff]+"
DEEPSEEK3 = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"""
    r"""| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""
)
LETTERS_FILE = pathlib.Path(__file__).parents[2] / "cpp" / "tokenizer" / "deepseek_letters.inc"


def deepseek_letters() -> str:
    ranges = re.findall(r"\{0x(\w+), 0x(\w+)\}", LETTERS_FILE.read_text())
    return "".join(rf"\x{{{first}}}-\x{{{last}}}" for first, last in ranges)


BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
DEEPSEEK_LLM = [
    r"[\r\n]",
    rf"\s?[{deepseek_letters()}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    CJK,
    r"\p{N}+",
]
# The regular expressions of the original tokenizers, applied one after the other.
SPLITS = {
    "default": [r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"],
    "gpt-2": [GPT2],
    "llama-bpe": [LLAMA3],
    "qwen2": [QWEN2],
    "qwen35": [QWEN35],
    "smollm": [r"\p{N}", GPT2],
    "falcon": [r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"],
    "deepseek-coder": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}"],
    "deepseek-llm": DEEPSEEK_LLM,
    "deepseek-v3": [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", DEEPSEEK3],
    "gpt-4o": [GPT4O],
    "tekken": [TEKKEN],
    "bloom": [BLOOM],
    "viking": [BLOOM, r"\p{N}"],
}


@pytest.mark.parametrize("pre", SPLITS)
def test_words_are_split_as_the_original_regular_expressions_do(pre: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    splits = [
        tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        for pattern in SPLITS[pre]
    ]
    original = tokenizers.pre_tokenizers.Sequence(splits)
    for text in random_texts()[:8000]:
        words = [word.decode() for word in native_tokenizer.split_words(pre, text.encode())]
        assert words == [word for word, _ in original.pre_tokenize_str(text)], text


def test_character_classes_equal_those_of_the_original_tokenizers() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    # Where characters are assigned; the planes between are empty or for private use.
    code_points = [*range(0xD800), *range(0xE000, 0x32400), *range(0xDFFF0, 0xE0200)]
    everything = "".join(map(chr, code_points))
    classes = native_tokenizer.char_classes()
    properties = r"\p{L} \p{N} \p{P} \p{S} \p{M} \s [\p{Lu}\p{Lt}] \p{Ll}".split()
    for bit, pattern in enumerate(properties):
        remove = tokenizers.normalizers.Replace(tokenizers.Regex(pattern), "")
        outside = set(remove.normalize_str(everything))
        wrong = [hex(ord(c)) for c in everything if (classes[ord(c)] >> bit & 1) == (c in outside)]
        assert not wrong, (pattern, wrong[:20])


def original_bpe(name: str, pre: str) -> Any:
    """The `tokenizers` object with the file's tokens and merges, without a normaliser."""
    tokenizers = pytest.importorskip("tokenizers")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    metadata = read_metadata(vocab_path(name))
    tokens = [token.decode() for token in metadata["tokens"]]
    vocab: dict[str, int] = {}
    for i, token in enumerate(tokens):
        vocab.setdefault(token, i)
    merges = [tuple(merge.decode().split(" ")) for merge in metadata["merges"]]
    model = tokenizers.models.BPE(vocab, merges, ignore_merges=pre == "llama-bpe")
    original = tokenizers.Tokenizer(model)
    byte_level = functools.partial(tokenizers.pre_tokenizers.ByteLevel, add_prefix_space=False)
    if pre in ("llama-bpe", "qwen2"):
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(SPLITS[pre][0]), "isolated")
        steps = [split, byte_level(use_regex=False)]
    elif pre == "smollm":
        digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
        steps = [digits, byte_level(use_regex=True)]
    else:
        steps = [byte_level(use_regex=True)]
    original.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(steps)
    types = metadata["token_type"]
    user_defined = [token for token, type_ in zip(tokens, types, strict=True) if type_ == 4]
    original.add_tokens([tokenizers.AddedToken(token, normalized=False) for token in user_defined])
    return original


@pytest.mark.parametrize(
    ("name", "pre"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm"),
        ("qwen2", "qwen2"),
        ("llama-bpe", "llama-bpe"),
        ("gpt-2", "gpt-2"),
        ("mpt", "mpt"),
    ],
)
@pytest.mark.parametrize("n", MANY)
def test_random_unicode_agrees_with_tokenizers(name: str, pre: str, n: int) -> None:
    texts = random_texts(n)
    ours = open_vocab(name).encode_batch([text.encode() for text in texts])
    theirs = original_bpe(name, pre).encode_batch(texts, add_special_tokens=False)
    assert_equal(texts, ours, [encoding.ids for encoding in theirs])


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: int | bytes) -> bytes:
    """A field of sentencepiece's ModelProto; four bytes of field 2 are a float."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    if number == 2 and len(content) == 4:
        return varint(number << 3 | 5) + content
    return varint(number << 3 | 2) + varint(len(content)) + content


@pytest.mark.parametrize("name", ["llama-spm", "baichuan"])
@pytest.mark.parametrize("n", MANY)
def test_random_unicode_agrees_with_sentencepiece(name: str, n: int) -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    metadata = read_metadata(vocab_path(name))
    rows = zip(metadata["tokens"], metadata["scores"], metadata["token_type"], strict=True)
    pieces = [
        field(1, token) + field(2, struct.pack("<f", score)) + field(3, type_)
        for token, score, type_ in rows
    ]
    byte_pairs, byte_fallback = field(3, 2), field(35, 1)
    add_dummy_prefix, remove_extra_whitespaces = field(3, 1), field(4, 0)
    proto = b"".join(field(1, piece) for piece in pieces)
    proto += field(2, byte_pairs + byte_fallback)
    proto += field(3, field(1, b"identity") + add_dummy_prefix + remove_extra_whitespaces)
    processor = sentencepiece.SentencePieceProcessor(model_proto=proto)

    texts = random_texts(n)
    ours = open_vocab(name).encode_batch([text.encode() for text in texts])
    assert_equal(texts, ours, processor.encode(texts, out_type=int, num_threads=2))


@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "llama-bpe", "command-r", "llama-spm"])
def test_decoding_gives_the_encoded_text_back(name: str) -> None:
    tokenizer = open_vocab(name)
    texts = [text.encode() for text in random_texts()[:20_000]]
    for text, tokens in zip(texts, tokenizer.encode_batch(texts), strict=True):
        expected = text.replace("▁".encode(), b" ") if name == "llama-spm" else text
        assert tokenizer.decode(tokens, strip_space_prefix=True) == expected
