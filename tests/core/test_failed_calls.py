"""Whatever call of the system fails, at whatever moment: an exit code and a sentence, no half file,
and nothing at all where a call was only interrupted or did a part of its work."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from helpers import specdec_binary

HERE = pathlib.Path(__file__).parents[1]
MODEL = HERE.parent / "models" / "pycode-llama-draft.q8_0.gguf"
PROMPT = ["-p", "def add(a, b):", "-n", "6", "--json"]
KEEP = ["generate", "-m", MODEL, *PROMPT, "-t", "1", "--drafter", "none", "--prompt-cache", "kept"]
COMMANDS = {
    "generate": ["generate", "-m", MODEL, "-md", MODEL, *PROMPT, "-t", "3"],
    "generate -f": ["generate", "-m", MODEL, "-f", "text", "-n", "3", "-t", "2", "--json"],
    "inspect": ["inspect", MODEL, "--json"],
    "tokenize": ["tokenize", "-m", MODEL, "-f", "text"],
    "quantize": ["quantize", MODEL, "out", "Q4_0", "--allow-requantize", "-t", "2"],
    "save": KEEP,
    "load": [*KEEP, "--prompt-cache-ro"],
}
CALLS = {
    "open": ("error", "again"),
    "read": ("error", "again", "short"),
    "pread": ("error", "again", "short"),
    "write": ("error", "again", "short"),
    "mmap": ("error",),
    "fsync": ("error", "again"),
    "rename": ("error",),
    "linkat": ("error",),
    "fstat": ("error",),
    "stat": ("error",),
    "pthread_create": ("error",),
}
POINTS = int(
    os.environ.get("SPECDEC_FAULT_POINTS", "1")
)  # of each kind of call; 1: the first and the last
ALLOWED = {0, 1, 2, 3, 4, 5}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C++ compiler on Linux")
    target = tmp_path_factory.mktemp("calls") / "call_failure.so"
    source = HERE / "native" / "call_failure.cc"
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, source, "-o", target], check=True)
    return target


class Run:
    def __init__(self, library: pathlib.Path, folder: pathlib.Path, name: str) -> None:
        self.library, self.folder, self.name = library, folder, name
        (folder / "text").write_text("def add(a, b):\n" * 40)
        if name == "load":
            subprocess.run([specdec_binary(), *map(str, KEEP)], cwd=folder, check=True,
                           capture_output=True)  # fmt: skip

    def __call__(self, **settings: object) -> subprocess.CompletedProcess[str]:
        if self.name != "load":
            (self.folder / "kept").unlink(missing_ok=True)
        (self.folder / "out").unlink(missing_ok=True)
        return subprocess.run(
            [specdec_binary(), *map(str, COMMANDS[self.name])],
            cwd=self.folder, capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "LD_PRELOAD": str(self.library), "HOME": str(self.folder),
                 **{key: str(value) for key, value in settings.items()}},
        )  # fmt: skip

    def counts(self) -> dict[str, int]:
        path = self.folder / "counts"
        assert self(SPECDEC_COUNT_TO=path).returncode == 0
        found = dict(line.split() for line in path.read_text().splitlines())
        path.unlink()
        return {name: int(n) for name, n in found.items()}

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir() if path.is_file()}


def text_of(output: str) -> object:
    """Without the time it took and the threads that it found."""
    try:
        return json.loads(output).get("text")
    except (ValueError, AttributeError):
        return re.sub(r"[0-9.]+ s on [0-9]+ threads?", "", output)


def points(n: int, most: int) -> list[int]:
    step = max(1, n // most)
    return sorted({*range(1, n + 1, step), n} if n else ())


def check_all(library: pathlib.Path, folder: pathlib.Path, name: str, most: int) -> None:
    run = Run(library, folder, name)
    usual = run()
    assert usual.returncode == 0
    files = run.files()
    bad, told = [], collections.Counter()
    for call, n in run.counts().items():
        for how in CALLS[call]:
            for at in points(n, most):
                # The short version: from the first call on, and the last one.
                ways = (1, 10**9) if most > 1 else (10**9,) if at == 1 else (1,)
                for n_failing in (1,) if how == "again" else ways:
                    done = run(SPECDEC_FAIL_CALL=call, SPECDEC_FAIL_AT=at, SPECDEC_FAIL_HOW=how,
                               SPECDEC_FAIL_FOR=n_failing)  # fmt: skip
                    told[call, how, done.returncode] += 1
                    where = (call, how, at, n_failing, done.returncode, done.stderr[-300:])
                    if done.returncode not in ALLOWED:
                        bad.append(where)
                    elif done.returncode != 0 and not done.stderr.strip() and call != "write":
                        bad.append(where)
                    elif done.returncode == 0 and text_of(done.stdout) != text_of(usual.stdout):
                        bad.append(where)
                    elif how != "error" and done.returncode != 0:
                        bad.append(where)
                    for file, content in run.files().items():
                        if content != files.get(file) and file in files:
                            bad.append((*where, f"{file} is half written"))
                        elif file not in files:
                            bad.append((*where, f"it leaves {file}"))
                            (run.folder / file).unlink()
    # What tools/campaign.py counts.
    print(json.dumps({f"{c} {h} {code}": n for (c, h, code), n in sorted(told.items())}))
    assert not bad, (len(bad), bad[:6])
    assert sum(n for (_, how, code), n in told.items() if how == "error" and code) > 0


@pytest.mark.parametrize("name", COMMANDS)
def test_every_failed_call_is_reported(library, tmp_path, name):
    check_all(library, tmp_path, name, POINTS)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_hundreds_of_failed_calls_are_reported(library, tmp_path, name):
    check_all(library, tmp_path, name, 60)
