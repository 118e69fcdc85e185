"""Facts about each text by itself: one pass in DuckDB, then Python for the few that need it."""

from __future__ import annotations

import re
from collections.abc import Callable

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tasks.core.errors import ParamsError, did_you_mean
from tasks.data.quality.checks import CHARACTERS, CONTROLS, DAMAGE, PERSONAL, SCRIPT, VISIBLE, fact
from tasks.data.quality.personal_data import EMAIL, NUMBER, find_personal_data
from tasks.data.tables.loaded import literal, quoted

FACTS = (CHARACTERS, VISIBLE, CONTROLS, SCRIPT, DAMAGE, PERSONAL)
_INVISIBLE = r"[\s\p{Z}\p{C}]+"
# C0 and C1 controls and DEL, but not tab, line feed and carriage return
_NO_CONTROL = r"[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x{9f}]+"
_NOT_PLAIN = r"[^ -~]"  # anything but a space or a printable ASCII character
_COMMON_SCRIPTS = (
    "Arabic Armenian Bengali Bopomofo Cyrillic Devanagari Ethiopic Georgian Greek Gujarati "
    "Gurmukhi Han Hangul Hebrew Hiragana Kannada Katakana Khmer Lao Latin Malayalam Myanmar "
    "Sinhala Tamil Telugu Thai Tibetan"
)


def text_facts(rows: pa.Table, column: str, script: str | None) -> pa.Table:
    """Facts about one text column, one row each; null for a null text.

    characters          number of code points
    visible             number of code points that are not blank, control or format characters
    control_characters  their number
    script_share        share of its letters in `script` (or several: 'Han, Hiragana'), in [0, 1];
                        null without letters
    encoding_damage     ftfy's badness (sequences that look wrongly decoded) plus the number of
                        replacement characters
    personal_data       what was found, e.g. 'e-mail, phone'; null if nothing was
    Raises ParamsError if `script` names no Unicode script.
    """
    text = quoted(column)
    facts = {
        CHARACTERS: f"length({text})",
        # most texts are plain ASCII and need no regex replacement: a third of the time
        VISIBLE: f"CASE WHEN plain THEN strlen(replace({text}, ' ', '')) "
        f"ELSE length({_without(text, _INVISIBLE)}) END",
        CONTROLS: f"CASE WHEN plain THEN 0 ELSE length({_without(text, _NO_CONTROL)}) END",
        SCRIPT: _script_share(text, script) if script else "NULL::DOUBLE",
        "_personal": f"regexp_matches({text}, {literal(EMAIL + '|' + NUMBER)})",
        "_other": "NOT plain",
    }
    with duckdb.connect() as connection:
        connection.execute("SET python_enable_replacements=false; SET enable_progress_bar=false")
        connection.register("rows", rows.select([column]))
        query = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in facts.items())
        plain = f"NOT regexp_matches({text}, {literal(_NOT_PLAIN)}) AS plain"
        table = connection.sql(
            f"SELECT {query} FROM (SELECT *, {plain} FROM rows)"
        ).to_arrow_table()
    damage = _look_closer(rows[column], table["_other"], _damage, pa.int64())
    damage = pc.if_else(pc.is_valid(rows[column]), pc.fill_null(damage, 0), damage)
    personal = _look_closer(rows[column], table["_personal"], _personal, pa.string())
    return pa.table(
        [*(table[name] for name in FACTS[:4]), damage, personal],
        [fact(column, name) for name in FACTS],
    )


def _without(text: str, pattern: str) -> str:
    return f"regexp_replace({text}, {literal(pattern)}, '', 'g')"


def _script_share(text: str, script: str) -> str:
    names = re.split(r"[,+|\s]+", script.strip())
    for name in names:
        if not _is_script(name):
            raise ParamsError(
                f"validate.script: no Unicode script is called '{name}'."
                f"{did_you_mean(name.capitalize(), _COMMON_SCRIPTS.split())}",
                f"For example: {_COMMON_SCRIPTS.replace(' ', ', ')}; "
                "separate several by commas: 'Han, Hiragana, Katakana'.",
            )
    letters = _without(text, r"[^\p{L}]+")
    in_scripts = "".join(rf"\p{{{name}}}" for name in names)
    return f"length({_without(letters, f'[^{in_scripts}]+')}) / nullif(length({letters}), 0)"


def _is_script(name: str) -> bool:
    if not re.fullmatch(r"[A-Z][a-z]+(_[A-Z][a-z]+)*", name):
        return False
    try:
        pc.match_substring_regex(pa.array(["x"]), rf"\p{{{name}}}")
    except pa.ArrowInvalid:
        return False
    return True


def _look_closer(
    texts: pa.ChunkedArray,
    selected: pa.ChunkedArray,
    examine: Callable[[str], object],
    dtype: pa.DataType,
) -> pa.Array:
    """`examine(text)` for the selected texts, null for the others."""
    mask = pc.fill_null(selected, False)
    values = [examine(text) for text in texts.take(pc.indices_nonzero(mask)).to_pylist()]
    return pc.replace_with_mask(
        pa.nulls(len(texts), dtype), mask.combine_chunks(), pa.array(values, dtype)
    )


def _damage(text: str) -> int:
    from ftfy.badness import badness

    return int(badness(text)) + text.count("\ufffd")


def _personal(text: str) -> str | None:
    return ", ".join(find_personal_data(text)) or None
