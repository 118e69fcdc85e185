"""Training and prediction through the command line, on a tiny model and real stores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workspaces import (
    STAGES,
    add_own_modules,
    copy_workspace,
    git,
    ratchet,
    ratchet_json,
    run,
    states,
)

from tasks.params.workspace import Workspace


def test_the_first_run_trains_and_registers_version_1(template: Path) -> None:
    first = json.loads((template / ".ratchet" / "first.json").read_text())
    assert first["state"] == "trained"
    assert first["version"] == 1
    assert states(first) == dict.fromkeys(STAGES, "ran")
    assert first["metrics"]["macro_f1"] > 0.9
    assert first["wall_s"] >= sum(stage["seconds"] for stage in first["stages"])
    assert (template / "reports" / "report.html").is_file()


def test_train_says_what_ships_why_and_what_to_know(template: Path) -> None:
    from flows.engine.training_run import TrainResult
    from flows.printing.runs import console, print_training

    first = json.loads((template / ".ratchet" / "first.json").read_text())
    verified = json.loads((template / "reports" / "verification.json").read_text())
    evaluated = json.loads((template / "reports" / "evaluation.json").read_text())
    ships = first["ships"]
    assert ships["recipe"] == first["recipe"] == verified["shipped"]
    assert ships["why"] == verified["reason"]
    assert first["notes"] == [*evaluated["notes"], *verified["notes"]]
    assert [candidate["recipe"] for candidate in ships["candidates"]] == ["fp32", "int8-dynamic"]
    by_verdict: dict[str, list[str]] = {"ships": [], "passed": [], "rejected": []}
    for candidate in ships["candidates"]:
        assert candidate["reason"]
        by_verdict[candidate["verdict"]].append(candidate["recipe"])
    assert by_verdict["ships"] == [ships["recipe"]]
    values = {name: first[name] for name in TrainResult.__dataclass_fields__}
    result = TrainResult(**values | {"notes": ["The temperature ended at its bound."]})
    with console.capture() as captured:
        print_training(Workspace(template), result, 1.0, 0.5)
    assert f"Ships: {verified['reason']}" in captured.get()
    assert "\n! The temperature ended at its bound.\n" in captured.get()


@pytest.mark.parametrize("server", [True, False], ids=["with a server", "without a server"])
def test_a_second_run_is_a_visible_no_op(trained: Path, server: bool) -> None:
    result = ratchet_json(trained, "train", server=server)
    assert result["state"] == "cached"
    assert result["version"] == 1
    assert states(result) == dict.fromkeys(STAGES, "cached")
    assert len(ratchet_json(trained, "status")["model"]["versions"]) == 1


def test_dvc_finds_nothing_to_do_after_the_flow(trained: Path) -> None:
    assert "up to date" in run(trained, "dvc", "status").stdout
    before = (trained / "dvc.lock").read_bytes()
    assert "Running stage" not in run(trained, "dvc", "repro").stdout
    assert (trained / "dvc.lock").read_bytes() == before


def test_the_flow_finds_nothing_to_do_after_dvc(template: Path, tmp_path: Path) -> None:
    """Nor do modules of the user's own, named as Ratchet's, come in the way of either."""
    root = copy_workspace(template, tmp_path / "reviews")
    add_own_modules(root)
    for made in ("data", "reports", "models", ".dvc/cache", ".ratchet"):
        run(root, "rm", "-rf", made)
    git(root, "checkout", "-q", "--", ".")
    run(root, "rm", "-f", "dvc.lock")
    out = run(root, "dvc", "repro").stdout
    assert all(f"Running stage '{stage}'" in out for stage in STAGES)
    assert "my own" not in out
    result = ratchet_json(root, "train")
    assert states(result) == dict.fromkeys(STAGES, "cached")
    assert (result["state"], result["version"]) == ("trained", 1)


def test_status_says_what_there_is(trained: Path) -> None:
    status = ratchet_json(trained, "status")
    assert status["problem"] == "text-classification"
    assert [stage["name"] for stage in status["stages"]] == STAGES
    assert {stage["state"] for stage in status["stages"]} == {"clean"}
    (version,) = status["model"]["versions"]
    assert version["aliases"] == ["challenger"]
    metrics = json.loads((trained / "reports" / "metrics.json").read_text())
    assert version["metrics"]["macro_f1"] == pytest.approx(metrics["macro_f1"])
    assert len(version["content_key"]) == 64
    run(trained, "rm", "-rf", "models/bundle")
    assert states(ratchet_json(trained, "status"))["verify"] == "missing"
    assert "1" in ratchet(trained, "status").stdout


def test_predictions_of_the_registered_version(trained: Path) -> None:
    text = "a good and lovely film"
    good, bad = ratchet_json(trained, "predict", text, "a bad, broken phone")
    assert (good["predicted_label"], bad["predicted_label"]) == ("positive", "negative")
    assert good["text"] == text
    assert sum(good["predicted_scores"].values()) == pytest.approx(1)
    assert good["predicted_score"] == max(good["predicted_scores"].values())
    # one text each: a dynamic recipe's last digits depend on the other texts of the batch
    alone = ratchet_json(trained, "predict", "--alias", "challenger", text)
    assert ratchet_json(trained, "predict", "--bundle", "models/bundle", text) == alone
    assert alone[0]["predicted_scores"] == pytest.approx(good["predicted_scores"], abs=0.01)


def test_the_registered_model_loads_without_the_workspace(trained: Path, tmp_path: Path) -> None:
    script = (
        "import mlflow, pandas as pd; model = mlflow.pyfunc.load_model('models:/tiny@challenger');"
        "rows = pd.DataFrame({'text': ['a good and lovely film']});"
        "print(model.predict(rows)['predicted_label'][0])"
    )
    uri = f"sqlite:///{trained}/.ratchet/mlflow.db"
    done = run(tmp_path, "python", "-c", script, MLFLOW_TRACKING_URI=uri)
    assert done.stdout.split()[-1] == "positive"
