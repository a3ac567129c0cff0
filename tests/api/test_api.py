"""The public Python API on a small random model: results, options, errors."""

from __future__ import annotations

import copy
import dataclasses
import errno
import json
import math
import pathlib
import pickle
import re

import numpy as np
import pytest

import tiny_models

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

PROMPT = "the cat in the hat the cat in the hat the cat in the "


@pytest.fixture
def decoder(tiny):
    with sd.Decoder(tiny, drafter=None, n_ctx=512) as decoder:
        yield decoder


def drafters(tiny_draft):
    return [None, sd.NGram(), sd.NGram(n=3, gamma=2), sd.DraftModel(tiny_draft), "auto"]


# ---------------------------------------------------------------- models


def test_info_describes_the_file(tiny, tiny_path):
    info = tiny.info
    assert (info.architecture, info.n_layers, info.hidden_size, info.vocab_size) == (
        "llama", 2, 64, 272,
    )  # fmt: skip
    assert info.path == str(tiny_path)
    assert info.size_bytes == tiny_path.stat().st_size
    assert "Q8_0" in info.quantisation
    assert info.n_threads == 1
    json.dumps(info.to_dict())


def test_metadata_holds_every_key(tiny):
    assert tiny.metadata["general.architecture"] == "llama"
    assert tiny.metadata["llama.rope.freq_base"] == 10000.0
    assert len(tiny.metadata["tokenizer.ggml.tokens"]) == 272
    assert tiny.chat_template is not None


def test_text_survives_tokens(tiny):
    text = "the inner ☃ 漢字 \n\t end"
    assert tiny.detokenize(tiny.tokenize(text)) == text


def test_any_str_can_be_tokenized(tiny):
    for text in ["", "\0", "\ud800", "a\udfffb", "\U0010ffff"]:
        ids = tiny.tokenize(text)
        assert all(0 <= i < 272 for i in ids)


def test_control_tokens_are_recognised_only_on_request(tiny):
    marker = "<|endoftext|>"
    assert tiny.tokenize(marker) == [tiny.eos_token_id]
    assert len(tiny.tokenize(marker, parse_special=False)) > 1
    assert tiny.detokenize([tiny.eos_token_id]) == ""
    assert tiny.detokenize([tiny.eos_token_id], render_special=True) == marker


def test_numpy_integers_are_token_ids(tiny):
    assert tiny.detokenize(np.array([97, 98])) == tiny.detokenize([97, 98])


@pytest.mark.parametrize("ids", [[-1], [272], [2**31], [2**70], [1.5], ["a"], [None], [True]])
def test_token_ids_outside_the_vocabulary_are_refused_by_position(tiny, ids):
    with pytest.raises(ValueError, match=r"token_ids\[1\]"):
        tiny.detokenize([0, *ids])


def test_inspect_reads_no_weights_and_lists_tensors(tiny_path, tmp_path):
    found = sd.inspect(tiny_path)
    assert found.supported, found.problem
    assert found.architecture == "llama"
    assert {t.name for t in found.tensors} >= {"token_embd.weight", "output_norm.weight"}
    assert sum(t.n_bytes for t in found.tensors) < found.size_bytes
    short = sd.inspect(tiny_path, max_array=3)
    assert "272" in short.metadata["tokenizer.ggml.tokens"]


def test_inspect_reads_architectures_that_do_not_run(tmp_path):
    path = tmp_path / "other.gguf"
    tiny_models.write_gguf(path, {"general.architecture": "mamba"}, {"x": np.zeros((2, 32))})
    found = sd.inspect(path)
    assert not found.supported
    assert "mamba" in found.problem
    with pytest.raises(sd.UnsupportedModelError, match="mamba"):
        sd.Model(path)


def test_check_pair_compares_vocabularies(tiny, tiny_draft, tmp_path):
    report = sd.check_pair(tiny, tiny_draft)
    assert report.compatible
    assert report.identical
    assert report.first_difference is None
    assert report.cost_ratio > 0

    other = tiny_models.byte_tokenizer()
    tokens = list(other["tokenizer.ggml.tokens"])
    tokens[65], tokens[66] = tokens[66], tokens[65]
    path = tmp_path / "swapped.gguf"
    tiny_models.write_tiny(path, extra={"tokenizer.ggml.tokens": tokens})
    with sd.Model(path) as swapped:
        report = sd.check_pair(tiny, swapped)
        assert not report.compatible
        assert report.first_difference == 65
        with pytest.raises(sd.UnsupportedModelError, match="65"):
            sd.Decoder(tiny, drafter=sd.DraftModel(swapped))


