"""A target that says nothing sensible after one token: where that token is only drafted."""

from __future__ import annotations

import threading

import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = [97, 98, 99, 100, 101, 102]
N = 24


def model(path, seed, broken=None):
    config = tiny_models.TinyConfig()
    tensors = tiny_models.random_tensors(config, seed)
    if broken is not None:
        tensors["token_embd.weight"][broken] = float("nan")
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    return sd.Model(tiny_models.write_gguf(path, keys, tensors), n_threads=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A draft model, and a target that cannot read what it drafts first and never says itself."""
    folder = tmp_path_factory.mktemp("finite")
    draft = model(folder / "draft.gguf", 2)
    call = {"ignore_eos": True}
    with sd.Decoder(draft, drafter=None) as decoder:
        (token,) = decoder.generate(PROMPT, max_tokens=1, **call).token_ids
    target = model(folder / "target.gguf", 1, broken=token)
    with sd.Decoder(target, drafter=None) as decoder:
        text = decoder.generate(PROMPT, max_tokens=N, **call).token_ids
    assert token not in text
    return target, draft, token, text


@pytest.mark.parametrize("verifier", ["greedy", "match", "topk_importance"])
def test_a_refused_token_may_be_one_that_the_target_cannot_read(models, verifier):
    target, draft, _, text = models
    rounds = []
    drafter = sd.DraftModel(draft, gamma=3)
    with sd.Decoder(target, drafter=drafter, verifier=verifier) as decoder:
        result = decoder.generate(PROMPT, max_tokens=N, ignore_eos=True, on_round=rounds.append)
        assert result.token_ids == text
        assert result.stats.drafted > 0
    assert rounds[0].drafted == ()
    assert "not finite" in rounds[0].reason
    with sd.Engine(target, n_ctx=256, drafter=drafter, verifier=verifier) as engine:
        running = [engine.submit(PROMPT, max_tokens=N, ignore_eos=True) for _ in range(3)]
        assert [request.result(60).token_ids for request in running] == [text] * 3


@pytest.fixture(scope="module")
def stubborn(tmp_path_factory):
    """A draft model that says nothing but a token that the target cannot read, nor say."""
    token = 5
    folder = tmp_path_factory.mktemp("stubborn")
    config = tiny_models.TinyConfig()
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    tensors = tiny_models.random_tensors(config, 1)
    tensors["token_embd.weight"][token] = float("nan")
    tensors["output.weight"][token] = 0
    target = tiny_models.write_gguf(folder / "target.gguf", keys, tensors)
    for values in tensors.values():
        values[:] = values.ndim == 1  # weights of norms
    tensors["token_embd.weight"][:] = tensors["output.weight"][token] = 1
    draft = tiny_models.write_gguf(folder / "draft.gguf", keys, tensors)
    return sd.Model(target, n_threads=1), sd.Model(draft, n_threads=1)


def test_drafts_that_cannot_be_read_cost_the_others_their_pass_only_once(stubborn):
    target, draft = stubborn
    n = 200
    call = {"max_tokens": n, "ignore_eos": True}
    with sd.Decoder(target, drafter=None) as decoder:
        expected = decoder.generate(PROMPT, **call).token_ids
    reasons = []
    all_there = threading.Event()

    def on_round(one):
        all_there.wait(60)
        reasons.append(one.reason)

    drafter = sd.DraftModel(draft, gamma=2)
    with sd.Engine(target, n_ctx=512, drafter=drafter) as engine:
        running = [
            engine.submit(PROMPT, on_round=on_round, **call),
            *(engine.submit(PROMPT, speculate=False, **call) for _ in range(3)),
        ]
        all_there.set()
        assert [request.result(60).token_ids for request in running] == [expected] * 4
        stats = engine.stats()
    assert sum("not finite" in reason for reason in reasons) > n // 2
    assert stats.passes < 2 * n, "one after the other they are four times as many"


def test_many_drafts_that_cannot_be_read_change_no_text(stubborn):
    target, draft = stubborn
    call = {"max_tokens": 30, "ignore_eos": True}
    with sd.Decoder(target, drafter=None) as decoder:
        expected = decoder.generate(PROMPT, **call).token_ids
    all_there = threading.Event()
    rounds = []

    def on_round(one):
        all_there.wait(60)
        rounds.append(one)

    with sd.Engine(target, n_ctx=256, drafter=sd.DraftModel(draft, gamma=2)) as engine:
        running = [engine.submit(PROMPT, on_round=on_round, **call) for _ in range(6)]
        all_there.set()
        assert [request.result(60).token_ids for request in running] == [expected] * 6
        stats = engine.stats()
    assert (stats.failed, stats.finished) == (0, 6)
    assert sum("not finite" in one.reason for one in rounds) > len(rounds) // 2
    assert stats.passes > 3 * 30, "more than two failing passes, and then not one after the other"


def test_a_token_of_the_text_still_has_to_be_read(models):
    target, draft, token, _ = models
    options = {"max_tokens": N, "ignore_eos": True, "logit_bias": {token: 1e6}}
    for drafter in (None, sd.DraftModel(draft, gamma=3)):
        with sd.Decoder(target, drafter=drafter) as decoder:
            with pytest.raises(sd.NumericalError, match="not finite"):
                decoder.generate(PROMPT, **options)
