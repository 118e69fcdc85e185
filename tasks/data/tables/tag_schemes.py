"""The schemes that entities are tagged by, as IOB2: numbers, IOB1, BIOES and BILOU."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tasks.core.errors import ParamsError
from tasks.data.tables.column_guesses import MOSTLY
from tasks.data.tables.foreign_values import LABELS
from tasks.data.tables.loaded import literal
from tasks.data.tables.readings import Given

if TYPE_CHECKING:
    from tasks.params.reading import ReadingParams

_NUMBERS = (
    "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE",
)  # fmt: skip
_SAME_AS = {
    "S-": "B-",
    "U-": "B-",
    "E-": "I-",
    "L-": "I-",
}  # BIOES and BILOU: single or unit, end or last
MOST_TAGS = 1000
PREFIXES = ("B-", "I-", *_SAME_AS)


def as_iob2(tags: str, given: Given, params: ReadingParams) -> str:
    """SQL of tags in IOB2, of SQL of tags.

    Numbers stand for `ingest.tag_names`; S-, U-, E- and L- have one meaning; an I- that begins an entity is right in IOB1 alone.
    Raises ParamsError for numbers without names.
    """
    if params.tag_names:
        names = ", ".join(map(literal, params.tag_names))
        number = "TRY_CAST(x AS UINTEGER)"
        tags = f"list_transform({tags}, lambda x: coalesce([{names}][{number}::BIGINT + 1], x))"
    elif given.is_list and given.kind.removesuffix("[]") in _NUMBERS:
        raise ParamsError(
            f"column '{given.name}': it holds the numbers of tags, and nothing says which tags they are.",
            "Name them in order, from 0: `ingest.tag_names: [O, B-PER, I-PER, ...]`, or `ratchet init --tags O,B-PER,I-PER,...`.",
        )
    cases = " ".join(
        f"WHEN {literal(theirs)} THEN {literal(ours)} || x[3:]" for theirs, ours in _SAME_AS.items()
    )
    tags = f"list_transform({tags}, lambda x: CASE x[:2] {cases} ELSE x END)"
    if params.merge_labels:
        tags = f"list_transform({tags}, lambda x: CASE WHEN x[2] = '-' THEN x[:2] || trim(lower(x[3:])) ELSE x END)"
    if params.tag_scheme == "iob1":
        before = f"coalesce(({tags})[i - 1][3:], '')"
        tags = f"list_transform({tags}, lambda x, i: CASE WHEN x[:2] = 'I-' AND {before} <> x[3:] THEN 'B-' || x[3:] ELSE x END)"
    return tags


def unnamed_number(tags: str, name: str) -> str:
    """SQL of what is wrong with tags that are numbers still, of SQL of what `as_iob2` made; NULL where none is."""
    remedy = "`ratchet init --tags O,B-PER,I-PER,...` names them in order, from 0"
    said = f"{name}: numbers of tags that `ingest.tag_names` does not name; {remedy}"
    return f"CASE WHEN len(list_filter({tags}, lambda x: x[1] BETWEEN '0' AND '9')) > 0 THEN {literal(said)} END"


def is_iob1(rows: Iterable[Sequence[Any] | None]) -> bool:
    """Whether entities begin with I-, and with B- only where they touch another of their type."""
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
    """The column, if there is one, of lists of whole numbers that may be tags'."""
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
    """The column, if there is one, of lists of spans with offsets, or of what Label Studio exports of them."""
    for name, values in rows.items():
        items = [item for value in values if isinstance(value, list) for item in value]
        if items and sum(map(_is_span, items)) >= MOSTLY * len(items):
            return name
    return None


def choices_of(rows: Mapping[str, Sequence[Any]]) -> str | None:
    """The column, if there is one, of what Label Studio exports of classes of whole texts."""
    for name, values in rows.items():
        results = [
            kind
            for value in values
            if isinstance(value, list)
            for item in value
            for kind in _result_types(item)
        ]
        if "choices" in results and LABELS not in results:
            return name
    return None


def word_tags(rows: Mapping[str, Sequence[Any]]) -> str | None:
    """The column, if there is one, whose rows hold the tag of a word each."""
    for name, values in rows.items():
        present = [value for value in values if value]
        tags = all(
            isinstance(value, str) and (value == "O" or value.startswith(PREFIXES))
            for value in present
        )
        if tags and len({value == "O" for value in present}) == 2:
            return name
    return None


def _is_span(item: Any) -> bool:
    if isinstance(item, dict):
        keys = {key for key, value in item.items() if value is not None}
        if "result" in keys:
            kinds = _result_types(item)
            return LABELS in kinds or not kinds
        return bool(keys & {"start", "start_offset"}) and bool(
            keys & {"label", "labels", "entity_group"}
        )
    return isinstance(item, list) and len(item) == 3 and isinstance(item[2], str)


def _result_types(item: Any) -> set[str]:
    """The types of the results of one of Label Studio's annotations."""
    results = item.get("result") if isinstance(item, dict) else None
    return {result.get("type", LABELS) for result in results or () if isinstance(result, dict)}
