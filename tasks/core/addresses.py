"""Addresses of data and models as strings: scheme, glob, Hub id, and the secrets in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

_SCHEME = re.compile(r"^([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
# user and password, right after the scheme; a password may hold a slash, a port is no password,
# and what follows hf:// up to an @ is a name
_USER = re.compile(r"(?<=://)((?<!hf://)[^/?#\s]*@|[^/?#@:\s]*:(?!\d+([/?#\s]|$))[^@\s]*@)")
# a part of a query or a fragment, and names of those that are secret
_PART = re.compile(r"([?&;#])([\w.%+-]+)=([^&;#\s'\"]+)")
_SECRET_NAME = re.compile(
    r"""[\w.-]*(?:passw(?:or)?d|passphrase|pwd|secret|token|signature|credential|auth
    |authorization|api[_-]?key|access[_-]?key(?:[_-]?id)?)|sig|key|code|jwt|sas""",
    re.IGNORECASE | re.VERBOSE,
)
# where a scheme's credentials belong
_HOMES = {
    "http": "in ~/.netrc (machine HOST login USER password PASSWORD)",
    "https": "in ~/.netrc (machine HOST login USER password PASSWORD)",
    "s3": "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or where `aws configure` puts them",
    "gs": "in the file that GOOGLE_APPLICATION_CREDENTIALS names",
    "hf": "in HF_TOKEN",
}
# what a server wants in the query has no such place
_FETCHED = "in a script that fetches the file: name the local file as the source"
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
    bare = _USER.sub("", url, count=1)
    if scheme_of(url) in ("http", "https"):
        parts = urlsplit(bare)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return redact(bare)


def redact(text: str) -> str:
    """The text with *** in place of the credentials in its addresses."""
    return _PART.sub(_hidden, _USER.sub("***@", text)) if "://" in text else text


def _hidden(part: re.Match[str]) -> str:
    # the name may be encoded
    is_secret = _SECRET_NAME.fullmatch(unquote(part[2]))
    return f"{part[1]}{part[2]}=***" if is_secret else part[0]


def credentials_problem(text: str) -> str:
    """What is wrong if an address in the text holds credentials, and where they belong; or ''."""
    if redact(text) == text:
        return ""
    schemes = [found[1].lower() for found in re.finditer(r"([a-z][a-z0-9+.-]*)://", text, re.I)]
    homes = [_HOMES[scheme] for scheme in schemes if scheme in _HOMES]
    home = homes[0] if homes else "in the environment, or in fsspec's configuration"
    if not _USER.search(text) and schemes[:1] in (["http"], ["https"]):
        home = _FETCHED
    return f"{redact(text)[:200]} holds credentials; they belong {home}"
