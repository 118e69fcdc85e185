"""Retraining: idle while nothing has changed; new rows lead to a version, judged and recorded."""

from __future__ import annotations

import csv
from pathlib import Path

from tiny import tiny_rows
from workspaces import ratchet, ratchet_json

from tasks.lifecycle.registry import connect
from tasks.params.schema import save_overrides

EASY = [
    "promotion.margin=0.9",
    "promotion.max_slice_fall=1",
    "promotion.max_latency_ratio=null",
    "promotion.resamples=1000",
]


def add_rows(root: Path, count: int, seed: int) -> None:
    rows = tiny_rows(count, seed)
    with (root / "reviews.csv").open("a", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(zip(rows["text"], rows["label"], rows["domain"], strict=True))


def test_new_rows_call_for_training_and_nothing_else_does(trained: Path) -> None:
    save_overrides(
        trained / "params.yaml", [*EASY, "retrain.new_data.min_rows=50", "retrain.age.enabled=true"]
    )
    ratchet(trained, "promote", "1")
    idle = ratchet_json(trained, "retrain")
    assert idle["state"] == "idle"
    fired = {trigger["name"]: trigger["fired"] for trigger in idle["triggers"]}
    names = ("new_data", "drift", "performance", "age", "unjudged")
    assert fired == dict.fromkeys(names, False)
    assert all(trigger["reason"] for trigger in idle["triggers"])
    assert len(ratchet_json(trained, "status")["model"]["versions"]) == 1

    add_rows(trained, 49, seed=1)
    assert "49 of" in ratchet_json(trained, "retrain")["triggers"][0]["reason"]
    add_rows(trained, 30, seed=2)
    done = ratchet_json(trained, "retrain")
    assert (done["state"], done["version"]) == ("trained", 2)
    assert done["promotion"]["champion"] == 2
    assert "79 of" in done["promotion"]["decision"]["trigger"]
    client, _ = connect(f"sqlite:///{trained}/.ratchet/mlflow.db", trained / ".ratchet", "tiny")
    assert "new_data: 79 of" in client.get_model_version("tiny", "2").tags["ratchet.trigger"]

    again = ratchet_json(trained, "retrain")
    assert again["state"] == "idle"
    tests = ratchet_json(trained, "status")["test_rows"]
    assert tests["looks"] == 2
    assert not tests["fresh_rows_due"]


def test_a_cause_that_new_training_cannot_answer_makes_no_version(trained: Path) -> None:
    """The champion is old, but the same data, parameters and code would give the same model."""
    ratchet(trained, "promote", "1")
    age = ["retrain.age.enabled=true", "retrain.age.max_days=1.0e-9"]
    save_overrides(trained / "params.yaml", [*age, "promotion.max_looks=1"])
    done = ratchet_json(trained, "retrain")
    assert (done["state"], done["version"], done["promotion"]) == ("cached", 1, None)
    assert [trigger["name"] for trigger in done["triggers"] if trigger["fired"]] == ["age"]
    assert len(ratchet_json(trained, "history")) == 1
    assert ratchet_json(trained, "status")["test_rows"]["fresh_rows_due"]
    assert "Fresh test rows are due" in " ".join(ratchet(trained, "status").stdout.split())


def test_a_version_that_a_killed_run_left_unjudged_is_judged(trained: Path) -> None:
    save_overrides(trained / "params.yaml", EASY)
    done = ratchet_json(trained, "retrain")
    assert [trigger["name"] for trigger in done["triggers"] if trigger["fired"]] == ["unjudged"]
    assert (done["version"], done["promotion"]["champion"]) == (1, 1)
    assert ratchet_json(trained, "retrain")["state"] == "idle"
