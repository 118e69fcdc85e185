"""Token classification: named entities, words in and spans of them out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.core.errors import ParamsError
from tasks.core.ragged import as_wide
from tasks.data.quality.checks import Check
from tasks.data.quality.tag_checks import bio_checks, bio_facts
from tasks.data.tables.column_guesses import lists, texts
from tasks.data.tables.readings import Given, Reading, one_column, read_as
from tasks.data.tables.tag_schemes import (
    PREFIXES,
    as_iob2,
    is_iob1,
    numbered,
    spans_of,
    unnamed_number,
)
from tasks.encoding.padding import pad_rows
from tasks.encoding.spans import OUTSIDE, find_spans, tag_ids, tag_names, types_of
from tasks.encoding.windows import (
    NO_WORD,
    Frame,
    collate_windows,
    make_windows,
    merge_windows,
    window_references,
)
from tasks.encoding.words import (
    align,
    join_words,
    special_tokens,
    sub_words,
    unknown_token,
    words_of,
)
from tasks.inference.calibration import Calibration
from tasks.params.evaluation import check_behaviour
from tasks.problems.base import UNLEARNT, BehaviourTest, Guessed, Problem
from tasks.scoring.behaviour import spread
from tasks.scoring.classes import fit_temperature, log_loss
from tasks.scoring.span_behaviour import (
    SWAP,
    altered_words,
    have,
    mostly_found,
    moves,
    same_spans,
    still_found,
)
from tasks.scoring.spans import (
    count_rows,
    predicted_tags,
    span_details,
    span_metrics,
    word_outputs,
    word_tags,
)
from tasks.scoring.statistics.draws import Draws, Resampled
from tasks.training.class_weights import weigh_classes

if TYPE_CHECKING:
    import pyarrow as pa
    import torch
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.params.reading import ReadingParams
    from tasks.params.schema import EvaluateParams, ValidateParams


class TokenClassification(Problem):
    """Words with BIO tags: spans of words, each of one of several types. `labels` are the types; the model puts out tags of each word.

    Rows are made of `tokens`; where only `text` is given, its words are found (tasks.encoding.words). Long rows are windowed
    (tasks.encoding.windows): outputs and references have one place a word, whatever the tokenizer makes of it.
    """

    name = "token-classification"
    columns = {
        "tokens": "the words, a list, or a text",
        "tags": "a tag for each word, or spans of the text",
    }
    types = {"tokens": "VARCHAR[]", "tags": "VARCHAR[]", "entities": "VARCHAR[]"}
    derived = {
        "text": "array_to_string(tokens, ' ')",
        "entities": "list_sort(list_distinct(list_transform("
        "list_filter(tags, lambda tag: regexp_full_match(tag, '[BI]-.+')), lambda tag: tag[3:])))",
    }
    text_columns = ("text",)
    label_column = "entities"
    answer_columns = ("tags", "entities")
    metric_signs = {
        "f1": 1, "precision": 1, "recall": 1, "macro_f1": 1, "accuracy": 1, "log_loss": -1, "ece": -1,
    }  # fmt: skip
    metric = "f1"
    label_metrics = (
        "accuracy",
        "log_loss",
    )  # rows that have one type have others too: `per_class` of the details tells types apart
    baseline_name = "list of the training entities"

    def readings(
        self, given: Mapping[str, Sequence[Given]], params: ReadingParams
    ) -> dict[str, Reading]:
        """Lists of words and tags; or a text and spans of its characters."""
        if given.keys() != set(self.columns):
            return super().readings(given, params)
        columns = {name: one_column(name, column) for name, column in given.items()}
        tokens, tags = columns["tokens"], columns["tags"]
        if tokens.is_list and tags.is_list:
            found = {name: Reading(f"{column.sql}::VARCHAR[]") for name, column in columns.items()}
        else:
            call = f"read_tagged({tokens.text}, {tags.text})"
            found = {name: read_as(call, name, column.name) for name, column in columns.items()}
        value = as_iob2(found["tags"].value, tags, params)
        return {
            **found,
            "tags": Reading(
                value,
                f"coalesce({found['tags'].problem or 'NULL'}, {unnamed_number(value, tags.name)})",
            ),
        }

    def guess_columns(self, rows: Columns) -> Guessed | None:
        """Lists of words and of tags, as long as each other, or a text and tags or spans of it; a few bad rows do not hide them."""
        words = lists(rows)
        tags = next(
            (name for name in words if _mostly(map(_are_tags, rows[name]))), None
        ) or numbered(rows)
        if tags is None:
            text, spans = next(iter(texts(rows)), None), spans_of(rows)
            return {"tokens": text, "tags": spans} if text and spans else None
        lengths = [len(value or ()) for value in rows[tags]]
        same = [
            name for name in words if name != tags and _mostly(map(_as_long, rows[name], lengths))
        ]
        split = {name: [(text or "").split() for text in rows[name]] for name in texts(rows)}
        same = same or sorted(
            split, key=lambda name: not _mostly(map(_as_long, split[name], lengths))
        )
        return (
            {"tokens": min(same, key=lambda name: name != "tokens"), "tags": tags} if same else None
        )

    def guess_reading(self, rows: Columns, columns: Guessed) -> dict[str, Any]:
        return {"tag_scheme": "iob1"} if is_iob1(rows[str(columns["tags"])]) else {}

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return tag_names(labels)

    def labels_of(self, output_labels: Sequence[str]) -> Sequence[str]:
        return types_of(output_labels)

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        if not labels:
            raise ParamsError(
                "labels: empty; wanted every type of entity.",
                "List them in params.yaml: `labels: [LOC, ORG, PER]`.",
            )
        return bio_checks(validate, labels)

    def facts(self, rows: pa.Table) -> pa.Table:
        return bio_facts(rows)

    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        texts, words = words_of(rows)
        before, after = special_tokens(tokenizer)
        longest = tokenizer.truncation["max_length"] if tokenizer.truncation else sys.maxsize
        frame, unknown = (
            Frame(longest - len(before) - len(after), before, after),
            unknown_token(tokenizer),
        )
        found = [
            make_windows(*align(*sub_words(encoding), places, unknown), frame)
            for encoding, places in zip(tokenizer.encode_batch(texts), words, strict=True)
        ]
        features: Features = {
            "input_ids": [row.input_ids for row in found],
            "truncated": [row.cut for row in found],
            "windows": [row.windows for row in found],
            "words": [row.words for row in found],
        }
        if "tags" in rows:
            features["references"] = tag_ids(
                rows["tags"], list(map(len, words)), self.output_labels(labels)
            )
        return features

    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        return collate_windows(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return pad_rows(features["references"], NO_WORD)

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        return {**self.collate(features, pad_token_id)}, window_references(features)

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return merge_windows(outputs, features)

    def load_model(
        self, directory: Path, labels: Sequence[str], dropout: float | None = None
    ) -> PreTrainedModel:
        from transformers import AutoModelForTokenClassification

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(
            AutoModelForTokenClassification, directory, dropout, self.output_labels(labels)
        )

    def loss(
        self,
        outputs: torch.Tensor,
        references: torch.Tensor,
        *,
        label_smoothing: float,
        class_weights: torch.Tensor | None,
    ) -> torch.Tensor:
        from torch.nn.functional import cross_entropy

        return cross_entropy(
            outputs.flatten(0, 1),
            references.flatten(),
            weight=class_weights,
            ignore_index=NO_WORD,
            label_smoothing=label_smoothing,
        )

    def class_weights(
        self, references: Array, labels: Sequence[str], wanted: str | Mapping[str, float]
    ) -> Floats | None:
        tags = self.output_labels(labels)
        return weigh_classes(
            np.bincount(references[references >= 0], minlength=len(tags)), tags, wanted, "tag"
        )

    def metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> dict[str, float]:
        found = self.resampled_metrics(outputs, references, labels)(Draws.once(len(outputs)))
        return {name: float(values[0]) for name, values in found.items()}

    def resampled_metrics(
        self, outputs: Floats, references: Array, labels: Sequence[str]
    ) -> Resampled:
        counts = count_rows(outputs, references)
        return lambda draws: span_metrics(counts, draws)

    def details(self, outputs: Floats, references: Array, labels: Sequence[str]) -> dict[str, Any]:
        return span_details(outputs, references, labels)

    def fit_calibration(
        self, outputs: Floats, references: Array, labels: Sequence[str], out_of_scope: str | None
    ) -> Calibration:
        return Calibration(fit_temperature(*word_outputs(outputs, references)))

    def calibration_loss(self, outputs: Floats, references: Array) -> float | None:
        return log_loss(*word_outputs(outputs, references))

    def agreement(self, outputs: Floats, others: Floats) -> tuple[float, float]:
        from scipy.special import softmax

        outputs, others = as_wide(outputs, others)
        same = (predicted_tags(outputs) == predicted_tags(others)).all(-1)
        return float(same.mean()), float(
            np.nanmax(np.abs(softmax(outputs, -1) - softmax(others, -1)), initial=0.0)
        )

    def right(self, outputs: Floats, references: Array) -> npt.NDArray[np.bool_]:
        """Rows whose entities are all found, and nothing else."""
        counts = count_rows(outputs, references)
        right: npt.NDArray[np.bool_] = (
            (counts.hits == counts.predicted) & (counts.hits == counts.actual)
        ).all(-1)
        return right

    def align(self, outputs: Floats, labels: Sequence[str], wanted: Sequence[str]) -> Floats:
        tags, all_tags = self.output_labels(labels), self.output_labels(wanted)
        aligned = np.repeat(outputs.min(-1, keepdims=True) - UNLEARNT, len(all_tags), axis=-1)
        aligned[..., [all_tags.index(tag) for tag in tags]] = outputs
        return aligned

    def baseline(
        self, train: Columns, test: Columns, labels: Sequence[str], seed: int
    ) -> Floats | None:
        from tasks.scoring.gazetteer_baseline import gazetteer

        tags = self.output_labels(labels)
        references = pad_rows(
            tag_ids(train["tags"], list(map(len, train["tokens"])), tags), NO_WORD
        )
        return gazetteer(train["tokens"], references, test["tokens"], len(tags))

    def behaviour_tests(
        self, rows: Columns, labels: Sequence[str], evaluate: EvaluateParams, seed: int
    ) -> list[BehaviourTest]:
        wanted = evaluate.behaviour
        check_behaviour(wanted, labels, self.text_columns)
        words, count = rows["tokens"], wanted.rows
        references = pad_rows(
            tag_ids(rows["tags"], list(map(len, words)), self.output_labels(labels)), NO_WORD
        )
        tests = []
        for altered in altered_words(words, find_spans(references).by_row(len(words)), count, seed):
            passes = (
                partial(still_found, replaced=altered.replaced)
                if altered.name == SWAP
                else mostly_found
            )
            tests.append(
                BehaviourTest(
                    altered.name,
                    "invariance",
                    {"tokens": altered.after},
                    passes,
                    {"tokens": altered.before},
                )
            )
        places = {join_words(given)[0]: place for place, given in enumerate(words)}
        some = spread(places, seed)[:count]
        given = [words[places[text]] for text in some]
        passes = partial(same_spans, texts=some, tokens=given)
        tests.append(
            BehaviourTest(
                "words found in the text", "invariance", {"text": some}, passes, {"tokens": given}
            )
        )
        for direction in wanted.directional:
            after = [direction.prepend + text + direction.append for text in some]
            label, sign = (
                labels.index(direction.label),
                1 if direction.expect == "not_lower" else -1,
            )
            passes = partial(moves, label=label, sign=sign, tolerance=direction.tolerance)
            tests.append(
                BehaviourTest(
                    direction.name, "directional", {"text": after}, passes, {"text": some}
                )
            )
        for cases in wanted.minimum_functionality:
            passes = partial(have, label=labels.index(cases.label))
            tests.append(
                BehaviourTest(
                    cases.name, "minimum-functionality", {"text": list(cases.texts)}, passes
                )
            )
        return tests

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        from tasks.reports.plots import confusion_figure, reliability_figure, scores_figure
        from tasks.scoring.spans import NOTHING

        details, calibrated = (
            evaluation["details"],
            evaluation.get("calibrated", {}).get("details", {}),
        )
        series = {"as trained": details["reliability"]}
        if "reliability" in calibrated:
            series["temperature-scaled"] = calibrated["reliability"]
        types = [entry["label"] for entry in details["per_class"]]
        return {
            "Entities by type": scores_figure(details["per_class"]),
            "Types of exact spans": confusion_figure(
                np.asarray(details["confusion"]), [*types, NOTHING]
            ),
            "Reliability of words": reliability_figure(series),
        }

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        """Entities with their characters in the text (that of `tokens` has a blank between each two words).

        An entity's score is the least probability of the tags of its words.
        """
        from scipy.special import softmax

        texts, words = words_of(rows)
        calibrated = calibration.apply(outputs)
        probabilities = softmax(calibrated, -1).max(-1)
        predictions = []
        for row, spans in enumerate(find_spans(word_tags(calibrated, words)).by_row(len(texts))):
            entities = []
            for first, last, kind in spans:
                start, end = words[row][first][0], words[row][last - 1][1]
                score = float(probabilities[row, first:last].min())
                entities.append(
                    {
                        "type": labels[kind],
                        "text": texts[row][start:end],
                        "start": start,
                        "end": end,
                        "score": score,
                    }
                )
            predictions.append({"entities": entities})
        return predictions

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        return sorted({entity["type"] for entity in prediction["entities"]})

    def say(self, prediction: Mapping[str, Any]) -> str:
        return (
            ", ".join(
                f"{one['text']} [{one['type']} {one['score']:.3f}]"
                for one in prediction["entities"]
            )
            or "no entity"
        )

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        return {
            "entities": [{"type": labels[0], "text": "Paris", "start": 22, "end": 27, "score": 0.9}]
        }

    def example(self) -> dict[str, list[Any]]:
        return {"text": ["Angela Merkel visited Paris.", "The Bank lends to the Borrower."]}


def _are_tags(values: Sequence[Any] | None) -> bool:
    return all(
        isinstance(value, str) and (value == OUTSIDE or value.startswith(PREFIXES))
        for value in values or ()
    )


def _as_long(values: Sequence[Any] | None, length: int) -> bool:
    return len(values or ()) == length


def _mostly(found: Iterable[bool]) -> bool:
    """Whether nine in ten are so."""
    return bool(np.mean(list(found)) >= 0.9)
