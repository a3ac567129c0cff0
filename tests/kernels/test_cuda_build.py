"""The command of a build with CUDA on a machine without a GPU. SPECDEC_CUDA_BIN names it; `.ci/run`
builds one for every architecture where it can."""

from __future__ import annotations

import os
import subprocess

import pytest

from helpers import specdec_binary

BINARY = os.environ.get("SPECDEC_CUDA_BIN", "")
if not BINARY:
    pytest.skip("SPECDEC_CUDA_BIN names no command built with CUDA", allow_module_level=True)


def run(binary: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [binary, "generate", *map(str, arguments), "-p", "ab", "-n", "6", "--temp", "0"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def test_it_links_no_shared_cuda_library():
    linked = subprocess.run(["ldd", BINARY], capture_output=True, text=True, check=True).stdout
    assert "libcu" not in linked
    assert "libc.so" in linked


def test_it_runs_on_the_cpu_with_the_text_of_a_build_without_cuda(tiny_path):
    ours = run(BINARY, "-m", tiny_path, "-v")
    assert ours.returncode == 0, ours.stderr
    assert "on the CPU: no " in ours.stderr
    assert ours.stdout == run(specdec_binary(), "-m", tiny_path).stdout


def test_a_gpu_that_was_asked_for_is_an_error_that_says_what_to_do(tiny_path):
    for flags in (["-ngl", "2"], ["--device", "cuda"]):
        done = run(BINARY, "-m", tiny_path, *flags)
        assert done.returncode == 5
        assert "cannot be had" in done.stderr
        assert "driver" in done.stderr or "no CUDA device" in done.stderr
        assert "cpu" in done.stderr
