"""The checkpoint from which a killed run resumes with the result of an uninterrupted one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from tasks.core.files import atomic_path, read_json, write_json
from tasks.core.progress import LINES
from tasks.core.seeds import random_state, set_random_state
from tasks.training.inputs import TrainingState
from tasks.training.methods.tuning import Tuning
from tasks.training.networks.weights import load_trained, save_trained

# in the run's directory
BEST = "best/trained.safetensors"  # trained weights at the best evaluation
LAST = "last"
# a large model's checkpoints would take a third of a short training
MAX_SHARE = 0.05  # of the training time


@dataclass
class ResumePoint:
    """Saves and loads all that decides how the training goes on.

    work                  the run's directory
    optimizer, scheduler  as prepared by accelerate; their `state_dict` is saved
    """

    work: Path
    tuning: Tuning
    optimizer: Any
    scheduler: Any
    saved_at: float = 0.0  # when the last was complete, in monotonic seconds
    seconds: float = 0.0  # that it took

    @property
    def is_affordable(self) -> bool:
        """Whether another now keeps checkpoints within their share of the training time."""
        return self.seconds <= MAX_SHARE * (time.monotonic() - self.saved_at)

    def save(self, progress: TrainingState) -> None:
        """Replace the last checkpoint."""
        import torch

        started = time.monotonic()
        with atomic_path(self.work / LAST) as new:
            save_trained(self.tuning.model, new / "trained.safetensors")
            state = {
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "random": random_state(),
                "tuning": self.tuning.state(),
            }
            torch.save(state, new / "state.pt")
            best_score = str(progress.best_score)  # JSON has no -inf
            write_json(new / "progress.json", asdict(progress) | {"best_score": best_score})
        self.saved_at = time.monotonic()
        self.seconds = self.saved_at - started

    def load(self) -> TrainingState | None:
        """Restore the last checkpoint; None without one, or after a warning if it is damaged."""
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        last, best = self.work / LAST, self.work / BEST
        if not last.exists():
            return None
        try:
            saved: Mapping[str, Any] = read_json(last / "progress.json")
            progress = TrainingState(**{**saved, "best_score": float(saved["best_score"])})
            state = torch.load(last / "state.pt", map_location="cpu", weights_only=True)
            for weights in [last / "trained.safetensors", *([best] if progress.best_step else [])]:
                load_file(weights)  # all must be readable before any is loaded
        except (
            OSError,
            EOFError,
            ValueError,
            TypeError,
            RuntimeError,
            UnpicklingError,
            SafetensorError,
        ) as error:
            LINES.warning(
                "finetune   starts over: an interrupted run's checkpoint cannot be read: %s", error
            )
            shutil.rmtree(last)
            return None
        load_trained(self.tuning.model, last / "trained.safetensors")
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.tuning.load_state(state["tuning"])
        set_random_state(state["random"])
        return progress


def prepare_work_dir(work: Path, identity: str) -> None:
    """Keep the files in `work` if an earlier run had the same inputs; clear them otherwise."""
    identity_file = work / "identity"
    if identity_file.is_file() and identity_file.read_bytes() == identity.encode():
        return
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    with atomic_path(identity_file) as new:
        new.write_text(identity, encoding="utf-8")
