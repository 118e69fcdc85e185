"""Run each variant in its own process: first its outputs, then its speed, in turns."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np

from tasks.core.errors import ExportError
from tasks.shipping.candidates import TORCH, Variant
from tasks.shipping.timing import turns
from tasks.shipping.workers import Worker, WorkerError

TIMING_SECONDS = 60.0  # no new turn starts after this; decoding rounds have the same limit again
DECODING_ROUNDS = 6  # the fewest that give the median a 95% interval
ALONE_ROWS = 64  # also run at batch size 1

Asked = Callable[[Variant, Any], None]


class Workbench:
    """The variants' processes, each started on first use; all end with the `with` block."""

    def __init__(self, module: str, setting: Mapping[str, Any], rows: list[int]) -> None:
        self._module, self._setting, self._rows = module, setting, rows
        self._workers: dict[str, Worker] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def start(self, variants: Iterable[Variant]) -> None:
        """Start the processes now, so that their imports overlap."""
        for variant in variants:
            if not variant.failure:
                self._worker(variant)

    def examine(self, variant: Variant) -> None:
        """Compute a variant's outputs; an error becomes its `failure`.

        Raises ExportError if its process was killed from outside.
        """
        file = self._scratch / f"{variant.name}.npz"
        try:
            alone = [] if variant.name == TORCH else self._rows[:ALONE_ROWS]
            self._worker(variant).ask(do="outputs", file=str(file), alone=alone)
        except WorkerError as error:
            if error.from_outside:
                raise _unmeasured(variant, error) from error
            variant.failure = str(error)
            return
        with np.load(file, allow_pickle=False) as arrays:
            variant.outputs, variant.alone = arrays["outputs"], arrays["alone"]

    def time(self, variants: Sequence[Variant], report: Callable[[float], None]) -> None:
        """Time the variants in turns, and their decoding where the model generates.

        Raises ExportError if one fails: it has computed its outputs, so the cause lies outside it.
        """
        self._take_turns(variants, turns(self._rows), self._time_turn, report)
        if self._setting["writes"]:
            rounds = [self._rows[number % len(self._rows)] for number in range(DECODING_ROUNDS)]
            self._take_turns(variants, rounds, self._time_writing, lambda _: None)

    def _take_turns(
        self,
        variants: Sequence[Variant],
        rounds: Sequence[Any],
        ask: Asked,
        report: Callable[[float], None],
    ) -> None:
        end = time.monotonic() + TIMING_SECONDS
        for done, rows in enumerate(rounds):
            if done and time.monotonic() > end:
                break  # a busy machine or a large model: wider intervals rather than a long run
            for variant in reversed(variants) if done % 2 else variants:
                try:
                    ask(variant, rows)
                except WorkerError as error:
                    raise _unmeasured(variant, error) from error
            report((done + 1) / len(rounds))

    def _time_turn(self, variant: Variant, rows: list[int]) -> None:
        variant.timings.add(self._worker(variant).ask(do="turn", rows=rows))

    def _time_writing(self, variant: Variant, row: int) -> None:
        variant.decoding.append(float(self._worker(variant).ask(do="decode", row=str(row))["rate"]))

    def _worker(self, variant: Variant) -> Worker:
        if variant.name not in self._workers:
            worker = Worker(self._module, {**self._setting, "model": str(variant.model)})
            self._workers[variant.name] = worker
            self._stack.callback(worker.close)
        return self._workers[variant.name]


def _unmeasured(variant: Variant, error: WorkerError) -> ExportError:
    return ExportError(
        f"{variant.name} cannot be measured: {error}.",
        "Nothing was decided without it. If memory is short, free some, "
        "then run `ratchet train` again: the earlier stages are kept.",
    )
