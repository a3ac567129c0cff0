"""Replicas that can be sent to now, by deployment; of the process that sends."""

from __future__ import annotations

replicas: dict[str, frozenset[str]] = {}
