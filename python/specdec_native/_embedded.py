"""The project's own small trained models: a target and its draft by one name.

They are in the package `specdec-native-models`; an installation from a checkout holds them too.
"""

from __future__ import annotations

import pathlib
from dataclasses import dataclass

from .errors import InvalidArgumentError, ModelFileNotFoundError


@dataclass(frozen=True)
class EmbeddedPair:
    """Two GGUF files of one vocabulary.

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
# Likewise EAGLE-3 heads, which draft from what the model itself computes.
_HEADS = {"smollm2": "smollm2-135m-head.q4_0.gguf"}
# Also found by their architecture.
_ALIASES = {"llama": "pycode", "neox": "manuals", "gptneox": "manuals"}


DATA_PACKAGE = "specdec_native_models"  # of the distribution specdec-native-models


def _folders() -> list[pathlib.Path]:
    """Where the files may be, the first one first.

    Beside this file after an installation from a checkout, in the data package, in the checkout
    of a package that runs from its source.
    """
    import importlib.util

    package = pathlib.Path(__file__).resolve().parent
    data = importlib.util.find_spec(DATA_PACKAGE)  # it is looked for and not imported
    places = data.submodule_search_locations if data is not None else None
    return [
        package / "models",
        *(pathlib.Path(place) for place in places or ()),
        package.parent.parent / "models",
    ]


def _path(file: str) -> pathlib.Path:
    """Where a file is, or would be."""
    paths = [folder / file for folder in _folders()]
    return next((path for path in paths if path.is_file()), paths[0])


def embedded_models() -> tuple[EmbeddedPair, ...]:
    """All pairs of the project, whether their files are here or not."""
    return tuple(
        EmbeddedPair(name, architecture, _path(target), _path(draft), summary)
        for name, (architecture, target, draft, summary) in _PAIRS.items()
    )


def embedded(name: str = "pycode") -> EmbeddedPair:
    """A pair by its name or architecture: "pycode" ("llama") or "manuals" ("neox").

    Raises:
        InvalidArgumentError: no pair of that name.
        ModelFileNotFoundError: its files are not here: `pip install specdec-native-models`.
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
    """A draft model of the project, for a target of somebody else's.

    Args:
        name: of the target, as for `pull`: "smollm2" (SmolLM2-135M-Instruct, any quantisation).

    Raises:
        InvalidArgumentError: no draft for that name.
        ModelFileNotFoundError: its file is not here: `pip install specdec-native-models`.
    """
    return _one_of("draft", embedded_drafts(), name)


def embedded_drafts() -> dict[str, pathlib.Path]:
    """All such drafts, by the target's name."""
    return {name: _path(file) for name, file in _DRAFTS.items()}


def embedded_head(name: str = "smollm2") -> pathlib.Path:
    """An EAGLE-3 head of the project, which drafts for a target of somebody else's on the CPU.

    Args and errors as of `embedded_draft`.
    """
    return _one_of("head", embedded_heads(), name)


def embedded_heads() -> dict[str, pathlib.Path]:
    """All such heads, by the target's name."""
    return {name: _path(file) for name, file in _HEADS.items()}


def _one_of(kind: str, paths: dict[str, pathlib.Path], name: str) -> pathlib.Path:
    if not isinstance(name, str) or name not in paths:
        raise InvalidArgumentError(
            f"there is an embedded {kind} for {', '.join(paths)}, not for {name!r}; a pair with "
            "its own draft is embedded(name)"
        )
    _check_present(paths[name])
    return paths[name]


def _check_present(path: pathlib.Path) -> None:
    if not path.is_file():
        raise ModelFileNotFoundError(
            f"the model {path.name} is not installed: `pip install specdec-native-models` brings "
            "it; `specdec-native pull smollm2` fetches a chat model that needs none of these",
            reason="not_found",
            path=str(path),
        )
