"""Migrate dvc.lock files of earlier Ratchets, whose stages declared no versions.

They listed every source file that a stage could reach, or a digest of those. Such a stage counts
as made by version 1 of its code, so that upgrading retrains no model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from tasks.core.files import write_text

_COMMAND = re.compile(r"python -m tasks (\w+)( --code [0-9a-f]{16})?")
_CODE = re.compile(r"(\.\./)*([\w.-]+/)*tasks/.+\.(py|j2)")  # wherever the workspace was


def migrated_stages(stages: Mapping[str, Any]) -> dict[str, Any]:
    """The stages of a dvc.lock, by name, as this Ratchet writes them; its own stay unchanged."""
    return {name: _taken_over(entry) for name, entry in stages.items()}


def _taken_over(entry: Mapping[str, Any]) -> dict[str, Any]:
    command = _COMMAND.fullmatch(str(entry.get("cmd", "")))
    if command is None:
        return dict(entry)
    deps = [dep for dep in entry.get("deps", []) if not _CODE.fullmatch(dep["path"])]
    rest = {key: value for key, value in entry.items() if key not in ("cmd", "deps")}
    cmd = f"ratchet stage {command[1]} --code 1"
    return {"cmd": cmd, **({"deps": deps} if deps else {}), **rest}


def write_lock(file: Path, contents: Mapping[str, Any]) -> None:
    """Write a dvc.lock."""
    from ruamel.yaml import YAML

    yaml, text = YAML(), StringIO("")
    yaml.dump(dict(contents), text)
    write_text(file, text.getvalue())
