"""A machine that is not as tidy as ours: no home, a plain locale, no git identity, odd paths."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_rows
from workspaces import FAST, clean_environment, copy_workspace, run, write_csv

ODD = "it's 100% #1 – é ü; a%20b&c"
# directories that cannot be made, and one that is there but takes no files, even root's
HOMES = ("/proc/nowhere", "/proc/self")


def ratchet(root: Path, *arguments: str, **environment: str) -> Any:
    """The JSON result of a command in a fresh process without a Prefect server."""
    inherited = {
        name: value
        for name, value in clean_environment().items()
        if not name.startswith(("LC_", "LANG", "GIT_", "XDG_", "PREFECT_"))
    }
    nobody = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["ratchet", *arguments, "--json"],
        cwd=root,
        env=inherited | nobody | environment,
        capture_output=True,
        timeout=280,
        check=False,
    )
    out, err = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == 0, (out, err)
    assert "Traceback" not in err
    return json.loads(out)


def test_a_first_model_in_an_odd_path_with_a_plain_locale_and_no_home_or_git_identity(
    base_dir: Path, tmp_path: Path
) -> None:
    root, data = tmp_path / ODD, tmp_path / f"data {ODD}.csv"
    write_csv(data, tiny_rows(200))
    plain = {"LC_ALL": "C", "HOME": HOMES[0]}
    options = ("--data", str(data), "--base-model", str(base_dir), "--model-name", "tiny")
    ratchet(tmp_path, "init", ODD, "--yes", *options, **plain)
    overrides = [part for value in (*FAST, "finetune.epochs=1") for part in ("-S", value)]
    trained = ratchet(root, "train", *overrides, **plain)
    assert trained["version"] == 1
    (answer,) = ratchet(root, "predict", "ein schöner Tag – ☃", **plain)
    assert answer["text"] == "ein schöner Tag – ☃"
    assert ratchet(root, "status", **plain)["model"]["versions"][0]["version"] == 1
    # a data file's odd path leads back to its rows
    account = json.loads((root / "data" / "splits" / "account.json").read_text(encoding="utf-8"))
    assert account["held"] == 200


@pytest.mark.parametrize("home", HOMES)
def test_a_trained_workspace_works_without_a_home_to_write_to(
    template: Path, tmp_path: Path, home: str
) -> None:
    root = copy_workspace(template, tmp_path / ODD)
    cached = ratchet(root, "train", HOME=home, LC_ALL="C")
    assert cached["state"] == "cached"
    (answer,) = ratchet(root, "predict", "a good day", HOME=home, LC_ALL="C")
    assert answer["predicted_label"]


def test_a_path_that_no_database_can_have_is_refused_at_once(
    tmp_path: Path, base_dir: Path
) -> None:
    write_csv(tmp_path / "data.csv", tiny_rows(200))
    command = ("ratchet", "init", "why?", "--data", "data.csv", "--base-model", str(base_dir))
    refused = run(tmp_path, *command, "--yes", code=2)
    assert "cannot hold a '?'" in refused.stderr
    assert not (tmp_path / "why?").exists()
    (tmp_path / "why?").mkdir()
    (tmp_path / "why?" / "params.yaml").touch()
    assert "cannot hold a '?'" in run(tmp_path / "why?", "ratchet", "train", code=2).stderr
