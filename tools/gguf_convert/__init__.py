"""Converts Hugging Face checkpoints to GGUF; `convert(folder, out, outtype="q8_0")`."""

from .errors import ConvertError
from .pipeline import convert

__all__ = ["ConvertError", "convert"]
