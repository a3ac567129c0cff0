"""PyTorch .bin files through torch's safe loader only: weights_only, mapped, only tensors."""

from __future__ import annotations

import ctypes
import mmap
import pathlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import ConvertError, short
from .tensors import Rows, n_rows, row_length

INSTALL = "install torch, or save the checkpoint as safetensors where torch is installed"


def _torch(path: pathlib.Path) -> Any:
    try:
        import torch
    except ImportError:
        raise ConvertError(f"{path}: reading a .bin checkpoint needs PyTorch: {INSTALL}") from None
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < (2, 6):
        raise ConvertError(
            f"{path}: torch {torch.__version__} may run code from a .bin file even with "
            "weights_only (CVE-2025-32434); at least 2.6 is needed"
        )
    return torch


def _forget_pages(tensor: Any) -> None:
    """Gives mapped pages of a tensor back, or reading a large file would fill the memory."""
    storage = tensor.untyped_storage()
    page = mmap.PAGESIZE
    begin = (storage.data_ptr() + page - 1) // page * page
    n_bytes = (storage.data_ptr() + storage.nbytes()) // page * page - begin
    if n_bytes > 0:
        # Pages of a file mapping that nobody wrote to are simply read again when needed.
        libc = ctypes.CDLL(None)
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(n_bytes), mmap.MADV_DONTNEED)


@dataclass
class TorchTensor:
    file: TorchFile
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self, first: int, count: int) -> Rows:
        tensor = self.file.tensor(self.name)
        rows = tensor[first : first + count].float().numpy().astype(np.float32)
        if first + count >= n_rows(self.shape) and self.file.is_mapped:
            _forget_pages(tensor)
        return rows.reshape(count, row_length(self.shape))


class TorchFile:
    """One .bin file. What it maps is let go by close() and mapped again when asked for."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.is_mapped = True
        self._state: dict[str, Any] | None = None
        torch = _torch(path)
        names = {torch.float64: "F64", torch.float32: "F32"}
        names |= {torch.float16: "F16", torch.bfloat16: "BF16"}
        self.tensors = {
            name: TorchTensor(self, name, names.get(t.dtype, str(t.dtype)), tuple(t.shape))
            for name, t in self._load().items()
        }

    def close(self) -> None:
        self._state = None

    def tensor(self, name: str) -> Any:
        return self._load()[name]

    def _load(self) -> dict[str, Any]:
        if self._state is None:
            self._state = self._read()
        return self._state

    def _read(self) -> dict[str, Any]:
        torch = _torch(self.path)
        options = {"map_location": "cpu", "weights_only": True}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    found = torch.load(self.path, mmap=True, **options)
                except RuntimeError as error:
                    if "mmap can only be used" not in str(error):
                        raise
                    self.is_mapped = False  # the old format: not mappable, loaded as a whole
                    found = torch.load(self.path, **options)
        except Exception as error:  # torch raises many kinds for a bad file
            reason = short(str(error).split("\n")[0] or type(error).__name__, 200)
            raise ConvertError(
                f"{self.path}: PyTorch's safe loader (weights_only) refuses this file; it is "
                f"damaged or holds more than tensors, perhaps code: {reason}"
            ) from None
        if not isinstance(found, dict):
            raise ConvertError(f"{self.path}: expected a dictionary of tensors")
        for name, value in found.items():
            if not isinstance(name, str) or not isinstance(value, torch.Tensor):
                raise ConvertError(f"{self.path}: '{short(name)}' is not a named tensor")
            if value.layout != torch.strided or value.is_quantized or value.is_meta:
                raise ConvertError(f"{self.path}: '{short(name)}' is not a dense tensor")
        return found
