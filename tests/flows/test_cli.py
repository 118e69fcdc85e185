"""The command line: one clear message and exit code 2 for a user's mistake; only JSON by --json."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_rows
from workspaces import (
    FAST,
    clean_environment,
    make_workspace,
    ratchet,
    ratchet_json,
    run,
    write_csv,
)

from tasks.core.version import own_version
from tasks.params.schema import save_overrides
from tasks.params.workspace import Workspace


@pytest.fixture(scope="module")
def workspace(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that was never trained; tests leave its params.yaml as it is."""
    root = tmp_path_factory.mktemp("cli") / "reviews"
    make_workspace(root, base_dir, rows=120)
    return root


def error_of(directory: Path, *arguments: str) -> dict[str, str]:
    done = ratchet(directory, *arguments, "--json", code=2)
    assert "Traceback" not in done.stderr
    error: dict[str, str] = json.loads(done.stdout)["error"]
    assert set(error) == {"type", "message", "remedy"}
    assert error["message"]
    assert error["remedy"]
    return error


def test_outside_a_workspace_it_says_how_to_make_one(tmp_path: Path) -> None:
    error = error_of(tmp_path, "train")
    assert error["type"] == "WorkspaceError"
    assert "ratchet init" in error["remedy"]
    plain = ratchet(tmp_path, "train", code=2)
    assert plain.stdout == ""
    assert plain.stderr.splitlines() == [f"ratchet: {error['message']}", error["remedy"]]


def test_the_version_is_the_installed_one(tmp_path: Path) -> None:
    assert ratchet(tmp_path, "--version").stdout == f"ratchet {own_version()}\n"


def test_wrong_params_are_all_told(workspace: Path) -> None:
    wrong = ("-S", "finetune.epoch=3", "-S", "split.test=2", "-S", "seed=x")
    error = error_of(workspace, "train", *wrong)
    assert error["type"] == "ParamsError"
    for part in ("-S finetune.epoch=3: unknown key", "Did you mean 'epochs'", "split.test", "seed"):
        assert part in error["message"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "--no-such-option"), "No such option"),
        (
            ("train", "-S", "finetune.lr=3"),
            "-S finetune.lr=3: unknown key. Did you mean 'learning_",
        ),
        (("train", "-S", "finetun.epochs=3"), "-S finetun.epochs=3: finetun: unknown key. Did you"),
        (("train", "-S", "finetune.max_length=9"), "or 'tokenize.max_length'?"),
        (("predict",), "nothing to predict"),
        (("promote", "--force", "--reason", "a" * 5_001), "5,001 characters"),
        (("predict", "text"), "no version is registered"),
        (("predict", "text", "--output", "a.csv"), "--output goes with rows"),
        (("predict", "text", "--input", "a.csv"), "both texts and --input"),
        (("predict", "--bundle", "nowhere", "text"), "no bundle"),
        (("predict", "--version", "one", "text"), "valid integer"),
        (("train", "-S", "problem=text-clasification"), "text-classification"),
        (("train", "-S", "base_model.path=./nowhere"), "nowhere"),
        (("train", "-S", "ingest.sources.0.url=nowhere.csv"), "nowhere.csv"),
        (("train", "-S", "ingest.columns.text=txet"), "text"),
        (("train", "-S", "labels=[negative, neutral]"), "positive"),
        (("train", "-S", "device=cuda"), "cuda"),
        (("train", "-S", "tokenize.max_length=4096"), "64"),
        (("train", "-S", "export.recipes=[int9]"), "int9"),
        (("train", "-S", "evaluate.slices=[domian]"), "domian"),
        (("train", "-S", "finetune.early_stopping_metric=f1"), "f1"),
        (("train", "-S", "finetune.method=lorra"), "lorra"),
        (("train", "-S", "finetune.method=qlora"), "CUDA device"),
        (
            ("train", "-S", "finetune.method=lora", "-S", "finetune.freeze_layers=1"),
            "freeze_layers",
        ),
        (("train", "-S", "finetune.method=lora", "-S", "finetune.adapter=nowhere"), "nowhere"),
        (
            (
                "train",
                "-S",
                "finetune.method=lora",
                "-S",
                "finetune.adapter=models/checkpoint/adapter",
            ),
            "is overwritten",
        ),
        (("train", "-S", "base_model.sha256=" + "0" * 64), "sha256"),
    ],
)
def test_a_mistake_ends_in_one_message(
    workspace: Path, arguments: tuple[str, ...], says: str
) -> None:
    assert says in error_of(workspace, *arguments)["message"]


