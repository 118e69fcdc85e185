"""The training run's section of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tasks.params.section import Positive, Section, Share

Method = Literal[
    "full", "frozen", "lora", "adalora", "dora", "rslora", "qlora", "ia3",
    "prefix-tuning", "prompt-tuning", "p-tuning", "adapter", "bitfit",
]  # fmt: skip


class SizesParams(Section):
    """Of what a method adds to the model; each method takes those that concern it."""

    rank: Positive = (
        8  # LoRA and its like; AdaLoRA: the mean that is left of one and a half times as many
    )
    alpha: Positive = 16  # what they add is scaled by alpha / rank (rsLoRA: alpha / sqrt(rank))
    dropout: Share = 0.0  # of the inputs of what they add
    target_modules: Literal["auto"] | tuple[str, ...] = (
        "auto"  # auto: every linear layer of the body; else the ends of their names
    )
    virtual_tokens: Positive = 20  # prefix, prompt and P-tuning
    bottleneck: Positive = 64  # adapter: its inner width


class FinetuneParams(Section):
    """The training run."""

    method: Method = "full"
    sizes: SizesParams = SizesParams()
    adapter: str | None = (
        None  # directory of an adapter-only checkpoint to go on from, made on the same base model by the same method
    )
    epochs: Annotated[float, Field(gt=0, le=1000)] = 2
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None  # None: learning_rate
    layer_decay: Annotated[float, Field(gt=0, le=1)] = (
        1.0  # factor of the learning rate from each layer to the one below
    )
    scheduler: Literal["linear", "cosine", "constant"] = "linear"  # after the warm-up
    warmup_share: Share = 0.1  # of all optimizer steps
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01
    dropout: Share | None = None  # None: as the base model has it
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    batch_size: Positive = 32  # rows per optimizer step, on average
    accumulation: Positive = 1  # micro-batches an optimizer step is made of
    loss: str | None = None  # where a problem has several; None: its usual one
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    evaluations_per_epoch: Positive = 2
    early_stopping_patience: Annotated[int, Field(ge=0)] = (
        0  # evaluations without a gain; 0: never stop early
    )
    early_stopping_metric: str | None = (
        None  # of the validation split; the best checkpoint by it is kept; None: the problem's own
    )
    checkpoints_per_epoch: Positive = 4  # places a killed run resumes from
    freeze_embeddings: bool = False
    freeze_layers: Annotated[int, Field(ge=0)] | Literal["all"] = (
        0  # lowest layers, and with them the embeddings; all: all but the head
    )
    frozen_cache_mb: Annotated[int, Field(ge=0)] = (
        4096  # of disk, for what frozen lowest layers make of the rows; 0: computed each epoch
    )
    precision: Literal["auto", "fp32", "bf16"] = (
        "auto"  # of what is computed, weights stay fp32; auto: bf16 on a card that has it
    )
    gradient_checkpointing: bool = False  # less memory, more time
    start_from: Literal["base", "champion"] = (
        "base"  # champion: its checkpoint; the first training starts from the base all the same
    )
    replay_share: Share = 1.0  # with start_from champion: share of the rows it was trained on already that are trained on again

    @property
    def adds(self) -> bool:
        """Whether the method leaves the base model's weights as they are, but for its head, and trains little beside them."""
        return self.method not in ("full", "frozen")

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if self.adds and self.freeze_layers:
            raise ValueError(
                f"`freeze_layers` is for the methods full and frozen; {self.method} says itself what is trained: set it to 0"
            )
        if self.adapter and not self.adds:
            raise ValueError(
                f"`adapter` is what another method made; {self.method} makes and takes none: set it to null"
            )
        if self.adapter and self.start_from == "champion":
            raise ValueError(
                "`adapter` and `start_from: champion` are two places to start from: set one of them to null or base"
            )
        return self
