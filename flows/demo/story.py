"""The demo: a model's life in seven steps in its own workspace, reporting real gate verdicts.

Each step does what a command does, then checks whether the outcome is the expected one. The first
step that differs ends the demo.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.demo.material import BAD_LINES, DemoSetup, shuffle_labels, write_rows
from flows.engine.training_run import TrainResult
from tasks.core.files import read_json, read_jsonl, write_text
from tasks.params.workspace import Workspace
from tasks.reports.stage_reports import VerificationReport
from tasks.scoring.statistics.paired import format_p_value

MODEL_NAME = "demo"


@dataclass(frozen=True)
class Step:
    """One step of the demo.

    title    expected outcome
    held     whether it came out as expected
    lines    what happened, for people
    facts    the same, for programs
    seconds  duration
    """

    title: str
    held: bool
    lines: list[str]
    facts: dict[str, Any]
    seconds: float = 0.0


@dataclass
class DemoRun:
    """State of a running demo; `runs` holds the trainings so far, oldest first."""

    story: DemoSetup
    workspace: Workspace
    runs: list[TrainResult] = field(default_factory=list)

    def train(self) -> TrainResult:
        """Train, as `ratchet train` does."""
        from flows.launch import train

        self.runs.append(train(self.workspace))
        return self.runs[-1]

    def promote(self) -> dict[str, Any]:
        """Promote as `ratchet promote` does; the ledger's decision, and `champion` afterwards."""
        from flows.launch import promote

        decision: dict[str, Any] = promote(self.workspace, "challenger")["decision"]
        return decision | {"champion": self.champion()}

    def champion(self) -> int | None:
        """Version number that MLflow's alias points at."""
        from tasks.lifecycle.model_registry import ModelRegistry

        champion = ModelRegistry(self.workspace).find_champion()
        return champion.number if champion else None

    def write_training_file(self, rows: int, *, shuffled: bool = False) -> int:
        """Replace the training file by one with `rows` good rows; its number of data lines."""
        start = self.story.test + self.story.validation
        chosen = self.story.rows[start : start + rows]
        if shuffled:
            chosen = shuffle_labels(chosen, self.story.seed)
        write_rows(self.workspace.root / "rows" / "train.csv", chosen, BAD_LINES)
        return len(chosen) + len(BAD_LINES)


def tell(story: DemoSetup, root: Path) -> Iterator[Step]:
    """Run the steps and yield each when it is done; stop after the first unexpected outcome."""
    tale = DemoRun(story, Workspace(root))
    for act in ACTS:
        started = time.perf_counter()
        if not tale.workspace.params_file.exists():
            set_up(tale)
        step = act(tale)
        yield Step(
            step.title, step.held, step.lines, step.facts, round(time.perf_counter() - started, 1)
        )
        if not step.held:
            return


def use_own_stores(workspace: Workspace) -> None:
    """Keep everything in the demo's workspace, whatever registry the environment names.

    To be called before any library is imported.
    """
    from flows.engine.environment import prepare

    # a model this small gains nothing from threads, and on a busy machine they block each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["MLFLOW_TRACKING_URI"] = workspace.default_tracking_uri
    prepare(workspace)


def set_up(tale: DemoRun) -> None:
    """Make the workspace in its own git repository, with the first files."""
    from flows.workspaces.creation import make_workspace
    from flows.workspaces.guessing import Guess
    from flows.workspaces.request import Request
    from tasks.core.git import commit_all, make_repository
    from tasks.params.schema import save_overrides

    story, root = tale.story, tale.workspace.root
    make_repository(root)
    write_rows(root / "rows" / "test.csv", story.rows[: story.test])
    held_out = story.test + story.validation
    write_rows(root / "rows" / "validation.csv", story.rows[story.test : held_out])
    tale.write_training_file(story.first)
    files = [str(root / "rows" / f"{split}.csv") for split in ("train", "validation", "test")]
    problem, columns = "text-classification", {"text": "text", "label": "label"}
    request = Request(root, problem, files, columns, MODEL_NAME, str(story.base))
    make_workspace(request, Guess(problem, columns))
    file = tale.workspace.params_file
    save_overrides(file, [setting for setting, _ in story.settings])
    notes = "".join(f"#   {setting}: {why}\n" for setting, why in story.settings)
    head = "# Made by `ratchet demo`. It differs from what `ratchet init` writes in"
    write_text(file, f"{head}\n{notes}\n{file.read_text(encoding='utf-8')}")
    commit_all(root, "The demo's workspace")


def bad_rows(tale: DemoRun) -> Step:
    """The first file has bad lines: they are quarantined, and training goes on without them."""
    lines = tale.story.first + len(BAD_LINES)
    tale.train()
    root = tale.workspace.root
    unread = read_jsonl(root / "data" / "raw" / "quarantine.jsonl")
    unfit = read_jsonl(root / "data" / "valid" / "quarantine.jsonl")
    quarantined = [
        {"line": entry["line"], "reason": entry["reason"]}
        for entry in sorted([*unread, *unfit], key=lambda entry: entry["line"])
    ]
    kept = read_json(root / "data" / "splits" / "split.json")["splits"]["train"]["rows"]
    text = [
        f"train.csv arrives with {lines} rows; {len(quarantined)} are quarantined, "
        f"each with its reason, and {kept} are trained on:"
    ]
    text += [f"  line {entry['line']:>4}  {entry['reason']}" for entry in quarantined]
    facts = {"rows": lines, "quarantined": quarantined, "kept": kept}
    held = len(quarantined) == len(BAD_LINES) and kept == tale.story.first
    return Step("bad rows are caught", held, text, facts)


