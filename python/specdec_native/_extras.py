"""Packages that only parts of this one need."""

from __future__ import annotations

from .errors import MissingExtraError


def missing(what: str, extra: str, error: ImportError) -> MissingExtraError:
    """What is raised where `what` cannot import its packages.

    Args:
        what: as its users call it.
        extra: of this package, or several with commas.
        error: what came of the import.
    """
    return MissingExtraError(
        f"{what} needs packages that are not installed ({error}): "
        f"pip install 'specdec-native[{extra}]'"
    )
