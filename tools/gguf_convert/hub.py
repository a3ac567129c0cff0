"""A checkpoint named by its repository id is downloaded first."""

from __future__ import annotations

import pathlib
import re

from .errors import ConvertError, short

REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ["*.json", "*.safetensors", "tokenizer.model", "*.jinja", "*/*.jinja"]
PATTERNS_BIN = [*PATTERNS, "pytorch_model*.bin"]


def resolve(checkpoint: str, revision: str | None = None) -> pathlib.Path:
    """The folder of a checkpoint: the argument itself, or a download of the repository."""
    path = pathlib.Path(checkpoint)
    if path.exists() or not REPOSITORY.fullmatch(checkpoint):
        return path
    try:
        import huggingface_hub
    except ImportError:
        raise ConvertError(
            f"{checkpoint}: no such folder, and to download a repository of that name "
            "huggingface_hub is needed: pip install huggingface_hub"
        ) from None
    try:
        names = huggingface_hub.list_repo_files(checkpoint, revision=revision)
        has_safetensors = any(name.endswith(".safetensors") for name in names)
        folder = huggingface_hub.snapshot_download(
            checkpoint,
            revision=revision,
            allow_patterns=PATTERNS if has_safetensors else PATTERNS_BIN,
            ignore_patterns=["consolidated*", "original/*"],
        )
    except Exception as error:  # the package has many kinds, and those of its HTTP library
        reason = short((str(error).splitlines() or [""])[0], 200)
        raise ConvertError(
            f"{checkpoint}: no such folder, and a repository of that name cannot be downloaded: "
            f"{type(error).__name__}: {reason}"
        ) from None
    return pathlib.Path(folder)
