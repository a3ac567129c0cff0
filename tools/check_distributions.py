"""Checks what is to be published: contents and size of source distributions and wheels.

    python tools/check_distributions.py dist/*

The source distribution stays under 3 MB and holds no models; a wheel of specdec-native holds
neither models nor test modules nor sources; the wheel of specdec-native-models holds the models of
this checkout, bit by bit.
"""

from __future__ import annotations

import argparse
import hashlib
import pathlib
import re
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
MAX_SDIST_BYTES = 3_000_000
MAX_WHEEL_BYTES = 12_000_000
# Of an installed package; *.py of its own folder, the extension, the native program, the metadata.
_IN_WHEEL = re.compile(
    r"specdec_native/(?:[\w/]+/)?[\w.]+\.(?:py|pyi|js|css|html|svg|ico|json|txt)|specdec_native/py\.typed"
    r"|specdec_native/_core\.[\w.-]+\.so|specdec_native-[\w.]+\.data/scripts/specdec"
    r"|specdec_native-[\w.]+\.dist-info/[\w./]+"
)


def check_sdist(path: pathlib.Path) -> list[str]:
    """What is wrong with a source distribution."""
    with tarfile.open(path) as tar:
        names = [member.name.partition("/")[2] for member in tar if member.isfile()]
    problems = []
    if path.stat().st_size > MAX_SDIST_BYTES:
        problems.append(f"has {path.stat().st_size} bytes, more than {MAX_SDIST_BYTES}")
    outputs = r".*\.(gguf|so|a|o|pyc)|(build|dist)/.*"
    problems += [f"holds {name}" for name in names if re.fullmatch(outputs, name)]
    needed = ["CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml"]
    needed += ["python/specdec_native/__init__.py", "cpp/bindings/module.cc", "tests/helpers.py"]
    return problems + [f"lacks {name}" for name in needed if name not in names]


def check_wheel(path: pathlib.Path) -> list[str]:
    """What is wrong with a wheel of specdec-native."""
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
    problems = []
    if path.stat().st_size > MAX_WHEEL_BYTES:
        problems.append(f"has {path.stat().st_size} bytes, more than {MAX_WHEEL_BYTES}")
    problems += [f"holds {n}" for n in names if not _IN_WHEEL.fullmatch(n) or "_testing" in n]
    needed = {
        "the extension": r"specdec_native/_core\..*\.so",
        "the native program": r".*/scripts/specdec",
        "the licence": r".*/licenses/LICENSE",
        "py.typed": r"specdec_native/py\.typed",
    }
    return problems + [
        f"lacks {what}"
        for what, form in needed.items()
        if not any(re.fullmatch(form, n) for n in names)
    ]


def check_models(path: pathlib.Path, models: pathlib.Path) -> list[str]:
    """What is wrong with a wheel of specdec-native-models, made from the folder `models`."""
    problems = []
    with zipfile.ZipFile(path) as archive:
        inside = {name.rpartition("/")[2]: name for name in archive.namelist()}
        for file in sorted(models.glob("*.gguf")):
            if file.name not in inside:
                problems.append(f"lacks {file.name}")
            elif _sha256(archive.read(inside[file.name])) != _sha256(file.read_bytes()):
                problems.append(f"holds another {file.name} than {models}")
    code = [name for name in inside if name.endswith((".py", ".so")) and name != "__init__.py"]
    return problems + [f"holds {name}" for name in code]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def check(path: pathlib.Path, models: pathlib.Path = ROOT / "models") -> list[str]:
    """What is wrong with a file, whichever of them it is."""
    if path.name.startswith("specdec_native_models-") and path.suffix == ".whl":
        return check_models(path, models)
    if path.name.startswith("specdec_native-") and path.suffix == ".whl":
        return check_wheel(path)
    if path.name.startswith("specdec_native-") and path.name.endswith(".tar.gz"):
        return check_sdist(path)
    return ["is nothing that this project publishes"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("files", nargs="+", type=pathlib.Path, metavar="FILE")
    args = parser.parse_args(arguments)
    failed = False
    for path in args.files:
        problems = check(path)
        failed |= bool(problems)
        print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB", *problems[:20], sep="\n  ")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
