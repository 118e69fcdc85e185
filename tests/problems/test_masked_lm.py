"""Masked language modelling: correct masks, checkpoints as base models, and `ratchet adapt`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_reports import evaluation
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
from tasks.training.networks.architecture import token_embeddings
from tasks.training.networks.scratch_model import (
    SPECIAL,
    Shape,
    make_scratch_model,
    train_tokenizer,
)

PROBLEM = load_problem("masked-lm")
VOCABULARY = Vocabulary(4, 200, frozenset(range(5)))
TEXTS = tiny_rows(60)["text"]
CHINESE = [
    "房间很干净，服务也好。",
    "位置不好，房间太小。",
    "早餐很好，位置也很好。",
    "服务太差，房间不干净。",
]


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
    given, places, right = mask_row(long_row(20_000), VOCABULARY)
    assert len(places) == round(SHARE * 20_000)
    changed = np.asarray([given[place] for place in places])
    assert (changed == VOCABULARY.mask).mean() == pytest.approx(HIDDEN, abs=0.03)
    assert (changed == np.asarray(right)).mean() == pytest.approx(1 - HIDDEN - OTHER, abs=0.03)
    assert [token for place, token in enumerate(given) if place not in set(places)] == [
        token for place, token in enumerate(long_row(20_000)) if place not in set(places)
    ]


def test_a_short_text_has_a_mask_and_special_tokens_never_are() -> None:
    assert mask_row([2, 17, 3], VOCABULARY)[1:] == ([1], [17])
    assert mask_row([2, 1, 3], VOCABULARY) == (
        [2, 1, 3],
        [0],
        [IGNORE_INDEX],
    )  # unknown characters alone: nothing is hidden


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
    for row, (given, references) in enumerate(zip(*first, strict=True)):
        masked = np.flatnonzero(references != IGNORE_INDEX)
        assert len(masked)
        assert references[masked].tolist() == [ids[row][place] for place in masked]
        assert all(features["maskable"][row][place] for place in masked)
        kept = [place for place in range(len(ids[row])) if place not in masked]
        assert given[kept].tolist() == [ids[row][place] for place in kept]


def test_training_masks_have_the_shares_of_bert() -> None:
    ids = [long_row(4000) for _ in range(4)]
    rows = [mask_row(row, VOCABULARY) for row in ids]
    features = {
        "input_ids": [given for given, _, _ in rows],
        "places": [places for _, places, _ in rows],
        "references": [right for _, _, right in rows],
        "maskable": [[int(token > 4) for token in row] for row in ids],
        "vocabulary": [[4, 200]] * 4,
    }
    seed_everything(0)
    given, references = draw_masks(features, 0)
    masked = references != IGNORE_INDEX
    assert masked.mean() == pytest.approx(SHARE, abs=0.01)
    assert (given[masked] == 4).mean() == pytest.approx(HIDDEN, abs=0.03)
    assert (given[masked] == references[masked]).mean() == pytest.approx(
        1 - HIDDEN - OTHER, abs=0.03
    )


def test_a_tokenizer_without_a_mask_is_told() -> None:
    with pytest.raises(SourceError, match="no mask token"):
        Vocabulary.of(
            Tokenizer.from_str(train_tokenizer(["a b"], 50).to_str().replace("[MASK]", "[GUESS]"))
        )


# --- metrics ---


def judged(base: Path) -> tuple[Any, Any, Any, dict[str, list[Any]]]:
    """(logits, outputs, references, features) of a model that is nobody's."""
    features = features_of(base, TEXTS)
    batch = PROBLEM.encoding.collate(features, 0)
    logits = (
        np.random.default_rng(0).normal(size=(*batch["input_ids"].shape, 200)).astype(np.float32)
        * 3
    )
    return logits, reduce_masked(logits, features), PROBLEM.encoding.references(features), features


