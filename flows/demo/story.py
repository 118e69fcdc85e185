"""The demo: a model's life in seven steps, in a workspace of its own. Nothing is scripted: what the gates say is what is told.

Each step does one thing as the commands do it, then looks whether it came out as the story says. The first that does not ends it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.demo.material import BAD_LINES, Story, shuffle_labels, write_rows
from flows.engine.training_run import TrainResult
from tasks.core.files import read_json, read_jsonl, write_text
from tasks.params.workspace import Workspace
from tasks.scoring.statistics.paired import say_p

MODEL_NAME = "demo"


@dataclass(frozen=True)
class Step:
    """One step of the story.

    title    what should come of it
    held     whether it did
    lines    what happened, for people
    facts    the same for programs
    seconds  that it took
    """

    title: str
    held: bool
    lines: list[str]
    facts: dict[str, Any]
    seconds: float = 0.0


@dataclass
class Tale:
    """A story being told; `runs` holds the trainings so far, oldest first."""

    story: Story
    workspace: Workspace
    runs: list[TrainResult] = field(default_factory=list)

    def train(self) -> TrainResult:
        """`ratchet train`."""
        from flows.launch import train

        self.runs.append(train(self.workspace))
        return self.runs[-1]

    def promote(self) -> dict[str, Any]:
        """`ratchet promote`: the decision, as the ledger keeps it, with what the alias says afterwards."""
        from flows.launch import promote

        decision: dict[str, Any] = promote(self.workspace, "challenger")["decision"]
        return decision | {"champion": self.champion()}

    def champion(self) -> int | None:
        """The version that MLflow's alias points at."""
        from flows.lifecycle.contestants import Registry

        found = Registry(self.workspace).find_champion()
        return found.number if found else None

    def write_training_file(self, rows: int, *, shuffled: bool = False) -> int:
        """The training file with that many rows in place of the one that is there; how many lines it has below the header."""
        start = self.story.test + self.story.validation
        chosen = self.story.rows[start : start + rows]
        if shuffled:
            chosen = shuffle_labels(chosen, self.story.seed)
        write_rows(self.workspace.root / "rows" / "train.csv", chosen, BAD_LINES)
        return len(chosen) + len(BAD_LINES)


def tell(story: Story, root: Path) -> Iterator[Step]:
    """The steps as they are done; the last one is the first that did not hold."""
    tale = Tale(story, Workspace(root))
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
    """Everything goes into the demo's own workspace, whatever registry the environment names; before any library is imported."""
    from flows.engine.environment import prepare

    # a model this small gains nothing from threads, and on a busy machine they wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["MLFLOW_TRACKING_URI"] = workspace.default_tracking_uri
    prepare(workspace)


def set_up(tale: Tale) -> None:
    """A workspace in a git repository of its own, with the first files."""
    from flows.workspaces.creation import Request, make_workspace
    from flows.workspaces.guessing import Guess
    from tasks.core.git import commit_all, make_repository
    from tasks.params.schema import save_overrides

    story, root = tale.story, tale.workspace.root
    make_repository(root)
    write_rows(root / "rows" / "test.csv", story.rows[: story.test])
    write_rows(
        root / "rows" / "validation.csv", story.rows[story.test : story.test + story.validation]
    )
    tale.write_training_file(story.first)
    files = [str(root / "rows" / f"{split}.csv") for split in ("train", "validation", "test")]
    request = Request(
        root,
        "text-classification",
        files,
        {"text": "text", "label": "label"},
        MODEL_NAME,
        str(story.base),
    )
    make_workspace(request, Guess("text-classification", request.columns))
    file = tale.workspace.params_file
    save_overrides(file, [setting for setting, _ in story.settings])
    notes = "".join(f"#   {setting}: {why}\n" for setting, why in story.settings)
    write_text(
        file,
        f"# Made by `ratchet demo`. It differs from what `ratchet init` writes in\n{notes}\n{file.read_text(encoding='utf-8')}",
    )
    commit_all(root, "The demo's workspace")


def bad_rows(tale: Tale) -> Step:
    """A first file, some of whose lines are bad: training goes on without them."""
    lines = tale.story.first + len(BAD_LINES)
    tale.train()
    root = tale.workspace.root
    unread = read_jsonl(root / "data" / "raw" / "quarantine.jsonl")
    unfit = read_jsonl(root / "data" / "valid" / "quarantine.jsonl")
    aside = [
        {"line": entry["line"], "reason": entry["reason"]}
        for entry in sorted([*unread, *unfit], key=lambda entry: entry["line"])
    ]
    kept = read_json(root / "data" / "splits" / "split.json")["splits"]["train"]["rows"]
    told = [
        f"train.csv arrives with {lines} rows; {len(aside)} are set aside, each with its reason, {kept} are trained on:"
    ]
    told += [f"  line {entry['line']:>4}  {entry['reason']}" for entry in aside]
    facts = {"rows": lines, "quarantined": aside, "kept": kept}
    return Step(
        "bad rows are caught",
        len(aside) == len(BAD_LINES) and kept == tale.story.first,
        told,
        facts,
    )


