"""Ended at any moment, the converter leaves a complete file under the final name or none."""

from __future__ import annotations

import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

import hf_checkpoints as hf

pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from gguf_convert import convert

N_MOMENTS = 20


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Some megabytes, so that writing takes a while."""
    folder = tmp_path_factory.mktemp("checkpoint")
    config = hf.llama_config(hidden_size=256, intermediate_size=1024, num_hidden_layers=8)
    hf.write_checkpoint(folder, config)
    return folder


@pytest.fixture(scope="module")
def complete(checkpoint: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    out = tmp_path_factory.mktemp("complete") / "out.gguf"
    convert(checkpoint, out, outtype="f16", name="same")
    return out.read_bytes()


def command(checkpoint: pathlib.Path, out: pathlib.Path) -> list[str]:
    script = [sys.executable, str(hf.SCRIPT), str(checkpoint), str(out)]
    return [*script, "--outtype", "f16", "--name", "same", "--quiet"]


def partial_files(out: pathlib.Path) -> list[pathlib.Path]:
    return sorted(out.parent.glob(out.name + ".*.partial"))


# Python itself needs a while to start: half of the moments are counted from the first byte written.
@pytest.mark.parametrize("which", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_killed_at_random_moments_it_leaves_no_half_file(
    which: str, checkpoint: pathlib.Path, complete: bytes, tmp_path: pathlib.Path
) -> None:
    number = signal.Signals[which]
    rng = random.Random(which)
    n_killed = n_left = n_writing = 0
    out = tmp_path / "out.gguf"
    for moment in range(N_MOMENTS if which == "SIGKILL" else 6):
        out.unlink(missing_ok=True)
        process = subprocess.Popen(command(checkpoint, out), stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        if moment % 2:
            wanted = rng.randint(1, len(complete))
            while process.poll() is None and time.monotonic() < deadline:
                files = partial_files(out)
                if files and files[-1].exists() and _size(files[-1]) >= wanted:
                    n_writing += 1
                    break
        else:
            time.sleep(rng.uniform(0, 0.4))
        process.send_signal(number)
        _, shown = process.communicate(timeout=60)
        n_killed += process.returncode != 0
        if out.exists():
            assert out.read_bytes() == complete
        else:
            assert process.returncode != 0
        if which == "SIGKILL":
            n_left += len(partial_files(out))
            for path in partial_files(out):
                path.unlink()
        elif shown:  # not while Python was still starting
            assert partial_files(out) == []
        assert {path.name for path in tmp_path.iterdir()} <= {"out.gguf"}
    assert n_killed >= 4
    if which == "SIGKILL":
        assert n_left > 0, "no moment fell into the writing"
        assert n_writing > 0


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_an_older_file_stays_until_the_new_one_is_complete(
    checkpoint: pathlib.Path, complete: bytes, tmp_path: pathlib.Path
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")
    process = subprocess.Popen(command(checkpoint, out), stderr=subprocess.PIPE)
    while process.poll() is None and not partial_files(out):
        pass
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=60)
    if process.returncode == 0:
        pytest.skip("the conversion was faster than the signal")
    assert process.returncode == 128 + signal.SIGTERM
    assert shown == b"terminated: nothing was written\n"
    assert out.read_bytes() == b"older"
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_an_error_while_writing_removes_the_temporary_file(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf_convert import pipeline

    hf.write_checkpoint(tmp_path / "c")
    calls = []

    def fail_later(rows, dtype, name):
        calls.append(name)
        if len(calls) > 5:
            raise OSError(28, "No space left on device")
        return rows.astype("<f4").tobytes()

    monkeypatch.setattr(pipeline, "encode_rows", fail_later)
    with pytest.raises(OSError, match="No space left"):
        convert(tmp_path / "c", tmp_path / "out.gguf", outtype="f32")
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
