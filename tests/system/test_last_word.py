"""Every kind of error, by the command line: all of standard error is ours, and ours ends it.

`workspaces.checked` looks for libraries' noise after every command that fails in any test; here the
whole text is compared.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import free_port
from tiny import tiny_rows
from workspaces import STAGES, copy_workspace, forked, ratchet, run, write_csv
from zc.lockfile import LockFile  # type: ignore[import-untyped]

from tasks.lifecycle.registry import connect

# lines about what was done before the error
BEFORE = re.compile(
    rf"({'|'.join(STAGES)}) +.*|(Predicting|Ranking) with version \d+ \(\w+\)\."
    r"|MLflow at \S+ does not answer; still trying \.\.\."
)
PINNED = f"-S ingest.sources.0.sha256={'a' * 64}"
# underscores stand for spaces
QUERY = "SELECT_text,_label,_'{split}'_AS_split_FROM_data"


@dataclass(frozen=True)
class Case:
    """A command that fails, and what its message says; `fresh`: in a process of its own."""

    command: str
    says: str
    fresh: bool = False


def assert_whole(root: Path, case: Case, **environment: Any) -> None:
    """Standard error ends with the message that --json gives; only progress stands before it."""
    arguments = [part.replace("_", " ") for part in case.command.split()]
    plain = ratchet(root, *arguments, code=2, server=not case.fresh, **environment)
    assert plain.stdout == ""
    assert case.says in plain.stderr
    answered = ratchet(root, *arguments, "--json", code=2, **environment)
    error = json.loads(answered.stdout)["error"]
    told = "\n".join(filter(None, (error["message"], error["remedy"])))
    lines = plain.stderr.splitlines()
    before = len(lines) - len(told.splitlines())
    assert "\n".join(lines[before:]) == f"ratchet: {told}"
    assert all(map(BEFORE.fullmatch, lines[:before])), lines[:before]
    assert all(map(BEFORE.fullmatch, answered.stderr.splitlines())), answered.stderr


@pytest.fixture(scope="module")
def nowhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("nowhere")


@pytest.mark.parametrize(
    "case",
    [
        Case("status", "not a workspace"),
        Case("train --nonsense", "No such option"),
        Case("no-such-command", "No such command"),
        Case("init new --yes --data missing.csv", "missing.csv"),
        Case("init new --yes --problem nonsense", "nonsense"),
        Case("predict --bundle . a", "manifest.json"),
    ],
    ids=lambda case: case.command,
)
def test_outside_a_workspace(nowhere: Path, case: Case) -> None:
    assert_whole(nowhere, case)


@pytest.mark.parametrize(
    "case",
    [
        Case("train -S finetune.lr=1", "finetune.lr"),
        Case("train -S finetune.epochs=many", "finetune.epochs"),
        Case("train -S ingest.sources.0.url=gone.csv", "gone.csv", fresh=True),
        Case("train -S ingest.columns.text=nothing", "nothing"),
        Case("train -S base_model.path=gone", "gone"),
        Case("predict --version 9 a", "9"),
        Case("predict --alias nobody a", "nobody"),
        Case("predict --input gone.csv", "gone.csv"),
        Case("rank a", "rank"),
        Case("chat", "chat"),
        Case("compare 8 9", "8"),
        Case("promote 9", "9"),
        Case("promote models/bundle", "only registered versions"),
        Case("approve 9", "9"),
        Case("rollback", "no version was ever promoted"),
        Case("report 9", "9"),
        Case("adapt", "Missing argument"),
        Case("schedule --cron nonsense", "nonsense"),
        Case("retrain --cause nonsense", "No such option"),
        Case("predict --input reviews.csv --output a.docx", "a.docx"),
        Case("predict --input reviews.csv --output reviews.csv", "the input"),
        Case("predict --input reviews.csv --output data", "a directory"),
        Case("report --output data", "a directory"),
        Case("rank a b", "not pairs"),
        Case("promote --reason why", "--force"),
        Case("train -S base_model.path=s3://bucket/model", "s3://"),
        Case(f"train -S ingest.sources.0.url=rev*.csv {PINNED}", "one sha256"),
        Case("train -S ingest.sources.0.url=file:///a.csv", "file://"),
        Case("train -S ingest.keep=[row]", "ingest.keep"),
        Case(f"train -S ingest.query={QUERY.format(split='old')}", "column `split`"),
        Case("train -S promotion.metric=ece", "promotion.metric"),
        Case("train -S finetune.early_stopping_metric=ndcg", "ndcg"),
        Case("adapt . --data reviews.csv", "text-classification"),
        Case("predict --bundle linked a", "symbolic link"),
    ],
    ids=lambda case: case.command,
)
def test_in_a_workspace(reviews: Path, case: Case) -> None:
    assert_whole(reviews, case)


@pytest.fixture(scope="module")
def reviews(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = copy_workspace(template, tmp_path_factory.mktemp("own") / "reviews")
    shutil.copy(root / "reviews.csv", root / "reviews2.csv")
    shutil.copytree(root / "models" / "bundle", root / "linked")
    (root / "linked" / "manifest.json").unlink()
    (root / "linked" / "manifest.json").symlink_to(root / "models" / "bundle" / "manifest.json")
    return root


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory, base_dir: Path) -> Path:
    """Data that `ratchet init` cannot read or is told too little about."""
    root = tmp_path_factory.mktemp("odd")
    write_csv(root / "good.csv", tiny_rows(60))
    write_csv(root / "part" / "train.csv", tiny_rows(60))
    for name in ("words.conll", "table.xls"):
        (root / name).write_text("Anna B-PER\n")
    (root / "deep.json").write_text("[" * 100_000)
    tags = {"tokens": [["a", "b"]] * 60, "tags": [[0, 1]] * 60}
    pq.write_table(pa.table(tags), root / "tags.parquet")
    (root / "bare.csv").write_text("text,label\n")
    write_csv(root / "same.csv", {"text": ["a good day", "a fine day"] * 9, "label": ["x"] * 18})
    (root / "header.csv").write_text('text,"label"x\na,b\n')
    return root


@pytest.mark.parametrize(
    "case",
    [
        Case("init new --yes", "no data given"),
        Case("init new --yes --data good.csv --column text", "--column text"),
        Case("init new --yes --data good.csv --train good.csv", "exclude each other"),
        Case("init new --yes --data good.csv --problem text-pair", "cannot tell which columns"),
        Case("init new --yes --data part", "test.*"),
        Case("init new --yes --data words.conll", "CoNLL"),
        Case("init new --yes --data table.xls", ".xlsx"),
        Case("init new --yes --data header.csv", "header"),
        Case("init new --yes --data bare.csv", "has no rows"),
        Case("init new --yes --data same.csv", "Column 'label' has one value only"),
        Case("init new --yes --data good.csv --text txet", "Did you mean 'text'?"),
        Case("init new --yes --data deep.json", "deep.json: not valid JSON"),
        Case("init new --yes --data good.csv --out-of-scope other", "--out-of-scope other"),
        Case("init new --yes --data good.csv --text text --label text", "named for two"),
        Case("init new --yes --data good.csv --sheet rows", "which has no --sheet"),
        Case("init new --yes --data tags.parquet --delimiter ;", "which has no --delimiter"),
        Case(
            "init new --yes --data good.csv --delimiter ;", "one column only, 'text,label,domain'"
        ),
        Case("init new --yes --data good.csv --tags O,B-PER", "--tags: names numeric tags"),
        Case("init new --yes --data good.csv --base-model good.csv", "--base-model good.csv: no"),
        Case("init new --yes --data good.csv --base-model ./gone", "--base-model ./gone: no"),
        Case("init new --yes --data good.csv --base-model part", "../part: it has no"),
        Case("init new --yes --data tags.parquet --tags O,B-PER,X", "'X' is none"),
        Case("init new --yes --data tags.parquet --tags O,B-PER,B-PER", "twice"),
        Case("adapt new --data good.csv --from-scratch --base-model x", "exclude each other"),
    ],
    ids=lambda case: case.command,
)
def test_data_that_says_too_little(odd: Path, case: Case) -> None:
    assert_whole(odd, case)
    assert not (odd / "new").exists()


def test_a_workspace_without_a_version(odd: Path) -> None:
    ratchet(odd, "init", "untrained", "--yes", "--data", "good.csv")
    for command in ("predict a", "report", "rank a b"):
        assert_whole(odd / "untrained", Case(command, "no version is registered"))


def test_a_stage_alone(nowhere: Path, template: Path, tmp_path: Path) -> None:
    assert ratchet(nowhere, "stage", "ingest", code=2).stderr.startswith("ratchet: /")
    root = copy_workspace(template, tmp_path / "reviews")
    shutil.rmtree(root / "data" / "splits")
    told = (
        "ratchet: tokenize: data/splits is missing.\nRun `ratchet train`, which makes it first.\n"
    )
    assert ratchet(root, "stage", "tokenize", code=2).stderr == told
    told = "ratchet: no stage is called 'nonsense'.\nStages: ingest, validate, split, "
    assert ratchet(template, "stage", "nonsense", code=2).stderr.startswith(told)


@pytest.fixture
def closed() -> str:
    """An address where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


