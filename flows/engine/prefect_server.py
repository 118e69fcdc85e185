"""The Prefect server: the configured one, or one of our own that ends with this process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flows.engine.environment import has_prefect_server
from tasks.core.addresses import public_address
from tasks.core.errors import ScheduleError

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

log = logging.getLogger(__name__)

START_SERVER = """Start one and point to it:
  prefect server start
  prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"""
ANSWER_SECONDS = 8.0  # that a server may take to say hello
_GUARD = """
import contextlib, psutil, sys
with contextlib.suppress(psutil.NoSuchProcess):
    server = psutil.Process(int(sys.argv[1]))  # no other process that gets its number later
    sys.stdin.read()  # ends with the process at the other end of the pipe
    server.terminate()
"""
_ROOM = 2 << 20  # bytes that a new server database takes
_REMEDY = (
    "If the machine is busy, wait longer: PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300. "
    "Or use a permanent server: `prefect server start` and "
    "PREFECT_API_URL=http://127.0.0.1:4200/api."
)


@contextmanager
def prefect_server() -> Iterator[SyncPrefectClient]:
    """Client of the configured server; ScheduleError if there is none or a request to it fails."""
    if not has_prefect_server():
        raise ScheduleError(
            "No Prefect server is configured; the one inside `ratchet train` "
            "ends with it and cannot start runs.",
            START_SERVER,
        )
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import DeploymentApplyError
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        address = public_address(str(client.api_url).rstrip("/"))
        try:
            _require_answer()
            yield client
        except PrefectHTTPStatusError as error:
            raise ScheduleError(
                f"{address}: the Prefect server refused: {error.response.status_code} "
                f"{error.response.reason_phrase}.",
                "Check PREFECT_API_URL, PREFECT_API_KEY and PREFECT_API_AUTH_STRING.",
            ) from error
        except httpx.TransportError as error:
            raise ScheduleError(
                f"{address}: the Prefect server cannot be reached ({type(error).__name__}).",
                f"Check PREFECT_API_URL. {START_SERVER}",
            ) from None
        except DeploymentApplyError as error:
            raise ScheduleError(
                f"{address}: {' '.join(str(error).split())}", "Fix what it names."
            ) from error


def _require_answer() -> None:
    """Ask the server once; Prefect's own client waits a minute for an answer, six times."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    once, timeout = {PREFECT_CLIENT_MAX_RETRIES: 0}, {"timeout": ANSWER_SECONDS}
    with (
        temporary_settings(once),
        get_client(sync_client=True, httpx_settings=timeout) as client,
    ):
        client.hello()


def server_starter() -> Callable[[], None]:
    """Return a function that starts our own server and waits until it answers.

    Flows of this process then find the server. Imports here what must not be imported on a thread;
    run the returned function on a thread of its own, because it blocks signals there.
    It raises OSError if there is no room for the server's database (Prefect would wait silently),
    and ScheduleError if the server does not answer in time.
    """
    # before MLflow is opened: that configures all mapped classes, and half-imported ones break it
    from prefect.server.api.server import SubprocessASGIServer

    def start() -> None:
        # Ctrl-C and a closed terminal signal the whole process group; the server inherits this
        # mask and lives on, so that the run can tell it how it ended
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        home = Path(os.environ["PREFECT_HOME"])
        log.debug("starting a Prefect server of our own in %s", home)
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(bytes(_ROOM))
        server = SubprocessASGIServer()  # a singleton per process
        try:
            server.start()
        except RuntimeError as error:
            if server.server_process is not None:  # Prefect leaves it running
                server.server_process.kill()
                server.server_process.wait()
            raise ScheduleError(
                f"Prefect's own server did not start: {' '.join(str(error).split())[:300]}", _REMEDY
            ) from error
        assert server.server_process is not None
        _end_with_this_process(server.server_process.pid)

    return start


def _end_with_this_process(server: int) -> None:
    """Have a small process end the server when this one is killed, and so cannot."""
    ends, _kept_open = os.pipe()  # the end that nobody closes is closed with this process
    guard = [sys.executable, "-c", _GUARD, str(server)]
    subprocess.Popen(guard, stdin=ends, start_new_session=True)
    os.close(ends)
