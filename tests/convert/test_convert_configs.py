"""config.json as strangers have it: defaults, other spellings, windows that never apply, numbers
out of range, keys that the user vouches for."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

import hf_checkpoints as hf
from helpers import native

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from gguf_convert import ConvertError, convert  # noqa: E402
from gguf_convert.cli import main  # noqa: E402
from gguf_convert.hf_config import CHECKED, NEUTRAL  # noqa: E402

MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
QWEN2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}


def keys_of(folder: pathlib.Path, config: dict[str, Any], **options: Any) -> dict[str, Any]:
    hf.write_checkpoint(folder, config)
    plan = convert(folder, folder / "out.gguf", outtype="f32", **options)
    return plan.keys | {"notes": plan.notes}


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in names}


@pytest.mark.parametrize(
    ("changes", "context"),
    [({}, 2048), (MISTRAL | {"sliding_window": None}, 131072), (QWEN2, 32768)],
)
def test_a_configuration_without_a_context_has_that_of_transformers(
    changes: dict[str, Any], context: int, tmp_path: pathlib.Path
) -> None:
    hf.write_checkpoint(tmp_path, hf.llama_config(**changes))
    config = without(hf.llama_config(**changes), "max_position_embeddings")
    hf.write_json(tmp_path / "config.json", config)
    plan = convert(tmp_path, tmp_path / "out.gguf")
    arch = plan.keys["general.architecture"]
    assert plan.keys[f"{arch}.context_length"] == context
    if arch == "llama" and not changes:
        hf.write_json(tmp_path / "config.json", config | {"max_sequence_length": 1024})
        assert convert(tmp_path, tmp_path / "o").keys["llama.context_length"] == 1024
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    names = {"llama": "LlamaConfig", "mistral": "MistralConfig", "qwen2": "Qwen2Config"}
    theirs = getattr(transformers, names[config["model_type"]])()
    assert theirs.max_position_embeddings == context


def test_the_first_conversion_of_llama_is_read(tmp_path: pathlib.Path) -> None:
    """Its config.json as it was published, in small: no context, wrong ids, padding -1."""
    pytest.importorskip("sentencepiece", reason="sentencepiece is not installed")
    config = without(
        hf.llama_config(vocab_size=700, num_key_value_heads=4),
        *("max_position_embeddings", "num_key_value_heads", "rope_theta", "tie_word_embeddings"),
    ) | {
        "architectures": ["LLaMAForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.02,
        "max_sequence_length": 2048,
        "pad_token_id": -1,
        "transformers_version": "4.27.0.dev0",
        "use_cache": True,
    }
    shapes = {"num_key_value_heads": 4, "tie_word_embeddings": False}
    hf.write_checkpoint(tmp_path, config | shapes, tokenizer=False)
    hf.write_json(tmp_path / "config.json", config)
    (tmp_path / "tokenizer.model").write_bytes(hf.trained_spm())
    empty = {"bos_token": "", "eos_token": "", "unk_token": "", "model_max_length": 1e30}
    hf.write_json(tmp_path / "tokenizer_config.json", empty | {"tokenizer_class": "LLaMATokenizer"})
    hf.write_json(tmp_path / "special_tokens_map.json", {})
    keys = convert(tmp_path, tmp_path / "out.gguf").keys
    assert keys["llama.context_length"] == 2048
    assert keys["llama.attention.head_count_kv"] == 4
    assert keys["tokenizer.ggml.bos_token_id"] == 1
    assert keys["tokenizer.ggml.eos_token_id"] == 2
    assert "tokenizer.ggml.padding_token_id" not in keys


def test_key_value_heads_default_as_in_transformers(tmp_path: pathlib.Path) -> None:
    for names, expected in ((MISTRAL, 8), (QWEN2, 32), ({}, 32)):
        heads = {"num_attention_heads": 32, "hidden_size": 64}
        config = hf.llama_config(**names, **heads, num_key_value_heads=expected)
        config |= {"sliding_window": None}
        hf.write_checkpoint(tmp_path, config)
        hf.write_json(tmp_path / "config.json", without(config, "num_key_value_heads"))
        keys = convert(tmp_path, tmp_path / "out.gguf").keys
        arch = keys["general.architecture"]
        assert keys[f"{arch}.attention.head_count_kv"] == expected
        every = config | {"num_key_value_heads": 32}
        hf.write_checkpoint(tmp_path, every)
        hf.write_json(tmp_path / "config.json", every | {"num_key_value_heads": None})
        keys = convert(tmp_path, tmp_path / "out.gguf").keys
        assert keys[f"{arch}.attention.head_count_kv"] == 32


@pytest.mark.parametrize(
    "config",
    [
        hf.llama_config(hidden_act="swish"),
        hf.llama_config(**QWEN2, hidden_act="swish"),
        hf.neox_config(hidden_act="gelu_python"),
    ],
    ids=["llama", "qwen2", "gptneox"],
)
def test_two_names_of_one_activation_are_the_same(
    config: dict[str, Any], tmp_path: pathlib.Path
) -> None:
    other = {"swish": "silu", "gelu_python": "gelu"}[config["hidden_act"]]
    one = keys_of(tmp_path / "a", config, name="same")
    assert one == keys_of(tmp_path / "b", config | {"hidden_act": other}, name="same")
    for wrong in ("gelu_new", "relu", None, 3):
        hf.write_json(tmp_path / "a" / "config.json", config | {"hidden_act": wrong})
        if wrong is None:  # the architecture's own
            convert(tmp_path / "a", tmp_path / "out.gguf")
            continue
        with pytest.raises(ConvertError, match="'hidden_act' should be"):
            convert(tmp_path / "a", tmp_path / "out.gguf")


WINDOWS: dict[str, tuple[dict[str, Any], bool]] = {
    "qwen2, beyond all layers": (
        QWEN2 | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2},
        True,
    ),
    "qwen2, 28 layers by default": (
        QWEN2 | {"use_sliding_window": True, "sliding_window": 64},
        True,
    ),
    "qwen2, the last layer": (
        QWEN2 | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 1},
        False,
    ),
    "qwen2, switched off": (QWEN2 | {"sliding_window": 64, "max_window_layers": 0}, True),
    "qwen2, no window": (
        QWEN2 | {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
        True,
    ),
    "qwen2, all layers named full": (
        QWEN2
        | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}
        | {"layer_types": ["full_attention"] * 2},
        True,
    ),
    "qwen2, a layer named sliding": (
        QWEN2
        | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}
        | {"layer_types": ["full_attention", "sliding_attention"]},
        False,
    ),
    "mistral, as long as the context": (MISTRAL | {"sliding_window": 512}, True),
    "mistral, shorter": (MISTRAL | {"sliding_window": 511}, False),
    "mistral, which ignores the switch": (
        MISTRAL | {"sliding_window": 64, "use_sliding_window": False},
        False,
    ),
    "llama, which has none": ({"sliding_window": 64, "use_sliding_window": True}, True),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_a_sliding_window_counts_where_it_applies(case: str, tmp_path: pathlib.Path) -> None:
    changes, is_plain = WINDOWS[case]
    hf.write_checkpoint(tmp_path, hf.llama_config(**changes))
    convert(tmp_path, tmp_path / "out.gguf")
    found, _ = native("model").read_config(str(tmp_path / "out.gguf"))
    expected = [0, 0]
    if not is_plain:
        window = changes["sliding_window"]
        expected = [window if case.startswith("mistral") else 0, window]
    assert found["windows"] == expected


@pytest.mark.parametrize("case", WINDOWS)
def test_transformers_agrees_where_a_window_applies(case: str, tmp_path: pathlib.Path) -> None:
    """With the window and without one it gives the same logits, or not."""
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    changes, is_plain = WINDOWS[case]
    tokens = torch.arange(520)[None] % 300
    logits = []
    names = ("sliding_window", "use_sliding_window", "max_window_layers", "layer_types")
    for config in (
        hf.llama_config(**changes),
        hf.llama_config(**without(changes, *names), sliding_window=None),
    ):
        hf.write_checkpoint(tmp_path, config | {"max_position_embeddings": 1024})
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            logits.append(model(tokens[:, : 513 - ("512" in str(changes))]).logits)
    assert torch.equal(*logits) == is_plain


HUGE = 10**400
NUMBERS: list[tuple[dict[str, Any], str]] = [
    ({"rope_theta": 1e308}, "'rope_theta' should be a number from 1e-30 to 1e.30, found 1e.308"),
    ({"rope_theta": HUGE}, "'rope_theta' should be a number from"),
    ({"rope_theta": float("nan")}, "'rope_theta' should be a number from .* found nan"),
    ({"rope_theta": float("inf")}, "'rope_theta' should be a number from .* found inf"),
    ({"rope_theta": 0.5}, "'rope_theta' should be at least 1.001, found 0.5"),
    ({"rope_theta": "big"}, "'rope_theta' should be a number, found 'big'"),
    ({"rms_norm_eps": 1e-320}, "'rms_norm_eps' should be a number from"),
    ({"rms_norm_eps": HUGE}, "'rms_norm_eps' should be a number from"),
    ({"rms_norm_eps": -1.0}, "'rms_norm_eps' should be a number from"),
    ({"hidden_size": HUGE}, "'hidden_size' should be a whole number from 1"),
    ({"hidden_size": 64.0}, "'hidden_size' should be a whole number from 1, found 64.0"),
    ({"vocab_size": True}, "'vocab_size' should be a whole number"),
    ({"max_position_embeddings": -1}, "'max_position_embeddings' should be a whole number from 1"),
    ({"hidden_size": 68}, "'hidden_size / num_attention_heads' should be an even .* found 17"),
    ({"head_dim": 15}, "'head_dim' should be an even .* found 15"),
    ({"partial_rotary_factor": 0.5}, "'partial_rotary_factor' should be 1 for llama, found 0.5"),
    (
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.25}},
        "'partial_rotary_factor' should be 1 for llama, found 0.25: rotating a part",
    ),
    ({"partial_rotary_factor": "half"}, "'partial_rotary_factor' should be a number, found 'half'"),
    ({"rope_scaling": {"type": "linear", "factor": float("inf")}}, "'factor' should be a number"),
    ({"rope_scaling": {"type": "linear", "factor": HUGE}}, "'factor' should be a number from"),
    (
        {"rope_scaling": {"type": "yarn", "factor": 2, "original_max_position_embeddings": 1e20}},
        "'original_max_position_embeddings' should be a whole number from 1",
    ),
    (
        {"rope_scaling": {"type": "llama3", "low_freq_factor": 4.0, "high_freq_factor": 4.0}},
        "'high_freq_factor' should be more than low_freq_factor 4, found 4.0",
    ),
    ({"layer_types": ["full_attention"], **MISTRAL}, "'layer_types' should be a list of 2 layers"),
]


@pytest.mark.parametrize(("changes", "message"), NUMBERS)
def test_a_number_that_no_model_can_have_is_named(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    hf.write_checkpoint(tmp_path)
    hf.write_json(tmp_path / "config.json", hf.llama_config() | changes)
    with pytest.raises(ConvertError, match=message):
        convert(tmp_path, tmp_path / "out.gguf")


def test_the_part_of_a_head_that_gptneox_rotates_is_named_where_it_stands(
    tmp_path: pathlib.Path,
) -> None:
    hf.write_checkpoint(tmp_path, hf.neox_config())
    for changes, message in (
        ({"rotary_pct": 0.2}, "'rotary_pct' should be an even part .* found 0.2"),
        ({"rotary_pct": 1e20}, "'rotary_pct' should be an even part"),
        (
            {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.2}},
            "'partial_rotary_factor' should be an even part of the head's 16 dimensions, found 0.2",
        ),
    ):
        hf.write_json(tmp_path / "config.json", hf.neox_config() | changes)
        with pytest.raises(ConvertError, match=message):
            convert(tmp_path, tmp_path / "out.gguf")


def test_every_key_that_only_leads_to_a_refusal_can_be_ignored(tmp_path: pathlib.Path) -> None:
    values: dict[str, Any] = dict.fromkeys(NEUTRAL, "odd")
    values |= {"quantization_config": {"bits": 4}, "hidden_act": "relu", "mlp_bias": True}
    values |= {"sliding_window": 16, "some_key": 1}
    for key, value in values.items():
        for names in ({}, MISTRAL) if key == "sliding_window" else ({},):
            base = hf.llama_config(**names)
            hf.write_checkpoint(tmp_path, base)
            hf.write_json(tmp_path / "config.json", base | {key: value})
            arguments = [str(tmp_path), str(tmp_path / "out.gguf"), "--quiet"]
            if key != "sliding_window":
                assert main(arguments) == 3, key
            assert main([*arguments, "--ignore-key", key]) == 0, key
    assert set(values) - {"some_key"} <= CHECKED | set(NEUTRAL)


def test_a_key_that_makes_the_model_cannot_be_ignored(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path)
    for key in ("rope_theta", "tie_word_embeddings", "num_key_value_heads", "rope_scaling"):
        with pytest.raises(ConvertError, match=f"--ignore-key {key}: this key is known and part"):
            hf.write_checkpoint(tmp_path, hf.llama_config(num_key_value_heads=4))
            convert(tmp_path, tmp_path / "out.gguf", ignored_keys=(key,))
    plan = convert(tmp_path, tmp_path / "out.gguf", ignored_keys=("no_such_key",))
    assert plan.notes[0] == "--ignore-key: config.json has no no_such_key"


def test_own_code_and_other_names_are_told(tmp_path: pathlib.Path) -> None:
    keys = keys_of(tmp_path, hf.llama_config(auto_map={"AutoModelForCausalLM": "m.Own"}))
    assert "'auto_map' names is not looked at: converted as llama" in keys["notes"][0]
    keys = keys_of(tmp_path, hf.llama_config(model_type="internlm"))
    assert "model_type is 'internlm': converted as LlamaForCausalLM" in keys["notes"][0]


def test_qwen2_has_its_biases_whatever_the_key_says(tmp_path: pathlib.Path) -> None:
    config = hf.llama_config(**QWEN2)
    hf.write_checkpoint(tmp_path, config)
    hf.write_json(tmp_path / "config.json", config | {"attention_bias": False})
    plan = convert(tmp_path, tmp_path / "out.gguf")
    assert "blk.0.attn_q.bias" in {target.name for target in plan.targets}
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["attention_bias"] is False
