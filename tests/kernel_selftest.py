"""Builds the program tests/native/kernel_selftest.cc, for tests of kernels that want a build of
their own."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def need(*names: str) -> str:
    """The first of these programs that is installed; skips with the reason when none is."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip(f"{names[0]} is not installed")


def build(folder: pathlib.Path, *options: str) -> str:
    cmake = need("cmake")
    need("ninja")
    configure = [
        *(cmake, "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *options),
        # Without optimisation: the bits are the same, and building takes a fraction.
        *("-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0", "-DSPECDEC_WERROR=ON"),
        f"-DCMAKE_PROJECT_INCLUDE={ROOT}/cmake/quick_build.cmake",
    ]
    make = [cmake, "--build", str(folder), "--target", "specdec_kernel_selftest"]
    for command in (configure, make):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return str(folder / "specdec_kernel_selftest")