def first_model(tale: DemoRun) -> Step:
    """The first version has no champion to beat, but must pass the gates on its own quality."""
    run, decision = tale.runs[-1], tale.promote()
    verified = VerificationReport.read(tale.workspace.root / "reports" / "verification.json")
    metric = verified.test_metrics["macro_f1"]
    text = [
        f"Version {run.version}, shipped as {run.recipe}: macro F1 {metric['value']:.4f} "
        f"on {tale.story.test} test rows "
        f"(95% interval {metric['low']:.4f} to {metric['high']:.4f}).",
        *_verdict(decision),
    ]
    held = decision["outcome"] == "promoted" and decision["champion"] == run.version
    facts = _facts(run, decision) | {"macro_f1": metric}
    return Step("the first model is trained and promoted", held, text, facts)


def shuffled_labels(tale: DemoRun) -> Step:
    """The same texts with shuffled labels, as after a bad join: no single row looks wrong."""
    champion = tale.champion()
    tale.write_training_file(tale.story.first, shuffled=True)
    run, decision = tale.train(), tale.promote()
    gate = _gate(decision, "non-inferiority")
    text = [
        "train.csv arrives again, its labels shuffled. "
        f"Every single row is valid, and version {run.version} is trained.",
        f"Gate {gate['name']}, {gate['status']}: {gate['reason']}.",
        *_verdict(decision),
    ]
    held = (
        decision["outcome"] == "refused"
        and gate["status"] == "failed"
        and decision["champion"] == champion
    )
    facts = _facts(run, decision) | _numbers(gate)
    return Step("a model trained on shuffled labels is refused", held, text, facts)


def better_model(tale: DemoRun) -> Step:
    """Many times more rows: significantly better, not merely no worse."""
    rows = len(tale.story.rows) - tale.story.test - tale.story.validation
    tale.write_training_file(rows)
    run, decision = tale.train(), tale.promote()
    gate = _gate(decision, "non-inferiority")
    numbers = gate["numbers"]
    low, high = numbers["interval"]
    text = [
        f"train.csv arrives with {rows} good rows in place of {tale.story.first}, "
        f"and version {run.version} is trained.",
        f"macro F1 {numbers['challenger']:.4f} against the champion's {numbers['other']:.4f}: "
        f"{numbers['difference']:+z.4f}, 95% interval {low:+z.4f} to {high:+z.4f}, "
        f"p {format_p_value(numbers['p_value'])}.",
        *_verdict(decision),
    ]
    held = decision["outcome"] == "promoted" and decision["champion"] == run.version and low > 0
    facts = _facts(run, decision) | _numbers(gate)
    return Step("a better one, trained on more data, is promoted", held, text, facts)


def rollback(tale: DemoRun) -> Step:
    """Roll back to the previous champion; the rolled-back version needs --force to return."""
    from flows.launch import roll_back

    first, _, better = (run.version for run in tale.runs)
    decision = roll_back(tale.workspace, None, "to show a rollback")["decision"]
    champion = tale.champion()
    text = [
        f"Version {champion} is champion again, after a check of its files; "
        f"version {better} can return only with --force."
    ]
    facts = {"champion": champion, "from": decision["previous"], "reason": decision["reason"]}
    return Step("a rollback", champion == first, text, facts)


def no_op(tale: DemoRun) -> Step:
    """Run the same flow on the same files again."""
    before, started = tale.runs[-1], time.perf_counter()
    run = tale.train()
    seconds = time.perf_counter() - started
    states = dict(Counter(stage.state for stage in run.stages))
    text = [
        f"Nothing has changed: {states.get('cached', 0)} of {len(run.stages)} stages are cached, "
        f"version {run.version} is still current. {seconds:.1f} s; "
        f"the previous training took {sum(stage.seconds for stage in before.stages):.1f} s."
    ]
    held = run.state == "cached" and run.version == before.version
    facts = {"state": run.state, "version": run.version, "stages": states}
    return Step("the second run of the same flow is a no-op", held, text, facts)


def ledger(tale: DemoRun) -> Step:
    """The ledger has every decision, refusals too, and agrees with the alias."""
    from dataclasses import asdict

    from tasks.lifecycle.ledger import champion_history
    from tasks.lifecycle.model_registry import ModelRegistry

    decisions = ModelRegistry(tale.workspace).decisions()
    outcomes = [decision.outcome for decision in decisions]
    complete = outcomes == ["promoted", "refused", "promoted", "rolled back"]
    held = complete and champion_history(decisions).champions[-1:] == [tale.champion()]
    facts = {"decisions": [asdict(decision) for decision in decisions]}
    return Step("the ledger has every decision", held, ["`ratchet history`:"], facts)


ACTS: tuple[Callable[[DemoRun], Step], ...] = (
    bad_rows,
    first_model,
    shuffled_labels,
    better_model,
    rollback,
    no_op,
    ledger,
)


def _verdict(decision: Mapping[str, Any]) -> list[str]:
    champion = "no version" if decision["champion"] is None else f"version {decision['champion']}"
    return [f"{decision['outcome'].capitalize()}: {decision['reason']}. Champion: {champion}."]


def _gate(decision: Mapping[str, Any], name: str) -> dict[str, Any]:
    gate: dict[str, Any] = next(entry for entry in decision["gates"] if entry["name"] == name)
    return gate


def _facts(run: TrainResult, decision: Mapping[str, Any]) -> dict[str, Any]:
    gates = {gate["name"]: gate["status"] for gate in decision["gates"]}
    outcome = {key: decision[key] for key in ("outcome", "reason", "champion", "previous")}
    return {"version": run.version, "recipe": run.recipe, **outcome, "gates": gates}


def _numbers(gate: Mapping[str, Any]) -> dict[str, Any]:
    return {"gate": gate["name"], "status": gate["status"], "numbers": gate["numbers"]}
