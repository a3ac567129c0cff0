"""transformers' checkpoints through the converter: our logits and llama.cpp's against its own.

Bounds of the largest difference for random weights of these sizes with an F32 cache: F32 1e-4, in
units of the logits' standard deviation F16 5e-3 and Q8_0 0.2, for three layers: these add up.
"""

from __future__ import annotations

import functools
import json
import pathlib
import zlib
from typing import Any

import numpy as np
import pytest

import hf_checkpoints as hf
from helpers import native
from pairwise import in_turn

testing = native("model")
torch = pytest.importorskip("torch", reason="torch is not installed")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")
pytest.importorskip("gguf", reason="gguf is not installed")

from test_model_transformers import (  # noqa: E402
    LLAMA3_ROPE,
    expected_logits,
    gemma2,
    gemma3,
    gpt_oss,
    granite,
    granite_moe,
    llama,
    mixtral,
    neox,
    olmo2,
    olmo3,
    olmoe,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    qwen3_next,
    qwen35,
    qwen35_moe,
    rope,
    smollm3,
)
from test_model_transformers import randomise as randomise_weights  # noqa: E402

from gguf_convert import convert  # noqa: E402

N_TOKENS = 90
BOUNDS = {"f32": 1e-4, "f16": 5e-3, "q8_0": 0.2}


