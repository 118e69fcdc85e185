"""The installed version of Ratchet."""

from __future__ import annotations

from importlib.metadata import version

DISTRIBUTION = "ratchet-mlops"  # the name on the package index


def own_version() -> str:
    """The installed version, e.g. '0.2.0'."""
    return version(DISTRIBUTION)
