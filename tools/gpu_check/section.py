"""What all sections share: the native module, saving as one goes, a time limit."""

from __future__ import annotations

import importlib
import json
import pathlib
import statistics
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

MODULE = "specdec_native._testing_gpu_check"
DEFAULT_CACHE_BYTES = 64 << 20  # where the device does not tell


class Missing(Exception):
    """What the check needs and this machine has not, in one line."""


def native() -> ModuleType:
    try:
        return importlib.import_module(MODULE)
    except ModuleNotFoundError:
        raise Missing(
            "the package is not built for checks: pip install . -C cmake.define.SPECDEC_CUDA=ON "
            "-C cmake.define.SPECDEC_TESTS=ON, or --wheels FOLDER"
        ) from None


def require_gpu(module: ModuleType) -> dict[str, Any]:
    """The first GPU; Missing says why there is none."""
    devices, reason, toolkit = module.cuda_devices()
    if not toolkit:
        raise Missing(
            "the package was built without CUDA: pip install . -C cmake.define.SPECDEC_CUDA=ON "
            "-C cmake.define.SPECDEC_TESTS=ON"
        )
    if not devices:
        raise Missing(f"no usable GPU: {reason}")
    return {**devices[0], "toolkit": toolkit}


class Report:
    """Findings of a section, on disk after every step."""

    def __init__(self, path: pathlib.Path, seconds: float) -> None:
        self.path = path
        self.end = time.monotonic() + seconds
        self.data: dict[str, Any] = {"errors": [], "skipped": []}
        self.save()

    def save(self) -> None:
        temporary = self.path.with_suffix(".part")
        temporary.write_text(json.dumps(self.data), "utf-8")
        temporary.replace(self.path)

    def add(self, key: str, value: Any) -> None:
        """One more entry of the list `key`."""
        self.data.setdefault(key, []).append(value)
        self.save()

    def set(self, key: str, value: Any) -> None:
        self.data[key] = value
        self.save()

    def error(self, what: str, problem: object) -> None:
        self.add("errors", f"{what}: {problem}")

    def late(self, what: str) -> bool:
        """Whether the time is over; then `what` is noted as skipped."""
        if time.monotonic() < self.end:
            return False
        self.add("skipped", f"{what}: no time left")
        return True


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def ratio(a: float | None, b: float | None) -> float | None:
    return a / b if a and b else None
