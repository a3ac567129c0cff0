"""What holds for every architecture with every drafter: the plain text, and caches as if nothing
had happened. Batches, trees and rollbacks of each are in test_model.py."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import pytest
from test_drafters_engine import DRAFTERS, LETTERS, PROMPT, name_of

import specdec_native as sd
import tiny_models
from helpers import native

engine = native("engine")
testing = native("model")
Models = tuple[Any, Any]
OF_TWO_LAYERS = [options for options in DRAFTERS if "draft_layers" not in options]


def test_the_list_has_every_architecture() -> None:
    assert set(tiny_models.FAMILIES) | {"eagle3"} == set(testing.supported_architectures())


@pytest.fixture(scope="module", params=list(tiny_models.FAMILIES))
def path(request: pytest.FixtureRequest, tmp_path_factory: Any) -> pathlib.Path:
    file = tmp_path_factory.mktemp("families") / f"{request.param}.gguf"
    return tiny_models.write_tiny(file, tiny_models.FAMILIES[request.param], dtype="Q8_0", seed=1)


@pytest.fixture(scope="module")
def models(path: pathlib.Path) -> Models:
    """A target and, as its draft, the same with coarser weights."""
    load = functools.partial(engine.load, str(path), n_threads=1)
    return load(), load(requantize="q4_0")


def session(models: Models, **options: Any) -> Any:
    draft = models[1] if options.get("drafter") == "model" else None
    return engine.Session(models[0], draft, **{"n_ctx": 256, "gamma": 4, **options})


@pytest.mark.parametrize("options", OF_TWO_LAYERS, ids=name_of)
def test_greedy_text_is_the_plain_text(models: Models, options: dict[str, Any]) -> None:
    request = {"prompt": PROMPT, "max_tokens": 60, "ignore_eos": True, "logit_bias": LETTERS}
    plain = session(models, drafter="none").generate(**request)
    result = session(models, **options).generate(**request)
    assert result["token_ids"] == plain["token_ids"]
    assert result["drafted"] > 5


def test_several_sequences_at_once_give_what_each_gives_alone(
    path: pathlib.Path,
) -> None:
    model = sd.Model(path, n_threads=1)
    prompts = [PROMPT, PROMPT + "dark", "a b c"]
    options = {"max_tokens": 24, "n_ctx": 128, "ignore_eos": True}
    results = sd.generate_many(model, prompts, **options)
    for prompt, result in zip(prompts, results, strict=True):
        with sd.Decoder(model, drafter=None, n_ctx=128) as decoder:
            alone = decoder.generate(prompt, max_tokens=24, ignore_eos=True)
        assert result.token_ids == alone.token_ids


@pytest.mark.parametrize("options", OF_TWO_LAYERS, ids=name_of)
def test_a_cache_after_rollbacks_is_that_of_a_fresh_prefill(
    models: Models, options: dict[str, Any]
) -> None:
    options = {**options, "draft_sampling": "greedy"}
    first = {"prompt": PROMPT, "max_tokens": 40, "logit_bias": LETTERS}
    first |= {"temperature": 4.0, "seed": 2}
    used = session(models, **options)
    result = used.generate(**first)
    assert result["accepted"] < result["drafted"]
    text = models[0].encode([(PROMPT, True)]) + result["token_ids"]
    then = {"prompt_ids": text, "max_tokens": 4, "n_logprobs": 5}
    again = used.generate(**then)
    assert again["n_reused_tokens"] == len(text) - 1
    fresh = session(models, drafter="none").generate(**then)
    assert again["logprobs"] == fresh["logprobs"]
