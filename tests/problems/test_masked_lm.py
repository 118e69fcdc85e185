"""Masked language modelling: masks, metrics, models from scratch, and `ratchet adapt`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_rows
from tokenizers import Tokenizer
from workspaces import FAST, ratchet, ratchet_json, write_csv

from tasks.core.errors import ParamsError, SourceError
from tasks.core.files import read_json
from tasks.core.seeds import seed_everything
from tasks.encoding.encoder import encode_rows
from tasks.encoding.masking import HIDDEN, OTHER, SHARE, Vocabulary, draw_masks, mask_row, unmasked
from tasks.encoding.token_files import load_tokenizer
from tasks.encoding.windows import IGNORE_INDEX
from tasks.inference.calibration import Calibration
from tasks.params.schema import EvaluateParams, save_overrides
from tasks.params.workspace import Workspace
from tasks.problems import load_problem
from tasks.scoring.tokens import GUESSES, LEAD, LIKELIHOOD, reduce_masked
from tasks.training.networks.scratch_model import (
    SPECIAL,
    Shape,
    make_scratch_model,
    train_tokenizer,
)

PROBLEM = load_problem("masked-lm")
VOCABULARY = Vocabulary(4, 200, frozenset(range(5)))
TEXTS = tiny_rows(60)["text"]
CHINESE = ["房间很干净，服务也好。", "位置不好，房间太小。"]
CHINESE += ["早餐很好，位置也很好。", "服务太差，房间不干净。"]


def long_row(tokens: int) -> list[int]:
    return [2, *np.random.default_rng(tokens).integers(5, 200, tokens).tolist(), 3]


def features_of(base: Path, texts: list[str], length: int = 32) -> dict[str, list[Any]]:
    return encode_rows(PROBLEM.encoding, load_tokenizer(base, length), {"text": texts}, ())


# --- masks ---


def test_masks_for_judging_rest_on_the_tokens_alone(base_dir: Path) -> None:
    features = features_of(base_dir, TEXTS)
    backwards = features_of(base_dir, TEXTS[::-1])
    assert {name: values[::-1] for name, values in backwards.items()} == features
    assert all(features["places"])


def test_masks_have_the_shares_of_bert() -> None:
    row = long_row(20_000)
    masked, positions, right = mask_row(row, VOCABULARY)
    assert len(positions) == round(SHARE * 20_000)
    chosen = np.asarray(masked)[positions]
    assert (chosen == VOCABULARY.mask).mean() == pytest.approx(HIDDEN, abs=0.03)
    assert (chosen == np.asarray(right)).mean() == pytest.approx(1 - HIDDEN - OTHER, abs=0.03)
    others = np.setdiff1d(np.arange(len(row)), positions)
    np.testing.assert_array_equal(np.asarray(masked)[others], np.asarray(row)[others])


def test_a_short_text_has_a_mask_and_special_tokens_never_are() -> None:
    assert mask_row([2, 17, 3], VOCABULARY)[1:] == ([1], [17])
    # a row of unknown characters has nothing to mask
    assert mask_row([2, 1, 3], VOCABULARY) == ([2, 1, 3], [0], [IGNORE_INDEX])


def test_a_text_that_asks_is_left_as_it_is(base_dir: Path) -> None:
    features = features_of(base_dir, ["a good [MASK]", "[MASK] [MASK]."])
    assert "references" not in features
    assert list(map(len, features["places"])) == [1, 2]
    both = features_of(base_dir, ["a good [MASK]", "a good film"])
    assert [IGNORE_INDEX in right for right in both["references"]] == [True, False]


def test_training_draws_new_masks_each_time_and_the_same_from_the_same_state(
    base_dir: Path,
) -> None:
    features = features_of(base_dir, TEXTS)
    seed_everything(3)
    first, second = draw_masks(features, 0), draw_masks(features, 0)
    seed_everything(3)
    again = draw_masks(features, 0)
    for ours, theirs in zip(first, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first[1], second[1])
    ids = unmasked(features)
    for row, (inputs, references) in enumerate(zip(*first, strict=True)):
        masked = np.flatnonzero(references != IGNORE_INDEX)
        assert len(masked)
        assert references[masked].tolist() == [ids[row][position] for position in masked]
        assert all(features["maskable"][row][position] for position in masked)
        kept = [position for position in range(len(ids[row])) if position not in masked]
        assert inputs[kept].tolist() == [ids[row][position] for position in kept]


def test_training_masks_have_the_shares_of_bert() -> None:
    ids = [long_row(4000) for _ in range(4)]
    rows = [mask_row(row, VOCABULARY) for row in ids]
    features = {
        "input_ids": [inputs for inputs, _, _ in rows],
        "places": [positions for _, positions, _ in rows],
        "references": [right for _, _, right in rows],
        "maskable": [[int(token > 4) for token in row] for row in ids],
        "vocabulary": [[4, 200]] * 4,
    }
    seed_everything(0)
    inputs, references = draw_masks(features, 0)
    masked = references != IGNORE_INDEX
    unchanged = inputs[masked] == references[masked]
    assert masked.mean() == pytest.approx(SHARE, abs=0.01)
    assert (inputs[masked] == 4).mean() == pytest.approx(HIDDEN, abs=0.03)
    assert unchanged.mean() == pytest.approx(1 - HIDDEN - OTHER, abs=0.03)


def test_a_tokenizer_without_a_mask_is_told() -> None:
    renamed = train_tokenizer(["a b"], 50).to_str().replace("[MASK]", "[GUESS]")
    with pytest.raises(SourceError, match="no mask token"):
        Vocabulary.of(Tokenizer.from_str(renamed))


# --- metrics ---


def judged(base: Path) -> tuple[Any, Any, Any, dict[str, list[Any]]]:
    """(random logits, outputs, references, features)."""
    features = features_of(base, TEXTS)
    shape = PROBLEM.encoding.collate(features, 0)["input_ids"].shape
    logits = np.random.default_rng(0).normal(size=(*shape, 200)).astype(np.float32) * 3
    return logits, reduce_masked(logits, features), PROBLEM.encoding.references(features), features


def test_metrics_are_those_of_the_logits(base_dir: Path) -> None:
    logits, outputs, references, features = judged(base_dir)
    losses, hits = [], []
    masks = zip(features["places"], features["references"], strict=True)
    for row, (positions, tokens) in enumerate(masks):
        masked, right = torch.from_numpy(logits[row, positions]), torch.tensor(tokens)
        losses += torch.nn.functional.cross_entropy(masked, right, reduction="none").tolist()
        hits += (masked.argmax(-1) == right).tolist()
    metrics = PROBLEM.scoring.metrics(outputs, references, ())
    assert metrics["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert metrics["masked_accuracy"] == pytest.approx(np.mean(hits))
    details = PROBLEM.scoring.details(outputs, references, ())
    assert details["tokens"] == len(losses) == sum(details["losses"]["counts"])
    assert PROBLEM.figures({"details": details})


def test_what_is_kept_does_not_grow_with_the_vocabulary(base_dir: Path) -> None:
    _, outputs, references, _ = judged(base_dir)
    assert outputs.shape == (*references.shape, 2 + 2 * GUESSES)
    np.testing.assert_array_equal(np.isnan(outputs[..., LIKELIHOOD]), references == IGNORE_INDEX)


def test_a_row_is_right_if_half_of_its_hidden_tokens_are(base_dir: Path) -> None:
    _, outputs, references, _ = judged(base_dir)
    outputs[..., LEAD] = -1.0
    assert not PROBLEM.scoring.correct(outputs, references).any()
    outputs[:, 0, LEAD] = 1.0
    few = (references != IGNORE_INDEX).sum(1) <= 2
    np.testing.assert_array_equal(PROBLEM.scoring.correct(outputs, references), few)
    assert PROBLEM.scoring.agreement(outputs, outputs) == (1.0, 0.0)


def test_a_question_is_answered_with_the_likeliest_tokens(base_dir: Path) -> None:
    texts = ["a [MASK] film", "a film", ""]
    logits = np.zeros((3, 5, 200), np.float32)
    logits[0, 2, [7, 9]] = 9, 8
    outputs = reduce_masked(logits, features_of(base_dir, texts))
    predictions = PROBLEM.decoding.decode(outputs, {"text": texts}, (), Calibration())
    question, text, nothing = predictions
    assert question["perplexity"] is None
    assert [fill["token"] for fill in question["fills"][:2]] == [7, 9]
    assert len(question["fills"]) == GUESSES
    assert question["fills"][0]["score"] > question["fills"][1]["score"]
    assert text["perplexity"] == pytest.approx(200)
    assert text["fills"] == []
    assert nothing == {"perplexity": None, "fills": []}
    assert PROBLEM.decoding.describe(text) == "perplexity 200.0"
    assert PROBLEM.decoding.describe(nothing) == "nothing to guess"


def test_there_is_nothing_to_learn_from_unknown_characters_alone(base_dir: Path) -> None:
    features = features_of(base_dir, ["\u4e00", "\u4e8c"])
    features["references"] = [[IGNORE_INDEX]] * 2
    batch, references = PROBLEM.encoding.training_batch(features, 0)
    outputs = torch.zeros(*batch["input_ids"].shape, 200, requires_grad=True)
    loss = PROBLEM.objective.losses["default"](
        outputs, torch.from_numpy(references), label_smoothing=0.0, class_weights=None
    )
    loss.backward()
    assert float(loss.detach()) == 0


def test_what_needs_labels_is_refused() -> None:
    behaviour = {"minimum_functionality": [{"name": "x", "label": "y", "texts": ["a"]}]}
    evaluate = EvaluateParams.model_validate({"behaviour": behaviour})
    with pytest.raises(ParamsError, match="no labels"):
        PROBLEM.scoring.behaviour_tests({"text": TEXTS}, (), evaluate, 0)
    with pytest.raises(ParamsError, match="no classes"):
        PROBLEM.objective.class_weights(np.zeros((1, 1)), (), "balanced")


# --- from scratch ---


def test_a_tokenizer_of_chinese_takes_characters_for_words() -> None:
    tokenizer = train_tokenizer(CHINESE, 200)
    assert tokenizer.encode("房间很小。").tokens == ["[CLS]", "房", "间", "很", "小", "。", "[SEP]"]
    assert all(tokenizer.token_to_id(name) is not None for name in SPECIAL)
    assert train_tokenizer(CHINESE, 200).to_str() == tokenizer.to_str()


def test_a_model_from_scratch_is_small_and_the_same_again(tmp_path: Path) -> None:
    shape = Shape(vocabulary=120, layers=2, width=48)
    before = torch.get_rng_state()
    for name in ("one", "two"):
        make_scratch_model(TEXTS, tmp_path / name, shape, seed=7)
    assert torch.equal(torch.get_rng_state(), before)
    first, second = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()
    model = PROBLEM.objective.load_model(tmp_path / "one", ())
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 48)
    assert model.config.vocab_size == load_tokenizer(tmp_path / "one").get_vocab_size() <= 120
    assert Shape(width=100).heads == 1
    assert Shape(width=256).heads == 4


# --- the whole way ---


def options(*overrides: str) -> list[str]:
    """`-S` options with the settings of a fast run, and more."""
    return [word for override in (*FAST, *overrides) for word in ("-S", override)]


@pytest.fixture(scope="module")
def adapted(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ratchet adapt` on a tiny base, in one command."""
    root = tmp_path_factory.mktemp("adapt")
    write_csv(root / "texts.csv", {"sentence": tiny_rows(300)["text"]})
    command = ["adapt", "adapted", "--data", "texts.csv", "--text", "sentence"]
    command += ["--base-model", str(base_dir)]
    command += options("finetune.epochs=4", "verify.max_metric_loss=0.3")
    done = ratchet_json(root, *command)
    assert done["state"] == "trained"
    assert done["base_model"] == "path: ../adapted/models/checkpoint"
    return root / "adapted"


