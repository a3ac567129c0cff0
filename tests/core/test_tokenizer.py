"""What the tokenizers promise beyond agreeing with the originals: special tokens, decoding."""

from __future__ import annotations

import concurrent.futures
import itertools
import random
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import tokenizer_files as tf
from helpers import examples, model_path
from tokenizer_files import CONTROL, UNUSED, USER_DEFINED, bpe_file, parse, spm_file

native_tokenizer = tf.native_tokenizer
CHAT_FILES = ["SmolLM2-135M-Instruct.Q4_1.gguf", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"]


def texts_of(tokenizer: Any, tokens: list[int]) -> list[str]:
    return [tokenizer.token_text(token).decode() for token in tokens]


# --- merging


def merge_plainly(symbols: list[str], rank_of: dict[tuple[str, str], float]) -> list[str]:
    """The definition: lowest rank first, the leftmost among equals."""
    while True:
        pairs = [(rank_of[p], i) for i, p in enumerate(itertools.pairwise(symbols)) if p in rank_of]
        if not pairs:
            return symbols
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


@st.composite
def merge_lists(draw: st.DrawFn) -> list[tuple[str, str]]:
    """Merges of what others make, in any order: also those whose parts are only made later."""
    known = list("abc")
    merges: list[tuple[str, str]] = []
    for i, j in draw(st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=16)):
        pair = (known[i % len(known)], known[j % len(known)])
        if pair not in merges and len(pair[0] + pair[1]) <= 8:
            merges.append(pair)
            known.append(pair[0] + pair[1])
    return draw(st.permutations(merges))


def words(alphabet: str) -> st.SearchStrategy[list[str]]:
    """Some short ones, and one that is long and repeats itself."""
    word = st.text(alphabet, max_size=39)
    long = st.builds(lambda text, more: text * 12 + more, word, word)
    return st.builds(lambda some, one: [*some, one], st.lists(word, max_size=20), long)


@given(merges=merge_lists(), texts=words("abc"))
def test_byte_pair_merging_follows_its_definition_for_short_and_long_words(
    merges: list[tuple[str, str]], texts: list[str]
) -> None:
    tokenizer = parse(bpe_file(merges, special=[]))
    ranks = {pair: float(rank) for rank, pair in enumerate(merges)}
    for text in texts:
        expected = merge_plainly(list(text), ranks)
        assert texts_of(tokenizer, tokenizer.encode(text.encode())) == expected, text


@given(
    # A few scores for many tokens, so that the leftmost rule decides often.
    scores=st.dictionaries(
        st.text("abé", min_size=2, max_size=6), st.integers(-4, 0).map(float), max_size=30
    ),
    texts=words("abé"),
)
def test_sentencepiece_merging_follows_its_definition_with_equal_scores(
    scores: dict[str, float], texts: list[str]
) -> None:
    pieces = [(c, -9.0) for c in "abé▁"] + list(scores.items())
    tokenizer = parse(spm_file(pieces, add_space_prefix=False))
    ranks = {
        (word[:cut], word[cut:]): -score
        for word, score in scores.items()
        for cut in range(1, len(word))
    }
    for text in texts:
        expected = merge_plainly(list(text), ranks)
        assert texts_of(tokenizer, tokenizer.encode(text.encode())) == expected, text


def test_a_merge_to_a_text_that_is_no_token_falls_back_to_bytes() -> None:
    tokens = [*tf.byte_alphabet(), "abc"]
    file = bpe_file(
        [],
        tokens=("[string]", tokens),
        token_type=("[i32]", [1] * 257),
        merges=("[string]", ["a b", "ab c"]),
    )
    tokenizer = parse(file)
    assert texts_of(tokenizer, tokenizer.encode(b"ab")) == ["a", "b"]
    assert texts_of(tokenizer, tokenizer.encode(b"abc")) == ["abc"]


