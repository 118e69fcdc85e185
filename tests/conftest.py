"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.core.quiet import quiet_libraries

# before any library is imported, here and in the processes that tests start; tiny models gain nothing from threads
quiet_libraries()
os.environ["OMP_NUM_THREADS"] = "1"

from tiny import make_base  # noqa: E402
from workspaces import copy_workspace, make_workspace, ratchet  # noqa: E402

if TYPE_CHECKING:
    from exported import Exported


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model's directory; read only."""
    return make_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def template(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in a git + DVC repository of its own, trained once through the command line; copy it, do not change it."""
    root = tmp_path_factory.mktemp("template") / "reviews"
    make_workspace(root, base_dir)
    done = ratchet(root, "train", "--json")
    (root / ".ratchet" / "first.json").write_text(done.stdout, encoding="utf-8")
    return root


@pytest.fixture
def trained(template: Path, tmp_path: Path) -> Path:
    """A trained workspace of the test's own."""
    return copy_workspace(template, tmp_path / "reviews")


@pytest.fixture(scope="session")
def exported(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A tiny trained model with its tokens and ONNX candidates; read only."""
    from exported import make_exported

    return make_exported(base_dir, tmp_path_factory.mktemp("exported"))
