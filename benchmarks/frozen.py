"""Training with the lowest layers frozen: the second epoch against the first.

The first epoch computes the frozen layers' hidden states; later epochs read them from disk.

python -m benchmarks.frozen            # the default workspace; 2, 4 and 6 of six layers frozen
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
    """Seconds a step by epoch, evaluations left out."""
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
        drawn = np.sort(np.random.default_rng(0).permutation(len(train))[:rows])
        train = train.take(pa.array(drawn))
        validation = {
            name: values[:32] for name, values in read_features(tokens / "validation.arrow").items()
        }
        for layers in counts:
            overrides = [f"finetune.freeze_layers={layers}", f"finetune.epochs={EPOCHS}"]
            params = workspace.params(overrides)
            problem = load_problem(params.problem)
            base = resolve_model(params.base_model, workspace.root, cache_dir())
            ends: list[float] = []

            def report(step: int, metrics: Mapping[str, float], ends: list[float] = ends) -> None:
                if "loss" in metrics:
                    ends.append(time.perf_counter())

            setting = TrainingInputs(
                problem.objective,
                problem.encoding,
                problem.scoring,
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
            model = problem.objective.load_model(base, params.labels)
            tuning = apply_method(model, base, params.finetune, setting.total_steps)
            loop = Trainer(tuning, setting, report)
            loop.run()
            steps = np.diff(np.asarray(ends)).reshape(-1)
            count = setting.steps_per_epoch
            # the step after an evaluation includes the evaluation's time; the median ignores it
            seconds = [
                float(np.median(steps[epoch * count : (epoch + 1) * count - 1]))
                for epoch in range(EPOCHS)
            ]
            tokens_on_disk = loop.prefix.tokens if loop.prefix else 0
            megabytes = tokens_on_disk * tuning.model.config.hidden_size * 4 / 1e6
            milliseconds = [f"{1000 * step:.0f}" for step in seconds]
            ratio = f"{seconds[0] / seconds[1]:.2f}x"
            table.append([str(layers), *milliseconds, ratio, f"{megabytes:.0f} MB"])
    note = (
        f"{rows} rows of the default set, batches of 32; wanted: 1.5x. "
        "Median milliseconds of a step."
    )
    epochs = [f"epoch {epoch + 1}" for epoch in range(EPOCHS)]
    header = ("layers frozen of 6", *epochs, "epoch 1 over 2", "on disk")
    return BenchmarkSection("Frozen layers", header, table, [note])


if __name__ == "__main__":
    run_alone(__doc__ or "", measure)
