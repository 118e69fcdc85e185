"""The second epoch with the lowest layers frozen, whose states are read from disk, beside the first, which computes them.

python -m benchmarks.frozen            # the default workspace, four of six layers frozen
python -m benchmarks.frozen --quick
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.sections import BenchmarkSection, run_alone

EPOCHS = 3


def measure(quick: bool) -> BenchmarkSection:
    """Steps' seconds by epoch, evaluations aside."""
    import pyarrow as pa

    from benchmarks.material import default_workspace
    from tasks.data.sources.fetching import resolve_model
    from tasks.encoding.token_files import read_features, read_tokens
    from tasks.params.workspace import cache_dir
    from tasks.problems import load_problem
    from tasks.training.inputs import TrainingInputs
    from tasks.training.loop import Trainer
    from tasks.training.methods.registry import apply_method

    counts = (2, 4) if quick else (2, 4, 6)
    rows = 320 if quick else 3200
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        workspace = default_workspace(Path(scratch), "tokenize")
        tokens = workspace.root / "data" / "tokens"
        train = read_tokens(tokens / "train.arrow")
        train = train.take(
            pa.array(np.sort(np.random.default_rng(0).permutation(len(train))[:rows]))
        )
        validation = {
            name: values[:32] for name, values in read_features(tokens / "validation.arrow").items()
        }
        for layers in counts:
            params = workspace.params(
                [f"finetune.freeze_layers={layers}", f"finetune.epochs={EPOCHS}"]
            )
            kind, base = (
                load_problem(params.problem),
                resolve_model(params.base_model, workspace.root, cache_dir()),
            )
            ends: list[float] = []

            def report(step: int, metrics: Mapping[str, float], ends: list[float] = ends) -> None:
                if "loss" in metrics:
                    ends.append(time.perf_counter())

            setting = TrainingInputs(
                kind.objective,
                kind.encoding,
                kind.scoring,
                params.labels,
                train,
                validation,
                0,
                params.finetune,
                None,
                0,
                "cpu",
                workspace.root / f"work{layers}",
            )
            setting.work.mkdir()
            tuning = apply_method(
                kind.objective.load_model(base, params.labels),
                base,
                params.finetune,
                setting.total_steps,
            )
            loop = Trainer(tuning, setting, report)
            loop.run()
            steps = np.diff(np.asarray(ends)).reshape(-1)
            each = setting.steps_per_epoch
            # the step after an evaluation holds its time, so the middle of an epoch's steps is what counts
            seconds = [
                float(np.median(steps[epoch * each : (epoch + 1) * each - 1]))
                for epoch in range(EPOCHS)
            ]
            size = (
                loop.prefix.tokens * tuning.model.config.hidden_size * 4 / 1e6 if loop.prefix else 0
            )
            ratio = seconds[0] / seconds[1]
            table.append(
                [
                    str(layers),
                    *(f"{1000 * one:.0f}" for one in seconds),
                    f"{ratio:.2f}x",
                    f"{size:.0f} MB",
                ]
            )
    note = f"{rows} rows of the default set, batches of 32; wanted: 1.5x. Median milliseconds of a step."
    return BenchmarkSection(
        "Frozen layers",
        ("layers frozen of 6", "epoch 1", "epoch 2", "epoch 3", "epoch 1 over 2", "on disk"),
        table,
        [note],
    )


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
