"""What git knows of a workspace and of the code that works on it."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class GitState:
    """The workspace's commit, if it has one, and whether code or params differ from what is committed."""

    commit: str | None
    dirty: bool


def git_state(workspace: Path) -> GitState:
    """Commit and dirt; a fresh dvc.lock alone is not dirty, a workspace outside git always is."""
    commit = _git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return GitState(None, True)
    changed = _git(workspace, "status", "--porcelain", "--ignored", "--", "params.yaml", "dvc.yaml")
    code = _git(CODE_ROOT, "status", "--porcelain", "--", "tasks", "flows")
    # code that is installed, not checked out, cannot differ from its release
    return GitState(commit, bool(changed) or bool(code))


def _git(directory: Path, *arguments: str) -> str | None:
    git = shutil.which("git")
    if git is None:
        return None
    done = subprocess.run(
        [git, "-C", str(directory), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def top_level(directory: Path) -> Path | None:
    """The root of the git work tree that the directory is in."""
    found = _git(directory, "rev-parse", "--show-toplevel")
    return Path(found) if found else None


def make_repository(directory: Path) -> None:
    """Make the directory a git repository; nothing where there is no git."""
    directory.mkdir(parents=True, exist_ok=True)
    _git(directory, "init", "--quiet")


def commit_all(directory: Path, message: str) -> None:
    """Commit everything that is not ignored, under a name of Ratchet's own; nothing where there is no git."""
    # whatever hooks, signatures and identity the user has set up are meant for other repositories
    own = (
        "user.name=ratchet",
        "user.email=ratchet@localhost",
        "commit.gpgsign=false",
        "core.hooksPath=/dev/null",
    )
    options = [option for setting in own for option in ("-c", setting)]
    _git(directory, *options, "add", "--all")
    _git(directory, *options, "commit", "--quiet", "--message", message)
