"""64-bit Arm: the kernels, cross-compiled, under an emulator."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_isa  # noqa: E402


def need(*names: str) -> str:
    """The first of these programs that is installed; skips with the reason when none is."""
    for name in names:
        found = shutil.which(name)
        if found is not None:
            return found
    pytest.skip(f"{names[0]} is not installed")


@pytest.fixture(scope="module")
def selftest(tmp_path_factory: pytest.TempPathFactory) -> str:
    cmake = need("cmake")
    need("ninja")
    need("aarch64-linux-gnu-g++")
    need("qemu-aarch64", "qemu-aarch64-static")
    build = tmp_path_factory.mktemp("aarch64")
    configure = [
        *(cmake, "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
        f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/cmake/aarch64-linux-gnu.cmake",
        # Without optimisation: the bits are the same, and building takes a fraction.
        *("-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O0", "-DSPECDEC_WERROR=ON"),
        f"-DCMAKE_PROJECT_INCLUDE={ROOT}/cmake/quick_build.cmake",
    ]
    for command in (
        configure,
        [cmake, "--build", str(build), "--target", "specdec_kernel_selftest"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return str(build / "specdec_kernel_selftest")


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