def test_adapting_lowers_the_perplexity(adapted: Path) -> None:
    evaluations = read_json(adapted / "reports" / "training.json")["evaluations"]
    assert evaluations[-1]["perplexity"] < evaluations[0]["perplexity"]
    assert read_json(adapted / "reports" / "metrics.json")["perplexity"] < 150  # of 200 tokens
    # the overrides are written to params.yaml
    assert Workspace(adapted).params().finetune.learning_rate == 0.005


def test_the_same_command_again_changes_nothing(adapted: Path) -> None:
    root = adapted.parent
    command = ("adapt", "adapted", "--data")
    assert ratchet_json(root, *command, "texts.csv", "--text", "sentence")["state"] == "cached"
    refused = ratchet(root, *command, "other.csv", "--json", code=2)
    message = json.loads(refused.stdout)["error"]["message"]
    assert message.endswith("and data ../texts.csv.")


def test_it_answers_and_scores(adapted: Path) -> None:
    asked, text = ratchet_json(adapted, "predict", "the [MASK] was good", "the film was good")
    assert len(asked["predicted_fills"]) == GUESSES
    assert all(isinstance(fill["token"], str) for fill in asked["predicted_fills"])
    assert text["predicted_perplexity"] > 1
    promoted = ratchet_json(adapted, "promote")
    assert promoted["decision"]["outcome"] == "promoted", promoted["decision"]["reason"]


