"""Which rows a model that learns on is trained on: all that are new to it, and a share of those it knows, against forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.core.errors import DataError

# a label that has known rows is never left without one: hence the ceiling, and a hair's breadth for 0.07 * 100 > 7;
# rows whose references are no single class are all of one kind
_KNOWN = """
WITH known AS (
    SELECT position,
           row_number() OVER (PARTITION BY kind ORDER BY md5($seed::VARCHAR || input_ids::VARCHAR), position) AS place,
           count(*) OVER (PARTITION BY kind) AS rows_of_label
    FROM present SEMI JOIN past USING (input_ids, "references")
)
SELECT position, place > ceil($share * rows_of_label - 1e-9) AS left_out FROM known
"""


@dataclass(frozen=True)
class Replay:
    """Rows that are new, known and trained on again, known and left out."""

    new: int
    replayed: int
    left_out: int


def replayed_rows(
    present: pa.Table, past: pa.Table, renumbered: Sequence[int | None], share: float, seed: int
) -> tuple[pa.Table, Replay]:
    """The rows of `present` that are to be trained on, in their order, and how many they are.

    present     tokens of the train split
    past        those that the model was trained on already
    renumbered  for each class of `past` its number in `present`, None for one that is gone
    share       of the known rows of each label; which ones depends on their content and the seed, not on their order

    A row is known if its token ids and its label are.
    Raises DataError if nothing is left.
    """
    import duckdb

    single = not pa.types.is_nested(present.schema.field("references").type)
    kinds = present["references"] if single else pa.array(np.zeros(len(present), np.int64))
    tables = {
        "present": present.select(["input_ids", "references"])
        .append_column("position", pa.array(np.arange(len(present))))
        .append_column("kind", kinds),
        "past": _renumber(past.select(["input_ids", "references"]), renumbered),
    }
    with duckdb.connect() as connection:
        for name, table in tables.items():
            connection.register(name, table)
        known = connection.execute(_KNOWN, {"seed": seed, "share": share}).fetchnumpy()
    left_out = known["position"][known["left_out"]]
    counts = Replay(
        len(present) - len(known["position"]), len(known["position"]) - len(left_out), len(left_out)
    )
    if not counts.new + counts.replayed:
        raise DataError(
            f"data/tokens/train.arrow: none of its {len(present)} rows is new to the champion, and finetune.replay_share is {share:g}.",
            "Add rows, or raise finetune.replay_share.",
        )
    if not counts.left_out:
        return present, counts
    wanted = np.ones(len(present), bool)
    wanted[left_out] = False
    return present.filter(pa.array(wanted)), counts


def _renumber(past: pa.Table, renumbered: Sequence[int | None]) -> pa.Table:
    """Classes as the present labels number them; references that are no single class are left as they are."""
    position = past.schema.get_field_index("references")
    if not pa.types.is_integer(past.schema.field(position).type):
        return past
    references = pa.chunked_array(
        [pa.array(renumbered, pa.int64()).take(part) for part in past["references"].chunks],
        pa.int64(),
    )
    return past.set_column(position, "references", references)
