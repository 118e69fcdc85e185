"""QLoRA (Dettmers et al. 2023): LoRA on a base whose linear layers are held in 4 bits. Needs CUDA and bitsandbytes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import PreTrainedModel

from tasks.core.errors import ParamsError
from tasks.training.methods.tuning import PeftTuning


def quantize(model: PreTrainedModel, linears: Mapping[str, nn.Module]) -> None:
    """Hold the weights of these modules as 4-bit normal floats; they are packed as they move to the card.

    Raises ParamsError for Conv1D, GPT-2's kind of linear module, which bitsandbytes does not have.
    """
    import bitsandbytes as bnb  # type: ignore[import-not-found]

    for name, linear in linears.items():
        if not isinstance(linear, nn.Linear):
            raise ParamsError(
                f"finetune.method: qlora cannot hold {name}, a {type(linear).__name__}, in 4 bits.",
                "Set finetune.method to lora.",
            )
        bias = linear.bias is not None
        small = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=bias,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
        )
        small.weight = bnb.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4", module=small
        )
        small.bias = linear.bias
        model.set_submodule(name, small)
    model.is_loaded_in_4bit = True  # what peft asks


class QloraTuning(PeftTuning):
    """Merges into plain weights: those that the training saw, unpacked."""

    def merge(self) -> PreTrainedModel:
        """The model with plain linear modules again."""
        import bitsandbytes as bnb
        from peft.tuners.lora import LoraLayer

        for name, module in [
            found for found in self.model.named_modules() if isinstance(found[1], LoraLayer)
        ]:
            small = module.get_base_layer()
            weight = bnb.functional.dequantize_4bit(
                small.weight.data, small.weight.quant_state
            ).float()
            merged = nn.Linear(
                module.in_features,
                module.out_features,
                bias=small.bias is not None,
                device=weight.device,
            )
            merged.weight.data = weight + module.get_delta_weight("default").float()
            if small.bias is not None:
                merged.bias = small.bias
            self.model.set_submodule(name, merged)
        del self.model.is_loaded_in_4bit
        return self.model
