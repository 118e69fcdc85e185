"""The same rows delivered again in another form: the rows and labels of the first delivery, or a message."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.robustness import sources
from benchmarks.robustness.sources import Row, Table
from benchmarks.robustness.tables import ingested
from benchmarks.robustness.tally import Tally

DELIVERIES, QUICK = 300, 20
STORED = ("int", "float", "str")  # of one label


def campaign(quick: bool) -> list[Tally]:
    """Deliveries in another format, encoding, order of columns, type of labels."""
    count = QUICK if quick else DELIVERIES
    failures = [failure for seed in range(count) for failure in _try(seed)]
    return [
        Tally(
            "second deliveries in another form",
            count,
            "a row or a label differs without a word",
            failures,
        )
    ]


def _try(seed: int) -> Iterator[str]:
    draw = random.Random(seed)
    labels = draw.choice(((0, 1, 2), (False, True), (-1, 10)))
    rows = [
        (sources.sentence(draw, number), draw.choice(labels))
        for number in range(draw.randint(12, 40))
    ]
    forms = [
        (
            draw.choice(sources.FORMATS),
            draw.choice(("utf-8", "utf-16")),
            draw.choice(STORED),
            draw.random() < 0.5,
        )
        for _ in "12"
    ]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            first, second = (
                _deliver(Path(scratch) / str(number), rows, *form)
                for number, form in enumerate(forms)
            )
        except Exception as error:  # whatever comes is counted
            yield f"seed {seed} {forms}: {type(error).__name__}: {error}"
            return
    wanted = {text: str(label).lower() for text, label in rows}
    for found in (first, second):
        if found != wanted:
            differ = [
                (text, wanted.get(text), found.get(text))
                for text in {*wanted, *found}
                if wanted.get(text) != found.get(text)
            ]
            yield f"seed {seed} {forms}: {len(differ)} rows differ, such as {differ[0]}"


def _deliver(
    root: Path, rows: list[tuple[str, Any]], kind: str, encoding: str, stored: str, turned: bool
) -> dict[str, str]:
    """text -> label of the rows, as they come out of a delivery in this form; `turned`: other columns first."""
    root.mkdir()
    made = []
    for number, (text, label) in enumerate(rows):
        own = (
            label
            if isinstance(label, bool) and stored != "str"
            else {"int": int, "float": float, "str": str}[stored](label)
        )
        row = {"text": text, "label": own, "id": number}
        made.append(Row(dict(reversed(row.items())) if turned else row, None))
    path = root / f"rows.{kind}"
    sources.write(path, [row.source for row in made], encoding)
    found, aside = ingested(root, path, Table("text-classification", made), encoding)
    if aside:
        raise ValueError(f"set aside: {aside}")
    return {row["text"]: row["label"] for row in found.to_pylist()}
