"""What `ratchet init` says of its choices, and of why they may not fit the data."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flows.workspaces.defaults import TrainingSize
from flows.workspaces.guessing import listed
from tasks.data.quality.row_account import Account
from tasks.params.labels import label_variants
from tasks.params.schema import Params

# labels that mean none of the others, without blanks and signs
OUT_OF_SCOPE = ("oos", "outofscope", "outofdomain", "ood", "nointent", "noneoftheabove", "fallback")


# what the head reads, `finetune.pooling`
POOLED = {
    "mean": " The head reads the mean of all tokens, as the default base model was trained.",
    "auto": " The head reads what the base model's 1_Pooling says, if it has one.",
}


@dataclass(frozen=True)
class Facts:
    """What is known of the data.

    account      what became of each row
    to_train_on  number of rows outside validation and test
    labels       number of rows of each label
    texts        a sample of the texts
    unlabelled   notes on the rows without labels
    """

    account: Account
    to_train_on: int
    labels: Mapping[str, int]
    texts: Sequence[str]
    unlabelled: Sequence[str] = ()


def advice(
    params: Params, facts: Facts, size: TrainingSize, finetune: Mapping[str, Any]
) -> Iterator[str]:
    """What was chosen, then what the user should see before training."""
    yield _chosen(size, finetune)
    yield from _about_rows(params, facts.account.used)
    yield from _about_labels(params, facts.labels)
    yield from facts.unlabelled
    one_a_label = size.rows < 2 * size.classes
    if one_a_label and finetune.get("self_training") and finetune.get("loss") == "contrastive":
        yield (
            "hardly more than one row a label: with rows without labels beside it, "
            "--recipe frozen measured better there (docs/methods.md)."
        )
    if size.usual_base and not mostly_latin(facts.texts):
        yield (
            "most letters of the texts are not Latin, but the default base model knows English: "
            "choose one for your language with --base-model, or expect little of the model."
        )


def _chosen(size: TrainingSize, finetune: Mapping[str, Any]) -> str:
    rates = f"learning rate {finetune['learning_rate']:g}"
    if (of_head := finetune.get("head_learning_rate")) is not None:
        rates += f", of the head {of_head:g}"
    classes = f" and {size.classes} labels" if size.classes else ""
    pooled = POOLED.get(finetune["pooling"], "")
    if finetune.get("label_names"):
        pooled += " The labels' names are training rows too."
    if finetune.get("self_training"):
        pooled += " Rows without labels take part if the validation rows show that they help."
    if finetune["method"] == "frozen":
        return f"the base model stays as it is; its head is solved, without steps.{pooled}"
    if finetune.get("loss") == "contrastive":
        return (
            f"the base model learns to tell the labels apart, {finetune['epochs']} epochs of "
            f"{finetune['batch_size']} rows a step at learning rate {finetune['learning_rate']:g}; "
            f"then its head is solved.{pooled}"
        )
    return (
        f"training is set to {finetune['epochs']} epochs of {finetune['batch_size']} rows a step, "
        f"{rates}: chosen for {size.rows:,} training rows{classes}.{pooled}"
    )


def _about_rows(params: Params, rows: int) -> Iterator[str]:
    least = params.validation.min_rows
    if rows < least:
        yield (
            f"only {rows} rows: training stops below {least} (validate.min_rows), and a few "
            "hundred are needed to judge a model."
        )


def _about_labels(params: Params, labels: Mapping[str, int]) -> Iterator[str]:
    if variants := label_variants(list(labels)):
        shown = "; ".join(", ".join(f"'{label}'" for label in group) for group in variants[:5])
        yield (
            f"labels that differ only by case, spaces or invisible characters: {shown}. "
            "If they mean the same, set "
            "`ingest.merge_labels: true` in params.yaml (or run init with --merge-labels)."
        )
    least = params.validation.min_rows_per_class
    if rare := [label for label, count in labels.items() if count < least]:
        shown = listed([f"'{label}' ({labels[label]})" for label in sorted(rare)], 5)
        yield (
            f"labels with fewer than {least} rows, which stop training: {shown}. "
            "If they are real labels, add rows or lower `validate.min_rows_per_class`; "
            "otherwise remove them from the data."
        )
    names = [
        label for label in labels if "".join(filter(str.isalnum, label.lower())) in OUT_OF_SCOPE
    ]
    if names and params.out_of_scope is None:
        yield (
            f"label '{names[0]}' seems to mean none of the others. If it does, set "
            f"`out_of_scope: {names[0]}` in params.yaml (or run init with --out-of-scope): "
            "its threshold is then tuned."
        )


def mostly_latin(texts: Sequence[str]) -> bool:
    """Whether at least half of the letters are Latin; True without letters."""
    letters = [letter for text in texts for letter in text[:500] if letter.isalpha()]
    latin = sum(unicodedata.name(letter, "").startswith("LATIN") for letter in letters)
    return 2 * latin >= len(letters)