def test_its_checkpoint_is_another_workspaces_base(adapted: Path) -> None:
    root = adapted.parent
    write_csv(root / "labelled.csv", tiny_rows(240))
    checkpoint = "adapted/models/checkpoint"
    command = ["init", "another", "--data", "labelled.csv", "--problem", "text-classification"]
    ratchet(root, *command, "--base-model", checkpoint)
    params = root / "another" / "params.yaml"
    assert 'path: "../adapted/models/checkpoint"' in params.read_text(encoding="utf-8")
    save_overrides(params, FAST)
    done = ratchet_json(root / "another", "train")
    assert done["state"] == "trained"
    assert done["metrics"]["accuracy"] > 0.5
    classifier = load_problem("text-classification")
    model = classifier.objective.load_model(root / checkpoint, ("a", "b"))
    start = PROBLEM.objective.load_model(root / checkpoint, ())
    assert torch.equal(model.get_input_embeddings().weight, start.get_input_embeddings().weight)


def test_from_scratch_it_makes_its_own_base(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    characters = list("房间很干净服务也好位置不太小早餐差")
    texts = ["".join(draw.choice(characters, 12)) + "。" for _ in range(150)]
    write_csv(tmp_path / "reviews.csv", {"text": texts})
    command = ["adapt", "zh", "--data", "reviews.csv", "--from-scratch"]
    command += ["--vocabulary", "200", "--layers", "1", "--width", "32"]
    command += options("finetune.epochs=1", "verify.max_metric_loss=1")
    assert "path: ../zh/models/checkpoint" in ratchet(tmp_path, *command).stdout
    assert (tmp_path / "zh" / "base" / "tokenizer.json").is_file()
    assert (tmp_path / "zh" / "models" / "checkpoint" / "tokenizer.json").is_file()
    params = Workspace(tmp_path / "zh").params()
    assert (params.base_model.path, params.base_model.sha256) == ("./base", None)
    # the override, not the default for models from scratch
    assert params.finetune.epochs == 1
