"""Human-readable output of compare, promote, rollback, retrain and history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from flows.printing.runs import console
from tasks.scoring.statistics.paired import format_p_value

if TYPE_CHECKING:
    from tasks.lifecycle.decisions import Decision

COLOURS = {"passed": "green", "failed": "red", "warned": "yellow", "not applicable": "dim"}


def print_comparison(comparison: Mapping[str, Any], page: Path | None) -> None:
    """Print metrics, slices and speed of two models, and how their params and lineage differ."""
    first, second = comparison["models"]
    console.print(
        f"\nA: {first['title']}, {first['recipe']}\nB: {second['title']}, {second['recipe']}",
        markup=False,
    )
    console.print(
        f"{comparison['test']['rows']} test rows. {' '.join(comparison['notes'])}\n", markup=False
    )
    columns = ("A", "B", "A - B", "95% interval")
    title = "On the same rows, paired"
    table = Table("metric", *columns, "p", title=title, title_justify="left")
    for name, difference in comparison["metrics"].items():
        table.add_row(name, *_numbers(difference))
    console.print(table)
    test = comparison["mcnemar"]
    console.print(
        f"McNemar's exact test: only A is right on {test['only_first']} rows, "
        f"only B on {test['only_second']}, p {format_p_value(test['p_value'])}. "
        f"They agree on {comparison['agreement']:.1%}."
    )
    title = "Accuracy by slice"
    slices = Table("slice", "rows", *columns, "p of a fall", title=title, title_justify="left")
    for slice_ in comparison["slices"]:
        if slice_["judged"]:
            numbers = _numbers(slice_["difference"])[:-1]
            slices.add_row(
                escape(f"{slice_['column']}={slice_['value']}"),
                str(slice_["rows"]),
                *numbers,
                format_p_value(slice_["fall_p_adjusted"]),
            )
    console.print(
        slices
        if slices.rows
        else "No slice has enough rows to be judged (promotion.min_slice_rows)."
    )
    speed = Table("side by side", "A", "B", title_justify="left")
    for name, key, scale, digits in (
        ("batch 1 p50, ms", "latency_ms_p50", 1, 2),
        ("batch 1 p95, ms", "latency_ms_p95", 1, 2),
        ("batch 32, rows/s", "throughput", 1, 0),
        ("size, MB", "size_bytes", 1e-6, 1),
    ):
        speed.add_row(name, *(f"{model[key] * scale:.{digits}f}" for model in (first, second)))
    console.print(speed)
    for title, changes in (("Params", comparison["params"]), ("Lineage", comparison["lineage"])):
        for key, (value_a, value_b) in changes.items():
            console.print(f"{title}: {key}  A {_short(value_a)}  B {_short(value_b)}", markup=False)
    if page:
        console.print(f"Page: {page}", markup=False)


def print_promotion(result: Mapping[str, Any]) -> None:
    """Print every gate's verdict and the decision."""
    name, version, decision = result["model"], result["version"], result["decision"]
    if decision is None:
        console.print(f"{name}: version {version} is already champion; nothing to decide.")
        return
    table = Table("gate", "verdict", "why", title=f"{name} version {version}", title_justify="left")
    for gate in decision["gates"]:
        if gate["status"] != "not applicable":
            status = f"[{COLOURS[gate['status']]}]{gate['status']}[/]"
            table.add_row(gate["name"], status, escape(gate["reason"]))
    console.print(table)
    skipped = [
        f"{gate['name']} ({gate['reason']})"
        for gate in decision["gates"]
        if gate["status"] == "not applicable"
    ]
    if skipped:
        console.print(f"Not applicable: {'; '.join(skipped)}.", markup=False)
    champion = "No version" if result["champion"] is None else f"Version {result['champion']}"
    outcome = f"{decision['outcome'].capitalize()}: {decision['reason'].rstrip('.')}."
    console.print(f"{outcome} {champion} is champion.", markup=False)


def print_rollback(result: Mapping[str, Any]) -> None:
    """Print the restored champion.

    If an interrupted rollback is reported late, also print which version was promoted since.
    """
    version, champion, decision = result["version"], result["champion"], result["decision"]
    if decision is None:
        print(f"{result['model']}: version {champion} is already champion; nothing to do.")
    elif version == champion:
        print(f"{result['model']}: version {champion} is champion again. {decision['reason']}")
    else:
        print(
            f"{result['model']}: an interrupted `ratchet rollback` made version {version} "
            f"champion again at {decision['time'][:19]} UTC; since then version {champion} has "
            "become champion. Run it again to roll that back."
        )


def print_retraining(result: Mapping[str, Any]) -> None:
    """Print every trigger's answer and the outcome."""
    for trigger in result["triggers"]:
        quiet = "[dim]no[/]" if trigger["enabled"] else "[dim]off[/]"
        answer = "[green]fired[/]" if trigger["fired"] else quiet
        console.print(f"{trigger['name']:<12} {answer}  ", end="")
        console.print(trigger["reason"], markup=False)
    if result["state"] == "idle":
        console.print("No trigger fired; nothing to train.")
    elif result["promotion"] is None:
        console.print(
            f"Data, params and code are the same as for version {result['version']}, "
            "which has been judged: nothing to promote."
        )
    else:
        print_promotion(result["promotion"])


def print_history(name: str, decisions: Sequence[Decision]) -> None:
    """Print the ledger, oldest decision first."""
    if not decisions:
        console.print(f"{name}: no decisions yet. Run `ratchet promote`.")
        return
    columns = ("when (UTC)", "who", "version", "decision", "before", "look", "why")
    table = Table(*columns, title=name, title_justify="left")
    for decision in decisions:
        outcome = f"{decision.outcome} (forced)" if decision.forced else decision.outcome
        before = "-" if decision.previous is None else str(decision.previous)
        table.add_row(
            decision.time[:19],
            escape(decision.who),
            str(decision.version),
            outcome,
            before,
            str(decision.look or "-"),
            escape(decision.reason),
        )
    console.print(table)


def _numbers(difference: Mapping[str, float]) -> tuple[str, str, str, str, str]:
    return (
        f"{difference['first']:.4f}",
        f"{difference['second']:.4f}",
        f"{difference['value']:+z.4f}",
        f"{difference['low']:+z.4f} to {difference['high']:+z.4f}",
        format_p_value(difference["p_value"]),
    )


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
