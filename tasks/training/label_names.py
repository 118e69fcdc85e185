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


def mostly_say_nothing(labels: Sequence[str]) -> bool:
    """Whether more than half of the names say nothing."""
    return 2 * len(mute_labels(labels)) > len(labels)


def can_name_labels(problem: Problem) -> bool:
    """Whether rows of the type have one text and one class."""
    return len(problem.rows.text_columns) == 1 and problem.rows.label_column == "label"


def check_label_names(problem: Problem, labels: Sequence[str]) -> None:
    """Raise ParamsError unless rows have one text and one class, and most names say something."""
    if not can_name_labels(problem):
        raise ParamsError(
            f"finetune.label_names: rows of {problem.name} are not one text with one class.",
            "Set finetune.label_names to false.",
        )
    if mostly_say_nothing(labels):
        shown = ", ".join(f"'{label}'" for label in mute_labels(labels)[:5])
        raise ParamsError(
            f"finetune.label_names: most names say nothing of what they mean: {shown}.",
            "Set finetune.label_names to false, or use labels of words in the data.",
        )


def with_label_names(
    train: pa.Table, problem: Problem, tokenizer: Tokenizer, labels: Sequence[str]
) -> pa.Table:
    """The tokenized rows, followed by one for each label whose name says something, as its text."""
    (column,) = problem.rows.text_columns
    mute = mute_labels(labels)
    saying = [label for label in labels if label not in mute]
    rows = {column: list(map(spoken, saying)), "label": saying}
    named = {"row": [NAMED] * len(saying), **encode_rows(problem.encoding, tokenizer, rows, labels)}
    return pa.concat_tables([train, pa.Table.from_pydict(named, schema=train.schema)])
