"""A model in training, and how it becomes one that ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from peft.tuners.tuners_utils import BaseTuner
    from transformers import PreTrainedModel


class Tuning:
    """Trains those weights of the model itself that require gradients; what other methods do beside that, they override.

    model  what is called and trained: the Hugging Face model with whatever the method puts into it
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def penalty(self) -> torch.Tensor | None:
        """What the loss of a batch is raised by."""
        return None

    def after_step(self, step: int) -> None:
        """Called after optimizer step number `step`, from 1, while its gradients are still there."""

    def state(self) -> dict[str, Any]:
        """What a resumed run needs beside the trained weights: tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""

    def merge(self) -> PreTrainedModel:
        """The model as it ships, whatever could be merged into its weights merged; the tuning is done with."""
        return self.model

    def additions(self) -> dict[str, torch.Tensor]:
        """What cannot be merged, by name; training/methods/checkpoints.py puts it into the shipped model again."""
        return {}


class PeftTuning(Tuning):
    """One of peft's methods that put something into linear modules and can be merged."""

    def __init__(self, model: PreTrainedModel, tuner: BaseTuner) -> None:
        super().__init__(model)
        self.tuner = tuner

    def merge(self) -> PreTrainedModel:
        """The model with plain modules again, what they were given merged into their weights."""
        merged: PreTrainedModel = self.tuner.merge_and_unload()
        return merged


class AdaLoraTuning(PeftTuning):
    """AdaLoRA (Zhang et al. 2023): the rank that each module gets follows from how much the loss asks for it."""

    def penalty(self) -> torch.Tensor:
        """How far the triplets' factors are from orthogonal, weighted; peft adds this only to losses that the model computes itself."""
        import torch

        weights = [
            (name, weight)
            for name, weight in self.model.named_parameters()
            if "lora_A" in name or "lora_B" in name
        ]
        products = [
            weight @ weight.T if "lora_A" in name else weight.T @ weight for name, weight in weights
        ]
        distances = [
            torch.linalg.matrix_norm(product - torch.eye(len(product), device=product.device))
            for product in products
        ]
        weight: float = self.tuner.peft_config["default"].orth_reg_weight
        return weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """Take rank away where the schedule says so."""
        self.tuner.update_and_allocate(step)

    def state(self) -> dict[str, Any]:
        """How important each triplet has been, and which are left."""
        allocator = self.tuner.rankallocator
        importance = {
            name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")
        }
        return {
            "importance": importance,
            "rank_pattern": self.tuner.peft_config["default"].rank_pattern,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take what `state` gave."""
        device = self.model.device
        for name, tensors in state["importance"].items():
            setattr(
                self.tuner.rankallocator,
                name,
                {key: tensor.to(device) for key, tensor in tensors.items()},
            )
        self.tuner.peft_config["default"].rank_pattern = state["rank_pattern"]
