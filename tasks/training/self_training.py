"""Labels for rows that have none, by class means of what the head reads: self-training.

Each round, the rows whose class is most certain join the labelled ones, the same share of every
class that is predicted, so that no class takes them all (Scudder 1965; per-class shares as in Zou
et al. 2018, "class-balanced self-training"). Class means are compared by cosine: with one or two
labelled rows a class they do better than a regression, and a round takes milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.core.errors import ParamsError
from tasks.training.label_names import can_name_labels

if TYPE_CHECKING:
    from tasks.core.arrays import Floats, Indices
    from tasks.problems.problem import Problem

ROUNDS = 3
SHARE = 0.8  # of the rows that are predicted to be of a class, the most certain


def check_unlabelled(problem: Problem, has_rows: bool, wanted: bool) -> None:
    """Raise ParamsError unless `ingest.unlabelled` and `finetune.self_training` fit together.

    has_rows  whether `ingest.unlabelled` names sources
    wanted    `finetune.self_training`
    """
    if wanted and not can_name_labels(problem):
        raise ParamsError(
            f"finetune.self_training: rows of {problem.name} are not one text with one class.",
            "Set finetune.self_training to false.",
        )
    if wanted and not has_rows:
        raise ParamsError(
            "finetune.self_training: there are no rows without labels.",
            "Name them in ingest.unlabelled: `[{url: FILE}]`; or set it to false.",
        )
    if has_rows and not wanted:
        raise ParamsError(
            "ingest.unlabelled: nothing uses these rows.",
            "Set finetune.self_training to true and finetune.head_start to solved, "
            "or ingest.unlabelled to [].",
        )


def label_certain(
    vectors: Floats, classes: Indices, unlabelled: Floats, outputs: int
) -> tuple[Indices, Indices]:
    """(rows, their classes) of the unlabelled rows that are certain enough, in ascending order.

    vectors     (labelled, width)
    classes     (labelled,), below `outputs`
    unlabelled  (rows, width)
    A class without labelled rows gets none.
    """
    seen = np.unique(classes)
    labelled, others = _unit(vectors), _unit(unlabelled)
    rows, found = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for _ in range(ROUNDS):
        members = np.concatenate([labelled, others[rows]])
        of_members = np.concatenate([classes, found])
        sums = np.zeros((outputs, members.shape[1]), np.float32)
        np.add.at(sums, of_members, members)
        likeness: Floats = others @ _unit(sums[seen]).T
        rows, nearest = _most_certain(likeness)
        found = seen[nearest]
    return rows, found


def _most_certain(likeness: Floats) -> tuple[Indices, Indices]:
    """(rows, column) of the SHARE of each column's rows that lead the next column by most."""
    nearest = likeness.argmax(1)
    if likeness.shape[1] < 2:
        return np.arange(len(likeness)), nearest
    two = np.partition(likeness, -2, axis=1)
    lead = two[:, -1] - two[:, -2]
    kept = np.zeros(len(likeness), bool)
    for column in np.unique(nearest):
        own = np.flatnonzero(nearest == column)
        most = int(np.ceil(SHARE * len(own)))
        kept[own[np.argsort(-lead[own], kind="stable")[:most]]] = True
    return np.flatnonzero(kept), nearest[kept]


def _unit(vectors: Floats) -> Floats:
    """Vectors of length 1; those of nothing stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    unit: Floats = (vectors / lengths).astype(np.float32)
    return unit
