"""A Ray cluster, for the commands that spread their work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .errors import InvalidArgumentError


@contextmanager
def ray_cluster(address: str) -> Iterator[Any]:
    """The module `ray`, connected to the cluster there; "local" starts one on this computer.

    Raises:
        InvalidArgumentError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise InvalidArgumentError(
            "--ray needs the package ray: pip install 'specdec-native[ray]'"
        ) from None
    try:
        ray.init(address=None if address == "local" else address, log_to_driver=False)
    except (OSError, RuntimeError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise InvalidArgumentError(f"--ray {address}: no cluster there: {first}") from None
    try:
        yield ray
    finally:
        ray.shutdown()