def first_model(tale: Tale) -> Step:
    """The first version has no champion to beat; the gates on itself it must pass."""
    run, decision = tale.runs[-1], tale.promote()
    metric = read_json(tale.workspace.root / "reports" / "verification.json")["test_metrics"][
        "macro_f1"
    ]
    told = [
        f"Version {run.version}, shipped as {run.recipe}: macro F1 {metric['value']:.4f} on {tale.story.test} test rows "
        f"(95% interval {metric['low']:.4f} to {metric['high']:.4f}).",
        *_verdict(decision),
    ]
    held = decision["outcome"] == "promoted" and decision["champion"] == run.version
    return Step(
        "the first model is trained and promoted",
        held,
        told,
        _facts(run, decision) | {"macro_f1": metric},
    )


def shuffled_labels(tale: Tale) -> Step:
    """The same texts, their labels mixed up, as by a join gone wrong: nothing in the rows shows it."""
    champion = tale.champion()
    tale.write_training_file(tale.story.first, shuffled=True)
    run, decision = tale.train(), tale.promote()
    gate = _gate(decision, "non-inferiority")
    told = [
        f"train.csv arrives again, its labels shuffled. Every row is fine by itself, and version {run.version} is trained.",
        f"Gate {gate['name']}, {gate['status']}: {gate['reason']}.",
        *_verdict(decision),
    ]
    held = (
        decision["outcome"] == "refused"
        and gate["status"] == "failed"
        and decision["champion"] == champion
    )
    return Step(
        "a model trained on shuffled labels is refused",
        held,
        told,
        _facts(run, decision) | _numbers(gate),
    )


def better_model(tale: Tale) -> Step:
    """Many times the rows: better by more than chance, not merely no worse."""
    rows = len(tale.story.rows) - tale.story.test - tale.story.validation
    tale.write_training_file(rows)
    run, decision = tale.train(), tale.promote()
    gate = _gate(decision, "non-inferiority")
    low, high = gate["numbers"]["interval"]
    told = [
        f"train.csv arrives with {rows} good rows in place of {tale.story.first}, and version {run.version} is trained.",
        f"macro F1 {gate['numbers']['challenger']:.4f} against the champion's {gate['numbers']['other']:.4f}: "
        f"{gate['numbers']['difference']:+.4f}, 95% interval {low:+.4f} to {high:+.4f}, p {say_p(gate['numbers']['p_value'])}.",
        *_verdict(decision),
    ]
    held = decision["outcome"] == "promoted" and decision["champion"] == run.version and low > 0
    return Step(
        "a better one, trained on more data, is promoted",
        held,
        told,
        _facts(run, decision) | _numbers(gate),
    )


def rollback(tale: Tale) -> Step:
    """Back to the champion before; what was taken back is not promoted again by itself."""
    from flows.launch import roll_back

    first, _, better = (run.version for run in tale.runs)
    decision = roll_back(tale.workspace, None, "to show a rollback")["decision"]
    champion = tale.champion()
    told = [
        f"Version {champion} is champion again, after a trial of its files; version {better} comes back only by --force."
    ]
    return Step(
        "a rollback",
        champion == first,
        told,
        {"champion": champion, "from": decision["previous"], "reason": decision["reason"]},
    )


def no_op(tale: Tale) -> Step:
    """The same flow on the same files."""
    before, started = tale.runs[-1], time.perf_counter()
    run = tale.train()
    seconds = time.perf_counter() - started
    states = dict(Counter(stage.state for stage in run.stages))
    told = [
        f"Nothing has changed: {states.get('cached', 0)} of {len(run.stages)} stages are cached, version {run.version} stands, no new one. "
        f"{seconds:.1f} s, the training before took {sum(stage.seconds for stage in before.stages):.1f} s."
    ]
    held = run.state == "cached" and run.version == before.version
    return Step(
        "the second run of the same flow is a no-op",
        held,
        told,
        {"state": run.state, "version": run.version, "stages": states},
    )


def ledger(tale: Tale) -> Step:
    """Every decision is written down, those against as well, and agrees with the alias."""
    from dataclasses import asdict

    from flows.lifecycle.contestants import Registry
    from tasks.lifecycle.ledger import standing

    decisions = Registry(tale.workspace).decisions()
    outcomes = [decision.outcome for decision in decisions]
    held = outcomes == ["promoted", "refused", "promoted", "rolled back"] and standing(
        decisions
    ).champions[-1:] == [tale.champion()]
    facts = {"decisions": [asdict(decision) for decision in decisions]}
    return Step("the ledger knows it all", held, ["`ratchet history`:"], facts)


ACTS: tuple[Callable[[Tale], Step], ...] = (
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
    found: dict[str, Any] = next(gate for gate in decision["gates"] if gate["name"] == name)
    return found


def _facts(run: TrainResult, decision: Mapping[str, Any]) -> dict[str, Any]:
    gates = {gate["name"]: gate["status"] for gate in decision["gates"]}
    told = {key: decision[key] for key in ("outcome", "reason", "champion", "previous")}
    return {"version": run.version, "recipe": run.recipe, **told, "gates": gates}


def _numbers(gate: Mapping[str, Any]) -> dict[str, Any]:
    return {"gate": gate["name"], "status": gate["status"], "numbers": gate["numbers"]}
