"""Prefect's ephemeral server, which lives as long as this process."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from tasks.core.errors import ScheduleError

_ROOM = 2 << 20  # bytes; what its database takes at first
_REMEDY = (
    "Is the machine busy? PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300 waits longer; "
    "`prefect server start` and PREFECT_API_URL=http://127.0.0.1:4200/api use a server that stays."
)


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
        try:
            # one instance a process, whoever asks for it
            SubprocessASGIServer().start()
        except RuntimeError as error:
            raise ScheduleError(f"Prefect's own server did not start: {' '.join(str(error).split())[:300]}", _REMEDY) from error

    return start
