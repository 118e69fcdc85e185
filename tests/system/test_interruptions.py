"""What a run leaves behind: going back restores, a kill loses nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from shared import prefect_server
from workspaces import STAGES, clean_environment, ratchet, ratchet_json, states


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
    found = {
        version["version"]: version["aliases"]
        for version in ratchet_json(trained, "status")["model"]["versions"]
    }
    assert found == {1: ["challenger"], 2: []}


def train_until(
    workspace: Path, overrides: tuple[str, ...], reached: Callable[[str], bool], **environment: str
) -> None:
    """`ratchet train`, killed with all it started once `reached` says so of what it has told; left alone if it ends before."""
    told = workspace.parent / "told"
    with told.open("wb") as log:
        process = subprocess.Popen(
            ["ratchet", "train", *overrides],
            cwd=workspace,
            env=clean_environment() | environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    while process.poll() is None and not reached(told.read_text()):
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_killed_twice_is_completed_by_a_repeat(trained: Path) -> None:
    overrides = ("-S", "finetune.epochs=20", "-S", "validate.min_length=2")
    kept = trained / ".ratchet" / "work" / "finetune" / "last"
    train_until(
        trained, overrides, lambda told: kept.exists()
    )  # in the training, and an ephemeral server beside it
    train_until(
        trained, overrides, lambda told: "report " in told, PREFECT_API_URL=prefect_server()
    )  # as it registers
    (trained / ".dvc" / "tmp" / "rwlock").write_text(
        '{"write": {'
    )  # a kill can cut this short, and DVC then refuses everything
    result = ratchet_json(trained, "train", *overrides)
    versions = ratchet_json(trained, "status")["model"]["versions"]
    assert sorted(version["version"] for version in versions) == [1, 2]
    assert result["version"] == 2
    assert len({version["content_key"] for version in versions}) == 2
    assert states(ratchet_json(trained, "train", *overrides)) == dict.fromkeys(STAGES, "cached")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_told_to_end_leaves_no_process(trained: Path, ending: signal.Signals) -> None:
    kept = trained / ".ratchet" / "work" / "finetune" / "last"
    with (trained.parent / "told").open("wb") as log:
        process = subprocess.Popen(
            ["ratchet", "train", "-S", "finetune.epochs=200"],
            cwd=trained,
            env=clean_environment(),
            stdout=log,
            stderr=log,
            preexec_fn=lambda: signal.signal(
                signal.SIGINT, signal.SIG_DFL
            ),  # a shell's background job ignores it
        )
    started: list[psutil.Process] = []
    while process.poll() is None and not kept.exists():
        started = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.02)
    assert started, "no ephemeral server was seen"
    for receiver in (
        [process, *started] if ending == signal.SIGINT else [process]
    ):  # Ctrl-C goes to all that a terminal started
        receiver.send_signal(ending)
    assert process.wait(timeout=60) == 128 + ending
    told = (trained.parent / "told").read_text()
    assert ("Interrupted. Finished work is kept" in told) == (ending == signal.SIGINT)
    assert "Traceback" not in told
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_a_server_that_does_not_start_in_time_is_told_and_not_left_behind(trained: Path) -> None:
    timeout = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1"}
    told = ratchet(
        trained, "train", "-S", "finetune.epochs=7", code=2, server=False, **timeout
    ).stderr
    assert "Prefect's own server did not start" in told
    assert "Traceback" not in told
    assert not [process.pid for process in psutil.process_iter() if serves(process, trained)]


def serves(process: psutil.Process, workspace: Path) -> bool:
    """Whether it is a Prefect server of this workspace's own."""
    with suppress(psutil.Error):
        home = process.environ().get("PREFECT_HOME", "")
        return home.startswith(str(workspace)) and any(
            "prefect.server" in word for word in process.cmdline()
        )
    return False
