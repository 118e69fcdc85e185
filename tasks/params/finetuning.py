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
    """Sizes of what a method adds to the model; each method reads the ones that apply to it."""

    # LoRA variants; AdaLoRA prunes from 1.5 times this rank to this mean rank
    rank: Positive = 8
    alpha: Positive = 16  # LoRA updates are scaled by alpha / rank (rsLoRA: alpha / sqrt(rank))
    dropout: Share = 0.0  # on the inputs of the added modules
    # auto: every linear layer of the body; else suffixes of module names
    target_modules: Literal["auto"] | tuple[str, ...] = "auto"
    virtual_tokens: Positive = 20  # prefix, prompt and P-tuning
    bottleneck: Positive = 64  # adapter: inner width


class FinetuneParams(Section):
    """The training run."""

    method: Method = "full"  # docs/methods.md and docs/results.md compare them
    sizes: SizesParams = SizesParams()
    # what the head of a classifier reads. own: as the base model's files say; auto: as its
    # 1_Pooling says, else own; mean, cls (the first token's state), last (the last token's)
    pooling: Literal["own", "auto", "mean", "cls", "last"] = "own"
    # of the head's output layer. solved: logistic regression on what it reads, its strength chosen
    # by cross-validation; with nothing but the head to train, no steps follow
    head_start: Literal["random", "solved"] = "random"
    # each label's name that says something is one more training row: for few rows (one text, one
    # class)
    label_names: bool = False
    # label the rows of ingest.unlabelled that are certain, and solve the head with them too if the
    # validation rows show that they help (one text, one class; head_start: solved)
    self_training: bool = False
    # directory of an adapter-only checkpoint to continue from (same base model, same method)
    adapter: str | None = None
    # passes over the training rows; fractions are possible
    epochs: Annotated[float, Field(gt=0, le=1000)] = 2
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 5e-5  # peak, of AdamW
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None  # None: learning_rate
    # factor applied to the learning rate from each layer to the one below
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    scheduler: Literal["linear", "cosine", "constant"] = "linear"  # after the warm-up
    warmup_share: Share = 0.1  # of all optimizer steps
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.01  # of AdamW
    dropout: Share | None = None  # None: the base model's
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0  # gradients are clipped to this norm
    batch_size: Positive = 32  # rows per optimizer step, on average
    accumulation: Positive = 1  # micro-batches per optimizer step
    # for problems with several; None: the problem's default. contrastive (one class a row): the
    # body learns to tell the classes apart, then the head is solved; evaluated once, at the end
    loss: str | None = None
    # share of the target spread over the other classes
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    # balanced: inversely to frequency; or a weight for each label
    class_weights: Literal["none", "balanced"] | dict[str, Annotated[float, Field(gt=0)]] = "none"
    evaluations_per_epoch: Positive = 2  # on the validation split
    # evaluations without improvement; 0: never stop early
    early_stopping_patience: Annotated[int, Field(ge=0)] = 0
    # on the validation split; selects the checkpoint to keep; None: the problem's main metric
    early_stopping_metric: str | None = None
    checkpoints_per_epoch: Positive = 4  # at most; a killed run resumes from the last
    freeze_embeddings: bool = False  # whether the embeddings stay as they are
    # number of bottom layers, and with them the embeddings; all: everything but the head
    freeze_layers: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    # disk space to cache the outputs of frozen bottom layers; 0: recompute them each epoch
    frozen_cache_mb: Annotated[int, Field(ge=0)] = 4096
    # of computation, weights stay fp32; auto: bf16 on a GPU that supports it
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False  # less memory, more time
    # champion: from its checkpoint; without a champion yet, from the base
    start_from: Literal["base", "champion"] = "base"
    # with start_from champion: share of the rows it was already trained on to train on again
    replay_share: Share = 1.0

    @property
    def head_only(self) -> bool:
        """Whether nothing but the head is trained."""
        unset = not self.freeze_layers and not self.freeze_embeddings
        return self.freeze_layers == "all" or (self.method == "frozen" and unset)

    @property
    def contrastive(self) -> bool:
        """Whether the loss compares what the head reads, and the head itself is not trained."""
        return self.loss == "contrastive"

    @property
    def starts_solved(self) -> bool:
        """Whether the head is solved before any step; a contrastive one is solved after them."""
        return self.head_start == "solved" and not self.contrastive

    @property
    def adds(self) -> bool:
        """Whether the base model is frozen except its head, and few added weights are trained."""
        return self.method not in ("full", "frozen")

    @model_validator(mode="after")
    def _contrastive_has_what_it_needs(self) -> Self:
        if not self.contrastive:
            return self
        if self.head_start != "solved":
            raise ValueError(
                "`loss: contrastive` trains no head: set `head_start` to solved, or `loss` to null"
            )
        if self.head_only:
            raise ValueError(
                "`loss: contrastive` changes what the head reads, and nothing but the head is to "
                "be trained: set `loss` to null, or `method` to full and `freeze_layers` to 0"
            )
        if self.batch_size < 2:
            raise ValueError(
                "`loss: contrastive` compares the rows of a batch: set `batch_size` to 2 or more"
            )
        for name in ("label_smoothing", "early_stopping_patience"):
            if getattr(self, name):
                raise ValueError(f"`{name}` does nothing with `loss: contrastive`: set it to 0")
        return self

    @model_validator(mode="after")
    def _choices_fit_together(self) -> Self:
        if self.self_training and self.head_start != "solved":
            raise ValueError(
                "`self_training` is of a solved head: set `head_start` to solved, "
                "or `self_training` to false"
            )
        if self.self_training and self.start_from == "champion" and not self.head_only:
            raise ValueError(
                "`self_training` does nothing where the champion's head is kept: "
                "set `start_from` to base, or `self_training` to false"
            )
        if self.adds and self.freeze_layers:
            raise ValueError(
                "`freeze_layers` is for the methods full and frozen; "
                f"{self.method} itself determines what is trained: set it to 0"
            )
        if self.adapter and not self.adds:
            raise ValueError(
                f"`adapter` does not apply to the method {self.method}, "
                "which has no adapter: set it to null"
            )
        if self.adapter and self.start_from == "champion":
            raise ValueError(
                "`adapter` and `start_from: champion` are two starting points: "
                "set `adapter` to null or `start_from` to base"
            )
        return self