def mistral(**changes: Any) -> Any:
    options = {"vocab_size": 300, "hidden_size": 64, "intermediate_size": 160} | changes
    options |= {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.MistralConfig(
        **({"sliding_window": None, "max_position_embeddings": 512} | options)
    )
    return transformers.MistralForCausalLM(config)


def yarn(**more: Any) -> dict[str, Any]:
    return rope("yarn", original_max_position_embeddings=128, **more)


def olmo3_yarn() -> dict[str, Any]:
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    return {"sliding_attention": plain, "full_attention": yarn()}


CASES = {
    "llama": lambda: llama(hidden_size=64, intermediate_size=160),
    "llama tied": lambda: llama(tie_word_embeddings=True),
    "llama biases": lambda: llama(attention_bias=True),
    "llama wide heads": lambda: llama(head_dim=32),
    "llama 3 rope": lambda: llama(rope_parameters=LLAMA3_ROPE),
    "llama yarn": lambda: llama(rope_parameters=yarn()),
    "llama yarn attention factor": lambda: llama(rope_parameters=yarn(attention_factor=1.4)),
    "llama yarn mscale": lambda: llama(rope_parameters=yarn(mscale=0.7, mscale_all_dim=2.0)),
    "llama yarn, no truncation": lambda: llama(rope_parameters=yarn(truncate=False)),
    "llama padded": lambda: llama(vocab_size=320),
    "mistral": lambda: mistral(),
    "mistral window": lambda: mistral(sliding_window=12),
    "mixtral": lambda: mixtral(),
    "mixtral window": lambda: mixtral(sliding_window=12),
    "qwen2": lambda: qwen2(),
    "qwen2 own head": lambda: qwen2(tie_word_embeddings=False),
    "qwen2 window": lambda: qwen2(use_sliding_window=True, sliding_window=12, max_window_layers=1),
    "qwen3": lambda: qwen3(),
    "qwen3 own head": lambda: qwen3(tie_word_embeddings=False),
    "qwen35": lambda: qwen35(),
    "qwen35moe": lambda: qwen35_moe(),
    "qwen35moe all experts": lambda: qwen35_moe(num_experts_per_tok=5),
    "qwen3next": lambda: qwen3_next(),
    "qwen3moe": lambda: qwen3_moe(),
    "qwen3moe all experts": lambda: qwen3_moe(num_experts_per_tok=5),
    "smollm3": lambda: smollm3(),
    "granite": lambda: granite(),
    "granite biases": lambda: granite(attention_bias=True, tie_word_embeddings=True),
    "granitemoe": lambda: granite_moe(),
    "granitemoe all experts": lambda: granite_moe(num_experts_per_tok=5, attention_bias=True),
    "granitemoe without a shared expert": lambda: granite_moe(0),
    "gemma2": lambda: gemma2(),
    "gemma2 without caps": lambda: gemma2(
        attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3": lambda: gemma3(),
    "gemma3 capped logits": lambda: gemma3(final_logit_softcapping=2.0),
    "gemma3 another pattern": lambda: gemma3(
        num_hidden_layers=3,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "olmo2": lambda: olmo2(),
    "olmoe": lambda: olmoe(),
    "olmoe all heads": lambda: olmoe(num_key_value_heads=4),
    "olmo3": lambda: olmo3(),
    "olmo3 yarn": lambda: olmo3(rope_parameters=olmo3_yarn()),
    "gpt-oss": lambda: gpt_oss(),
    "gpt-oss all experts": lambda: gpt_oss(num_experts_per_tok=5),
    "gpt-oss yarn": lambda: gpt_oss(rope_parameters=yarn()),
    "gpt-oss without scaling": lambda: gpt_oss(
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}
    ),
    "phi3": lambda: phi3(),
    "phi3 long factors": lambda: phi3(64),
    "phi3 no longrope, window": lambda: phi3(
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, sliding_window=12
    ),
    "gptneox": lambda: neox(),
    "gptneox sequential": lambda: neox(use_parallel_residual=False),
    "gptneox tied": lambda: neox(tie_word_embeddings=True),
    "gptneox padded": lambda: neox(vocab_size=384),
}


def save(case: str, folder: pathlib.Path, **options: Any) -> Any:
    torch.manual_seed(zlib.crc32(case.encode()))
    model = CASES[case]()
    randomise_weights(model)
    model.save_pretrained(folder, **options)
    hf.add_bpe(folder)
    return model


def random_tokens(n: int = N_TOKENS) -> list[int]:
    return np.random.default_rng(1).integers(0, 300, n).tolist()


def our_logits(path: pathlib.Path, tokens: list[int]) -> np.ndarray:
    session = testing.Model(str(path)).session(n_ctx=256, kv_type="f32")
    first = session.forward(tokens[:-8])
    return np.concatenate([first, *(session.forward([t]) for t in tokens[-8:])])


# F32, where a wrong weight shows best, and one of the types that round, in turn.
@pytest.mark.parametrize(("case", "rounded"), in_turn(CASES, ["f16", "q8_0"]))
def test_logits_of_converted_checkpoints(case: str, rounded: str, tmp_path: pathlib.Path) -> None:
    model = save(case, tmp_path / "c")
    tokens = random_tokens()
    expected = expected_logits(model, tokens)
    assert expected.std() > 0.3
    hf_config = model.config
    n_experts = getattr(hf_config, "num_experts", getattr(hf_config, "num_local_experts", 0))
    for outtype in ("f32", rounded):
        bound = BOUNDS[outtype]
        # Near ties between random experts turn over, unless all are used.
        if outtype == "q8_0" and n_experts and n_experts != hf_config.num_experts_per_tok:
            continue
        convert(tmp_path / "c", tmp_path / "out.gguf", outtype=outtype)
        found = our_logits(tmp_path / "out.gguf", tokens)
        assert found.shape == expected.shape
        worst = float(np.abs(found - expected).max())
        share = worst / float(expected.std())
        print(f"{case}: {outtype} largest difference {worst:.1e}, {share:.1e} deviations")
        depth = model.config.num_hidden_layers / 3
        assert (worst if outtype == "f32" else share / depth) < bound, outtype


@pytest.mark.parametrize("case", CASES)
def test_llama_cpp_agrees(
    case: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # llama.cpp norms keys with the model's epsilon, transformers always with this one.
    hybrids = {"qwen35": qwen35, "qwen35moe": qwen35_moe, "qwen3next": qwen3_next}
    hybrids["qwen35moe all experts"] = functools.partial(qwen35_moe, num_experts_per_tok=5)
    for name, make in hybrids.items():
        monkeypatch.setitem(CASES, name, functools.partial(make, rms_norm_eps=1e-6))
    if case == "gemma2 without caps":
        pytest.skip("llama.cpp divides by the cap")
    if case == "olmoe":
        pytest.skip("llama.cpp wants as many heads of keys as of queries")
    if "truncation" in case or case in ("gpt-oss", "gpt-oss all experts"):
        pytest.skip("llama.cpp truncates all the same")
    if case.endswith("window"):
        pytest.skip("llama.cpp ignores the window there")
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    model = save(case, tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    tokens = random_tokens(64)
    peer = llama_cpp.Llama(
        str(tmp_path / "out.gguf"),
        n_ctx=128,
        n_batch=64,
        n_threads=2,
        logits_all=True,
        verbose=False,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
    )
    peer.eval(tokens)
    theirs = np.array(peer.scores[: len(tokens)])
    peer.close()
    ours = our_logits(tmp_path / "out.gguf", tokens)
    same = int((theirs.argmax(1) == ours.argmax(1)).sum())
    worst = float(np.abs(theirs - ours).max())
    to_original = float(np.abs(theirs - expected_logits(model, tokens)).max())
    print(f"{case}: top-1 {same}/64, largest {worst:.1e}, to transformers {to_original:.1e}")
    # llama.cpp rounds activations to F16 in GELU and uses the tanh form of it.
    has_gelu = case.startswith(("gptneox", "gemma"))
    assert worst < (2e-2 if has_gelu else 1e-4)
    assert same == 64 or (has_gelu and same >= 63)


def state_of(folder: pathlib.Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("case", ["llama", "gptneox"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_bin_files_make_the_same_gguf(case: str, dtype: str, tmp_path: pathlib.Path) -> None:
    save(case, tmp_path / "c")
    state = {k: v.to(getattr(torch, dtype)) for k, v in state_of(tmp_path / "c").items()}
    from safetensors.torch import save_file

    save_file(state, tmp_path / "c" / "model.safetensors")
    convert(tmp_path / "c", tmp_path / "one.gguf", outtype="f32", name="same")
    (tmp_path / "c" / "model.safetensors").unlink()

    torch.save(state, tmp_path / "c" / "pytorch_model.bin")
    convert(tmp_path / "c", tmp_path / "bin.gguf", outtype="f32", name="same")
    assert (tmp_path / "bin.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()

    old = {"_use_new_zipfile_serialization": False}
    torch.save(state, tmp_path / "c" / "pytorch_model.bin", **old)
    convert(tmp_path / "c", tmp_path / "old.gguf", outtype="f32", name="same")
    assert (tmp_path / "old.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()
    (tmp_path / "c" / "pytorch_model.bin").unlink()

    names = list(state)
    weight_map = {}
    for shard in range(3):
        part = {name: state[name] for name in names[shard::3]}
        file_name = f"pytorch_model-{shard + 1:05d}-of-00003.bin"
        torch.save(part, tmp_path / "c" / file_name)
        weight_map |= dict.fromkeys(part, file_name)
    index = {"metadata": {}, "weight_map": weight_map}
    hf.write_json(tmp_path / "c" / "pytorch_model.bin.index.json", index)
    convert(tmp_path / "c", tmp_path / "shards.gguf", outtype="f32", name="same")
    assert (tmp_path / "shards.gguf").read_bytes() == (tmp_path / "one.gguf").read_bytes()


@pytest.mark.slow
def test_memory_does_not_grow_with_a_bin_checkpoint(tmp_path: pathlib.Path) -> None:
    from test_convert_checkpoints import peak_mib

    config = hf.llama_config(hidden_size=1024, intermediate_size=65536, num_hidden_layers=2)
    peaks = []
    for n_layers in (1, 2):
        folder = tmp_path / str(n_layers)
        folder.mkdir()
        hf.write_json(folder / "config.json", config | {"num_hidden_layers": n_layers})
        hf.add_bpe(folder)
        shapes = hf.shapes(config | {"num_hidden_layers": n_layers})
        state = {name: torch.zeros(shape, dtype=torch.bfloat16) for name, shape in shapes.items()}
        torch.save(state, folder / "pytorch_model.bin")
        peaks.append(peak_mib(folder, tmp_path / "out.gguf", "f16"))
    print(f"peaks {peaks[0]:.0f} and {peaks[1]:.0f} MiB")
    assert peaks[1] - peaks[0] < 200  # the second layer has 390 MiB


def test_shards_that_transformers_wrote(tmp_path: pathlib.Path) -> None:
    model = save("llama", tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    assert (tmp_path / "many" / "model.safetensors.index.json").exists()
    hf.add_bpe(tmp_path / "many")
    for name in ("one", "many"):
        convert(tmp_path / name, tmp_path / f"{name}.gguf", outtype="f32", name="same")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


def test_what_sees_images_is_left_out(tmp_path: pathlib.Path) -> None:
    import safetensors.numpy

    save("qwen35", tmp_path / "text")
    save("qwen35", tmp_path / "both")
    weights = tmp_path / "both" / "model.safetensors"
    tensors = {
        name.replace("model.", "model.language_model.", 1): values
        for name, values in safetensors.numpy.load_file(weights).items()
    }
    tensors["model.visual.patch_embed.proj.weight"] = np.ones(4, np.float32)
    safetensors.numpy.save_file(tensors, weights)
    config = json.loads((tmp_path / "both" / "config.json").read_text())
    config = {
        "architectures": ["Qwen3_5ForConditionalGeneration"],
        "model_type": "qwen3_5",
        "text_config": config | {"mtp_num_hidden_layers": 1, "attn_output_gate": True},
        "vision_config": {"depth": 1},
        "tie_word_embeddings": config["tie_word_embeddings"],
    }
    (tmp_path / "both" / "config.json").write_text(json.dumps(config))
    notes = convert(tmp_path / "both", tmp_path / "both.gguf", outtype="f32", name="same").notes
    convert(tmp_path / "text", tmp_path / "text.gguf", outtype="f32", name="same")
    assert (tmp_path / "both.gguf").read_bytes() == (tmp_path / "text.gguf").read_bytes()
    assert any("sees images" in note for note in notes)


@pytest.mark.parametrize(
    "case",
    [
        *("llama 3 rope", "llama padded", "qwen2", "smollm3", "granite", "gemma3", "olmo2"),
        *("llama yarn attention factor", "llama yarn, no truncation"),
        *("olmo3", "olmo3 yarn", "phi3", "phi3 long factors", "phi3 no longrope, window"),
        *("qwen35", "gemma2", "gemma2 without caps", "gemma3 capped logits"),
        *("gemma3 another pattern", "gptneox padded", "mistral window", "qwen2 window"),
        *("mixtral", "mixtral window", "olmoe", "qwen3moe"),
        *("gpt-oss", "gpt-oss yarn", "gpt-oss without scaling"),
        *("qwen35moe", "qwen3next", "granitemoe", "granitemoe without a shared expert"),
    ],
)
def test_the_way_back_gives_transformers_the_same_model(case: str, tmp_path: pathlib.Path) -> None:
    from gguf_convert.to_hf import gguf_to_hf

    if case == "llama 3 rope":  # parameters of a published model: a GGUF file does not hold them
        CASES[case] = lambda: llama(
            rope_parameters=LLAMA3_ROPE | {"original_max_position_embeddings": 8192},
            max_position_embeddings=131072,
        )
    model = save(case, tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "one.gguf", outtype="f32", name="same")
    gguf_to_hf(tmp_path / "one.gguf", tmp_path / "back")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "back")
    assert type(again) is type(model)
    tokens = random_tokens()
    found, expected = expected_logits(again, tokens), expected_logits(model, tokens)
    # Files hold an exponential, of which the logarithm is rounded.
    hybrid = case.startswith(("qwen35", "qwen3next"))
    same = np.allclose(found, expected, atol=2e-5) if hybrid else (found == expected).all()
    assert same
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    text = "def f(x):\n    return x  # ünï 123<|endoftext|>"
    original = transformers.AutoTokenizer.from_pretrained(tmp_path / "c")
    assert tokenizer(text)["input_ids"] == original(text)["input_ids"]
    convert(tmp_path / "back", tmp_path / "two.gguf", outtype="f32", name="same")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "two.gguf").read_bytes()
