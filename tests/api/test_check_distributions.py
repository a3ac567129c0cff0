"""tools/check_distributions.py: what must not be published is found."""

from __future__ import annotations

import io
import os
import pathlib
import sys
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import check_distributions as tool  # noqa: E402

SDIST = [
    "CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml", "python/specdec_native/__init__.py",
    "cpp/bindings/module.cc", "tests/helpers.py", "models/README.md",
]  # fmt: skip
WHEEL = [
    "specdec_native/__init__.py", "specdec_native/py.typed", "specdec_native/_core.pyi",
    "specdec_native/server/page/app.js", "specdec_native/_core.cpython-312-x86_64-linux-gnu.so",
    "specdec_native-0.2.0.data/scripts/specdec", "specdec_native-0.2.0.dist-info/METADATA",
    "specdec_native-0.2.0.dist-info/licenses/LICENSE",
]  # fmt: skip


def sdist(folder: pathlib.Path, names: list[str], padding: int = 0) -> pathlib.Path:
    path = folder / "specdec_native-0.2.0.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            info = tarfile.TarInfo(f"specdec_native-0.2.0/{name}")
            info.size = padding
            tar.addfile(info, io.BytesIO(os.urandom(padding)))
    return path


def wheel(
    folder: pathlib.Path, names: list[str], name: str = "specdec_native-0.2.0"
) -> pathlib.Path:
    path = folder / f"{name}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member in names:
            archive.writestr(member, b"x")
    return path


def test_what_is_right_passes(tmp_path: pathlib.Path) -> None:
    files = [sdist(tmp_path, SDIST), wheel(tmp_path, WHEEL)]
    assert [tool.check(path) for path in files] == [[], []]
    assert tool.main([str(path) for path in files]) == 0


@pytest.mark.parametrize(
    "name", ["models/a.gguf", "build/x", "dist/y.whl", "python/specdec_native/_core.so"]
)
def test_a_source_distribution_holds_neither_models_nor_outputs(
    name: str, tmp_path: pathlib.Path
) -> None:
    assert tool.check(sdist(tmp_path, [*SDIST, name])) == [f"holds {name}"]
    assert tool.main([str(tmp_path / "specdec_native-0.2.0.tar.gz")]) == 1


def test_a_source_distribution_is_small_and_complete(tmp_path: pathlib.Path) -> None:
    assert "more than 3000000" in tool.check(sdist(tmp_path, SDIST, 400_000))[0]
    assert tool.check(sdist(tmp_path, SDIST[1:])) == [f"lacks {SDIST[0]}"]


@pytest.mark.parametrize(
    "name",
    [
        "specdec_native/models/a.gguf", "specdec_native/models/card.md", "specdec_native/base.h",
        "specdec_native/_testing_base.cpython-312-x86_64-linux-gnu.so", "include/specdec.h",
        "tests/helpers.py",
    ],
)  # fmt: skip
def test_a_wheel_holds_nothing_else(name: str, tmp_path: pathlib.Path) -> None:
    assert tool.check(wheel(tmp_path, [*WHEEL, name])) == [f"holds {name}"]


@pytest.mark.parametrize(
    "missing, said", [(4, "the extension"), (5, "the native program"), (7, "the licence")]
)
def test_a_wheel_is_complete(missing: int, said: str, tmp_path: pathlib.Path) -> None:
    names = [name for i, name in enumerate(WHEEL) if i != missing]
    assert tool.check(wheel(tmp_path, names)) == [f"lacks {said}"]


def test_the_wheel_of_models_holds_those_of_the_checkout(tmp_path: pathlib.Path) -> None:
    models = tmp_path / "models"
    models.mkdir()
    (models / "a.gguf").write_bytes(b"x")
    inside = ["specdec_native_models/__init__.py", "specdec_native_models/a.gguf"]
    path = wheel(tmp_path, inside, "specdec_native_models-1.0.0")
    assert tool.check(path, models) == []
    (models / "a.gguf").write_bytes(b"y")
    assert "holds another a.gguf" in tool.check(path, models)[0]
    (models / "b.gguf").write_bytes(b"y")
    assert tool.check(path, models)[1] == "lacks b.gguf"
    path = wheel(tmp_path, [*inside, "specdec_native_models/run.py"], "specdec_native_models-1.0.0")
    assert "holds run.py" in tool.check(path, models)


def test_anything_else_is_not_published(tmp_path: pathlib.Path) -> None:
    path = wheel(tmp_path, WHEEL, "other-1.0")
    assert tool.check(path) == ["is nothing that this project publishes"]
