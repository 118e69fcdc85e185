"""Human-readable output of train, status and init."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.engine.stage_notes import stage_notes
from flows.engine.training_run import TrainResult
from flows.workspaces.guessing import format_columns
from tasks.data.quality.row_account import STAGE_ROWS, Account
from tasks.params.workspace import Workspace
from tasks.reports.stage_reports import (
    BaselineReport,
    CandidateReport,
    CheckpointReport,
    EvaluationReport,
    Interval,
    VerificationReport,
)

if TYPE_CHECKING:
    from flows.workspaces.creation import InitResult

NEXT = """Next, in this workspace:
  {predict:<47} predict with the new version
  ratchet promote                                 make it champion, if no gate fails
  ratchet status                                  stages and versions
  ratchet report --open                           the version's report, in the browser
  ratchet train -S finetune.learning_rate=3e-5    try another value; going back costs nothing
  ratchet ui                                      MLflow's pages: runs, curves and versions"""

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 120  # for a log or a pipe; 80 would cut the tables


def print_training(
    workspace: Workspace, result: TrainResult, wall_s: float, overhead_s: float
) -> None:
    """Print the new version, which recipe ships and why, and what to do next."""
    if result.state == "cached":
        console.print(
            "Nothing has changed: every stage is cached, "
            f"{result.model} version {result.version} is current. {wall_s:.1f} s"
        )
        _print_rows(result.rows, _quarantines(result.rows))
        return
    verified = VerificationReport.read(workspace.root / "reports" / "verification.json")
    console.print(f"\n[bold]{result.model} version {result.version}[/bold] (alias challenger)\n")
    console.print(f"Ships: {verified.reason}\n")
    evaluation = EvaluationReport.read(workspace.root / "reports" / "evaluation.json")
    console.print(_metrics_table(verified.test_metrics, evaluation.baseline))
    for note in result.notes:
        console.print(f"[bold yellow]![/] {escape(note)}")
    console.print(_recipes_table(verified))
    notes = [
        note
        for stage in ("validate", "split", "finetune")
        for note in stage_notes(workspace, stage)
    ]
    for note in [*_recipe_notes(verified), *notes]:
        console.print(note, markup=False)
    _print_rows(result.rows, _quarantines(result.rows))
    console.print(f"\nReport: {workspace.root / 'reports' / 'report.html'}")
    console.print(f"{wall_s:.0f} s in total, {overhead_s:.1f} s of it outside the stages.\n")
    console.print(NEXT.format(predict=_predict_command(workspace)), markup=False)


def _print_rows(rows: dict[str, Any], files: Sequence[str]) -> None:
    """Print what became of the sources' rows, and which files hold the quarantined ones."""
    for line in Account.of(rows).lines():
        console.print(line, markup=False)
    if files:
        console.print(f"  full list with reasons: {', '.join(files)}", markup=False)


def _quarantines(rows: dict[str, Any]) -> list[str]:
    return [f"{STAGE_ROWS[stage]}/quarantine.jsonl" for stage in Account.of(rows).stages]


def _predict_command(workspace: Workspace) -> str:
    """An example command that fits the problem's inputs."""
    from tasks.problems import load_problem

    inputs = load_problem(workspace.params().problem).decoding.example()
    texts = all(isinstance(values[0], str) for values in inputs.values())
    if not texts:
        return "ratchet predict --input FILE"
    return " ".join(["ratchet predict", *['"Some text."'] * len(inputs)])


def print_status(status: dict[str, Any]) -> None:
    """Print stages, rows, versions, champion and test rows."""
    console.print(f"{status['workspace']}  ({status['problem']})")
    states = [(stage["name"], stage["state"]) for stage in status["stages"]]
    console.print("  ".join(f"{name} [{_colour(state)}]{state}[/]" for name, state in states))
    _print_last_training(status)
    if status["rows"]:
        _print_rows(status["rows"], status["rows"]["files"])
    model = status["model"]
    if not model["versions"]:
        console.print(f"No version of {model['name']} is registered yet. Run `ratchet train`.")
        return
    columns = ("version", "aliases", "accuracy", "macro F1", "recipe", "content key")
    table = Table(*columns, title=model["name"], title_justify="left")
    for version in model["versions"]:
        metrics = version["metrics"]
        numbers = [
            f"{metrics[name]:.4f}" if name in metrics else "" for name in ("accuracy", "macro_f1")
        ]
        table.add_row(
            str(version["version"]),
            ", ".join(version["aliases"]),
            *numbers,
            version["recipe"],
            (version["content_key"] or "")[:12],
        )
    console.print(table)
    if status["outside_the_gates"]:
        console.print(status["outside_the_gates"])
    if tests := status["test_rows"]:
        judgements = f"The {tests['rows']} test rows have been used for {tests['looks']} judgements"
        due = " Fresh test rows are due: add rows to the sources (promotion.max_looks)."
        console.print(
            f"{judgements}; the next is at level {tests['next_level']:.4f}."
            f"{due if tests['fresh_rows_due'] else ''}"
        )


