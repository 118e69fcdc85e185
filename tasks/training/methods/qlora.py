"""QLoRA (Dettmers et al. 2023): LoRA on a base with 4-bit linear layers.

Needs CUDA and bitsandbytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from tasks.core.errors import ParamsError
from tasks.training.methods.tuning import PeftTuning


def quantize(model: PreTrainedModel, linears: Mapping[str, nn.Module]) -> None:
    """Replace the modules' weights with 4-bit NormalFloats, packed when they move to the GPU.

    Raises ParamsError for GPT-2's Conv1D, which bitsandbytes does not support.
    """
    for name, linear in linears.items():
        if not isinstance(linear, nn.Linear):
            raise ParamsError(
                f"finetune.method: qlora cannot quantize {name}, a {type(linear).__name__}, to 4 "
                "bits.",
                "Set finetune.method to lora.",
            )
    import bitsandbytes as bnb  # type: ignore[import-not-found]

    for name, linear in linears.items():
        quantized = bnb.nn.Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=torch.bfloat16,
            quant_type="nf4",
        )
        quantized.weight = bnb.nn.Params4bit(
            linear.weight.data, requires_grad=False, quant_type="nf4", module=quantized
        )
        quantized.bias = linear.bias
        model.set_submodule(name, quantized)
    model.is_loaded_in_4bit = True  # type: ignore[assignment]  # read by peft


class QloraTuning(PeftTuning):
    """QLoRA; merges into dequantized weights, the ones that training used."""

    def merge(self) -> PreTrainedModel:
        """The model with plain linear modules again."""
        import bitsandbytes as bnb
        from peft.tuners.lora import LoraLayer

        layers: dict[str, Any] = {
            name: module
            for name, module in self.model.named_modules()
            if isinstance(module, LoraLayer)
        }
        for name, module in layers.items():
            quantized = module.get_base_layer()
            packed = quantized.weight
            weight = bnb.functional.dequantize_4bit(packed.data, packed.quant_state).float()
            merged = nn.Linear(
                module.in_features,
                module.out_features,
                bias=quantized.bias is not None,
                device=weight.device,
            )
            merged.weight.data = weight + module.get_delta_weight("default").float()
            if quantized.bias is not None:
                merged.bias = quantized.bias
            self.model.set_submodule(name, merged)
        del self.model.is_loaded_in_4bit
        return self.model
