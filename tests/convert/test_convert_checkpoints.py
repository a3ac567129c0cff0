"""What the converter writes: names, order of rows, types, sizes; shards, padding, memory."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import hf_checkpoints as hf

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from gguf_convert import ConvertError, convert  # noqa: E402
from gguf_convert.element_types import FILE_TYPES, TYPES, encode_rows  # noqa: E402
from gguf_convert.tensors import Computed, Target  # noqa: E402


def values_of(path: pathlib.Path) -> dict[str, np.ndarray]:
    return {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape(tuple(reversed(t.shape)))
        for t in gguf.GGUFReader(path).tensors
    }


def types_of(path: pathlib.Path) -> dict[str, str]:
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}


def keys_of(path: pathlib.Path) -> dict[str, Any]:
    return {name: field.contents() for name, field in gguf.GGUFReader(path).fields.items()}


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, hf.SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_rows_of_llama_are_in_the_order_of_its_rope(tmp_path: pathlib.Path) -> None:
    state = hf.write_checkpoint(tmp_path)
    convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
    found = values_of(tmp_path / "out.gguf")
    q = state["model.layers.1.self_attn.q_proj.weight"]
    # A head of 16: rows 0 and 8 turn together; in the file they are neighbours.
    for head in range(4):
        for pair in range(8):
            at = 16 * head + 2 * pair
            assert np.array_equal(found["blk.1.attn_q.weight"][at], q[16 * head + pair])
            assert np.array_equal(found["blk.1.attn_q.weight"][at + 1], q[16 * head + pair + 8])
    same = state["model.layers.1.self_attn.v_proj.weight"]
    assert np.array_equal(found["blk.1.attn_v.weight"], same)
    assert len(found) == len(state)


def test_rows_of_gptneox_are_all_q_then_all_k_then_all_v(tmp_path: pathlib.Path) -> None:
    state = hf.write_checkpoint(tmp_path, hf.neox_config())
    convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
    found = values_of(tmp_path / "out.gguf")
    for kind in ("weight", "bias"):
        fused = state[f"gpt_neox.layers.0.attention.query_key_value.{kind}"]
        for part in range(3):
            for head in range(4):
                to, of = 64 * part + 16 * head, 48 * head + 16 * part
                rows = found[f"blk.0.attn_qkv.{kind}"][to : to + 16]
                assert np.array_equal(rows, fused[of : of + 16])
    keys = keys_of(tmp_path / "out.gguf")
    assert keys["gptneox.rope.dimension_count"] == 4
    assert keys["gptneox.use_parallel_residual"] is True


def test_rows_of_qwen2_stay_in_order(tmp_path: pathlib.Path) -> None:
    config = hf.llama_config(
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        tie_word_embeddings=True,
        use_sliding_window=False,
        sliding_window=64,
        max_window_layers=21,
    )
    state = hf.write_checkpoint(tmp_path, config)
    convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
    found = values_of(tmp_path / "out.gguf")
    for part in "qkv":
        for kind in ("weight", "bias"):
            same = state[f"model.layers.0.self_attn.{part}_proj.{kind}"]
            assert np.array_equal(found[f"blk.0.attn_{part}.{kind}"], same)
    assert "output.weight" not in found


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_shards_make_the_same_file_as_one(dtype: str, tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path / "one", dtype=dtype)
    hf.write_checkpoint(tmp_path / "many", dtype=dtype, n_shards=4)
    for name in ("one", "many"):
        convert(tmp_path / name, tmp_path / f"{name}.gguf", outtype="q8_0", name="same")
    assert (tmp_path / "one.gguf").read_bytes() == (tmp_path / "many.gguf").read_bytes()


@pytest.mark.parametrize("outtype", FILE_TYPES)
def test_every_type_holds_the_weights(outtype: str, tmp_path: pathlib.Path) -> None:
    state = hf.write_checkpoint(tmp_path)
    plan = convert(tmp_path, tmp_path / "out.gguf", outtype=outtype.lower())
    assert (tmp_path / "out.gguf").stat().st_size == plan.n_bytes
    types = types_of(tmp_path / "out.gguf")
    assert types["blk.0.ffn_down.weight"] == types["token_embd.weight"] == outtype
    assert types["blk.0.attn_norm.weight"] == "F32"
    head = "Q8_0" if outtype[:2] in ("Q4", "Q5") else outtype
    assert types["output.weight"] == head
    assert keys_of(tmp_path / "out.gguf")["general.file_type"] == FILE_TYPES[outtype]
    found = values_of(tmp_path / "out.gguf")["blk.0.ffn_up.weight"]
    expected = state["model.layers.0.mlp.up_proj.weight"]
    # Half a step of each format for a block between -1 and 1; Q4_0 and Q5_0 clip one end by a step.
    half_step = {"F32": 0, "F16": 2**-11, "BF16": 2**-8, "Q8_0": 1 / 254}
    half_step |= {"Q4_0": 1 / 8, "Q4_1": 1 / 15, "Q5_0": 1 / 16, "Q5_1": 1 / 31}
    largest = np.abs(expected).max()
    assert np.abs(found - expected).max() <= 1.01 * half_step[outtype] * largest


def test_rows_that_are_no_whole_number_of_blocks_stay_f16(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path, hf.llama_config(intermediate_size=100))
    convert(tmp_path, tmp_path / "out.gguf", outtype="q4_0")
    types = types_of(tmp_path / "out.gguf")
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == "Q4_0"


def test_sources_of_less_precision_are_copied_exactly(tmp_path: pathlib.Path) -> None:
    for dtype in ("F16", "BF16"):
        folder = tmp_path / dtype
        hf.write_checkpoint(folder, dtype=dtype)
        convert(folder, tmp_path / "wide.gguf", outtype="f32")
        convert(folder, tmp_path / "same.gguf", outtype=dtype.lower())
        wide, same = values_of(tmp_path / "wide.gguf"), values_of(tmp_path / "same.gguf")
        assert all(np.array_equal(wide[name], same[name]) for name in wide)


def test_numbers_that_f16_cannot_hold_are_an_error_not_infinity(tmp_path: pathlib.Path) -> None:
    rows = np.array([[1.0, 7e4]], np.float32)
    with pytest.raises(ConvertError, match="'w' holds 70000, too large for F16"):
        encode_rows(rows, "F16", "w")
    with pytest.raises(ConvertError, match="'w' holds numbers that are infinite"):
        encode_rows(np.array([[np.nan]], np.float32), "F32", "w")


def test_bf16_is_rounded_to_the_nearest() -> None:
    values = np.array([[1.0, 1.00390625, 1.01171875, -3.14159, 1e-40]], np.float32)
    raw = np.frombuffer(encode_rows(values, "BF16", "w"), "<u2")
    torch_bits = [0x3F80, 0x3F80, 0x3F82, 0xC049, 0x0001]
    assert raw.tolist() == torch_bits


def test_blocks_of_rows_in_any_order_are_those_of_the_whole() -> None:
    rng = np.random.default_rng(0)
    source = Computed("w", rng.standard_normal((96, 8)).astype(np.float32))
    for order in (None, rng.permutation(96), np.arange(96).reshape(4, 3, 8).swapaxes(0, 1).ravel()):
        whole = source.values if order is None else source.values[order]
        for elements in (8, 40, 200, 10_000):
            blocks = list(Target("w", source, order).blocks(elements))
            assert max(block.size for block in blocks) <= max(8, elements)
            assert np.array_equal(np.concatenate(blocks), whole)


def test_padding_becomes_unused_tokens(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path, hf.neox_config(vocab_size=384))
    plan = convert(tmp_path, tmp_path / "out.gguf")
    keys = keys_of(tmp_path / "out.gguf")
    assert keys["tokenizer.ggml.tokens"][300:] == [f"[PAD{i}]" for i in range(300, 384)]
    assert keys["tokenizer.ggml.token_type"][298:302] == [1, 1, 5, 5]
    assert keys["tokenizer.ggml.token_type"][:2] == [3, 3]
    assert any("84 rows" in note for note in plan.notes)


def test_a_saved_copy_of_a_tied_head_is_left_out(tmp_path: pathlib.Path) -> None:
    config = hf.llama_config(tie_word_embeddings=True)
    state = hf.write_checkpoint(tmp_path, config)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    (tmp_path / "model.safetensors").write_bytes(hf.safetensors_bytes(state))
    convert(tmp_path, tmp_path / "out.gguf")
    assert "output.weight" not in types_of(tmp_path / "out.gguf")


def test_the_tied_head_of_gptneox_is_written_out(tmp_path: pathlib.Path) -> None:
    config = hf.neox_config(tie_word_embeddings=True)
    state = hf.random_state(config)
    hf.write_checkpoint(tmp_path, config)
    del state["embed_out.weight"]
    (tmp_path / "model.safetensors").write_bytes(hf.safetensors_bytes(state))
    convert(tmp_path, tmp_path / "out.gguf", outtype="f32")
    found = values_of(tmp_path / "out.gguf")
    assert np.array_equal(found["output.weight"], found["token_embd.weight"])


def test_buffers_of_old_checkpoints_are_skipped(tmp_path: pathlib.Path) -> None:
    state = hf.write_checkpoint(tmp_path)
    state["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    (tmp_path / "model.safetensors").write_bytes(hf.safetensors_bytes(state))
    convert(tmp_path, tmp_path / "out.gguf")
    assert len(types_of(tmp_path / "out.gguf")) == len(state) - 1


LLAMA3 = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def test_rope_scaling_becomes_keys_or_a_tensor(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path, hf.llama_config(rope_scaling=LLAMA3))
    convert(tmp_path, tmp_path / "out.gguf")
    divisors = values_of(tmp_path / "out.gguf")["rope_freqs.weight"]
    assert divisors.shape == (8,)
    assert divisors[0] == 1
    assert divisors[-1] == 32
    assert types_of(tmp_path / "out.gguf")["rope_freqs.weight"] == "F32"

    scaling = {"type": "linear", "factor": 2.0}
    hf.write_checkpoint(tmp_path, hf.llama_config(rope_scaling=scaling))
    convert(tmp_path, tmp_path / "out.gguf")
    keys = keys_of(tmp_path / "out.gguf")
    assert keys["llama.rope.scaling.type"] == "linear"
    assert keys["llama.rope.scaling.factor"] == 2.0


def test_a_window_as_long_as_the_context_changes_nothing(tmp_path: pathlib.Path) -> None:
    names = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}
    for window in (None, 512, 4096):
        hf.write_checkpoint(tmp_path, hf.llama_config(**names, sliding_window=window))
        convert(tmp_path, tmp_path / "out.gguf")
        assert keys_of(tmp_path / "out.gguf")["general.architecture"] == "llama"


def test_chat_templates_are_kept(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text("utf-8"))
    hf.write_json(path, config | {"chat_template": "{{ messages }}"})
    convert(tmp_path, tmp_path / "out.gguf")
    assert keys_of(tmp_path / "out.gguf")["tokenizer.chat_template"] == "{{ messages }}"
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    hf.write_json(path, config | {"chat_template": named})
    convert(tmp_path, tmp_path / "out.gguf")
    keys = keys_of(tmp_path / "out.gguf")
    assert keys["tokenizer.chat_template"] == "a"
    assert keys["tokenizer.chat_template.tool_use"] == "b"
    (tmp_path / "chat_template.jinja").write_text("{{ ü }}", "utf-8")
    convert(tmp_path, tmp_path / "out.gguf")
    assert keys_of(tmp_path / "out.gguf")["tokenizer.chat_template"] == "{{ ü }}"


def test_a_dry_run_prints_the_plan_and_the_exact_size(tmp_path: pathlib.Path) -> None:
    state = hf.write_checkpoint(tmp_path)
    done = run(tmp_path, "--dry-run", "--outtype", "q8_0")
    assert not list(tmp_path.glob("*.gguf*"))
    for name, values in state.items():
        assert name in done.stdout
        assert "x".join(map(str, values.shape)) in done.stdout
    run(tmp_path, tmp_path / "out.gguf", "--outtype", "q8_0")
    size = (tmp_path / "out.gguf").stat().st_size
    assert f" {size} bytes" in done.stdout
    assert "F32 -> Q8_0" in done.stdout


def test_progress_goes_to_stderr_and_quiet_silences_it(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path)
    done = run(tmp_path, tmp_path / "out.gguf")
    assert done.stdout == ""
    assert "100.0 %" in done.stderr
    assert run(tmp_path, tmp_path / "out.gguf", "--quiet").stderr == ""


def test_the_engine_runs_what_was_converted(tmp_path: pathlib.Path) -> None:
    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    for name, config in {"llama": hf.llama_config(), "neox": hf.neox_config()}.items():
        hf.write_checkpoint(tmp_path / name, config)
        for outtype in ("f16", "q8_0", "q4_1"):
            out = tmp_path / f"{name}-{outtype}.gguf"
            convert(tmp_path / name, out, outtype=outtype)
            with sd.Model(out) as model:
                result = sd.Decoder(model).generate("the tokens", max_tokens=4, temperature=0)
                assert len(result.token_ids) >= 1


def test_k_quants_come_from_the_native_quantiser(tmp_path: pathlib.Path) -> None:
    from gguf_convert import native

    config = hf.llama_config(hidden_size=256, intermediate_size=512, vocab_size=304)
    hf.write_checkpoint(tmp_path, config)
    if not native.is_available():
        with pytest.raises(ConvertError, match="needs this project's quantiser"):
            convert(tmp_path, tmp_path / "out.gguf", outtype="q4_k_m")
        assert not list(tmp_path.glob("out.gguf*"))
        pytest.skip("neither specdec_native.quantize nor `specdec quantize` exists yet")
    convert(tmp_path, tmp_path / "out.gguf", outtype="q4_k_m")
    assert types_of(tmp_path / "out.gguf")["blk.0.ffn_up.weight"] == "Q4_K"
    assert sorted(path.name for path in tmp_path.glob("out.gguf*")) == ["out.gguf"]


def test_the_native_quantiser_gets_the_weights_in_their_own_precision(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sd = pytest.importorskip("specdec_native", reason="the package is not installed")
    calls = []

    def quantize(source: pathlib.Path, target: pathlib.Path, type: str, **options: Any) -> Any:
        calls.append((type, types_of(source)["blk.0.ffn_up.weight"], options["overwrite"]))
        target.write_bytes(b"made natively")
        options["on_progress"](1.0)
        return SimpleNamespace(files=(str(target),))

    monkeypatch.setattr(sd, "quantize", quantize, raising=False)
    for dtype in ("F32", "F16", "BF16"):
        hf.write_checkpoint(tmp_path / dtype, dtype=dtype)
        convert(tmp_path / dtype, tmp_path / "out.gguf", outtype="q5_k_m")
        assert (tmp_path / "out.gguf").read_bytes() == b"made natively"
        assert len(list(tmp_path.glob("out.gguf*"))) == 1
    assert calls == [("Q5_K_M", dtype, True) for dtype in ("F32", "F16", "BF16")]

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError("no")

    (tmp_path / "out.gguf").unlink()
    monkeypatch.setattr(sd, "quantize", fail)
    with pytest.raises(ConvertError, match=r"specdec_native.quantize failed: no"):
        convert(tmp_path / "F32", tmp_path / "out.gguf", outtype="q6_k")
    assert not list(tmp_path.glob("out.gguf*"))


def sparse_checkpoint(folder: pathlib.Path, config: dict[str, Any], n_shards: int) -> int:
    """All weights zero, in files that take no space on the disk; returns their bytes."""
    folder.mkdir()
    hf.write_json(folder / "config.json", config)
    hf.add_bpe(folder)
    shapes = hf.shapes(config)
    names, weight_map, total = list(shapes), {}, 0
    for shard in range(n_shards):
        file_name = f"model-{shard + 1:05d}-of-{n_shards:05d}.safetensors"
        header, at = {}, 0
        for name in names[shard::n_shards]:
            size = 2 * int(np.prod(shapes[name]))
            offsets = [at, at + size]
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": offsets}
            at += size
        weight_map |= dict.fromkeys(header, file_name)
        raw = hf.with_header(json.dumps(header).encode())
        with (folder / file_name).open("wb") as file:
            file.write(raw)
            file.truncate(len(raw) + at)
        total += at
    hf.write_json(folder / "model.safetensors.index.json", {"weight_map": weight_map})
    return total


# Not ru_maxrss: a child inherits its parent's.
MEASURE = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
from gguf_convert import convert
convert(sys.argv[2], sys.argv[3], outtype=sys.argv[4])
print(pathlib.Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


def peak_mib(folder: pathlib.Path, out: pathlib.Path, outtype: str) -> float:
    command = [sys.executable, "-c", MEASURE, hf.TOOLS, folder, out, outtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def test_memory_does_not_grow_with_the_checkpoint(tmp_path: pathlib.Path) -> None:
    """A layer of a 7B model: one matrix alone has 172 MiB as float32."""
    config = hf.llama_config(
        hidden_size=4096,
        intermediate_size=11008,
        num_attention_heads=32,
        num_key_value_heads=32,
        num_hidden_layers=1,
    )
    total = sparse_checkpoint(tmp_path / "sparse", config, 2)
    assert total > 380 * 2**20
    assert peak_mib(tmp_path / "sparse", tmp_path / "out.gguf", "f16") < 250


@pytest.mark.slow
def test_a_7b_checkpoint_needs_less_than_2_gb(tmp_path: pathlib.Path) -> None:
    config = hf.llama_config(
        hidden_size=4096,
        intermediate_size=11008,
        num_attention_heads=32,
        num_key_value_heads=32,
        num_hidden_layers=32,
        vocab_size=32000,
    )
    total = sparse_checkpoint(tmp_path / "sparse", config, 3)
    vocab = {f"word{i}": i for i in range(31000)}
    tokenizer = json.loads((tmp_path / "sparse" / "tokenizer.json").read_text("utf-8"))
    base = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = base | {t: i + 300 for t, i in vocab.items()}
    hf.write_json(tmp_path / "sparse" / "tokenizer.json", tokenizer)
    peak = peak_mib(tmp_path / "sparse", tmp_path / "out.gguf", "q8_0")
    print(f"{total / 1e9:.1f} GB of weights, peak {peak:.0f} MiB")
    assert peak < 2000


def test_sizes_of_types_are_those_of_the_format() -> None:
    for name, kind in TYPES.items():
        qtype = gguf.GGMLQuantizationType[name]
        assert kind.id == qtype.value
        assert (kind.block_elements, kind.block_bytes) == gguf.GGML_QUANT_SIZES[qtype]
