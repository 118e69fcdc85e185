"""What can be wrong with words and their BIO tags: a fact each that a check judges, null where nothing is."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pyarrow as pa

from tasks.data.quality.checks import LABEL_PRESENT, LABEL_ROWS, LABEL_UNKNOWN, Check
from tasks.encoding.spans import OUTSIDE
from tasks.params.schema import ValidateParams

BLANK_WORD, NUMBER, FORM, ORDER = "tokens.blank", "tags.number", "tags.form", "tags.order"
_TAG = re.compile(r"O|[BI]-.+", re.DOTALL)


def bio_checks(validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
    """Checks of the columns `tokens` and `tags`, and of the types in `entities`."""
    null, few = "expect_column_values_to_be_null", validate.min_rows_per_class
    present = {"column": LABEL_PRESENT, "value_set": list(labels)}
    return [
        Check("null_words", "expect_column_values_to_not_be_null", {"column": "tokens"}, "quarantine",
              "the words are missing, or no list"),
        Check("null_tags", "expect_column_values_to_not_be_null", {"column": "tags"}, "quarantine", "the tags are missing, or no list"),
        Check("blank_word", null, {"column": BLANK_WORD}, "quarantine", "a word is empty or blank"),
        Check("tag_number", null, {"column": NUMBER}, "quarantine", "there are not as many tags as words"),
        Check("tag_form", null, {"column": FORM}, "quarantine", "a tag is not O, B-TYPE or I-TYPE"),
        Check("tag_order", null, {"column": ORDER}, "quarantine",
              "an I- tag follows no tag of its type (wanted is IOB2, where every entity begins with B-)"),
        Check("unknown_label", "expect_column_values_to_be_in_set", {"column": LABEL_UNKNOWN, "value_set": list(labels)}, "error",
              "a type of entity is not in `labels` of params.yaml"),
        Check("rows_per_class", "expect_column_values_to_be_between", {"column": LABEL_ROWS, "min_value": few}, "error",
              f"a type of entity is in fewer than {few} rows (validate.min_rows_per_class)"),
        Check("missing_class", "expect_column_distinct_values_to_contain_set", present, "error",
              "labels of params.yaml have no entity"),
    ]  # fmt: skip


def bio_facts(rows: pa.Table) -> pa.Table:
    """The facts that those checks judge, as columns: each in words, or null."""
    found: dict[str, list[str | None]] = {name: [] for name in (BLANK_WORD, NUMBER, FORM, ORDER)}
    for words, tags in zip(rows["tokens"].to_pylist(), rows["tags"].to_pylist(), strict=True):
        given = [tag or "" for tag in tags or []]
        blank = next(
            (
                str(place)
                for place, word in enumerate(words or [], 1)
                if word is None or not word.strip()
            ),
            None,
        )
        both = words is not None and tags is not None
        found[BLANK_WORD].append(blank and f"word {blank}")
        found[NUMBER].append(
            f"{len(words)} words, {len(tags)} tags" if both and len(words) != len(tags) else None
        )
        found[FORM].append(next((repr(tag) for tag in given if not _TAG.fullmatch(tag)), None))
        found[ORDER].append(orphan(given))
    return pa.table({name: pa.array(values, pa.string()) for name, values in found.items()})


def orphan(tags: Sequence[str]) -> str | None:
    """The first I- tag that continues nothing, with its place; None where all do."""
    before = OUTSIDE
    for place, tag in enumerate(tags, 1):
        if tag.startswith("I-") and before[2:] != tag[2:]:
            return f"{tag} at word {place}"
        before = tag
    return None
