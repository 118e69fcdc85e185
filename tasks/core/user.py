"""Who runs this process."""

from __future__ import annotations

import getpass
import os


def user_name() -> str:
    """The user's name, or `uid N`: a container's user may have none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return f"uid {os.getuid()}"
