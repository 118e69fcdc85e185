"""Ratchet's own version, as it is installed."""

from __future__ import annotations

from importlib.metadata import version

DISTRIBUTION = "ratchet-mlops"  # the name on the package index


def own_version() -> str:
    """Such as '0.2.0'."""
    return version(DISTRIBUTION)
