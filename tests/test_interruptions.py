"""What a run leaves behind: going back restores, a change makes a version, a kill loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from workspaces import STAGES, clean_environment, copy_workspace, ratchet_json, states


def test_going_back_to_earlier_params_restores_without_training(trained: Path) -> None:
    other = ratchet_json(trained, "train", "-S", "finetune.epochs=1")
    assert states(other)["tokenize"] == "cached"
    assert states(other)["finetune"] == "ran"
    assert other["version"] == 2
    assert "epochs: 6" in (trained / "params.yaml").read_text()
    back = ratchet_json(trained, "train")
    assert states(back)["finetune"] == "restored"
    assert "ran" not in states(back).values()
    assert back["version"] == 1
    found = {version["version"]: version["aliases"] for version in ratchet_json(trained, "status")["model"]["versions"]}
    assert found == {1: ["challenger"], 2: []}


def test_a_changed_row_changes_the_content_key_and_makes_a_version(trained: Path) -> None:
    first = ratchet_json(trained, "train")
    with (trained / "reviews.csv").open("a", encoding="utf-8") as file:
        file.write("a film that was very good and quite superb for us,positive,films\n")
    assert dict(state.values() for state in ratchet_json(trained, "status")["stages"])["ingest"] == "stale"
    second = ratchet_json(trained, "train")
    assert states(second)["ingest"] == "ran"
    assert (second["version"], second["state"]) == (2, "trained")
    assert second["content_key"] != first["content_key"]


@pytest.mark.parametrize("seconds", [5.0, 13.0])
def test_a_run_killed_at_any_time_is_completed_by_a_repeat(template: Path, tmp_path: Path, seconds: float) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    overrides = ("-S", "finetune.epochs=20", "-S", "validate.min_length=2")
    process = subprocess.Popen(
        ["ratchet", "train", *overrides],
        cwd=root,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    result = ratchet_json(root, "train", *overrides)
    versions = ratchet_json(root, "status")["model"]["versions"]
    assert sorted(version["version"] for version in versions) == [1, 2]
    assert result["version"] == 2
    assert len({version["content_key"] for version in versions}) == 2
    assert states(ratchet_json(root, "train", *overrides)) == dict.fromkeys(STAGES, "cached")
