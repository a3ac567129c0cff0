"""Many sequences in one pass: each has the tokens that it has alone."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPTS = ["the cat in the hat", "in the", "q", "the inner winner in the thinner", "other"]


def alone(model, prompt, seed, **options):
    with sd.Decoder(model, drafter=None, n_ctx=256) as decoder:
        return decoder.generate(prompt, seed=seed, **options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 1.0},
        {"temperature": 0.8, "top_k": 20, "top_p": 0.9},
        {"temperature": 1.0, "top_k": 20, "logprobs": 3},
        {"logprobs": 3},
        {"temperature": 0.7, "repetition_penalty": 1.3, "logprobs": 2},
        {"ignore_eos": True},
        {"temperature": 1.5, "logit_bias": {271: 4.0}},
    ],
)
@pytest.mark.parametrize("n_parallel", [1, 3, 16])
def test_every_result_equals_the_one_of_a_decoder(tiny, options, n_parallel):
    seeds = [7, 8, 9, 10, 11]
    results = sd.generate_many(
        tiny, PROMPTS, seeds=seeds, max_tokens=24, n_parallel=n_parallel, n_ctx=256, **options
    )
    assert [result.seed for result in results] == seeds
    for prompt, seed, result in zip(PROMPTS, seeds, results, strict=True):
        expected = alone(tiny, prompt, seed, max_tokens=24, **options)
        assert result.token_ids == expected.token_ids
        assert result.text == expected.text
        assert result.finish_reason == expected.finish_reason
        assert (result.logprobs is None) == (expected.logprobs is None)
        for ours, theirs in zip(result.logprobs or (), expected.logprobs or (), strict=True):
            assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-5)
            assert [t.token_id for t in ours.top] == [t.token_id for t in theirs.top]


def test_the_seed_of_params_is_that_of_every_prompt(tiny):
    params = sd.SamplingParams(temperature=1.0, seed=9)
    results = sd.generate_many(tiny, PROMPTS, params=params, max_tokens=12, n_ctx=256)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.seed == 9
        expected = alone(tiny, prompt, 9, max_tokens=12, temperature=1.0)
        assert result.token_ids == expected.token_ids


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_a_numerical_error(tmp_path, temperature):
    config = tiny_models.TinyConfig()
    tensors = tiny_models.random_tensors(config, 1)
    tensors["output.weight"][5] = float("nan")
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    with sd.Model(tiny_models.write_gguf(tmp_path / "nan.gguf", keys, tensors)) as model:
        for options in ({}, {"top_k": 5}):
            call = {"max_tokens": 4, "temperature": temperature, "n_ctx": 64, **options}
            with pytest.raises(sd.NumericalError, match="finite"):
                sd.generate_many(model, ["ab", "c"], **call)


@pytest.mark.parametrize("arch", ["gptneox", "qwen2", "qwen35"])
def test_other_architectures(tmp_path, arch):
    more = {"n_layers": 5, "n_rot": 8} if arch == "qwen35" else {}
    config = tiny_models.TinyConfig(arch=arch, n_kv_heads=4 if arch == "gptneox" else 2, **more)
    model = sd.Model(tiny_models.write_tiny(tmp_path / "m.gguf", config, dtype="F16", seed=2))
    results = sd.generate_many(model, PROMPTS, max_tokens=16, n_ctx=256)
    for prompt, result in zip(PROMPTS, results, strict=True):
        assert result.token_ids == alone(model, prompt, 0, max_tokens=16).token_ids


def test_end_of_sequence_is_kept_only_when_asked_for(tiny):
    eos = tiny.eos_token_id
    options = {"max_tokens": 8, "n_ctx": 64, "logit_bias": {eos: 1e6}}
    (without,) = sd.generate_many(tiny, ["the"], **options)
    (kept,) = sd.generate_many(tiny, ["the"], keep_eos=True, **options)
    assert (without.token_ids, without.finish_reason) == ((), "stop")
    assert (kept.token_ids, kept.finish_reason) == ((eos,), "stop")


def test_the_context_ends_a_sequence(tiny):
    n = len(tiny.tokenize("in the"))
    results = sd.generate_many(tiny, ["in the"] * 3, max_tokens=None, n_ctx=40, ignore_eos=True)
    assert {len(result.token_ids) for result in results} == {40 - n}
    assert {result.finish_reason for result in results} == {"length"}


def test_progress_and_nothing_to_do(tiny):
    calls = []
    sd.generate_many(
        tiny, PROMPTS, max_tokens=4, n_ctx=64, on_done=lambda *call: calls.append(call)
    )
    assert calls[-1] == (5, 5)
    assert sd.generate_many(tiny, []) == []
    assert sd.generate_many(tiny, ["a"], max_tokens=0)[0].token_ids == ()


def test_an_exception_of_the_callback_passes_through(tiny):
    def stop(n_done, n_all):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sd.generate_many(tiny, PROMPTS, max_tokens=4, n_ctx=64, on_done=stop)


@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"n_parallel": 0}, sd.InvalidArgumentError, "n_parallel"),
        ({"n_parallel": 65}, sd.InvalidArgumentError, "n_parallel"),
        ({"n_ctx": 2**30 + 1}, sd.InvalidArgumentError, "n_ctx"),
        ({"max_tokens": -1}, sd.InvalidArgumentError, "max_tokens"),
        ({"logprobs": 101}, sd.InvalidArgumentError, "logprobs"),
        ({"seeds": [1]}, sd.InvalidArgumentError, "one per prompt"),
        ({"temperature": -1.0}, sd.InvalidArgumentError, "temperature"),
        ({"n_ctx": 4}, sd.ContextFullError, "prompt 0"),
        ({"stop": "x"}, TypeError, "stop"),
        ({"wrong": 1}, TypeError, "wrong"),
    ],
)
def test_bad_options_are_named(tiny, options, error, text):
    with pytest.raises(error, match=text):
        sd.generate_many(tiny, ["the cat in the hat", "a"], **options)


def test_bad_prompts_are_named(tiny):
    with pytest.raises(sd.InvalidArgumentError, match=r"prompts\[1\]\[0\]"):
        sd.generate_many(tiny, [[1], [99999]])
    with pytest.raises(sd.InvalidArgumentError, match="prompt 1 has no token"):
        sd.generate_many(tiny, [[1], []])
    with pytest.raises(sd.InvalidArgumentError, match="not one text"):
        sd.generate_many(tiny, "text")


@pytest.mark.parametrize("arch", ["llama", "qwen35"])
@pytest.mark.parametrize("n_parallel", [1, 3, 16])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "keep_eos": True, "logprobs": 2}])
def test_hidden_states_are_those_of_a_text_read_alone(tmp_path, arch, n_parallel, options):
    more = {"n_layers": 5, "n_rot": 8} if arch == "qwen35" else {}
    config = tiny_models.TinyConfig(arch=arch, n_kv_heads=2, **more)
    model = sd.Model(tiny_models.write_tiny(tmp_path / "m.gguf", config, dtype="F16", seed=2))
    layers = [0, 1, model.info.n_layers]
    begun = "a common beginning that is read once, "
    prompts = [*PROMPTS, begun + "one", begun + "another"]
    call = {"max_tokens": [9, 0, 30, 12, 1, 20, 20], "seeds": range(7), "n_ctx": 256}
    results = sd.generate_many(
        model, prompts, layers=layers, n_parallel=n_parallel, **call, **options
    )
    plain = sd.generate_many(model, prompts, **call, **options)
    assert [r.token_ids for r in plain] == [r.token_ids for r in results]
    assert all(result.hidden_states is None for result in plain)
    for prompt, result in zip(prompts, results, strict=True):
        text = [*model.tokenize(prompt), *result.token_ids]
        states = np.asarray(result.hidden_states)
        if not result.token_ids and result.finish_reason == "length":
            assert states.shape == (0, 3, model.info.hidden_size)
            continue
        unread = result.finish_reason == "length" or "keep_eos" in options
        assert states.shape == (len(text) - unread, 3, model.info.hidden_size)
        expected = np.asarray(model.hidden_states(text[: len(states)], layers))
        np.testing.assert_array_equal(states, expected)
    assert sum(result.finish_reason == "length" for result in results) > 1


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([], "layers is empty"),
        ([2, 1], "ascending and distinct"),
        ([1, 1], "ascending and distinct"),
        ([-1], r"layers\[0\]"),
        ([99], r"layers\[0\]"),
        ("12", "must be a sequence of layers, not str"),
        (3, "must be a sequence of layers, not int"),
        ([0.5], r"layers\[0\]"),
    ],
)
def test_wrong_layers_are_refused(tiny, layers, message):
    with pytest.raises(sd.InvalidArgumentError, match=message):
        sd.generate_many(tiny, PROMPTS, max_tokens=2, n_ctx=64, layers=layers)


@pytest.mark.parametrize("max_tokens", [0, 5])
def test_results_with_hidden_states_can_be_pickled_and_copied(tiny, max_tokens):
    ids = tiny.tokenize("q")[-1:]
    (result,) = sd.generate_many(tiny, [ids], max_tokens=max_tokens, layers=[0, 2], n_ctx=64)
    for other in (
        pickle.loads(pickle.dumps(result)),
        copy.deepcopy(result),
        copy.copy(result),
        pickle.loads(pickle.dumps(result, protocol=2)),
    ):
        assert other == result
        states = other.hidden_states
        assert (states.shape, states.format) == (result.hidden_states.shape, "f")
        assert states.tobytes() == result.hidden_states.tobytes()
    copied = dataclasses.asdict(dataclasses.replace(result, hidden_states=None))
    assert copied["token_ids"] == result.token_ids
    (plain,) = sd.generate_many(tiny, [ids], max_tokens=max_tokens, n_ctx=64)
    assert pickle.loads(pickle.dumps(plain)) == plain
    # What is not as it was pickled.
    native = type(result.hidden_states.obj)
    for numbers, shape in ((b"abc", (1, 1, 1)), (bytes(8), (1, 1, 1)), (b"", (1 << 63, 2, 1))):
        with pytest.raises(sd.InvalidArgumentError, match="hidden states of"):
            native(numbers, *shape)
