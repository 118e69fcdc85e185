"""What compare, promote and history print for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from flows.printing.runs import console
from tasks.scoring.statistics.paired import say_p

if TYPE_CHECKING:
    from tasks.lifecycle.decisions import Decision

COLOURS = {"passed": "green", "failed": "red", "warned": "yellow", "not applicable": "dim"}


def print_comparison(found: Mapping[str, Any], page: Path | None) -> None:
    """Metrics, slices and speed of two models, and what differs between them."""
    first, second = found["models"]
    console.print(
        f"\nA: {first['title']}, {first['recipe']}\nB: {second['title']}, {second['recipe']}",
        markup=False,
    )
    console.print(f"{found['test']['rows']} test rows. {' '.join(found['notes'])}\n", markup=False)
    table = Table(
        "metric",
        "A",
        "B",
        "A - B",
        "95% interval",
        "p",
        title="On the same rows, paired",
        title_justify="left",
    )
    for name, difference in found["metrics"].items():
        table.add_row(name, *_numbers(difference))
    console.print(table)
    test = found["mcnemar"]
    console.print(
        f"McNemar's exact test: A alone is right on {test['only_first']} rows, B alone on {test['only_second']}, "
        f"p {say_p(test['p_value'])}. "
        f"They agree on {found['agreement']:.1%}."
    )
    slices = Table(
        "slice",
        "rows",
        "A",
        "B",
        "A - B",
        "95% interval",
        "p of a fall",
        title="Accuracy by slice",
        title_justify="left",
    )
    for part in found["slices"]:
        if part["judged"]:
            numbers = _numbers(part["difference"])[:-1]
            slices.add_row(
                escape(f"{part['column']}={part['value']}"),
                str(part["rows"]),
                *numbers,
                say_p(part["fall_p_adjusted"]),
            )
    console.print(
        slices
        if slices.rows
        else "No slice has enough rows to be judged (promotion.min_slice_rows)."
    )
    speed = Table("side by side", "A", "B", title_justify="left")
    for name, key, scale, digits in (
        ("batch 1 p50, ms", "latency_ms_p50", 1, 2), ("batch 1 p95, ms", "latency_ms_p95", 1, 2),
        ("batch 32, rows/s", "throughput", 1, 0), ("size, MB", "size_bytes", 1e-6, 1),
    ):  # fmt: skip
        speed.add_row(name, *(f"{model[key] * scale:.{digits}f}" for model in (first, second)))
    console.print(speed)
    for title, changes in (("Params", found["params"]), ("Lineage", found["lineage"])):
        for key, (ours, theirs) in changes.items():
            console.print(f"{title}: {key}  A {_short(ours)}  B {_short(theirs)}", markup=False)
    if page:
        console.print(f"Page: {page}", markup=False)


def print_promotion(result: Mapping[str, Any]) -> None:
    """Every gate, and what came of it."""
    name, version, decision = result["model"], result["version"], result["decision"]
    if decision is None:
        console.print(f"{name}: version {version} is champion already; nothing to decide.")
        return
    table = Table("gate", "verdict", "why", title=f"{name} version {version}", title_justify="left")
    for gate in decision["gates"]:
        if gate["status"] != "not applicable":
            table.add_row(
                gate["name"],
                f"[{COLOURS[gate['status']]}]{gate['status']}[/]",
                escape(gate["reason"]),
            )
    console.print(table)
    skipped = [
        f"{gate['name']} ({gate['reason']})"
        for gate in decision["gates"]
        if gate["status"] == "not applicable"
    ]
    if skipped:
        console.print(f"Not applicable: {'; '.join(skipped)}.", markup=False)
    champion = "no version is" if result["champion"] is None else f"version {result['champion']} is"
    console.print(
        f"{decision['outcome'].capitalize()}: {decision['reason'].rstrip('.')}. {champion.capitalize()} champion.",
        markup=False,
    )


def print_rollback(result: Mapping[str, Any]) -> None:
    """Who is champion again; of a rollback that is repeated after a kill, also who was promoted since."""
    version, champion, decision = result["version"], result["champion"], result["decision"]
    if decision is None:
        print(f"{result['model']}: version {champion} is champion already; nothing to do.")
    elif version == champion:
        print(f"{result['model']}: version {champion} is champion again. {decision['reason']}")
    else:
        print(
            f"{result['model']}: an interrupted `ratchet rollback` made version {version} champion again at {decision['time'][:19]} UTC; "
            f"version {champion} is champion since. Run it again to go back from there."
        )


def print_retraining(result: Mapping[str, Any]) -> None:
    """What was asked, and what came of it."""
    for trigger in result["triggers"]:
        mark = (
            "[green]fired[/]"
            if trigger["fired"]
            else "[dim]no[/]"
            if trigger["enabled"]
            else "[dim]off[/]"
        )
        console.print(f"{trigger['name']:<12} {mark}  ", end="")
        console.print(trigger["reason"], markup=False)
    if result["state"] == "idle":
        console.print("Nothing calls for training.")
    elif result["promotion"] is None:
        console.print(
            f"Data, params and code are those of version {result['version']}, which was judged: nothing new would come of it."
        )
    else:
        print_promotion(result["promotion"])


def print_history(name: str, decisions: Sequence[Decision]) -> None:
    """The ledger, oldest first."""
    if not decisions:
        console.print(f"{name}: nothing was decided yet. Run `ratchet promote`.")
        return
    table = Table(
        "when (UTC)",
        "who",
        "version",
        "decision",
        "before",
        "look",
        "why",
        title=name,
        title_justify="left",
    )
    for decision in decisions:
        words = f"{decision.outcome} (forced)" if decision.forced else decision.outcome
        before = "-" if decision.previous is None else str(decision.previous)
        table.add_row(
            decision.time[:19],
            escape(decision.who),
            str(decision.version),
            words,
            before,
            str(decision.look or "-"),
            escape(decision.reason),
        )
    console.print(table)


def _numbers(difference: Mapping[str, float]) -> tuple[str, str, str, str, str]:
    return (
        f"{difference['first']:.4f}", f"{difference['second']:.4f}", f"{difference['value']:+.4f}",
        f"{difference['low']:+.4f} to {difference['high']:+.4f}", say_p(difference["p_value"]),
    )  # fmt: skip


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:59] + "…"
