"""`evaluate.behaviour` of params.yaml: the user's behavioural tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.core.errors import ParamsError, did_you_mean
from tasks.params.section import Positive, Section, Share

Text = Annotated[str, Field(min_length=1)]


class WrittenCases(Section):
    """Minimum functionality: texts so clear that any useful model gives them `label`.

    Each case is a text, or a list of texts where the problem takes several.
    """

    name: str = Field(min_length=1)  # shown in the report
    label: str  # the right answer for every text
    # for pairs: lists of two texts
    texts: tuple[Text | tuple[Text, ...], ...] = Field(min_length=1)


class Direction(Section):
    """Directional test: words added to test rows must not move a label's probability one way.

    They are added to the last text of each row.
    """

    name: str = Field(min_length=1)  # shown in the report
    label: str  # whose probability is looked at
    expect: Literal["not_lower", "not_higher"]  # how the probability may move
    append: str = ""  # including the leading blank
    prepend: str = ""  # including the trailing blank
    tolerance: Share = 0.1  # probability by which it may still move the wrong way

    @model_validator(mode="after")
    def _something_is_added(self) -> Self:
        if not self.append and not self.prepend:
            raise ValueError("a directional test must add text: give `append` or `prepend`")
        return self


class BehaviourParams(Section):
    """Behavioural tests (CheckList, Ribeiro et al. 2020); invariance tests always run."""

    rows: Positive = 250  # test rows that each test alters
    names: tuple[str, ...] = ()  # given names to swap, besides common English ones
    # texts so plain that a useful model gets them right
    minimum_functionality: tuple[WrittenCases, ...] = ()
    directional: tuple[Direction, ...] = ()  # additions that move a probability one way


def check_behaviour(
    behaviour: BehaviourParams, labels: Sequence[str], columns: Sequence[str]
) -> None:
    """Raise a ParamsError for unknown labels and for cases without one text for each column."""
    problems = [
        f"  evaluate.behaviour.{key}.{i}.label: '{entry.label}' is not a label."
        f"{did_you_mean(entry.label, labels)}"
        for key in ("minimum_functionality", "directional")
        for i, entry in enumerate(getattr(behaviour, key))
        if entry.label not in labels
    ]
    problems += [
        f"  evaluate.behaviour.minimum_functionality.{i}.texts.{j}: "
        f"wanted {' and '.join(columns)}, found {case!r}."
        for i, cases in enumerate(behaviour.minimum_functionality)
        for j, case in enumerate(cases.texts)
        if (1 if isinstance(case, str) else len(case)) != len(columns)
    ]
    if problems:
        raise ParamsError(
            "\n".join(["params.yaml: behavioural tests that cannot run:", *problems]),
            f"Labels: {', '.join(labels)}.",
        )
