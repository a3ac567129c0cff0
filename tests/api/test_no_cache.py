"""Without caches every pass reads its whole context again, and the tokens are the same."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest

import tiny_models
from helpers import native

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
toys = native("decode")

PROMPT = "the cat in the hat the cat in the hat the cat "
VERIFIERS = ("greedy", "match", "standard", "block", "topk_importance", "topk_importance_published")
N = 24
TOY = {"vocab_size": 8, "seed": 1}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("no_cache")

    def model(name: str, n_layers: int, seed: int) -> Any:
        config = tiny_models.TinyConfig(n_layers=n_layers, context_length=2048)
        return sd.Model(
            tiny_models.write_tiny(folder / f"{name}.gguf", config, seed=seed), n_threads=1
        )

    return {"target": model("target", 3, 1), "draft": model("draft", 1, 2)}


DRAFTERS = {
    "none": lambda m: None,
    "model": lambda m: sd.DraftModel(m["draft"], gamma=3),
    "sampled model": lambda m: sd.DraftModel(
        m["draft"], gamma=3, sampling="sampled", temperature=1.0, draft_top_k=50
    ),
    "model that is right": lambda m: sd.DraftModel(m["target"], gamma=3),
    "comb": lambda m: sd.DraftModel(m["draft"], gamma=3, branch=2),
    "ngram": lambda m: sd.NGram(gamma=4),
    "suffix": lambda m: sd.SuffixAutomaton(gamma=4),
    "tree": lambda m: sd.TokenRecycling(gamma=6),
    "layerskip": lambda m: sd.LayerSkip(1, gamma=2),
}


def run(models: dict[str, Any], use_cache: bool, prompt: Any = PROMPT, **options: Any) -> Any:
    call = {"max_tokens": N, "seed": 7, "ignore_eos": True, **options.pop("call", {})}
    rounds: list[Any] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the verifier that is not lossless
        decoder = sd.Decoder(models["target"], use_cache=use_cache, **options)
    with decoder:
        try:
            out = decoder.generate(prompt, on_round=rounds.append, **call)
        except sd.InvalidArgumentError as error:
            return str(error), None, None
        return [(r.drafted, r.accepted, r.next_token) for r in rounds], out, decoder


@pytest.mark.parametrize("drafter", list(DRAFTERS))
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_every_pass_drafts_and_gives_the_same(models, drafter, temperature):
    n_ran = 0
    for verifier in VERIFIERS:
        options = {
            "drafter": DRAFTERS[drafter](models),
            "verifier": verifier,
            "call": {"temperature": temperature, "logprobs": 2},
        }
        expected, cached, _ = run(models, True, **options)
        found, out, _ = run(models, False, **options)
        assert found == expected, verifier
        if cached is None:
            continue  # refused, with the same words
        n_ran += 1
        assert out.token_ids == cached.token_ids
        assert out.logprobs == cached.logprobs
        assert (cached.stats.reread_tokens, cached.stats.draft_reread_tokens) == (0, 0)
        assert out.stats.reread_tokens > 0
    assert n_ran >= 3


def test_the_adaptive_controller_gives_the_same_text(models):
    for drafter in ("auto", [sd.DraftModel(models["draft"]), sd.NGram(), sd.LayerSkip(1)]):
        for temperature in (0.0, 0.9):
            options = {"call": {"temperature": temperature, "max_tokens": 60}}
            if drafter == "auto":
                options["draft"] = models["draft"]
            _, cached, _ = run(models, True, drafter=None, call=options["call"])
            _, out, _ = run(models, False, drafter=drafter, **options)
            assert out.token_ids == cached.token_ids


def test_text_of_many_passes_and_a_prompt_of_many_pieces(models):
    prompt = [int(i * i // 7 % 250) for i in range(1100)]  # more than two pieces of 512
    for drafter in ("none", "model", "comb", "layerskip"):
        options = {"drafter": DRAFTERS[drafter](models), "call": {"max_tokens": 6}}
        expected, _, _ = run(models, True, prompt=prompt, **options)
        found, out, _ = run(models, False, prompt=prompt, **options)
        assert found == expected
        assert out.stats.reread_tokens >= 1100


def test_plain_steps_read_again_all_but_the_last_token(models):
    _, out, _ = run(models, False, drafter=None)
    n_prompt = out.stats.prompt_tokens
    assert out.stats.reread_tokens == sum(n_prompt + i - 1 for i in range(1, N))
    assert out.stats.draft_reread_tokens == 0


def test_rounds_read_again_in_every_draft_step_and_in_every_pass(models):
    gamma = 3
    rounds, out, _ = run(models, False, drafter=sd.DraftModel(models["draft"], gamma=gamma))
    target = draft = 0
    length, known = out.stats.prompt_tokens, 0  # committed tokens; those the draft model has read
    for i, (drafted, accepted, _) in enumerate(rounds):
        target += length - 1 if i else 0
        if drafted:
            draft += known + sum(length + j for j in range(len(drafted) - 1))
            known = length + len(accepted)  # as far as it was right
            if len(accepted) == len(drafted):
                known -= 1  # the last drafted token was never fed
        length += len(accepted) + 1
    assert (out.stats.reread_tokens, out.stats.draft_reread_tokens) == (target, draft)
    assert any(len(drafted) == gamma for drafted, _, _ in rounds)


def test_nothing_is_kept_between_calls(models):
    decoder = sd.Decoder(
        models["target"], drafter=sd.DraftModel(models["draft"], gamma=3), use_cache=False
    )
    read: list[tuple[int, int]] = []
    first = decoder.generate(PROMPT, max_tokens=N, on_progress=lambda *n: read.append(n))
    n_prompt = first.stats.prompt_tokens
    assert read[0] == (0, n_prompt)
    assert read[-1] == (n_prompt, n_prompt)
    assert decoder._native.cached_tokens() == []
    again = decoder.generate(PROMPT, max_tokens=N)
    assert again.token_ids == first.token_ids
    assert again.stats.reused_prompt_tokens == 0
    assert again.stats.reread_tokens == first.stats.reread_tokens
    assert again.stats.draft_reread_tokens == first.stats.draft_reread_tokens
    fork = decoder.fork()
    assert fork.generate(PROMPT, max_tokens=N).stats.reread_tokens == first.stats.reread_tokens


def test_a_call_after_one_that_failed_or_was_ended_is_as_new(models):
    decoder = sd.Decoder(
        models["target"], drafter=sd.DraftModel(models["draft"], gamma=3), use_cache=False
    )
    first = decoder.generate(PROMPT, max_tokens=N)

    def fail(_: Any) -> None:
        raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        decoder.generate(PROMPT, max_tokens=N, on_round=fail)
    decoder.generate(PROMPT, max_tokens=N, on_token=lambda _: False)
    again = decoder.generate(PROMPT, max_tokens=N)
    assert again.token_ids == first.token_ids
    assert again.stats.reread_tokens == first.stats.reread_tokens


def test_a_context_is_as_long_as_with_a_cache(models):
    for drafter in ("none", "model", "comb", "layerskip"):
        options = {"drafter": DRAFTERS[drafter](models), "n_ctx": 64, "call": {"max_tokens": None}}
        expected, cached, _ = run(models, True, **options)
        found, out, _ = run(models, False, **options)
        assert found == expected
        assert out.stats.emitted == cached.stats.emitted == 64 - out.stats.prompt_tokens


def test_what_is_learnt_without_a_cache_is_not_kept_for_others(models, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECDEC_CALIBRATION", str(tmp_path))
    options = {"draft": models["draft"], "call": {"max_tokens": 40}}
    run(models, False, drafter="auto", **options)
    (file,) = tmp_path.iterdir()
    measured = file.read_text()
    run(models, False, drafter="auto", **options)
    assert file.read_text() == measured
    run(models, True, drafter="auto", **options)
    assert file.read_text() != measured


@pytest.mark.parametrize(
    "drafter",
    [
        None,
        {"kind": "model", "toy": {**TOY, "seed": 2, "mix_seed": 1, "mix": 0.7}, "gamma": 3},
        {"kind": "model", "toy": TOY, "gamma": 2},
        {"kind": "ngram", "gamma": 3},
    ],
)  # fmt: skip
def test_models_are_given_the_whole_context_in_every_pass(drafter):
    """Of the rows that toy models are fed, not of what the statistics say."""
    prompt = [1, 2, 3, 1, 2, 3, 1, 2]
    with_cache = toys.Session(TOY, drafter).run(prompt=prompt, max_tokens=20)
    session = toys.Session(TOY, drafter, use_cache=False)
    for _ in range(2):  # the second time too
        out = session.run(prompt=prompt, max_tokens=20)
        assert out["token_ids"] == with_cache["token_ids"]
        assert out["rounds"] == with_cache["rounds"]
        lengths = itertools.accumulate(
            (len(accepted) + 1 for _, accepted, _ in out["rounds"]), initial=len(prompt)
        )
        expected = [
            (n, len(drafted)) for n, (drafted, _, _) in zip(lengths, out["rounds"], strict=False)
        ]
        assert session.batches("target") == [n + n_drafted for n, n_drafted in expected]
        if drafter is not None and drafter["kind"] == "model":
            assert session.batches("draft") == [
                n + step for n, n_drafted in expected for step in range(n_drafted)
            ]
        session.reset()
