"""What the commands print for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.engine.stage_notes import stage_notes
from flows.engine.training_run import TrainResult
from flows.workspaces.guessing import say_columns
from tasks.core.files import read_json
from tasks.data.quality.row_account import STAGE_ROWS, Account
from tasks.params.workspace import Workspace

if TYPE_CHECKING:
    from flows.workspaces.creation import Made

NEXT = """Next, in this workspace:
  {predict:<47} what the new version says
  ratchet promote                                 make it champion, if the gates let it through
  ratchet status                                  stages and versions
  ratchet train -S finetune.learning_rate=3e-5    another try; going back costs nothing
  mlflow ui --backend-store-uri sqlite:///.ratchet/mlflow.db    runs, curves and versions side by side"""

console = Console(highlight=False, soft_wrap=True)
if not console.is_terminal:
    console.width = 120  # of a log or a pipe; 80 would cut the tables


def print_training(
    workspace: Workspace, result: TrainResult, wall_s: float, overhead_s: float
) -> None:
    """What was made, what ships and why, and what to try next."""
    if result.state == "cached":
        console.print(
            f"Nothing has changed: every stage is cached, {result.model} version {result.version} stands. {wall_s:.1f} s"
        )
        _print_rows(result.rows, _quarantines(result.rows))
        return
    verified = read_json(workspace.root / "reports" / "verification.json")
    console.print(
        f"\n[bold]{result.model} version {result.version}[/bold] (alias challenger)\n\nShips: {verified['reason']}\n"
    )
    evaluation = read_json(workspace.root / "reports" / "evaluation.json")
    console.print(_metrics_table(verified["test_metrics"], evaluation["baseline"]))
    for note in result.notes:
        console.print(f"[bold yellow]![/] {escape(note)}")
    console.print(_recipes_table(verified))
    for note in [
        *_recipe_notes(verified),
        *stage_notes(workspace, "validate"),
        *stage_notes(workspace, "split"),
    ]:
        console.print(note, markup=False)
    _print_rows(result.rows, _quarantines(result.rows))
    console.print(f"\nReport: {workspace.root / 'reports' / 'report.html'}")
    console.print(f"{wall_s:.0f} s in all, {overhead_s:.1f} s of it outside the stages.\n")
    console.print(NEXT.format(predict=_predict_command(workspace)), markup=False)


def _print_rows(rows: dict[str, Any], files: Sequence[str]) -> None:
    """What became of the rows that the sources hold, and which files have those that were set aside."""
    for line in Account.of(rows).lines():
        console.print(line, markup=False)
    if files:
        console.print(f"  all of them, with the reasons: {', '.join(files)}", markup=False)


def _quarantines(rows: dict[str, Any]) -> list[str]:
    return [f"{STAGE_ROWS[stage]}/quarantine.jsonl" for stage in Account.of(rows).stages]


def _predict_command(workspace: Workspace) -> str:
    """A call that the problem's inputs fit into."""
    from tasks.problems import load_problem

    inputs = load_problem(workspace.params().problem).example()
    texts = all(isinstance(values[0], str) for values in inputs.values())
    return (
        " ".join(["ratchet predict", *['"Some text."'] * len(inputs)])
        if texts
        else "ratchet predict --input FILE"
    )


def print_status(status: dict[str, Any]) -> None:
    """Stages and versions."""
    console.print(f"{status['workspace']}  ({status['problem']})")
    console.print(
        "  ".join(
            f"{stage['name']} [{_colour(stage['state'])}]{stage['state']}[/]"
            for stage in status["stages"]
        )
    )
    if status["rows"]:
        _print_rows(status["rows"], status["rows"]["files"])
    model = status["model"]
    if not model["versions"]:
        console.print(f"No version of {model['name']} is registered yet. Run `ratchet train`.")
        return
    table = Table(
        "version",
        "aliases",
        "accuracy",
        "macro F1",
        "recipe",
        "content key",
        title=model["name"],
        title_justify="left",
    )
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
    champion = next(
        (version["version"] for version in model["versions"] if "champion" in version["aliases"]),
        None,
    )
    if champion != status["ledger_champion"]:
        by_ledger = (
            f"by the ledger it is version {status['ledger_champion']}"
            if status["ledger_champion"]
            else "the ledger knows of none"
        )
        console.print(
            f"The alias `champion` is at {champion or 'no version'}; {by_ledger}: somebody moved it by hand."
        )
    if tests := status["test_rows"]:
        due = (
            " Fresh test rows are due: add rows to the sources (promotion.max_looks)."
            if tests["fresh_rows_due"]
            else ""
        )
        judged = f"The {tests['rows']} test rows have judged {tests['looks']} times; the next judgement is at level"
        console.print(f"{judged} {tests['next_level']:.4f}.{due}")