def test_a_source_an_mlflow_or_a_prefect_that_cannot_be_reached(
    template: Path, tmp_path: Path, closed: str
) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    source = f"train -S ingest.sources.0.url={closed}/a.csv"
    assert_whole(root, Case(source, closed, fresh=True))
    once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    for command in ("train", "predict a"):
        assert_whole(root, Case(command, closed, fresh=True), MLFLOW_TRACKING_URI=closed, **once)
    assert_whole(root, Case("train", closed, fresh=True), PREFECT_API_URL=f"{closed}/api")


def test_what_the_surroundings_say_wrongly(reviews: Path, tmp_path: Path) -> None:
    assert_whole(reviews, Case("status", "unknown level"), RATCHET_LOG="loud")
    (tmp_path / "profiles.toml").write_text("active = [", encoding="utf-8")
    done = run(reviews, "ratchet", "status", code=2, PREFECT_HOME=str(tmp_path))
    assert "profiles.toml" in done.stderr
    assert "not valid TOML" in done.stderr


def test_rows_that_are_not_fit_to_train_on(template: Path, tmp_path: Path) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    write_csv(root / "reviews.csv", tiny_rows(4))
    assert_whole(root, Case("train", "Rows:"))


def test_what_is_gone_from_a_workspace(template: Path, tmp_path: Path) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    for page in (root / ".ratchet" / "mlartifacts").rglob("report.html"):
        page.unlink()
    assert_whole(root, Case("report 1", "has no reports/report.html"))
    shutil.rmtree(root / ".dvc")
    assert_whole(root, Case("train", "no DVC repository"))
    shutil.rmtree(root / "data" / "splits")
    assert_whole(root, Case("compare models/bundle models/bundle", "no test rows to compare on"))


