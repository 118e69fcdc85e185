"""The boundary where a library opens somebody else's file: whatever it raises is one message."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.core.errors import PipelineError, SourceError


@contextmanager
def foreign_file(what: str, remedy: str) -> Iterator[None]:
    """Turn errors about a file's contents into a SourceError; the block holds library calls alone.

    what  where the file is and what it should be: 'base: its files cannot be read as a model'
    Errors of the operating system and missing libraries pass unchanged.
    """
    try:
        yield
    except (PipelineError, ImportError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise SourceError(f"{what}: {reason}", remedy) from error
