"""How this process uses DVC: it prints nothing, and its databases lie where nobody else writes.

The databases are diskcache's, which unpickles what stands in them. By default DVC keeps them below
/var/tmp/dvc, which everybody may write to, under a name that can be guessed: another user of the
machine could put pickles there that run as the reader.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from shlex import quote

from tasks.core.errors import WorkspaceError
from tasks.params.workspace import cache_dir

VARIABLE = "DVC_SITE_CACHE_DIR"
WRITABLE_BY_OTHERS = 0o022


def set_up_dvc(store: Path) -> None:
    """Turn off DVC's messages and progress bars; set DVC_SITE_CACHE_DIR, where its databases lie.

    store   the workspace's .ratchet, used where the user's cache directory cannot be made
    Raises WorkspaceError if the directory is another user's, or others may write to it.
    """
    for name in ("dvc", "dvc_data", "dvc_objects"):
        # their progress bars are shown on a terminal at any level up to ERROR
        logging.getLogger(name).setLevel(logging.CRITICAL)
    chosen = os.environ.get(VARIABLE)
    candidates = [Path(chosen)] if chosen else [cache_dir() / "dvc", store / "dvc"]
    directory = next((path for path in candidates if _exists(path)), candidates[-1])
    _check(directory)
    os.environ[VARIABLE] = str(directory)


def _exists(directory: Path) -> bool:
    """Make the directory if it is missing; DVC would make it writable by all."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return False
    return True


def _check(directory: Path) -> None:
    try:
        entry = directory.stat()
    except OSError:
        return  # DVC says why it cannot make it
    if entry.st_uid != os.geteuid():
        problem, remedy = "it belongs to another user", f"export {VARIABLE}=~/.cache/dvc-databases"
    elif entry.st_mode & WRITABLE_BY_OTHERS:
        problem, remedy = "other users may write to it", f"chmod -R go-w {quote(str(directory))}"
    else:
        return
    raise WorkspaceError(
        f"{directory}: DVC runs code that stands in this directory's databases, and {problem}.",
        f"Try: {remedy}",
    )
