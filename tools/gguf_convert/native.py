"""The formats that the project's own quantiser makes, from a file with plain weights."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

from .errors import ConvertError, short


def _from_python(source: pathlib.Path, output: pathlib.Path, outtype: str) -> bool:
    try:
        import specdec_native
    except ImportError:
        return False
    quantize = getattr(specdec_native, "quantize", None)
    if quantize is None:
        return False
    try:
        # The output is a temporary file of ours. With a callback, signals end the run early.
        quantize(source, output, outtype, overwrite=True, on_progress=lambda share: None)
    except Exception as error:
        raise ConvertError(f"specdec_native.quantize failed: {short(error, 500)}") from None
    return True


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


def quantize(source: pathlib.Path, output: pathlib.Path, outtype: str) -> None:
    """Makes `output` of `source`; `outtype` as Q4_K_M."""
    if _from_python(source, output, outtype):
        return
    binary = shutil.which("specdec")
    if binary is None:
        raise ConvertError(
            f"--outtype {outtype.lower()} needs this project's quantiser: install the package "
            "(pip install .) or put the program `specdec` on PATH; f16 and q8_0 need neither"
        )
    done = subprocess.run(
        [binary, "quantize", source, output, outtype, "--force"], capture_output=True, text=True
    )
    if done.returncode != 0:
        raise ConvertError(
            f"{binary} quantize failed with exit code {done.returncode}: "
            + short(done.stderr.strip(), 500)
        )
