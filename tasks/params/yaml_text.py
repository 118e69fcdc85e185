"""YAML that somebody wrote: parsed as DVC parses it, within bounds, with one message for faults.

DVC reads params.yaml too, by ruamel.yaml's default parser (libyaml); its pure Python one accepts
other texts.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from tasks.core.errors import ParamsError

MOST_BYTES = 4 << 20
MOST_VALUES = 200_000  # with every alias counted as what it stands for
MOST_LEVELS = 50
_REMEDY = "Fix that line. A text with any of : ? # & * ! [ ] { } , may have to stand in quotes."


def parse_yaml(text: str, origin: str) -> Any:
    """The values of a YAML 1.2 text (where 3e-5 is a number); ParamsError if it is none.

    origin  the file or option that it comes from
    """
    if len(text) > MOST_BYTES:
        raise ParamsError(
            f"{origin}: {len(text) / 1e6:.1f} MB, wanted at most {MOST_BYTES / 1e6:.1f} MB.",
            "Remove what does not belong there.",
        )
    return _opened(_load, text, origin)


def load_document(text: str, origin: str) -> tuple[YAML, Any]:
    """(the writer, the text's document), to be changed and written with its comments."""
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)  # as the template of `ratchet init` has them
    yaml.Representer = _NullRepresenter
    return yaml, _opened(yaml.load, text, origin)


class _BoundError(Exception):
    """The text is too large, or endless."""


@functools.lru_cache(maxsize=8)
def _load(text: str) -> Any:
    """Parse once: a command asks for its params several times."""
    _check_size(text)
    return YAML(typ="safe").load(text)


def _opened(load: Callable[[str], Any], text: str, origin: str) -> Any:
    """What the library makes of the text; whatever it raises becomes a ParamsError."""
    try:
        return load(text)
    except Exception as error:  # the text's fault: nothing of ours runs in there
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if not isinstance(error, MarkedYAMLError | _BoundError):
            # a conversion failed, whose error does not say where
            reason = next(_faulty_values(text), reason)
        raise ParamsError(f"{origin}: not valid YAML: {reason}", _REMEDY) from None


def _check_size(text: str) -> None:
    """Raise _BoundError for aliases that contain themselves, too many values or too deep ones."""
    sizes: dict[str, int | None] = {}  # values below each anchor; None: still open
    open_nodes: list[tuple[str | None, int]] = [(None, 0)]
    for event in YAML(typ="safe").parse(io.StringIO(text)):
        kind, anchor = type(event).__name__, getattr(event, "anchor", None)
        if kind in ("SequenceStartEvent", "MappingStartEvent"):
            open_nodes.append((anchor, 1))
            if anchor:
                sizes[anchor] = None
            if len(open_nodes) > MOST_LEVELS:
                raise _BoundError(f"more than {MOST_LEVELS} levels, {_line(event)}")
            continue
        size = 0
        if kind == "AliasEvent":
            known = sizes.get(str(anchor), 1)
            if known is None:
                raise _BoundError(f"*{anchor} stands within &{anchor}, {_line(event)}")
            size = known
        elif kind == "ScalarEvent":
            size = 1
            if anchor:
                sizes[anchor] = size
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            anchor, size = open_nodes.pop()
            if anchor:
                sizes[anchor] = size
        open_nodes[-1] = (open_nodes[-1][0], open_nodes[-1][1] + size)
        if open_nodes[-1][1] > MOST_VALUES:
            raise _BoundError(f"more than {MOST_VALUES:,} values, {_line(event)}")


def _faulty_values(text: str) -> Iterator[str]:
    """Line and text of each scalar that cannot be converted, such as 2026-02-30."""
    with suppress(Exception):  # the text is faulty
        for event in YAML(typ="safe").parse(io.StringIO(text)):
            if type(event).__name__ != "ScalarEvent" or event.style not in (None, ""):
                continue
            if not (event.tag or event.value[:1] in "+-.0123456789"):
                continue
            tag = f"!<{event.tag}> " if event.tag else ""
            try:
                YAML(typ="safe").load(f"{tag}{event.value}")
            except Exception as error:
                reason = "no value of its tag" if isinstance(error, KeyError) else str(error)
                yield f"{_line(event)}: {event.value[:40]}: {reason}"


def _line(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"


class _NullRepresenter(RoundTripRepresenter):
    """Writes `null`; a class of its own, because DVC's writer shares ruamel's."""

    def represent_null(self, _: None) -> Any:
        """Spell it out, as the template of `ratchet init` does."""
        return self.represent_scalar("tag:yaml.org,2002:null", "null")


_NullRepresenter.add_representer(type(None), _NullRepresenter.represent_null)
