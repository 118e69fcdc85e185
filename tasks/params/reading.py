"""The keys of `ingest` in params.yaml that control how values are parsed."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tasks.params.section import Section, Share


class ReadingParams(Section):
    """How to parse values that can be written in several ways, and how many may fail to parse."""

    # treat labels that differ only by case or surrounding blanks as one, in lower case
    merge_labels: bool = False
    # between a row's labels, where a single text lists several
    label_separator: Annotated[str, Field(min_length=1)] = "|"
    tag_names: tuple[str, ...] = ()  # names of integer tags, from 0
    tag_scheme: Literal["iob2", "iob1"] = "iob2"  # BIOES and BILOU tags are detected automatically
    # share of the sources' records that may be set aside because they cannot be read
    max_quarantined_share: Share = 0.01
    on_too_many: Literal["error", "warn"] = "error"  # what happens if more are set aside
