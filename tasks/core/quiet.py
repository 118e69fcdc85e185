"""Turns off the libraries' telemetry, update checks and chatter, and proxies to this machine.

Call it before importing them.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # one minute, enough for a server to restart; the default of 7 stays silent for four minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "5",
    # by default it logs a database error with its traceback before raising it
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    # stdout is for our output, and for nothing but JSON with --json
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # the level of the logs sent to Prefect's server
    "PREFECT_LOGGING_LOGGERS_PREFECT_FLOW_RUNS_LEVEL": "INFO",
    "PREFECT_LOGGING_LOGGERS_PREFECT_TASK_RUNS_LEVEL": "INFO",
    # errors reach the user as one message of ours, not as Prefect's traceback
    "PREFECT_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
}


# Prefect's own server and MLflow's pages; a proxy cannot reach them
THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


def quiet_libraries() -> None:
    """Set the environment variables in DEFAULTS that the user has not set, and NO_PROXY."""
    # without a home to write to, it recommends one
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in THIS_MACHINE if host not in known.split(",")]
    if known != "*" and missing:
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(filter(None, [known, *missing]))


@contextmanager
def no_fit_warnings() -> Iterator[None]:
    """Context without scikit-learn's warnings of fits that stop early or have few rows a class."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        # with a row or two a class it takes them for values of a regression
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        yield
