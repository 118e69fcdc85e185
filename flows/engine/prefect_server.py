"""Prefect's server: the one that is configured, or one of our own, which lives as long as this process."""

from __future__ import annotations

import os
import signal
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

START_SERVER = """Start one and point to it:
  prefect server start
  prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"""
_ROOM = 2 << 20  # bytes; what its database takes at first
_REMEDY = (
    "Is the machine busy? PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300 waits longer; "
    "`prefect server start` and PREFECT_API_URL=http://127.0.0.1:4200/api use a server that stays."
)


@contextmanager
def prefect_server() -> Iterator[SyncPrefectClient]:
    """A client of the configured server; ScheduleError where there is none, or where it cannot be asked."""
    if not has_prefect_server():
        raise ScheduleError(
            "No Prefect server is configured; the one within `ratchet train` ends with it and starts nothing.",
            START_SERVER,
        )
    import httpx
    from prefect.client.orchestration import get_client
    from prefect.deployments.runner import DeploymentApplyError
    from prefect.exceptions import PrefectHTTPStatusError

    with get_client(sync_client=True) as client:
        where = public_address(str(client.api_url).rstrip("/"))
        try:
            client.hello()
            yield client
        except PrefectHTTPStatusError as error:
            raise ScheduleError(
                f"{where}: the Prefect server refused: {error.response.status_code} {error.response.reason_phrase}.",
                "Check PREFECT_API_URL, PREFECT_API_KEY and PREFECT_API_AUTH_STRING.",
            ) from error
        except httpx.TransportError as error:
            raise ScheduleError(
                f"{where}: the Prefect server cannot be reached ({type(error).__name__}).",
                f"Check PREFECT_API_URL. {START_SERVER}",
            ) from None
        except DeploymentApplyError as error:
            raise ScheduleError(
                f"{where}: {' '.join(str(error).split())}", "Mend what it names."
            ) from error


def own_server() -> Callable[[], None]:
    """What starts it and waits until it answers; the flows of this process then find it.

    Imports at once what must not be imported on a thread; the starter is to be run on one, for it blocks signals there.
    It raises OSError where there is no room for the server's database, which would be waited for in silence, and ScheduleError where the
    server does not answer in time.
    """
    # before MLflow is opened, not meanwhile: that sets up the classes of every database, and half-imported ones break it
    from prefect.server.api.server import SubprocessASGIServer

    def start() -> None:
        # the server inherits it: Ctrl-C and a closed terminal go to the whole group, and the run has to tell it how it ended
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        home = Path(os.environ["PREFECT_HOME"])
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home) as probe:
            probe.write(bytes(_ROOM))
        server = SubprocessASGIServer()  # one instance a process, whoever asks for it
        try:
            server.start()
        except RuntimeError as error:
            if server.server_process is not None:  # Prefect leaves it to itself
                server.server_process.kill()
                server.server_process.wait()
            raise ScheduleError(
                f"Prefect's own server did not start: {' '.join(str(error).split())[:300]}", _REMEDY
            ) from error

    return start
