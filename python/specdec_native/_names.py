"""Models by name: a file, one of the project's own, or one that `pull` fetches."""

from __future__ import annotations

import os
import pathlib
import re

from ._embedded import (
    embedded,
    embedded_draft,
    embedded_drafts,
    embedded_head,
    embedded_heads,
    embedded_models,
)
from .download import KNOWN_MODELS, Notify, pull
from .errors import InvalidArgumentError, ModelFileNotFoundError
from .model import StrPath

_HUB_REPOSITORY = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def own_names() -> list[str]:
    """Of the project's own models."""
    return [
        *(name for pair in embedded_models() for name in (pair.name, f"{pair.name}-draft")),
        *(f"{name}-draft" for name in embedded_drafts()),
        *(f"{name}-head" for name in embedded_heads()),
    ]


def own_model(name: str) -> pathlib.Path:
    """One of `own_names`, checked to be there."""
    if name.endswith("-head"):
        return embedded_head(name.removesuffix("-head"))
    base = name.removesuffix("-draft")
    if base in embedded_drafts():
        return embedded_draft(base)
    pair = embedded(base)
    return pair.target if name == base else pair.draft


def find_draft(name: object) -> pathlib.Path | None:
    """Of the draft that suits a model called so; None: none is here. A file's name is none."""
    if not isinstance(name, str) or is_there(name):
        return None
    draft = f"{name}-draft"
    if draft not in own_names():
        return None
    try:
        return own_model(draft)
    except ModelFileNotFoundError:  # without the data package a model has no draft
        return None


def is_there(name: str) -> bool:
    """Whether it is that of a file of any kind, which wins over all names."""
    try:
        return bool(name) and (os.path.lexists(name) and not pathlib.Path(name).is_dir())
    except (OSError, ValueError):  # too long, a zero in it, a folder that cannot be looked into
        return False


def find_file(path: object, *, notify: Notify = lambda text: None) -> object:
    """What `Model` opens: the file that a name means, and anything else as it is.

    Raises:
        ModelFileNotFoundError: it looks like a name, and none is known.
        DownloadError: it could not be fetched.
    """
    if not isinstance(path, str) or (path.endswith(".gguf") and not path.startswith("hf:")):
        return path
    is_name = path in KNOWN_MODELS or path in own_names() or path.startswith("hf:")
    if is_there(path) or not (is_name or re.fullmatch(r"[\w-]+", path)) or "\0" in path:
        return path
    if not is_name and pathlib.Path(path).is_dir():
        return path
    try:
        return find_model(path, notify=notify)
    except InvalidArgumentError as error:
        raise ModelFileNotFoundError(str(error), reason="not_found", path=path) from None


def find_model(name: StrPath, *, notify: Notify = lambda text: None) -> pathlib.Path:
    """The GGUF file that a name means; fetches it if need be.

    Raises:
        InvalidArgumentError: nothing of that name; says what to do about a checkpoint.
        DownloadError: it could not be fetched.
    """
    if not isinstance(name, str):
        try:
            return pathlib.Path(os.fspath(name))
        except TypeError:
            raise InvalidArgumentError(
                f"a model is named by a str or os.PathLike, not {type(name).__name__}"
            ) from None
    path = pathlib.Path(name)
    try:
        is_folder = name != "" and path.is_dir()
    except (OSError, ValueError):
        is_folder = False
    if is_there(name) or (name.endswith(".gguf") and not name.startswith("hf:")):
        return path  # what is wrong with it is said when it is loaded
    if name in own_names():
        return own_model(name)
    if name in KNOWN_MODELS or name.startswith("hf:"):
        return pull(name, notify=notify)
    convert = f"`python tools/convert_hf_to_gguf.py {name} model.gguf` in a checkout"
    if is_folder:
        raise InvalidArgumentError(
            f"{name!r} is a folder, and a model is one GGUF file: {convert} makes one of a "
            "checkpoint (docs/convert.md)"
        )
    if _HUB_REPOSITORY.fullmatch(name):
        raise InvalidArgumentError(
            f"{name!r} is no file; if it is a checkpoint on the Hugging Face Hub, {convert} makes "
            f"a GGUF file of it (docs/convert.md), and hf:{name}/FILE.gguf fetches a GGUF file "
            "that is there already"
        )
    known = ", ".join([*KNOWN_MODELS, *own_names()])
    shown = repr(name if len(name) <= 200 else name[:197] + "...")
    raise InvalidArgumentError(
        f"there is no model {shown}: expected a GGUF file, hf:ORG/REPO/FILE.gguf or one of {known}"
    )
