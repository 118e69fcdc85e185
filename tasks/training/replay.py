"""Replay for continual training: all new rows, and a share of the known ones against forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.core.errors import DataError

# ceil keeps at least one known row of each label, 1e-9 absorbs rounding (0.07 * 100 > 7); rows
# whose references are not a single class all count as one label
_KNOWN = """
WITH known AS (
    SELECT position,
           row_number() OVER (
               PARTITION BY label ORDER BY md5($seed::VARCHAR || input_ids::VARCHAR), position
           ) AS rank,
           count(*) OVER (PARTITION BY label) AS rows_of_label
    FROM present SEMI JOIN past USING (input_ids, "references")
)
SELECT position, rank > ceil($share * rows_of_label - 1e-9) AS left_out FROM known
"""


@dataclass(frozen=True)
class Replay:
    """Numbers of rows: new, known and replayed, known and left out."""

    new: int
    replayed: int
    left_out: int


def replayed_rows(
    present: pa.Table, past: pa.Table, renumbered: Sequence[int | None], share: float, seed: int
) -> tuple[pa.Table, Replay]:
    """The rows of `present` to train on, in their order, and their counts.

    present     tokens of the train split
    past        tokens that the model was trained on before
    renumbered  for each class of `past` its number in `present`, None for a dropped one
    share       share of each label's known rows to replay, chosen by content and seed, not by order

    A row is known if `past` has its token ids with its label.
    Raises DataError if no row is left.
    """
    import duckdb

    single = not pa.types.is_nested(present.schema.field("references").type)
    labels = present["references"] if single else pa.array(np.zeros(len(present), np.int64))
    tables = {
        "present": present.select(["input_ids", "references"])
        .append_column("position", pa.array(np.arange(len(present))))
        .append_column("label", labels),
        "past": _renumber(past.select(["input_ids", "references"]), renumbered),
    }
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        known = connection.execute(_KNOWN, {"seed": seed, "share": share}).fetchnumpy()
    left_out, n_known = known["position"][known["left_out"]], len(known["position"])
    counts = Replay(len(present) - n_known, n_known - len(left_out), len(left_out))
    if not counts.new + counts.replayed:
        raise DataError(
            f"data/tokens/train.arrow: none of its {len(present)} rows is new to the champion, "
            f"and finetune.replay_share is {share:g}.",
            "Add rows, or raise finetune.replay_share.",
        )
    if not counts.left_out:
        return present, counts
    is_kept = np.ones(len(present), bool)
    is_kept[left_out] = False
    return present.filter(pa.array(is_kept)), counts


def _renumber(past: pa.Table, renumbered: Sequence[int | None]) -> pa.Table:
    """Renumber the classes to the present labels; other kinds of references stay as they are."""
    column = past.schema.get_field_index("references")
    if not pa.types.is_integer(past.schema.field(column).type):
        return past
    numbers = pa.array(renumbered, pa.int64())
    chunks = [numbers.take(chunk) for chunk in past["references"].chunks]
    return past.set_column(column, "references", pa.chunked_array(chunks, pa.int64()))
