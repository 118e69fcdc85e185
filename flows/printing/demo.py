"""What `ratchet demo` prints for people."""

from __future__ import annotations

from pathlib import Path

from flows.demo.story import MODEL_NAME, Step
from flows.printing.lifecycle import print_history
from flows.printing.runs import console
from tasks.lifecycle.decisions import Decision


def print_start() -> None:
    """Introduce the demo."""
    console.print(
        "Real sentences, a real pretrained model cut to three layers, the real gates. "
        "A few minutes on two cores."
    )


def print_step(number: int, step: Step) -> None:
    """Print one step's outcome as soon as it is done."""
    console.print(f"\n[bold]{number}. {step.title.capitalize()}[/bold]  ({step.seconds:.0f} s)")
    for line in step.lines:
        console.print(f"   {line}", markup=False)
    if decisions := step.facts.get("decisions"):
        print_history(MODEL_NAME, [Decision(**decision) for decision in decisions])
    if not step.held:
        console.print(
            f"   [bold red]Not as expected: {step.title}.[/] The lines above are what happened."
        )


def print_end(held: bool, seconds: float, kept: Path | None) -> None:
    """Print whether every step came out as expected, and what to look at next."""
    verdict = "Every step came out as expected." if held else "The demo ends here."
    console.print(f"\n{verdict} {seconds:.0f} s.")
    if kept is None:
        console.print("The workspace is removed; `ratchet demo --keep DIR` keeps it.")
    else:
        console.print(
            f"The workspace is {kept}: `ratchet -C {kept} status`, `history`, `compare 3 1`, "
            '`predict "Some text."`.',
            markup=False,
        )