def _print_last_training(status: dict[str, Any]) -> None:
    """Say what the stages are about if the last training had options that params.yaml has not."""
    last = status["last_training"]
    if not last or not last["overrides"] or {s["state"] for s in status["stages"]} == {"clean"}:
        return
    options = " ".join(f"-S {shlex.quote(str(override))}" for override in last["overrides"])
    console.print(
        f"The last training, version {last['version']}, was `ratchet train {options}`; the stages "
        "above are compared with params.yaml. `ratchet train` goes back to it; "
        f"`ratchet train {options} --save` keeps the values.",
        markup=False,
    )


def print_workspace(made: InitResult) -> None:
    """Print what `ratchet init` made."""
    summary = f"{made.workspace}: {made.problem}, model {made.model_name}, {made.rows} rows"
    if made.labels:
        more = ", ..." if len(made.labels) > 10 else ""
        summary += f", {len(made.labels)} labels: {', '.join(made.labels[:10])}{more}"
    console.print(summary, markup=False)
    columns = ", ".join(
        f"{name} is {format_columns(column)}" for name, column in made.columns.items()
    )
    console.print(f"columns: {columns}", markup=False)
    if made.account["losses"] or made.account["mended"]:
        _print_rows(made.account, ())
        console.print(
            "  `ratchet train` lists quarantined rows, with reasons, in data/raw/quarantine.jsonl.",
            markup=False,
        )
    for split, files in made.splits.items():
        console.print(f"{split}: {', '.join(files)}", markup=False)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(
        f"Next: review {made.workspace}/params.yaml, then run  ratchet -C {made.workspace} train",
        markup=False,
    )


def _metrics_table(metrics: dict[str, Interval], baseline: BaselineReport | None) -> Table:
    columns = ["test metric", "value", "95% interval", *([baseline.name] if baseline else [])]
    table = Table(*columns, title="The shipped bundle on the test split", title_justify="left")
    for name, interval in metrics.items():
        cells = [f"{interval['value']:.4f}", f"{interval['low']:.4f} to {interval['high']:.4f}"]
        if baseline:
            known = name in baseline.metrics
            cells.append(f"{baseline.metrics[name]['value']:.4f}" if known else "")
        table.add_row(name, *cells)
    return table


def _recipes_table(verified: VerificationReport) -> Table:
    torch, loss = verified.checkpoint, f"{verified.metric} loss"
    generation = [] if torch.tokens_per_second is None else ["generation"]
    columns = ("recipe", loss, "agreement", "size", "batch 1 p50", "batch 32", *generation, "")
    table = Table(*columns, title="Recipes, measured on validation", title_justify="left")
    table.add_row("PyTorch", "", "", _megabytes(torch.size_bytes), *_speed(torch), "")
    for recipe in verified.candidates:
        if recipe.metric is None:
            table.add_row(recipe.recipe, *[""] * (5 + len(generation)), recipe.verdict)
            continue
        cells = (
            f"{recipe.metric_loss:+z.4f}",
            f"{recipe.agreement:.1%}",
            _megabytes(recipe.size_bytes or 0),
            *_speed(recipe),
        )
        table.add_row(recipe.recipe, *cells, recipe.verdict)
    return table


def _speed(measured: CheckpointReport | CandidateReport) -> list[str]:
    speed = [f"{measured.latency_ms_p50:.1f} ms", f"{measured.throughput:.0f} rows/s"]
    if measured.tokens_per_second is not None:
        speed.append(f"{measured.tokens_per_second:.1f} tokens/s")
    return speed


def _recipe_notes(verified: VerificationReport) -> list[str]:
    return [
        f"{recipe.recipe}: {recipe.reason}"
        for recipe in verified.candidates
        if recipe.verdict not in ("ships", "passed")
    ]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _colour(state: str) -> str:
    return {"clean": "green", "stale": "yellow"}.get(state, "red")
