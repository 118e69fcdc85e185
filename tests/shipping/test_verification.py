from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import PROBLEM, ROWS, Exported
from tiny import LABELS

from tasks.core.errors import ExportError
from tasks.core.files import read_json, sha256_file
from tasks.core.progress import silent
from tasks.encoding.token_files import read_features
from tasks.inference.bundle import open_bundle
from tasks.inference.predictor import Predictor
from tasks.params.schema import VerifyParams
from tasks.problems import load_problem
from tasks.reports.stage_reports import CandidateReport
from tasks.scoring.classes import fit_temperature
from tasks.shipping.candidates import FP32, Variant, choose_recipe, speed_notes
from tasks.shipping.timing import Speedup, Timings, turns
from tasks.shipping.workbench import Workbench
from tasks.shipping.workers import Worker, WorkerError
from tasks.verification import verify_candidates

RECIPES = load_problem(PROBLEM).defaults.recipes


@dataclass(frozen=True)
class Verified:
    bundle: Path
    report: dict[str, Any]
    metrics: dict[str, Any]

    def candidate(self, recipe: str) -> dict[str, Any]:
        return next(entry for entry in self.report["candidates"] if entry["recipe"] == recipe)


def verify(
    exported: Exported, directory: Path, candidates: Path | None = None, **params: Any
) -> Verified:
    bundle = directory / "bundle"
    report, metrics = directory / "verification.json", directory / "metrics.json"
    verify_candidates(
        exported.tokens,
        exported.checkpoint,
        candidates or exported.candidates,
        bundle,
        report,
        metrics,
        problem=PROBLEM,
        labels=LABELS,
        out_of_scope=None,
        verify=VerifyParams(timing_rows=48, **params),
        seed=0,
        report=silent,
    )
    return Verified(bundle, read_json(report), read_json(metrics))


