"""The keys of `ingest` in params.yaml that say how values are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Section, Share


class ReadingParams(Section):
    """How values are read that may be written in several ways, and what happens where many cannot be."""

    merge_labels: bool = (
        False  # labels that differ by case, or by blanks around them, are one, in lower case
    )
    label_separator: Annotated[str, Field(min_length=1)] = (
        "|"  # between the labels of a row, where it has several in one text
    )
    tag_names: tuple[str, ...] = ()  # of tags that are numbers, from 0
    tag_scheme: Literal["iob2", "iob1"] = "iob2"  # BIOES and BILOU tags are known by themselves
    max_quarantined_share: Share = (
        0.01  # of the sources' records that may be set aside because they cannot be read
    )
    on_too_many: Literal["error", "warn"] = "error"  # what happens where there are more
