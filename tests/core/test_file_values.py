"""What the metadata of a model file means: as llama.cpp takes it, or refused, never guessed."""

from __future__ import annotations

import json
import logging
import pathlib
import subprocess
from typing import Any

import numpy as np
import pytest

import specdec_native as sd
import tiny_models
from helpers import native, specdec_binary
from tiny_models import TinyConfig

testing = native("model")
engine = native("engine")

PROMPT = "the cat in the hat "
TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, 250, 96)]


def specdec(*arguments: Any, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [specdec_binary(), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == code, done.stderr[-600:]
    return done


def logits(path: pathlib.Path, tokens: list[int] = TOKENS) -> np.ndarray:
    found: np.ndarray = testing.Model(str(path)).session(kv_type="f32").forward(tokens)
    return found


# ---------------------------------------------------------------- rope and attention


SCALINGS: dict[str, dict[str, Any]] = {
    "no type": {},
    "none": {"rope.scaling.type": "none", "rope.scaling.factor": 4.0},
    "linear": {"rope.scaling.type": "linear", "rope.scaling.factor": 4.0},
    "yarn": {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0},
}


@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("arch", ["llama", "qwen2"])
def test_attn_factor_scales_cos_and_sin_whatever_the_type(
    arch: str, scaling: str, tmp_path: pathlib.Path
) -> None:
    config = TinyConfig(arch=arch)
    extra = {f"{arch}.{key}": value for key, value in SCALINGS[scaling].items()}
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size) | extra
    tensors = tiny_models.random_tensors(config)
    plain = tiny_models.write_gguf(tmp_path / "plain.gguf", keys, tensors)
    keys[f"{arch}.rope.scaling.attn_factor"] = 2.0
    scaled = tiny_models.write_gguf(tmp_path / "scaled.gguf", keys, tensors)
    # q and k are turned by twice as long arrows each: as a q that is four times as long.
    for name in list(tensors):
        if ".attn_q." in name:
            tensors[name] = np.asarray(tensors[name]) * np.float32(4)
    del keys[f"{arch}.rope.scaling.attn_factor"]
    expected = tiny_models.write_gguf(tmp_path / "expected.gguf", keys, tensors)
    np.testing.assert_allclose(logits(scaled), logits(expected), atol=1e-5)
    assert np.abs(logits(scaled) - logits(plain)).max() > 0.05


# ---------------------------------------------------------------- context


@pytest.mark.parametrize(
    ("extra", "usable"),
    [
        ({}, 64),
        ({"rope.scaling.type": "linear", "rope.scaling.factor": 4.0}, 256),
        ({"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}, 256),
        (
            {
                "rope.scaling.type": "yarn",
                "rope.scaling.factor": 4.0,
                "rope.scaling.original_context_length": 32,
            },
            128,
        ),
        ({"rope.scaling.type": "none", "rope.scaling.factor": 4.0}, 64),
    ],
)
def test_a_context_above_the_trained_one_is_a_warning(
    extra: dict[str, Any],
    usable: int,
    tmp_path: pathlib.Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = TinyConfig(context_length=64)
    keys = {f"llama.{key}": value for key, value in extra.items()}
    path = tiny_models.write_tiny(tmp_path / "m.gguf", config, extra=keys)
    caplog.set_level(logging.WARNING, "specdec_native")
    with sd.Model(path) as model:
        with sd.Decoder(model, n_ctx=usable):
            assert not caplog.records
        with sd.Decoder(model, n_ctx=usable + 1, drafter=None) as decoder:
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert f"{usable + 1} tokens is more than the {usable}" in record.getMessage()
            result = decoder.generate(PROMPT, max_tokens=None, ignore_eos=True)
            assert len(result.token_ids) + result.prompt_tokens >= usable
        caplog.clear()
        (many,) = sd.generate_many(model, [PROMPT], n_ctx=usable + 1, max_tokens=2)
        assert many.token_ids == result.token_ids[:2]
        assert len(caplog.records) == 1


def test_the_program_warns_of_a_long_context_and_goes_on(tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "m.gguf", TinyConfig(context_length=64))
    arguments = ["generate", "-m", path, "-p", PROMPT, "-n", "4", "--drafter", "none"]
    assert "warning" not in specdec(*arguments, "-c", "64").stderr
    done = specdec(*arguments, "-c", "65")
    assert "warning: a context of 65 tokens is more than the 64" in done.stderr
    (tmp_path / "text").write_text(PROMPT * 20)
    done = specdec("perplexity", "-m", path, "-f", tmp_path / "text", "-c", "96", "--chunks", "1")
    assert "warning: a context of 96 tokens" in done.stderr


# ---------------------------------------------------------------- vocabulary


def with_padding(keys: dict[str, Any], n: int = 2) -> dict[str, Any]:
    """The byte tokenizer with padding tokens that the embedding has no row for."""
    keys = dict(keys)
    keys["tokenizer.ggml.tokens"] = [*keys["tokenizer.ggml.tokens"], *["[PAD]", "<pad>"][:n]]
    keys["tokenizer.ggml.token_type"] = [*keys["tokenizer.ggml.token_type"], *[3, 4][:n]]
    keys["tokenizer.ggml.padding_token_id"] = len(keys["tokenizer.ggml.tokens"]) - 1
    return keys


def test_padding_beyond_the_embedding_is_dropped_in_target_and_draft(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = tiny_models.write_tiny(tmp_path / "plain.gguf")
    keys = with_padding(tiny_models.byte_tokenizer())
    padded = tiny_models.write_tiny(tmp_path / "padded.gguf", extra=keys)
    caplog.set_level(logging.WARNING, "specdec_native")
    with sd.Model(plain) as target, sd.Model(padded) as draft:
        assert draft.info.vocab_size == draft.info.n_vocab_rows == 272
        names = [warning.split(":")[0] for warning in draft.info.warnings]
        assert names == ["extra_tokens", "special_id"]
        assert len(caplog.records) == 2
        assert target.info.warnings == ()
        expected = sd.Decoder(target, drafter=None).generate(PROMPT, max_tokens=20).token_ids
        for models in ((target, draft), (draft, target), (draft, draft)):
            decoder = sd.Decoder(models[0], drafter=sd.DraftModel(models[1], draft_max=4))
            assert decoder.generate(PROMPT, max_tokens=20).token_ids == expected


def test_rows_without_a_token_are_never_produced(tmp_path: pathlib.Path) -> None:
    """A target with fewer tokens than rows whose head likes the rows without a token best."""
    config = TinyConfig()
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(265)
    tensors = tiny_models.random_tensors(config)
    head = np.array(tensors["output.weight"])
    head[265:] = 30 * head[:7]  # one of the two signs wins
    head[268:] *= -1
    tensors["output.weight"] = head
    path = tiny_models.write_gguf(tmp_path / "rows.gguf", keys, tensors)
    with sd.Model(path) as model:
        assert (model.info.vocab_size, model.info.n_vocab_rows) == (265, 272)
        for drafter in (None, sd.DraftModel(model, draft_max=4)):
            options: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True}
            with sd.Decoder(model, drafter=drafter) as decoder:
                for temperature in (0.0, 1.0):
                    result = decoder.generate(PROMPT, temperature=temperature, seed=3, **options)
                    assert max(result.token_ids) < 265


def test_suppressed_tokens_are_never_produced(tmp_path: pathlib.Path) -> None:
    path = tiny_models.write_tiny(tmp_path / "m.gguf")
    options: dict[str, Any] = {"max_tokens": 30, "ignore_eos": True}
    with sd.Model(path) as model:
        usual = sd.Decoder(model, drafter=None).generate(PROMPT, **options).token_ids
    banned = sorted(set(usual))[:3]
    keys = {"tokenizer.ggml.suppress_tokens": [*banned, -1, 10**6]}
    path = tiny_models.write_tiny(tmp_path / "s.gguf", extra=keys)
    with sd.Model(path) as model:
        plain = sd.Decoder(model, drafter=None).generate(PROMPT, **options).token_ids
        assert not set(plain) & set(banned)
        drafted = sd.Decoder(model, drafter=sd.DraftModel(model)).generate(PROMPT, **options)
        assert drafted.token_ids == plain
        (many,) = sd.generate_many(model, [PROMPT], **options)
        assert many.token_ids == plain


@pytest.mark.parametrize("text", ["<|eot_id|>", "<|im_end|>", "<end_of_turn>", "<|end|>"])
def test_a_generation_ends_at_the_end_of_a_turn_that_no_key_names(
    text: str, tmp_path: pathlib.Path
) -> None:
    """The token that greedy decoding would choose third is given this text."""
    path = tiny_models.write_tiny(tmp_path / "m.gguf")
    with sd.Model(path) as model:
        usual = sd.Decoder(model, drafter=None).generate(PROMPT, max_tokens=9, ignore_eos=True)
    tokens = list(tiny_models.byte_tokenizer()["tokenizer.ggml.tokens"])
    at = usual.token_ids.index(usual.token_ids[2])
    tokens[usual.token_ids[2]] = text
    path = tiny_models.write_tiny(tmp_path / "e.gguf", extra={"tokenizer.ggml.tokens": tokens})
    with sd.Model(path) as model, sd.Decoder(model, drafter=None) as decoder:
        ids = model.tokenize(PROMPT)
        result = decoder.generate(ids, max_tokens=9)
        assert result.token_ids == usual.token_ids[:at]
        assert result.finish_reason == "stop"
        longer = decoder.generate(ids, max_tokens=9, ignore_eos=True)
        # Forbidden, not passed over: the text goes on with another token in its place.
        assert len(longer.token_ids) == 9
        assert usual.token_ids[2] not in longer.token_ids


# ---------------------------------------------------------------- perplexity


@pytest.mark.parametrize("add_bos", [True, False])
def test_perplexity_starts_each_window_with_bos_where_the_file_asks_for_one(
    add_bos: bool, tmp_path: pathlib.Path
) -> None:
    n_ctx, n_windows = 32, 3
    keys = tiny_models.byte_tokenizer(add_bos=add_bos)
    path = tiny_models.write_tiny(tmp_path / "m.gguf", extra=keys)
    text = PROMPT * 12
    (tmp_path / "text").write_text(text)
    done = specdec(
        *("perplexity", "-m", path, "-f", tmp_path / "text", "-c", n_ctx),
        *("--chunks", n_windows, "--kv-type", "f32", "--json"),
    )
    with sd.Model(path) as model:
        tokens = model.tokenize(text)
        bos = model.bos_token_id
    assert (tokens[0] == bos) == add_bos
    total = 0.0
    for i in range(n_windows):
        window = tokens[i * n_ctx : (i + 1) * n_ctx]
        if add_bos:
            window[0] = bos  # in place of its first token
        rows = logits(path, window).astype(np.float64)[:, :272]
        rows -= rows.max(axis=1, keepdims=True)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        total -= sum(rows[at, window[at + 1]] for at in range(n_ctx // 2, n_ctx - 1))
    expected = np.exp(total / (n_windows * (n_ctx - 1 - n_ctx // 2)))
    assert json.loads(done.stdout)["perplexity"] == pytest.approx(expected, rel=1e-4)


# ---------------------------------------------------------------- inspect


def inspect_pair(target: pathlib.Path, draft: pathlib.Path) -> tuple[str, dict[str, Any]]:
    text = specdec("inspect", target, "-md", draft).stdout
    found = json.loads(specdec("inspect", target, "-md", draft, "--json").stdout)
    (line,) = [line for line in text.splitlines() if line.startswith("pair ")]
    return line.removeprefix("pair").strip(), found["pair"]


def test_inspect_says_whether_a_draft_can_draft_for_the_model(tmp_path: pathlib.Path) -> None:
    target = tiny_models.write_tiny(tmp_path / "target.gguf")
    small = TinyConfig(n_layers=1)
    draft = tiny_models.write_tiny(tmp_path / "draft.gguf", small)
    line, pair = inspect_pair(target, draft)
    assert line == "yes: the vocabularies agree in all 272 shared tokens"
    assert pair["compatible"] is pair["identical"] is True
    assert pair["n_shared_tokens"] == 272
    assert 0 < pair["cost_ratio"] < 1
    with sd.Model(target) as one, sd.Model(draft) as other:
        report = sd.check_pair(one, other)
    assert (report.compatible, report.reason) == (pair["compatible"], pair["reason"])
    assert report.cost_ratio == pytest.approx(pair["cost_ratio"])


def test_inspect_says_why_a_draft_cannot(tmp_path: pathlib.Path) -> None:
    target = tiny_models.write_tiny(tmp_path / "target.gguf")
    tokens = list(tiny_models.byte_tokenizer()["tokenizer.ggml.tokens"])
    tokens[70], tokens[71] = tokens[71], tokens[70]
    swapped = {"tokenizer.ggml.tokens": tokens}
    draft = tiny_models.write_tiny(tmp_path / "draft.gguf", extra=swapped)
    line, pair = inspect_pair(target, draft)
    assert line == (
        "no: the vocabularies differ in 2 of 272 shared tokens, first in token 70: "
        "target 'F', draft 'G'"
    )
    assert pair["compatible"] is False
    assert pair["first_difference"] == 70
    # A file that does not run cannot draft either.
    keys = {"llama.expert_group_count": 8}
    moe = tiny_models.write_tiny(tmp_path / "moe.gguf", extra=keys)
    line, pair = inspect_pair(target, moe)
    assert line.startswith(f"no: {moe}: key 'llama.expert_group_count': this kind of model")
    assert pair["compatible"] is False
    assert "expert_group_count" in pair["reason"]
    # Without a draft there is nothing to say.
    assert "pair" not in json.loads(specdec("inspect", target, "--json").stdout)


def test_inspect_shows_special_tokens_and_warnings(tmp_path: pathlib.Path) -> None:
    keys = with_padding(tiny_models.byte_tokenizer(add_bos=True), 1)
    path = tiny_models.write_tiny(tmp_path / "m.gguf", extra=keys)
    text = specdec("inspect", path).stdout
    assert "BOS 271 '<|endoftext|>', put before a prompt; ends: 271 '<|endoftext|>'" in text
    assert "warning         extra_tokens: the last 1 tokens" in text
    found = json.loads(specdec("inspect", path, "--json").stdout)
    tokens = found["special_tokens"]
    assert (tokens["bos_id"], tokens["add_bos"], tokens["padding_id"]) == (271, True, None)
    assert tokens["end_ids"] == [271]
    assert len(found["warnings"]) == 2
    none = {"tokenizer.ggml.bos_token_id": -1, "tokenizer.ggml.add_bos_token": False}
    path = tiny_models.write_tiny(tmp_path / "n.gguf", extra=none)
    found = json.loads(specdec("inspect", path, "--json").stdout)
    assert (found["special_tokens"]["bos_id"], found["special_tokens"]["add_bos"]) == (None, False)
    assert "BOS none, not put before a prompt" in specdec("inspect", path).stdout
    with sd.Model(path) as model:
        assert model.bos_token_id is None
        assert model.info.add_bos is False
        assert model.tokenize("hi") == [104, 105]


# ---------------------------------------------------------------- hostile values

HOSTILE: list[Any] = [
    *(0, 1, -1, 2**31 - 1, 2**32 - 1, -(2**31)),
    *(float("nan"), float("inf"), -1.0, 1e30),
    *(True, "", "x", "none", ["a"], [""], [1, 2], [1.5], [True]),
]
KEYS = [
    *(key for key in tiny_models.metadata(TinyConfig()) if key != "general.architecture"),
    *tiny_models.byte_tokenizer(),
    *(f"tokenizer.ggml.{name}_token_id" for name in ("eot", "unknown", "padding", "fim_pad")),
    *("tokenizer.ggml.scores", "tokenizer.ggml.add_eos_token", "tokenizer.ggml.suppress_tokens"),
    *("tokenizer.ggml.add_space_prefix", "tokenizer.ggml.remove_extra_whitespaces"),
    *("tokenizer.ggml.precompiled_charsmap", "tokenizer.chat_template", "general.type"),
    *("llama.rope.scaling.attn_factor", "llama.rope.scaling.factor", "llama.rope.scaling.type"),
    *("llama.attention.scale", "llama.attention.sliding_window", "llama.expert_count"),
    *("specdec.tokenizer.added_tokens", "specdec.tokenizer.added_token_flags"),
    *("specdec.tokenizer.space_prefix", "specdec.tokenizer.fuse_unknown"),
]


@pytest.mark.parametrize("key", sorted(set(KEYS)))
def test_any_value_of_any_key_is_refused_by_name_or_works(key: str, tmp_path: pathlib.Path) -> None:
    tensors = tiny_models.random_tensors(TinyConfig(n_layers=1))
    sound = tiny_models.metadata(TinyConfig(n_layers=1)) | tiny_models.byte_tokenizer()
    for i, value in enumerate(HOSTILE):
        path = tmp_path / f"{i}.gguf"
        tiny_models.write_gguf(path, sound | {key: value}, tensors)
        try:
            with sd.Model(path, n_threads=1) as model, sd.Decoder(model, n_ctx=32) as decoder:
                result = decoder.generate("the <|endoftext|> cat", max_tokens=4)
                assert len(result.token_ids) <= 4
        except sd.SpecdecError as error:
            assert not isinstance(error, sd.InternalError), (value, error)  # noqa: PT017
            named = path.name in str(error) or key.split(".")[-1] in str(error)
            assert named, (value, str(error))  # noqa: PT017
        path.unlink()
