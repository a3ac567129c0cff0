"""Where the system starts no more threads, those that run do the work, and the user is told."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from helpers import specdec_binary

MODELS = pathlib.Path(__file__).parents[2] / "models"
NOBODY = 65534
ARGUMENTS = ["-p", "def add(a, b):", "-n", "24", "--json"]


@pytest.fixture(scope="module")
def open_folder() -> Iterator[pathlib.Path]:
    """A folder that every user may read, with the program and a model."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        folder.chmod(0o755)
        shutil.copy(specdec_binary(), folder / "specdec")
        (folder / "specdec").chmod(0o755)
        shutil.copy(MODELS / "pycode-llama-draft.q8_0.gguf", folder / "model.gguf")
        (folder / "model.gguf").chmod(0o644)
        (folder / "home").mkdir()
        (folder / "home").chmod(0o777)
        yield folder


def no_more_threads() -> None:
    """The limit does not bind root, so root becomes somebody else."""
    if os.getuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


def generate(folder: pathlib.Path, *more: str, limited: bool) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "specdec", "generate", "-m", folder / "model.gguf", *ARGUMENTS, *more],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(folder / "home")},
        preexec_fn=no_more_threads if limited else None,
    )


def test_the_program_goes_on_with_the_threads_it_has(open_folder):
    free = generate(open_folder, "-t", "4", limited=False)
    limited = generate(open_folder, "-t", "4", limited=True)
    assert free.returncode == limited.returncode == 0, limited.stderr
    assert json.loads(limited.stdout)["text"] == json.loads(free.stdout)["text"]
    assert "started only 1 of 4 threads" in limited.stderr
    assert "ulimit -u" in limited.stderr
    assert "started only" not in free.stderr


def test_one_thread_needs_nobody(open_folder):
    done = generate(open_folder, "-t", "1", limited=True)
    assert done.returncode == 0
    assert "threads" not in done.stderr


def test_quantize_goes_on_with_the_threads_it_has(open_folder):
    target = open_folder / "home" / "small.gguf"
    done = subprocess.run(
        [
            *(open_folder / "specdec", "quantize", open_folder / "model.gguf", target, "Q4_0"),
            *("--allow-requantize", "-t", "3"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        preexec_fn=no_more_threads,
    )
    assert done.returncode == 0, done.stderr
    assert "started only 1 of 3 threads" in done.stderr
    assert target.stat().st_size > 1000


PYTHON = """
import logging, os, resource, sys
import specdec_native as sd
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
with sd.Model(sys.argv[1], n_threads=4) as model:
    print("device", model.info.device)
    with sd.Decoder(model) as decoder:
        print("tokens", len(decoder.generate("def add(a, b):", max_tokens=12).token_ids))
"""


def test_python_goes_on_with_the_threads_it_has(open_folder):
    done = subprocess.run(
        [sys.executable, "-c", PYTHON, open_folder / "model.gguf"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "HOME": str(open_folder / "home")},
    )
    assert done.returncode == 0, done.stderr
    assert "started only 1 of 4 threads" in done.stdout
    assert ", 1 thread" in done.stdout
    assert "tokens 12" in done.stdout
