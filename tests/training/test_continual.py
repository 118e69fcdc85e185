"""Continued training from the champion: old labels are kept, new ones learnt, reproducibly."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny import LABELS, make_tokenizer, tiny_rows
from transformers import BertConfig, PreTrainedModel

from tasks.core.errors import ParamsError
from tasks.core.files import read_json, sha256_file
from tasks.core.progress import silent
from tasks.core.seeds import seed_everything
from tasks.encoding.encoder import encode_rows
from tasks.encoding.token_files import TokensInfo, load_tokenizer, read_features, read_tokens
from tasks.finetuning import finetune_model
from tasks.params.finetuning import FinetuneParams
from tasks.params.schema import BaseModelParams
from tasks.problems import load_problem
from tasks.training.networks.architecture import token_embeddings
from tasks.training.networks.label_transfer import carry_over, checkpoint_labels, label_axes
from tasks.training.networks.torch_outputs import predict_torch

PROBLEM = load_problem("text-classification")
OLD_LABELS = ("positive", "negative")
ROWS = tiny_rows(420)


class Killed(BaseException):
    """Stands for a kill: no `except Exception` catches it."""


def write_tokens(directory: Path, labels: Sequence[str], train_rows: int) -> Path:
    """Tokens of the rows with a known label: the first `train_rows`, the last 100 to validate."""
    make_tokenizer(directory / "tokenizer")
    tokenizer = load_tokenizer(directory / "tokenizer", 32)
    counts = {}
    for split, start, end in (("train", 0, train_rows), ("validation", 320, 420)):
        chosen = [row for row in range(start, end) if ROWS["label"][row] in labels]
        columns = {name: [values[row] for row in chosen] for name, values in ROWS.items()}
        features = encode_rows(PROBLEM.encoding, tokenizer, columns, labels)
        ids = pa.array(features["input_ids"], pa.list_(pa.int32()))
        table = pa.table({"row": chosen, **features, "input_ids": ids})
        with (
            pa.OSFile(str(directory / f"{split}.arrow"), "wb") as file,
            pa.ipc.new_file(file, table.schema) as writer,
        ):
            writer.write_table(table)
        counts[split] = len(chosen)
    TokensInfo(32, 0, counts, dict.fromkeys(counts, 0.0)).write(directory)
    return directory


def run_finetune(
    base: Path,
    tokens: Path,
    out: Path,
    start: Path | None,
    labels: Sequence[str],
    params: Mapping[str, Any],
    kill_at: float = math.inf,
) -> None:
    def report(step: int, metrics: Mapping[str, float]) -> None:
        if step >= kill_at:
            raise Killed

    out.mkdir(parents=True, exist_ok=True)
    defaults = {"epochs": 3, "learning_rate": 5e-3, "batch_size": 16, "dropout": 0.1}
    finetune_model(
        tokens,
        out / "checkpoint",
        out / "training.json",
        start=start,
        problem=PROBLEM.name,
        labels=tuple(labels),
        base_model=BaseModelParams(path=str(base)),
        finetune=FinetuneParams.model_validate({**defaults, **params}),
        seed=7,
        device="cpu",
        root=out,
        cache=out,
        work=out / "work",
        report=report if kill_at < math.inf else silent,
    )


@dataclass(frozen=True)
class Bench:
    """A champion trained on 200 rows of two labels, and 320 rows of three labels."""

    base: Path
    start: Path
    tokens: Path

    def finetune(self, out: Path, **params: Any) -> dict[str, Any]:
        params["start_from"] = "champion"
        run_finetune(self.base, self.tokens, out, self.start, LABELS, params)
        return dict(read_json(out / "training.json"))

    def kill(self, out: Path, step: int, start: Path | None, **params: Any) -> None:
        params["start_from"] = "champion"
        with pytest.raises(Killed):
            run_finetune(self.base, self.tokens, out, start, LABELS, params, step)


@pytest.fixture(scope="module")
def bench(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    root = tmp_path_factory.mktemp("bench")
    start = root / "start"
    write_tokens(start / "tokens", OLD_LABELS, 200)
    run_finetune(base_dir, start / "tokens", root / "old", None, OLD_LABELS, {"epochs": 16})
    assert read_json(root / "old" / "training.json")["start"] is None
    shutil.copytree(root / "old" / "checkpoint", start / "checkpoint")
    return Bench(base_dir, start, write_tokens(root / "tokens", LABELS, 320))


def loaded(directory: Path, labels: Sequence[str], seed: int = 0) -> Any:
    seed_everything(seed)
    return PROBLEM.objective.load_model(directory, labels)


# the head


def test_old_labels_keep_their_weights_and_new_ones_are_drawn(bench: Bench) -> None:
    old = loaded(bench.start / "checkpoint", OLD_LABELS)
    models = [loaded(bench.base, LABELS, seed) for seed in (1, 1, 2)]
    fresh = models[0].classifier.weight.detach().clone()
    for model in models:
        carried = carry_over(model, old)
        assert carried.kept == ("negative", "positive")
        assert (carried.added, carried.dropped) == (("neutral",), ())
    first, same_seed, other_seed = (model.classifier.weight.detach() for model in models)
    for row, label in enumerate(OLD_LABELS):
        assert torch.equal(first[LABELS.index(label)], old.classifier.weight[row])
    added = LABELS.index("neutral")
    assert torch.equal(first[added], fresh[added])
    assert torch.equal(first, same_seed)
    assert not torch.equal(first[added], other_seed[added])
    bodies = zip(models[0].bert.parameters(), old.bert.parameters(), strict=True)
    assert all(torch.equal(weight, old_weight) for weight, old_weight in bodies)


def test_another_order_of_the_labels_predicts_the_same(bench: Bench) -> None:
    old = loaded(bench.start / "checkpoint", OLD_LABELS)
    model = loaded(bench.base, OLD_LABELS[::-1])
    carry_over(model, old)
    features = read_features(bench.start / "tokens" / "validation.arrow")
    expected = predict_torch(old.eval(), PROBLEM.encoding, features, 0)[:, ::-1]
    outputs = predict_torch(model.eval(), PROBLEM.encoding, features, 0)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


def test_labels_of_an_older_checkpoint_are_those_that_mean_the_same(bench: Bench) -> None:
    old = loaded(bench.base, ("True", "False", "1.0"), seed=1)
    model = loaded(bench.base, ("1", "false", "true"), seed=2)
    assert carry_over(model, old).kept == ("1", "false", "true")
    assert torch.equal(model.classifier.weight[[2, 1, 0]], old.classifier.weight)


def test_a_label_that_is_gone_is_dropped_and_told(bench: Bench) -> None:
    model = loaded(bench.base, ("neutral", "positive"))
    carried = carry_over(model, loaded(bench.start / "checkpoint", OLD_LABELS))
    assert carried.kept == ("positive",)
    assert carried.dropped == ("negative",)


def test_the_head_is_found_by_what_grows_with_the_labels_whatever_its_width(base_dir: Path) -> None:
    labels = [f"label {number}" for number in range(32)]  # as many as the model is wide
    assert label_axes(loaded(base_dir, labels)) == {"classifier.weight": 0, "classifier.bias": 0}


def test_a_checkpoint_without_labels_is_gone_on_from_too(base_dir: Path, tmp_path: Path) -> None:
    objective = load_problem("masked-lm").objective
    old = objective.load_model(base_dir, ())
    old.save_pretrained(tmp_path)
    assert "id2label" not in read_json(tmp_path / "config.json")
    assert objective.labels_of(checkpoint_labels(tmp_path)) == []
    model = objective.load_model(base_dir, ())
    with torch.no_grad():
        token_embeddings(model).zero_()
    carry_over(model, old)
    for name, values in model.state_dict().items():
        assert torch.equal(values, old.state_dict()[name]), name


@pytest.mark.parametrize("architecture", ["DistilBert", "Roberta", "Electra", "MPNet"])
def test_heads_of_other_architectures_are_extended_too(architecture: str) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": 50, "intermediate_size": 32}
    if architecture == "DistilBert":
        sizes = {"vocab_size": 50, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 32}

    def make(labels: str) -> Any:
        names = dict(enumerate(labels))
        numbers = {name: number for number, name in names.items()}
        config = getattr(transformers, f"{architecture}Config")
        model_class = getattr(transformers, f"{architecture}ForSequenceClassification")
        return model_class(config(**sizes, id2label=names, label2id=numbers))

    old, new = make("ab"), make("bca")
    assert carry_over(new, old).added == ("c",)
    axes = label_axes(new)
    assert len(axes) == 2
    for name in axes:
        assert torch.equal(new.state_dict()[name][[2, 0]], old.state_dict()[name])


@pytest.mark.parametrize(
    "change", [{"num_hidden_layers": 1}, {"vocab_size": 100}, {"num_attention_heads": 2}]
)
def test_another_architecture_than_the_bases_is_refused(
    bench: Bench, tmp_path: Path, change: dict[str, int]
) -> None:
    from transformers import BertConfig, BertModel

    (name,) = change
    config = BertConfig(**{**BertConfig.from_pretrained(bench.base).to_dict(), **change})
    BertModel(config).save_pretrained(tmp_path)
    with pytest.raises(ParamsError, match=f"{name}: .*, not {change[name]}") as caught:
        carry_over(loaded(tmp_path, LABELS), loaded(bench.start / "checkpoint", OLD_LABELS))
    assert "start_from" in caught.value.remedy


# the stage


def test_the_stage_trains_on_what_replay_leaves_and_says_where_it_started(
    bench: Bench, tmp_path: Path
) -> None:
    known = len(read_tokens(bench.start / "tokens" / "train.arrow"))
    every = len(read_tokens(bench.tokens / "train.arrow"))
    start_sha256 = sha256_file(bench.start / "checkpoint" / "model.safetensors")
    labels = {"kept": ["negative", "positive"], "added": ["neutral"], "dropped": []}
    steps = {}
    for share in (0.0, 0.5, 1.0):
        facts = bench.finetune(tmp_path / str(share), replay_share=share, epochs=1)
        assert facts["start"]["checkpoint_sha256"] == start_sha256
        assert facts["start"]["labels"] == labels
        rows = facts["start"]["rows"]
        assert (rows["new"], rows["replayed"] + rows["left_out"]) == (every - known, known)
        assert rows["replayed"] == pytest.approx(share * known, abs=1)
        steps[share] = facts["steps"]
        assert steps[share] == math.ceil((rows["new"] + rows["replayed"]) / 16)
    assert steps[0.0] < steps[0.5] < steps[1.0]
    assert checkpoint_labels(tmp_path / "1.0" / "checkpoint") == LABELS


def test_going_on_learns_the_new_label_and_keeps_the_old_ones(bench: Bench, tmp_path: Path) -> None:
    bench.finetune(tmp_path / "out", replay_share=0.2, epochs=8)
    model = loaded(tmp_path / "out" / "checkpoint", LABELS).eval()
    features = read_features(bench.tokens / "validation.arrow")
    references = PROBLEM.encoding.references(features)
    right = predict_torch(model, PROBLEM.encoding, features, 0).argmax(-1) == references
    assert all(right[references == label].mean() > 0.9 for label in range(3))


def test_the_same_seed_gives_the_same_weights_also_when_killed(
    bench: Bench, tmp_path: Path
) -> None:
    whole = bench.finetune(tmp_path / "whole", replay_share=0.3)
    for step in (1, 9, whole["total_steps"]):
        bench.kill(tmp_path / "killed", step, bench.start, replay_share=0.3)
    killed = bench.finetune(tmp_path / "killed", replay_share=0.3)
    again = bench.finetune(tmp_path / "again", replay_share=0.3)
    other = bench.finetune(tmp_path / "other", replay_share=0.4)
    weights = {
        name: sha256_file(tmp_path / name / "checkpoint" / "model.safetensors")
        for name in ("whole", "killed", "again", "other")
    }
    assert weights["whole"] == weights["killed"] == weights["again"] != weights["other"]
    assert killed["evaluations"] == whole["evaluations"] == again["evaluations"]
    assert killed["start"] == whole["start"] != other["start"]


def test_another_start_or_share_never_resumes(bench: Bench, tmp_path: Path) -> None:
    def identity(start: Path | None, **params: Any) -> str:
        bench.kill(tmp_path / "out", 1, start, **params)
        return (tmp_path / "out" / "work" / "identity").read_text()

    other = tmp_path / "start"
    shutil.copytree(bench.start, other)
    config = json.loads((other / "checkpoint" / "config.json").read_text())
    # the same weights, with other meanings
    config["id2label"] = {"0": "negative", "1": "positive"}
    (other / "checkpoint" / "config.json").write_text(json.dumps(config))
    first, half = identity(bench.start), identity(bench.start, replay_share=0.5)
    assert len({first, half, identity(None), identity(other)}) == 4
    assert identity(bench.start) == first


def test_another_tokenizer_than_the_bases_is_refused(bench: Bench, tmp_path: Path) -> None:
    start = tmp_path / "start"
    shutil.copytree(bench.start, start)
    file = start / "tokens" / "tokenizer" / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    words = tokenizer["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    file.write_text(json.dumps(tokenizer))
    params = {"start_from": "champion"}
    with pytest.raises(ParamsError, match="tokenizer"):
        run_finetune(bench.base, bench.tokens, tmp_path / "out", start, LABELS, params)


def test_labels_that_make_a_weight_grow_both_ways_cannot_be_added() -> None:
    class Transitions(PreTrainedModel):
        config_class = BertConfig

        def __init__(self, config: BertConfig) -> None:
            super().__init__(config)
            labels = len(config.id2label or ())
            self.between = torch.nn.Parameter(torch.zeros(labels, labels))

    with pytest.raises(ParamsError, match="between, which grows along 2 axes"):
        label_axes(Transitions(BertConfig(id2label={0: "a", 1: "b", 2: "c"})))
