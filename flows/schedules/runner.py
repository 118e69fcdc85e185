"""The serving process: executes a deployment's runs and shuts down cleanly.

The only place that uses Prefect's internals (prefect is pinned).
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from prefect.runner import Runner

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

POLL_S = 0.5


def serve_until_signal(deployment: RunnerDeployment) -> None:
    """Execute due runs until SIGTERM or SIGINT; then cancel the current run, keeping its work."""
    # no pause on shutdown: missed runs are made up for, and --pause keeps its meaning over restarts
    runner = _Runner(pause_on_shutdown=False)
    runner.add_deployment(deployment)
    signal.signal(signal.SIGINT, runner.handle_sigterm)  # SIGTERM's handler is set in start()
    asyncio.run(runner.start())


class _Runner(Runner):
    """Cancels its runs on SIGTERM.

    Prefect's own handler leaves the event loop half-way, and the process waits for its run to end.
    """

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        if self.stopping:
            return
        if not self.started or self._loop is None:  # also while it waits for the server
            sys.exit(0)
        self.stopping = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)

    async def _end(self) -> None:
        await self.astop()
        poller = self._scheduled_run_poller
        while poller._submitting_flow_run_ids:  # includes a run whose process is still starting
            await asyncio.sleep(POLL_S)
            await self.cancel_all()