@pytest.fixture(scope="module")
def verified(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Verified:
    directory = tmp_path_factory.mktemp("verified")
    return verify(exported, directory, max_metric_loss=1.0, examine_all=True)


@pytest.fixture
def few(exported: Exported, tmp_path: Path) -> Path:
    """Candidates that the test may change: fp32 and one recipe."""
    candidates = tmp_path / "candidates"
    for recipe in ("fp32", "int8-static"):
        shutil.copytree(exported.candidates / recipe, candidates / recipe)
    entries = json.loads((exported.candidates / "export.json").read_text())["recipes"]
    kept = [entry for entry in entries if entry["recipe"] in ("fp32", "int8-static")]
    (candidates / "export.json").write_text(json.dumps({"recipes": kept}))
    return candidates


def judged(
    recipe: str, verdict: str = "passed", *, speedup: float = 1.0, loss: float = 0.0
) -> CandidateReport:
    reason = "loses 0.0200" if verdict == "rejected" else verdict
    return CandidateReport(
        recipe=recipe,
        speedup={"value": speedup},
        verdict=verdict,
        metric_loss=loss,
        reason=reason,
    )


def files_of(bundle: Path) -> dict[str, str]:
    """The sha256 of each file, including the manifest."""
    files = [file for file in bundle.rglob("*") if file.is_file()]
    return {file.relative_to(bundle).as_posix(): sha256_file(file) for file in files}


def test_every_candidate_is_judged_on_everything(verified: Verified) -> None:
    assert [entry["recipe"] for entry in verified.report["candidates"]] == ["fp32", *RECIPES]
    for entry in verified.report["candidates"]:
        assert 0.99 <= entry["agreement"] <= 1
        assert 0 <= entry["max_probability_difference"] < 0.2
        assert entry["size_bytes"] > 0
        assert 0 < entry["latency_ms_p50"] <= entry["latency_ms_p95"]
        assert entry["throughput"] > 0
        assert entry["reason"]
    rows = {"validation": ROWS["validation"], "test": ROWS["test"], "timing": 48}
    assert verified.report["rows"] == rows
    checkpoint = dict(verified.report["checkpoint"])
    assert checkpoint.pop("tokens_per_second") is None  # it does not generate
    measures = {"metric", "size_bytes", "latency_ms_p50", "latency_ms_p95", "throughput"}
    assert set(checkpoint) == measures


def test_only_dynamic_ranges_move_with_the_batch(verified: Verified) -> None:
    for entry in verified.report["candidates"]:
        assert "dynamic" in entry["recipe"] or entry["max_batch_difference"] <= 1e-4


def test_a_recipe_whose_answers_depend_on_the_batch_does_not_ship(verified: Verified) -> None:
    assert verified.candidate(verified.report["shipped"])["max_batch_difference"] <= 0.01
    for entry in verified.report["candidates"]:
        assert ("batched with" in entry["reason"]) == (entry["max_batch_difference"] > 0.01)


def test_fp32_is_parity_with_the_checkpoint(verified: Verified) -> None:
    fp32 = verified.candidate("fp32")
    assert fp32["metric_loss"] == 0
    assert fp32["agreement"] == 1
    assert fp32["max_probability_difference"] < 1e-4
    # two turns are too few for an interval
    assert fp32["speedup"] == {"value": 1, "low": None, "high": None}


def test_what_ships_is_the_measured_recipe_byte_for_byte(
    verified: Verified, exported: Exported
) -> None:
    shipped = verified.report["shipped"]
    assert open_bundle(verified.bundle).recipe == shipped == verified.metrics["recipe"]
    measured = exported.candidates / shipped / "model.onnx"
    assert (verified.bundle / "model.onnx").read_bytes() == measured.read_bytes()


def test_test_metrics_are_the_shipped_bundle_s_own(verified: Verified, exported: Exported) -> None:
    problem, features = load_problem(PROBLEM), read_features(exported.tokens / "test.arrow")
    outputs = Predictor(verified.bundle, problem).outputs_of_features(features)
    scaled = outputs / np.float32(verified.report["temperature"])
    expected = problem.scoring.metrics(scaled, problem.encoding.references(features), LABELS)
    in_bundle = open_bundle(verified.bundle).metrics
    for name, interval in verified.report["test_metrics"].items():
        assert interval["value"] == pytest.approx(expected[name], abs=1e-4)
        assert interval["low"] <= interval["value"] <= interval["high"]
        assert verified.metrics[name] == interval["value"] == in_bundle[name]


def test_metrics_are_flat(verified: Verified) -> None:
    assert set(verified.metrics) >= {"accuracy", "macro_f1", "size_mb", "recipe"}
    assert set(verified.metrics) >= {"latency_ms_p50", "latency_ms_p95", "throughput"}
    assert all(isinstance(value, float | int | str) for value in verified.metrics.values())


def test_temperature_is_fitted_on_the_shipped_outputs(
    verified: Verified, exported: Exported
) -> None:
    problem, features = load_problem(PROBLEM), read_features(exported.tokens / "validation.arrow")
    outputs = Predictor(verified.bundle, problem).outputs_of_features(features)
    expected = fit_temperature(outputs, problem.encoding.references(features))
    assert verified.report["temperature"] == pytest.approx(expected, rel=1e-3)
    assert open_bundle(verified.bundle).settings.temperature == verified.report["temperature"]


def test_the_first_recipe_that_passes_ships_and_later_ones_are_not_examined(
    verified: Verified, exported: Exported, tmp_path: Path
) -> None:
    first_only = verify(exported, tmp_path, max_metric_loss=1.0)
    verdicts = {entry["recipe"]: entry["verdict"] for entry in first_only.report["candidates"]}
    not_examined = dict.fromkeys(RECIPES[1:], "not examined")
    assert list(verdicts) == ["fp32", *RECIPES]
    assert verdicts == {"fp32": "passed", "int8-static": "ships", **not_examined}
    reason = "not examined, int8-static comes first in export.recipes and passed"
    for recipe in RECIPES[1:]:
        later = first_only.candidate(recipe)
        assert later["metric"] is later["latency_ms_p50"] is later["speedup"] is None
        assert later["reason"].startswith(reason)
    # the bundle does not depend on which other recipes were examined
    assert files_of(first_only.bundle) == files_of(verified.bundle)


def test_a_busy_machine_ships_the_same_bundle(
    verified: Verified, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All cores are busy, there is time for one turn, and the best recipe seems 1,000x slower."""
    add, factors = Timings.add, iter([1.0, 1.0, 1000.0])  # PyTorch, fp32, int8-static

    def slowed(self: Timings, turn: dict[str, Any]) -> None:
        factor = next(factors)
        latencies = [factor * latency for latency in turn["latencies"]]
        add(self, {**turn, "latencies": latencies, "seconds": factor * turn["seconds"]})

    monkeypatch.setattr(Timings, "add", slowed)
    monkeypatch.setattr("tasks.shipping.workbench.TIMING_SECONDS", 0.0)
    command = [sys.executable, "-c", "while True: pass"]
    load = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        busy = verify(exported, tmp_path, max_metric_loss=1.0)
    finally:
        for process in load:
            process.kill()
            process.wait()
    assert busy.report["rows"]["timing"] == 32
    assert busy.candidate("int8-static")["speedup"]["value"] < 0.1
    assert busy.report["shipped"] == verified.report["shipped"] == "int8-static"
    assert files_of(busy.bundle) == files_of(verified.bundle)


def test_fp32_ships_when_nothing_is_accurate_enough_and_the_report_says_why(
    exported: Exported, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.shipping.candidates.MAX_BATCH_DIFFERENCE", -1.0)
    verified = verify(exported, tmp_path, few, max_metric_loss=0.0)
    assert verified.report["shipped"] == verified.metrics["recipe"] == "fp32"
    assert verified.candidate("fp32")["verdict"] == "ships"
    rejected = verified.candidate("int8-static")
    assert rejected["verdict"] == "rejected"
    assert "with the rows it is batched with" in rejected["reason"]
    assert verified.report["reason"].startswith("fp32 ONNX ships, no recipe passed. int8-static: ")
    assert open_bundle(verified.bundle).recipe == "fp32"


def test_a_candidate_that_crashes_or_was_never_built_is_reported_and_stops_nothing(
    exported: Exported, few: Path, tmp_path: Path
) -> None:
    failed = {"recipe": "int8-dynamic", "failure": "RuntimeError: no kernel"}
    exports = json.loads((few / "export.json").read_text())
    exports["recipes"].append({**failed, "bytes": 0, "seconds": 0.1})
    (few / "export.json").write_text(json.dumps(exports))
    (few / "int8-static" / "model.onnx").write_bytes(b"no graph at all")
    verified = verify(exported, tmp_path, few)
    crashed, unbuilt = verified.candidate("int8-static"), verified.candidate("int8-dynamic")
    assert crashed["verdict"] == unbuilt["verdict"] == "failed"
    assert crashed["metric"] is None
    assert "failed: its process ended with exit code 1" in crashed["reason"]
    assert unbuilt["reason"] == "failed: RuntimeError: no kernel"
    assert verified.report["shipped"] == "fp32"


def test_an_fp32_graph_that_does_not_run_stops_the_stage(
    exported: Exported, few: Path, tmp_path: Path
) -> None:
    (few / "fp32" / "model.onnx").write_bytes(b"no graph at all")
    with pytest.raises(ExportError, match="fp32 cannot be measured"):
        verify(exported, tmp_path, few)


def test_a_candidate_killed_from_outside_stops_the_stage_and_nothing_else_ships_in_its_place() -> (
    None
):
    variant = Variant("int8-static", Path("model.onnx"), 1)
    with (
        Workbench("tests.support.killed", {"writes": False}, [0]) as bench,
        pytest.raises(ExportError, match=r"int8-static cannot be measured: .*SIGKILL"),
    ):
        bench.examine(variant)
    assert variant.failure == ""


def test_the_order_of_the_recipes_decides_and_their_speed_does_not() -> None:
    candidates = [
        judged("fp32"),
        judged("a", "rejected", speedup=3.0, loss=0.02),
        judged("b", speedup=0.5, loss=0.001),
        judged("c", speedup=9.0),
        judged("d", "not examined"),
        judged("e", "failed"),
    ]
    shipped, reason = choose_recipe(candidates, "macro_f1", VerifyParams())
    assert shipped == "b"
    assert reason == (
        "b is the first of export.recipes that is accurate enough: "
        "macro_f1 on validation -0.0010 against the checkpoint (budget -0.005), "
        "the same answers in any batch."
    )
    verdicts = [entry.verdict for entry in candidates]
    assert verdicts == ["passed", "rejected", "ships", "passed", "not examined", "failed"]
    assert candidates[3].reason == "passed; b comes first in export.recipes"


def test_no_recipe_at_all_ships_fp32() -> None:
    shipped, reason = choose_recipe([judged("fp32")], "macro_f1", VerifyParams())
    assert shipped == FP32
    assert "No recipe was asked for" in reason


def test_what_ships_and_is_shown_slower_than_fp32_is_told() -> None:
    (note,) = speed_notes("int8-static", Speedup(0.8, 0.7, 0.95))
    slower = "int8-static is slower than fp32 ONNX on this machine, 0.80x (0.70 to 0.95) as fast."
    assert note.startswith(slower)
    assert speed_notes("int8-static", Speedup(0.8, 0.7, 1.05)) == []
    assert speed_notes("int8-static", Speedup(0.8, None, None)) == []  # too few turns


def test_an_interval_of_the_median_takes_six_turns_and_leaves_out_the_outermost_of_nine() -> None:
    assert Speedup.of([5, 1, 4, 2, 3]) == Speedup(3, None, None)
    assert Speedup.of([5, 1, 4, 2, 3, 6]) == Speedup(3.5, 1, 6)
    assert Speedup.of([5, 1, 4, 2, 3, 6, 9, 7, 8]) == Speedup(5, 2, 8)


@pytest.mark.parametrize("turns_taken", [6, 8, 25])
def test_the_interval_holds_the_true_median_in_at_least_95_percent(turns_taken: int) -> None:
    draws = np.random.default_rng(0).lognormal(np.log(1.7), 0.5, (2000, turns_taken))
    speedups = [Speedup.of(ratios.tolist()) for ratios in draws]
    intervals = [(speedup.low, speedup.high) for speedup in speedups]
    held = [low <= 1.7 <= high for low, high in intervals if low is not None and high is not None]
    assert len(speedups) == 2000
    assert 0.94 < np.mean(held) < 1


def test_noise_that_hits_a_whole_turn_does_not_change_the_speedup() -> None:
    quick, slow = Timings(), Timings()
    for noise in (1.0, 10.0, 3.0):
        quick.add({"latencies": [0.001 * noise] * 4, "rows": 32, "seconds": 0.1 * noise})
        slow.add({"latencies": [0.004 * noise] * 4, "rows": 32, "seconds": 0.1 * noise})
    assert quick.speedup_over(slow).value == pytest.approx(2.0)
    assert quick.summary()["throughput"] == pytest.approx(96 / 1.4, abs=0.1)


def test_turns_take_every_row_once_in_order() -> None:
    assert [row for turn in turns(range(70)) for row in turn] == list(range(70))
    assert [len(turn) for turn in turns(range(70))] == [32, 32, 6]


def test_a_worker_that_dies_says_its_last_words() -> None:
    worker = Worker("tasks.verification", {"problem": "no-such-problem", "tokens": "", "model": ""})
    try:
        with pytest.raises(WorkerError, match=r"exit code 1: .*no-such-problem|exit code 1: Known"):
            worker.ask(do="outputs", file="", alone=[])
    finally:
        worker.close()


def test_a_worker_that_is_killed_says_by_what() -> None:
    worker = Worker("tasks.verification", {"problem": PROBLEM, "tokens": "", "model": ""})
    worker.process.kill()
    try:
        with pytest.raises(WorkerError, match="killed by SIGKILL"):
            worker.ask(do="turn", rows=[0])
    finally:
        worker.close()