def test_what_another_process_did_meanwhile(template: Path, tmp_path: Path) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    other = LockFile(str(root / ".dvc" / "tmp" / "lock"))
    assert_whole(root, Case("train --force", "another DVC process is at work here"))
    other.close()
    client, _ = connect(f"sqlite:///{root}/.ratchet/mlflow.db", root / ".ratchet", "tiny")
    client.create_experiment("ratchet tiny champion move 1", tags={"decision": "of none"})
    assert_whole(root, Case("promote 1", "names a decision that no version has"))
    script = tmp_path / "ratchet.py"
    script.write_text(
        "from mlflow import MlflowClient\n"
        "from flows.cli import main\n"
        "MlflowClient.get_experiment_by_name = lambda *_: None\n"
        "main.main()\n"
    )
    told = (
        "ratchet: MLflow: the experiment 'tiny' was just there, and is gone.\n"
        "Run the command again.\n"
    )
    assert forked(root, "status", code=2, script=script).stderr == told


def test_a_bug_of_ours_is_told_as_one_and_its_traceback_is_kept(
    reviews: Path, tmp_path: Path
) -> None:
    script = tmp_path / "ratchet.py"
    script.write_text(
        "from flows.cli import main\n"
        "from tasks.params.workspace import Workspace\n"
        "Workspace.find = lambda *_: 1 / 0\n"
        "main.main()\n"
    )
    done = forked(reviews, "status", code=1, script=script)
    first, second = done.stderr.splitlines()
    assert first == "ratchet: unexpected ZeroDivisionError: division by zero"
    file = Path(re.search(r"Its traceback is in (\S+): please report it\.", second)[1])  # type: ignore[index]
    assert "Workspace.find = lambda" in file.read_text()
    file.unlink()


def test_what_is_stored_and_damaged(template: Path, tmp_path: Path) -> None:
    root = copy_workspace(template, tmp_path / "reviews")
    shutil.rmtree(root / ".ratchet" / "mlartifacts")
    (root / "models" / "bundle" / "model.onnx").write_bytes(b"nothing")
    assert_whole(root, Case("predict --bundle models/bundle a", "model.onnx"))
    assert_whole(root, Case("predict a", "no bundle"))
    (root / ".ratchet" / "mlflow.db").write_bytes(b"not a database")
    assert_whole(root, Case("status", "mlflow.db"))
    (root / "params.yaml").write_text("a: [b\n")
    assert_whole(root, Case("train", "params.yaml"))
