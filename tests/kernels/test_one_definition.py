"""The preset `odr` finds names with two definitions; here it must find those planted for it."""

from __future__ import annotations

import pathlib
import platform
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
OPTIONS = "-O0 -flto -ffat-lto-objects"  # as cmake/specdec.cmake sets them
PROJECT = f"""
cmake_minimum_required(VERSION 3.25)
project(pair LANGUAGES CXX)
set(CMAKE_CXX_FLAGS "{OPTIONS}")
set(CMAKE_CXX_STANDARD 20)
list(APPEND CMAKE_MODULE_PATH "{ROOT / "cmake"}")
add_library(one STATIC one.cc)
add_subdirectory(deeper)
include(odr)
specdec_add_odr_check()
"""
# Code of two units, the function of each that is kept, and what is said.
PART = "struct Part { int a = 1; }; inline int size(Part p) { return p.a; }"
SUM = "inline float sum(std::vector<float>& v) { return v[0] * v[1] + v[2]; }"
CASES = {
    "the same twice": (PART, PART, ("size", "size"), ""),
    "two structs": (
        "#include <string>\nstruct Part { std::string name; }; inline int one(Part*) { return 1; }",
        "struct Part { const char* name; int n; }; inline int two(Part*) { return 1; }",
        ("one", "two"),
        "violates the C++ One Definition Rule",
    ),
    "a macro changes an inline function": (
        "#define FACTOR 3\ninline int scale(int x) { return x * FACTOR; }",
        "#define FACTOR 4\ninline int scale(int x) { return x * FACTOR; }",
        ("scale", "scale"),
        "scale(int) (_Z5scalei) is not the same everywhere",
    ),
    "a template is instantiated where more instructions are allowed": (
        f"#include <vector>\n{SUM}",
        f'#include <vector>\n#pragma GCC push_options\n#pragma GCC target("avx2,fma")\n{SUM}\n'
        "#pragma GCC pop_options",
        ("sum", "sum"),
        "is not the same everywhere",
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """Configured once; each case writes its own code into it."""
    if not shutil.which("cmake") or not shutil.which("ninja") or not shutil.which("g++"):
        pytest.skip("needs cmake, ninja and g++")
    folder = tmp_path_factory.mktemp("pair")
    (folder / "deeper").mkdir()
    (folder / "CMakeLists.txt").write_text(PROJECT)
    (folder / "deeper" / "CMakeLists.txt").write_text("add_library(two STATIC two.cc)\n")
    for name in ("one.cc", "deeper/two.cc"):
        (folder / name).touch()
    subprocess.run(
        ["cmake", "-S", folder, "-B", folder / "build", "-G", "Ninja", "-DCMAKE_CXX_COMPILER=g++"],
        check=True,
        capture_output=True,
    )
    return folder


@pytest.mark.parametrize("case", CASES)
def test_two_definitions_of_one_name_are_found(project, case):
    first, second, used, message = CASES[case]
    if "target(" in second and platform.machine() != "x86_64":
        pytest.skip("instructions of x86")
    (project / "one.cc").write_text(f"{first}\nauto* keep_one = &{used[0]};\n")
    (project / "deeper" / "two.cc").write_text(f"{second}\nauto* keep_two = &{used[1]};\n")
    build = project / "build"
    shutil.rmtree(build / "CMakeFiles" / "one.dir", ignore_errors=True)
    shutil.rmtree(build / "deeper" / "CMakeFiles" / "two.dir", ignore_errors=True)
    done = subprocess.run(
        ["cmake", "--build", build, "--target", "odr"], capture_output=True, text=True, check=False
    )
    text = done.stdout + done.stderr
    assert (done.returncode != 0) == bool(message), text
    assert message in text