def test_a_wrong_option_names_its_commands_help(workspace: Path) -> None:
    error = error_of(workspace, "promote", "--no-such-option")
    assert error["remedy"] == "See `ratchet promote --help`."


def test_nothing_registered_is_told_as_such(workspace: Path) -> None:
    """The message does not blame `challenger`, which nobody typed."""
    for command in ("promote", "compare"):
        error = error_of(workspace, command)
        assert "challenger" not in error["message"]
        assert error["remedy"].startswith("Run `ratchet train`")


def test_an_offline_hub_id_says_what_to_do(workspace: Path) -> None:
    revision = "base_model.revision=" + "c0ffee" * 6
    arguments = ("train", "-S", "base_model.path=owner/model", "-S", revision, "--json")
    done = ratchet(workspace, *arguments, code=2, HF_ENDPOINT="http://127.0.0.1:9")
    assert "owner/model" in json.loads(done.stdout)["error"]["message"]


def test_an_override_is_saved_only_on_request(workspace: Path) -> None:
    before = (workspace / "params.yaml").read_text(encoding="utf-8")
    error_of(workspace, "train", "-S", "ingest.sources.0.url=nowhere.csv")
    assert (workspace / "params.yaml").read_text(encoding="utf-8") == before
    ratchet(workspace, "train", "-S", "ingest.sources.0.url=nowhere.csv", "--save", code=2)
    assert "nowhere.csv" in (workspace / "params.yaml").read_text(encoding="utf-8")
    (workspace / "params.yaml").write_text(before, encoding="utf-8")


def test_two_runs_of_one_workspace_do_not_mix(workspace: Path) -> None:
    from filelock import FileLock

    (workspace / ".ratchet").mkdir(exist_ok=True)
    with FileLock(workspace / ".ratchet" / "lock"):
        assert error_of(workspace, "train")["type"] == "WorkspaceError"


def test_status_of_a_new_workspace_makes_nothing(workspace: Path) -> None:
    run(workspace, "rm", "-rf", "data", "reports", "models", ".ratchet")
    status = ratchet_json(workspace, "status")
    assert {stage["state"] for stage in status["stages"]} == {"missing"}
    assert status["model"] == {"name": "tiny", "versions": []}
    assert not (workspace / ".ratchet" / "mlflow.db").exists()


def test_the_directory_option_works_on_both_sides(workspace: Path, tmp_path: Path) -> None:
    directory = ("-C", str(workspace))
    status = ratchet_json(tmp_path, *directory, "status")
    assert status == ratchet_json(tmp_path, "status", *directory)


def test_init_guesses_nothing_it_was_told(tmp_path: Path) -> None:
    rows, ids = tiny_rows(60), [str(i) for i in range(60)]
    table = {"id": ids, "sentence": rows["text"], "mood": rows["label"]}
    write_csv(tmp_path / "data.csv", table)
    columns = ("--text", "sentence", "--label", "mood")
    made = ratchet_json(tmp_path, "init", "moods", "--data", "data.csv", *columns)
    assert made["rows"] == 60
    assert made["labels"] == ["negative", "neutral", "positive"]
    params = Workspace(tmp_path / "moods").params()
    assert params.model_name == "moods"
    assert params.ingest.columns == {"text": "sentence", "label": "mood"}
    assert "already" in error_of(tmp_path, "init", "moods", "--data", "data.csv")["message"]
    assert "--yes" in ratchet(tmp_path, "init", "other", "--data", "data.csv", code=2).stderr
    assert not (tmp_path / "other").exists()