def test_load_reports_progress_and_an_exception_ends_it(tiny_path):
    seen = []
    sd.Model(tiny_path, on_progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1.0)

    def fail(fraction):
        raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sd.Model(tiny_path, on_progress=fail)


# ---------------------------------------------------------------- generation


def test_result_is_consistent(decoder, tiny):
    result = decoder.generate(PROMPT, max_tokens=40)
    assert len(result.token_ids) == len(result.from_draft) <= 40
    assert result.text == tiny.detokenize(result.token_ids, strip_space_prefix=False)
    assert result.finish_reason in ("stop", "length")
    assert result.prompt_tokens == len(tiny.tokenize(PROMPT))
    assert not any(result.from_draft)
    assert str(result) == result.text
    assert "tokens/s" in result.summary


def test_text_and_ids_of_a_prompt_are_the_same_prompt(tiny):
    by_text = sd.Decoder(tiny).generate(PROMPT, max_tokens=24)
    by_ids = sd.Decoder(tiny).generate(tiny.tokenize(PROMPT), max_tokens=24)
    assert by_text.token_ids == by_ids.token_ids


@pytest.mark.parametrize("which", range(5))
def test_greedy_text_does_not_depend_on_the_drafter(tiny, tiny_draft, which):
    drafter = drafters(tiny_draft)[which]
    plain = sd.Decoder(tiny, drafter=None).generate(PROMPT, max_tokens=96, ignore_eos=True)
    other = sd.Decoder(tiny, drafter=drafter).generate(PROMPT, max_tokens=96, ignore_eos=True)
    assert other.token_ids == plain.token_ids
    assert other.text == plain.text


@pytest.mark.parametrize("which", range(5))
def test_a_seed_means_one_text_with_any_drafter(tiny, tiny_draft, which):
    options = {"max_tokens": 64, "temperature": 0.8, "seed": 7, "ignore_eos": True}
    drafter = drafters(tiny_draft)[which]
    plain = sd.Decoder(tiny, drafter=None).generate(PROMPT, **options)
    other = sd.Decoder(tiny, drafter=drafter).generate(PROMPT, **options)
    assert other.token_ids == plain.token_ids
    assert other.seed == 7


def test_seeds_differ_and_a_drawn_seed_can_be_used_again(tiny):
    options = {"max_tokens": 48, "temperature": 1.0, "ignore_eos": True}
    first = sd.Decoder(tiny).generate(PROMPT, **options)
    again = sd.Decoder(tiny).generate(PROMPT, seed=first.seed, **options)
    other = sd.Decoder(tiny).generate(PROMPT, seed=first.seed ^ 1, **options)
    assert again.token_ids == first.token_ids
    assert other.token_ids != first.token_ids


def test_stats_reconcile_and_turn_into_json(tiny, tiny_draft):
    for drafter in drafters(tiny_draft):
        result = sd.Decoder(tiny, drafter=drafter).generate(PROMPT, max_tokens=64)
        stats = result.stats
        assert stats.emitted == len(result.token_ids)
        assert stats.emitted == stats.accepted + stats.rounds + stats.plain_steps - stats.cut
        assert stats.accepted == sum(result.from_draft) == sum(stats.accepted_per_position)
        assert stats.drafted == sum(stats.drafted_per_position)
        assert stats.accepted <= stats.drafted
        assert stats.total_ms == pytest.approx(stats.prompt_ms + stats.decode_ms, abs=0.5)
        if stats.rounds:
            assert stats.mean_acceptance_length == pytest.approx(1 + stats.accepted / stats.rounds)
        else:
            assert stats.mean_acceptance_length is None
        assert set(json.loads(json.dumps(stats.to_dict()))) == {
            f.name for f in dataclasses.fields(stats)
        }


def test_a_prompt_known_already_is_not_read_again(decoder):
    first = decoder.generate(PROMPT, max_tokens=8)
    again = decoder.generate(PROMPT, max_tokens=8)
    assert again.token_ids == first.token_ids
    assert first.stats.reused_prompt_tokens == 0
    assert again.stats.reused_prompt_tokens > 0
    decoder.reset()
    assert decoder.generate(PROMPT, max_tokens=8).stats.reused_prompt_tokens == 0


def test_a_fork_continues_independently(decoder, tiny):
    decoder.generate(PROMPT, max_tokens=8)
    with decoder.fork() as fork:
        a = decoder.generate(PROMPT + "x", max_tokens=24)
        b = fork.generate(PROMPT + "y", max_tokens=24)
        assert b.stats.reused_prompt_tokens > 0
    assert a.token_ids == sd.Decoder(tiny).generate(PROMPT + "x", max_tokens=24).token_ids
    assert b.token_ids == sd.Decoder(tiny).generate(PROMPT + "y", max_tokens=24).token_ids


