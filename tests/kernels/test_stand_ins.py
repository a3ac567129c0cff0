"""The kernels of instructions that neither this compiler nor this machine need have, with others in
their place: the same source, the bits of the scalar ones."""

from __future__ import annotations

import platform
import subprocess

import pytest

import kernel_selftest
from helpers import native

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="for x86-64")


@pytest.mark.slow
def test_kernels_of_signed_bytes_give_the_bits_of_the_scalar_ones(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if "avx2" not in native("matmul").isas():
        pytest.skip("this machine has no AVX2")
    kernel_selftest.need("g++")
    folder = tmp_path_factory.mktemp("stand_ins")
    program = kernel_selftest.build(folder, "-DSPECDEC_STAND_INS=ON")
    done = subprocess.run([program], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "avx_vnni_int8" in done.stdout.splitlines()
