"""The pyfunc model that MLflow loads; its artifact is a bundle (models from code, no pickle).

MLmodel records the bundle's hash under `model_config`; docs/trust.md says what that protects from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd  # at run time: MLflow reads the type hints of `predict`
from mlflow.pyfunc import PythonModel, PythonModelContext


class BundleModel(PythonModel):
    """Maps a data frame with the problem's input columns to one prediction per row."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the bundle and check its hashes; it must be the bundle that was registered."""
        from tasks.inference.bundle import PYFUNC_SHA256, open_bundle
        from tasks.inference.predictor import Predictor
        from tasks.problems import load_problem, problem_names

        registered = str((context.model_config or {}).get(PYFUNC_SHA256))
        info = open_bundle(Path(context.artifacts["bundle"]), problem_names(), registered)
        problem = load_problem(info.problem)
        self.columns = list(problem.decoding.example())
        self.predictor = Predictor(info, problem)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Predictions in row order, with the column names of `ratchet predict`."""
        from tasks.inference.prediction_names import named

        rows = {column: model_input[column].tolist() for column in self.columns}
        return pd.DataFrame([named(prediction) for prediction in self.predictor.predict(rows)])


mlflow.models.set_model(BundleModel())
