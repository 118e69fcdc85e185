"""The canonical form of a label: 1, 1.0 and "1" are the same label, as are true and "True"."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

# sets of characters for regular expressions of Python and of RE2: white space, and without a width
BLANKS = "[\t\n\v\f\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
# not the joiners U+200C and U+200D, which change letters and emoji
INVISIBLE = (
    "[\x01-\x08\x0e-\x1f\x7f\xad\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u2069\ufe0e\ufe0f\ufeff]"
)
WHOLE = r"-?(?:0|[1-9][0-9]*)\.0+"  # an integer written as a float
# spellings, in lower case, for a label that is set or not set
ON, OFF = ("1", "true", "yes", "y"), ("0", "false", "no", "n")


def canonical_label(label: str, *, merge: bool) -> str:
    """The canonical form of a label, the same as `read_label` gives for texts.

    merge   treat labels as one that differ only by case, blanks, invisible characters, or in
            how Unicode composes them
    """
    if re.fullmatch(WHOLE, label):
        label = label.partition(".")[0]
        label = "0" if label == "-0" else label
    elif label.lower() in ("true", "false"):
        label = label.lower()
    if not merge:
        return label
    visible = re.sub(INVISIBLE, "", unicodedata.normalize("NFC", label.lower()))
    return re.sub(f"{BLANKS}+", " ", visible).strip(" ")


def canonical_labels(labels: Sequence[str], *, merge: bool) -> tuple[str, ...]:
    """The labels in canonical form; with `merge`, without duplicates."""
    canonical = [canonical_label(label, merge=merge) for label in labels]
    return tuple(dict.fromkeys(canonical) if merge else canonical)


def label_variants(labels: Sequence[str]) -> list[list[str]]:
    """Groups of two or more labels that merging makes one."""
    groups: dict[str, list[str]] = {}
    for label in sorted(labels):
        groups.setdefault(canonical_label(label, merge=True), []).append(label)
    return [group for group in groups.values() if len(group) > 1]