def test_metrics_are_those_of_the_logits(base_dir: Path) -> None:
    logits, outputs, references, features = judged(base_dir)
    losses, hits = [], []
    for row, (places, right) in enumerate(
        zip(features["places"], features["references"], strict=True)
    ):
        at = torch.from_numpy(logits[row, places])
        losses += torch.nn.functional.cross_entropy(
            at, torch.tensor(right), reduction="none"
        ).tolist()
        hits += (at.argmax(-1) == torch.tensor(right)).tolist()
    found = PROBLEM.scoring.metrics(outputs, references, ())
    assert found["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(np.mean(losses)), rel=1e-4)
    assert found["masked_accuracy"] == pytest.approx(np.mean(hits))
    details = PROBLEM.scoring.details(outputs, references, ())
    assert details["tokens"] == len(losses) == sum(details["losses"]["counts"])
    assert PROBLEM.figures(evaluation(details=details))


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
    features = features_of(base_dir, ["a [MASK] film", "a film", ""])
    logits = np.zeros((3, 5, 200), np.float32)
    logits[0, 2, [7, 9]] = 9, 8
    question, text, nothing = PROBLEM.decoding.decode(
        reduce_masked(logits, features),
        {"text": ["a [MASK] film", "a film", ""]},
        (),
        Calibration(),
    )
    assert question["perplexity"] is None
    assert [fill["token"] for fill in question["fills"][:2]] == [7, 9]
    assert len(question["fills"]) == GUESSES
    assert question["fills"][0]["score"] > question["fills"][1]["score"]
    assert text["perplexity"] == pytest.approx(200)
    assert text["fills"] == []
    assert nothing == {"perplexity": None, "fills": []}
    assert [PROBLEM.decoding.describe(one) for one in (text, nothing)] == [
        "perplexity 200.0",
        "nothing to guess",
    ]


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
    with pytest.raises(ParamsError, match="no labels"):
        PROBLEM.scoring.behaviour_tests(
            {"text": TEXTS}, (), EvaluateParams.model_validate({"behaviour": behaviour}), 0
        )
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
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (
        tmp_path / "two" / "model.safetensors"
    ).read_bytes()
    model = PROBLEM.objective.load_model(tmp_path / "one", ())
    assert (model.config.num_hidden_layers, model.config.hidden_size) == (2, 48)
    assert model.config.vocab_size == load_tokenizer(tmp_path / "one").get_vocab_size() <= 120
    assert Shape(width=100).heads == 1
    assert Shape(width=256).heads == 4


# --- the whole way ---


@pytest.fixture(scope="module")
def adapted(base_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ratchet adapt` on a tiny base, in one command."""
    root = tmp_path_factory.mktemp("adapt")
    write_csv(root / "texts.csv", {"sentence": tiny_rows(300)["text"]})
    fast = [
        word
        for value in (*FAST, "finetune.epochs=4", "verify.max_metric_loss=0.3")
        for word in ("-S", value)
    ]
    done = ratchet_json(
        root,
        "adapt",
        "adapted",
        "--data",
        "texts.csv",
        "--text",
        "sentence",
        "--base-model",
        str(base_dir),
        *fast,
    )
    assert done["state"] == "trained"
    assert done["base_model"] == "path: ../adapted/models/checkpoint"
    return root / "adapted"


def test_adapting_lowers_the_perplexity(adapted: Path) -> None:
    evaluations = read_json(adapted / "reports" / "training.json")["evaluations"]
    assert evaluations[-1]["perplexity"] < evaluations[0]["perplexity"]
    assert read_json(adapted / "reports" / "metrics.json")["perplexity"] < 150  # of 200 tokens
    assert (
        Workspace(adapted).params().finetune.learning_rate == 0.005
    )  # what was set is written down


def test_the_same_command_again_changes_nothing(adapted: Path) -> None:
    assert (
        ratchet_json(
            adapted.parent, "adapt", "adapted", "--data", "texts.csv", "--text", "sentence"
        )["state"]
        == "cached"
    )
    error = json.loads(
        ratchet(adapted.parent, "adapt", "adapted", "--data", "other.csv", "--json", code=2).stdout
    )["error"]
    assert error["message"].endswith("and data ../texts.csv.")


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
    ratchet(
        root,
        "init",
        "another",
        "--data",
        "labelled.csv",
        "--problem",
        "text-classification",
        "--base-model",
        checkpoint,
    )
    assert 'path: "../adapted/models/checkpoint"' in (root / "another" / "params.yaml").read_text(
        encoding="utf-8"
    )
    save_overrides(root / "another" / "params.yaml", FAST)
    done = ratchet_json(root / "another", "train")
    assert done["state"] == "trained"
    assert done["metrics"]["accuracy"] > 0.5
    model, start = (
        load_problem(name).objective.load_model(root / checkpoint, labels)
        for name, labels in (("text-classification", ("a", "b")), ("masked-lm", ()))
    )
    assert torch.equal(token_embeddings(model), token_embeddings(start))


def test_from_scratch_it_makes_its_own_base(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    write_csv(
        tmp_path / "reviews.csv",
        {
            "text": [
                "".join(draw.choice(list("房间很干净服务也好位置不太小早餐差"), 12)) + "。"
                for _ in range(150)
            ]
        },
    )
    fast = [
        word
        for value in (*FAST, "finetune.epochs=1", "verify.max_metric_loss=1")
        for word in ("-S", value)
    ]
    shape = ("--vocabulary", "200", "--layers", "1", "--width", "32")
    out = ratchet(
        tmp_path, "adapt", "zh", "--data", "reviews.csv", "--from-scratch", *shape, *fast
    ).stdout
    assert "path: ../zh/models/checkpoint" in out
    assert (tmp_path / "zh" / "base" / "tokenizer.json").is_file()
    assert (tmp_path / "zh" / "models" / "checkpoint" / "tokenizer.json").is_file()
    params = Workspace(tmp_path / "zh").params()
    assert (params.base_model.path, params.base_model.sha256) == ("./base", None)
    assert (
        params.finetune.epochs == 1
    )  # a value that was asked for, not that for models from scratch
