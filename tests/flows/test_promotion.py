"""Compare, promote and roll back through the command line, with a real registry.

Whatever goes wrong, the alias stays.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from faults import KILLED
from shared import prefect_server
from workspaces import (
    clean_environment,
    copy_workspace,
    killed_as_it_answers,
    ratchet,
    ratchet_json,
)

from flows.lifecycle.comparing import changed_shares
from tasks.core.files import read_json, sha256_file, write_json
from tasks.lifecycle.registry import BUNDLE_SHA256, connect, versions
from tasks.params.schema import SplitParams, save_overrides


@pytest.fixture
def workspace(two_versions: Path, tmp_path: Path) -> Path:
    return copy_workspace(two_versions, tmp_path / "reviews")


@pytest.fixture
def with_champion(promoted: Path, tmp_path: Path) -> Path:
    """Version 1 is champion, version 2 the challenger."""
    return copy_workspace(promoted, tmp_path / "reviews")


def client_of(root: Path) -> Any:
    return connect(f"sqlite:///{root}/.ratchet/mlflow.db", root / ".ratchet", "tiny")[0]


def champion_of(root: Path) -> int | None:
    registered = versions(client_of(root), "tiny")
    return next((int(v.version) for v in registered if "champion" in v.aliases), None)


def bundle_of(root: Path, version: int) -> Path:
    from tasks.lifecycle.registered_files import download_bundle

    client = client_of(root)
    (registered,) = [v for v in versions(client, "tiny") if int(v.version) == version]
    return download_bundle(client, registered, root / "downloads")


def error_of(root: Path, *arguments: str, **environment: Any) -> dict[str, str]:
    done = ratchet(root, *arguments, "--json", code=2, **environment)
    assert "Traceback" not in done.stderr
    error: dict[str, str] = json.loads(done.stdout)["error"]
    assert error["message"]
    assert error["remedy"]
    return error


def test_a_comparison_is_the_same_here_and_in_mlflow(with_champion: Path, tmp_path: Path) -> None:
    comparison = ratchet_json(with_champion, "compare", "--html", str(tmp_path / "page.html"))
    assert [model["version"] for model in comparison["models"]] == [2, 1]
    assert comparison["params"] == {"finetune.epochs": ["5", "6"]}
    first, second = (model["metrics"] for model in comparison["models"])
    assert comparison["metrics"]["accuracy"]["value"] == pytest.approx(
        first["accuracy"]["value"] - second["accuracy"]["value"]
    )
    slices = comparison["slices"]
    assert {part["column"] for part in slices} == {"label", "length (characters)"}
    rows = sum(part["rows"] for part in slices if part["column"] == "label")
    assert rows == comparison["test"]["rows"]
    assert "neither model was trained on them" in comparison["notes"][0]
    client = client_of(with_champion)

    def logged_metrics(version: str) -> dict[str, float]:
        run_id = client.get_model_version("tiny", version).run_id
        metrics: dict[str, float] = client.get_run(run_id).data.metrics
        return metrics

    for model in comparison["models"]:
        logged = logged_metrics(str(model["version"]))
        for name, interval in model["metrics"].items():
            assert logged[f"compare_{name}"] == pytest.approx(interval["value"])
        assert logged["compare_latency_ms_p95"] == pytest.approx(model["latency_ms_p95"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "McNemar" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    # the registered metrics were measured on the same rows
    assert second["macro_f1"]["value"] == pytest.approx(logged_metrics("1")["test_macro_f1"])


def test_shares_that_nobody_wrote_down_were_the_usual_ones() -> None:
    assert changed_shares({}, SplitParams()) == ""
    assert changed_shares({"split.test": "0.1"}, SplitParams(test=0.2)) == "split.test 0.1, now 0.2"
    assert changed_shares({}, SplitParams(validation=0.2)) == "split.validation 0.1, now 0.2"


def test_a_foreign_bundle_is_compared_with_a_warning(with_champion: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle_of(with_champion, 1), tmp_path / "foreign")
    comparison = ratchet_json(with_champion, "compare", str(tmp_path / "foreign"), "1")
    assert "may have been trained on these rows" in comparison["notes"][0]
    assert comparison["agreement"] == 1
    assert comparison["mcnemar"]["p_value"] == 1
    assert {difference["value"] for difference in comparison["metrics"].values()} == {0}


def test_a_refusal_leaves_the_alias_and_is_written_down(with_champion: Path) -> None:
    save_overrides(with_champion / "params.yaml", ["promotion.min_value=1.01"])
    done = ratchet(with_champion, "promote", code=2)
    assert "minimum value" in done.stdout
    assert "Version 1 is champion" in done.stdout
    client = client_of(with_champion)
    refused, champion = (client.get_model_version("tiny", number) for number in ("2", "1"))
    assert "Verdict: **refused** on 20" in refused.description
    assert "minimum value" in refused.description
    assert "Verdict: **promoted** on 20" in champion.description
    run = client.get_run(refused.run_id)
    assert run.data.tags["mlflow.note.content"] == refused.description
    assert run.info.run_name == "tiny v2"
    assert champion_of(with_champion) == 1
    last = ratchet_json(with_champion, "history")[-1]
    assert (last["outcome"], last["version"], last["previous"]) == ("refused", 2, 1)
    gates = {gate["name"]: gate for gate in last["gates"]}
    assert gates["minimum value"]["status"] == "failed"
    # version 2 exists only here, and was trained with `-S`
    assert "on no DVC remote yet" in gates["lineage"]["reason"]

    assert error_of(with_champion, "promote", "--force")["type"] == "ParamsError"
    forced = ratchet_json(with_champion, "promote", "--force", "--reason", "the old one is broken")
    assert (forced["state"], forced["champion"]) == ("promoted", 2)
    last = ratchet_json(with_champion, "history")[-1]
    assert last["forced"] is True
    assert "the old one is broken" in last["reason"]
    assert last["look"] == 3  # the same rows have judged twice before
    assert ratchet_json(with_champion, "promote")["state"] == "unchanged"


def test_a_rollback_goes_back_and_what_was_rolled_back_stays_away(with_champion: Path) -> None:
    forced = ratchet_json(with_champion, "promote", "2", "--force", "--reason", "as told")
    assert forced["champion"] == 2
    back = ratchet_json(with_champion, "rollback", "--reason", "customers complain")
    assert (back["state"], back["champion"]) == ("rolled back", 1)
    assert champion_of(with_champion) == 1
    refused = json.loads(ratchet(with_champion, "promote", "2", "--json", code=2).stdout)
    assert "not rolled back" in refused["decision"]["reason"]
    assert champion_of(with_champion) == 1
    assert "only champion so far" in error_of(with_champion, "rollback")["message"]
    assert ratchet_json(with_champion, "promote", "2", "--force", "--reason", "again")
    assert "was never champion" in error_of(with_champion, "rollback", "--to", "9")["message"]
    assert ratchet_json(with_champion, "rollback", "--reason", "and back")["champion"] == 1
    shown = ratchet(with_champion, "history").stdout
    assert "customers" in shown
    assert "rolled back" in shown


def remove_bundle(root: Path) -> None:
    shutil.rmtree(bundle_of(root, 2))


def change_a_byte(root: Path) -> None:
    file = bundle_of(root, 2) / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def swap_whole_bundle(root: Path) -> None:
    """Every file fits its manifest, but the bundle is not the registered one."""
    target = bundle_of(root, 2)
    shutil.rmtree(target)
    shutil.copytree(bundle_of(root, 1), target)


def edit_config(root: Path, **changes: Any) -> None:
    directory = bundle_of(root, 2)
    config, manifest = read_json(directory / "config.json"), read_json(directory / "manifest.json")
    config["ratchet"] |= changes
    write_json(directory / "config.json", config)
    manifest["files"]["config.json"] = {
        "sha256": sha256_file(directory / "config.json"),
        "bytes": (directory / "config.json").stat().st_size,
    }
    write_json(directory / "manifest.json", manifest)
    # as if it was registered with this configuration
    sha256 = sha256_file(directory / "manifest.json")
    client_of(root).set_model_version_tag("tiny", "2", BUNDLE_SHA256, sha256)


def empty_test_rows(root: Path) -> None:
    import pyarrow.parquet as pq

    file = root / "data" / "splits" / "test.parquet"
    table = pq.read_table(file)
    file.unlink()  # it may be a hard link into DVC's cache
    pq.write_table(table.slice(0, 0), file)


BROKEN: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "a deleted artifact": (remove_bundle, "BundleError", "no bundle"),
    "a changed byte": (change_a_byte, "BundleError", "model.onnx: altered"),
    "another bundle in its place": (
        swap_whole_bundle,
        "BundleError",
        "not the bundle that was registered",
    ),
    "other labels": (
        lambda root: edit_config(root, labels=["bad", "neutral", "good"]),
        "DataError",
        "does not know the label",
    ),
    "another problem type": (
        lambda root: edit_config(root, problem="token-classification"),
        "BundleError",
        "token-classification",
    ),
    "no test rows": (empty_test_rows, "DataError", "no rows"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_told_and_the_alias_stays(with_champion: Path, kind: str) -> None:
    breaks, expected, says = BROKEN[kind]
    breaks(with_champion)
    error = error_of(with_champion, "promote")
    assert error["type"] == expected
    assert says in error["message"]
    assert champion_of(with_champion) == 1
    assert [d["version"] for d in ratchet_json(with_champion, "history")] == [1]


def test_an_answer_that_prefect_rejects_is_told(with_champion: Path) -> None:
    address = prefect_server()
    flow = httpx.post(f"{address}/flows/", json={"name": "promotion"}).json()
    state = {"type": "PAUSED", "state_details": {"run_input_keyset": {"schema": "paused-gone"}}}
    waiting = {"flow_id": flow["id"], "parameters": {"workspace": str(with_champion)}}
    httpx.post(f"{address}/flow_runs/", json=waiting | {"name": "rare-owl", "state": state})
    error = error_of(with_champion, "approve")
    assert error["message"].startswith("rare-owl: Prefect rejected the answer: Run input schema")
    assert champion_of(with_champion) == 1


def test_what_is_not_there_is_told(workspace: Path) -> None:
    assert "no champion to compare with" in error_of(workspace, "compare")["message"]
    missing = error_of(workspace, "promote", "7")
    assert "'7' is not a version" in missing["message"]
    assert "version 1, version 2" in missing["message"]
    misspelt = error_of(workspace, "compare", "chalenger", "1")
    assert "Did you mean 'challenger'" in misspelt["message"]
    assert "ever promoted" in error_of(workspace, "rollback")["message"]
    assert "no promotion is waiting" in error_of(workspace, "approve")["message"]
    unreachable = {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    assert error_of(workspace, "promote", **unreachable)["type"] == "RegistryError"
    assert champion_of(workspace) is None


def with_server() -> dict[str, str]:
    return clean_environment() | {"PREFECT_API_URL": prefect_server()}


def test_an_alias_that_was_moved_by_hand_is_told_and_put_back(with_champion: Path) -> None:
    client_of(with_champion).delete_registered_model_alias("tiny", "champion")
    error = error_of(with_champion, "promote")
    assert "according to the ledger it is version 1" in error["message"]
    shown = " ".join(ratchet(with_champion, "status").stdout.split())
    told = "the ledger records version 1: it was moved outside the gates"
    assert told in shown
    client_of(with_champion).set_registered_model_alias("tiny", "champion", "2")
    done = ratchet(with_champion, "predict", "a good film")
    assert f"points at version 2, {told}" in done.stderr
    assert told not in ratchet(with_champion, "predict", "--version", "1", "a good film").stderr
    assert any(told in note for note in ratchet_json(with_champion, "compare", "1", "2")["notes"])
    assert ratchet_json(with_champion, "rollback")["champion"] == 1
    assert champion_of(with_champion) == 1


def test_a_versions_report_says_what_it_is(with_champion: Path, tmp_path: Path) -> None:
    done = ratchet_json(with_champion, "report", "2", "--output", str(tmp_path / "page.html"))
    assert done == {"model": "tiny", "version": 2, "report": str(tmp_path / "page.html")}
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    version = client_of(with_champion).get_model_version("tiny", "2")
    tags = version.tags
    for fact in ("ratchet.git_commit", "ratchet.data_hash", "ratchet.content_key"):
        assert tags[fact][:12] in page
    assert tags["ratchet.machine"] in page
    assert "finetune.learning_rate" in page
    assert "Beside the champion, version 1" in page
    first = Path(ratchet(with_champion, "report", "1").stdout.strip())
    assert first.name == "tiny-v1.html"
    assert "Beside the champion" not in first.read_text(encoding="utf-8")
    logged = client_of(with_champion).download_artifacts(version.run_id, "report.html", tmp_path)
    assert "<td>tiny</td>" in Path(logged).read_text(encoding="utf-8")
    assert "'7' is not a version" in error_of(with_champion, "report", "7")["message"]


def test_a_page_does_not_replace_a_directory(with_champion: Path) -> None:
    error = error_of(with_champion, "compare", "1", "2", "--html", "reports")
    assert error["type"] == "ParamsError"
    assert (with_champion / "reports" / "metrics.json").is_file()


def test_a_prefect_server_that_is_away_is_told(with_champion: Path) -> None:
    away = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    # this error needs no server
    assert "only champion so far" in error_of(with_champion, "rollback", **away)["message"]
    ratchet_json(with_champion, "promote", "2", "--force", "--reason", "to have one to go back to")
    for command in ("promote", "rollback", "approve", "retrain"):
        assert "cannot be reached" in error_of(with_champion, command, **away)["message"]


def wait_for(condition: Callable[[], bool], seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.5)


@pytest.mark.parametrize(
    ("answer", "champion"),
    [(("--reason", "looks right"), 2), (("--no", "--reason", "not on a Friday"), 1)],
)
def test_a_manual_promotion_waits_for_a_persons_word(
    with_champion: Path, tmp_path: Path, answer: tuple[str, ...], champion: int
) -> None:
    save_overrides(
        with_champion / "params.yaml",
        ["promotion.approval=manual", "promotion.margin=0.9", "promotion.max_slice_fall=1"],
    )
    log = tmp_path / "promote.log"
    command = ["ratchet", "promote"]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=with_champion, env=with_server(), stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: "Waiting up to" in log.read_text() or process.poll() is not None)
        assert champion_of(with_champion) == 1

        # the command prints that it waits a moment before it does
        def answer_it() -> bool:
            return killed_as_it_answers(with_champion, "approve", *answer, code=None) == KILLED

        wait_for(answer_it)
        process.wait(timeout=120)
    finally:
        process.kill()
    assert champion_of(with_champion) == champion, log.read_text()
    last = ratchet_json(with_champion, "history")[-1]
    assert last["outcome"] == ("promoted" if champion == 2 else "refused")
    assert answer[-1] in last["reason"]
    # the repeat prints what the killed command did, and answers no other promotion
    repeated = ratchet_json(with_champion, "approve", *answer)
    assert repeated["state"] == ("approved" if champion == 2 else "refused")
    assert "no promotion is waiting" in error_of(with_champion, "approve", *answer)["message"]


def test_nobodys_answer_is_no(with_champion: Path) -> None:
    easy = ["promotion.margin=0.9", "promotion.max_slice_fall=1"]
    manual = ["promotion.approval=manual", "promotion.approval_hours=0.001"]
    save_overrides(with_champion / "params.yaml", [*manual, *easy])
    refused = json.loads(ratchet(with_champion, "promote", "--json", code=2).stdout)
    assert "nobody answered" in refused["decision"]["reason"]
    assert champion_of(with_champion) == 1


KILLED_COMMANDS = {
    "promote": (("promote", "2", "--force", "--reason", "killed"), 2),
    "rollback": (("rollback", "--to", "1"), 1),
}


@pytest.mark.parametrize(("command", "champion"), KILLED_COMMANDS.values(), ids=KILLED_COMMANDS)
def test_a_move_killed_at_any_moment_is_made_once_by_repeats(
    with_champion: Path, command: tuple[str, ...], champion: int
) -> None:
    if champion == 1:
        ratchet(with_champion, "promote", "2", "--force", "--reason", "to go back from")
    before = ratchet_json(with_champion, "history")
    for seconds in (3.0, 5.0, 6.0, 7.0):
        process = subprocess.Popen(
            ["ratchet", *command],
            cwd=with_champion,
            env=with_server(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert champion_of(with_champion) in (1, 2)
    result = ratchet_json(with_champion, *command)
    assert result["champion"] == champion_of(with_champion) == champion
    after = ratchet_json(with_champion, "history")
    assert after[: len(before)] == before  # nothing lost
    # made once, however often it was tried
    assert [d["version"] for d in after[len(before) :] if d["move"]] == [champion]
