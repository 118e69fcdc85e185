"""A model in training, and its conversion to the model that ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch
    from peft import AdaLoraConfig, AdaLoraModel
    from peft.tuners.tuners_utils import BaseTuner
    from transformers import PreTrainedModel


class Tuning:
    """Trains the model's weights that require gradients; methods that do more override this.

    model  the Hugging Face model, including modules that the method adds
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def penalty(self) -> torch.Tensor | None:
        """Regularization term added to the loss of a batch."""
        return None

    def after_step(self, step: int) -> None:
        """Called after optimizer step `step`, from 1, before its gradients are cleared."""

    def state(self) -> dict[str, Any]:
        """State that a resumed run needs besides the trained weights: tensors and plain values."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""

    def merge(self) -> PreTrainedModel:
        """The model as it ships, trained weights merged where possible; ends this tuning."""
        return self.model

    def additions(self) -> dict[str, torch.Tensor]:
        """Tensors that cannot be merged, by name; methods/checkpoints.py reattaches them."""
        return {}


class PeftTuning(Tuning):
    """A mergeable peft method, which adds weights to linear modules."""

    def __init__(self, model: PreTrainedModel, tuner: BaseTuner) -> None:
        super().__init__(model)
        self.tuner = tuner

    def merge(self) -> PreTrainedModel:
        """The model with plain modules, the added weights merged into them."""
        return cast("PreTrainedModel", self.tuner.merge_and_unload())


class AdaLoraTuning(PeftTuning):
    """AdaLoRA (Zhang et al. 2023): allots rank to modules by their importance for the loss."""

    tuner: AdaLoraModel

    @property
    def _config(self) -> AdaLoraConfig:
        return cast("AdaLoraConfig", self.tuner.peft_config["default"])

    def penalty(self) -> torch.Tensor:
        """Weighted distance of the triplets' factors from orthogonality.

        peft adds it only to losses that the model computes itself.
        """
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
        return self._config.orth_reg_weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """Reduce ranks when the schedule says so."""
        self.tuner.update_and_allocate(step)

    def state(self) -> dict[str, Any]:
        """The importance of each triplet, and the triplets that are left."""
        allocator, names = self.tuner.rankallocator, ("ipt", "exp_avg_ipt", "exp_avg_unc")
        return {
            "importance": {name: getattr(allocator, name) for name in names},
            "rank_pattern": self._config.rank_pattern,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        device = self.model.device
        for name, tensors in state["importance"].items():
            moved = {key: tensor.to(device) for key, tensor in tensors.items()}
            setattr(self.tuner.rankallocator, name, moved)
        self._config.rank_pattern = state["rank_pattern"]
