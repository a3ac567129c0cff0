"""The server on a Ray cluster: ``serve run specdec_native.ray_app:app model=FILE replicas=2``.

Replicas of one model answer as ``specdec-native serve`` does. Each request goes to the one that
has read most of its prompt before, unless others have much less to do (docs/serving.md).
"""

from __future__ import annotations

from .._extras import missing

try:
    import ray.serve  # noqa: F401
    import starlette  # noqa: F401
except ImportError as _error:
    raise missing("specdec_native.ray_app", "ray,server", _error) from None

from .build import app

__all__ = ["app"]
