"""Going back to earlier params restores their results; a killed run loses nothing."""

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
    versions = ratchet_json(trained, "status")["model"]["versions"]
    aliases = {version["version"]: version["aliases"] for version in versions}
    assert aliases == {1: ["challenger"], 2: []}


def train_until(
    workspace: Path, overrides: tuple[str, ...], reached: Callable[[str], bool], **environment: str
) -> None:
    """`ratchet train`, killed with all that it started once `reached` is true of its output.

    It is left alone if it ends before.
    """
    log = workspace.parent / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["ratchet", "train", *overrides],
            cwd=workspace,
            env=clean_environment() | environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    while process.poll() is None and not reached(log.read_text()):
        time.sleep(0.02)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_run_killed_twice_is_completed_by_a_repeat(trained: Path) -> None:
    overrides = ("-S", "finetune.epochs=20", "-S", "validate.min_length=2")
    kept = trained / ".ratchet" / "work" / "finetune" / "last"
    # during the training, with an ephemeral server
    train_until(trained, overrides, lambda output: kept.exists())
    # while it registers
    with_server = {"PREFECT_API_URL": prefect_server()}
    train_until(trained, overrides, lambda output: "report " in output, **with_server)
    # a kill can truncate this file, and DVC then refuses everything
    (trained / ".dvc" / "tmp" / "rwlock").write_text('{"write": {')
    result = ratchet_json(trained, "train", *overrides)
    versions = ratchet_json(trained, "status")["model"]["versions"]
    assert sorted(version["version"] for version in versions) == [1, 2]
    assert result["version"] == 2
    assert len({version["content_key"] for version in versions}) == 2
    assert states(ratchet_json(trained, "train", *overrides)) == dict.fromkeys(STAGES, "cached")


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_no_process(trained: Path, ending: signal.Signals) -> None:
    kept = trained / ".ratchet" / "work" / "finetune" / "last"
    log = trained.parent / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            ["ratchet", "train", "-S", "finetune.epochs=200"],
            cwd=trained,
            env=clean_environment(),
            stdout=file,
            stderr=file,
            # a shell's background job ignores SIGINT
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    started: list[psutil.Process] = []
    while process.poll() is None and not kept.exists():
        started = psutil.Process(process.pid).children(recursive=True)
        time.sleep(0.02)
    assert started, "no ephemeral server was seen"
    # Ctrl-C goes to all processes that a terminal started
    for receiver in [process, *started] if ending == signal.SIGINT else [process]:
        receiver.send_signal(ending)
    code = -ending if ending == signal.SIGKILL else 128 + ending
    assert process.wait(timeout=60) == code
    output = log.read_text()
    assert ("Interrupted. Finished work is kept" in output) == (ending == signal.SIGINT)
    assert "Traceback" not in output
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_a_server_that_does_not_start_in_time_is_told_and_not_left_behind(trained: Path) -> None:
    timeout = {"PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "1"}
    overrides = ("-S", "finetune.epochs=7")
    done = ratchet(trained, "train", *overrides, code=2, server=False, **timeout)
    assert "Prefect's own server did not start" in done.stderr
    assert "Traceback" not in done.stderr
    assert not [process.pid for process in psutil.process_iter() if serves(process, trained)]


def serves(process: psutil.Process, workspace: Path) -> bool:
    """Whether the process is this workspace's own Prefect server."""
    with suppress(psutil.Error):
        home = process.environ().get("PREFECT_HOME", "")
        is_server = any("prefect.server" in word for word in process.cmdline())
        return home.startswith(str(workspace)) and is_server
    return False