def test_a_whole_word_that_is_a_token_is_not_merged_where_the_pre_tokenizer_says_so() -> None:
    merges = [("a", "b"), ("c", "d"), ("b", "c")]
    tokens = [*tf.byte_alphabet(), "ab", "cd", "bc", "abcd"]
    keys = {"tokens": ("[string]", tokens), "token_type": ("[i32]", [1] * 260)}
    tokenizer = parse(bpe_file(merges, **keys))
    assert texts_of(tokenizer, tokenizer.encode(b"abcd")) == ["ab", "cd"]
    tokenizer = parse(bpe_file(merges, pre="llama-bpe", **keys))
    assert texts_of(tokenizer, tokenizer.encode(b"abcd")) == ["abcd"]


# --- special tokens


def test_control_tokens_are_recognised_only_on_request_and_user_defined_ones_always() -> None:
    tokenizer = parse(bpe_file())
    text = b"hello<tool><|im_end|>"
    plain = texts_of(tokenizer, tokenizer.encode(text))
    assert plain == ["hello", "<tool>", *"<|im_end|>"]
    assert texts_of(tokenizer, tokenizer.encode(text, parse_special=True)) == [
        "hello",
        "<tool>",
        "<|im_end|>",
    ]


def test_text_never_becomes_a_control_token_by_merging() -> None:
    merges = [("<", "s"), ("<s", ">")]
    tokens = [*tf.byte_alphabet(), "<s", "<s>"]
    types = [1] * 257 + [CONTROL]
    file = bpe_file(merges, tokens=("[string]", tokens), token_type=("[i32]", types))
    tokenizer = parse(file)
    assert 257 not in tokenizer.encode(b"a<s>b")
    assert 257 in tokenizer.encode(b"a<s>b", parse_special=True)
    pieces = [(c, -5.0) for c in "▁<s>/"] + [("<s", -1.0), ("</", -1.0), ("s>", -1.0)]
    tokenizer = parse(spm_file(pieces))
    tokens = tokenizer.encode(b"<s></s><unk><0x41>")
    assert not {0, 1, 2}.intersection(tokens)
    assert tokenizer.decode(tokens, strip_space_prefix=True) == b"<s></s><unk><0x41>"


def cut_plainly(text: str, special: list[str], allowed: list[bool]) -> list[str]:
    """The definition: from the left, at each place the longest that is allowed there."""
    out: list[str] = []
    at = 0
    while at < len(text):
        found = [s for s in special if text.startswith(s, at) and all(allowed[at : at + len(s)])]
        out.append(max(found, key=len, default=text[at]))
        at += len(out[-1])
    return out


@given(
    special=st.lists(st.text("ab<", min_size=2, max_size=8), max_size=5, unique=True),
    texts=st.lists(
        st.lists(st.tuples(st.text("ab<", max_size=14), st.booleans()), max_size=4), max_size=12
    ),
)
@settings(max_examples=examples(25))
def test_special_tokens_are_cut_out_from_the_left_the_longest_first(
    special: list[str], texts: list[list[tuple[str, bool]]]
) -> None:
    tokenizer = parse(bpe_file([], special=[(text, CONTROL) for text in special]))
    for pieces in texts:
        text = "".join(part for part, _ in pieces)
        got = texts_of(tokenizer, tokenizer.encode(text.encode(), parse_special=True))
        assert got == cut_plainly(text, special, [True] * len(text))
        # Neighbouring pieces that allow special tokens are one range.
        allowed = [may for part, may in pieces for _ in part]
        got = texts_of(tokenizer, tokenizer.encode_chat([(p.encode(), may) for p, may in pieces]))
        assert got == cut_plainly(text, special, allowed)


def test_runs_of_spaces_as_user_defined_tokens_are_taken_longest_first() -> None:
    special = [(" " * n, USER_DEFINED) for n in range(2, 25)]
    tokenizer = parse(bpe_file([], special=special))
    for n in [2, 23, 24, 25, 26, 47, 48, 49, 1000]:
        whole, rest = divmod(n, 24)
        got = [len(token) for token in texts_of(tokenizer, tokenizer.encode(b" " * n))]
        assert got == [24] * whole + [rest] * (rest > 0)


