"""Label names as training rows: where a name says what its label means, it is worth a row or two.

SetFit (Tunstall et al. 2022) makes rows of templates around the name; here it stands alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from tasks.core.errors import ParamsError
from tasks.encoding.encoder import encode_rows

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.problems.problem import Problem

_NUMBERED = re.compile(r"(label|class|category|cat|type|intent|topic|tag|id)?[\W_]*\d*", re.I)
NAMED = -1  # in place of a row's number


def spoken(label: str) -> str:
    """A label as one would say it: 'account_blocked' and 'accountBlocked' as 'account blocked'."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_\W]+", " ", label)
    return words.strip().lower()


def mute_labels(labels: Sequence[str]) -> list[str]:
    """Those whose names say nothing: numbers, single letters, LABEL_1."""
    return [
        label for label in labels if _NUMBERED.fullmatch(label) or sum(map(str.isalpha, label)) < 2
    ]


def can_name_labels(problem: Problem) -> bool:
    """Whether rows of the type have one text and one class."""
    return len(problem.rows.text_columns) == 1 and problem.rows.label_column == "label"


def check_label_names(problem: Problem, labels: Sequence[str]) -> None:
    """Raise ParamsError unless rows have one text and one class, whose name says what it means."""
    if not can_name_labels(problem):
        raise ParamsError(
            f"finetune.label_names: rows of {problem.name} are not one text with one class.",
            "Set finetune.label_names to false.",
        )
    if mute := mute_labels(labels):
        shown = ", ".join(f"'{label}'" for label in mute[:5])
        raise ParamsError(
            f"finetune.label_names: these names say nothing of what they mean: {shown}.",
            "Set finetune.label_names to false, or use labels of words in the data.",
        )


def with_label_names(
    train: pa.Table, problem: Problem, tokenizer: Tokenizer, labels: Sequence[str]
) -> pa.Table:
    """The tokenized rows, followed by one for each label, whose text is the label's name."""
    (column,) = problem.rows.text_columns
    rows = {column: [spoken(label) for label in labels], "label": list(labels)}
    named = {"row": [NAMED] * len(labels), **encode_rows(problem.encoding, tokenizer, rows, labels)}
    return pa.concat_tables([train, pa.Table.from_pydict(named, schema=train.schema)])
