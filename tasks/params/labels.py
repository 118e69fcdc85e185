"""The one form of a label, however it is stored: 1, 1.0 and "1" are one, and so are true and "True"."""

from __future__ import annotations

import re
from collections.abc import Sequence

BLANKS = " \t\r\n\xa0"
WHOLE = r"-?(?:0|[1-9][0-9]*)\.0+"  # a whole number as a float is written
ON, OFF = (
    ("1", "true", "yes", "y"),
    ("0", "false", "no", "n"),
)  # whether a label is set, in any case


def canonical_label(label: str, *, merge: bool) -> str:
    """The label that stands for its value, as `read_label` has it of texts.

    merge   labels that differ by case, or by blanks around them, are one
    """
    if re.fullmatch(WHOLE, label):
        label = label.partition(".")[0]
        label = "0" if label == "-0" else label
    elif label.lower() in ("true", "false"):
        label = label.lower()
    return label.lower().strip(BLANKS) if merge else label


def canonical_labels(labels: Sequence[str], *, merge: bool) -> tuple[str, ...]:
    """The labels in their one form; those that are one by `merge` once."""
    found = [canonical_label(label, merge=merge) for label in labels]
    return tuple(dict.fromkeys(found) if merge else found)


def label_variants(labels: Sequence[str]) -> list[list[str]]:
    """Groups of labels that differ by case, or by blanks around them, alone."""
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(canonical_label(label, merge=True), []).append(label)
    return [group for group in groups.values() if len(group) > 1]
