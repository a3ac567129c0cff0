"""Sessions of models with recurrent layers: texts that are gone back in, wherever to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import native

engine = native("engine")

CONFIG = tiny_models.TinyConfig(
    arch="qwen35", head_dim=32, n_heads=2, n_kv_heads=2, n_layers=5, n_rot=8
)
TEXT = [int(t) for t in np.random.default_rng(3).integers(97, 123, 700)]


@pytest.fixture(scope="module")
def target(tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("recurrent") / "model.gguf"
    return engine.load(str(tiny_models.write_tiny(path, CONFIG, dtype="Q8_0", seed=4)), n_threads=1)


def generate(session: Any, prompt: list[int], **options: Any) -> Any:
    return session.generate(prompt_ids=prompt, ignore_eos=True, **{"max_tokens": 6, **options})


@pytest.mark.parametrize("drafter", ["none", "ngram", "layerskip", "model"])
def test_prompts_that_share_a_beginning_give_what_they_give_alone(
    target: Any, drafter: str
) -> None:
    draft = target if drafter == "model" else None
    session = engine.Session(target, draft, drafter=drafter, n_ctx=1024)
    for n_shared, n_more in (
        (600, 30),
        (599, 0),
        (300, 1),
        (300, 200),
        (20, 400),
        (0, 90),
        (90, 0),
    ):
        prompt = TEXT[:n_shared] + [101] * (n_more + 2)
        found = generate(session, prompt, n_logprobs=3)
        fresh = engine.Session(target, None, drafter="none", n_ctx=1024)
        expected = generate(fresh, prompt, n_logprobs=3)
        assert found["token_ids"] == expected["token_ids"]
        assert found["logprobs"] == expected["logprobs"]
        assert found["n_reused_tokens"] <= n_shared + n_more + 1
        assert fresh.cached_tokens() == session.cached_tokens()


def test_a_chat_that_goes_on_reads_only_what_is_new(target: Any) -> None:
    session = engine.Session(target, None, drafter="none", n_ctx=1024)
    text = TEXT[:400]
    for _ in range(3):
        result = generate(session, text)
        text = text + result["token_ids"] + TEXT[400:420]
    assert generate(session, text)["n_reused_tokens"] >= len(text) - 25


@pytest.mark.parametrize("gamma", [8, 40, 64])
@pytest.mark.parametrize("drafter", ["layerskip", "model"])
def test_drafts_longer_than_what_is_logged_are_gone_back_from(
    target: Any, drafter: str, gamma: int
) -> None:
    draft = target if drafter == "model" else None
    plain = engine.Session(target, None, drafter="none", n_ctx=1024)
    session = engine.Session(
        target, draft, drafter=drafter, gamma=gamma, draft_sampling="greedy", n_ctx=1024
    )
    options = {"max_tokens": 150, "temperature": 1.2, "seed": 5}
    found, expected = generate(session, TEXT[:40], **options), generate(plain, TEXT[:40], **options)
    assert found["token_ids"] == expected["token_ids"]
    assert found["accepted"] < found["drafted"]
    then = {"n_logprobs": 3}
    text = TEXT[:40] + expected["token_ids"]
    assert generate(session, text, **then)["logprobs"] == generate(plain, text, **then)["logprobs"]


def test_a_cancelled_request_leaves_nothing_behind(target: Any) -> None:
    session = engine.Session(target, None, drafter="none", n_ctx=1024)
    generate(session, TEXT[:100])
    with pytest.raises(Exception, match="context"):
        generate(session, TEXT[:100] * 11)
    fresh = engine.Session(target, None, drafter="none", n_ctx=1024)
    prompt = [*TEXT[:100], 99]
    assert generate(session, prompt)["token_ids"] == generate(fresh, prompt)["token_ids"]


def test_forked_sessions_go_on_alike(target: Any) -> None:
    session = engine.Session(target, None, drafter="none", n_ctx=1024)
    first = generate(session, TEXT[:333])
    fork = session.fork()
    text = TEXT[:333] + first["token_ids"] + [97]
    expected = generate(session, text, n_logprobs=2)
    assert generate(fork, TEXT[:120])["token_ids"] is not None
    assert generate(fork, text, n_logprobs=2)["logprobs"] == expected["logprobs"]