def test_max_tokens_is_exact(decoder):
    for n in (0, 1, 5):
        result = decoder.generate(PROMPT, max_tokens=n, ignore_eos=True)
        assert len(result.token_ids) == n
        assert result.finish_reason == "length"


def test_without_max_tokens_the_context_is_filled(tiny):
    with sd.Decoder(tiny, n_ctx=100) as decoder:
        result = decoder.generate(PROMPT, max_tokens=None, ignore_eos=True)
        assert result.finish_reason == "length"
        assert result.prompt_tokens + len(result.token_ids) in (100, 101)


def test_a_prompt_that_does_not_fit_is_an_error(tiny):
    with sd.Decoder(tiny, n_ctx=16) as decoder:
        with pytest.raises(sd.ContextFullError) as caught:
            decoder.generate(PROMPT)
        assert isinstance(caught.value, ValueError)
        assert decoder.generate("the", max_tokens=3, ignore_eos=True).token_ids


def test_a_stop_string_ends_the_text_before_it(tiny):
    whole = sd.Decoder(tiny).generate(PROMPT, max_tokens=60, ignore_eos=True)
    stop = re.findall(r"[a-zA-Z,.0-9]{2}", whole.text)[1]  # bytes that are no text do not count
    for drafter in (None, sd.NGram()):
        result = sd.Decoder(tiny, drafter=drafter).generate(
            PROMPT, max_tokens=60, ignore_eos=True, stop=[stop, "never there"]
        )
        assert result.text == whole.text[: whole.text.index(stop)]
        assert (result.finish_reason, result.stop_reason) == ("stop", stop)


def test_logprobs_are_those_of_the_emitted_tokens(tiny, tiny_draft):
    plain = sd.Decoder(tiny, drafter=None).generate(
        PROMPT, max_tokens=24, logprobs=3, ignore_eos=True
    )
    drafted = sd.Decoder(tiny, drafter=sd.NGram()).generate(
        PROMPT, max_tokens=24, logprobs=3, ignore_eos=True
    )
    assert plain.logprobs == drafted.logprobs
    assert len(plain.logprobs) == 24
    for token, position in zip(plain.token_ids, plain.logprobs, strict=True):
        assert len(position.top) == 3
        assert position.top[0].token_id == token  # greedy takes the best
        assert position.top[0].logprob == position.logprob <= 0
    none = sd.Decoder(tiny).generate(PROMPT, max_tokens=4, logprobs=0, ignore_eos=True)
    assert [p.top for p in none.logprobs] == [()] * 4
    assert sd.Decoder(tiny).generate(PROMPT, max_tokens=4).logprobs is None


def test_logit_bias_bans_and_forces_tokens(decoder):
    first = decoder.generate(PROMPT, max_tokens=1, ignore_eos=True).token_ids[0]
    banned = decoder.generate(
        PROMPT, max_tokens=1, ignore_eos=True, logit_bias={first: -math.inf}
    ).token_ids[0]
    assert banned != first
    forced = decoder.generate(PROMPT, max_tokens=5, logit_bias={100: 1000.0}).token_ids
    assert forced == (100,) * 5


def test_single_options_override_params(decoder):
    params = sd.SamplingParams(temperature=1.5, seed=3)
    greedy = decoder.generate(PROMPT, max_tokens=16, ignore_eos=True)
    assert (
        decoder.generate(
            PROMPT, max_tokens=16, ignore_eos=True, params=params, temperature=0.0
        ).token_ids
        == greedy.token_ids
    )
    assert (
        decoder.generate(PROMPT, max_tokens=16, ignore_eos=True, params=params).token_ids
        == decoder.generate(
            PROMPT, max_tokens=16, ignore_eos=True, temperature=1.5, seed=3
        ).token_ids
    )


def test_on_token_sees_everything_and_false_ends(tiny):
    for drafter in (None, sd.NGram()):
        decoder = sd.Decoder(tiny, drafter=drafter)
        chunks = []
        result = decoder.generate(PROMPT, max_tokens=32, ignore_eos=True, on_token=chunks.append)
        assert "".join(c.text for c in chunks) == result.text
        assert sum((c.token_ids for c in chunks), ()) == result.token_ids
        assert sum((c.from_draft for c in chunks), ()) == result.from_draft

        result = decoder.generate(
            PROMPT, max_tokens=400, ignore_eos=True, on_token=lambda chunk: False
        )
        assert result.finish_reason == "cancelled"
        assert len(result.token_ids) < 20


