"""The same rows delivered again in another form.

Ingest must read the rows and labels of the first delivery, or say what is wrong.
"""

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
STORED = {"int": int, "float": float, "str": str}  # types in which a delivery stores its labels


def campaign(quick: bool) -> list[Tally]:
    """Deliveries in another format, encoding, order of columns or type of labels."""
    count = QUICK if quick else DELIVERIES
    failures = [failure for seed in range(count) for failure in _try(seed)]
    what, must_not = "second deliveries in another form", "a row or a label differs without a word"
    return [Tally(what, count, must_not, failures)]


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
            draw.choice(tuple(STORED)),
            draw.random() < 0.5,
        )
        for _ in range(2)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        try:
            deliveries = [
                _deliver(Path(scratch) / str(number), rows, *form)
                for number, form in enumerate(forms)
            ]
        except Exception as error:  # any exception counts as a failure
            yield f"seed {seed} {forms}: {type(error).__name__}: {error}"
            return
    wanted = {text: str(label).lower() for text, label in rows}
    for delivered in deliveries:
        if delivered != wanted:
            differ = [
                (text, wanted.get(text), delivered.get(text))
                for text in {*wanted, *delivered}
                if wanted.get(text) != delivered.get(text)
            ]
            yield f"seed {seed} {forms}: {len(differ)} rows differ, such as {differ[0]}"


def _deliver(
    root: Path,
    rows: list[tuple[str, Any]],
    file_format: str,
    encoding: str,
    stored: str,
    is_reversed: bool,
) -> dict[str, str]:
    """text -> label of the rows, as ingest reads a delivery in this form.

    stored       a key of STORED
    is_reversed  whether the columns come in reverse order
    """
    root.mkdir()
    table_rows = []
    for number, (text, label) in enumerate(rows):
        keeps_bool = isinstance(label, bool) and stored != "str"
        values = {
            "text": text,
            "label": label if keeps_bool else STORED[stored](label),
            "id": number,
        }
        table_rows.append(Row(dict(reversed(values.items())) if is_reversed else values, None))
    path = root / f"rows.{file_format}"
    sources.write(path, [row.source for row in table_rows], encoding)
    table, aside = ingested(root, path, Table("text-classification", table_rows), encoding)
    if aside:
        raise ValueError(f"set aside: {aside}")
    return {row["text"]: row["label"] for row in table.to_pylist()}
