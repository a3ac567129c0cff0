"""Models in several files: NAME-00001-of-00003.gguf and so on."""

from __future__ import annotations

import json
import pathlib
import re
import shutil
import subprocess

import gguf
import numpy as np
import pytest

import tiny_models
from helpers import specdec_binary

sd = pytest.importorskip("specdec_native", reason="the package is not installed")

N_PARTS = 3


def copy(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        kind = field.types[0]
        sub = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), kind, sub_type=sub)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.asarray(tensor.data), raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def split(source: pathlib.Path, folder: pathlib.Path, per_file: int = 0) -> list[pathlib.Path]:
    """By the gguf package: its writer has the option."""
    reader = gguf.GGUFReader(source)
    per_file = per_file or -(-len(reader.tensors) // N_PARTS)
    folder.mkdir()
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=per_file)
    copy(reader, writer)
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    config = tiny_models.TinyConfig(n_layers=4)
    return tiny_models.write_tiny(
        tmp_path_factory.mktemp("parts") / "m.gguf", config, dtype="Q8_0", seed=8
    )


@pytest.fixture
def parts(whole, tmp_path):
    found = split(whole, tmp_path / "split")
    names = [f"m-{i + 1:05}-of-{N_PARTS:05}.gguf" for i in range(N_PARTS)]
    assert [p.name for p in found] == names
    return found


def test_a_model_in_parts_is_the_model_in_one_file(whole, parts):
    one, several = sd.Model(whole), sd.Model(parts[0])
    prompt = [3, 5, 8, 13, 21]
    tokens = [
        sd.Decoder(model).generate(prompt, max_tokens=24).token_ids for model in (one, several)
    ]
    assert tokens[0] == tokens[1]
    assert several.info.size_bytes == sum(p.stat().st_size for p in parts)


def test_a_mapped_model_in_parts_reads_each_from_its_own(whole, parts):
    prompt = [2, 4, 6]
    tokens = [
        sd.Decoder(sd.Model(path, repack="off")).generate(prompt, max_tokens=16).token_ids
        for path in (whole, parts[0])
    ]
    assert tokens[0] == tokens[1]


def test_inspect_tells_of_all_parts(whole, parts):
    one, several = sd.inspect(whole), sd.inspect(parts[0])
    assert (one.n_parts, several.n_parts) == (1, N_PARTS)
    assert several.size_bytes == sum(p.stat().st_size for p in parts)
    assert [(t.name, t.dtype, t.shape) for t in several.tensors] == [
        (t.name, t.dtype, t.shape) for t in one.tensors
    ]
    assert several.supported
    done = subprocess.run(
        [specdec_binary(), "inspect", parts[0], "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["n_parts"] == N_PARTS
    done = subprocess.run(
        [specdec_binary(), "inspect", parts[0]], capture_output=True, text=True, check=True
    )
    assert f"in {N_PARTS} files" in done.stdout


def test_quantising_parts_gives_one_file_as_quantising_the_whole_does(whole, parts, tmp_path):
    for source, name in ((whole, "a.gguf"), (parts[0], "b.gguf")):
        sd.quantize(source, tmp_path / name, "q4_0", allow_requantize=True)
    a, b = gguf.GGUFReader(tmp_path / "a.gguf"), gguf.GGUFReader(tmp_path / "b.gguf")
    assert [t.name for t in a.tensors] == [t.name for t in b.tensors]
    for mine, theirs in zip(a.tensors, b.tensors, strict=True):
        assert np.array_equal(mine.data, theirs.data)
    assert not [key for key in b.fields if key.startswith("split.")]


def test_a_first_part_may_be_without_tensors(whole, tmp_path):
    found = split(whole, tmp_path / "split", per_file=100)
    assert len(found) == 1  # one file after all
    writer = gguf.GGUFWriter(
        tmp_path / "e.gguf", "llama", split_max_tensors=20, small_first_shard=True
    )
    reader = gguf.GGUFReader(whole)
    copy(reader, writer)
    first = next(iter(sorted(tmp_path.glob("e-00001-of-*.gguf"))))
    assert not gguf.GGUFReader(first).tensors
    assert len(sd.inspect(first).tensors) == len(reader.tensors)


def refused(path: pathlib.Path, error: type[Exception], *words: str) -> None:
    with pytest.raises(error) as caught:
        sd.Model(path)
    for word in words:
        assert re.search(word, str(caught.value)), str(caught.value)


def test_a_missing_part_is_named(parts):
    parts[1].unlink()
    refused(parts[0], sd.ModelFileError, "part 2 of 3", "m-00002-of-00003.gguf", "one folder")


def test_another_part_than_the_first_tells_which_to_open(parts):
    refused(parts[1], sd.ModelFormatError, "part 2 of 3", "-00001-of-00003.gguf")


def test_a_first_part_of_another_name_is_refused(parts, tmp_path):
    other = parts[0].with_name("model.gguf")
    shutil.copy(parts[0], other)
    refused(other, sd.ModelFormatError, "must end in '-00001-of-00003.gguf'")


def test_parts_in_the_wrong_places_are_noticed(parts):
    shutil.copy(parts[1], parts[2])
    refused(parts[0], sd.ModelFormatError, "part 2 of 3", "expected part 3 of 3", "00003-of")


def test_a_part_that_is_no_part_is_noticed(parts, whole):
    shutil.copy(whole, parts[2])
    refused(parts[0], sd.ModelFormatError, "split.count", "missing", "00003-of-00003")


def test_a_part_cut_short_is_named(parts):
    data = parts[2].read_bytes()
    parts[2].write_bytes(data[: len(data) // 2])
    refused(parts[0], sd.ModelFormatError, "00003-of-00003", "truncated|exceeds")


def edited(path: pathlib.Path, key: bytes, change: dict[bytes, bytes]) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(key) + len(key)
    for old, new in change.items():
        assert data[at : at + len(old)] == old
        data[at : at + len(old)] = new
    path.write_bytes(data)


def test_a_wrong_total_is_noticed(parts):
    n = len(sd.inspect(parts[0]).tensors)
    kind = (5).to_bytes(4, "little")
    old, new = (kind + i.to_bytes(4, "little") for i in (n, n + 1))
    edited(parts[0], b"split.tensors.count", {old: new})
    refused(parts[0], sd.ModelFormatError, "split.tensors.count", str(n + 1), str(n))


def test_a_tensor_in_two_parts_is_noticed(parts):
    names = [[t.name.encode() for t in gguf.GGUFReader(parts[i]).tensors] for i in (0, 2)]
    first, last = next((a, b) for a in names[0] for b in names[1] if len(a) == len(b))
    data = parts[2].read_bytes()
    assert data.count(last) == 1
    parts[2].write_bytes(data.replace(last, first))
    refused(parts[0], sd.ModelFormatError, first.decode(), "part 1 of 3", "part 3 of 3")
