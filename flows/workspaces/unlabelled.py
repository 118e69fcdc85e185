"""What `ratchet init` does with rows without labels, and with labels that have no training rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.errors import DataError, ParamsError
from tasks.core.files import write_text
from tasks.data.duplicates.normalization import normalize_rows
from tasks.data.tables.loaded import SPLIT, SPLITS
from tasks.data.tables.row_store import RowStore
from tasks.data.tables.unlabelled_rows import UNLABELLED
from tasks.problems import Problem
from tasks.training.label_names import can_name_labels, mostly_say_nothing, mute_labels, spoken

ZERO_SHOT = "zero-shot"
LABEL_NAMES = "label_names.csv"  # training rows of a zero-shot workspace: one a label
_GIVE_ROWS = "Leave out --recipe zero-shot, and give training rows: --data FILE, or --train FILE."


def check_zero_shot(problem: Problem, labels: Sequence[str]) -> None:
    """Raise ParamsError unless the names of the labels can be all that the model learns from."""
    if not can_name_labels(problem):
        raise ParamsError(
            f"--recipe {ZERO_SHOT}: rows of {problem.name} are not one text with one class.",
            _GIVE_ROWS,
        )
    if mostly_say_nothing(labels):
        shown = ", ".join(f"'{label}'" for label in mute_labels(labels)[:5])
        raise ParamsError(
            f"--recipe {ZERO_SHOT}: most labels' names say nothing of what they mean: {shown}.",
            _GIVE_ROWS,
        )


def about_label_names(labels: Sequence[str]) -> list[str]:
    """What to do with LABEL_NAMES; nothing without labels."""
    if not labels:
        return []
    notes = [
        f"{LABEL_NAMES} holds the training rows: the name of each label. Add rows that say more of "
        "what a label means, as many as you like."
    ]
    if mute := mute_labels(labels):
        shown = ", ".join(f"'{label}'" for label in mute[:5])
        notes.append(f"names that say nothing: {shown}. Write what they mean in {LABEL_NAMES}.")
    return notes


def about_shared_texts(raw: Path, column: str) -> list[str]:
    """A note on unlabelled rows that are validation or test rows, in the directory `raw` of ingest.

    Raises DataError if all of them are.
    """
    rows = RowStore(raw / "rows.parquet")
    if SPLIT not in rows.column_names:
        return []  # the split leaves them out
    held_out = [
        normalize_rows([batch.filter(pc.not_equal(batch[SPLIT], SPLITS[0]))[column]])
        for _, batch in rows.batches([column, SPLIT])
    ]
    known = pa.chunked_array([chunk for texts in held_out for chunk in texts.chunks])
    own = RowStore(raw / UNLABELLED)
    shared = sum(
        pc.sum(pc.is_in(normalize_rows([batch[column]]), known)).as_py() or 0
        for _, batch in own.batches([column])
    )
    if shared == len(own):
        raise DataError(
            "--unlabelled: all rows are validation or test rows.", "Give rows of other texts."
        )
    if not shared:
        return []
    return [f"{shared} of {len(own)} unlabelled rows are validation or test rows: left out."]


def check_unlabelled(recipe: str, problem: Problem) -> None:
    """Raise ParamsError unless training uses rows without labels."""
    if recipe == "standard":
        raise ParamsError(
            "--unlabelled: the standard recipe does not use rows without labels.",
            "Add --recipe few-shot, frozen or zero-shot; or leave --unlabelled out.",
        )
    if not can_name_labels(problem):
        raise ParamsError(
            f"--unlabelled: rows of {problem.name} are not one text with one class.",
            "Leave --unlabelled out.",
        )


def write_label_names(
    root: Path, labels: Sequence[str], columns: Mapping[str, str | tuple[str, ...]]
) -> None:
    """Write LABEL_NAMES: a row for each label, its text the name as one would say it.

    columns  the data's columns by the problem's
    A file that is there already is the user's, and stays.
    """
    text, label = columns["text"], columns["label"]
    if not isinstance(text, str) or not isinstance(label, str):
        raise ParamsError(
            f"--recipe {ZERO_SHOT}: a text or a label is made of several columns.",
            "Join them into one in the files.",
        )
    if (root / LABEL_NAMES).exists():
        return
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow([text, label])
    writer.writerows([spoken(name) or name, name] for name in labels)
    write_text(root / LABEL_NAMES, table.getvalue())
