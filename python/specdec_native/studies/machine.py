"""What a reader must know to compare figures, and nothing about whose machine it is."""

from __future__ import annotations

import os
import platform
import time
from typing import Any

from .. import info
from .checkout import commit, cpu_name


def facts() -> dict[str, Any]:
    """Columns that every row of a study has."""
    built = info()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "version": built["version"],
        "commit": commit(),
        "compiler": built.get("compiler", ""),
        "python": platform.python_version(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "isa": built["cpu_isa"],
    }


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
