"""The git state of a workspace and of the code that runs on it, and commits to a workspace."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CODE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class GitState:
    """The workspace's commit, if any, and whether code, params.yaml or dvc.yaml differ from it."""

    commit: str | None
    dirty: bool


def git_state(workspace: Path) -> GitState:
    """The git state; dvc.lock is not checked, and a workspace without a commit is always dirty."""
    commit = _git(workspace, "rev-parse", "HEAD")
    if commit is None:
        return GitState(None, True)
    changed = _git(workspace, "status", "--porcelain", "--ignored", "--", "params.yaml", "dvc.yaml")
    code = _git(CODE_ROOT, "status", "--porcelain", "--", "tasks", "flows")
    # installed code is in no checkout (`code` is None) and cannot differ from its release
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
    """The root of the git work tree that contains the directory; None outside git."""
    root = _git(directory, "rev-parse", "--show-toplevel")
    return Path(root) if root else None


def unstage(directory: Path, *paths: str) -> None:
    """Take what is not committed out of git's index; the files stay."""
    if _git(directory, "reset", "--quiet", "--", *paths) is None:  # there is no commit yet
        _git(directory, "rm", "--cached", "--quiet", "--ignore-unmatch", "--", *paths)


def make_repository(directory: Path) -> None:
    """Create the directory as a git repository; without git installed, as a plain directory."""
    directory.mkdir(parents=True, exist_ok=True)
    _git(directory, "init", "--quiet")


def commit_all(directory: Path, message: str) -> None:
    """Commit everything not ignored, with Ratchet as the author; does nothing without git."""
    # the user's hooks, signing and identity are meant for other repositories
    settings = (
        "user.name=ratchet",
        "user.email=ratchet@localhost",
        "commit.gpgsign=false",
        "core.hooksPath=/dev/null",
    )
    options = [option for setting in settings for option in ("-c", setting)]
    _git(directory, *options, "add", "--all")
    _git(directory, *options, "commit", "--quiet", "--message", message)
