"""Packed weights that are kept in a file, and used from there."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

import specdec_native as sd
from helpers import specdec_binary

PROMPT = "the cat in the hat"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    folder = tmp_path / "packed"
    monkeypatch.setenv("SPECDEC_PACKED", str(folder))
    return folder


@pytest.fixture
def path(tiny_path, tmp_path):
    return shutil.copy(tiny_path, tmp_path / "model.gguf")


def tokens(path, repack="auto", **options):
    """What it writes, how many bytes of weights came from the file, and what it warns of."""
    with sd.Model(path, repack=repack, n_threads=2, **options) as model:
        with sd.Decoder(model) as decoder:
            result = decoder.generate(PROMPT, max_tokens=24, ignore_eos=True)
        warnings = [line for line in model.info.warnings if line.startswith("not_kept")]
        return result.token_ids, model.info.kept_weight_bytes, warnings


def files(folder):
    return sorted(folder.iterdir()) if folder.is_dir() else []


def test_a_later_load_maps_what_was_kept(folder, path):
    expected, none, _ = tokens(path)
    assert none == 0
    assert files(folder) == []  # nobody asked for it
    assert tokens(path, "keep") == (expected, 0, [])
    (kept,) = files(folder)
    assert kept.name.startswith("model-")
    assert kept.name.endswith(".packed")
    before = kept.stat()
    for repack in ("auto", "keep"):
        again, n_bytes, warnings = tokens(path, repack)
        assert (again, warnings) == (expected, [])
        assert 0 < n_bytes <= before.st_size
    assert kept.stat().st_ino == before.st_ino  # whole as it was, it is not written again
    assert tokens(path, "off") == (expected, 0, [])


def test_what_was_rewritten_is_kept_apart(folder, path):
    expected = {kind: tokens(path, "keep", requantize=kind)[0] for kind in (None, "q4_0", "q8_0")}
    assert len(files(folder)) == 3
    assert len({tuple(ids) for ids in expected.values()}) > 1
    for kind, ids in expected.items():
        with sd.Model(path, requantize=kind, repack="off") as plain:
            sizes = (plain.info.weight_bytes, plain.info.bytes_per_step)
        with sd.Model(path, requantize=kind) as model:
            assert model.info.kept_weight_bytes > 0
            assert (model.info.weight_bytes, model.info.bytes_per_step) == sizes
        assert tokens(path, requantize=kind)[0] == ids


def test_another_model_in_its_place_is_packed_anew(folder, path, tiny_draft_path):
    tokens(path, "keep")
    shutil.copy(tiny_draft_path, path)
    expected = tokens(tiny_draft_path)[0]
    assert tokens(path) == (expected, 0, [])
    assert tokens(path, "keep") == (expected, 0, [])
    assert len(files(folder)) == 1
    assert tokens(path)[1] > 0


def test_the_same_bytes_written_again_are_packed_anew(folder, path):
    """Weights may have changed where the size and what describes them have not."""
    tokens(path, "keep")
    assert tokens(path)[1] > 0
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert tokens(path)[1] == 0


def test_other_weights_with_the_same_header_and_time_are_packed_anew(folder, path):
    """Two trainings of one model, where a store sets all times to one."""
    tokens(path, "keep")
    assert tokens(path)[1] > 0
    data, time_ns = bytearray(path.read_bytes()), path.stat().st_mtime_ns
    half = len(data) // 2  # weights
    data[half:] = bytes(byte ^ 1 for byte in data[half:])
    path.write_bytes(data)
    os.utime(path, ns=(time_ns, time_ns))
    assert tokens(path)[1] == 0


@pytest.mark.parametrize("at", [0, 8, 16, 24, 32, 40, 48, 60, 90, 200])
def test_a_damaged_file_is_not_used(folder, path, at):
    expected = tokens(path, "keep")[0]
    (kept,) = files(folder)
    data = bytearray(kept.read_bytes())
    data[at] ^= 0x40
    kept.write_bytes(data)
    assert tokens(path) == (expected, 0, [])
    assert tokens(path, "keep") == (expected, 0, [])
    assert tokens(path)[1] > 0


@pytest.mark.parametrize("left", [0, 1, 55, 56, 4095, -4096, -1])
def test_a_part_of_a_file_is_not_used(folder, path, left):
    expected = tokens(path, "keep")[0]
    (kept,) = files(folder)
    os.truncate(kept, left if left >= 0 else kept.stat().st_size + left)
    assert tokens(path) == (expected, 0, [])


def test_damaged_weights_are_found_when_they_are_checked(folder, path):
    expected = tokens(path, "keep")[0]
    (kept,) = files(folder)
    whole = tokens(path, check_tensors=True)
    assert whole[0] == expected
    assert whole[1] == tokens(path)[1]
    data = bytearray(kept.read_bytes())
    data[8192] ^= 0x10
    kept.write_bytes(data)
    found, n_bytes, _ = tokens(path, check_tensors=True)
    assert found == expected
    assert 0 < n_bytes < whole[1]  # all but the one that is damaged


def test_what_cannot_be_kept_is_said(path, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPECDEC_PACKED", str(tmp_path / "file"))
    ids, n_bytes, warnings = tokens(path, "keep")
    assert ids
    assert n_bytes == 0
    (warning,) = warnings
    assert "not_kept" in warning
    assert str(tmp_path / "file") in warning


def test_off_keeps_nothing(path, tmp_path, monkeypatch):
    monkeypatch.setenv("SPECDEC_PACKED", "off")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tokens(path, "keep")[1:] == (0, [])
    assert not (tmp_path / ".cache").exists()


def test_without_a_folder_it_is_in_the_home(path, tmp_path, monkeypatch):
    monkeypatch.delenv("SPECDEC_PACKED")
    monkeypatch.setenv("HOME", str(tmp_path))
    tokens(path, "keep")
    assert len(files(tmp_path / ".cache" / "specdec-native" / "packed")) == 1
    assert tokens(path)[1] > 0


def test_files_of_models_that_are_gone_go_too(folder, path, tmp_path):
    other = shutil.copy(path, tmp_path / "other.gguf")
    tokens(other, "keep")
    (folder / "notes.packed").write_text("not ours")
    other.unlink()
    tokens(path, "keep")
    assert [file.name.split("-")[0] for file in files(folder)] == ["model", "notes.packed"]


def test_files_of_models_on_a_disk_that_is_away_stay(folder, path, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    tokens(shutil.copy(path, disk / "other.gguf"), "keep")
    disk.rename(tmp_path / "away")
    tokens(path, "keep")
    assert [file.name.split("-")[0] for file in files(folder)] == ["model", "other"]


def test_a_relative_path_is_found_again_from_elsewhere(folder, path, tmp_path, monkeypatch):
    monkeypatch.chdir(path.parent)
    tokens(pathlib.Path(path.name), "keep")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    other = shutil.copy(path, tmp_path / "other.gguf")
    tokens(other, "keep")
    assert len(files(folder)) == 2
    assert tokens(path)[1] > 0


CUT_OFF = """
import os, pathlib, sys
import specdec_native as sd
path, folder = sys.argv[1:]
with sd.Model(path) as model, sd.Decoder(model) as decoder:
    assert model.info.kept_weight_bytes > 0
    decoder.generate("a", max_tokens=4)
    (kept,) = pathlib.Path(folder).iterdir()
    os.truncate(kept, 4096)
    try:
        decoder.generate("a", max_tokens=4)
    except sd.ModelFileError as error:
        print(error.reason, error.filename == str(kept))
