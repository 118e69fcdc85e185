"""Pairs of texts: metrics of scores and of orders, splits by query, losses, ranking."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import ndcg_score, roc_auc_score
from tiny import NEGATIVE, POSITIVE, tiny_rows
from workspaces import FAST, ratchet, ratchet_json

from flows.workspaces.creation import Request, guess_problem, make_workspace
from flows.workspaces.guessing import guess
from tasks.core.errors import DataError, ParamsError
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account
from tasks.params.finetuning import FinetuneParams
from tasks.params.schema import SplitParams, ValidateParams
from tasks.problems import load_problem
from tasks.scoring.pairs import QUERY, query_number, rank_queries, ranked_right, score_metrics
from tasks.scoring.statistics.bootstrap import Resampling, metric_intervals
from tasks.scoring.statistics.draws import Draws
from tasks.scoring.tfidf_baseline import tfidf_cosine
from tasks.splitting import split_rows
from tasks.training.methods.compatibility import check_method
from tasks.validation import validate_rows


def judged(queries: int = 30, each: int = 8, seed: int = 0, grades: int = 2) -> tuple[Any, Any]:
    """(outputs, references) of some queries; outputs follow the scores with noise, and no two are equal."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, grades, size=queries * each).astype(np.float64)
    references = np.stack([scores, np.repeat(np.arange(queries), each)], 1).astype(np.float64)
    outputs = (scores + draw.normal(0, 1, len(scores))).astype(np.float32)
    return outputs, references


def found(outputs: Any, references: Any) -> dict[str, float]:
    return {
        name: float(values[0])
        for name, values in score_metrics(outputs, references)(Draws.once(len(outputs))).items()
    }


def test_metrics_are_those_of_scipy_and_scikit_learn() -> None:
    outputs, references = judged()
    scores, metrics = references[:, 0], found(outputs, references)
    assert metrics["pearson"] == pytest.approx(pearsonr(outputs, scores).statistic, abs=1e-6)
    assert metrics["spearman"] == pytest.approx(spearmanr(outputs, scores).statistic, abs=1e-9)
    assert metrics["auc"] == pytest.approx(roc_auc_score(scores, outputs), abs=1e-9)


@pytest.mark.parametrize("grades", [2, 4])
def test_ndcg_is_that_of_scikit_learn(grades: int) -> None:
    outputs, references = judged(each=15, grades=grades)
    by_query = [
        (references[references[:, QUERY] == q, 0], outputs[references[:, QUERY] == q])
        for q in range(30)
    ]
    wanted = np.mean(
        [
            ndcg_score((scores - scores.min())[None], said[None], k=10)
            for scores, said in by_query
            if np.ptp(scores)
        ]
    )
    assert found(outputs, references)["ndcg_at_10"] == pytest.approx(wanted, abs=1e-6)


