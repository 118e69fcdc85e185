"""Log training curves to MLflow while training runs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

FLUSH_SECONDS = 2.0


class LiveCurves:
    """Progress report that logs a run's curves to MLflow, in a batch every FLUSH_SECONDS."""

    def __init__(self, client: MlflowClient, mlflow_run_id: str) -> None:
        self._client, self._run_id = client, mlflow_run_id
        self._pending: list[Any] = []
        self._flushed = time.monotonic()

    def __call__(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue one step's metrics, and send the queue if it is due."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # the bare loss of a single step is noise; the points of the curve have an epoch
        if "epoch" in metrics or any(name.startswith("validation_") for name in metrics):
            self._pending += [
                Metric(name, value, now, step)
                for name, value in metrics.items()
                if name != "progress"
            ]
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Send the queue."""
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), 1000):
            self._client.log_batch(self._run_id, metrics=pending[start : start + 1000])
        self._flushed = time.monotonic()