def test_an_exception_in_a_callback_passes_through_and_the_decoder_lives(decoder):
    expected = decoder.generate(PROMPT, max_tokens=24, ignore_eos=True)

    def fail(*args):
        raise KeyError("mine")

    for callback in ("on_token", "on_progress"):
        with pytest.raises(KeyError, match="mine"):
            decoder.generate("other " + PROMPT, max_tokens=24, **{callback: fail})
        assert not decoder.busy
        assert (
            decoder.generate(PROMPT, max_tokens=24, ignore_eos=True).token_ids == expected.token_ids
        )


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("max_tokens", -1, "max_tokens"),
        ("max_tokens", 1.5, "max_tokens"),
        ("max_tokens", True, "max_tokens"),
        ("temperature", -0.1, "temperature"),
        ("temperature", float("nan"), "temperature"),
        ("temperature", "hot", "temperature"),
        ("top_k", -1, "top_k"),
        ("top_p", 0.0, "top_p"),
        ("top_p", 1.01, "top_p"),
        ("min_p", 1.0, "min_p"),
        ("noise_scale", -1, "noise_scale"),
        ("seed", -1, "seed"),
        ("seed", 2**64, "seed"),
        ("repetition_penalty", 0, "repetition_penalty"),
        ("presence_penalty", 101, "presence_penalty"),
        ("frequency_penalty", -101, "frequency_penalty"),
        ("penalty_last_n", -2, "penalty_last_n"),
        ("logit_bias", {272: 1.0}, "logit_bias"),
        ("logit_bias", {1: float("nan")}, "logit_bias"),
        ("logit_bias", [1], "logit_bias"),
        ("stop", "", "stop"),
        ("stop", [1], "stop"),
        ("stop", ["a"] * 65, "stop"),
        ("logprobs", 101, "logprobs"),
        ("logprobs", -1, "logprobs"),
        ("params", {"temperature": 1}, "params"),
    ],
)
def test_bad_options_of_a_call_are_named(decoder, option, value, words):
    with pytest.raises(ValueError, match=words) as caught:
        decoder.generate("x", **{option: value})
    assert isinstance(caught.value, sd.SpecdecError)


def test_unknown_options_are_type_errors(decoder):
    with pytest.raises(TypeError, match="temprature"):
        decoder.generate("x", temprature=1.0)


@pytest.mark.parametrize("prompt", [[], [272], [-1], b"bytes", [1.0]])
def test_bad_prompts_are_refused(decoder, prompt):
    with pytest.raises(ValueError, match="prompt"):
        decoder.generate(prompt)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"verifier": "magic"}, "verifier"),
        ({"n_ctx": 1}, "n_ctx"),
        ({"n_ctx": 1.5}, "n_ctx"),
        ({"kv_type": "q4"}, "kv_type"),
        ({"drafter": "sufix"}, "drafter"),
        ({"drafter": "ngram,auto"}, "drafter"),
        ({"drafter": "model"}, "drafter"),
        ({"drafter": []}, "drafter"),
        ({"drafter": 3}, "drafter"),
    ],
)
def test_bad_options_of_a_decoder_are_named(tiny, options, word):
    with pytest.raises(ValueError, match=word):
        sd.Decoder(tiny, **options)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: sd.NGram(n=0), "n must"),
        (lambda: sd.NGram(n=17), "n must"),
        (lambda: sd.NGram(min_count=0), "min_count"),
        (lambda: sd.NGram(draft_max=0), "draft_max"),
        (lambda: sd.NGram(draft_max=4, draft_min=5), "draft_min"),
        (lambda: sd.NGram(gamma=-1), "gamma"),
        (lambda: sd.DraftModel(None, sampling="best"), "sampling"),
        (lambda: sd.DraftModel(None, temperature=-1), "temperature"),
    ],
)
def test_bad_options_of_drafters_are_named(make, word):
    with pytest.raises(ValueError, match=word):
        make()


