"""`specdec quantize` and specdec_native.quantize: which types, what is kept, what is refused."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import gguf
import numpy as np
import pytest

import tiny_models
from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")
BINARY = specdec_binary()

# Rows of 256 and 512: K types fit. Eight layers, so that mixes differ by layer.
WIDE = tiny_models.TinyConfig(
    n_layers=8, hidden_size=256, n_heads=4, n_kv_heads=2, head_dim=64, intermediate_size=512
)
# Rows of 64 and 96: nothing of 256 fits.
NARROW = tiny_models.TinyConfig()


def to_f16(tensors):
    return {
        name: tiny_models.RawTensor(
            np.ascontiguousarray(t, np.float16).view(np.uint8).reshape(t.shape[0], -1), "F16"
        )
        if t.ndim == 2
        else t
        for name, t in tensors.items()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("quantize")


@pytest.fixture(scope="module")
def wide(folder):
    keys = tiny_models.metadata(WIDE) | tiny_models.byte_tokenizer(WIDE.vocab_size)
    keys |= {"general.file_type": 1, "some.other.key": [1, 2, 3], "zzz.text": "kept ☃"}
    tensors = to_f16(tiny_models.random_tensors(WIDE, seed=3))
    return tiny_models.write_gguf(folder / "wide.gguf", keys, tensors)


@pytest.fixture(scope="module")
def narrow(folder):
    return tiny_models.write_tiny(folder / "narrow.gguf", NARROW, seed=4)


def cli(*arguments, code=0, **options):
    done = subprocess.run(
        [BINARY, "quantize", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False, **options,
    )  # fmt: skip
    assert done.returncode == code, (done.returncode, done.stdout[-300:], done.stderr[-600:])
    return done


def types_of(path):
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}


def values_of(path):
    return {
        t.name: gguf.quants.dequantize(np.asarray(t.data), t.tensor_type).reshape(-1)
        for t in gguf.GGUFReader(path).tensors
    }


def keys_of(path):
    fields = gguf.GGUFReader(path).fields
    return {k: f.contents() for k, f in fields.items() if not k.startswith("GGUF.")}


def leftovers(folder):
    return [p.name for p in pathlib.Path(folder).iterdir() if p.name.startswith(".specdec-")]


# ---------------------------------------------------------------- which type where


def test_a_mix_gives_some_layers_more_bits(wide, tmp_path):
    sd.quantize(wide, tmp_path / "m.gguf", "Q4_K_M")
    types = types_of(tmp_path / "m.gguf")
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_K"
    assert types["blk.3.attn_q.weight"] == types["blk.3.ffn_up.weight"] == "Q4_K"
    more = [i for i in range(8) if types[f"blk.{i}.ffn_down.weight"] == "Q6_K"]
    assert more == [0, 3, 6, 7]  # the ends, and every third between
    assert more == [i for i in range(8) if types[f"blk.{i}.attn_v.weight"] == "Q6_K"]
    assert {t for name, t in types.items() if "norm" in name} == {"F32"}


@pytest.mark.parametrize(
    ("kind", "base"),
    [("F32", "F32"), ("f16", "F16"), ("BF16", "BF16"), ("Q8_0", "Q8_0"), ("q4_0", "Q4_0"),
     ("Q4_1", "Q4_1"), ("Q5_0", "Q5_0"), ("Q5_1", "Q5_1"), ("Q5_K", "Q5_K"), ("Q5_K_S", "Q5_K"),
     ("q5_k_m", "Q5_K"), ("Q6_K", "Q6_K"), ("Q4_K", "Q4_K"), ("Q4_K_S", "Q4_K"),
     ("Q2_K", "Q2_K"), ("q3_k", "Q3_K"), ("Q3_K_S", "Q3_K"), ("Q3_K_M", "Q3_K"), ("Q3_K_L", "Q3_K"),
     ("IQ4_NL", "IQ4_NL"), ("iq4_xs", "IQ4_XS"), ("MXFP4", "MXFP4")],
)  # fmt: skip
def test_every_type_is_what_most_matrices_become(wide, tmp_path, kind, base):
    result = sd.quantize(wide, tmp_path / "m.gguf", kind)
    types = types_of(tmp_path / "m.gguf")
    assert types["blk.5.attn_q.weight"] == types["blk.5.ffn_gate.weight"] == base
    plain = {"F32", "F16", "BF16", "Q8_0", "Q6_K"}
    assert types["output.weight"] == (base if base in plain else "Q6_K")
    assert result.size_bytes == (tmp_path / "m.gguf").stat().st_size
    assert [(t.name, t.type) for t in result.tensors] == list(types.items())


def test_rows_that_do_not_fit_get_a_type_that_does(narrow, tmp_path):
    expected = {"Q4_K_M": "Q5_0", "Q5_K_M": "Q5_1", "Q6_K": "Q8_0", "Q2_K": "IQ4_NL"}
    expected |= {"Q3_K_S": "IQ4_NL", "IQ4_XS": "IQ4_NL"}
    for kind, fallback in expected.items():
        result = sd.quantize(narrow, tmp_path / f"{kind}.gguf", kind)
        types = types_of(tmp_path / f"{kind}.gguf")
        assert types["blk.0.attn_q.weight"] == fallback
        assert types["output.weight"] == "Q8_0"
        note = next(t.note for t in result.tensors if t.name == "blk.0.attn_q.weight")
        assert "64" in note


def test_rows_that_fit_no_block_become_f16(tmp_path):
    config = tiny_models.TinyConfig(intermediate_size=90)
    source = tiny_models.write_tiny(tmp_path / "odd.gguf", config)
    sd.quantize(source, tmp_path / "m.gguf", "Q4_K_M")
    types = types_of(tmp_path / "m.gguf")
    assert types["blk.0.ffn_down.weight"] == "F16"
    assert types["blk.0.ffn_up.weight"] == "Q5_0"


def test_options_choose_types(wide, tmp_path):
    target = tmp_path / "m.gguf"

    def types(**options):
        sd.quantize(wide, target, "Q4_K_M", overwrite=True, **options)
        return types_of(target)

    assert types(output_tensor_type="q8_0")["output.weight"] == "Q8_0"
    assert types(token_embedding_type="F16")["token_embd.weight"] == "F16"
    assert types(leave_output_tensor=True)["output.weight"] == "F16"
    matrices = {t for name, t in types(pure=True).items() if "norm" not in name}
    assert matrices == {"Q4_K"}


def test_a_tied_embedding_counts_as_the_output(tmp_path):
    config = tiny_models.TinyConfig(hidden_size=256, head_dim=64, intermediate_size=256, tied=True)
    source = tiny_models.write_tiny(tmp_path / "tied.gguf", config)
    sd.quantize(source, tmp_path / "m.gguf", "Q4_0")
    assert types_of(tmp_path / "m.gguf")["token_embd.weight"] == "Q6_K"


@pytest.mark.parametrize("arch", ["llama", "gptneox"])
@pytest.mark.parametrize(
    "kind",
    ["Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q6_K", "Q4_0",
     "Q8_0", "IQ4_NL", "IQ4_XS"],
)  # fmt: skip
def test_llama_cpp_chooses_the_same_types(kind, arch, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    import dataclasses

    n_kv = 2 if arch == "llama" else 4
    config = dataclasses.replace(WIDE, arch=arch, n_kv_heads=n_kv)
    source = tiny_models.write_tiny(tmp_path / "f32.gguf", config, seed=6)
    params = llama_cpp.llama_model_quantize_default_params()
    by_name = {"Q4_K_M": 15, "Q4_K_S": 14, "Q5_K_M": 17, "Q5_K_S": 16, "Q6_K": 18, "Q4_0": 2}
    by_name |= {"Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "IQ4_NL": 25, "IQ4_XS": 30}
    params.ftype = by_name.get(kind, 7)
    params.nthread = 1
    import ctypes

    peer = str(tmp_path / "peer.gguf")
    assert not llama_cpp.llama_model_quantize(
        str(source).encode(), peer.encode(), ctypes.byref(params)
    )
    sd.quantize(source, tmp_path / "ours.gguf", kind)
    assert types_of(tmp_path / "ours.gguf") == types_of(peer)
    assert keys_of(tmp_path / "ours.gguf")["general.file_type"] == params.ftype


# ---------------------------------------------------------------- what is kept, what is told


def test_metadata_is_kept_and_the_type_is_set(wide, tmp_path):
    sd.quantize(wide, tmp_path / "m.gguf", "Q5_K_M")
    before, after = keys_of(wide), keys_of(tmp_path / "m.gguf")
    assert after.pop("general.file_type") == 17
    assert after.pop("general.quantization_version") == 2
    before.pop("general.file_type")
    assert after == before
    assert list(types_of(wide)) == list(types_of(tmp_path / "m.gguf"))


def test_the_alignment_is_kept(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "llama")
    writer.add_custom_alignment(256)
    rng = np.random.default_rng(0)
    writer.add_tensor("blk.0.attn_q.weight", rng.standard_normal((3, 32)).astype(np.float32))
    writer.add_tensor("blk.0.attn_k.weight", rng.standard_normal((3, 32)).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    sd.quantize(tmp_path / "a.gguf", tmp_path / "m.gguf", "Q8_0")
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    assert reader.alignment == 256
    assert [t.data_offset % 256 for t in reader.tensors] == [0, 0]


def test_errors_are_those_of_the_weights(wide, tmp_path):
    result = sd.quantize(wide, tmp_path / "m.gguf", "Q4_K_M")
    before, after = values_of(wide), values_of(tmp_path / "m.gguf")
    error = square = 0.0
    for t in result.tensors:
        x, y = before[t.name].astype(np.float64), after[t.name].astype(np.float64)
        own = np.sqrt(((y - x) ** 2).sum() / (x**2).sum())
        assert t.relative_error == pytest.approx(own, rel=1e-9, abs=1e-12), t.name
        assert t.largest_error == pytest.approx(np.abs(y - x).max(), rel=1e-9)
        if t.source_type != t.type:
            assert 0 < t.relative_error < 0.09
            error, square = error + ((y - x) ** 2).sum(), square + (x**2).sum()
    assert result.relative_error == pytest.approx(np.sqrt(error / square))


def test_the_bytes_do_not_depend_on_threads(wide, tmp_path):
    results = [sd.quantize(wide, tmp_path / f"{n}.gguf", "Q4_K_M", n_threads=n) for n in (1, 2, 7)]
    files = [(tmp_path / f"{n}.gguf").read_bytes() for n in (1, 2, 7)]
    assert files[0] == files[1] == files[2]
    assert results[0].tensors == results[1].tensors == results[2].tensors


def test_the_bytes_do_not_depend_on_the_instruction_set(wide, tmp_path):
    files = []
    for isa in sd.info()["cpu_isas_supported"]:
        target = tmp_path / f"{isa}.gguf"
        cli(wide, target, "Q5_K_M", env={**os.environ, "SPECDEC_CPU_ISA": isa})
        files.append(target.read_bytes())
    assert len(set(files)) == 1


def test_command_and_api_write_the_same_file(wide, tmp_path):
    sd.quantize(wide, tmp_path / "api.gguf", "q4_k_m")
    found = json.loads(cli(wide, tmp_path / "cli.gguf", "Q4_K_M", "--json").stdout)
    assert (tmp_path / "api.gguf").read_bytes() == (tmp_path / "cli.gguf").read_bytes()
    assert found["target_bytes"] == (tmp_path / "cli.gguf").stat().st_size
    assert {t["to"] for t in found["tensors"]} == {"F32", "Q4_K", "Q6_K"}
    text = cli(wide, tmp_path / "cli.gguf", "Q4_K_M", "--force", "--verbose").stdout
    assert "bits per weight" in text
    assert "F16 -> Q6_K" in text
    assert len(text.splitlines()) == len(found["tensors"]) + 1


def test_the_command_sums_up_unless_asked_for_each_tensor(wide, tmp_path):
    found = json.loads(cli(wide, tmp_path / "m.gguf", "Q4_K_M", "--json").stdout)
    kinds = collections.Counter(tensor["to"] for tensor in found["tensors"])
    first, last = cli(wide, tmp_path / "m.gguf", "Q4_K_M", "--force").stdout.splitlines()
    counts = dict(reversed(item.split()) for item in first[9:].split(";")[0].split(", "))
    assert first.startswith("tensors: ")
    assert counts == {kind: str(n) for kind, n in kinds.items()}
    assert "bits per weight" in last
    quiet = cli(wide, tmp_path / "m.gguf", "Q4_K_M", "--force", "--quiet").stdout
    assert quiet.split(", ")[:2] == last.split(", ")[:2]
    assert quiet.count("\n") == 1


def test_a_dry_run_tells_the_size_and_writes_nothing(wide, tmp_path):
    plan = sd.quantize(wide, tmp_path / "m.gguf", "Q4_K_M", dry_run=True)
    found = json.loads(cli(wide, tmp_path / "m.gguf", "Q4_K_M", "--dry-run", "--json").stdout)
    assert not list(tmp_path.iterdir())
    real = sd.quantize(wide, tmp_path / "m.gguf", "Q4_K_M")
    assert plan.size_bytes == found["target_bytes"] == real.size_bytes
    assert [t.type for t in plan.tensors] == [t.type for t in real.tensors]


@pytest.mark.parametrize("kind", ["Q4_K_M", "Q5_K_M", "Q6_K", "Q5_0", "BF16"])
def test_the_result_generates(wide, tmp_path, kind):
    sd.quantize(wide, tmp_path / "m.gguf", kind)
    with sd.Model(tmp_path / "m.gguf", check_tensors=True) as model:
        out = sd.Decoder(model, drafter=None, n_ctx=64).generate("the cat", max_tokens=8)
    assert len(out.token_ids) > 0


def test_quantising_a_quantised_file_must_be_allowed(wide, tmp_path):
    first = tmp_path / "q8_0.gguf"
    sd.quantize(wide, first, "Q8_0")
    with pytest.raises(sd.InvalidArgumentError, match=r"is Q8_0 already.*allow_requantize"):
        sd.quantize(first, tmp_path / "m.gguf", "Q4_0")
    cli(first, tmp_path / "m.gguf", "Q4_0", code=2)
    assert not (tmp_path / "m.gguf").exists()
    cli(first, tmp_path / "m.gguf", "Q4_0", "--allow-requantize")
    assert types_of(tmp_path / "m.gguf")["blk.0.attn_q.weight"] == "Q4_0"
    # Unpacking loses nothing, so it needs no leave.
    sd.quantize(first, tmp_path / "f32.gguf", "F32")
    before, after = values_of(first), values_of(tmp_path / "f32.gguf")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_weights_on_the_grid_of_a_type_survive_it(wide, tmp_path):
    """Unpacked and packed again, a Q4_0 or Q8_0 model is what it was, or nearly."""
    for kind, bound in (("Q4_0", 2e-3), ("Q8_0", 1e-3), ("Q4_1", 5e-3)):
        sd.quantize(wide, tmp_path / "a.gguf", kind, overwrite=True, pure=True)
        sd.quantize(tmp_path / "a.gguf", tmp_path / "b.gguf", "F32", overwrite=True)
        options = {"overwrite": True, "pure": True}
        again = sd.quantize(tmp_path / "b.gguf", tmp_path / "c.gguf", kind, **options)
        assert again.relative_error < bound


# ---------------------------------------------------------------- what is refused


def test_bad_names_and_targets_are_refused(wide, tmp_path):
    target = tmp_path / "m.gguf"
    with pytest.raises(sd.InvalidArgumentError, match=r"Q4_K_M.*got 'Q9_X'"):
        sd.quantize(wide, target, "Q9_X")
    of_output = r"output_tensor_type must be one of F32.*got 'q7'"
    with pytest.raises(sd.InvalidArgumentError, match=of_output):
        sd.quantize(wide, target, "Q4_0", output_tensor_type="q7")
    with pytest.raises(sd.InvalidArgumentError, match="n_threads"):
        sd.quantize(wide, target, "Q4_0", n_threads=0)
    with pytest.raises(sd.InvalidArgumentError, match="is the source itself"):
        sd.quantize(wide, wide, "Q4_0", overwrite=True)
    link = tmp_path / "link.gguf"
    link.symlink_to(wide)
    with pytest.raises(sd.InvalidArgumentError, match="is the source itself"):
        sd.quantize(wide, link, "Q4_0", overwrite=True)
    target.write_text("precious")
    with pytest.raises(sd.InvalidArgumentError, match="exists already"):
        sd.quantize(wide, target, "Q4_0")
    assert target.read_text() == "precious"
    with pytest.raises(sd.ModelFileError, match="nowhere"):
        sd.quantize(wide, tmp_path / "nowhere" / "m.gguf", "Q4_0")
    with pytest.raises(sd.ModelFileNotFoundError):
        sd.quantize(tmp_path / "missing.gguf", target, "Q4_0")


def test_exit_codes(wide, tmp_path):
    target = tmp_path / "m.gguf"
    assert "IN OUT TYPE" in cli(wide, target, code=2).stderr
    assert "got 'Q9'" in cli(wide, target, "Q9", code=2).stderr
    assert "unexpected argument 'more'" in cli(wide, target, "Q4_0", "more", code=2).stderr
    assert "--output-tensor-type must be" in cli(
        wide, target, "Q4_0", "--output-tensor-type", "x", code=2
    ).stderr  # fmt: skip
    assert "is the source itself" in cli(wide, wide, "Q4_0", "--force", code=2).stderr
    assert "is a folder" in cli(wide, tmp_path, "Q4_0", code=2).stderr
    target.write_text("x")
    assert "--force" in cli(wide, target, "Q4_0", code=2).stderr
    cli(tmp_path / "missing.gguf", target, "Q4_0", "--force", code=3)
    cli(wide, tmp_path / "no" / "m.gguf", "Q4_0", code=3)
    (tmp_path / "text.gguf").write_text("not a model, though long enough to be looked at")
    assert "GGUF" in cli(tmp_path / "text.gguf", target, "Q4_0", "--force", code=3).stderr
    (tmp_path / "half.gguf").write_bytes(wide.read_bytes()[:-1000])
    cli(tmp_path / "half.gguf", target, "Q4_0", "--force", code=3)
    assert target.read_text() == "x"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["blk.1.ffn_up.weight", "output_norm.weight"])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, bad, name):
    tensors = tiny_models.random_tensors(NARROW, seed=4)
    tensors[name].reshape(-1)[64 * 5 + 7 if "ffn" in name else 7] = bad
    source = tiny_models.write_gguf(tmp_path / "f32.gguf", tiny_models.metadata(NARROW), tensors)
    with pytest.raises(sd.ModelFormatError, match=name) as caught:
        sd.quantize(source, tmp_path / "m.gguf", "Q4_K_M")
    assert caught.value.reason == "non_finite"
    assert caught.value.tensor == name
    assert "element 7" in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["f32.gguf"]


def test_weights_too_large_for_the_type_are_refused(tmp_path):
    tensors = tiny_models.random_tensors(NARROW, seed=4)
    tensors["blk.1.ffn_up.weight"][5, 7] = -1e5
    source = tiny_models.write_gguf(tmp_path / "f32.gguf", tiny_models.metadata(NARROW), tensors)
    with pytest.raises(sd.ModelFormatError, match=r"row 5, element 7: -100000 .* BF16"):
        sd.quantize(source, tmp_path / "m.gguf", "Q8_0")
    assert not (tmp_path / "m.gguf").exists()
    sd.quantize(source, tmp_path / "m.gguf", "BF16")


# ---------------------------------------------------------------- interruptions


@pytest.fixture(scope="module")
def big(folder):
    """Large enough that quantising takes a while."""
    config = tiny_models.TinyConfig(
        n_layers=1, hidden_size=1024, n_heads=8, n_kv_heads=8, head_dim=128, intermediate_size=4096
    )
    return tiny_models.write_tiny(folder / "big.gguf", config, seed=5)


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_half_file(big, tmp_path, kind):
    rng = np.random.default_rng(int(kind))
    outcomes = set()
    for i in range(3):  # the campaign tries hundreds
        target = tmp_path / f"{i}.gguf"
        process = subprocess.Popen(
            [BINARY, "quantize", str(big), str(target), "Q4_K_M", "-t", "1"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(float(rng.uniform(0.0, 0.4)))
        process.send_signal(kind)
        code = process.wait(timeout=60)
        outcomes.add(code)
        if target.exists():  # it was done in time
            assert len(types_of(target)) == len(types_of(big))
    allowed = {0, 128 + kind, -kind}
    assert outcomes <= allowed
    assert leftovers(tmp_path) == []


def test_an_exception_of_the_callback_ends_the_run(wide, tmp_path):
    seen = []

    def stop(fraction):
        seen.append(fraction)
        if fraction > 0.3:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        sd.quantize(wide, tmp_path / "m.gguf", "Q4_0", on_progress=stop)
    assert list(tmp_path.iterdir()) == []
    assert seen == sorted(seen)


def test_a_write_error_leaves_no_half_file(wide, tmp_path):
    code = (
        "import resource, signal, os, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300000, 300000)); "
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, BINARY, "quantize", wide, tmp_path / "m.gguf", "Q8_0"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "cannot write: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_model(big, tmp_path):
    """The source is mapped and let go of; only one piece is in memory."""
    code = (
        "import resource, sys, specdec_native as sd\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "sd.quantize(sys.argv[1], sys.argv[2], 'Q8_0', n_threads=1)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(big), str(tmp_path / "m.gguf")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert int(done.stdout) * 1024 < 40_000_000 < big.stat().st_size
