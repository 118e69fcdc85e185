"""What `ratchet demo` prints for people."""

from __future__ import annotations

from pathlib import Path

from flows.demo.story import MODEL_NAME, Step
from flows.printing.lifecycle import print_history
from flows.printing.runs import console
from tasks.lifecycle.decisions import Decision


def print_start() -> None:
    """What is about to be seen."""
    console.print(
        "Real sentences, a real pretrained model cut to three layers, the real gates. Some minutes on two cores."
    )


def print_step(number: int, step: Step) -> None:
    """What one step came to, as it is done."""
    console.print(f"\n[bold]{number}. {step.title.capitalize()}[/bold]  ({step.seconds:.0f} s)")
    for line in step.lines:
        console.print(f"   {line}", markup=False)
    if decisions := step.facts.get("decisions"):
        print_history(MODEL_NAME, [Decision(**decision) for decision in decisions])
    if not step.held:
        console.print(
            f"   [bold red]It did not come out so: {step.title}.[/] What is above is what was found."
        )


def print_end(held: bool, seconds: float, kept: Path | None) -> None:
    """Whether the story held, and where to look further."""
    console.print(
        f"\n{'All of it came out as told.' if held else 'The story ends here.'} {seconds:.0f} s."
    )
    if kept is None:
        console.print(
            "The workspace is removed; `ratchet demo --keep DIR` leaves it to look around in."
        )
    else:
        console.print(
            f'The workspace is {kept}: `ratchet -C {kept} status`, `history`, `compare 3 1`, `predict "Some text."`.',
            markup=False,
        )
