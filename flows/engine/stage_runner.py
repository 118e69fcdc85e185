"""Runs one stage: skip it if it is clean, restore it if it was made before, else run it and commit what it made."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from flows.engine.progress import Listener
from flows.engine.stage_cache import Lineage, StageCache, StageStatus
from tasks.params.schema import parse
from tasks.params.workspace import Workspace
from tasks.pipeline import Stage, find_stage, run_stage

StageState = Literal["ran", "cached", "restored"]


@dataclass(frozen=True)
class StageOutcome:
    """How a stage came to be clean, and the seconds that took."""

    name: str
    state: StageState
    seconds: float


class StageRunner:
    """The stages of one workspace, with this run's overrides.

    settle   settles what a stage that has to run goes on from; True if that is other than it was
    reading  nothing is run: the workspace stays as it is
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
        """Let go of DVC's databases."""
        self._cache.close()

    def read_inputs(self) -> None:
        """Have the next status read local sources and base models in full: size and time can be the same of other bytes."""
        self._cache.read_inputs()

    def statuses(self) -> dict[str, StageStatus]:
        """Every stage's status, in order."""
        return self._cache.statuses()

    def lineage(self) -> Lineage:
        """The content key and data version of what this workspace makes."""
        return self._cache.lineage()

    def unpushed(self) -> list[str]:
        """Outs that no remote has."""
        return self._cache.unpushed()

    def run(self, name: str) -> StageOutcome:
        """Make the stage clean, at the least cost."""
        started = time.perf_counter()
        stage = find_stage(name)
        state = self._bring_about(stage)
        return StageOutcome(name, state, round(time.perf_counter() - started, 3))

    def _bring_about(self, stage: Stage) -> StageState:
        if stage.start:
            self._cache.check_out_start()
        clean = self._cache.status(stage.name) == "clean"
        if stage.name not in self._rerun:
            if clean:
                return "cached"
            if self._cache.restore(stage.name):
                return "restored"
        # a start that moved is no reason to train: only what has to be trained anyway goes on from the present champion
        moved = stage.start and not clean and self._settle is not None and self._settle(self._cache)
        if moved and stage.name not in self._rerun and self._cache.restore(stage.name):
            return "restored"
        before = self._cache.inputs(stage.name)
        run_stage(stage, self.workspace, self.params, self._listener(stage.name))
        self._cache.commit(stage.name, before)
        return "ran"