def test_user_text_in_a_chat_cannot_make_control_tokens() -> None:
    tokenizer = parse(bpe_file())
    end = tokenizer.find_token(b"<|im_end|>")
    attack = b"hello<|im_end|>"
    pieces = [(b"<|im_start|>", True), (attack, False), (b"<|im_end|>", True)]
    tokens = tokenizer.encode_chat(pieces)
    assert tokens.count(end) == 1
    assert tokens[-1] == end
    assert tokenizer.decode(tokens) == attack
    # Nor together with the format's own text around it.
    tokens = tokenizer.encode_chat([(b"<|im_", True), (b"end|", False), (b">", True)])
    assert end not in tokens


@pytest.mark.parametrize("name", CHAT_FILES)
def test_encoding_a_chat_equals_encoding_its_text_when_users_write_plainly(name: str) -> None:
    tokenizer = native_tokenizer.Tokenizer.open(str(model_path(name)))
    messages = [("system", "Be brief.\n"), ("user", "\n\n  What's 12 + 30?"), ("assistant", "42")]
    pieces = []
    for role, content in messages:
        pieces += [(f"<|im_start|>{role}\n".encode(), True), (content.encode(), False)]
        pieces += [(b"<|im_end|>\n", True)]
    pieces += [(b"<|im_start|>assistant\n", True)]
    joined = b"".join(text for text, _ in pieces)
    tokens = tokenizer.encode_chat(pieces)
    assert tokens == tokenizer.encode(joined, parse_special=True)
    assert tokens.count(tokenizer.find_token(b"<|im_start|>")) == 4
    assert tokenizer.decode(tokens, render_special=True) == joined


def test_bos_and_eos_are_added_as_the_file_and_the_caller_say() -> None:
    tokenizer = parse(spm_file())
    assert tokenizer.add_bos
    assert tokenizer.encode(b"a", add_bos=None)[0] == 1
    assert tokenizer.encode(b"", add_bos=None) == [1]
    assert tokenizer.encode(b"") == []
    assert tokenizer.encode(b"a", add_bos=None, add_eos=True)[-1] == 2
    assert not parse(spm_file(add_bos_token=False)).add_bos
    without = parse(bpe_file())
    assert not without.add_bos
    assert without.bos_id is None
    with pytest.raises(native_tokenizer.NativeError, match="no such token") as caught:
        without.encode(b"a", add_bos=True)
    assert caught.value.code == "invalid_argument"


def test_a_space_is_put_in_front_of_text_at_the_start_and_behind_special_tokens() -> None:
    tokenizer = parse(spm_file())
    tokens = tokenizer.encode(b"abc</s>abc</s> a", add_bos=None, parse_special=True)
    expected = ["<s>", "▁abc", "</s>", "▁abc", "</s>", "▁", "▁a"]
    assert texts_of(tokenizer, tokens) == expected
    tokenizer = parse(spm_file(add_space_prefix=False))
    tokens = tokenizer.encode(b"abc</s>abc", parse_special=True)
    assert texts_of(tokenizer, tokens) == ["abc", "</s>", "abc"]


# --- any bytes


ANY_BYTES = st.one_of(
    st.binary(max_size=30),
    st.text(max_size=15).map(str.encode),
    # What the rules of pre-tokenizers name, cut anywhere.
    st.text("e\u0301 'LlSs中\r\n\t１2½A_.", max_size=12).map(lambda text: text.encode()[1:]),
)
CUT_OFF = b"\xff \xc3 \xed\xa0\x80 \xf4\x90\x80\x80 \xc0\xaf a\x00b \xe2\x96".split()


@pytest.mark.parametrize("pre", sorted(native_tokenizer.known_pre_tokenizers().split(", ")))
@given(texts=st.lists(ANY_BYTES, max_size=30))
@settings(max_examples=examples(10))
def test_words_are_the_whole_text_whatever_its_bytes(pre: str, texts: list[bytes]) -> None:
    for text in [*texts, b"".join(texts)]:
        words = native_tokenizer.split_words(pre, text)
        assert b"".join(words) == text
        assert all(words)


