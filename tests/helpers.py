"""Shared by the tests: where the test-only extension modules and the real models are."""

from __future__ import annotations

import importlib
import os
import pathlib
import shutil
import sys
from types import ModuleType

import pytest
from hypothesis import settings


def native(area: str) -> ModuleType:
    """The test-only extension module of one area; skips the caller when it was not built."""
    name = f"_testing_{area}"
    # What is named wins over what is installed: a build with sanitizers, say.
    for folder in os.environ.get("SPECDEC_TEST_MODULES", "").split(os.pathsep):
        if folder and folder not in sys.path:
            sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        pass
    try:
        return importlib.import_module(f"specdec_native.{name}")
    except ModuleNotFoundError:
        pytest.skip(
            f"{name} is not built: install with --config-settings=cmake.define.SPECDEC_TESTS=ON",
            allow_module_level=True,
        )


def examples(n: int) -> int:
    """For max_examples of a hypothesis test: n, and with SPECDEC_HYPOTHESIS=thorough as many times
    more as that profile has."""
    return n * settings().max_examples // settings.get_profile("usual").max_examples


def models_dir() -> pathlib.Path:
    """Where downloaded models are kept."""
    default = pathlib.Path.home() / ".cache" / "specdec-native" / "models"
    return pathlib.Path(os.environ.get("SPECDEC_MODELS", default))


def model_path(name: str) -> pathlib.Path:
    """A downloaded model; skips the caller with the reason when it is not there."""
    path = models_dir() / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


def specdec_binary() -> str:
    """The native program: SPECDEC_BIN, else beside this Python, else on PATH."""
    given = os.environ.get("SPECDEC_BIN")
    if given:
        return given
    beside = pathlib.Path(sys.executable).parent / "specdec"
    found = str(beside) if beside.exists() else shutil.which("specdec")
    if found is None:
        pytest.skip("the program `specdec` is not installed", allow_module_level=True)
    return found
