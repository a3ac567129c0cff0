"""The kernels for many columns (AMX), on registers that are plain memory: the same bits as the
scalar ones. `standin_trapped` is the compiled code itself, whose tile instructions a signal handler
carries out. Where a machine has AMX, its own registers take part, too."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from test_matmul import FORMATS, random_weights

import weight_formats
from helpers import native

matmul = native("matmul")

ROOT = pathlib.Path(__file__).resolve().parents[2]
BLOCKED = weight_formats.BLOCKED
STANDINS = matmul.standins()
# And the real registers, where there are any.
KERNELS = [*STANDINS, *(isa for isa in matmul.isas() if isa == "amx_int8")]


@pytest.fixture(autouse=True)
def registers_are_given_back() -> Iterator[None]:
    yield
    assert matmul.n_configured() == 0


def bits(x: np.ndarray) -> np.ndarray:
    return x.view(np.uint32)


def wide_from(standin: str, name: str) -> int:
    """From how many rows on the kernels for many columns are used."""
    return matmul.wide_from(standin if standin in STANDINS else STANDINS[0], FORMATS[name][0])


def product(
    isa: str, name: str, shape: tuple[int, int], data: bytes, x: np.ndarray, n_threads: int = 1
) -> np.ndarray:
    return bits(matmul.Matmul(isa, n_threads).linear(FORMATS[name][0], *shape, data, x))


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("standin", KERNELS)
def test_every_number_of_rows_has_the_bits_of_the_scalar_kernels(standin: str, name: str) -> None:
    rng = np.random.default_rng(7)
    shape = (19, 768)
    data = random_weights(name, *shape, rng)
    x = rng.standard_normal((2 * matmul.max_wide_columns + 3, shape[1])).astype(np.float32)
    want = product("scalar", name, shape, data, x)
    for rows in (*range(1, 35), 47, 63, 64, 65, 67, 131):
        got = product(standin, name, shape, data, x[:rows])
        assert np.array_equal(got, want[:rows]), rows


@pytest.mark.parametrize("standin", STANDINS)
def test_a_thread_configures_its_registers_once_per_operation_and_only_for_many_rows(
    standin: str,
) -> None:
    data = random_weights("Q4_K", 64, 512, np.random.default_rng(6))
    x = np.ones((32, 512), np.float32)
    wide = wide_from(standin, "Q4_K")
    for rows, n_times in ((1, 0), (wide - 1, 0), (wide, 1), (16, 1), (32, 1)):
        before = matmul.n_configurations()
        product(standin, "Q4_K", (64, 512), data, x[:rows])
        assert matmul.n_configurations() - before == n_times, rows


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("standin", KERNELS)
def test_every_shape_and_number_of_threads_has_the_bits_of_the_scalar_kernels(
    standin: str, name: str
) -> None:
    rng = np.random.default_rng(8)
    wide = wide_from(standin, name)
    shapes = [(1, 256), (17, 256), (15, 512), (49, 1280), (130, 256)]
    if FORMATS[name][1] == 32:
        shapes += [(16, 32), (17, 96), (31, 288)]
    for shape in shapes:
        data = random_weights(name, *shape, rng)
        x = rng.standard_normal((33, shape[1])).astype(np.float32)
        x[3] *= 100
        x[4] = 0
        want = product("scalar", name, shape, data, x)
        for rows in (wide - 1, wide, 16, 17, 33):
            for n_threads in (1, 3):
                got = product(standin, name, shape, data, x[:rows], n_threads)
                assert np.array_equal(got, want[:rows]), (shape, rows, n_threads)


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("standin", KERNELS)
def test_extreme_codes_and_scales_do_not_overflow(standin: str, name: str) -> None:
    """The largest magnitude of every code and scale, and activations of +-127."""
    _, block, size = FORMATS[name]
    shape = (16, 1024)
    rows = np.random.default_rng(9).choice([-1.0, 1.0], (20, shape[1])).astype(np.float32)
    rows[0] = 1
    rows[1] = -1
    for fill in (0x00, 0xFF, 0x80, 0x7F, 0x55, 0x20, 0xDF):
        blocks = np.full((shape[0] * shape[1] // block, size), fill, dtype=np.uint8)
        # Halves of the codes are the others: sums of one sign and of both.
        blocks[::2, size // 2 :] ^= 0xFF
        if name == "MXFP4":
            blocks[:, 0] = 128
        for offset in weight_formats.FORMATS[name].halves:
            weight_formats.set_halves(blocks, offset, np.float16(1))
        want = product("scalar", name, shape, blocks.tobytes(), rows)
        got = product(standin, name, shape, blocks.tobytes(), rows)
        assert np.array_equal(got, want), hex(fill)


@pytest.mark.parametrize("standin", KERNELS)
def test_every_scale_with_every_code_of_q3_k_fits_its_one_byte(standin: str) -> None:
    """-4 .. 3 times -32 .. 31: minus the product is what fits, 128 would not."""
    rng = np.random.default_rng(10)
    shape = (64, 4096)
    blocks = rng.integers(0, 256, (shape[0] * shape[1] // 256, 110), dtype=np.uint8)
    blocks[::4, :96] = 0  # codes of -4 ...
    blocks[::8, 96:108] = 0  # ... with scales of -32
    weight_formats.set_halves(blocks, 108, np.ones(len(blocks), np.float16))
    x = np.ones((16, shape[1]), np.float32)
    want = product("scalar", "Q3_K", shape, blocks.tobytes(), x)
    assert np.array_equal(product(standin, "Q3_K", shape, blocks.tobytes(), x), want)


@pytest.mark.parametrize("standin", KERNELS)
def test_packed_and_unpacked_weights_have_the_same_bits(standin: str) -> None:
    rng = np.random.default_rng(11)
    x = rng.standard_normal((17, 512)).astype(np.float32)
    for name in BLOCKED:
        data = random_weights(name, 35, 512, rng)
        view = matmul.Matmul(standin, 2, repack=False)
        got = bits(view.linear(FORMATS[name][0], 35, 512, data, x))
        assert np.array_equal(got, product("scalar", name, (35, 512), data, x)), name


@pytest.mark.parametrize("standin", KERNELS)
@pytest.mark.parametrize("other", ["Q4_K", "Q6_K", "Q4_0", "Q5_1", "F16", "F32"])
def test_two_formats_in_one_operation_have_the_same_bits(standin: str, other: str) -> None:
    """Whose inputs are of one kind or two, of which one may have no wide kernels."""
    rng = np.random.default_rng(13)
    shape = (37, 512)
    gate = random_weights("Q4_K", *shape, rng)
    up = random_weights(other, *shape, rng)
    x = rng.standard_normal((67, shape[1])).astype(np.float32)
    types = FORMATS["Q4_K"][0], FORMATS[other][0]
    for first, second, data in ((0, 1, (gate, up)), (1, 0, (up, gate))):
        for rows in (5, 6, 7, 8, 9, 10, 31, 40, 67):
            call = (types[first], data[0], types[second], data[1], shape[0], x[:rows])
            want = matmul.Matmul("scalar", 2).gated(*call)
            got = matmul.Matmul(standin, 2).gated(*call)
            assert np.array_equal(bits(got), bits(want)), rows


@pytest.mark.parametrize("standin", KERNELS)
def test_what_is_not_finite_reaches_the_output(standin: str) -> None:
    rng = np.random.default_rng(12)
    for name in BLOCKED:
        data = random_weights(name, 16, 512, rng)
        x = rng.standard_normal((wide_from(standin, name), 512)).astype(np.float32)
        x[1, 300] = np.inf
        y = matmul.Matmul(standin, 1).linear(FORMATS[name][0], 16, 512, data, x)
        assert not np.isfinite(y[1]).any()
        assert np.isfinite(np.delete(y, 1, axis=0)).all()


@pytest.mark.parametrize("standin", STANDINS)
def test_the_self_check_finds_registers_that_multiply_wrongly(standin: str) -> None:
    assert matmul.self_check(standin)
    assert matmul.checked_isa(standin) == ("amx_int8", "")
    matmul.break_standins(True)
    try:
        assert not matmul.self_check(standin)
        isa, warning = matmul.checked_isa(standin)
    finally:
        matmul.break_standins(False)
    assert isa in ("scalar", "avx512_vnni")
    assert warning.startswith("amx_int8 gives other products")
    assert f"so {isa} is used" in warning


PROBE = """
#include <immintrin.h>
#include <cstdint>
#define SPECDEC_KERNELS here
#define SPECDEC_INLINE __attribute__((always_inline))
#include "backend/cpu/wide/tile_registers.h"
#include "backend/cpu/wide/amx_registers.h"
using R = specdec::here::Registers;
extern "C" void ours(void* p) {
  R::configure(*static_cast<specdec::TileConfig*>(p));
  R::zero<5>(); R::load<3>(p, 64); R::store<2>(p, 64);
  R::dot_su<0, 4, 6>(); R::dot_ss<1, 5, 7>(); R::release();
}
extern "C" void theirs(void* p) {
  _tile_loadconfig(p);
  _tile_zero(5); _tile_loadd(3, p, 64); _tile_stored(2, p, 64);
  _tile_dpbsud(0, 4, 6); _tile_dpbssd(1, 5, 7); _tile_release();
}
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="for x86-64")
def test_the_instructions_are_those_of_the_compilers_intrinsics(tmp_path: pathlib.Path) -> None:
    """Names, operands and their order."""
    compiler, objdump = os.environ.get("CXX") or shutil.which("g++"), shutil.which("objdump")
    if compiler is None or objdump is None:
        pytest.skip("g++ or objdump is not installed")
    source, binary = tmp_path / "probe.cc", tmp_path / "probe.o"
    source.write_text(PROBE)
    flags = ["-std=c++20", "-O1", "-mamx-tile", "-mamx-int8", f"-I{ROOT / 'cpp'}"]
    done = subprocess.run(
        [compiler, *flags, "-c", str(source), "-o", str(binary)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode != 0 and "-mamx" in done.stderr:
        pytest.skip("this compiler does not know AMX")
    assert done.returncode == 0, done.stderr
    text = subprocess.run(
        [objdump, "-d", "--no-show-raw-insn", str(binary)],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    functions = {
        name: re.findall(r"\t((?:tile|ldtile|tdp)\w+.*?)\s*$", body, re.M)
        for name, body in re.findall(r"<(\w+)>:\n(.*?)(?:\n\n|\Z)", text, re.S)
    }
    assert len(functions["ours"]) == 7
    assert functions["ours"] == functions["theirs"]


@pytest.mark.parametrize("standin", STANDINS)
def test_one_layout_serves_all_formats_of_an_operation(standin: str) -> None:
    """That of many columns only where it is the faster one for each of them."""
    assert matmul.wide_from(standin, FORMATS["F16"][0]) > matmul.max_wide_columns
    rows = wide_from(standin, "Q4_K")
    assert rows < wide_from(standin, "Q6_K")
    rng = np.random.default_rng(14)
    shape = (32, 512)
    x = rng.standard_normal((rows, shape[1])).astype(np.float32)
    data = {name: random_weights(name, *shape, rng) for name in ("Q4_K", "Q5_K", "Q6_K")}
    for up, n_times in (("Q5_K", 1), ("Q6_K", 0)):
        before = matmul.n_configurations()
        call = (FORMATS["Q4_K"][0], data["Q4_K"], FORMATS[up][0], data[up], shape[0], x)
        matmul.Matmul(standin, 1).gated(*call)
        assert matmul.n_configurations() - before == n_times, up


@pytest.mark.parametrize("repack", [True, False])
@pytest.mark.parametrize("isa", [isa for isa in matmul.isas() if isa != "scalar"])
def test_groups_of_rows_that_take_turns_have_the_same_bits(isa: str, repack: bool) -> None:
    """Inputs of 1.4 MB, more than half of most second caches: each group does a whole chunk."""
    rng = np.random.default_rng(15)
    shape = (600, 2560)  # so many that a chunk has several tile rows
    names = ("Q4_K", "Q6_K")
    gate, up = (random_weights(name, *shape, rng) for name in names)
    x = rng.standard_normal((530, shape[1])).astype(np.float32)
    call = (FORMATS[names[0]][0], gate, FORMATS[names[1]][0], up, shape[0], x)
    each = [(*call[:5], x[i : i + 8]) for i in (0, 264, 522)]  # one group of rows, no turns
    whole = bits(matmul.Matmul(isa, 1, repack=repack).gated(*call))
    alone = [bits(matmul.Matmul("scalar", 1).gated(*part)) for part in each]
    assert np.array_equal(
        np.concatenate([whole[i : i + 8] for i in (0, 264, 522)]), np.concatenate(alone)
    )