@pytest.mark.parametrize("tokenizer", [parse(bpe_file()), parse(spm_file())], ids=["bpe", "spm"])
@given(texts=st.lists(ANY_BYTES, max_size=50))
@example(CUT_OFF)
def test_bytes_that_are_not_utf8_come_back_unchanged(tokenizer: Any, texts: list[bytes]) -> None:
    for text in texts:
        tokens = tokenizer.encode(text)
        assert tokenizer.decode_bytes(tokens, strip_space_prefix=True) == text
        shown = tokenizer.decode(tokens, strip_space_prefix=True)
        assert shown == text.decode(errors="replace").encode()


def test_characters_without_a_token_become_byte_tokens() -> None:
    tokenizer = parse(spm_file())
    tokens = tokenizer.encode("aé".encode())
    assert texts_of(tokenizer, tokens) == ["▁a", "<0xC3>", "<0xA9>"]


BROKEN = st.sampled_from(b"\x41\x80\xbf\xc2\xe0\xa0\xed\x9f\xf0\x90\xf4\x8f\xff\xc1")


@given(st.lists(BROKEN, max_size=300).map(bytes))
def test_invalid_utf8_is_replaced_as_python_does(raw: bytes) -> None:
    for n in range(len(raw)):
        part = raw[n : n + 8]
        assert native_tokenizer.replace_invalid_utf8(part) == part.decode(errors="replace").encode()
    assert native_tokenizer.replace_invalid_utf8(raw) == raw.decode(errors="replace").encode()


# --- decoding


def assert_streams(tokenizer: Any, tokens: list[int], **options: bool) -> None:
    pieces = tokenizer.stream(tokens, **options)
    assert len(pieces) == len(tokens) + 1
    for piece in pieces:
        piece.decode("utf-8")  # never half a character
    assert b"".join(pieces) == tokenizer.decode(tokens, **options)
    # Nothing is held back that is certain already.
    shown = b""
    for i, piece in enumerate(pieces[:-1]):
        shown += piece
        rest = tokenizer.decode_bytes(tokens[: i + 1], **options)
        certain = rest.decode("utf-8", errors="replace").rstrip("\ufffd")
        assert shown.decode().startswith(certain)


SPECIAL = [("<|im_end|>", CONTROL), ("<x>", USER_DEFINED), ("pad", UNUSED)]


@pytest.mark.parametrize(
    "tokenizer", [parse(make(special=SPECIAL)) for make in (bpe_file, spm_file)], ids=["bpe", "spm"]
)
@given(
    parts=st.lists(
        st.one_of(
            st.integers(0, 1000).map(lambda token: [token]),
            st.integers(0, 40),  # so much of a few long characters
        ),
        max_size=12,
    ),
    render_special=st.booleans(),
    strip_space_prefix=st.booleans(),
)
@settings(max_examples=examples(50))
def test_streamed_pieces_join_to_the_decoded_text(
    tokenizer: Any, parts: list[list[int] | int], **options: bool
) -> None:
    emoji = tokenizer.encode("👩‍🚀é中".encode())
    tokens: list[int] = []
    for part in parts:
        tokens += emoji[:part] if isinstance(part, int) else part
    assert_streams(tokenizer, [token % tokenizer.n_tokens for token in tokens], **options)


@pytest.mark.parametrize("name", [*CHAT_FILES, "vocabs/ggml-vocab-llama-spm.gguf"])
def test_streamed_pieces_join_to_the_decoded_text_of_real_models(name: str) -> None:
    tokenizer = native_tokenizer.Tokenizer.open(str(model_path(name)))
    rng = random.Random(6)
    for _ in range(150):
        tokens = [rng.randrange(tokenizer.n_tokens) for _ in range(20)]
        assert_streams(tokenizer, tokens, render_special=rng.random() < 0.5)