def test_init_says_what_it_takes_the_data_for(tmp_path: Path) -> None:
    rows, ids = tiny_rows(60), [str(i) for i in range(60)]
    table = {"id": ids, "mood": rows["label"], "sentence": rows["text"]}
    write_csv(tmp_path / "data.csv", table)
    refused = ratchet(tmp_path, "init", "moods", "--data", "data.csv", code=2).stderr
    assert "text-classification (text: sentence, label: mood)" in refused
    made = ratchet_json(tmp_path, "init", "moods", "--data", "data.csv", "--yes")
    assert made["problem"] == "text-classification"
    assert made["columns"] == {"text": "sentence", "label": "mood"}
    write_csv(tmp_path / "odd.csv", {"a": ids, "b": [str(i / 7) for i in range(60)]})
    refused = ratchet(tmp_path, "init", "odd", "--data", "odd.csv", "--yes", code=2).stderr
    assert "fit no problem type" in refused


@pytest.mark.parametrize("layout", ["directory", "three files"])
def test_init_takes_splits_as_they_are(tmp_path: Path, layout: str) -> None:
    for seed, split in enumerate(("train", "validation", "test")):
        write_csv(tmp_path / "sets" / f"{split}.csv", tiny_rows(50, seed))
    files = [str(tmp_path / "sets" / f"{split}.csv") for split in ("test", "train", "validation")]
    paths = [str(tmp_path / "sets")] if layout == "directory" else files
    data = [word for path in paths for word in ("--data", path)]
    ratchet(tmp_path, "init", "ws", "--yes", *data)
    sources = Workspace(tmp_path / "ws").params().ingest.sources
    names = {source.split: Path(source.url).name for source in sources}
    assert names == {"train": "train.csv", "validation": "validation.csv", "test": "test.csv"}


def test_init_without_git_makes_a_dvc_repository(tmp_path: Path) -> None:
    write_csv(tmp_path / "data.csv", tiny_rows(60))
    ratchet(tmp_path, "init", "ws", "--yes", "--data", "data.csv")
    assert "no_scm = True" in (tmp_path / "ws" / ".dvc" / "config").read_text(encoding="utf-8")
    run(tmp_path / "ws", "dvc", "status")


def test_help_is_quick_to_import() -> None:
    code = "from flows.cli.main import main; main()"
    command = [sys.executable, "-X", "importtime", "-c", code, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "Usage" in done.stdout
    heavy = ("torch", "prefect", "mlflow", "pandas", "duckdb", "pyarrow")
    assert [name for name in heavy if f" {name}\n" in done.stderr] == []


def test_the_template_of_params_is_complete_and_commented(workspace: Path) -> None:
    text = (workspace / "params.yaml").read_text(encoding="utf-8")
    values = Workspace(workspace).values()
    sections = {"validate", "split", "tokenize", "finetune", "evaluate", "export", "verify"}
    assert set(values) >= {"ingest", *sections}
    full = Workspace(workspace).params().model_dump(by_alias=True)
    for section in sections:
        assert set(values[section]) == set(full[section]), section
    assert text.count("#") > 30
    assert FAST
    save_overrides(workspace / "params.yaml", [])
    assert (workspace / "params.yaml").read_text(encoding="utf-8") == text


def test_an_argument_that_is_no_utf_8_is_told(workspace: Path) -> None:
    command: list[str | bytes] = ["ratchet", "-C", str(workspace), "predict", b"caf\xe9", "--json"]
    done = subprocess.run(command, capture_output=True, env=clean_environment(), check=False)
    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert error["message"] == r"the argument 'caf\xe9' is not UTF-8."
    assert done.stderr == b""


@pytest.mark.parametrize("as_json", [True, False])
def test_an_output_that_cannot_hold_a_character_shows_it_escaped(
    template: Path, *, as_json: bool
) -> None:
    options = ["--json"] if as_json else []
    done = run(template, "ratchet", "predict", "naïve 房", *options, PYTHONIOENCODING="ascii")
    if as_json:
        assert json.loads(done.stdout)[0]["text"] == "naïve 房"
    else:
        assert r"na\xefve \u623f" in done.stdout
    assert "bug" not in done.stderr


def test_no_proxy_stands_between_this_machine_and_itself(trained: Path) -> None:
    """Nobody answers at the proxy; the Prefect server is here."""
    proxy = "http://127.0.0.1:9"
    proxies = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), proxy)
    environment: dict[str, Any] = proxies | {"NO_PROXY": "example.org"}
    assert ratchet_json(trained, "train", **environment)["state"] == "cached"
