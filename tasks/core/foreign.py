"""The boundary where a library opens somebody else's file: whatever it raises is one message."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import PipelineError, SourceError, as_storage_error, lacks_memory

FREE = 2**28  # bytes that anything packed may unpack to
ANY_MEMORY = 2**42  # bytes
MOST_EXPANSION = 200  # times the packed size; deflated text reaches 20, one repeated line 1,000


@contextmanager
def foreign_file(what: str, remedy: str) -> Iterator[None]:
    """Turn errors about a file's contents into a SourceError; the block holds library calls alone.

    what  where the file is and what it should be: 'base: its files cannot be read as a model'
    A refusal of the operating system, a missing library and a lack of memory pass unchanged.
    """
    try:
        yield
    except (PipelineError, ImportError):
        raise
    except BaseException as error:
        # a Rust library's panic is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        if isinstance(error, OSError) and as_storage_error(error):
            raise
        if lacks_memory(error) and not _asks_too_much(error):
            raise
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise SourceError(f"{what}: {reason}.", remedy) from error


def _asks_too_much(error: BaseException) -> bool:
    """Whether more memory was asked for than any machine has: then the file's sizes are wrong."""
    asked = re.search(r"tried to allocate (\d+) bytes", str(error))
    return asked is not None and int(asked[1]) > ANY_MEMORY


def require_bounded(size: int, packed: int, what: str) -> None:
    """Raise SourceError if the unpacked `size` is out of proportion to the packed one, in bytes."""
    if size > FREE and size > MOST_EXPANSION * packed:
        raise SourceError(
            f"{what}: it unpacks to more than {MOST_EXPANSION} times its size, {size:,} bytes.",
            "Unpack it yourself if you trust it, and give what is in it.",
        )