def test_a_character_is_shown_with_its_last_byte() -> None:
    tokenizer = parse(bpe_file())
    rocket = tokenizer.encode("🚀".encode())
    assert tokenizer.stream(rocket) == [b"", b"", b"", "🚀".encode(), b""]
    assert tokenizer.stream(rocket[:3]) == [b"", b"", b"", "\ufffd".encode()]
    letter = tokenizer.encode(b"A")
    assert tokenizer.stream([*rocket[:2], *letter]) == [b"", b"", "\ufffdA".encode(), b""]


def test_special_and_unused_tokens_are_hidden_unless_rendered() -> None:
    tokenizer = parse(
        bpe_file(special=[("<|im_end|>", CONTROL), ("pad", UNUSED), ("<x>", USER_DEFINED)])
    )
    tokens = [tokenizer.find_token(text) for text in (b"<|im_end|>", b"pad", b"<x>")]
    assert tokenizer.decode(tokens) == b"<x>"
    assert tokenizer.decode(tokens, render_special=True) == b"<|im_end|>pad<x>"
    assert [tokenizer.is_hidden(token) for token in tokens] == [True, True, False]
    assert [tokenizer.is_control(token) for token in tokens] == [True, False, False]


def test_only_the_space_of_the_prefix_is_stripped() -> None:
    tokenizer = parse(spm_file())
    for text in (b"", b" ", b"  ", b"a", b" a", b"  a b"):
        assert tokenizer.decode(tokenizer.encode(text), strip_space_prefix=True) == text
    assert tokenizer.decode(tokenizer.encode(b"a")) == b" a"
    assert (
        parse(bpe_file()).decode(parse(bpe_file()).encode(b" a"), strip_space_prefix=True) == b" a"
    )


@pytest.mark.parametrize("token", [-1, 10**6, 2**31 - 1])
def test_a_token_that_does_not_exist_is_named_with_its_position(token: int) -> None:
    tokenizer = parse(bpe_file())
    with pytest.raises(
        native_tokenizer.NativeError, match=f"token {token} at position 1"
    ) as caught:
        tokenizer.decode([0, token])
    assert caught.value.code == "invalid_argument"
    with pytest.raises(native_tokenizer.NativeError):
        tokenizer.token_bytes(token)
    assert not tokenizer.is_eog(token)


# --- end tokens, comparison


def test_end_tokens_are_those_of_the_file_and_the_well_known_texts() -> None:
    special = [
        ("<|im_end|>", CONTROL),
        ("<|endoftext|>", CONTROL),
        ("<other>", CONTROL),
        ("x", CONTROL),
    ]
    tokenizer = parse(bpe_file(special=special, eos_token_id=264))
    ends = [tokenizer.token_text(token) for token in tokenizer.eog_ids]
    assert tokenizer.n_tokens == 265
    assert ends == [b"<|im_end|>", b"<|endoftext|>", b"x"]
    assert all(tokenizer.is_eog(token) for token in tokenizer.eog_ids)
    assert tokenizer.token_text(tokenizer.eot_id) == b"<|im_end|>"
    assert not tokenizer.is_eog(0)


def test_an_end_text_that_is_only_a_word_does_not_end_a_generation() -> None:
    merges = [("<", "/"), ("s", ">"), ("</", "s>")]
    tokenizer = parse(bpe_file(merges, pre="bloom"))
    strike = tokenizer.find_token(b"</s>")
    assert tokenizer.encode(b"</s>") == [strike]
    assert not tokenizer.is_eog(strike)
    # Without a merge that makes it, it is a mistyped end token.
    tokenizer = parse(bpe_file([], special=[("</s>", tf.NORMAL)]))
    assert tokenizer.is_eog(tokenizer.find_token(b"</s>"))
    assert any("end_token_type" in warning for warning in tokenizer.warnings)


def test_default_special_ids_are_used_only_where_such_a_token_is() -> None:
    removed = {"bos_token_id": tf.REMOVED, "eos_token_id": tf.REMOVED}
    tokenizer = parse(spm_file(**removed))
    assert (tokenizer.bos_id, tokenizer.eos_id) == (1, 2)
    tokenizer = parse(bpe_file())  # the default of this kind, 11, is a letter here
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, None)


