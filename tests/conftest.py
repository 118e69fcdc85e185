"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.core.quiet import quiet_libraries

# before any library is imported, here and in the processes that tests start; threads do not speed
# up tiny models
quiet_libraries()
os.environ["OMP_NUM_THREADS"] = "1"

from postgres import postgres  # noqa: E402, F401
from shared import close_run, made_once, open_run  # noqa: E402
from tiny import make_base  # noqa: E402
from workspaces import (  # noqa: E402
    copy_workspace,
    make_workspace,
    ratchet,
    ratchet_json,
)

if TYPE_CHECKING:
    from exported import Exported


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # only the controller, not an xdist worker
        open_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        close_run()


@pytest.fixture(scope="session")
def base_dir() -> Path:
    """A tiny base model's directory; read only."""
    return made_once("base", make_base)


@pytest.fixture(scope="session")
def template(base_dir: Path) -> Path:
    """A workspace in its own git + DVC repository, trained once by `ratchet train`.

    Copy it, do not change it.
    """

    def make(directory: Path) -> None:
        root = directory / "reviews"
        make_workspace(root, base_dir)
        done = ratchet(root, "train", "--json")
        (root / ".ratchet" / "first.json").write_text(done.stdout, encoding="utf-8")

    return made_once("template", make) / "reviews"


@pytest.fixture(scope="session")
def two_versions(template: Path) -> Path:
    """A workspace with two registered versions and no champion; copy it, do not change it."""

    from tasks.params.schema import save_overrides

    def make(directory: Path) -> None:
        root = copy_workspace(template, directory / "reviews")
        ratchet(root, "train", "-S", "finetune.epochs=5")
        quick = ("promotion.min_slice_rows=5", "promotion.resamples=1000")
        save_overrides(root / "params.yaml", [*quick, "promotion.max_latency_ratio=null"])

    return made_once("two-versions", make) / "reviews"


@pytest.fixture(scope="session")
def promoted(two_versions: Path) -> Path:
    """Version 1 is champion, version 2 the challenger; copy it, do not change it."""

    def make(directory: Path) -> None:
        root = copy_workspace(two_versions, directory / "reviews")
        assert ratchet_json(root, "promote", "1")["champion"] == 1

    return made_once("promoted", make) / "reviews"


@pytest.fixture
def trained(template: Path, tmp_path: Path) -> Path:
    """A trained workspace of the test's own."""
    return copy_workspace(template, tmp_path / "reviews")


@pytest.fixture(scope="session")
def exported(base_dir: Path) -> Exported:
    """A tiny trained model with its tokens and ONNX candidates; read only."""
    from exported import Exported, make_exported

    directory = made_once("exported", lambda directory: make_exported(base_dir, directory))
    return Exported.in_directory(directory)
