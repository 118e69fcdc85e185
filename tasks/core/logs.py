"""What Ratchet does, for `ratchet -v` and RATCHET_LOG; the libraries' own logs stay off.

Modules log to `logging.getLogger(__name__)`: DEBUG for each action and why, INFO for its results.
Lines for people go to core/progress.py instead.
"""

from __future__ import annotations

import logging
import os
import sys

from tasks.core.addresses import redact
from tasks.core.errors import ParamsError

VARIABLE = "RATCHET_LOG"
LEVELS = ("debug", "info", "warning")
PACKAGES = ("applications", "flows", "tasks")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class _Redacted(logging.Filter):
    """Lets every record pass, without the credentials in its message and traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record; True."""
        record.msg, record.args = redact(record.getMessage()), None
        if record.exc_info:
            # formatters take the text where there is one
            record.exc_text = redact(logging.Formatter().formatException(record.exc_info))
        return True


REDACTED = _Redacted()


def show_logs(*, verbose: bool) -> None:
    """Print the logs on standard error, from the level in RATCHET_LOG, or all of them.

    Raises ParamsError for an unknown level.
    """
    wanted = "debug" if verbose else os.environ.get(VARIABLE, "")
    if not wanted:
        return
    if wanted.lower() not in LEVELS:
        raise ParamsError(
            f"{VARIABLE}={wanted}: unknown level.", f"Set it to one of {', '.join(LEVELS)}."
        )
    os.environ[VARIABLE] = wanted  # for the processes that this one starts
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(FORMAT))
    handler.addFilter(REDACTED)
    for package in PACKAGES:
        logger = logging.getLogger(package)
        logger.setLevel(wanted.upper())
        logger.handlers = [handler]
        logger.propagate = False