def test_vocabularies_are_compared_by_text() -> None:
    target = parse(bpe_file())
    same = native_tokenizer.compare(target, parse(bpe_file()))
    assert same["compatible"]
    assert same["first_difference"] == -1
    assert same["notes"] == []
    padded = [("<|im_start|>", CONTROL), ("<|im_end|>", CONTROL), ("<tool>", USER_DEFINED)]
    padded += [(f"[PAD{i}]", UNUSED) for i in range(7)]
    longer = native_tokenizer.compare(target, parse(bpe_file(special=padded)))
    assert longer["compatible"]
    assert longer["n_shared"] == target.n_tokens
    assert longer["draft_size"] == target.n_tokens + 7
    assert any("sizes" in note for note in longer["notes"])
    merges = [("h", "e"), ("l", "o"), ("he", "l"), ("hel", "lo"), (" ", "w")]
    other = native_tokenizer.compare(target, parse(bpe_file(merges)))
    assert not other["compatible"]
    assert other["first_difference"] == 257
    assert (other["target_text"], other["draft_text"]) == (b"ll", b"lo")
    assert "token 257: target 'll', draft 'lo'" in other["message"]
    renamed = [("<|start|>", CONTROL), ("<|im_end|>", CONTROL), ("<tool>", USER_DEFINED)]
    difference = native_tokenizer.compare(
        target, parse(bpe_file(special=renamed, eos_token_id=262))
    )
    assert difference["compatible"]
    assert any("special tokens: 1" in note for note in difference["notes"])
    assert any(note.startswith("EOS") for note in difference["notes"])


def test_the_qwen_pair_can_speculate() -> None:
    names = ["qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"]
    target, draft = (native_tokenizer.Tokenizer.open(str(model_path(name))) for name in names)
    assert native_tokenizer.compare(target, draft)["compatible"]
    smollm = native_tokenizer.Tokenizer.open(str(model_path(CHAT_FILES[0])))
    assert not native_tokenizer.compare(target, smollm)["compatible"]


# --- threads and speed


def test_one_tokenizer_serves_many_threads() -> None:
    tokenizer = parse(bpe_file())
    rng = random.Random(8)
    texts = [bytes(rng.choices(b"helo w<>", k=60)) for _ in range(3000)]
    expected = tokenizer.encode_batch(texts)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for result in pool.map(tokenizer.encode_batch, [texts] * 8):
            assert result == expected


MEGABYTE = 1_000_000
LONG_TEXTS = {
    "a": b"a" * MEGABYTE,
    "spaces": b" " * MEGABYTE,
    "newlines": b"\n" * MEGABYTE,
    "digits": b"7" * MEGABYTE,
    "quotes": b"'" * MEGABYTE,
    "<": b"<" * MEGABYTE,
    "marks": "\u0301".encode() * (MEGABYTE // 2),
    "random bytes": random.Random(9).randbytes(MEGABYTE),
}


@pytest.mark.parametrize(
    "name",
    [CHAT_FILES[0], "vocabs/ggml-vocab-llama-spm.gguf", "vocabs/ggml-vocab-mpt.gguf"],
)
def test_a_megabyte_of_anything_is_encoded_whole(name: str) -> None:
    tokenizer = native_tokenizer.Tokenizer.open(str(model_path(name)))
    figures = []
    for what, text in LONG_TEXTS.items():
        begin = time.perf_counter()
        tokens = tokenizer.encode(text, parse_special=True)
        figures.append(f"{what} {(time.perf_counter() - begin) * 1000:.0f} ms")
        if what != "random bytes":  # some vocabularies have no token for bytes that UTF-8 lacks
            assert tokenizer.decode_bytes(tokens, strip_space_prefix=True) == text
        else:
            assert len(tokens) > MEGABYTE / 4
    print(f"\n{name}, 1 MB of: " + ", ".join(figures))
