"""Vocabularies that nobody vouches for: refused with a reason, or harmless."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer_files as tf
from damage import damaged
from helpers import examples
from tokenizer_files import CONTROL, REMOVED, bpe_file, parse, spm_file

native_tokenizer = tf.native_tokenizer

BYTES = tf.byte_alphabet()
NAN, INFINITY = float("nan"), float("inf")
SPM_SIZE = 3 + 256 + 10
BPE_SIZE = 256 + 5 + 3


def merges(*texts: str) -> dict[str, Any]:
    return {"merges": ("[string]", list(texts))}


def spm_scores(**at: float) -> tuple[str, list[float]]:
    scores = [0.0] * SPM_SIZE
    for place, score in at.items():
        scores[int(place.removeprefix("at"))] = score
    return "[f32]", scores


REFUSED = {
    # name: (file, code, reason, key, text of the message)
    "tokens_missing": (lambda: bpe_file(tokens=REMOVED), "missing_key", "tokens", "no tokens"),
    "tokens_empty": (
        lambda: bpe_file(tokens=("[string]", [])),
        "missing_key",
        "tokens",
        "no tokens",
    ),
    "tokens_of_numbers": (
        lambda: bpe_file(tokens=("[u32]", [1])),
        "wrong_type",
        "tokens",
        "array of u32",
    ),
    "tokens_scalar": (lambda: bpe_file(tokens="abc"), "wrong_type", "tokens", "string"),
    "too_many_tokens": (
        lambda: bpe_file(tokens=("[string]", [""] * (2**20 + 1))),
        "limit",
        "tokens",
        "1048577 tokens",
    ),
    "token_too_long": (
        lambda: bpe_file(tokens=("[string]", [*BYTES, "x" * 65537]), token_type=REMOVED),
        "limit",
        "tokens",
        "token 256 of 65537 bytes",
    ),
    "spm_tokens_too_long": (
        lambda: spm_file([("x" * 65000, 0.0)]),
        "limit",
        "tokens",
        "squared",
    ),
    "special_tokens_too_long": (
        lambda: bpe_file(special=[(f"{i:065000}", CONTROL) for i in range(65)]),
        "limit",
        "tokens",
        "special tokens",
    ),
    "types_u8": (
        lambda: bpe_file(token_type=("[u8]", [1] * 300)),
        "wrong_type",
        "token_type",
        "u8",
    ),
    "types_u32": (
        lambda: bpe_file(token_type=("[u32]", [1] * 300)),
        "wrong_type",
        "token_type",
        "u32",
    ),
    "types_short": (
        lambda: bpe_file(token_type=("[i32]", [1] * 100)),
        "bad_vocab",
        "token_type",
        "100 types for",
    ),
    "types_unknown": (
        lambda: bpe_file(token_type=("[i32]", [7] * BPE_SIZE)),
        "bad_vocab",
        "token_type",
        "type 7",
    ),
    "types_undefined": (
        lambda: spm_file(token_type=("[i32]", [1] * (SPM_SIZE - 1) + [0])),
        "bad_vocab",
        "token_type",
        f"token {SPM_SIZE - 1} has type 0 (undefined)",
    ),
    "types_long": (
        lambda: spm_file(token_type=("[i32]", [1] * (SPM_SIZE + 1))),
        "bad_vocab",
        "token_type",
        f"{SPM_SIZE + 1} types for {SPM_SIZE}",
    ),
    "types_negative": (
        lambda: bpe_file(token_type=("[i32]", [-1] * BPE_SIZE)),
        "bad_vocab",
        "token_type",
        "type -1",
    ),
    "scores_missing": (
        lambda: spm_file(scores=REMOVED),
        "missing_key",
        "scores",
        "needs its scores",
    ),
    "scores_u8": (lambda: spm_file(scores=("[u8]", [0] * SPM_SIZE)), "wrong_type", "scores", "u8"),
    "scores_short": (
        lambda: spm_file(scores=("[f32]", [0.0])),
        "bad_vocab",
        "scores",
        "1 scores for",
    ),
    "scores_long": (
        lambda: spm_file(scores=("[f32]", [0.0] * (SPM_SIZE + 1))),
        "bad_vocab",
        "scores",
        f"{SPM_SIZE + 1} scores for {SPM_SIZE} tokens",
    ),
    "scores_of_bytes_short": (
        lambda: bpe_file(scores=("[f32]", [0.0])),
        "bad_vocab",
        "scores",
        "1 scores for",
    ),
    "score_nan": (
        lambda: spm_file(scores=spm_scores(at260=NAN)),
        "bad_vocab",
        "scores",
        "token 260",
    ),
    "score_inf": (
        lambda: spm_file(scores=spm_scores(at0=INFINITY)),
        "bad_vocab",
        "scores",
        "token 0",
    ),
    "bos_of_text": (lambda: bpe_file(bos_token_id="0"), "wrong_type", "bos_token_id", "string"),
    "add_bos_without_bos": (
        lambda: bpe_file(add_bos_token=True),
        "bad_special_id",
        "bos_token_id",
        "no such token",
    ),
    "add_bos_out_of_range": (
        lambda: bpe_file(add_bos_token=True, bos_token_id=("i32", -1)),
        "bad_special_id",
        "bos_token_id",
        "no such token",
    ),
    "add_bos_of_a_number": (
        lambda: bpe_file(add_bos_token=1),
        "wrong_type",
        "add_bos_token",
        "u32",
    ),
    "byte_token_malformed": (
        lambda: spm_file(special=[("<0xZZ>", tf.BYTE)]),
        "bad_vocab",
        "tokens",
        "<0xZZ>",
    ),
    "byte_token_short": (
        lambda: spm_file(special=[("<0x1", tf.BYTE)]),
        "bad_vocab",
        "tokens",
        "<0x1",
    ),
    "bytes_missing_without_unknown": (
        lambda: tf.file_of(
            {
                "model": "llama",
                "tokens": ("[string]", ["a", "b"]),
                "scores": ("[f32]", [0.0, 0.0]),
                "token_type": ("[i32]", [1, 1]),
            },
            {},
        ),
        "bad_vocab",
        "tokens",
        "256 of the 256 byte tokens are missing",
    ),
    "merges_missing": (
        lambda: bpe_file(merges=REMOVED),
        "missing_key",
        "merges",
        "needs its merges",
    ),
    "merges_of_numbers": (lambda: bpe_file(merges=("[u32]", [1])), "wrong_type", "merges", "u32"),
    "merge_without_space": (
        lambda: bpe_file([], **merges("ab")),
        "bad_merge",
        "merges",
        "merge 0 'ab'",
    ),
    "merge_empty": (lambda: bpe_file([], **merges("")), "bad_merge", "merges", "merge 0"),
    "merge_of_three": (
        lambda: bpe_file([], **merges("h e", "a b c")),
        "bad_merge",
        "merges",
        "merge 1",
    ),
    "merge_half_empty": (lambda: bpe_file([], **merges("a ")), "bad_merge", "merges", "empty part"),
    "merge_other_half": (lambda: bpe_file([], **merges(" a")), "bad_merge", "merges", "merge 0"),
    "merge_too_long": (
        lambda: bpe_file([], special=[], **merges("abcdefgh ijklmnop")),
        "bad_merge",
        "merges",
        "longest token",
    ),
    "model_missing": (lambda: bpe_file(model=REMOVED), "missing_key", "model", ""),
    "model_not_text": (lambda: bpe_file(model=7), "wrong_type", "model", ""),
    "pre_not_text": (lambda: bpe_file(pre=7), "wrong_type", "pre", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_vocabulary_is_refused_with_its_reason(name: str) -> None:
    make, reason, key, text = REFUSED[name]
    with pytest.raises(native_tokenizer.NativeError) as caught:
        parse(make())
    error = caught.value
    assert (error.code, error.reason) == ("model_format", reason), str(error)
    assert error.key == f"tokenizer.ggml.{key}"
    assert text in str(error)
    assert "memory.gguf" in str(error)


OWN = "specdec.tokenizer."


@pytest.mark.parametrize(
    ("changes", "key", "text"),
    [
        ({OWN + "added_tokens": ("[u32]", [0])}, "added_token_flags", "0 flags for 1 added"),
        (
            {
                OWN + "added_tokens": ("[u32]", [SPM_SIZE]),
                OWN + "added_token_flags": ("[u32]", [1]),
            },
            "added_tokens",
            f"{SPM_SIZE} is not a token",
        ),
        (
            {OWN + "added_tokens": ("[u32]", [5]), OWN + "added_token_flags": ("[u32]", [64])},
            "added_token_flags",
            "token 5 are 64",
        ),
        (
            {OWN + "added_tokens": ("[i32]", [-1]), OWN + "added_token_flags": ("[u32]", [1])},
            "added_tokens",
            "",
        ),
        ({OWN + "added_tokens": "x", OWN + "added_token_flags": "x"}, "added_tokens", ""),
        ({OWN + "space_prefix": "sometimes"}, "space_prefix", "'sometimes'"),
        ({OWN + "fuse_unknown": 1}, "fuse_unknown", ""),
    ],
)
def test_bad_values_of_our_own_keys_are_refused(changes: Any, key: str, text: str) -> None:
    with pytest.raises(native_tokenizer.NativeError) as caught:
        parse(spm_file(**changes))
    assert caught.value.code in ("model_format", "unsupported")
    assert caught.value.key == OWN + key
    assert text in str(caught.value)


@pytest.mark.parametrize("make", [bpe_file, spm_file])
def test_a_table_that_normalises_texts_is_refused(make: Any) -> None:
    key = "tokenizer.ggml.precompiled_charsmap"
    assert parse(make(precompiled_charsmap=("[u8]", []))).n_tokens
    with pytest.raises(native_tokenizer.NativeError, match="normalises text") as caught:
        parse(make(precompiled_charsmap=("[u8]", [1, 2, 3])))
    assert (caught.value.code, caught.value.key) == ("unsupported", key)


@pytest.mark.parametrize("make", [bpe_file, spm_file])
@pytest.mark.parametrize("name", ["bos", "eos", "eot", "padding", "unknown", "fim_pad", "mask"])
@pytest.mark.parametrize("value", [("i32", -1), ("u32", 2**32 - 1), ("i64", -(2**63)), None])
def test_a_special_id_that_is_no_token_is_left_out_with_a_warning(
    make: Any, name: str, value: Any
) -> None:
    n_tokens = parse(make()).n_tokens
    value = ("u32", n_tokens) if value is None else value
    add_bos = False if name == "bos" else REMOVED
    tokenizer = parse(make(**{f"{name}_token_id": value}, add_bos_token=add_bos))
    (warning,) = tokenizer.warnings
    assert warning.startswith(f"special_id: tokenizer.ggml.{name}_token_id is {value[1]}, ")
    # As a file without the key: the defaults of the format stay.
    without = parse(make(**{f"{name}_token_id": REMOVED}, add_bos_token=add_bos))
    for what in ("bos_id", "eos_id", "eot_id", "unknown_id", "eog_ids", "add_bos"):
        assert getattr(tokenizer, what) == getattr(without, what), what
    for text in (b"abc", b"<|im_end|> hello"):
        assert tokenizer.encode(text, parse_special=True) == without.encode(
            text, parse_special=True
        )


def test_a_file_that_asks_for_an_end_token_it_has_not_is_read_with_a_warning() -> None:
    tokenizer = parse(bpe_file(add_eos_token=True))
    assert tokenizer.eos_id is None
    assert [w.split(":")[0] for w in tokenizer.warnings] == ["no_eos"]
    assert tokenizer.encode(b"hello") == parse(bpe_file()).encode(b"hello")


@pytest.mark.parametrize(
    "text", ["[PAD]", "<pad>", "<|pad|>", "[PAD271]", "<unused12>", "<dummy00001>", "<|padding_3|>"]
)
def test_padding_that_the_embedding_has_no_row_for_is_left_out_with_a_note(text: str) -> None:
    special = [(text, tf.NORMAL), ("x", tf.UNUSED)]
    tokenizer = parse(spm_file(special=special, n_rows=SPM_SIZE))
    assert tokenizer.n_tokens == SPM_SIZE
    assert [w.split(":")[0] for w in tokenizer.warnings] == ["extra_tokens"]
    assert "the last 2 tokens" in tokenizer.warnings[0]
    assert tokenizer.encode(b"abc") == parse(spm_file()).encode(b"abc")


def test_the_padding_token_may_have_any_name_and_lie_beyond_the_embedding() -> None:
    special = [("<|finetune|>", CONTROL)]
    tokenizer = parse(spm_file(special=special, padding_token_id=SPM_SIZE, n_rows=SPM_SIZE))
    assert tokenizer.n_tokens == SPM_SIZE
    assert [w.split(":")[0] for w in tokenizer.warnings] == ["extra_tokens", "special_id"]


def test_a_token_that_text_may_become_needs_its_row() -> None:
    special = [("[PAD]", CONTROL), ("<|im_start|>", CONTROL)]
    with pytest.raises(native_tokenizer.NativeError, match=r"270 is '<\|im_start\|>'") as caught:
        parse(spm_file(special=special, n_rows=SPM_SIZE))
    assert (caught.value.code, caught.value.reason) == ("model_format", "shape_mismatch")
    # Lengths are compared with the file's tokens, whatever is left out.
    scores = ("[f32]", [0.0] * SPM_SIZE)
    with pytest.raises(native_tokenizer.NativeError, match=f"{SPM_SIZE} scores"):
        parse(spm_file(special=special[:1], scores=scores, n_rows=SPM_SIZE))


@pytest.mark.parametrize("model", ["bert", "t5", "rwkv", "plamo2", "gemma4", "none", "\x1b[31m"])
def test_another_tokenizer_kind_is_unsupported_and_the_known_ones_are_named(model: str) -> None:
    with pytest.raises(native_tokenizer.NativeError, match=r"gpt2 .* llama") as caught:
        parse(bpe_file(model=model))
    assert (caught.value.code, caught.value.reason) == ("unsupported", "tokenizer_model")
    assert "\x1b" not in str(caught.value)


def test_an_unknown_pre_tokenizer_is_unsupported_and_never_replaced_by_a_default() -> None:
    with pytest.raises(native_tokenizer.NativeError, match="qwen2, ") as caught:
        parse(bpe_file(pre="new-model"))
    assert (caught.value.code, caught.value.reason) == ("unsupported", "tokenizer_pre")


def test_a_file_that_names_no_pre_tokenizer_gets_the_default_with_a_warning() -> None:
    tokenizer = parse(bpe_file(pre=REMOVED))
    assert tokenizer.pre == "default"
    assert any(warning.startswith("missing_pre") for warning in tokenizer.warnings)


def test_a_repeated_token_is_encoded_as_its_first_id_and_decoded_from_all() -> None:
    tokenizer = parse(bpe_file([("a", "b")], special=[("ab", tf.NORMAL), ("ab", tf.NORMAL)]))
    assert tokenizer.encode(b"ab") == [256]
    assert tokenizer.decode([256, 257, 258]) == b"ababab"
    assert any(
        warning.startswith("duplicate_tokens: 2") and "256 and 257" in warning
        for warning in tokenizer.warnings
    )
    tokenizer = parse(spm_file([("▁", -1.0), ("a", -1.0), ("a", 5.0)], add_space_prefix=False))
    assert tokenizer.encode(b"a") == [260]


@pytest.mark.parametrize("make", [bpe_file, spm_file])
@pytest.mark.parametrize("type_", [tf.NORMAL, CONTROL, tf.USER_DEFINED, tf.UNKNOWN])
def test_an_empty_token_is_decoded_and_never_chosen(make: Any, type_: int) -> None:
    tokenizer = parse(make(special=[("", type_)]))
    empty = tokenizer.n_tokens - 1
    assert tokenizer.decode([empty], render_special=True) == b""
    for text in (b"", b"a", b"  abc ", b"hello"):
        assert empty not in tokenizer.encode(text, parse_special=True)


@pytest.mark.parametrize("make", [bpe_file, spm_file])
def test_tokens_that_are_not_utf8_are_harmless(make: Any) -> None:
    special = [
        (b"\xff\xfe", tf.NORMAL),
        (b"\xe2\x96", CONTROL),
        (b"a\xff", tf.USER_DEFINED),
        ("a\0b", 1),
    ]
    tokenizer = parse(make(special=special))
    last = tokenizer.n_tokens - 1
    assert tokenizer.decode([last - 1]) == "a\ufffd".encode()
    assert tokenizer.decode_bytes([last - 1]) == b"a\xff"
    assert tokenizer.encode(b"xa\xff")[-1] == last - 1
    assert tokenizer.token_text(last) == b"a\0b"


def test_bytes_without_a_token_become_the_unknown_token_or_are_left_out() -> None:
    some = [token for token in BYTES if token != "z"]
    keys: dict[str, Any] = {"tokens": ("[string]", [*some, "<unk>"]), **merges("a b")}
    types = [tf.NORMAL] * 255
    tokenizer = parse(bpe_file([], token_type=("[i32]", [*types, tf.UNKNOWN]), **keys))
    assert any(warning.startswith("missing_bytes: 1 ") for warning in tokenizer.warnings)
    a, b = (tokenizer.find_token(text) for text in (b"a", b"b"))
    assert tokenizer.encode(b"azb") == [a, b]
    keys["unknown_token_id"] = 255
    tokenizer = parse(bpe_file([], token_type=("[i32]", [*types, tf.UNKNOWN]), **keys))
    assert tokenizer.encode(b"azb") == [a, 255, b]
    # Never a control token, which some files name here.
    tokenizer = parse(bpe_file([], token_type=("[i32]", [*types, CONTROL]), **keys))
    assert tokenizer.encode(b"azb") == [a, b]


@pytest.mark.parametrize(
    "missing, warns",
    [
        (b"\x00\x04\x1d\x7f\xc0\xc1\xf1\xf2\xf5\xff", False),  # no byte of any text
        *((bytes([byte]), True) for byte in b"\t\n\x1b ~\x80\xbf\xc2\xf0\xf3\xf4"),
    ],
)
def test_only_bytes_that_texts_hold_are_missed(missing, warns) -> None:
    without = [text for byte, text in enumerate(BYTES) if byte not in missing]
    keys: dict[str, Any] = {"tokens": ("[string]", without), **merges("a b")}
    types = ("[i32]", [tf.NORMAL] * len(without))
    warnings = parse(bpe_file([], token_type=types, **keys)).warnings
    found = [warning for warning in warnings if warning.startswith("missing_bytes")]
    wanted = (
        f"missing_bytes: {len(missing)} bytes of text have no token; in a prompt they are left out"
    )
    assert found == ([wanted] if warns else [])


def test_a_sentencepiece_vocabulary_without_bytes_uses_the_unknown_token() -> None:
    keys = {
        "model": "llama",
        "tokens": ("[string]", ["<unk>", "▁", "a"]),
        "scores": ("[f32]", [0.0, -1.0, -2.0]),
        "token_type": ("[i32]", [tf.UNKNOWN, tf.NORMAL, tf.NORMAL]),
    }
    tokenizer = parse(tf.file_of(keys, {}))
    assert tokenizer.encode("a中a".encode()) == [1, 2, 0, 2]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (None, None, False)


def test_merges_that_make_their_own_parts_end() -> None:
    circular = ["a b", "ab a", "b a", "ba b", "a a", "aa a", "a aa", "b b"]
    texts = sorted({merge.replace(" ", "") for merge in circular})
    tokens = [*BYTES, *texts]
    keys = {"tokens": ("[string]", tokens), "token_type": ("[i32]", [1] * len(tokens))}
    tokenizer = parse(bpe_file([], **keys, **merges(*circular, *circular)))
    for text in (b"ab" * 5000, b"a" * 10_001, b"ba" * 17):
        tokens = tokenizer.encode(text)
        assert 0 < len(tokens) <= len(text)
        assert tokenizer.decode(tokens) == text


def test_many_special_tokens_that_are_prefixes_of_each_other_are_found_in_linear_time() -> None:
    special = [("<" * n, CONTROL) for n in range(1, 1000)]
    tokenizer = parse(bpe_file([], special=special))
    tokens = tokenizer.encode(b"<" * 300_500, parse_special=True)
    assert len(tokens) == 300 + 1 + (300_500 - 300 * 999 - 999 > 0)
    assert tokenizer.decode(tokens, render_special=True) == b"<" * 300_500


@pytest.mark.hypothesis
@pytest.mark.parametrize("make", [bpe_file, spm_file])
def test_damaged_files_are_refused_or_work(make: Any) -> None:
    outcomes = set()

    @given(damaged(make(), first=24, same_size=True), st.lists(st.integers(0, 10**6), max_size=20))
    @settings(max_examples=examples(100))
    def check(file: bytes, tokens: list[int]) -> None:
        try:
            tokenizer = parse(file)
        except native_tokenizer.NativeError as error:
            assert error.code in ("model_format", "unsupported")  # noqa: PT017
            outcomes.add(error.reason)
            return
        outcomes.add(None)
        encoded = tokenizer.encode("hello <|im_end|> aé\xff".encode(), parse_special=True)
        tokenizer.decode(encoded, render_special=True)
        tokenizer.stream([token % tokenizer.n_tokens for token in tokens])

    check()
    assert None in outcomes
    assert len(outcomes) > 5, "few ways to be refused were met"
