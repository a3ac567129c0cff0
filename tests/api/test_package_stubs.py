"""The stub of the extension module is what pybind11-stubgen makes of it.

After a change of the bindings install the new build and run
``python tests/api/test_package_stubs.py --write``.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import tempfile

STUB = pathlib.Path(__file__).resolve().parents[2] / "python/specdec_native/_core.pyi"


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "specdec_native._core", "-o", folder],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0 or "ERROR" in done.stderr:
            raise RuntimeError(done.stderr)
        return (pathlib.Path(folder) / "specdec_native" / "_core.pyi").read_text("utf-8")


def test_the_stub_is_fresh():
    import pytest

    pytest.importorskip("specdec_native", reason="the package is not installed")
    pytest.importorskip("pybind11_stubgen", reason="pybind11-stubgen is not installed")
    assert generate() == STUB.read_text("utf-8"), (
        "run: python tests/api/test_package_stubs.py --write"
    )


if __name__ == "__main__" and sys.argv[1:] == ["--write"]:
    STUB.write_text(generate(), "utf-8")
