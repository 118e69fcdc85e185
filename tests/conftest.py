"""Fixtures that several tests share."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import make_base


@pytest.fixture(scope="session")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny base model's directory; read only."""
    return make_base(tmp_path_factory.mktemp("base"))
