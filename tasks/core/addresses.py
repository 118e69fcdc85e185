"""Addresses of data and models as strings: scheme, glob, Hub id, and what is safe to show."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# right after the scheme; a database's password may hold a slash
_CREDENTIALS = re.compile(r"(?<=://)[^/@:]*(:[^@]*)?@")
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


@dataclass(frozen=True)
class LocalFile:
    """A local file that an address resolved to, and the name the user knows it by."""

    path: Path
    name: str


def scheme_of(address: str) -> str:
    """The part before ://, in lower case; '' for a local path."""
    match = _SCHEME.match(address)
    return match[1].lower() if match else ""


def has_glob(path: str) -> bool:
    """Whether the path contains a *."""
    return "*" in path


def is_hub_id(path: str, root: Path | None = None) -> bool:
    """Whether the path is a Hugging Face model id: 'owner/name' or 'name'.

    It is not if that path exists in `root` (default: the working directory).
    """
    return bool(_HUB_ID.match(path)) and not (root or Path.cwd()).joinpath(path).exists()


def public_address(url: str) -> str:
    """The URL without what may be secret: user and password, and the query and fragment of http."""
    if scheme_of(url) not in ("http", "https"):
        return _CREDENTIALS.sub("", url, count=1)
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
