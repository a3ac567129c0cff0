"""What a machine lacks, from a folder of wheels and without network or pip: they are unpacked into
a folder of this run. Where none of them is the package, it is built from this checkout."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Sequence

from .section import Missing

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "specdec_native"
TOOLKITS = ("/usr/local/cuda/bin", "/opt/cuda/bin")


def fits(name: str) -> bool:
    """Whether this Python can use a wheel of that name."""
    parts = pathlib.Path(name).stem.split("-")
    if len(parts) < 5:
        return False
    pythons, abis, platforms = (part.split(".") for part in parts[-3:])
    major, minor = sys.version_info[:2]
    ours = f"cp{major}{minor}"
    older = {f"cp{major}{i}" for i in range(2, minor + 1)} if "abi3" in abis else set()
    machine = sysconfig.get_platform().replace("-", "_").replace(".", "_").split("_", 1)[1]
    return (
        bool({f"py{major}", f"py{major}{minor}", ours, *older} & set(pythons))
        and bool({"none", "abi3", ours} & set(abis))
        and any(
            p == "any" or (p.startswith(("linux", "manylinux")) and p.endswith(f"_{machine}"))
            for p in platforms
        )
    )


def unpack(wheel: pathlib.Path, site: pathlib.Path) -> None:
    """Modules into `site`, programs into its bin."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        modes = {i.filename: i.external_attr >> 16 for i in archive.infolist()}
    for name, mode in modes.items():
        if mode & 0o111 and (site / name).is_file():
            (site / name).chmod(0o755)
    for data in site.glob("*.data"):
        for kind, target in (("purelib", site), ("platlib", site), ("scripts", site / "bin"),
                             ("data", site)):  # fmt: skip
            if (data / kind).is_dir():
                shutil.copytree(data / kind, target, dirs_exist_ok=True)
        for program in (data / "scripts").glob("*"):
            (site / "bin" / program.name).chmod(0o755)
        shutil.rmtree(data)


def run(command: Sequence[str], environment: dict[str, str], log: pathlib.Path) -> None:
    with log.open("a") as out:
        done = subprocess.run(command, env=environment, stdout=out, stderr=out, check=False)
    if done.returncode != 0:
        print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise Missing(f"building the package failed: {' '.join(map(str, command[:2]))}")


def build(site: pathlib.Path, environment: dict[str, str], emulated: bool) -> None:
    """The package of this checkout, with CUDA for this machine's GPU, into `site`."""
    path = environment["PATH"]
    lacking = [p for p in ("cmake", "ninja") if shutil.which(p, path=path) is None]
    if not emulated and not environment.get("CUDACXX") and shutil.which("nvcc", path=path) is None:
        lacking.append("nvcc")
    try:
        config = subprocess.run(
            [sys.executable, "-m", "pybind11", "--cmakedir"],
            env=environment, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
    except subprocess.CalledProcessError:
        lacking.append("pybind11")
    if lacking:
        raise Missing(
            f"none of the wheels is {PACKAGE}, and to build it {', '.join(lacking)} is missing"
        )
    folder = site.parent / "build"
    defines = {
        "CMAKE_BUILD_TYPE": "Release",
        "SPECDEC_PYTHON": "ON",
        "SPECDEC_TESTS": "ON",
        "SPECDEC_CUDA": "OFF" if emulated else "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": config,
    }
    if not emulated:
        defines["CMAKE_CUDA_ARCHITECTURES"] = "native"
    log = site.parent / "build.log"
    given = [f"-D{name}={value}" for name, value in defines.items()]
    run(["cmake", "-S", str(ROOT), "-B", str(folder), "-G", "Ninja", *given], environment, log)
    run(["cmake", "--build", str(folder)], environment, log)
    run(["cmake", "--install", str(folder), "--prefix", str(site)], environment, log)
    shutil.copytree(ROOT / "python" / PACKAGE, site / PACKAGE, dirs_exist_ok=True)


def prepare(folder: pathlib.Path, work: pathlib.Path, emulated: bool) -> dict[str, str]:
    """Unpacks what fits into `work`; the environment in which the check then finds it all."""
    found = sorted(folder.glob("*.whl"))
    usable = [wheel for wheel in found if fits(wheel.name)]
    if not usable:
        raise Missing(f"{folder} holds no wheels for this Python")
    site = work / "site"
    for wheel in usable:
        unpack(wheel, site)
    print(f"check_gpu: {len(usable)} of {len(found)} wheels unpacked", file=sys.stderr, flush=True)
    path = [str(site / "bin"), os.environ.get("PATH", os.defpath)]
    path += [toolkit for toolkit in TOOLKITS if pathlib.Path(toolkit).is_dir()]
    modules = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(modules),
    }
    if not (site / PACKAGE).is_dir():
        print("check_gpu: building the package", file=sys.stderr, flush=True)
        build(site, environment, emulated)
    if not (site / PACKAGE / "models").exists():
        (site / PACKAGE / "models").symlink_to(ROOT / "models")
    return environment
