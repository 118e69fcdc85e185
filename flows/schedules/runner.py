"""The process that stays and runs a deployment's runs, and how it ends. Prefect's internals (prefect is pinned), used nowhere else."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING, Any

from prefect.runner import Runner

if TYPE_CHECKING:
    from prefect.deployments.runner import RunnerDeployment

POLL_S = 0.5


def serve_until_told(deployment: RunnerDeployment) -> None:
    """Run what is due until SIGTERM or SIGINT; a run at work then is cancelled, and what it has finished is kept."""
    # not paused on shutdown: what is due meanwhile is made up for, and --pause keeps its meaning over a restart
    runner = _Runner(pause_on_shutdown=False)
    runner.add_deployment(deployment)
    signal.signal(signal.SIGINT, runner.handle_sigterm)  # SIGTERM's is set as it starts
    asyncio.run(runner.start())


class _Runner(Runner):
    """Prefect's own answer to SIGTERM leaves the event loop in the middle of it, and the process waits for its run to end by itself."""

    def handle_sigterm(self, *args: Any, **kwargs: Any) -> None:
        if self.stopping:
            return  # it is ending
        if not self.started or self._loop is None:  # or waits for a server that is away
            sys.exit(0)
        self.stopping = True
        asyncio.run_coroutine_threadsafe(self._end(), self._loop)

    async def _end(self) -> None:
        await self.astop()
        poller = self._scheduled_run_poller
        while poller._submitting_flow_run_ids:  # also a run whose process was only being started
            await asyncio.sleep(POLL_S)
            await self.cancel_all()
