"""64-bit Arm: the kernels, cross-compiled, under an emulator."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import kernel_selftest
from kernel_selftest import need

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_isa  # noqa: E402


@pytest.fixture(scope="module")
def selftest(tmp_path_factory: pytest.TempPathFactory) -> str:
    need("aarch64-linux-gnu-g++")
    need("qemu-aarch64", "qemu-aarch64-static")
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/cmake/aarch64-linux-gnu.cmake"
    return kernel_selftest.build(tmp_path_factory.mktemp("aarch64"), toolchain)


def run(selftest: str, cpu: str, **environment: str) -> subprocess.CompletedProcess[str]:
    qemu = need("qemu-aarch64", "qemu-aarch64-static")
    return subprocess.run(
        [qemu, "-cpu", cpu, selftest],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, **environment},
    )


def test_neon_kernels_give_the_bits_of_the_scalar_ones(selftest: str) -> None:
    done = run(selftest, "max")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[:3] == ["scalar", "neon_dotprod", "neon_i8mm"]


def test_without_products_of_matrices_the_dot_products_stay(selftest: str) -> None:
    done = run(selftest, "cortex-a76")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[:2] == ["scalar", "neon_dotprod"]
    assert "neon_i8mm" not in done.stdout


def test_without_the_dot_product_instructions_only_scalar_code_is_offered(selftest: str) -> None:
    done = run(selftest, "cortex-a53")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "neon" not in done.stdout


def test_no_later_instruction_lies_outside_of_the_neon_kernels(selftest: str) -> None:
    objdump = need("aarch64-linux-gnu-objdump")
    report = check_isa.check(objdump, check_isa.binaries([pathlib.Path(selftest).parent]))
    assert [str(finding) for finding in report.findings] == []
    assert "dotprod" in report.used["neon"]
    assert "i8mm" in report.used["i8mm"]
