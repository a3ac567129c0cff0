"""The processor and the commit, for files of measurements.

Imports nothing of the package: scripts of a checkout load this file by its path.
"""

from __future__ import annotations

import pathlib
import platform
import subprocess


def cpu_name() -> str:
    try:
        for line in pathlib.Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """Of the checkout that the package runs from or was built in; "" outside of one."""
    here = pathlib.Path(__file__).resolve().parent
    for folder in (here, pathlib.Path.cwd()):
        if _is_ours(folder):
            text = _git(folder, "rev-parse", "--short=12", "HEAD")
            dirty = _git(folder, "status", "--porcelain", "--untracked-files=no")
            return text + ("+changes" if dirty else "")
    return ""


def _is_ours(folder: pathlib.Path) -> bool:
    top = _git(folder, "rev-parse", "--show-toplevel")
    return bool(top) and (pathlib.Path(top) / "python" / "specdec_native").is_dir()


def _git(folder: pathlib.Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
