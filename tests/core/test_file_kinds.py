"""What is not a regular file is refused where a model is read, and never replaced by one."""

from __future__ import annotations

import errno
import os
import pathlib
import resource
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator

import pytest

import specdec_native as sd
from helpers import specdec_binary

DRAFT = pathlib.Path(__file__).parents[2] / "models" / "pycode-llama-draft.q8_0.gguf"
KINDS = ["fifo", "socket", "device", "folder"]


@pytest.fixture
def odd(tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[pathlib.Path]:
    """A path that is no file."""
    path = tmp_path / "odd.gguf"
    if request.param == "fifo":
        os.mkfifo(path)
    elif request.param == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
            yield path
        return
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "link":
        (tmp_path / "real").write_bytes(b"precious")
        path.symlink_to("real")
    elif request.param == "broken link":
        path.symlink_to("nothing")
    else:
        try:
            os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))  # /dev/null
        except PermissionError:
            pytest.skip("only root makes devices")
    yield path


def specdec(*arguments: object, limit_files: int = 0) -> subprocess.CompletedProcess[str]:
    def prepare() -> None:
        if limit_files:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit_files, limit_files))

    return subprocess.run(
        [specdec_binary(), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=prepare,
    )


MESSAGES = {
    "fifo": "is a named pipe, not a file",
    "socket": "is a socket, not a file",
    "device": "is a device, not a file",
    "folder": "Is a directory",
}


@pytest.mark.parametrize(("odd", "message"), MESSAGES.items(), indirect=["odd"])
@pytest.mark.parametrize(
    "command",
    [
        ("generate", "-p", "a", "-n", "1", "-m"),
        ("chat", "-m"),
        ("inspect",),
        ("tokenize", "-p", "a", "-m"),
        ("perplexity", "-f", DRAFT, "-m"),
        ("bench", "-m"),
        ("generate", "-p", "a", "-n", "1", "-m", DRAFT, "-md"),
    ],
    ids=lambda command: " ".join(map(str, command[:1] + command[-1:])),
)
def test_the_program_refuses_it_as_a_model_at_once(odd, message, command):
    done = specdec(*command, odd)
    assert done.returncode == 3, done
    assert message in done.stderr


@pytest.mark.parametrize(("odd", "message"), MESSAGES.items(), indirect=["odd"])
def test_python_refuses_it_as_a_model_at_once(odd, message):
    for action in (sd.Model, sd.inspect, lambda path: sd.quantize(path, path / "x", "Q4_0")):
        with pytest.raises(sd.ModelFileError, match=message):
            action(odd)


@pytest.mark.parametrize("odd", [*KINDS, "link", "broken link"], indirect=True)
@pytest.mark.parametrize("force", [False, True])
def test_quantize_does_not_replace_it(odd, force):
    before = os.lstat(odd)
    done = specdec("quantize", DRAFT, odd, "Q4_0", "--allow-requantize", *["--force"] * force)
    assert done.returncode == 2, done
    assert str(odd) in done.stderr
    assert any(kind in done.stderr for kind in ("folder", "pipe", "socket", "link", "device"))
    with pytest.raises(sd.InvalidArgumentError):
        sd.quantize(DRAFT, odd, "Q4_0", allow_requantize=True, overwrite=force)
    after = os.lstat(odd)
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert len(list(odd.parent.iterdir())) <= 2  # nothing temporary is left


def test_quantize_still_replaces_a_file(tmp_path):
    target = tmp_path / "small.gguf"
    target.write_text("old")
    assert specdec("quantize", DRAFT, target, "Q4_0", "--allow-requantize").returncode == 2
    done = specdec("quantize", DRAFT, target, "Q4_0", "--allow-requantize", "--force")
    assert done.returncode == 0, done
    assert target.stat().st_size > 1000


def test_a_prompt_may_come_from_a_pipe_but_not_from_a_folder(tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"{specdec_binary()} tokenize -m {DRAFT} -f <(echo abc)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    done = specdec("tokenize", "-m", DRAFT, "-f", tmp_path)
    assert done.returncode == 3
    assert f"{tmp_path}: cannot read: Is a directory" in done.stderr


def test_no_more_descriptors_is_a_matter_of_resources():
    # The loader of programs needs one itself.
    done = specdec("inspect", DRAFT, "-md", DRAFT, limit_files=4)
    assert done.returncode == 5, done
    assert "Too many open files" in done.stderr
    script = """
import os, resource, sys
import specdec_native as sd
sd.inspect(sys.argv[1])
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    sd.inspect(sys.argv[1])
except sd.ModelFileError as error:
    print(error.errno)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, DRAFT],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == f"{errno.EMFILE}\n", done.stderr


def test_a_full_disk_is_a_matter_of_resources(tmp_path):
    if not pathlib.Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    with pathlib.Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [specdec_binary(), "tokenize", "-m", DRAFT, "-p", "abc"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 5
    assert "No space left on device" in done.stderr


def test_a_damaged_download_in_the_place_of_a_link_is_not_replaced(tmp_path, monkeypatch):
    from specdec_native import download

    monkeypatch.setenv("SPECDEC_MODELS", str(tmp_path))
    name, model = next(iter(download.KNOWN_MODELS.items()))
    real = tmp_path / "real"
    shutil.copy(DRAFT, real)
    (tmp_path / model.file_name).symlink_to("real")
    with pytest.raises(sd.DownloadError, match="not a regular file"):
        download._pull_known(name, model, lambda _: None, False)
    assert (tmp_path / model.file_name).is_symlink()