def test_bad_options_of_a_model_are_named(tiny_path):
    for options, word in [
        ({"device": "tpu"}, "device"),
        ({"n_threads": 0}, "n_threads"),
        ({"n_threads": 257}, "n_threads"),
        ({"kv_type": "f8"}, "kv_type"),
        ({"repack": "on"}, "repack"),
        ({"n_gpu_layers": -1}, "n_gpu_layers"),
        ({"n_gpu_layers": 1, "device": "cpu"}, "n_gpu_layers"),
        ({"vram_budget": "4 apples"}, "vram_budget"),
        ({"vram_budget": 0}, "vram_budget"),
        ({"vram_budget": " "}, "vram_budget"),
        ({"n_ctx": 0}, "n_ctx"),
    ]:
        with pytest.raises(ValueError, match=word):
            sd.Model(tiny_path, **options)


def test_a_missing_file_is_file_not_found(tmp_path):
    path = tmp_path / "no\nsuch.gguf"
    with pytest.raises(FileNotFoundError) as caught:
        sd.Model(path)
    assert isinstance(caught.value, sd.ModelFileError)
    assert "\n" not in str(caught.value)
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == caught.value.path == str(path)
    with pytest.raises(OSError) as caught:
        sd.inspect(tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        sd.quantize(path, tmp_path / "out.gguf", "q8_0")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOENT, str(path))


def test_a_damaged_file_is_described(tmp_path, tiny_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny_path.read_bytes()[:5000])
    with pytest.raises(sd.ModelFormatError) as caught:
        sd.Model(path)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.code == "model_format"
    assert error.reason
    assert error.path == str(path)
    assert error.offset is None or 0 <= error.offset <= 5000
    assert str(path) in str(error)


def test_file_names_need_not_be_text(tmp_path, tiny_path):
    path = pathlib.Path(str(tmp_path / "name-\udcff.gguf"))
    path.write_bytes(tiny_path.read_bytes())
    with sd.Model(path) as model:
        assert model.info.n_layers == 2


def test_every_error_derives_from_the_root_and_a_builtin():
    from specdec_native import errors

    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)]
    assert len(classes) > 10
    for cls in classes:
        assert issubclass(cls, sd.SpecdecError)
        assert getattr(sd, cls.__name__) is cls
        error = cls("what happened", reason="why", key="k")
        assert str(error) == "what happened"
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), again.key) == (cls, "what happened", "k")
        if cls is not sd.SpecdecError:
            assert any(b.__module__ == "builtins" and b is not Exception for b in cls.__mro__[1:-3])


# ---------------------------------------------------------------- lifetime


def test_use_after_close_is_an_error_and_close_may_be_repeated(tiny_path):
    model = sd.Model(tiny_path)
    decoder = sd.Decoder(model)
    decoder.close()
    decoder.close()
    for use in (lambda: decoder.generate("x"), decoder.fork, decoder.reset, lambda: decoder.n_ctx):
        with pytest.raises(sd.ClosedError):
            use()
    model.close()
    model.close()
    assert model.closed
    for use in (
        lambda: model.tokenize("x"),
        lambda: sd.Decoder(model),
        lambda: model.chat_template,
    ):
        with pytest.raises(sd.ClosedError):
            use()


def test_decoders_outlive_their_model_object(tiny_path):
    model = sd.Model(tiny_path)
    decoder = sd.Decoder(model, drafter=sd.DraftModel(model))
    expected = decoder.generate(PROMPT, max_tokens=16).token_ids
    with sd.Decoder(model) as other:
        model.info  # noqa: B018  # known before it is closed
        model.close()
        assert other.generate(PROMPT, max_tokens=16).token_ids == expected
    del model
    assert decoder.generate(PROMPT, max_tokens=16).token_ids == expected


def test_models_and_decoders_cannot_be_copied(tiny, decoder):
    for thing in (tiny, decoder):
        for copier in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match="each process"):
                copier(thing)


def test_weights_left_in_the_file_give_the_same_text(tiny_path):
    results = []
    for repack in ("auto", "off"):
        with sd.Model(tiny_path, repack=repack) as model:
            assert model.info.repack == repack
            assert ("not repacked" in model.info.device) == (repack == "off")
            decoder = sd.Decoder(model, n_ctx=128)
            results.append(decoder.generate(PROMPT, max_tokens=24, ignore_eos=True).token_ids)
    assert results[0] == results[1]


def test_kv_types_and_threads_are_accepted(tmp_path):
    config = tiny_models.TinyConfig(head_dim=32)  # a block of q8_0
    path = tiny_models.write_tiny(tmp_path / "m.gguf", config)
    for kv_type in ("f32", "f16", "q8_0"):
        with sd.Model(path, kv_type=kv_type, n_threads=1) as model:
            result = sd.Decoder(model, n_ctx=128).generate(PROMPT, max_tokens=8, ignore_eos=True)
            assert len(result.token_ids) == 8
            assert model.info.kv_type == kv_type
