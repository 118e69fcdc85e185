"""Detect tagging schemes of entities (tag numbers, IOB1, BIOES, BILOU) and convert them to IOB2."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ParamsError
from tasks.data.tables.column_guesses import MOSTLY
from tasks.data.tables.foreign_values import LABELS
from tasks.data.tables.loaded import literal
from tasks.data.tables.readings import SourceColumn

if TYPE_CHECKING:
    from tasks.params.ingestion import ReadingParams

_NUMBERS = (
    *("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"),
)
# BIOES and BILOU prefix -> IOB2 prefix: single or unit, end or last
_SAME_AS = {"S-": "B-", "U-": "B-", "E-": "I-", "L-": "I-"}
MOST_TAGS = 1000
PREFIXES = ("B-", "I-", *_SAME_AS)


def as_iob2(tags: str, column: SourceColumn, params: ReadingParams) -> str:
    """Convert SQL of tags in any scheme to SQL of tags in IOB2.

    Numbers are indices into `ingest.tag_names`. S-, U-, E- and L- mean the same in every scheme;
    an I- at the beginning of an entity is valid only in IOB1.
    Raises ParamsError for numbers without names.
    """
    if params.tag_names:
        names = ", ".join(map(literal, params.tag_names))
        number = "TRY_CAST(x AS UINTEGER)"
        tags = f"list_transform({tags}, lambda x: coalesce([{names}][{number}::BIGINT + 1], x))"
    elif column.is_list and column.duckdb_type.removesuffix("[]") in _NUMBERS:
        raise ParamsError(
            f"column '{column.name}': it holds tag numbers, but the tags' names are not known.",
            "List the names in order, from 0: `ingest.tag_names: [O, B-PER, I-PER, ...]`, "
            "or `ratchet init --tags O,B-PER,I-PER,...`.",
        )
    cases = " ".join(
        f"WHEN {literal(prefix)} THEN {literal(iob2)} || x[3:]" for prefix, iob2 in _SAME_AS.items()
    )
    tags = f"list_transform({tags}, lambda x: CASE x[:2] {cases} ELSE x END)"
    if params.merge_labels:
        merged = "CASE WHEN x[2] = '-' THEN x[:2] || trim(lower(x[3:])) ELSE x END"
        tags = f"list_transform({tags}, lambda x: {merged})"
    if params.tag_scheme == "iob1":
        begins = f"x[:2] = 'I-' AND coalesce(({tags})[i - 1][3:], '') <> x[3:]"
        begun = f"CASE WHEN {begins} THEN 'B-' || x[3:] ELSE x END"
        tags = f"list_transform({tags}, lambda x, i: {begun})"
    return tags


def unnamed_number(tags: str, name: str) -> str:
    """SQL of the problem with tags that are still numbers after `as_iob2`, or of NULL."""
    remedy = "`ratchet init --tags O,B-PER,I-PER,...` names them in order, from 0"
    problem = f"{name}: tag numbers that `ingest.tag_names` does not name; {remedy}"
    numbers = f"list_filter({tags}, lambda x: x[1] BETWEEN '0' AND '9')"
    return f"CASE WHEN len({numbers}) > 0 THEN {literal(problem)} END"


def is_iob1(rows: Iterable[Sequence[Any] | None]) -> bool:
    """Whether entities begin with I-, and with B- only right after one of the same type."""
    begun = orphans = 0
    for tags in rows:
        before = "O"
        for tag in tags or ():
            if isinstance(tag, str):
                begun += tag[:2] == "B-" and before[2:] != tag[2:]
                orphans += tag[:2] == "I-" and before[2:] != tag[2:]
                before = tag
    return orphans > 0 and begun == 0


def numbered(rows: Mapping[str, Sequence[Any]]) -> str | None:
    """Column of lists of whole numbers that may be tag numbers; None if there is none."""
    for name, values in rows.items():
        items = [item for value in values if isinstance(value, list) for item in value]
        if (
            items
            and all(isinstance(item, int | float) and item in range(MOST_TAGS) for item in items)
            and "tag" in name.lower()
        ):
            return name
    return None


def spans_of(rows: Mapping[str, Sequence[Any]]) -> str | None:
    """Column of lists of spans with offsets or of Label Studio's spans; None if there is none."""
    for name, values in rows.items():
        items = [item for value in values if isinstance(value, list) for item in value]
        if items and sum(map(_is_span, items)) >= MOSTLY * len(items):
            return name
    return None


def choices_of(rows: Mapping[str, Sequence[Any]]) -> str | None:
    """Column of Label Studio's annotations with classes of whole texts; None if there is none."""
    for name, values in rows.items():
        items = [item for value in values if isinstance(value, list) for item in value]
        result_types = {result_type for item in items for result_type in _result_types(item)}
        if "choices" in result_types and LABELS not in result_types:
            return name
    return None


def word_tags(rows: Mapping[str, Sequence[Any]]) -> str | None:
    """Column in which each row holds the tag of one word; None if there is none."""
    for name, values in rows.items():
        present = [value for value in values if value]
        are_tags = all(
            isinstance(value, str) and (value == "O" or value.startswith(PREFIXES))
            for value in present
        )
        if are_tags and len({value == "O" for value in present}) == 2:
            return name
    return None


def _is_span(item: Any) -> bool:
    if isinstance(item, dict):
        keys = {key for key, value in item.items() if value is not None}
        if "result" in keys:
            result_types = _result_types(item)
            return LABELS in result_types or not result_types
        has_label = not keys.isdisjoint(("label", "labels", "entity_group"))
        return has_label and not keys.isdisjoint(("start", "start_offset"))
    return isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)


def _result_types(item: Any) -> set[str]:
    """Types of the results in one Label Studio annotation."""
    results = item.get("result") if isinstance(item, dict) else None
    return {result.get("type", LABELS) for result in results or () if isinstance(result, dict)}
