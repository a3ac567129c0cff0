"""No instruction outside of its set's own functions: tools/check_isa.py on what was built here, and
on small faults of every kind."""

from __future__ import annotations

import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

import pytest

from helpers import specdec_binary

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_isa  # noqa: E402

x86 = pytest.mark.skipif(platform.machine() != "x86_64", reason="for x86-64")


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def build_id(binary: pathlib.Path) -> str:
    command = [need("objdump"), "-s", "-j", ".note.gnu.build-id", str(binary)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "".join(re.findall(r"^ [0-9a-f]+ ([0-9a-f ]{35})", done.stdout, re.M))


def build_folder() -> pathlib.Path:
    """Where the installed program was built. That one may be stripped; this has all symbols."""
    wanted = build_id(pathlib.Path(specdec_binary()))
    if not wanted:
        pytest.skip("the installed program has no build id to find its build folder by")
    for program in sorted(ROOT.glob("build/*/cpp/cli/specdec")):
        if build_id(program) == wanted:
            return program.parents[2]
    pytest.skip("no folder in build/ holds the objects of the installed program")


@x86
@pytest.mark.parametrize("linked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_was_built_here_needs_no_more_than_x86_64_outside_of_its_kernels(linked: bool) -> None:
    """In objects, each copy of an inline function is still there; programs are made of them."""
    folder = build_folder()
    flags = re.search(r"^CMAKE_CXX_FLAGS:\S*=(.*)", (folder / "CMakeCache.txt").read_text(), re.M)
    if flags is not None and re.search(r"-m(?:arch|cpu|avx|sse|fma|bmi)", flags[1]):
        pytest.skip(f"built for one processor: CXXFLAGS is {flags[1]!r}")
    files = list(check_isa.binaries([folder / "cpp"]))
    names = {file.name.split(".")[0] for file in files}
    assert {"specdec", "_core", "pack_avx512", "matmul_avx2_q32", "ops_avx2"} <= names
    files = [file for file in files if (file.suffix != ".o") == linked]
    report = check_isa.check(need("objdump"), files)
    assert [str(finding) for finding in report.findings] == []
    # It did see the kernels.
    assert {"avx2", "fma", "f16c"} <= report.used["avx2"]
    assert "avxvnni" in report.used["avxvnni"]
    if "matmul_avxvnniint8_q32" in names:  # not every compiler knows it
        assert "avxvnniint8" in report.used["avxvnniint8"]
    assert "avx512" in report.used["avx512"]
    assert {"avx512", "amx"} <= report.used["amx"]


@x86
def test_what_a_region_may_use_is_checked_before_it_runs() -> None:
    target = (ROOT / "cpp/backend/cpu/target.h").read_text()
    check = (ROOT / "cpp/base/cpu_isa.cc").read_text()
    asked = set(re.findall(r'\bneed\([^;]*, "([\w-]+)"\);', check))
    regions = re.findall(r'GCC target\(\s*(?:\\\s*)?"([^"]+)"', target)
    x86_features = {f for region in regions for f in region.split(",") if "=" not in f}
    assert {"avx2", "avxvnni", "avx512vnni", "amx-int8"} <= x86_features <= asked


# name: (flags, source, what a finding must hold)
FAULTS = {
    # Templates that a wide file is the first, or the only one, to use: weak, for everybody.
    "standard templates": (
        "-O1 -mavx512f -mavx512vl",
        "#include <vector>\nnamespace specdec::avx512 {\n"
        "void kernel(std::vector<double>& v, double* x) {\n"
        "  v.push_back(x[0] * x[1]); v.resize(v.size() * 2, x[2]);\n}\n}\n",
        r": _ZNSt\w*6vector\w*: v\w+ \(avx(?:2|512)\) outside",
    ),
    "an inline function of a shared header": (
        "-O0 -mavx2",
        "namespace specdec {\ninline float twice(float x) { return 2 * x; }\n"
        "namespace avx2 { float kernel(float x) { return twice(x); } }\n}\n",
        r": _ZN7specdec5twiceEf: v\w+ \(avx2\) outside",
    ),
    "a header included inside a region": (
        "-O0",
        '#pragma GCC push_options\n#pragma GCC target("avx512f")\n'
        "namespace specdec { inline double half(double x) { return x / 2; } }\n"
        "namespace specdec::avx512 { double kernel(double x) { return half(x); } }\n"
        "#pragma GCC pop_options\n",
        r": _ZN7specdec4halfEd: v\w+ \(avx2\) outside",
    ),
    "a static initialiser": (
        "-O2 -mavx512f",
        "namespace specdec::avx512 {\nstruct Table { float x[16]; };\nextern float seed;\n"
        "Table table = {seed, seed, seed, seed};\n}\n",
        r": _GLOBAL__sub_I_\w+: v\w+ \(avx",
    ),
    "a table filled by the set's own code": (
        "-O2",
        "namespace specdec {\nnamespace avx512 { void fill_pack(void** table); }\n"
        "void* const* kernels() {\n  static void* table[8];\n"
        "  avx512::fill_pack(table);\n  return table;\n}\n}\n",
        r": calls _ZN7specdec6avx5129fill_packEPPv without a table",
    ),
    "more than the set's check asks for": (
        "-O2 -mavx512f",
        "namespace specdec::avx2 {\nvoid kernel(float* x) {\n"
        "  for (int i = 0; i < 16; ++i) x[i] = __builtin_fmaf(x[i], x[i], x[i]);\n"
        '  asm volatile("vpaddd %%zmm0, %%zmm0, %%zmm0" ::: "xmm0");\n}\n}\n',
        r": _ZN7specdec4avx26kernelEPf: vpaddd \(avx512\) is not what",
    ),
    "a count of bits": (
        "-O2 -mpopcnt",
        "namespace specdec { int count(unsigned x) { return __builtin_popcount(x); } }\n",
        r": _ZN7specdec5countEj: popcnt \(popcnt\) outside",
    ),
    "byte shuffles": (
        "-O2 -mssse3",
        "typedef char V [[gnu::vector_size(16)]];\n"
        "namespace specdec { V pick(V x, V y) { return __builtin_shuffle(x, y & 15); } }\n",
        r": _ZN7specdec4pick\w+: pshufb \(ssse3\) outside",
    ),
    "registers of matrices": (
        "-O2",
        'namespace specdec::avx512 { void rest() { asm volatile("tilerelease"); } }\n',
        r": _ZN7specdec6avx5124restEv: tilerelease \(amx\) is not what",
    ),
    "shifts by another register": (
        "-O2 -mbmi2",
        "namespace specdec { long shift(long x, long n) { return x << n; } }\n",
        r": _ZN7specdec5shiftEll: shlx \(bmi2\) outside",
    ),
}


def compile_object(folder: pathlib.Path, flags: str, source: str) -> pathlib.Path:
    compiler = os.environ.get("CXX") or need("g++")
    file = folder / "part.cc"
    file.write_text(source)
    command = [compiler, "-std=c++20", *flags.split(), "-c", str(file), "-o", f"{file}.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return pathlib.Path(f"{file}.o")


@x86
@pytest.mark.parametrize("name", FAULTS)
def test_a_leak_is_found(name: str, tmp_path: pathlib.Path) -> None:
    flags, source, expected = FAULTS[name]
    report = check_isa.check(need("objdump"), [compile_object(tmp_path, flags, source)])
    findings = "\n".join(str(finding) for finding in report.findings)
    assert re.search(expected, findings), findings or "nothing was found"


@x86
def test_kernels_behind_a_table_are_no_leak(tmp_path: pathlib.Path) -> None:
    source = (
        "namespace specdec {\nusing Kernel = float (*)(const float*);\n"
        'namespace avx2 { [[gnu::target("avx2,fma")]] float dot(const float* x) {\n'
        "  return __builtin_fmaf(x[0], x[1], x[2]); } }\n"
        "namespace scalar { float dot(const float* x) { return x[0] * x[1] + x[2]; } }\n"
        "constinit const Kernel kTable[] = {scalar::dot, avx2::dot};\n"
        "float run(int isa, const float* x) { return kTable[isa](x); }\n}\n"
    )
    report = check_isa.check(need("objdump"), [compile_object(tmp_path, "-O2", source)])
    assert report.findings == {}
    assert report.used == {"avx2": {"avx2", "fma"}} or report.used == {"avx2": {"fma"}}


@pytest.mark.parametrize(
    "symbol, space",
    [
        ("_ZN7specdec6avx51210kMatmulQ32E", "avx512"),
        ("_ZZN7specdec4avx2L4packEPvENKUlvE_clEv", "avx2"),
        ("_ZN7specdec4avx2mlENS0_6F32x16ES1_", "avx2"),
        ("_ZN7specdec3amx5leaveINS0_9RegistersEEEvv", "amx"),
        ("_ZN7specdec7avxvnniL8tile_q32ILi3EEEvv", "avxvnni"),
        ("_ZN7specdec11avxvnniint88tile_q32ILi3EEEvv", "avxvnniint8"),
        ("_ZN7specdec4i8mm8tile_q32ILi3EEEvv", "i8mm"),
        ("_ZN7specdec4fillINS_6avx5126F32x16EEEvv", ""),  # a template for it, not in it
        ("_ZNSt6vectorIN7specdec6avx5125TableEE9push_backEv", ""),
        ("_GLOBAL__sub_I__ZN7specdec6avx51210kMatmulQ32E", ""),
        ("_ZN7specdec11avx512_pickEv", ""),
        ("main", ""),
    ],
)
def test_names_tell_the_namespace(symbol: str, space: str) -> None:
    assert check_isa.namespace_of(symbol) == space
