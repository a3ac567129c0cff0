"""Blocks that predict further tokens at work: sessions and engines draft what the NumPy reference
drafts, and the text is that of plain decoding."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import eagle_reference as eagle
import mtp_reference as mtp
import tiny_models
from head_histories import (
    PROMPT,
    drafts_of,
    engines_give_the_plain_texts,
    few,
    match_gives_the_plain_tokens,
    sampled_pairs_of_tokens,
    texts_are_plain,
    turns_and_forks_draft_as_fresh_ones,
)
from mtp_reference import MtpConfig

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

TARGET = dataclasses.replace(tiny_models.FAMILIES["qwen35"], context_length=4096)
CONFIG = MtpConfig(TARGET)
N = TARGET.n_layers


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("mtp")


@pytest.fixture(scope="module")
def target(folder: pathlib.Path) -> Iterator[Any]:
    path = mtp.write_mtp(folder / "target.gguf", CONFIG)
    with sd.Model(path, n_threads=1, kv_type="f32") as model:
        yield model


@pytest.fixture(scope="module")
def alone(folder: pathlib.Path) -> Iterator[Any]:
    path = mtp.write_mtp(folder / "mtp.gguf", CONFIG, alone=True)
    with sd.Model(path, n_threads=1, kv_type="f32") as model:
        yield model


# ---------------------------------------------------------------- against the reference


def reference_drafts(target: Any, text: list[int], n: int, mutant: str = "none") -> list[int]:
    """What the block drafts behind a text; `mutant`: what it would if it were wired wrongly."""
    layer = N - 1 if mutant == "not the last layer" else N
    states = np.asarray(target.hidden_states(text[:-1], [layer])).reshape(len(text) - 1, -1)
    block = mtp.Block(CONFIG, mtp.model_tensors(CONFIG), mtp.block_tensors(CONFIG))
    block.banned = [TARGET.vocab_size - 1]  # what ends a text, as ignore_eos wants it
    cache = mtp.new_cache(CONFIG)
    taps = states.astype(np.float64)
    if mutant == "one position late":
        taps = np.concatenate((taps[:1], taps[:-1]))
    h = taps if mutant == "before the norm" else block.fuse(taps)
    said, logits = block.rows(cache, text[1:], h)
    if mutant == "shifted tokens":
        cache = mtp.new_cache(CONFIG)
        said, logits = block.rows(cache, text[:-1], h)
    if mutant == "chained before the norm":
        said = said / block.last_norm
    return block.chain(cache, said[-1], logits[-1], n)[0]


def test_drafts_are_those_of_the_reference_and_of_no_mutant(target: Any) -> None:
    """Round by round behind a text that goes on, with what was accepted and rejected before."""
    decoder = sd.Decoder(target, drafter=sd.Mtp(gamma=3))
    prompt = PROMPT[:9]
    ids, rounds = drafts_of(decoder, prompt, max_tokens=24)
    names = ("one position late", "not the last layer", "before the norm", "shifted tokens")
    names += ("chained before the norm",)
    text, wrong, checked = list(prompt), dict.fromkeys(names, 0), 0
    for found in rounds:
        if found.drafted:
            n = len(found.drafted)
            assert reference_drafts(target, text, n) == list(found.drafted)
            for name in names:
                wrong[name] += reference_drafts(target, text, n, name) != list(found.drafted)
            checked += 1
        text += [found.drafted[i] for i in found.accepted] + [found.next_token]
    assert checked > 8
    assert list(ids) == text[len(prompt) :][: len(ids)]
    # A norm's weights near 1 change little before another norm.
    assert min(n for name, n in wrong.items() if "norm" not in name) > 0.5 * checked, wrong
    assert min(wrong.values()) > 0, wrong


def test_a_block_alone_in_its_file_drafts_the_same(target: Any, alone: Any) -> None:
    found = []
    for options in ({"drafter": sd.Mtp(gamma=3)}, {"drafter": sd.Mtp(alone, gamma=3)}):
        ids, rounds = drafts_of(sd.Decoder(target, **options), PROMPT, **few())
        found.append((list(ids), [r.drafted for r in rounds]))
    assert found[0] == found[1]


# ---------------------------------------------------------------- the same text


def prompts(n: int) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [[int(t) for t in rng.integers(0, 256, int(rng.integers(1, 60)))] for _ in range(n)]


def test_greedy_tokens_are_those_of_plain_decoding(target: Any) -> None:
    """40 prompts, free and with few tokens."""
    plain = sd.Decoder(target, drafter=None)
    decoder = sd.Decoder(target, drafter=sd.Mtp(gamma=3))
    accepted = drafted = 0
    for i, prompt in enumerate(prompts(40)):
        options = few(max_tokens=24) if i % 2 else {"max_tokens": 24, "ignore_eos": True}
        expected = plain.generate(prompt, **options)
        found = decoder.generate(prompt, **options)
        assert found.token_ids == expected.token_ids
        accepted += found.stats.accepted
        drafted += found.stats.drafted
    assert drafted > 1000
    assert accepted > 0


@pytest.mark.parametrize("gamma", [1, 8])
@pytest.mark.parametrize("verifier", ["auto", "topk_importance", "block", "standard"])
def test_greedy_tokens_are_the_same_with_every_verifier(
    verifier: str, gamma: int, target: Any
) -> None:
    plain = sd.Decoder(target, drafter=None)
    decoder = sd.Decoder(target, drafter=sd.Mtp(gamma=gamma), verifier=verifier)
    for prompt in (PROMPT, PROMPT * 20, PROMPT[:1], [*PROMPT, 3, 4]):
        expected = plain.generate(prompt, **few())
        found = decoder.generate(prompt, **few())
        assert found.token_ids == expected.token_ids
        assert found.stats.drafted > 0


@pytest.mark.parametrize("sampling", [{}, {"top_k": 4}, {"repetition_penalty": 1.2}])
def test_match_gives_the_tokens_of_plain_decoding(sampling: dict[str, Any], target: Any) -> None:
    drafters = (
        sd.Mtp(gamma=3),
        sd.Mtp(gamma=3, sampling="greedy", head_tokens=32),
        sd.Mtp(gamma=2, sampling="sampled", temperature=2.0),
    )
    match_gives_the_plain_tokens(target, drafters, sampling)


@pytest.mark.parametrize("head_tokens", [0, 48])
@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
def test_sampled_drafts_follow_the_target(verifier: str, head_tokens: int, target: Any) -> None:
    """A trimmed head lacks some of the few tokens."""
    drafter = sd.Mtp(gamma=2, head_tokens=head_tokens)
    decoder = sd.Decoder(target, drafter=drafter, verifier=verifier)
    assert any(81 in ids for ids in sampled_pairs_of_tokens(target, decoder, 500))


def test_a_trimmed_head_drafts_what_it_has(target: Any) -> None:
    """Ids below head_tokens, in blocks of 16, and those of the text."""
    _, rounds = drafts_of(
        sd.Decoder(target, drafter=sd.Mtp(gamma=3, head_tokens=16)), [200, 201], max_tokens=40
    )
    drafted = {t for r in rounds for t in r.drafted}
    assert drafted
    text = {200, 201, TARGET.vocab_size - 1}
    for found in rounds:
        allowed = {t // 16 for t in text} | {0}
        assert {t // 16 for t in found.drafted} <= allowed
        text |= {found.drafted[i] for i in found.accepted} | {found.next_token}
    _, whole = drafts_of(sd.Decoder(target, drafter=sd.Mtp(gamma=3)), [200, 201], max_tokens=40)
    assert [r.drafted for r in whole] != [r.drafted for r in rounds]


@pytest.mark.parametrize("drafter", ["auto", "mtp,ngram", "mtp,layerskip,suffix"])
def test_under_a_controller_the_text_is_the_same(drafter: str, target: Any) -> None:
    texts_are_plain(target, sd.Decoder(target, drafter=drafter))


def test_auto_takes_the_block_of_the_file_or_the_draft(
    target: Any, alone: Any, tmp_path: pathlib.Path
) -> None:
    def names(model: Any, **options: Any) -> str:
        return str(sd.Decoder(model, **options)._native.drafter)

    assert names(target) == "mtp,ngram,suffix"
    assert names(target, drafter="mtp") == "mtp"
    assert names(target, draft=alone) == "mtp,ngram,suffix"
    assert names(target, draft=alone, drafter="model") == "mtp"
    assert names(target, drafter="ngram,suffix") == "ngram,suffix"
    assert names(target, use_cache=False) == "ngram,suffix"
    path = tiny_models.write_tiny(tmp_path / "plain.gguf", TARGET, seed=1)
    with sd.Model(path, n_threads=1) as plain:
        assert names(plain) == "ngram,suffix"
        assert names(target, draft=plain) == "model,ngram,suffix"
        assert names(plain, draft=alone) == "mtp,ngram,suffix"


def test_turns_forks_and_other_texts_draft_as_fresh_ones(target: Any) -> None:
    turns_and_forks_draft_as_fresh_ones(target, sd.Mtp(gamma=3))


def test_an_engine_gives_every_request_the_text_it_has_alone(target: Any) -> None:
    engines_give_the_plain_texts(target, "auto")
    found = engines_give_the_plain_texts(target, "mtp")
    assert min(r.stats.drafted for r in found) > 0


@pytest.mark.parametrize("family", ["qwen35moe", "qwen3next"])
def test_mixtures_draft_with_theirs(family: str, tmp_path: pathlib.Path) -> None:
    path = mtp.write_mtp(tmp_path / "m.gguf", MtpConfig(tiny_models.FAMILIES[family]))
    with sd.Model(path, n_threads=1) as model:
        plain = sd.Decoder(model, drafter=None).generate(PROMPT, **few())
        found = sd.Decoder(model, drafter="mtp").generate(PROMPT, **few())
        assert found.token_ids == plain.token_ids
        assert found.stats.drafted > 0


# ---------------------------------------------------------------- what is refused


def test_what_does_not_fit_is_refused(target: Any, alone: Any, tmp_path: pathlib.Path) -> None:
    plain_path = tiny_models.write_tiny(tmp_path / "plain.gguf", TARGET, seed=1)
    for name, n_layers in (("other", 4), ("deep", 8)):
        other = dataclasses.replace(TARGET, n_layers=n_layers)
        tiny_models.write_tiny(tmp_path / f"{name}.gguf", other, seed=1)
    eagle_path = eagle.write_eagle3(
        tmp_path / "eagle.gguf", eagle.head_for(TARGET, context_length=4096), TARGET
    )
    with (
        sd.Model(plain_path, n_threads=1) as plain,
        sd.Model(tmp_path / "other.gguf", n_threads=1) as shallow,
        sd.Model(tmp_path / "deep.gguf", n_threads=1) as deep,
        sd.Model(eagle_path, n_threads=1) as head,
    ):
        with pytest.raises(sd.ModelFormatError, match="no block that predicts further tokens"):
            sd.Decoder(plain, drafter="mtp")
        with pytest.raises(sd.UnsupportedModelError, match="reads layer 5 of its target"):
            sd.Decoder(shallow, draft=alone)
        with pytest.raises(sd.UnsupportedModelError, match=r"5 layers, and this one is .* with 8"):
            sd.Decoder(deep, draft=alone)
        with pytest.raises(sd.InvalidArgumentError, match="another kind of head"):
            sd.Decoder(target, drafter="mtp", draft=head)
        with pytest.raises(sd.InvalidArgumentError, match="is a model, and drafter 'mtp' needs"):
            sd.Decoder(target, drafter="mtp", draft=plain)
        with_model = [[one, sd.DraftModel(plain)] for one in (sd.Mtp(), sd.Eagle(head))]
        for both in (*with_model, [sd.DraftModel(alone), sd.Mtp()], [sd.Eagle(head), sd.Mtp()]):
            with pytest.raises(sd.InvalidArgumentError, match="one model or one head, not with"):
                sd.Decoder(target, drafter=both)
        with pytest.raises(sd.InvalidArgumentError, match="use drafter 'mtp'"):
            sd.Decoder(target, drafter="eagle", draft=alone)
    with pytest.raises(sd.UnsupportedModelError, match="says nothing by itself"):
        sd.Decoder(alone)
    with pytest.raises(sd.UnsupportedModelError, match="'mtp' needs caches"):
        sd.Decoder(target, drafter="mtp", use_cache=False)
    with pytest.raises(sd.InvalidArgumentError, match="no branch"):
        sd.Decoder(target, drafter=sd.DraftModel(alone, branch=2))


def test_auto_goes_without_a_block_that_cannot_be_read(tmp_path: pathlib.Path) -> None:
    block = mtp.block_tensors(CONFIG)
    block[f"blk.{N}.attn_norm.weight"] = np.ones(32, np.float32)
    path = mtp.write_mtp(tmp_path / "m.gguf", CONFIG, block=block)
    with sd.Model(path, n_threads=1) as model:
        assert sd.Decoder(model)._native.drafter == "ngram,suffix"
        with pytest.raises(sd.ModelFormatError, match=r"attn_norm\.weight' should have the shape"):
            sd.Decoder(model, drafter="mtp")


def test_files_are_described(target: Any, alone: Any, folder: pathlib.Path) -> None:
    assert (target.info.n_layers, alone.info.n_layers) == (N, 1)
    assert sd.inspect(folder / "mtp.gguf").architecture == "qwen35"
