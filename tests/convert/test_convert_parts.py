"""Converted and quantised models in several files: cut, named and marked as llama.cpp's."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import numpy as np
import pytest

import hf_checkpoints as hf
import tiny_models
from helpers import specdec_binary

gguf = pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")
sd = pytest.importorskip("specdec_native", reason="the package is not installed")

from gguf_convert import ConvertError, convert  # noqa: E402


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    hf.write_checkpoint(folder, hf.llama_config(num_hidden_layers=4))
    return folder


def contents(paths: list[pathlib.Path]) -> dict[str, tuple[str, bytes]]:
    return {
        t.name: (t.tensor_type.name, np.asarray(t.data).tobytes())
        for path in paths
        for t in gguf.GGUFReader(path).tensors
    }


def keys(path: pathlib.Path) -> dict[str, tuple[Any, Any]]:
    fields = gguf.GGUFReader(path).fields
    return {k: (f.types, f.contents()) for k, f in fields.items() if not k.startswith("GGUF.")}


def by_the_gguf_package(whole: pathlib.Path, folder: pathlib.Path, **limits: int) -> list[Any]:
    """What its writer makes of the tensors: (name, names of tensors, keys of the split)."""
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", **limits)
    for tensor in gguf.GGUFReader(whole).tensors:
        writer.add_tensor(tensor.name, np.asarray(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return described(folder)


def described(folder: pathlib.Path) -> list[Any]:
    out = []
    for path in sorted(folder.iterdir()):
        split = {k: v for k, v in keys(path).items() if k.startswith("split.")}
        out.append((path.name, [t.name for t in gguf.GGUFReader(path).tensors], split))
    return out


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"split_max_tensors": 7}, {"split_max_tensors": 7}),
        ({"split_max_size": "30K"}, {"split_max_size": 30_000}),
        ({"split_max_size": "1K"}, {"split_max_size": 1000}),  # most are larger
        (
            {"split_max_size": "100k", "split_max_tensors": 9},
            {"split_max_size": 100_000, "split_max_tensors": 9},
        ),
    ],
)
def test_parts_are_those_of_the_gguf_package(ours, theirs, checkpoint, tmp_path):
    whole = tmp_path / "whole.gguf"
    convert(checkpoint, whole, outtype="f16", name="same")
    folder = tmp_path / "parts"
    folder.mkdir()
    convert(checkpoint, folder / "m.gguf", outtype="f16", name="same", **ours)
    assert described(folder) == by_the_gguf_package(whole, tmp_path / "theirs", **theirs)
    paths = sorted(folder.iterdir())
    assert len(paths) > 2
    assert contents(paths) == contents([whole])
    first = {k: v for k, v in keys(paths[0]).items() if not k.startswith("split.")}
    assert first == keys(whole)
    one, several = sd.Model(whole), sd.Model(paths[0])
    prompt = [3, 5, 8]
    texts = [sd.Decoder(m).generate(prompt, max_tokens=12).token_ids for m in (one, several)]
    assert texts[0] == texts[1]


def test_a_model_within_the_limits_is_one_file_without_marks(checkpoint, tmp_path):
    plain, limited = tmp_path / "plain.gguf", tmp_path / "limited.gguf"
    convert(checkpoint, plain, outtype="q8_0", name="same")
    convert(checkpoint, limited, outtype="q8_0", name="same", split_max_size="1G")
    assert limited.read_bytes() == plain.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["limited.gguf", "plain.gguf"]


@pytest.mark.parametrize("with_python", [True, False])
def test_native_types_are_cut_by_the_quantiser(with_python, checkpoint, tmp_path, monkeypatch):
    whole = tmp_path / "whole.gguf"
    convert(checkpoint, whole, outtype="iq4_nl", name="same")
    folder = tmp_path / "parts"
    folder.mkdir()
    if not with_python:
        monkeypatch.delattr(sd, "quantize")
        monkeypatch.setenv("PATH", str(pathlib.Path(specdec_binary()).parent))
    convert(checkpoint, folder / "m.gguf", outtype="iq4_nl", name="same", split_max_tensors=10)
    paths = sorted(folder.iterdir())
    n_parts = -(-len(contents([whole])) // 10)
    names = [f"m-{i + 1:05}-of-{n_parts:05}.gguf" for i in range(n_parts)]
    assert [p.name for p in paths] == names
    assert contents(paths) == contents([whole])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_max_size": "2"}, "whole number and K, M or G, as 2G or 500M, got '2'"),
        ({"split_max_size": "1.5G"}, "got '1.5G'"),
        ({"split_max_size": "0M"}, "got '0M'"),
        ({"split_max_tensors": 0}, "1 or more, got 0"),
    ],
)
def test_limits_that_are_none_are_refused(options, message, checkpoint, tmp_path):
    with pytest.raises(ConvertError, match=message):
        convert(checkpoint, tmp_path / "m.gguf", outtype="f16", **options)
    assert not list(tmp_path.iterdir())


def test_a_name_that_has_numbers_already_is_refused(checkpoint, tmp_path):
    target = tmp_path / "m-00001-of-00002.gguf"
    with pytest.raises(ConvertError, match="give the name without them"):
        convert(checkpoint, target, outtype="f16", split_max_tensors=5)
    with pytest.raises(sd.InvalidArgumentError, match="give the name without them"):
        sd.quantize(write(tmp_path), target, "q4_0", split_max_tensors=5)


def test_an_error_leaves_no_part_and_the_older_ones(checkpoint, tmp_path, monkeypatch):
    from gguf_convert import pipeline

    convert(checkpoint, tmp_path / "m.gguf", outtype="f16", name="older", split_max_tensors=15)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) > 2
    calls = []

    def fail_later(rows, dtype, name):
        calls.append(name)
        if len(calls) > 25:  # in the second part
            raise OSError(28, "No space left on device")
        return rows.astype("<f4").tobytes() if dtype == "F32" else rows.astype("<f2").tobytes()

    monkeypatch.setattr(pipeline, "encode_rows", fail_later)
    with pytest.raises(OSError, match="No space"):
        convert(checkpoint, tmp_path / "m.gguf", outtype="f16", name="new", split_max_tensors=15)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# ---------------------------------------------------------------- specdec quantize


def write(folder: pathlib.Path) -> pathlib.Path:
    config = tiny_models.TinyConfig(n_layers=3)
    return tiny_models.write_tiny(folder / "source.gguf", config, seed=4)


def test_a_quantised_model_in_parts_is_the_one_in_one_file(tmp_path):
    source, whole = write(tmp_path), tmp_path / "whole.gguf"
    one = sd.quantize(source, whole, "Q4_0")
    assert one.files == (str(whole),)
    planned = sd.quantize(source, tmp_path / "m.gguf", "Q4_0", split_max_size="20K", dry_run=True)
    done = sd.quantize(source, tmp_path / "m.gguf", "Q4_0", split_max_size="20K")
    paths = [pathlib.Path(path) for path in done.files]
    assert len(paths) > 2
    assert planned.files == done.files
    assert planned.size_bytes == done.size_bytes == sum(p.stat().st_size for p in paths)
    assert contents(paths) == contents([whole])
    assert done.relative_error == one.relative_error
    theirs = by_the_gguf_package(whole, tmp_path / "theirs", split_max_size=20_000)
    ours = tmp_path / "ours"
    ours.mkdir()
    for path in paths:
        path.rename(ours / path.name)
    assert described(ours) == theirs
    # A model in parts is a source like any other, and its marks do not stay.
    back = sd.quantize(ours / paths[0].name, tmp_path / "back.gguf", "Q4_0")
    assert back.size_bytes == one.size_bytes
    assert (tmp_path / "back.gguf").read_bytes() == whole.read_bytes()


def test_parts_are_not_replaced_without_leave_and_all_together_with_it(tmp_path):
    source = write(tmp_path)
    first = sd.quantize(source, tmp_path / "m.gguf", "Q4_0", split_max_tensors=9)
    (tmp_path / "m.gguf").write_bytes(b"another")  # not a name of a part
    before = [pathlib.Path(path).read_bytes() for path in first.files]
    with pytest.raises(sd.InvalidArgumentError, match="exists already"):
        sd.quantize(source, tmp_path / "m.gguf", "Q8_0", split_max_tensors=9)
    assert [pathlib.Path(path).read_bytes() for path in first.files] == before
    again = sd.quantize(source, tmp_path / "m.gguf", "Q8_0", split_max_tensors=9, overwrite=True)
    assert again.files == first.files
    assert sd.Model(again.files[0]).info.size_bytes == again.size_bytes
    assert (tmp_path / "m.gguf").read_bytes() == b"another"


def test_the_command_lists_the_files(tmp_path):
    source = write(tmp_path)
    done = subprocess.run(
        [specdec_binary(), "quantize", source, tmp_path / "m.gguf", "q4_0", "--json", "--quiet",
         "--split-max-tensors", "12"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    files = json.loads(done.stdout)["files"]
    assert files == sorted(str(p) for p in tmp_path.glob("m-*.gguf"))
    assert len(files) > 1
    wrong = subprocess.run(
        [specdec_binary(), "quantize", source, tmp_path / "x.gguf", "q4_0",
         "--split-max-size", "2X"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "as 2G or 500M, got '2X'" in wrong.stderr
