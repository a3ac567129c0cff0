"""Ended at any moment, the converter leaves a complete file under the final name or none."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import pytest

import hf_checkpoints as hf

pytest.importorskip("gguf", reason="gguf is not installed")
pytest.importorskip("tokenizers", reason="tokenizers is not installed")

from gguf_convert import ConvertError, atomic_file, convert

N_MOMENTS = 6


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


# Python itself needs a while to start: most moments are counted from the first byte written. The
# campaign (tools/campaign.py, killed:convert) tries hundreds.
@pytest.mark.parametrize("which", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_killed_at_random_moments_it_leaves_no_half_file(
    which: str, checkpoint: pathlib.Path, complete: bytes, tmp_path: pathlib.Path
) -> None:
    number = signal.Signals[which]
    rng = random.Random(which)
    n_killed = n_left = n_writing = 0
    out = tmp_path / "out.gguf"
    for moment in range(N_MOMENTS if which == "SIGKILL" else 3):
        out.unlink(missing_ok=True)
        process = subprocess.Popen(command(checkpoint, out), stderr=subprocess.PIPE)
        deadline = time.monotonic() + 60
        if moment > 0:
            wanted = rng.randint(1, len(complete))
            while process.poll() is None and time.monotonic() < deadline:
                files = partial_files(out)
                if files and files[-1].exists() and _size(files[-1]) >= wanted:
                    n_writing += 1
                    break
                time.sleep(0.001)
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
            if moment % 3 == 0:
                for path in partial_files(out):
                    path.unlink()
            assert len(partial_files(out)) <= 1, "those of killed runs pile up"
        elif shown:  # not while Python was still starting
            assert partial_files(out) == []
        names = {path.name for path in tmp_path.iterdir() if path.suffix != ".partial"}
        assert names <= {"out.gguf"}
    print(
        f"{which}: {n_killed} ended early, {n_writing} while writing, {n_left} partial files left"
    )
    assert n_killed >= 1
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


def test_a_signal_at_any_step_of_its_making_leaves_no_file(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out.gguf"
    made = []
    for moment in range(1, 100):
        lines = 0

        def trace(frame: FrameType, event: str, _argument: object, moment: int = moment) -> Any:
            nonlocal lines
            if pathlib.Path(frame.f_code.co_filename) != pathlib.Path(atomic_file.__file__):
                return None
            if event == "line" and frame.f_code.co_name == "create":
                lines += 1
                if lines == moment:
                    made.append(len(partial_files(out)))
                    raise atomic_file.Terminated(signal.SIGTERM)
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            with atomic_file.temporary_beside(out):
                break
        except atomic_file.Terminated:
            pass
        finally:
            sys.settrace(before)
        assert list(tmp_path.iterdir()) == [], f"step {moment}"
    assert {0, 1} <= set(made), "signals before and after the file was made"


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


def test_what_a_killed_run_left_goes_with_the_next_one(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path / "c")
    out = tmp_path / "out" / "[a] model.gguf"
    out.parent.mkdir()
    stale = [out.with_name(f"{out.name}.{name}.partial") for name in ("abcd1234", "zz__zz99")]
    others = [
        out.with_name(name)
        for name in (
            "[a] model.gguf.partial",
            "[a] model.gguf.backup-1.partial",
            "a model.gguf.abcd1234.partial",
            "[a] model.gguf.abcd1234.partial.txt",
        )
    ]
    for path in (*stale, *others):
        path.write_bytes(b"half")
    convert(tmp_path / "c", out, outtype="f16")
    assert sorted(out.parent.iterdir()) == sorted([out, *others])


def test_partial_files_of_a_living_writer_are_left_alone(tmp_path: pathlib.Path) -> None:
    from gguf_convert.atomic_file import complete_or_nothing, remove_stale

    out = tmp_path / "out.gguf"
    stale = out.with_name("out.gguf.abcd1234.partial")
    stale.write_bytes(b"half")
    with complete_or_nothing(out) as first:
        assert not stale.exists()
        with complete_or_nothing(out) as second:
            assert first.exists()
            assert remove_stale(out) == []
            second.write_bytes(b"second")
        assert first.exists()
        first.write_bytes(b"first")
    assert out.read_bytes() == b"first"
    # Killed while it held the lock: nobody holds it any more.
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "import pathlib\n"
        "from gguf_convert.atomic_file import temporary_beside\n"
        "with temporary_beside(pathlib.Path(sys.argv[2])) as path:\n"
        "    print(path, flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(hf.TOOLS), str(out)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    left = pathlib.Path(process.stdout.readline().strip())
    assert remove_stale(out) == []
    process.kill()
    process.communicate()
    assert remove_stale(out) == [left]


def test_a_writer_whose_file_was_taken_for_stale_begins_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gguf_convert import atomic_file

    calls = []

    def lock(handle: int) -> bool:  # somebody else removes the first one before it is locked
        calls.append(handle)
        if len(calls) == 1:
            for path in tmp_path.iterdir():
                path.unlink()
        return True

    monkeypatch.setattr(atomic_file, "_try_lock", lock)
    with atomic_file.complete_or_nothing(tmp_path / "x") as path:
        path.write_bytes(b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"
    assert len(calls) == 2


@pytest.mark.parametrize("tool", ["convert_hf_to_gguf.py", "gguf_to_hf.py"])
def test_a_full_disk_is_one_message(tool: str, tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path / "c")
    convert(tmp_path / "c", tmp_path / "model.gguf", outtype="f16")
    out = tmp_path / "out.gguf"
    out.write_bytes(b"older")
    source = tmp_path / ("c" if tool == "convert_hf_to_gguf.py" else "model.gguf")
    target = out if tool == "convert_hf_to_gguf.py" else tmp_path / "back"
    named = out if tool == "convert_hf_to_gguf.py" else target / "model.safetensors"
    # A limit on the size of a file, which a full disk looks like.
    command = [sys.executable, str(hf.TOOLS / tool), str(source), str(target), "--quiet"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (90_000, 90_000)),
    )
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {named}: cannot be written: File too large")
    assert done.stderr.count("\n") == 1
    assert out.read_bytes() == b"older"
    assert not list(tmp_path.rglob("*.partial"))


def test_what_is_no_file_is_not_replaced(tmp_path: pathlib.Path) -> None:
    hf.write_checkpoint(tmp_path / "c")
    fifo, link, loose = (tmp_path / name for name in ("fifo", "link", "loose"))
    os.mkfifo(fifo)
    (tmp_path / "real").write_bytes(b"mine")
    link.symlink_to(tmp_path / "real")
    loose.symlink_to(tmp_path / "nowhere")
    for path, message in (
        (fifo, "is not a regular file"),
        (link, "is a symbolic link, which would be replaced"),
        (loose, "is a symbolic link"),
        (pathlib.Path(os.devnull), "is not a regular file"),
    ):
        with pytest.raises(ConvertError, match=message):
            convert(tmp_path / "c", path)
        assert path.is_symlink() or not path.is_file()
    assert (tmp_path / "real").read_bytes() == b"mine"


@pytest.mark.parametrize("columns", [1, 7, 20, 40, 80, 200])
def test_progress_fits_the_terminal(columns: int) -> None:
    """On a terminal of so many columns no line is full, so none is wrapped."""
    import fcntl
    import pty
    import struct
    import termios

    from gguf_convert.progress import Progress

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with os.fdopen(follower, "w") as stream:
        shown = Progress(10_000_000_000, stream=stream)
        for _ in range(4):
            shown.add(2_500_000_000, "model.layers.12.self_attn.q_proj.weight" * 3)
        shown.finish()
    text = ""
    with contextlib.suppress(OSError):  # at its end, as nobody has the other side open
        while part := os.read(leader, 10_000):
            text += part.decode()
    os.close(leader)
    lines = [line.removeprefix("\x1b[K") for line in text.split("\r") if line != "\x1b[K"]
    lines = [line for line in lines if line]
    assert all(len(line) < columns for line in lines)
    if columns >= 7:
        assert any("%" in line for line in lines)
    if columns >= 80:
        assert any("[####################]" in line and "100.0 %" in line for line in lines)
