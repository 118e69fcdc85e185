"""Run one stage: skip it if clean, restore it if made before, else run it and commit its outs."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.engine.progress import Listener
from flows.engine.stage_cache import Lineage, StageCache
from flows.engine.stage_status import StageStatus
from tasks.params.schema import parse
from tasks.params.workspace import Workspace
from tasks.pipeline import Stage, find_stage, run_stage

StageState = Literal["ran", "cached", "restored"]


@dataclass(frozen=True)
class StageOutcome:
    """How a stage became clean, and the seconds that took."""

    name: str
    state: StageState
    seconds: float


class StageRunner:
    """The stages of one workspace, with this run's overrides.

    settle   pins the starting point of a stage that has to run; returns whether it changed
    rerun    names of stages to run even if they are clean
    reading  read-only: no stage runs, the workspace is not changed
    """

    def __init__(
        self,
        workspace: Workspace,
        overrides: Sequence[str],
        listener: Listener,
        *,
        settle: Callable[[StageCache], bool] | None = None,
        rerun: Collection[str] = (),
        reading: bool = False,
    ) -> None:
        self.workspace = workspace
        self.values = workspace.values(overrides)
        self.params = parse(self.values, str(workspace.params_file))
        self._cache = StageCache(workspace, self.values, reading=reading)
        self._listener = listener
        self._settle = settle
        self._rerun = rerun

    def close(self) -> None:
        """Close DVC's databases."""
        self._cache.close()

    def read_inputs(self) -> None:
        """Make the next status read local sources, base models and adapters in full."""
        self._cache.read_inputs()

    def statuses(self) -> dict[str, StageStatus]:
        """Every stage's status, in order."""
        return self._cache.statuses()

    def lineage(self) -> Lineage:
        """Lineage of the model that this workspace makes."""
        return self._cache.lineage()

    def unpushed(self) -> list[str]:
        """Outs missing from the default remote."""
        return self._cache.unpushed()

    def run(self, name: str) -> StageOutcome:
        """Make the stage clean at the least cost."""
        started = time.perf_counter()
        stage = find_stage(name)
        state = self._make_clean(stage)
        return StageOutcome(name, state, round(time.perf_counter() - started, 3))

    def _make_clean(self, stage: Stage) -> StageState:
        if stage.start:
            self._cache.check_out_start()
        clean = self._cache.status(stage.name) == "clean"
        if stage.name not in self._rerun:
            if clean:
                return "cached"
            if self._cache.restore(stage.name):
                return "restored"
        # a moved start alone is no reason to train; a training that runs anyway uses the new one
        moved = stage.start and not clean and self._settle is not None and self._settle(self._cache)
        if moved and stage.name not in self._rerun and self._cache.restore(stage.name):
            return "restored"
        before = self._cache.inputs(stage.name)
        run_stage(stage, self.workspace, self.params, self._listener(stage.name))
        self._cache.commit(stage.name, before)
        return "ran"