def test_the_rank_of_the_best_counts_from_one() -> None:
    references = np.asarray([[1, 7], [0, 7], [0, 7], [0, 9], [2, 9], [3, 5], [3, 5]], np.float64)
    outputs = np.asarray([0.5, 0.9, 0.1, 0.2, 0.3, 1.0, 2.0], np.float32)
    assert sorted(rank_queries(outputs, references).rank.tolist()) == [
        1,
        2,
    ]  # the query whose rows are alike has no best
    assert found(outputs, references)["mrr"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_model_that_says_the_same_of_all_gains_nothing_by_it() -> None:
    _, references = judged()
    metrics = found(np.zeros(len(references), np.float32), references)
    assert metrics["pearson"] == metrics["spearman"] == 0
    assert metrics["auc"] == 0.5
    worst = rank_queries(-references[:, 0].astype(np.float32), references)
    assert metrics["mrr"] == pytest.approx(np.mean(1 / worst.rank))


def test_metrics_that_rows_cannot_have_are_left_out() -> None:
    outputs, references = judged(queries=40, each=1, grades=5)
    assert set(found(outputs, references)) == {"pearson", "spearman", "mean_absolute_error"}


def test_a_query_drawn_twice_counts_twice() -> None:
    outputs, references = judged()
    weights = np.ones((1, len(outputs)))
    weights[0, references[:, QUERY] == 0] = 2
    again = references[references[:, QUERY] == 0] + [0, 1000]
    wanted = found(
        np.concatenate([outputs, outputs[references[:, QUERY] == 0]]),
        np.concatenate([references, again]),
    )
    resampled = {
        name: float(values[0])
        for name, values in score_metrics(outputs, references)(Draws(weights)).items()
    }
    assert resampled == pytest.approx(wanted, abs=1e-9)


def test_rows_that_depend_on_each_other_make_the_interval_wider() -> None:
    """The same answer thirty times over is no more evidence than once."""
    kind = load_problem("text-pair-score")
    outputs, references = judged(queries=20, each=1)
    many, same = np.repeat(outputs, 30)[:, None], np.repeat(references, 30, axis=0)
    apart = same.copy()
    apart[:, QUERY] = np.arange(len(apart))
    together, alone = (
        metric_intervals(kind.scoring, many, rows, (), Resampling(300))["pearson"]
        for rows in (same, apart)
    )
    assert together["high"] - together["low"] > 3 * (alone["high"] - alone["low"])


def test_a_row_is_right_where_it_is_on_the_right_side_of_most() -> None:
    outputs, references = judged(grades=3)
    assert ranked_right(references[:, 0].astype(np.float32), references).all()
    assert not ranked_right(-references[:, 0].astype(np.float32), references).any()
    assert 0.4 < ranked_right(outputs, references).mean() < 1


def test_a_query_has_one_number() -> None:
    numbers = {query_number(f"question {i}") for i in range(1000)}
    assert len(numbers) == 1000
    assert all(number == int(number) < 2**48 for number in numbers)


@pytest.mark.parametrize("loss", ["regression", "ranking"])
def test_a_loss_is_lowest_where_scores_are_right(loss: str) -> None:
    measure = load_problem("text-pair-score").objective.losses[loss]
    references = torch.tensor([[0.0, 1], [1.0, 1], [2.0, 2], [1.0, 2]], dtype=torch.float64)

    def of(outputs: torch.Tensor) -> float:
        return float(measure(outputs, references, label_smoothing=0.0, class_weights=None))

    right = references[:, :1].float()
    assert of(right) < of(right.flip(0)) < of(-3 * right)


def test_an_unknown_loss_is_told_before_anything_runs() -> None:
    params = FinetuneParams.model_validate({"loss": "rankin"})
    for name, says in (
        ("text-pair-score", r"no loss 'rankin'.*Did you mean 'ranking'"),
        ("text-classification", "text-classification has no loss"),
    ):
        with pytest.raises(ParamsError, match=says):
            check_method(name, load_problem(name).objective.losses, params, "cpu")


def pair_rows(questions: int = 60, answers: int = 4) -> dict[str, list[Any]]:
    """Questions with answers, of which those in the question's mood are right."""
    texts = tiny_rows(questions)["text"]
    rows: dict[str, list[Any]] = {"text_a": [], "text_b": [], "score": []}
    for number, text in enumerate(texts):
        for place in range(answers):
            right = place % 2 == 0
            rows["text_a"].append(text)
            rows["text_b"].append(
                f"the {(POSITIVE if right else NEGATIVE)[(number + place) % 4]} door number {number} of city {place}"
            )
            rows["score"].append(float(right))
    return rows


def table(rows: dict[str, list[Any]], **more: list[Any]) -> pa.Table:
    count = len(rows["text_a"])
    places = {"_file": ["a.csv"] * count, "_line": pa.array(range(2, count + 2), pa.int64())}
    return pa.table({"row": pa.array(range(count), pa.int64()), **rows, **more, **places})


@pytest.mark.parametrize(
    ("problem", "group"), [("text-pair", "text_a"), ("text-pair-score", "query")]
)
def test_no_question_is_in_two_splits(problem: str, group: str, tmp_path: Path) -> None:
    rows = pair_rows()
    more = (
        {"query": rows["text_a"]}
        if group == "query"
        else {"label": ["yes" if s else "no" for s in rows["score"]]}
    )
    (tmp_path / "valid").mkdir()
    made = table(rows, **more)
    pq.write_table(made, tmp_path / "valid" / "rows.parquet")
    Account(len(made), len(made)).write(tmp_path / "valid")
    params = SplitParams(near_duplicate_similarity=1)
    split_rows(
        tmp_path / "valid",
        tmp_path / "splits",
        problem=problem,
        labels=("no", "yes"),
        split=params,
        report=silent,
    )
    parts = [
        set(pq.read_table(tmp_path / "splits" / f"{name}.parquet")[group].to_pylist())
        for name in ("train", "validation", "test")
    ]
    assert all(parts)
    assert len(set.union(*parts)) == sum(map(len, parts)) == 60


def test_a_pair_of_two_queries_stays_in_the_split_nearest_to_the_test_set(tmp_path: Path) -> None:
    rows = pair_rows(answers=1)
    twice: dict[str, list[Any]] = {name: values * 2 for name, values in rows.items()}
    twice["query"] = [f"user {i}" for i in range(len(twice["text_a"]))]
    (tmp_path / "valid").mkdir()
    made = table(twice)
    pq.write_table(made, tmp_path / "valid" / "rows.parquet")
    Account(len(made), len(made)).write(tmp_path / "valid")
    params = SplitParams(near_duplicate_similarity=1, validation=0.3, test=0.3)
    split_rows(
        tmp_path / "valid",
        tmp_path / "splits",
        problem="text-pair-score",
        labels=(),
        split=params,
        report=silent,
    )
    pairs = [
        {(a, b) for a, b in zip(part["text_a"], part["text_b"], strict=True)}
        for part in (
            pq.read_table(tmp_path / "splits" / f"{name}.parquet").to_pydict()
            for name in ("train", "validation", "test")
        )
    ]
    assert len(set.union(*pairs)) == sum(map(len, pairs)) == 60
    left = [
        json.loads(line)
        for line in (tmp_path / "splits" / "quarantine.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    assert left
    assert all("nearly the same text as a.csv line" in entry["reason"] for entry in left)


def test_scores_that_are_out_of_range_or_no_numbers_are_named(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = pair_rows()
    rows["score"][5], rows["score"][7], rows["score"][9] = 4.0, None, float("nan")
    (tmp_path / "raw").mkdir()
    made = table(rows, query=rows["text_a"])
    pq.write_table(made, tmp_path / "raw" / "rows.parquet")
    Account(len(made), len(made)).write(tmp_path / "raw")
    with pytest.raises(
        DataError, match=r"the score is not from 0 to 1 \(validate.score_range\).*line 7"
    ):
        validate_rows(
            tmp_path / "raw", tmp_path / "valid", tmp_path / "report.json", tmp_path / "docs", problem="text-pair-score", labels=(),
            validate=ValidateParams(score_range=(0, 1)), report=silent,
        )  # fmt: skip
    report = {
        check["name"]: check
        for check in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["checks"]
    }
    assert report["null_score"]["unexpected"] + report["finite_score"]["unexpected"] == 2


def test_the_plain_method_sees_words_in_common() -> None:
    pairs = (
        ["red house", "blue door", "old tree"],
        ["a red house", "the blue door", "some other thing"],
    )
    said = tfidf_cosine(
        pairs, [1.0, 1.0, 0.0], (["red door", "old tree"], ["the red door", "blue house"])
    )
    assert said.shape == (2, 1)
    assert said[0, 0] > said[1, 0]


def test_pairs_are_guessed_from_foreign_columns() -> None:
    rows = pair_rows()
    questions = {"question": rows["text_a"], "answer": rows["text_b"]}
    scored = guess(
        {**questions, "relevance": rows["score"], "qid": [str(i // 4) for i in range(240)]},
        None,
        {},
    )
    assert (scored.problem, scored.columns["score"], scored.columns["query"]) == (
        "text-pair-score",
        "relevance",
        "qid",
    )
    classed = guess({**questions, "label": ["yes" if s else "no" for s in rows["score"]]}, None, {})
    assert (classed.problem, classed.columns) == (
        "text-pair",
        {"text_a": "question", "text_b": "answer", "label": "label"},
    )


def test_what_is_not_named_has_its_own_name() -> None:
    rows = pair_rows()
    foreign = {
        "utterance": rows["text_a"],
        "intent": rows["text_b"],
        "score": [int(score > 0.5) for score in rows["score"]],
    }
    found = guess(foreign, "text-pair-score", {"text_a": "utterance", "text_b": "intent"})
    assert found.columns == {"text_a": "utterance", "text_b": "intent", "score": "score"}


def test_identifiers_are_no_texts() -> None:
    ids, prompts = (
        [f"{number:08x}" for number in range(0, 400, 10)],
        ["Who are you?", "What do you like?"] * 20,
    )
    with pytest.raises(ParamsError, match="fit no problem type"):
        guess({"id": ids, "prompt": prompts}, None, {})
    found = guess(
        {"id": ids, "prompt": prompts, "answer": [f"it is {number}" for number in range(40)]},
        None,
        {},
    )
    assert found.columns == {"text": "answer", "label": "prompt"}


def write(path: Path, rows: dict[str, list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return path


def test_pairs_are_trained_and_rank_what_they_are_asked(tmp_path: Path, base_dir: Path) -> None:
    data = write(tmp_path / "pairs.csv", pair_rows(questions=120))
    made = make_workspace(
        request := Request(tmp_path / "w", None, [str(data)], {}, "pairs", str(base_dir)),
        guess_problem(request),
    )
    assert (made.problem, made.labels) == ("text-pair-score", [])
    settings = [option for value in FAST for option in ("-S", value)]
    ratchet(tmp_path / "w", "train", *settings, "-S", "finetune.loss=ranking")
    evaluation = json.loads(
        (tmp_path / "w" / "reports" / "evaluation.json").read_text(encoding="utf-8")
    )
    assert evaluation["metrics"]["auc"]["value"] > 0.9
    assert evaluation["metrics"]["mrr"]["value"] > 0.9
    assert "Where the best comes" in (tmp_path / "w" / "reports" / "report.html").read_text(
        encoding="utf-8"
    )

    candidates = [
        "the awful door number 1 of city 2",
        "the lovely door number 3 of city 1",
        "the dull door number 2 of city 3",
    ]
    ranked = ratchet_json(tmp_path / "w", "rank", "a question", *candidates)
    assert [one["rank"] for one in ranked] == [1, 2, 3]
    assert ranked[0]["text"] == candidates[1]
    assert sorted((one["score"] for one in ranked), reverse=True) == [
        one["score"] for one in ranked
    ]
    write(tmp_path / "answers.csv", {"text_b": candidates})
    assert (
        ratchet_json(
            tmp_path / "w",
            "rank",
            "a question",
            "--input",
            str(tmp_path / "answers.csv"),
            "--top",
            "2",
        )
        == ranked[:2]
    )
    assert "no candidates" in ratchet(tmp_path / "w", "rank", "a question", code=2).stderr
    assert (
        "not classes"
        in ratchet(
            tmp_path / "w", "rank", "a question", *candidates, "--label", "yes", code=2
        ).stderr
    )
