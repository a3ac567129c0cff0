"""Builds the native program and the kernels' self-test for other systems, with zig.

    pip install ziglang cmake ninja
    python tools/cross_build.py                    # for every system below
    python tools/cross_build.py macos-arm64 --build /tmp/cross --warnings-as-errors

The package `ziglang` brings clang, libc++ and the headers and libraries of glibc (any version) and
macOS, so nothing of those systems is needed. What is built for Linux on 64-bit Arm can be run with
qemu-aarch64. `tools/build_wheels.py` builds wheels with the same toolchains.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import pathlib
import shlex
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[1]
GLIBC = "2.17"  # that of manylinux2014


@dataclass(frozen=True)
class System:
    """What a program is built for."""

    zig_target: str
    cmake_system: str
    cmake_processor: str
    programs: tuple[str, ...]


_PROGRAMS = ("specdec", "specdec_kernel_selftest")
SYSTEMS = {
    "linux-x86_64": System(f"x86_64-linux-gnu.{GLIBC}", "Linux", "x86_64", _PROGRAMS),
    "linux-aarch64": System(f"aarch64-linux-gnu.{GLIBC}", "Linux", "aarch64", _PROGRAMS),
    "macos-arm64": System("aarch64-macos.13.3", "Darwin", "arm64", _PROGRAMS),
}


def zig() -> pathlib.Path:
    """The compiler of the package `ziglang`, or `zig` on PATH."""
    spec = importlib.util.find_spec("ziglang")
    if spec is not None and spec.submodule_search_locations:
        return pathlib.Path(spec.submodule_search_locations[0]) / "zig"
    found = shutil.which("zig")
    if found is None:
        raise SystemExit("no zig: `pip install ziglang`")
    return pathlib.Path(found)


def toolchain(name: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes compilers for a system of SYSTEMS as programs, and a toolchain file for CMake.

    Returns:
        the toolchain file.
    """
    system = SYSTEMS[name]
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for tool, arguments in {
        "cc": ["cc", "-target", system.zig_target],
        "c++": ["c++", "-target", system.zig_target],
        "ar": ["ar"],
        "ranlib": ["ranlib"],
    }.items():
        script = folder / tool
        command = shlex.join([str(zig()), *arguments])
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n', "utf-8")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    lines = [
        f"set(CMAKE_SYSTEM_NAME {system.cmake_system})",
        f"set(CMAKE_SYSTEM_PROCESSOR {system.cmake_processor})",
        f'set(CMAKE_C_COMPILER "{folder}/cc")',
        f'set(CMAKE_CXX_COMPILER "{folder}/c++")',
        f'set(CMAKE_AR "{folder}/ar")',
        f'set(CMAKE_RANLIB "{folder}/ranlib")',
        # zig has a linker of its own, and looks for libraries where the target has them.
        "set(CMAKE_LINK_DEPENDS_USE_LINKER OFF)",
        "set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)",
    ]
    file = folder / "toolchain.cmake"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def build(name: str, folder: pathlib.Path, jobs: int, options: list[str]) -> list[pathlib.Path]:
    """Configures and builds for one system; the programs' paths."""
    system = SYSTEMS[name]
    file = toolchain(name, folder / "toolchain" / name)
    out = folder / name
    configure = [
        "cmake",
        "-S",
        str(ROOT),
        "-B",
        str(out),
        "-G",
        "Ninja",
        "-DCMAKE_BUILD_TYPE=Release",
    ]
    subprocess.run([*configure, f"-DCMAKE_TOOLCHAIN_FILE={file}", *options], check=True)
    command = ["cmake", "--build", str(out), "--parallel", str(jobs), "--target"]
    subprocess.run([*command, *system.programs], check=True)
    return sorted(p for p in out.rglob("*") if p.name in system.programs and p.is_file())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", choices=[*SYSTEMS, []], help="default: all")
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "cross")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--warnings-as-errors", action="store_true")
    args = parser.parse_args(arguments)
    options = ["-DSPECDEC_WERROR=ON"] if args.warnings_as_errors else []
    for name in args.systems or SYSTEMS:
        for path in build(name, args.build, args.jobs, options):
            print(f"{name}: {path} ({path.stat().st_size / 1e6:.1f} MB)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