def print_workspace(made: Made) -> None:
    """What `ratchet init` made."""
    labels = (
        f", {len(made.labels)} labels: {', '.join(made.labels[:10])}{', ...' if len(made.labels) > 10 else ''}"
        if made.labels
        else ""
    )
    console.print(
        f"{made.workspace}: {made.problem}, model {made.model_name}, {made.rows} rows{labels}",
        markup=False,
    )
    columns = ", ".join(f"{name} is {say_columns(column)}" for name, column in made.columns.items())
    console.print(f"columns: {columns}", markup=False)
    if made.account["losses"] or made.account["mended"]:
        _print_rows(made.account, ())
        console.print(
            "  `ratchet train` keeps what it sets aside in data/raw/quarantine.jsonl, with the reasons.",
            markup=False,
        )
    for split, files in made.splits.items():
        console.print(f"{split}: {', '.join(files)}", markup=False)
    for note in made.notes:
        console.print(f"Note: {note}", markup=False)
    console.print(
        f"Next: look through {made.workspace}/params.yaml, then run  ratchet -C {made.workspace} train",
        markup=False,
    )


def _metrics_table(metrics: dict[str, dict[str, float]], plain: dict[str, Any] | None) -> Table:
    beside = [plain["name"]] if plain else []
    table = Table(
        "test metric",
        "value",
        "95% interval",
        *beside,
        title="The shipped bundle on the test split",
        title_justify="left",
    )
    for name, interval in metrics.items():
        other = (
            [f"{plain['metrics'][name]['value']:.4f}" if name in plain["metrics"] else ""]
            if plain
            else []
        )
        table.add_row(
            name,
            f"{interval['value']:.4f}",
            f"{interval['low']:.4f} to {interval['high']:.4f}",
            *other,
        )
    return table


def _recipes_table(verified: dict[str, Any]) -> Table:
    lost = f"{verified['metric']} lost"
    writes = ["writes"] if "tokens_per_second" in verified["checkpoint"] else []
    columns = ("recipe", lost, "agrees", "size", "batch 1 p50", "batch 32", *writes, "")
    table = Table(*columns, title="What could ship, on validation", title_justify="left")
    torch = verified["checkpoint"]
    table.add_row("PyTorch", "", "", _megabytes(torch["size_bytes"]), *_speed(torch), "")
    for found in verified["candidates"]:
        if found["metric"] is None:
            table.add_row(found["recipe"], *[""] * (5 + len(writes)), found["verdict"])
            continue
        measured = (
            f"{found['metric_loss']:+.4f}",
            f"{found['agreement']:.1%}",
            _megabytes(found["size_bytes"]),
            *_speed(found),
        )
        table.add_row(found["recipe"], *measured, found["verdict"])
    return table


def _speed(found: dict[str, Any]) -> list[str]:
    writes = [f"{found['tokens_per_second']:.1f} tokens/s"] if "tokens_per_second" in found else []
    return [f"{found['latency_ms_p50']:.1f} ms", f"{found['throughput']:.0f} rows/s", *writes]


def _recipe_notes(verified: dict[str, Any]) -> list[str]:
    return [
        f"{found['recipe']}: {found['reason']}"
        for found in verified["candidates"]
        if found["verdict"] not in ("ships", "passed")
    ]


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


def _colour(state: str) -> str:
    return {"clean": "green", "stale": "yellow"}.get(state, "red")
