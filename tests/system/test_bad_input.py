"""Bad data through the whole command.

It either trains, with the bad rows set aside, or says in one message what to do.
"""

from __future__ import annotations

import csv
import io
import json
import re
import resource
import shutil
import subprocess
from pathlib import Path

import pytest
from shared import prefect_server
from tiny import tiny_rows
from workspaces import clean_environment, make_workspace, ratchet, ratchet_json, run, write_csv

from tasks.core.errors import PipelineError
from tasks.core.files import read_json, read_jsonl, write_json
from tasks.core.progress import silent
from tasks.params.workspace import Workspace
from tasks.pipeline import STAGES, run_stage

DATA_STAGES = STAGES[:4]


@pytest.fixture(scope="module")
def empty(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bad") / "reviews"
    make_workspace(root, base_dir, rows=150)
    return root


@pytest.fixture
def workspace(empty: Path) -> Workspace:
    """A workspace whose reviews.csv the test writes; no stage has run yet."""
    run(empty, "rm", "-rf", "data", "reports", "models", ".ratchet")
    return Workspace(empty)


def as_csv(rows: dict[str, list[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows)
    writer.writerows(zip(*rows.values(), strict=True))
    return text.getvalue()


def make_data(workspace: Workspace) -> None:
    for stage in DATA_STAGES:
        run_stage(stage, workspace, workspace.params(), silent)


def kept_and_set_aside(workspace: Workspace) -> tuple[int, int]:
    """(rows to train on, rows set aside with a reason)."""
    data = workspace.root / "data"
    aside = [
        row
        for stage in ("raw", "valid", "splits")
        for row in read_jsonl(data / stage / "quarantine.jsonl")
    ]
    assert all(row["reason"] for row in aside)
    return sum(read_json(data / "tokens" / "tokens.json")["rows"].values()), len(aside)


GOOD = as_csv(tiny_rows(150))
EXTRA = {
    "a megabyte of text": "good " * 200_000 + ",positive,films\n",
    "emoji and right-to-left": "a good film 🙂👨‍👩‍👧 פילם טוב فيلم جيد‏,positive,films\n",
    "embedded line breaks and quotes": (
        '"a ""good"" film,\r\nreally\n\nquite superb",positive,films\n'
    ),
    "a NUL byte": "a good\0film,positive,films\n",
    "too few fields": "a good film\n",
    "too many fields": "a good film,positive,films,and,more\n",
    "an empty text": ",positive,films\n",
    "no label": "a good film for all,,films\n",
    "an unclosed quote": '"a good film,positive,films\n',
    "a duplicate": GOOD.splitlines()[1] + "\n",
}


@pytest.mark.parametrize("kind", EXTRA)
def test_one_bad_row_is_kept_or_set_aside_and_the_rest_goes_on(
    workspace: Workspace, kind: str
) -> None:
    lines = GOOD.splitlines(keepends=True)
    text = "".join([*lines[:80], EXTRA[kind], *lines[80:]])
    (workspace.root / "reviews.csv").write_text(text, encoding="utf-8", newline="")
    make_data(workspace)
    kept, aside = kept_and_set_aside(workspace)
    assert kept + aside == 151
    assert kept >= 148  # at most the bad row and two neighbours are set aside


@pytest.mark.parametrize(
    ("encoded", "note"),
    [
        (GOOD.encode("utf-8-sig"), "byte order mark"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (GOOD.replace("\n", "\r\n").encode(), "CRLF"),
        (GOOD.encode().rstrip(b"\n"), "no newline at the end"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_ways_to_write_a_file_give_the_same_rows(
    workspace: Workspace, encoded: bytes, note: str
) -> None:
    (workspace.root / "reviews.csv").write_bytes(encoded)
    make_data(workspace)
    import pyarrow.parquet as pq

    file, columns = workspace.root / "data" / "raw" / "rows.parquet", ["text", "label"]
    rows = pq.read_table(file, columns=columns).to_pydict()
    assert rows == {name: tiny_rows(150)[name] for name in columns}, note


def one_class(rows: dict[str, list[str]]) -> dict[str, list[str]]:
    return rows | {"label": ["positive"] * len(rows["label"])}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty"),
        (b"text,label,domain\n", "no rows"),
        (as_csv(tiny_rows(10)).encode(), "10"),
        (as_csv(one_class(tiny_rows(150))).encode(), "class"),
        (as_csv(tiny_rows(150) | {"label": ["postive"] * 150}).encode(), "postive"),
        (b"sentence,label,domain\n" + GOOD.encode().partition(b"\n")[2], "text"),
        (GOOD.replace("good", "caf\xe9").encode("latin-1"), "encoding"),
        (bytes(range(256)) * 50, "reviews.csv"),
    ],
    ids=[
        "empty file",
        "header only",
        "ten rows",
        "one class",
        "unknown label",
        "wrong column",
        "latin-1",
        "binary",
    ],
)
def test_a_file_that_will_not_do_is_told_and_leaves_nothing_half_written(
    workspace: Workspace, content: bytes, says: str
) -> None:
    (workspace.root / "reviews.csv").write_bytes(content)
    with pytest.raises(PipelineError) as caught:
        make_data(workspace)
    assert says in str(caught.value)
    assert caught.value.remedy
    for stage in DATA_STAGES:
        outs = [(workspace.root / path).exists() for path in stage.outs.values()]
        assert all(outs) or not any(outs)


def test_the_command_says_it_in_one_message(workspace: Workspace) -> None:
    misspelt = tiny_rows(150) | {"label": ["postive"] * 150}
    (workspace.root / "reviews.csv").write_text(as_csv(misspelt), encoding="utf-8")
    done = ratchet(workspace.root, "train", code=2, server=False)
    assert "Traceback" not in done.stderr
    assert "postive" in done.stderr
    assert "reviews.csv" in done.stderr
    (workspace.root / "reviews.csv").write_text(GOOD, encoding="utf-8")
    run(workspace.root, "git", "checkout", "-q", ".")


def test_losses_are_told_from_the_sources_to_the_gate(workspace: Workspace) -> None:
    """120 of 400 rows have an unquoted comma.

    init says so, train stops, the command that it proposes trains, and all counts start at 400.
    """
    root = workspace.root
    lines = as_csv(tiny_rows(280)).splitlines(keepends=True)
    for number in range(120):
        lines.insert(2 * number + 1, "a good, lovely film,positive,films\n")
    (root / "reviews.csv").write_text("".join(lines), encoding="utf-8")
    data = ("--data", str(root / "reviews.csv"), "--base-model", str(root / "base"))
    made = ratchet(root.parent, "init", "again", "--yes", *data).stdout
    examples = "reviews.csv line 2, reviews.csv line 4, reviews.csv line 6, ..."
    reason = f"120: 4 fields, the header has 3 ({examples})"
    held = "Rows: the sources hold 400; 120 were set aside, 280 are left:"
    assert held in made
    assert "reviews.csv line 2" in made
    stopped = ratchet(root, "train", code=2).stderr
    for part in (held, reason, "ingest.max_quarantined_share allows 1.00%"):
        assert part in stopped
    status = ratchet_json(root, "status")["rows"]
    assert (status["held"], status["set_aside"]) == (400, 120)
    assert [len(read_jsonl(root / file)) for file in status["files"]] == [120]
    command = re.search("`ratchet (train -S [^`]*)`", stopped)
    assert command
    trained = ratchet(root, *command[1].split(" ")).stdout
    assert "Rows: the sources hold 400;" in trained
    assert reason in trained
    result = ratchet_json(root, *command[1].split(" "))
    split = read_json(root / "data" / "splits" / "split.json")
    assert result["state"] == "cached"
    assert (result["rows"]["held"], result["rows"]["used"]) == (400, split["rows_out"])
    assert result["rows"]["losses"][0]["rows"] == 120
    page = (root / "reports" / "report.html").read_text(encoding="utf-8")
    assert "4 fields, the header has 3" in page
    gates = ratchet_json(root, "promote")["decision"]["gates"]
    (data,) = [gate for gate in gates if gate["name"] == "data validation"]
    assert data["reason"].startswith("280 of 400 rows passed")
    assert "120 set aside: 4 fields, the header has 3" in data["reason"]
    shutil.rmtree(root.parent / "again")
    run(root, "git", "checkout", "-q", ".")


def run_with_limit(
    root: Path, command: str, resource_kind: int, limit: int, **environment: str
) -> subprocess.CompletedProcess[str]:
    """A command with a limit in bytes on a resource of `setrlimit`."""
    return subprocess.run(
        ["ratchet", command, "--json"],
        cwd=root,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource_kind, (limit, limit)),
    )


def test_a_full_disk_loses_nothing(trained: Path) -> None:
    bundle = trained / "models" / "bundle"
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    with (trained / "reviews.csv").open("a", encoding="utf-8") as file:
        file.write("a film that was very good and quite superb for us,positive,films\n")
    status = ratchet_json(trained, "status")
    stages = {stage["name"]: stage["state"] for stage in status["stages"]}
    assert (stages["ingest"], stages["validate"]) == ("stale", "clean")
    (first,) = status["model"]["versions"]
    running = {"PREFECT_API_URL": prefect_server()}
    for most_kilobytes, server in ((8, {}), (150, {}), (150, running)):
        # like a full disk, at different writes
        limit = most_kilobytes * 1024
        done = run_with_limit(trained, "train", resource.RLIMIT_FSIZE, limit, **server)
        assert done.returncode == 2, done.stderr
        assert json.loads(done.stdout)["error"]["type"] in ("StorageError", "RegistryError")
        assert "Traceback" not in done.stderr
        assert {path: path.read_bytes() for path in before} == before
    again = ratchet_json(trained, "train")
    assert (again["state"], again["version"]) == ("trained", 2)
    assert again["content_key"] != first["content_key"]  # the data has one more row


@pytest.mark.parametrize(
    ("command", "mebibytes"), [("train", 500), ("train", 3500), ("status", 1300), ("retrain", 900)]
)
def test_too_little_address_space_is_told_before_anything_runs(
    workspace: Workspace, command: str, mebibytes: int
) -> None:
    """With it, libraries abort, hang or say that they cannot be imported."""
    done = run_with_limit(workspace.root, command, resource.RLIMIT_AS, mebibytes * 2**20)
    assert done.returncode == 2, done.stderr
    assert done.stderr == ""
    error = json.loads(done.stdout)["error"]
    assert f"limited to {mebibytes:,} MiB" in error["message"]
    assert "ulimit -v" in error["remedy"]
    assert not (workspace.root / "data").exists()


@pytest.mark.parametrize("command", ["promote", "rollback"])
def test_a_workspace_without_versions_is_told_at_once(workspace: Workspace, command: str) -> None:
    """It has no store yet in which its own Prefect server could start."""
    done = ratchet(workspace.root, command, code=2, server=False)
    assert "no version is registered" in done.stderr
    assert "Traceback" not in done.stderr
    assert not workspace.store.exists()


def test_a_tokenizer_that_is_not_the_models_is_told(
    workspace: Workspace, base_dir: Path, tmp_path: Path
) -> None:
    write_csv(workspace.root / "reviews.csv", tiny_rows(150))
    shutil.copytree(base_dir, tmp_path / "foreign")
    config = read_json(base_dir / "config.json")
    write_json(tmp_path / "foreign" / "config.json", config | {"vocab_size": 10})
    done = ratchet(workspace.root, "train", "-S", f"base_model.path={tmp_path / 'foreign'}", code=2)
    assert "tokens, its model knows 10: they do not belong together" in done.stderr
