"""A model file that is cut off while it is in use: an error, never the end of the process."""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from helpers import native, specdec_binary

base = native("base")

MODEL = pathlib.Path(__file__).parents[2] / "models" / "pycode-llama-5m.q8_0.gguf"
PAGE = 4096


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(shutil.copy(MODEL, tmp_path / "model.gguf"))


@pytest.mark.parametrize("left", [0, 1, PAGE, 3 * PAGE + 7, 5959935])
@pytest.mark.parametrize("n_threads", [1, 4])
def test_reading_what_is_gone_gives_zeros_and_then_an_error(model, left, n_threads):
    size = model.stat().st_size
    before = model.read_bytes()[:left]
    error, read = base.read_cut_file(str(model), left, n_threads)
    assert f"it has {left} of {size} bytes" in error
    assert read == before + bytes(size - left)


def test_a_whole_file_is_not_complained_about(model):
    size = model.stat().st_size
    assert base.read_cut_file(str(model), size, 2) == ("", model.read_bytes())
    assert base.read_cut_file(str(model), size + 5, 2)[0] == ""  # longer does not harm


def test_mappings_come_and_go(model):
    for _ in range(50):
        base.map_and_unmap(str(model), 7)
    assert "was cut off" in base.read_cut_file(str(model), 100, 3)[0]


FAULT = """
import ctypes, faulthandler, mmap, os, sys, tempfile
sys.path[:0] = sys.argv[2].split(os.pathsep)
mode = sys.argv[1]
if mode == "before":
    faulthandler.enable()
sys.path.insert(0, sys.argv[3])
from helpers import native
base = native("base")
base.map_and_unmap(sys.executable, 1)
if mode == "after":
    faulthandler.enable()
    base.map_and_unmap(sys.executable, 1)
with tempfile.TemporaryFile() as file:
    file.truncate(8192)
    memory = mmap.mmap(file.fileno(), 8192)
    file.truncate(0)
    memory[5000]
"""


@pytest.mark.parametrize("mode", ["none", "before", "after"])
def test_other_faults_end_the_process_as_before(mode):
    """Python's faulthandler still reports a fault that is not about a model."""
    here = pathlib.Path(__file__).parents[1]
    modules = os.environ.get("SPECDEC_TEST_MODULES", "")
    done = subprocess.run(
        [sys.executable, "-c", FAULT, mode, modules, str(here)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == -signal.SIGBUS, done
    assert ("Fatal Python error: Bus error" in done.stderr) == (mode != "none")


PYTHON = """
import faulthandler, os, sys
import specdec_native as sd
faulthandler.enable()
path, repack, left = sys.argv[1], sys.argv[2], int(sys.argv[3])
text = "def add(a, b):"
with sd.Model(path, repack=repack, n_threads=2) as model, sd.Decoder(model) as decoder:
    first = decoder.generate(text, max_tokens=8).token_ids
    os.truncate(path, left)
    try:
        second = decoder.generate(text * 20, max_tokens=8)
    except sd.ModelFileError as error:
        print(type(error).__name__, error.reason, error.filename == path, error)
    else:
        print("went on")
"""


@pytest.mark.parametrize("repack", ["auto", "off"])
@pytest.mark.parametrize("left", [0, 5000000])
def test_python_raises(model, repack, left):
    done = subprocess.run(
        [sys.executable, "-c", PYTHON, str(model), repack, str(left)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ModelFileError changed True"), done.stdout
    assert "the file was cut off while it was in use" in done.stdout


ENGINE = """
import os, sys
import specdec_native as sd

path, repack = sys.argv[1:]
model = sd.Model(path, repack=repack, n_threads=1)  # the engine's own thread meets it
with sd.Engine(model, n_ctx=2048, drafter=None) as engine:
    request = engine.submit("def add(a, b):", max_tokens=1500, ignore_eos=True)
    next(request)
    os.truncate(path, 4096)
    try:
        request.result(60)
    except sd.ModelFileError as error:
        print(type(error).__name__, error.reason, engine.stats().failed)
"""


@pytest.mark.parametrize("repack", ["auto", "off"])
def test_an_engine_raises(model, repack):
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, str(model), repack],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ModelFileError changed 1\n"


@pytest.mark.parametrize("repack", ["auto", "off"])
def test_the_program_says_so_and_exits_with_3(model, repack):
    """Cut while it generates: the first text on standard output says that it has begun."""
    run = subprocess.Popen(
        [
            *(specdec_binary(), "generate", "-m", model, "-p", "def add(a, b):", "-n", "100000"),
            *("--ignore-eos", "--repack", repack, "-t", "2", "-q"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert run.stdout is not None
    run.stdout.read(1)
    os.truncate(model, 4096)
    _, errors = run.communicate(timeout=120)
    assert run.returncode == 3, errors
    assert b"the file was cut off while it was in use: it has 4096 of 5959936 bytes" in errors


def test_cut_while_it_loads(model):
    """Whenever it happens, the model either loads whole or is refused."""
    script = """
import os, sys
import specdec_native as sd
path, at = sys.argv[1], float(sys.argv[2])
def cut(fraction):
    if fraction >= at:
        os.truncate(path, 4096)
try:
    with sd.Model(path, on_progress=cut) as model:
        print("loaded")
except sd.ModelFileError as error:
    print(error.reason)
"""
    content = model.read_bytes()
    for at in ("0.0", "0.1", "0.5", "0.9"):
        model.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-c", script, str(model), at],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "changed\n"), (at, done.stderr)


def test_quantize_leaves_nothing_behind(model, tmp_path):
    """The source is cut by the progress of the first tensor."""
    script = """
import os, sys
import specdec_native as sd
source, target = sys.argv[1:]
def cut(*_):
    os.truncate(source, 4096)
try:
    sd.quantize(source, target, "Q4_0", allow_requantize=True, on_progress=cut)
except sd.ModelFileError as error:
    print(error.reason)
"""
    target = tmp_path / "small.gguf"
    done = subprocess.run(
        [sys.executable, "-c", script, str(model), str(target)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "changed\n"), done.stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.gguf"]
