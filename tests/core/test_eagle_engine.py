"""EAGLE-3 heads at work: sessions and engines draft with what the NumPy reference drafts."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import eagle_reference as eagle
import tiny_models
from head_histories import (
    FEW,
    PROMPT,
    by_position,
    drafts_of,
    engines_give_the_plain_texts,
    few,
    match_gives_the_plain_tokens,
    sampled_pairs_of_tokens,
    texts_are_plain,
    turns_and_forks_draft_as_fresh_ones,
)

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

TARGET = dataclasses.replace(
    tiny_models.FAMILIES["qwen2"], n_layers=4, hidden_size=64, context_length=4096
)
CONFIG = eagle.head_for(TARGET, context_length=4096)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return tmp_path_factory.mktemp("eagle")


@pytest.fixture(scope="module")
def target(folder: pathlib.Path) -> Iterator[Any]:
    tiny_models.write_tiny(folder / "target.gguf", TARGET, seed=1)
    with sd.Model(folder / "target.gguf", n_threads=1, kv_type="f32") as model:
        yield model


def tensors_of(config: eagle.EagleConfig, ids: list[int] | None = None) -> dict[str, Any]:
    tensors = eagle.random_tensors(config, 2)
    if ids is not None:
        rest = [t for t in range(TARGET.vocab_size) if t not in ids]
        chosen = sorted(ids + rest[: len(tensors["d2t"]) - len(ids)])
        tensors["d2t"] = np.array(chosen, np.int64)
    return tensors


@pytest.fixture(scope="module")
def head(folder: pathlib.Path) -> Iterator[Any]:
    """It can draft the few tokens."""
    tensors = tensors_of(CONFIG, [40, 50, 61, 81])
    path = eagle.write_eagle3(folder / "head.gguf", CONFIG, TARGET, tensors=tensors)
    with sd.Model(path, n_threads=1, kv_type="f32") as model:
        yield model


# ---------------------------------------------------------------- against the reference


Mutant = Callable[[np.ndarray], np.ndarray]


def normed(taps: np.ndarray) -> np.ndarray:
    parts = taps.reshape(len(taps), 3, -1)
    parts = parts / np.sqrt(np.mean(parts**2, -1, keepdims=True))
    return parts.reshape(len(taps), -1)


MUTANTS: dict[str, Mutant] = {
    "none": lambda taps: taps,
    "shuffled": lambda taps: np.roll(taps.reshape(len(taps), 3, -1), 1, 1).reshape(len(taps), -1),
    "one position late": lambda taps: np.concatenate((taps[:1], taps[:-1])),
    "normed": normed,
}


def reference_drafts(
    target: Any,
    tensors: dict[str, Any],
    text: list[int],
    n: int,
    mutant: Mutant = MUTANTS["none"],
    config: eagle.EagleConfig = CONFIG,
) -> list[int]:
    """What a head drafts behind a text."""
    states = target.hidden_states(text[:-1], config.target_layers)
    taps = mutant(np.asarray(states).reshape(len(text) - 1, -1))
    target_tensors = tiny_models.random_tensors(TARGET, 1)
    reference = eagle.Head(config, tensors, target_tensors)
    cache = eagle.Cache(config)
    hidden, logits = reference.ingest(cache, text[1:], taps)
    return reference.chain(cache, hidden[-1], logits[-1], n)[0]


@pytest.mark.parametrize("variant", ["plain", "norm_before_residual", "norm_before_fc"])
def test_drafts_are_those_of_the_reference_and_of_no_mutant(
    variant: str, target: Any, tmp_path: pathlib.Path
) -> None:
    """Round by round behind a text that goes on, with what was accepted and rejected before."""
    config = dataclasses.replace(CONFIG, **({} if variant == "plain" else {variant: True}))
    tensors = tensors_of(config)
    path = eagle.write_eagle3(tmp_path / "head.gguf", config, TARGET, tensors=tensors)
    with sd.Model(path, n_threads=1, kv_type="f32") as head:
        decoder = sd.Decoder(target, drafter=sd.Eagle(head, gamma=2))
        prompt = PROMPT[:9]
        ids, rounds = drafts_of(decoder, prompt, max_tokens=11)
        text, wrong = list(prompt), dict.fromkeys([*MUTANTS, "identity"], 0)
        checked = 0
        for found in rounds:
            if found.drafted and variant == "plain":
                n = len(found.drafted)
                for name, mutant in MUTANTS.items():
                    drafts = reference_drafts(target, tensors, text, n, mutant)
                    wrong[name] += drafts != list(found.drafted)
                identity = tensors | {"d2t": np.arange(len(tensors["d2t"]))}
                drafts = reference_drafts(target, identity, text, n)
                wrong["identity"] += drafts != list(found.drafted)
                checked += 1
            elif found.drafted:
                drafts = reference_drafts(target, tensors, text, len(found.drafted), config=config)
                assert drafts == list(found.drafted)
                checked += 1
            text += [found.drafted[i] for i in found.accepted] + [found.next_token]
        assert checked > 4
        assert list(ids) == text[len(prompt) :][: len(ids)]
        if variant == "plain":
            assert wrong.pop("none") == 0
            assert min(wrong.values()) > 0.5 * checked, wrong


# ---------------------------------------------------------------- the same text


@pytest.mark.parametrize("gamma", [1, 3, 8])
@pytest.mark.parametrize("verifier", ["auto", "topk_importance"])
def test_greedy_tokens_are_those_of_plain_decoding(
    verifier: str, gamma: int, target: Any, head: Any
) -> None:
    plain = sd.Decoder(target, drafter=None)
    decoder = sd.Decoder(target, drafter=sd.Eagle(head, gamma=gamma), verifier=verifier)
    accepted = 0
    for prompt in (PROMPT, PROMPT * 20, PROMPT[:2], PROMPT[:1], [*PROMPT, 3, 4]):
        for options in (few(), few(logit_bias={**FEW, 40: -np.inf, 61: -np.inf, 70: -np.inf})):
            expected = plain.generate(prompt, **options)
            found = decoder.generate(prompt, **options)
            assert found.token_ids == expected.token_ids
            assert found.stats.drafted > 0
            accepted += found.stats.accepted
    assert accepted > 0


@pytest.mark.parametrize("sampling", [{}, {"top_k": 4}, {"repetition_penalty": 1.2}])
def test_match_gives_the_tokens_of_plain_decoding(
    sampling: dict[str, Any], target: Any, head: Any
) -> None:
    drafters = (
        sd.Eagle(head, gamma=3),
        sd.Eagle(head, gamma=3, sampling="greedy"),
        sd.Eagle(head, gamma=2, sampling="sampled", temperature=2.0),
    )
    match_gives_the_plain_tokens(target, drafters, sampling)


@pytest.mark.parametrize("verifier", ["standard", "block", "topk_importance"])
def test_sampled_drafts_follow_the_target(verifier: str, target: Any, head: Any) -> None:
    """One of the few tokens is not in the head."""
    decoder = sd.Decoder(target, drafter=sd.Eagle(head, gamma=2), verifier=verifier)
    seen = sampled_pairs_of_tokens(target, decoder, 700)
    assert any(70 in ids for ids in seen), "a token that the head cannot draft"


@pytest.mark.parametrize("drafter", ["auto", "eagle,ngram", "eagle,layerskip,suffix", "recycling"])
def test_under_a_controller_the_text_is_the_same(drafter: str, target: Any, head: Any) -> None:
    draft = None if drafter == "recycling" else head
    texts_are_plain(target, sd.Decoder(target, drafter=drafter, draft=draft))


def test_a_recorded_tree_begins_with_the_chain_that_is_drafted(
    target: Any, head: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"max_tokens": 40, "temperature": 0.0}
    rounds: list[Any] = []
    with sd.Decoder(target, drafter=sd.Eagle(head, gamma=5)) as decoder:
        text = decoder.generate(PROMPT, on_round=rounds.append, **options)
    monkeypatch.setenv("SPECDEC_ROUND_TRACE", str(tmp_path / "trace.jsonl"))
    with sd.Decoder(target, draft=head) as decoder:
        assert decoder.generate(PROMPT, **options).token_ids == text.token_ids
    trees = {}
    for line in (tmp_path / "trace.jsonl").read_text().splitlines()[1:]:
        entry = json.loads(line)
        trees[entry["n"]] = entry["sources"]["eagle"]
    n_checked = 0
    for n, drafted in by_position(PROMPT, rounds).items():
        tree, at = trees[n], -1
        assert all(0 < p <= 1 for p in tree["p"])
        for token in drafted:
            children = [i for i, parent in enumerate(tree["parents"]) if parent == at]
            if not children:
                break
            assert tree["tokens"][children[0]] == token
            at = children[0]
            n_checked += 1
    assert n_checked >= len(trees) // 2


def test_auto_takes_a_head_in_place_of_a_model(target: Any, head: Any) -> None:
    for drafter, names in (("auto", "eagle,ngram,suffix"), ("eagle", "eagle"), ("model", "eagle")):
        assert sd.Decoder(target, draft=head, drafter=drafter)._native.drafter == names


def test_turns_forks_and_other_texts_draft_as_fresh_ones(target: Any, head: Any) -> None:
    drafter, options = sd.Eagle(head, gamma=3), few(max_tokens=30)
    decoder = turns_and_forks_draft_as_fresh_ones(target, drafter)
    decoder.reset()
    again = drafts_of(decoder, PROMPT, **options)
    expected = drafts_of(sd.Decoder(target, drafter=drafter), PROMPT, **options)
    assert [r.drafted for r in again[1]] == [r.drafted for r in expected[1]]


def test_a_kept_prompt_is_followed_from_its_end(
    target: Any, head: Any, tmp_path: pathlib.Path
) -> None:
    decoder = sd.Decoder(target, drafter=sd.Eagle(head, gamma=3))
    decoder.generate(PROMPT * 4, **few(max_tokens=5))
    decoder.save(tmp_path / "a.kept")
    text = PROMPT * 4 + [50, 40, 40]
    loaded = sd.Decoder.load(tmp_path / "a.kept", target, drafter=sd.Eagle(head, gamma=3))
    found = loaded.generate(text, **few())
    assert found.token_ids == sd.Decoder(target, drafter=None).generate(text, **few()).token_ids
    assert found.stats.drafted > 0


def test_an_engine_gives_every_request_the_text_it_has_alone(target: Any, head: Any) -> None:
    engines_give_the_plain_texts(target, "auto", draft=head)
    found = engines_give_the_plain_texts(target, "eagle", draft=head)
    assert min(r.stats.drafted for r in found) > 0


def test_threads_change_no_draft(target: Any, head: Any, folder: pathlib.Path) -> None:
    _, rounds = drafts_of(sd.Decoder(target, drafter=sd.Eagle(head, gamma=4)), PROMPT, **few())
    with (
        sd.Model(folder / "target.gguf", n_threads=3, kv_type="f32") as other,
        sd.Model(folder / "head.gguf", n_threads=2, kv_type="f32") as one,
    ):
        _, again = drafts_of(sd.Decoder(other, drafter=sd.Eagle(one, gamma=4)), PROMPT, **few())
    assert [r.drafted for r in again] == [r.drafted for r in rounds]


# ---------------------------------------------------------------- what is refused


def test_pairs_that_do_not_fit_are_refused(target: Any, head: Any, tmp_path: pathlib.Path) -> None:
    def of(**changes: Any) -> Any:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.gguf"
        eagle.write_eagle3(path, dataclasses.replace(CONFIG, **changes), TARGET)
        return sd.Model(path, n_threads=1)

    cases = [
        (of(target_layers=(1, 2, 5)), "it reads layer 5 of its target, and this one has 4"),
        (
            of(target_hidden_size=32, own_embedding=True),
            "made for a target of width 32, and this one has 64",
        ),
    ]
    for bad, text in cases:
        with pytest.raises(sd.UnsupportedModelError, match=text):
            sd.Decoder(target, draft=bad)
        report = sd.check_pair(target, bad)
        assert not report.compatible
        assert text.split(",")[0] in report.reason
    other = dataclasses.replace(TARGET, vocab_size=280)
    tiny_models.write_tiny(tmp_path / "other.gguf", other, seed=1)
    with (
        sd.Model(tmp_path / "other.gguf", n_threads=1) as more,
        pytest.raises(sd.UnsupportedModelError, match="for 272 tokens, and this one has 280"),
    ):
        sd.Decoder(more, draft=head)
    with pytest.raises(sd.UnsupportedModelError, match="says nothing by itself"):
        sd.Decoder(head)
    with pytest.raises(sd.UnsupportedModelError, match="says nothing by itself"):
        head.hidden_states([1], [0])
    with pytest.raises(sd.InvalidArgumentError, match="needs a head"):
        sd.Decoder(target, drafter="eagle")
    with pytest.raises(sd.InvalidArgumentError, match="is a model, and drafter 'eagle' needs"):
        sd.Decoder(target, drafter="eagle", draft=target)
    with pytest.raises(sd.UnsupportedModelError, match="needs caches"):
        sd.Decoder(target, drafter="eagle", draft=head, use_cache=False)
    with pytest.raises(sd.InvalidArgumentError, match="no branch"):
        sd.Decoder(target, drafter=sd.DraftModel(head, branch=2))


def test_a_head_file_can_be_inspected(head: Any, folder: pathlib.Path) -> None:
    assert head.info.architecture == "eagle3"
    assert head.info.n_layers == 1
    found = sd.inspect(folder / "head.gguf")
    assert {t.name: t.dtype for t in found.tensors}["d2t"] == "I64"
