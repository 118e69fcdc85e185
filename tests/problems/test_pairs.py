"""Pairs of texts: metrics of scores and of orders, splits by query, losses, ranking."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
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

from applications.ranking import rank_candidates
from flows.workspaces.creation import guess_problem, make_workspace
from flows.workspaces.guessing import guess
from flows.workspaces.request import Request
from tasks.core.errors import DataError, ParamsError
from tasks.core.files import read_json, read_jsonl
from tasks.core.progress import silent
from tasks.data.quality.row_account import Account
from tasks.data.tables.loaded import SPLITS
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
    """(outputs, references) of some queries; outputs are scores plus noise, all distinct."""
    draw = np.random.default_rng(seed)
    scores = draw.integers(0, grades, size=queries * each).astype(np.float64)
    references = np.stack([scores, np.repeat(np.arange(queries), each)], 1).astype(np.float64)
    outputs = (scores + draw.normal(0, 1, len(scores))).astype(np.float32)
    return outputs, references


def metrics_of(outputs: Any, references: Any, draws: Draws | None = None) -> dict[str, float]:
    drawn = score_metrics(outputs, references)(draws or Draws.once(len(outputs)))
    return {name: float(values[0]) for name, values in drawn.items()}


def test_metrics_are_those_of_scipy_and_scikit_learn() -> None:
    outputs, references = judged()
    scores, metrics = references[:, 0], metrics_of(outputs, references)
    assert metrics["pearson"] == pytest.approx(pearsonr(outputs, scores).statistic, abs=1e-6)
    assert metrics["spearman"] == pytest.approx(spearmanr(outputs, scores).statistic, abs=1e-9)
    assert metrics["auc"] == pytest.approx(roc_auc_score(scores, outputs), abs=1e-9)


@pytest.mark.parametrize("grades", [2, 4])
def test_ndcg_is_that_of_scikit_learn(grades: int) -> None:
    outputs, references = judged(each=15, grades=grades)
    by_query = []
    for query in range(30):
        rows = references[:, QUERY] == query
        scores = references[rows, 0]
        if np.ptp(scores):
            relevance = (scores - scores.min())[None]
            by_query.append(ndcg_score(relevance, outputs[rows][None], k=10))
    expected = np.mean(by_query)
    assert metrics_of(outputs, references)["ndcg_at_10"] == pytest.approx(expected, abs=1e-6)


def test_the_rank_of_the_best_counts_from_one() -> None:
    references = np.asarray([[1, 7], [0, 7], [0, 7], [0, 9], [2, 9], [3, 5], [3, 5]], np.float64)
    outputs = np.asarray([0.5, 0.9, 0.1, 0.2, 0.3, 1.0, 2.0], np.float32)
    # a query whose scores are all equal has no best row
    assert sorted(rank_queries(outputs, references).rank.tolist()) == [1, 2]
    assert metrics_of(outputs, references)["mrr"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_model_that_says_the_same_of_all_gains_nothing_by_it() -> None:
    _, references = judged()
    metrics = metrics_of(np.zeros(len(references), np.float32), references)
    assert metrics["pearson"] == metrics["spearman"] == 0
    assert metrics["auc"] == 0.5
    worst = rank_queries(-references[:, 0].astype(np.float32), references)
    assert metrics["mrr"] == pytest.approx(np.mean(1 / worst.rank))


def test_metrics_that_rows_cannot_have_are_left_out() -> None:
    outputs, references = judged(queries=40, each=1, grades=5)
    assert set(metrics_of(outputs, references)) == {"pearson", "spearman", "mean_absolute_error"}


def test_a_query_drawn_twice_counts_twice() -> None:
    outputs, references = judged()
    first = references[:, QUERY] == 0
    weights = np.ones((1, len(outputs)))
    weights[0, first] = 2
    again = references[first] + [0, 1000]
    expected = metrics_of(
        np.concatenate([outputs, outputs[first]]), np.concatenate([references, again])
    )
    resampled = metrics_of(outputs, references, Draws(weights))
    assert resampled == pytest.approx(expected, abs=1e-9)


def test_rows_that_depend_on_each_other_make_the_interval_wider() -> None:
    """Thirty copies of a row are no more evidence than one."""
    scoring = load_problem("text-pair-score").scoring
    outputs, references = judged(queries=20, each=1)
    repeated, one_query = np.repeat(outputs, 30)[:, None], np.repeat(references, 30, axis=0)
    many_queries = one_query.copy()
    many_queries[:, QUERY] = np.arange(len(many_queries))
    widths = []
    for rows in (one_query, many_queries):
        interval = metric_intervals(scoring, repeated, rows, (), Resampling(300))["pearson"]
        widths.append(interval["high"] - interval["low"])
    assert widths[0] > 3 * widths[1]


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
            check_method(name, load_problem(name).objective, params, "cpu")


def pair_rows(questions: int = 60, answers: int = 4) -> dict[str, list[Any]]:
    """Questions with answers; every other answer is right, and positive."""
    texts = tiny_rows(questions)["text"]
    rows: dict[str, list[Any]] = {"text_a": [], "text_b": [], "score": []}
    for number, text in enumerate(texts):
        for i in range(answers):
            right = i % 2 == 0
            word = (POSITIVE if right else NEGATIVE)[(number + i) % 4]
            rows["text_a"].append(text)
            rows["text_b"].append(f"the {word} door number {number} of city {i}")
            rows["score"].append(float(right))
    return rows


def table(rows: dict[str, list[Any]], **more: list[Any]) -> pa.Table:
    count = len(rows["text_a"])
    origins = {"_file": ["a.csv"] * count, "_line": pa.array(range(2, count + 2), pa.int64())}
    return pa.table({"row": pa.array(range(count), pa.int64()), **rows, **more, **origins})


def write_table(directory: Path, rows: pa.Table) -> None:
    directory.mkdir()
    pq.write_table(rows, directory / "rows.parquet")
    Account(len(rows), len(rows)).write(directory)


def split_table(root: Path, rows: pa.Table, problem: str, **values: float) -> list[pa.Table]:
    """Tables of the training, validation and test split."""
    write_table(root / "valid", rows)
    labels = () if problem == "text-pair-score" else ("no", "yes")
    split = SplitParams.model_validate({"near_duplicate_similarity": 1, **values})
    splits = root / "splits"
    split_rows(root / "valid", splits, problem=problem, labels=labels, split=split, report=silent)
    return [pq.read_table(splits / f"{name}.parquet") for name in SPLITS]


@pytest.mark.parametrize(
    ("problem", "group"), [("text-pair", "text_a"), ("text-pair-score", "query")]
)
def test_no_question_is_in_two_splits(problem: str, group: str, tmp_path: Path) -> None:
    rows = pair_rows()
    labels = ["yes" if score else "no" for score in rows["score"]]
    more = {"query": rows["text_a"]} if group == "query" else {"label": labels}
    groups = [
        set(split[group].to_pylist())
        for split in split_table(tmp_path, table(rows, **more), problem)
    ]
    assert all(groups)
    assert len(set.union(*groups)) == sum(map(len, groups)) == 60


def test_a_pair_of_two_queries_stays_in_the_split_nearest_to_the_test_set(tmp_path: Path) -> None:
    rows = pair_rows(answers=1)
    twice: dict[str, list[Any]] = {name: values * 2 for name, values in rows.items()}
    twice["query"] = [f"user {i}" for i in range(len(twice["text_a"]))]
    splits = split_table(tmp_path, table(twice), "text-pair-score", validation=0.3, test=0.3)
    pairs = [
        set(zip(split["text_a"].to_pylist(), split["text_b"].to_pylist(), strict=True))
        for split in splits
    ]
    assert len(set.union(*pairs)) == sum(map(len, pairs)) == 60
    aside = read_jsonl(tmp_path / "splits" / "quarantine.jsonl")
    assert aside
    assert all("nearly the same text as a.csv line" in entry["reason"] for entry in aside)


def test_scores_that_are_out_of_range_or_no_numbers_are_named(tmp_path: Path) -> None:
    rows: dict[str, list[Any]] = pair_rows()
    rows["score"][5], rows["score"][7], rows["score"][9] = 4.0, None, float("nan")
    raw, report = tmp_path / "raw", tmp_path / "report.json"
    write_table(raw, table(rows, query=rows["text_a"]))
    message = r"the score is not from 0 to 1 \(validate.score_range\).*line 7"
    with pytest.raises(DataError, match=message):
        validate_rows(
            raw,
            tmp_path / "valid",
            report,
            tmp_path / "docs",
            problem="text-pair-score",
            labels=(),
            validate=ValidateParams(score_range=(0, 1)),
            report=silent,
        )
    unexpected = {check["name"]: check["unexpected"] for check in read_json(report)["checks"]}
    assert unexpected["null_score"] + unexpected["finite_score"] == 2


def test_the_plain_method_sees_words_in_common() -> None:
    texts_a = ["red house", "blue door", "old tree"]
    texts_b = ["a red house", "the blue door", "some other thing"]
    test = (["red door", "old tree"], ["the red door", "blue house"])
    scores = tfidf_cosine((texts_a, texts_b), [1.0, 1.0, 0.0], test)
    assert scores.shape == (2, 1)
    assert scores[0, 0] > scores[1, 0]


def test_pairs_are_guessed_from_foreign_columns() -> None:
    rows = pair_rows()
    questions = {"question": rows["text_a"], "answer": rows["text_b"]}
    queries = [str(i // 4) for i in range(240)]
    scored = guess({**questions, "relevance": rows["score"], "qid": queries}, None, {})
    assert scored.problem == "text-pair-score"
    assert (scored.columns["score"], scored.columns["query"]) == ("relevance", "qid")
    labels = ["yes" if score else "no" for score in rows["score"]]
    classed = guess({**questions, "label": labels}, None, {})
    assert classed.problem == "text-pair"
    assert classed.columns == {"text_a": "question", "text_b": "answer", "label": "label"}


def test_what_is_not_named_has_its_own_name() -> None:
    rows = pair_rows()
    foreign = {
        "utterance": rows["text_a"],
        "intent": rows["text_b"],
        "score": [int(score > 0.5) for score in rows["score"]],
    }
    named = {"text_a": "utterance", "text_b": "intent"}
    assert guess(foreign, "text-pair-score", named).columns == {**named, "score": "score"}


def test_identifiers_are_no_texts() -> None:
    ids = [f"{number:08x}" for number in range(0, 400, 10)]
    columns = {"id": ids, "prompt": ["Who are you?", "What do you like?"] * 20}
    with pytest.raises(ParamsError, match="fit no problem type"):
        guess(columns, None, {})
    answers = [f"it is {number}" for number in range(40)]
    guessed = guess({**columns, "answer": answers}, None, {})
    assert guessed.columns == {"text": "answer", "label": "prompt"}


def write(path: Path, rows: dict[str, list[Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(rows)
        writer.writerows(zip(*rows.values(), strict=True))
    return path


def test_pairs_are_trained_and_rank_what_they_are_asked(tmp_path: Path, base_dir: Path) -> None:
    data = write(tmp_path / "pairs.csv", pair_rows(questions=120))
    workspace = tmp_path / "w"
    request = Request(workspace, None, [str(data)], {}, "pairs", str(base_dir))
    made = make_workspace(request, guess_problem(request))
    assert (made.problem, made.labels) == ("text-pair-score", [])
    settings = [option for value in FAST for option in ("-S", value)]
    ratchet(workspace, "train", *settings, "-S", "finetune.loss=ranking")
    metrics = read_json(workspace / "reports" / "evaluation.json")["metrics"]
    assert metrics["auc"]["value"] > 0.9
    assert metrics["mrr"]["value"] > 0.9
    page = (workspace / "reports" / "report.html").read_text(encoding="utf-8")
    assert "Where the best comes" in page

    candidates = [
        "the awful door number 1 of city 2",
        "the lovely door number 3 of city 1",
        "the dull door number 2 of city 3",
    ]
    rank = ("rank", "a question")
    ranked = ratchet_json(workspace, *rank, *candidates)
    assert [entry["rank"] for entry in ranked] == [1, 2, 3]
    assert ranked[0]["text"] == candidates[1]
    scores = [entry["score"] for entry in ranked]
    assert scores == sorted(scores, reverse=True)
    answers = write(tmp_path / "answers.csv", {"text_b": candidates})
    assert ratchet_json(workspace, *rank, "--input", str(answers), "--top", "2") == ranked[:2]
    assert "no candidates" in ratchet(workspace, *rank, code=2).stderr
    labelled = ratchet(workspace, *rank, *candidates, "--label", "yes", code=2)
    assert "not classes" in labelled.stderr
    nothing = write(tmp_path / "nothing.csv", {"text_b": [""]})
    assert "has no texts" in ratchet(workspace, *rank, "--input", str(nothing), code=2).stderr
    assert "one after the other" in ratchet(workspace, "predict", "a", "b", "c", code=2).stderr


def test_classes_need_one_that_ranks() -> None:
    predictor: Any = SimpleNamespace(
        problem=load_problem("text-pair"), info=SimpleNamespace(labels=("no", "yes"))
    )
    for label, says in ((None, "which one should rank"), ("yess", "Did you mean 'yes'")):
        with pytest.raises(ParamsError, match=says):
            rank_candidates(predictor, "a", ["b"], label)
