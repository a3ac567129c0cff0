"""The formats that the project's own quantiser makes, from a file with plain weights."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess

from .errors import ConvertError, short
from .parts import Limits


def _from_python(
    source: pathlib.Path, output: pathlib.Path, outtype: str, limits: Limits
) -> list[pathlib.Path] | None:
    try:
        import specdec_native
    except ImportError:
        return None
    quantize = getattr(specdec_native, "quantize", None)
    if quantize is None:
        return None
    try:
        done = quantize(
            source,
            output,
            outtype,
            overwrite=True,
            on_progress=lambda share: None,  # with a callback, signals end the run early
            split_max_size=f"{limits.max_bytes // 1000}K" if limits.max_bytes else None,
            split_max_tensors=limits.max_tensors or None,
        )
    except Exception as error:
        raise ConvertError(f"specdec_native.quantize failed: {short(error, 500)}") from None
    return [pathlib.Path(path) for path in done.files]


def is_available() -> bool:
    try:
        import specdec_native

        if hasattr(specdec_native, "quantize"):
            return True
    except ImportError:
        pass
    binary = shutil.which("specdec")
    if binary is None:
        return False
    done = subprocess.run([binary, "quantize", "--help"], capture_output=True)
    return done.returncode == 0


def quantize(
    source: pathlib.Path, output: pathlib.Path, outtype: str, limits: Limits
) -> list[pathlib.Path]:
    """Makes `output` of `source`, or its parts, and returns them; `outtype` as Q4_K_M."""
    written = _from_python(source, output, outtype, limits)
    if written is not None:
        return written
    binary = shutil.which("specdec")
    if binary is None:
        raise ConvertError(
            f"--outtype {outtype.lower()} needs this project's quantiser: install the package "
            "(pip install .) or put the program `specdec` on PATH; f16 and q8_0 need neither"
        )
    command = [binary, "quantize", source, output, outtype, "--force", "--json", "--quiet"]
    if limits.max_bytes:
        command += ["--split-max-size", f"{limits.max_bytes // 1000}K"]
    if limits.max_tensors:
        command += ["--split-max-tensors", str(limits.max_tensors)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise ConvertError(
            f"{binary} quantize failed with exit code {done.returncode}: "
            + short(done.stderr.strip(), 500)
        )
    return [pathlib.Path(path) for path in json.loads(done.stdout)["files"]]
