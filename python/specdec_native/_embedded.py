"""The small trained models that come with the package: a target and its draft by one name."""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from .errors import InvalidArgumentError, ModelFileNotFoundError


@dataclass(frozen=True)
class EmbeddedPair:
    """Two GGUF files of one vocabulary, inside the installed package.

    Attributes:
        name: as of `embedded`.
        architecture: "llama" or "gptneox".
        target: the model whose text is wanted.
        draft: a several times smaller one that was taught to guess it.
        summary: what it was trained on.
    """

    name: str
    architecture: str
    target: pathlib.Path
    draft: pathlib.Path
    summary: str


# name: (architecture, target, draft, summary)
_PAIRS = {
    "pycode": (
        "llama",
        "pycode-llama-5m.q8_0.gguf",
        "pycode-llama-draft.q8_0.gguf",
        "writes Python; trained on Python's standard library",
    ),
    "manuals": (
        "gptneox",
        "manuals-neox-7m.q8_0.gguf",
        "manuals-neox-draft.q8_0.gguf",
        "writes English manual pages; trained on free software's manuals",
    ),
}
# Drafts for models that `pull` fetches: name of the model -> file.
_DRAFTS = {"smollm2": "smollm2-135m-draft.q8_0.gguf"}
# Also found by their architecture.
_ALIASES = {"llama": "pycode", "neox": "manuals", "gptneox": "manuals"}


def _folder() -> pathlib.Path:
    """Beside this file when installed, in the checkout for a package that runs from its source."""
    package = pathlib.Path(__file__).resolve().parent
    checkout = package.parent.parent / "models"
    inside = package / "models"
    return checkout if not inside.is_dir() and checkout.is_dir() else inside


def embedded_models() -> tuple[EmbeddedPair, ...]:
    """All pairs that come with the package."""
    folder = _folder()
    return tuple(
        EmbeddedPair(name, architecture, folder / target, folder / draft, summary)
        for name, (architecture, target, draft, summary) in _PAIRS.items()
    )


def embedded(name: str = "pycode") -> EmbeddedPair:
    """A pair by its name or architecture: "pycode" ("llama") or "manuals" ("neox").

    Raises:
        InvalidArgumentError: no pair of that name.
        ModelFileNotFoundError: this installation was built without its files.
    """
    if not isinstance(name, str) or _ALIASES.get(name, name) not in _PAIRS:
        known = [*_PAIRS, *_ALIASES]
        raise InvalidArgumentError(f"an embedded pair is one of {', '.join(known)}, not {name!r}")
    wanted = _ALIASES.get(name, name)
    pair = next(p for p in embedded_models() if p.name == wanted)
    _check_present(pair.target)
    _check_present(pair.draft)
    return pair


def embedded_draft(name: str = "smollm2") -> pathlib.Path:
    """A draft model that comes with the package, for a target that does not.

    Args:
        name: of the target, as for `pull`: "smollm2" (SmolLM2-135M-Instruct, any quantisation).

    Raises:
        InvalidArgumentError: no draft for that name.
        ModelFileNotFoundError: this installation was built without its files.
    """
    if not isinstance(name, str) or name not in _DRAFTS:
        raise InvalidArgumentError(
            f"there is an embedded draft for {', '.join(_DRAFTS)}, not for {name!r}; a pair with "
            "its own draft is embedded(name)"
        )
    path = embedded_drafts()[name]
    _check_present(path)
    return path


def embedded_drafts() -> dict[str, pathlib.Path]:
    """All such drafts, by the target's name."""
    return {name: _folder() / file for name, file in _DRAFTS.items()}


def _check_present(path: pathlib.Path) -> None:
    if not path.is_file():
        raise ModelFileNotFoundError(
            f"{path} is missing: this installation was built without the embedded models; "
            "install the package again from a complete source tree",
            reason="not_found",
            path=str(path),
        )
