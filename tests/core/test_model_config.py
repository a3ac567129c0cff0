"""Metadata and tensor directories that contradict themselves are refused, by code and by name."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tiny_models
from helpers import native
from tiny_models import Metadata, Tensors, TinyConfig

testing = native("model")

LLAMA = TinyConfig()
ARCHS = tiny_models.FAMILIES | {"llama": LLAMA}
MIXTURES = ("llama", *(name for name, config in ARCHS.items() if config.n_experts))
Change = Callable[[Metadata, Tensors], None]


@functools.cache
def tensors_of(config: TinyConfig) -> Tensors:
    """Changes replace them and write into none."""
    return tiny_models.random_tensors(config)


def write(path: pathlib.Path, config: TinyConfig, *changes: Change) -> str:
    keys = tiny_models.metadata(config) | tiny_models.byte_tokenizer(config.vocab_size)
    tensors = dict(tensors_of(config))
    for change in changes:
        change(keys, tensors)
    return str(tiny_models.write_gguf(path / "model.gguf", keys, tensors))


def refusal(path: str) -> Any:
    """The error that reading the file ends with."""
    with pytest.raises(testing.NativeError) as caught:
        testing.read_config(path)
    return caught.value.args


def set_key(suffix: str, value: Any) -> Change:
    return lambda keys, _: keys.__setitem__(f"{keys['general.architecture']}.{suffix}", value)


def drop_key(suffix: str) -> Change:
    return lambda keys, _: keys.pop(f"{keys['general.architecture']}.{suffix}")


def set_tensor(name: str, *shape: int) -> Change:
    return lambda _, tensors: tensors.__setitem__(name, np.ones(shape, dtype=np.float32))


def drop_tensor(name: str) -> Change:
    return lambda _, tensors: tensors.pop(name)


NAN, INF = float("nan"), float("inf")

BAD_NUMBERS = [
    ("block_count", 0),
    ("block_count", 2**32 - 1),
    ("embedding_length", 0),
    ("embedding_length", 2**31),
    ("feed_forward_length", 0),
    ("context_length", 0),
    ("attention.head_count", 0),
    ("attention.head_count", 2**32 - 1),
    ("attention.head_count_kv", 0),
    ("attention.head_count_kv", 3),
    ("attention.head_count_kv", 8),
    ("attention.head_count_kv", [2]),
    ("attention.head_count_kv", [2, 2, 2]),
    ("attention.key_length", 0),
    ("attention.key_length", 2**20),
    ("rope.dimension_count", 0),
    ("rope.dimension_count", 15),
    ("rope.dimension_count", 18),
    ("rope.freq_base", 0.0),
    ("rope.freq_base", -10000.0),
    ("rope.freq_base", NAN),
    ("rope.freq_base", INF),
    ("rope.scaling.factor", -1.0),
    ("rope.scaling.factor", NAN),
    ("attention.layer_norm_rms_epsilon", 0.0),
    ("attention.layer_norm_rms_epsilon", NAN),
    ("attention.scale", INF),
    ("rope.scaling.attn_factor", 0.0),
    ("rope.scaling.attn_factor", NAN),
]


@pytest.mark.parametrize(("suffix", "value"), BAD_NUMBERS)
def test_numbers_out_of_range_are_refused(suffix: str, value: Any, tmp_path: pathlib.Path) -> None:
    code, reason, key, _, message = refusal(write(tmp_path, LLAMA, set_key(suffix, value)))
    assert (code, reason, key) == ("model_format", "bad_hparam", f"llama.{suffix}")
    assert "should be" in message
    assert "found" in message


def test_head_count_must_divide_the_width_when_no_head_size_is_given(
    tmp_path: pathlib.Path,
) -> None:
    changes = [
        drop_key("attention.key_length"),
        drop_key("attention.value_length"),
        set_key("attention.head_count", 6),
    ]
    code, reason, key, *_ = refusal(write(tmp_path, LLAMA, *changes))
    assert (code, reason, key) == ("model_format", "bad_hparam", "llama.attention.head_count")


@pytest.mark.parametrize(
    "suffix",
    [
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "attention.head_count",
        "attention.layer_norm_rms_epsilon",
    ],
)
def test_required_keys_are_named_when_missing(suffix: str, tmp_path: pathlib.Path) -> None:
    code, reason, key, *_ = refusal(write(tmp_path, LLAMA, drop_key(suffix)))
    assert (code, reason, key) == ("model_format", "missing_key", f"llama.{suffix}")


@pytest.mark.parametrize(
    ("suffix", "value"),
    [("block_count", "2"), ("attention.head_count", 4.0), ("rope.freq_base", "10000")],
)
def test_keys_of_another_type_are_refused(suffix: str, value: Any, tmp_path: pathlib.Path) -> None:
    code, reason, key, *_ = refusal(write(tmp_path, LLAMA, set_key(suffix, value)))
    assert (code, reason, key) == ("model_format", "wrong_type", f"llama.{suffix}")


def test_tokens_that_are_no_list_are_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, LLAMA, lambda k, _: k.__setitem__("tokenizer.ggml.tokens", "a b c"))
    code, reason, key, *_ = refusal(path)
    assert (code, reason, key) == ("model_format", "wrong_type", "tokenizer.ggml.tokens")


UNSUPPORTED = [
    ("expert_shared_count", 1),
    ("attention.value_length", 8),
    ("attention.head_count_kv", [2, 1]),
    ("feed_forward_length", [96, 64]),
    ("block_count", [2, 2]),
    ("rope.freq_base", [1e4, 1e4]),
    ("rope.scaling.type", "longrope"),
    ("rope.scaling.type", "dynamic"),
    ("final_logit_softcapping", 30.0),
    ("logit_scale", 0.5),
    ("attention.scale", 0.5),
    ("rope.dimension_count", 8),
    ("expert_group_count", 2),
    ("attention.causal", False),
]


@pytest.mark.parametrize(("suffix", "value"), UNSUPPORTED)
def test_variants_that_would_compute_wrongly_are_refused_by_name(
    suffix: str, value: Any, tmp_path: pathlib.Path
) -> None:
    code, _, key, _, message = refusal(write(tmp_path, LLAMA, set_key(suffix, value)))
    assert (code, key) == ("unsupported", f"llama.{suffix}")
    assert "not supported" in message


def test_yarn_extrapolation_other_than_usual_is_refused(tmp_path: pathlib.Path) -> None:
    changes = [set_key("rope.scaling.type", "yarn"), set_key("rope.scaling.yarn_ext_factor", 0.5)]
    code, _, key, *_ = refusal(write(tmp_path, LLAMA, *changes))
    assert (code, key) == ("unsupported", "llama.rope.scaling.yarn_ext_factor")


def magnitude(path: pathlib.Path, **keys: float) -> float:
    changes = [set_key(f"rope.scaling.{name}", value) for name, value in keys.items()]
    return testing.read_config(write(path, LLAMA, *changes))[0]["rope_magnitude"]


def test_yarn_multiplies_cos_and_sin_as_the_keys_say(tmp_path: pathlib.Path) -> None:
    def of(**more: Any) -> float:
        return magnitude(tmp_path, type="yarn", factor=8.0, **more)

    usual = 1 + 0.1 * np.log(8.0)
    assert of() == pytest.approx(usual)
    assert of(attn_factor=0.5) == pytest.approx(usual / 2)
    assert of(yarn_attn_factor=1.5) == pytest.approx(1.5)
    assert of(yarn_attn_factor=1.5, attn_factor=2.0) == pytest.approx(3.0)
    assert of(yarn_log_multiplier=0.5) == pytest.approx(usual / (1 + 0.05 * np.log(8.0)))
    assert magnitude(tmp_path, type="linear", factor=8.0) == 1.0


@pytest.mark.parametrize("missing", ["short", "long"])
def test_longrope_needs_both_lists(missing: str, tmp_path: pathlib.Path) -> None:
    change = drop_tensor(f"rope_factors_{missing}.weight")
    code, reason, _, tensor, _ = refusal(write(tmp_path, ARCHS["phi3"], change))
    assert (code, reason) == (
        ("model_format", "missing_tensor")
        if missing == "short"
        else ("model_format", "unexpected_tensor")
    )
    assert tensor == "rope_factors_short.weight"


def test_longrope_by_name_alone_is_refused(tmp_path: pathlib.Path) -> None:
    changes = [drop_tensor(f"rope_factors_{name}.weight") for name in ("short", "long")]
    path = write(tmp_path, ARCHS["phi3"], *changes, set_key("rope.scaling.type", "longrope"))
    code, _, key, _, message = refusal(path)
    assert (code, key) == ("unsupported", "phi3.rope.scaling.type")
    assert "rope_factors_long.weight" in message
    testing.read_config(write(tmp_path, ARCHS["phi3"], *changes))  # without it: no scaling


def test_longrope_factors_must_be_positive(tmp_path: pathlib.Path) -> None:
    for name in ("short", "long"):
        values = np.array([1, 0, 2, 4, 5, 6], dtype=np.float32)
        change = lambda _, t, n=name, v=values: t.__setitem__(f"rope_factors_{n}.weight", v)  # noqa: E731
        code, reason, _, tensor, _ = refusal(write(tmp_path, ARCHS["phi3"], change))
        assert (code, reason) == ("model_format", "bad_hparam")
        assert tensor == f"rope_factors_{name}.weight"


def test_adapters_are_refused(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, LLAMA, lambda k, _: k.__setitem__("general.type", "adapter"))
    assert refusal(path)[:3] == ("unsupported", "general_type", "general.type")


def test_an_unknown_architecture_lists_ours(tmp_path: pathlib.Path) -> None:
    keys = {"general.architecture": "mamba"} | tiny_models.byte_tokenizer()
    path = tiny_models.write_gguf(tmp_path / "m.gguf", keys, {"x": np.ones(4, np.float32)})
    code, reason, key, _, message = refusal(str(path))
    assert (code, reason, key) == ("unsupported", "architecture", "general.architecture")
    assert all(name in message for name in testing.supported_architectures())


@pytest.mark.parametrize("arch", ARCHS)
def test_every_missing_tensor_is_named(arch: str, tmp_path: pathlib.Path) -> None:
    optional = {"output.weight", "rope_factors_long.weight"}
    for name in tiny_models.random_tensors(ARCHS[arch]):
        if name in optional:
            continue
        code, reason, _, tensor, message = refusal(write(tmp_path, ARCHS[arch], drop_tensor(name)))
        assert (code, reason, tensor) == ("model_format", "missing_tensor", name)
        assert name in message


@pytest.mark.parametrize("arch", ARCHS)
def test_every_wrong_shape_is_named(arch: str, tmp_path: pathlib.Path) -> None:
    for name, values in tiny_models.random_tensors(ARCHS[arch]).items():
        assert isinstance(values, np.ndarray)
        for axis in range(values.ndim):
            shape = list(values.shape)
            shape[axis] += 1024 if name == "token_embd.weight" else 1
            path = write(tmp_path, ARCHS[arch], set_tensor(name, *shape))
            code, reason, _, tensor, message = refusal(path)
            assert (code, reason) == ("model_format", "shape_mismatch")
            assert tensor == ("token_embd.weight" if name == "token_embd.weight" else name)
            assert "found" in message or "tokens" in message


@pytest.mark.parametrize("arch", ARCHS)
def test_tensors_that_do_not_belong_are_refused(arch: str, tmp_path: pathlib.Path) -> None:
    behind = f"blk.{ARCHS[arch].n_layers}.attn_norm.weight"
    no_expert = "blk.0.ffn_gate_shexp.bias"
    for name in (behind, no_expert, "extra"):
        code, reason, _, tensor, _ = refusal(write(tmp_path, ARCHS[arch], set_tensor(name, 64)))
        assert (code, reason, tensor) == ("model_format", "unexpected_tensor", name)


def test_more_blocks_than_tensors_and_fewer_are_both_refused(tmp_path: pathlib.Path) -> None:
    more = refusal(write(tmp_path, LLAMA, set_key("block_count", 3)))
    assert more[1] == "missing_tensor"
    assert more[3].startswith("blk.2.")
    fewer = refusal(write(tmp_path, LLAMA, set_key("block_count", 1)))
    assert fewer[1] == "unexpected_tensor"
    assert fewer[3].startswith("blk.1.")


@pytest.mark.parametrize("n_tokens", [273, 300, 16])
def test_a_token_list_that_does_not_fit_the_embedding_is_refused(
    n_tokens: int, tmp_path: pathlib.Path
) -> None:
    def change(keys: Metadata, _: Tensors) -> None:
        keys["tokenizer.ggml.tokens"] = [f"t{i}" for i in range(n_tokens)]

    code, reason, _, tensor, _ = refusal(write(tmp_path, LLAMA, change))
    assert (code, reason, tensor) == ("model_format", "shape_mismatch", "token_embd.weight")


def test_rope_divisors_must_be_positive(tmp_path: pathlib.Path) -> None:
    for bad in (0.0, -1.0, NAN, INF):
        values = np.array([1, 1, 2, 4, 8, 8, bad, 8], dtype=np.float32)
        path = write(tmp_path, LLAMA, lambda _, t, v=values: t.__setitem__("rope_freqs.weight", v))
        code, reason, _, tensor, _ = refusal(path)
        assert (code, reason, tensor) == ("model_format", "bad_hparam", "rope_freqs.weight")


# ---------------------------------------------------------------- accepted


@pytest.mark.parametrize("arch", ARCHS)
def test_a_sound_file_is_read(arch: str, tmp_path: pathlib.Path) -> None:
    config = ARCHS[arch]
    found, warnings = testing.read_config(write(tmp_path, config))
    assert found["architecture"] == arch
    assert found["n_layers"] == config.n_layers
    assert found["n_heads"] == config.n_heads
    assert found["n_kv_heads"] == config.n_kv_heads
    assert found["n_tokens"] == found["vocab_size"] == config.vocab_size
    assert found["n_rot"] == (config.n_rot or config.head_dim)
    assert found["tied_head"] == config.tied
    assert warnings == []


def test_defaults_follow_the_format(tmp_path: pathlib.Path) -> None:
    changes = [
        drop_key(suffix)
        for suffix in (
            "attention.head_count_kv",
            "attention.key_length",
            "attention.value_length",
            "rope.freq_base",
            "rope.dimension_count",
        )
    ]
    found, _ = testing.read_config(write(tmp_path, TinyConfig(n_kv_heads=4), *changes))
    assert found["n_kv_heads"] == 4
    assert found["head_dim"] == found["n_rot"] == 16
    assert found["rope_theta"] == 10000.0
    assert found["attention_scale"] == 0.25


@pytest.mark.parametrize(
    ("suffix", "value"),
    [
        ("attention.head_count_kv", [2, 2]),
        ("feed_forward_length", [96, 96]),
        ("context_length", 2**32 - 1),
        ("context_length", 2**40),
        ("attention.sliding_window", 1024),
        ("expert_count", 0),
        ("rope.scaling.type", "none"),
        ("attention.causal", True),
        ("attention.scale", 0.25),
        ("rope.scaling.finetuned", True),
        ("rope.scaling.alpha", 1000.0),
    ],
)
def test_harmless_oddities_are_accepted(suffix: str, value: Any, tmp_path: pathlib.Path) -> None:
    found, _ = testing.read_config(write(tmp_path, LLAMA, set_key(suffix, value)))
    assert found["n_kv_heads"] == 2
    assert 0 < found["context_length"] <= 2**30


def test_tokens_beyond_the_embedding_are_left_out_when_they_are_padding(
    tmp_path: pathlib.Path,
) -> None:
    def change(keys: Metadata, _: Tensors) -> None:
        keys.update(tiny_models.byte_tokenizer(274))
        keys["tokenizer.ggml.tokens"][-2:] = ["[PAD]", "<pad>"]

    found, _ = testing.read_config(write(tmp_path, LLAMA, change))
    assert found["n_tokens"] == found["vocab_size"] == 272


def test_only_the_declared_architecture_is_read(tmp_path: pathlib.Path) -> None:
    path = write(tmp_path, LLAMA, lambda k, _: k.__setitem__("qwen2.block_count", 77))
    assert testing.read_config(path)[0]["n_layers"] == 2


def test_a_padded_embedding_is_accepted_with_a_warning(tmp_path: pathlib.Path) -> None:
    def change(keys: Metadata, _: Tensors) -> None:
        keys.update(tiny_models.byte_tokenizer(265))

    found, warnings = testing.read_config(write(tmp_path, LLAMA, change))
    assert (found["n_tokens"], found["vocab_size"]) == (265, 272)
    assert len(warnings) == 1
    assert "7 rows" in warnings[0]


# ---------------------------------------------------------------- layers that differ


def gemma3(n_layers: int) -> TinyConfig:
    return TinyConfig(arch="gemma3", n_layers=n_layers, tied=True, window=100)


@pytest.mark.parametrize(
    ("pattern", "windowed"),
    [
        (None, [1, 1, 1, 1, 1, 0, 1]),
        (0, [1] * 7),
        (1, [0] * 7),
        (3, [1, 1, 0, 1, 1, 0, 1]),
        ([0, 1, 1, 0, 0, 0, 1], [0, 1, 1, 0, 0, 0, 1]),
        ([False, True] * 3 + [True], [0, 1, 0, 1, 0, 1, 1]),
    ],
)
def test_windows_and_their_rope_follow_the_pattern(
    pattern: Any, windowed: list[int], tmp_path: pathlib.Path
) -> None:
    suffix = "attention.sliding_window_pattern"
    change = drop_key(suffix) if pattern is None else set_key(suffix, pattern)
    found, _ = testing.read_config(write(tmp_path, gemma3(7), change))
    assert found["windows"] == [100 * flag for flag in windowed]
    assert found["ropes"] == windowed


@pytest.mark.parametrize("pattern", [[1], [1, 0, 1], [0, 2], -1, "2"])
def test_patterns_that_do_not_fit_the_layers_are_refused(
    pattern: Any, tmp_path: pathlib.Path
) -> None:
    change = set_key("attention.sliding_window_pattern", pattern)
    code, _, key, *_ = refusal(write(tmp_path, gemma3(2), change))
    assert (code, key) == ("model_format", "gemma3.attention.sliding_window_pattern")


@pytest.mark.parametrize(
    ("attention", "final", "expected"),
    [(None, None, (50, 30)), (0.0, 0.0, (0, 0)), (5.0, 7.5, (5, 7.5))],
)
def test_gemma2_has_usual_caps_scale_and_windows(
    attention: Any, final: Any, expected: Any, tmp_path: pathlib.Path
) -> None:
    def change(keys: Metadata, _: Tensors) -> None:
        for name, value in (("attn", attention), ("final", final)):
            keys.pop(f"gemma2.{name}_logit_softcapping")
            if value is not None:
                keys[f"gemma2.{name}_logit_softcapping"] = value
        keys.pop("gemma2.attention.sliding_window")
        keys.pop("gemma2.attention.sliding_window_pattern")

    config = TinyConfig(arch="gemma2", n_layers=3, tied=True, window=9, n_heads=8)
    found, _ = testing.read_config(write(tmp_path, config, change))
    assert (found["score_caps"], found["logit_cap"]) == ([expected[0]] * 3, expected[1])
    assert found["windows"] == [4096, 0, 4096]
    assert found["attention_scale"] == 0.25
    config = TinyConfig(arch="gemma2", n_layers=46, tied=True, window=9, n_heads=8)
    found, _ = testing.read_config(write(tmp_path, config))  # 27B: what heads share of the width
    assert found["attention_scale"] == pytest.approx((64 / 8) ** -0.5)


@pytest.mark.parametrize("value", [-1.0, 1e-9, 1e9, NAN])
@pytest.mark.parametrize("suffix", ["attn_logit_softcapping", "final_logit_softcapping"])
def test_caps_out_of_range_are_refused(suffix: str, value: float, tmp_path: pathlib.Path) -> None:
    code, reason, key, *_ = refusal(write(tmp_path, ARCHS["gemma2"], set_key(suffix, value)))
    assert (code, reason, key) == ("model_format", "bad_hparam", f"gemma2.{suffix}")


@pytest.mark.parametrize("arch", [arch for arch in ARCHS if arch not in MIXTURES])
def test_experts_of_architectures_without_them_are_refused(
    arch: str, tmp_path: pathlib.Path
) -> None:
    code, _, key, *_ = refusal(write(tmp_path, ARCHS[arch], set_key("expert_count", 8)))
    assert (code, key) == ("unsupported", f"{arch}.expert_count")


@pytest.mark.parametrize(("suffix", "value"), [("expert_used_count", 6), ("expert_count", 1 << 20)])
def test_numbers_of_experts_out_of_range_are_refused(
    suffix: str, value: int, tmp_path: pathlib.Path
) -> None:
    code, reason, key, *_ = refusal(write(tmp_path, ARCHS["qwen3moe"], set_key(suffix, value)))
    assert (code, reason, key) == ("model_format", "bad_hparam", f"qwen3moe.{suffix}")


def test_every_fourth_layer_of_smollm3_does_not_rotate(tmp_path: pathlib.Path) -> None:
    config = TinyConfig(arch="smollm3", n_layers=9, tied=True)
    found, _ = testing.read_config(write(tmp_path, config))
    assert found["ropes"] == [0, 0, 0, -1, 0, 0, 0, -1, 0]


@pytest.mark.parametrize(
    "arch", ["llama", "qwen35", "gemma2", "gemma3", "granite", "smollm3", "olmo2", "gptneox"]
)
@pytest.mark.parametrize(
    ("suffix", "readers"),
    [
        ("final_logit_softcapping", ("gemma2", "gemma3")),
        ("attn_logit_softcapping", ("gemma2",)),
        ("logit_scale", ("granite",)),
        ("residual_scale", ("granite",)),
        ("embedding_scale", ("granite",)),
        ("attention.scale", ("granite",)),
        ("attention.sliding_window", ("llama", "gemma2", "gemma3", "olmo2")),
    ],
)
def test_what_an_architecture_does_not_read_is_refused(
    arch: str, suffix: str, readers: tuple[str, ...], tmp_path: pathlib.Path
) -> None:
    value: Any = 64 if suffix == "attention.sliding_window" else 0.75
    path = write(tmp_path, ARCHS[arch], set_key(suffix, value))
    if arch in readers:
        testing.read_config(path)
        return
    code, _, key, *_ = refusal(path)
    assert (code, key) == ("unsupported", f"{arch}.{suffix}")


@pytest.mark.parametrize("value", [-1.0, 1e-9, 1e9, NAN])
@pytest.mark.parametrize("suffix", ["logit_scale", "residual_scale", "embedding_scale"])
def test_scales_out_of_range_are_refused(suffix: str, value: float, tmp_path: pathlib.Path) -> None:
    code, reason, key, *_ = refusal(write(tmp_path, ARCHS["granite"], set_key(suffix, value)))
    assert (code, reason, key) == ("model_format", "bad_hparam", f"granite.{suffix}")