"""


def test_a_file_that_is_cut_off_in_use_is_an_error(folder, path):
    tokens(path, "keep")
    done = subprocess.run(
        [sys.executable, "-c", CUT_OFF, path, folder],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "changed True\n")


def test_the_program_keeps_and_says_so(folder, path):
    def run(*options):
        command = [specdec_binary(), "generate", "-m", path, "-p", PROMPT, "-n", "4", "-v"]
        done = subprocess.run(
            [*command, "--json", *options], capture_output=True, text=True, timeout=60, check=True
        )
        return json.loads(done.stdout)["text"], "packed weights from their file" in done.stderr

    text, said = run("--repack", "keep")
    assert not said
    assert run() == (text, True)
    assert run("--repack", "off") == (text, False)


def test_killed_while_it_keeps_it_leaves_no_half_file(folder, path):
    """At whatever moment: no file, or a whole one, and no other."""
    code = f"import specdec_native as sd; print(flush=True); sd.Model({str(path)!r}, repack='keep')"
    expected = tokens(path)[0]
    for delay in (0.0, 0.001, 0.002, 0.004, 0.008, 0.016):
        run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert run.stdout is not None
        run.stdout.readline()
        time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        run.communicate(timeout=60)
        assert {file.suffix for file in files(folder)} <= {".packed", ".tmp"}
        ids, n_bytes, _ = tokens(path)
        assert ids == expected
        for file in files(folder):
            if file.suffix == ".packed":
                assert n_bytes > 0
            file.unlink()


def test_experts_are_kept_too(folder, tmp_path):
    import tiny_models

    path = pathlib.Path(tmp_path / "mixture.gguf")
    tiny_models.write_tiny(path, tiny_models.TinyConfig(n_experts=4, n_experts_used=2))
    expected = tokens(path, "keep")[0]
    again, n_bytes, _ = tokens(path)
    assert again == expected
    with sd.Model(path) as model:
        assert n_bytes > model.info.weight_bytes / 2
