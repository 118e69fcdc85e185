"""Addresses, as they are written: what scheme one has, whether it stands for many files, and what of it may be shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


@dataclass(frozen=True)
class LocalFile:
    """A file that an address stands for, and the name its user knows it by."""

    path: Path
    name: str


def scheme_of(address: str) -> str:
    """The part before ://, or '' for what is local."""
    found = _SCHEME.match(address)
    return found[1].lower() if found else ""


def has_glob(path: str) -> bool:
    """Whether a * stands in it."""
    return "*" in path


def is_hub_id(path: str, root: Path | None = None) -> bool:
    """Whether it is a Hugging Face model's id: 'owner/name' or 'name', and nothing of that name lies in `root` (the working directory)."""
    return bool(_HUB_ID.match(path)) and not (root or Path.cwd()).joinpath(path).exists()


def public_address(url: str) -> str:
    """The address without user, password and query, which may hold secrets."""
    if scheme_of(url) not in ("http", "https"):
        return url
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
