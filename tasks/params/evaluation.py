"""`evaluate.behaviour` of params.yaml: behavioural tests of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.core.errors import ParamsError, did_you_mean
from tasks.params.section import Positive, Section, Share

Text = Annotated[str, Field(min_length=1)]


class WrittenCases(Section):
    """Texts so plain that a model of any use gives them their label; lists of texts where the problem takes several."""

    name: str = Field(min_length=1)
    label: str
    texts: tuple[Text | tuple[Text, ...], ...] = Field(min_length=1)


class Direction(Section):
    """Words added to test rows (to the last text of each), and which way they must not move a label's probability."""

    name: str = Field(min_length=1)
    label: str
    expect: Literal["not_lower", "not_higher"]
    append: str = ""  # with its leading blank
    prepend: str = ""  # with its trailing blank
    tolerance: Share = 0.1  # of probability, by which it may move the wrong way

    @model_validator(mode="after")
    def _something_is_added(self) -> Self:
        if not self.append and not self.prepend:
            raise ValueError("a directional test adds something: give `append` or `prepend`")
        return self


class BehaviourParams(Section):
    """Behavioural tests (CheckList, Ribeiro et al. 2020); those of invariance are always made."""

    rows: Positive = 250  # test rows that each test alters
    names: tuple[
        str, ...
    ] = ()  # given names to swap for one another, beside the usual English ones
    minimum_functionality: tuple[WrittenCases, ...] = ()
    directional: tuple[Direction, ...] = ()


def check_behaviour(
    behaviour: BehaviourParams, labels: Sequence[str], columns: Sequence[str]
) -> None:
    """ParamsError for labels that there are not, and for cases that do not have a text for each column."""
    places = [
        (f"{key}.{i}", entry)
        for key in ("minimum_functionality", "directional")
        for i, entry in enumerate(getattr(behaviour, key))
    ]
    wrong = [
        f"  evaluate.behaviour.{place}.label: '{entry.label}' is no label.{did_you_mean(entry.label, labels)}"
        for place, entry in places
        if entry.label not in labels
    ]
    wrong += [
        f"  evaluate.behaviour.minimum_functionality.{i}.texts.{j}: wanted {' and '.join(columns)}, found {case!r}."
        for i, cases in enumerate(behaviour.minimum_functionality)
        for j, case in enumerate(cases.texts)
        if (1 if isinstance(case, str) else len(case)) != len(columns)
    ]
    if wrong:
        raise ParamsError(
            "\n".join(["params.yaml: behavioural tests that cannot be made:", *wrong]),
            f"Labels: {', '.join(labels)}.",
        )
