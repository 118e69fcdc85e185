"""Checks for words and their BIO tags, and the facts they judge."""

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
    """Checks for the columns `tokens` and `tags`, and for the entity types in `entities`."""
    null, not_null = "expect_column_values_to_be_null", "expect_column_values_to_not_be_null"
    few = validate.min_rows_per_class
    return [
        Check("null_words", not_null, {"column": "tokens"}, "quarantine",
              "the words are missing or are not a list"),
        Check("null_tags", not_null, {"column": "tags"}, "quarantine",
              "the tags are missing or are not a list"),
        Check("blank_word", null, {"column": BLANK_WORD}, "quarantine", "a word is empty or blank"),
        Check("tag_number", null, {"column": NUMBER}, "quarantine",
              "the numbers of words and tags differ"),
        Check("tag_form", null, {"column": FORM}, "quarantine", "a tag is not O, B-TYPE or I-TYPE"),
        Check("tag_order", null, {"column": ORDER}, "quarantine",
              "an I- tag does not follow a tag of its type (wanted IOB2: entities begin with B-)"),
        Check("unknown_label", "expect_column_values_to_be_in_set",
              {"column": LABEL_UNKNOWN, "value_set": list(labels)}, "error",
              "an entity type is not in `labels` of params.yaml"),
        Check("rows_per_class", "expect_column_values_to_be_between",
              {"column": LABEL_ROWS, "min_value": few}, "error",
              f"an entity type is in fewer than {few} rows (validate.min_rows_per_class)"),
        Check("missing_class", "expect_column_distinct_values_to_contain_set",
              {"column": LABEL_PRESENT, "value_set": list(labels)}, "error",
              "labels of params.yaml have no entity"),
    ]  # fmt: skip


def bio_facts(rows: pa.Table) -> pa.Table:
    """The facts those checks judge, a column each: the problem in words, or null."""
    facts: dict[str, list[str | None]] = {name: [] for name in (BLANK_WORD, NUMBER, FORM, ORDER)}
    for words, tags in zip(rows["tokens"].to_pylist(), rows["tags"].to_pylist(), strict=True):
        tags_or_empty = [tag or "" for tag in tags or []]
        blank = (
            f"word {number}"
            for number, word in enumerate(words or [], 1)
            if word is None or not word.strip()
        )
        malformed = (repr(tag) for tag in tags_or_empty if not _TAG.fullmatch(tag))
        differ = words is not None and tags is not None and len(words) != len(tags)
        facts[BLANK_WORD].append(next(blank, None))
        facts[NUMBER].append(f"{len(words)} words, {len(tags)} tags" if differ else None)
        facts[FORM].append(next(malformed, None))
        facts[ORDER].append(orphan(tags_or_empty))
    return pa.table({name: pa.array(values, pa.string()) for name, values in facts.items()})


def orphan(tags: Sequence[str]) -> str | None:
    """The first I- tag that continues no entity, with its word number; None if there is none."""
    previous = OUTSIDE
    for number, tag in enumerate(tags, 1):
        if tag.startswith("I-") and previous[2:] != tag[2:]:
            return f"{tag} at word {number}"
        previous = tag
    return None
