"""The section `ingest` of params.yaml: where the rows come from, and how their values are read."""

from __future__ import annotations

import codecs
import re
import shlex
from typing import Annotated, Any, Literal, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from tasks.params.section import Section, Sha256, Share

Format = Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "xlsx"]
OPTIONS = "--"


_TAG = re.compile(r"O|[BIESLU]-.+")  # of IOB, BIOES and BILOU


class Source(Section):
    """One address of raw data; an address with * matches several files."""

    url: str  # path, https://, s3://, gs:// or pypi:// address
    sha256: Sha256 | None = None  # of the downloaded file (for pypi://, of the wheel)
    # auto: by file extension; of the file in it, for a .zip
    format: Format = "auto"
    encoding: str = "utf-8"  # of CSV, TSV and JSONL; a byte order mark overrides it
    quote: Literal['"', "'", ""] = '"'  # CSV and TSV; empty: quotes are plain characters
    delimiter: str | None = None  # one character between the fields of CSV; null: found out
    sheet: str | None = None  # of an Excel file; null: its only visible sheet with rows
    table: str = Field(default="data", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")  # its name in `query`
    # set if the file is a split of its own, to be used as is
    split: Literal["train", "validation", "test"] | None = None

    _place: str = PrivateAttr("")  # see `placed`

    @field_validator("encoding")
    @classmethod
    def _is_a_text_encoding(cls, name: str) -> str:
        try:
            content = "a".encode(name)  # refuses those of bytes, such as hex
            # refuses those that cannot go on after an error: idna and punycode
            codecs.getincrementaldecoder(name)(errors="backslashreplace").decode(content, True)
        except (LookupError, ValueError, TypeError):
            raise ValueError(
                "no such encoding of text files; for example: "
                "utf-8, cp1252, latin-1, utf-16-le, gb18030"
            ) from None
        return name

    @field_validator("delimiter")
    @classmethod
    def _is_one_character(cls, delimiter: str | None) -> str | None:
        delimiter = {r"\t": "\t", "tab": "\t"}.get(delimiter or "", delimiter)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in "\"'\r\n"):
            raise ValueError("wanted one character, such as ; or | or \\t")
        return delimiter

    def placed(self, place: str) -> Self:
        """Note where the user sets the options of this source; returns self.

        place  a key of params.yaml, OPTIONS of a command, or '' for a file without options
        """
        self._place = place
        return self

    def setting(self, option: str, value: str) -> str:
        """Remedy: how to set one of the options."""
        if self._place == OPTIONS:
            return f"Add: --{option} {shlex.quote(value)}"
        if self._place:
            return f"Add: -S {shlex.quote(f'{self._place}.{option}={value}')}"
        return "Convert it to .csv or .jsonl in UTF-8."

    def name_of(self, option: str) -> str:
        """What the user calls one of the options: an option of the command, or a key of params."""
        return f"{self._place}.{option}" if self.in_params else f"--{option}"

    @property
    def in_params(self) -> bool:
        """Whether params.yaml describes the source."""
        return self._place not in ("", OPTIONS)

    def where(self) -> str:
        """Remedy: how to correct the address."""
        if self.in_params:
            return f"Check `{self._place}.url` in params.yaml; it is relative to the workspace."
        return "Check the path."


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


class IngestParams(ReadingParams):
    """Reading the sources into one table."""

    sources: tuple[Source, ...] = Field(min_length=1)  # where the rows come from
    # rows without labels, for finetune.self_training: only their text is read
    unlabelled: tuple[Source, ...] = ()
    # the problem's column -> the source column, a path such as `data.text`, or several columns
    columns: dict[str, str | tuple[str, ...]] = Field(default={})
    keep: tuple[str, ...] = ()  # further source columns to keep, for slices
    # SQL (DuckDB) in place of `columns` and `keep`; CSV and TSV values are text ('01' stays '01'),
    # and rows where a CAST fails are set aside
    query: str | None = None

    @model_validator(mode="after")
    def _tag_names_are_tags(self) -> Self:
        wrong = [name for name in self.tag_names if not _TAG.fullmatch(name)]
        twice = {name for name in self.tag_names if self.tag_names.count(name) > 1}
        if wrong or twice:
            problem = f"{wrong[0]!r} is none" if wrong else f"{min(twice)!r} stands there twice"
            raise ValueError(
                f"`tag_names` are O, B-TYPE, I-TYPE and the like, each once; {problem}"
            )
        return self

    @model_validator(mode="after")
    def _splits_are_all_or_none(self) -> Self:
        splits = {source.split for source in self.sources}
        if splits != {None} and splits != {"train", "validation", "test"}:
            raise ValueError(
                "either no source sets `split`, or all do and cover train, validation and test"
            )
        return self

    @model_validator(mode="after")
    def _unlabelled_rows_are_no_split(self) -> Self:
        if any(source.split is not None for source in self.unlabelled):
            raise ValueError("`unlabelled` rows are in no split: leave out `split`")
        return self

    def model_post_init(self, context: Any) -> None:
        """Note the sources' keys, so that messages can name them."""
        for key, sources in (("sources", self.sources), ("unlabelled", self.unlabelled)):
            for number, source in enumerate(sources):
                source.placed(f"ingest.{key}.{number}")
