"""Chat: tokens to learn, packing, truncation, data checks, and a model that answers."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from shared import made_once
from tiny_chat import CHATML, chat_rows, make_chat_base, make_plain_base, turns
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from workspaces import FAST, ratchet, ratchet_json

from tasks.core.errors import DataError, ParamsError, SourceError
from tasks.core.files import read_json, read_jsonl, write_json
from tasks.core.progress import silent
from tasks.data.quality.dialogue_checks import dialogue_facts, misplaced
from tasks.data.quality.row_account import Account
from tasks.encoding.chat_template import ChatTemplate
from tasks.encoding.dialogue_encoding import DialogueEncoder, next_tokens
from tasks.encoding.dialogues import as_turns, without_oldest
from tasks.encoding.encoder import encode_rows
from tasks.encoding.packing import pack_inputs, plan_rows
from tasks.encoding.padding import pad_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.encoding.windows import IGNORE_INDEX
from tasks.params.schema import EvaluateParams, ValidateParams, save_overrides
from tasks.problems import load_problem
from tasks.scoring.tokens import reduce_answers
from tasks.validation import validate_rows

PROBLEM = load_problem("chat")
UTTERANCES = (
    "the film was good.",
    "it was good lovely.",
    "the door was bad.",
    "it was bad awful.",
    "a table.",
    "square number.",
)
LONG = turns(*UTTERANCES, system="small.")


def base() -> Path:
    return made_once("make_chat_base", make_chat_base)


def plain_base() -> Path:
    return made_once("make_plain_base", make_plain_base)


def tokenizer(length: int | None = None, directory: Path | None = None) -> Tokenizer:
    return load_tokenizer(directory or base(), length)


def learned_text(dialogue: Any, directory: Path | None = None) -> str:
    ids = [dialogue.input_ids[position] for position in dialogue.learned]
    return str(tokenizer(None, directory).decode(ids, skip_special_tokens=False))


def whole_text(dialogue: Any) -> str:
    return str(tokenizer().decode(dialogue.input_ids, skip_special_tokens=False))


# --- what is learnt ---


def test_tokens_are_those_of_the_models_own_template() -> None:
    theirs = AutoTokenizer.from_pretrained(base())
    encoder = DialogueEncoder(tokenizer())
    for messages in chat_rows(20)["messages"]:
        expected = theirs.apply_chat_template(messages)["input_ids"]
        assert encoder.encode(messages).input_ids == expected
        asked = messages[:-1]
        expected = theirs.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        assert encoder.encode(asked).input_ids == expected


def test_the_assistants_turns_and_their_ends_alone_are_learnt() -> None:
    encoded = DialogueEncoder(tokenizer()).encode(LONG)
    answers = ("it was good lovely.", "it was bad awful.", "square number.")
    assert learned_text(encoded) == "".join(f"{answer}<|im_end|>" for answer in answers)
    assert not encoded.cut


def test_without_a_template_roles_are_written_out_and_the_texts_end_is_learnt() -> None:
    plain = tokenizer(None, plain_base())
    encoded = DialogueEncoder(plain).encode(LONG[:3])
    assert plain.decode(encoded.input_ids, skip_special_tokens=False) == (
        "System: small.\nUser: the film was good.\nAssistant: it was good lovely.<|endoftext|>\n"
    )
    assert learned_text(encoded, plain_base()) == " it was good lovely.<|endoftext|>"
    assert DialogueEncoder(plain).ends == {plain.token_to_id("<|endoftext|>")}


def test_what_the_model_is_asked_is_the_beginning_of_what_it_learnt() -> None:
    for directory in (base(), plain_base()):
        encoder = DialogueEncoder(tokenizer(None, directory))
        asked, answered = encoder.encode(LONG[:4]), encoder.encode(LONG[:5])
        assert answered.input_ids[: len(asked.input_ids)] == asked.input_ids
        assert answered.learned[len(asked.learned)] == len(asked.input_ids)


def test_a_template_that_rewrites_earlier_answers_has_the_last_one_learnt(tmp_path: Path) -> None:
    make_chat_base(tmp_path)
    forgetful = CHATML.replace(
        "message['content']",
        "(message['content'] if loop.last or message['role'] == 'user' else '...')",
    )
    (tmp_path / "chat_template.jinja").write_text(forgetful, encoding="utf-8")
    encoded = DialogueEncoder(tokenizer(None, tmp_path)).encode(LONG[1:])
    assert learned_text(encoded) == "square number.<|im_end|>"


def test_the_reference_of_a_token_stands_where_it_is_predicted() -> None:
    features = encode_rows(PROBLEM.encoding, tokenizer(), {"messages": [LONG]}, ())
    references, ids = np.asarray(next_tokens(features)[0]), features["input_ids"][0]
    positions = np.flatnonzero(references != IGNORE_INDEX)
    assert (positions + 1).tolist() == features["places"][0]
    assert references[positions].tolist() == [ids[position + 1] for position in positions]


# --- packing ---


@pytest.mark.parametrize("make", [make_chat_base, make_plain_base])
def test_packing_changes_neither_loss_nor_gradients(make: Any) -> None:
    directory = made_once(make.__name__, make)
    messages = [
        *chat_rows(9)["messages"],
        turns("a", "b"),
        turns(*UTTERANCES * 2),
        turns("the", "of"),
    ]
    features = encode_rows(PROBLEM.encoding, tokenizer(64, directory), {"messages": messages}, ())
    packed, packed_references = PROBLEM.encoding.training_batch(features, 0)
    assert len(packed["input_ids"]) < len(messages)
    assert (packed_references != IGNORE_INDEX).sum() == sum(map(len, features["places"]))
    loss_function = PROBLEM.objective.losses["default"]

    def train(batch: Any, references: Any) -> tuple[float, torch.Tensor]:
        """(loss, gradients of the embeddings)."""
        model = PROBLEM.objective.load_model(directory, ()).eval()
        inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
        targets = torch.from_numpy(references)
        outputs = model(**inputs)["logits"]
        loss = loss_function(outputs, targets, label_smoothing=0.0, class_weights=None)
        loss.backward()
        return float(loss.detach()), model.get_input_embeddings().weight.grad

    loss, gradients = train(packed, packed_references)
    padded_references = pad_rows(next_tokens(features), IGNORE_INDEX)
    padded_loss, padded_gradients = train(PROBLEM.encoding.collate(features, 0), padded_references)
    assert loss == pytest.approx(padded_loss, abs=1e-5)
    torch.testing.assert_close(gradients, padded_gradients, atol=1e-5, rtol=1e-4)


def test_no_token_sees_another_dialogue() -> None:
    ids = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    rows = plan_rows(list(map(len, ids)))
    assert rows == [[0], [2, 1]]
    packed = pack_inputs(ids, rows, 0)
    dialogues = [2, 2, 2, 1, 1, None]  # the dialogue of each token in the second row
    seen = [
        [dialogues[token] == dialogues[other] and other <= token for other in range(6)]
        for token in range(6)
    ]
    assert (packed["attention_mask"][1, 0] == 0).tolist() == seen
    assert packed["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 0]]


# --- long dialogues ---


@pytest.mark.parametrize("room", [60, 50, 40, 30, 20, 12, 5])
def test_whole_oldest_exchanges_leave_first_and_the_system_turn_stays(room: int) -> None:
    unlimited = DialogueEncoder(tokenizer())
    whole, encoded = unlimited.encode(LONG), DialogueEncoder(tokenizer(room)).encode(LONG)
    assert len(encoded.input_ids) <= room
    assert encoded.cut == (len(encoded.input_ids) < len(whole.input_ids))
    candidates = [LONG, [LONG[0], *LONG[3:]], [LONG[0], *LONG[5:]]]
    ids = [unlimited.encode(candidate).input_ids for candidate in candidates]
    fitting = [candidate for candidate in ids if len(candidate) <= room]
    if fitting:
        assert encoded.input_ids == fitting[0]
    assert encoded.learned
    assert learned_text(encoded) in learned_text(whole)


def test_a_long_answer_loses_its_end_and_a_long_question_its_beginning() -> None:
    long_answer = turns("the film.", "good lovely " * 40)
    long_question = turns("the film was bad " * 40, "it was bad.")
    encoded = DialogueEncoder(tokenizer(32)).encode(long_answer)
    assert whole_text(encoded).startswith("<|im_start|>user\nthe film.<|im_end|>")
    assert "<|im_end|>" not in learned_text(encoded)
    encoded = DialogueEncoder(tokenizer(32)).encode(long_question)
    assert learned_text(encoded) == "it was bad.<|im_end|>"
    assert len(encoded.input_ids) <= 32
    asked = DialogueEncoder(tokenizer(32), reserve=8).encode(long_question[:1])
    assert len(asked.input_ids) == 24
    assert whole_text(asked).endswith("<|im_start|>assistant\n")


def test_the_last_exchange_never_leaves() -> None:
    assert without_oldest(LONG) == [LONG[0], *LONG[3:]]
    assert without_oldest(LONG[:3]) is None
    assert without_oldest([]) is None


# --- bad input ---


def test_what_is_wrong_with_a_dialogue_is_said() -> None:
    rows = [
        LONG,
        [{"role": "human", "content": "hi"}, {"role": "assistant", "content": "hi"}],
        turns("hi", "  "),
        turns("hi"),
        [
            {"role": "user", "content": "hi"},
            {"role": "user", "content": "ho"},
            {"role": "assistant", "content": "he"},
        ],
        [*turns("hi", "ho"), {"role": "system", "content": "late"}],
        [{"role": "assistant", "content": "hi"}],
        [{"role": "user", "content": None}, {"role": "assistant", "content": "hi"}],
        None,
        [],
    ]
    arrow_type = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    facts = dialogue_facts(pa.table({"messages": pa.array(rows, arrow_type)})).to_pylist()
    problems = [
        [f"{name.partition('.')[2]}: {value}" for name, value in row.items() if value]
        for row in facts
    ]
    assert problems == [
        [],
        ["role: 'human' in turn 1"],
        ["empty: turn 2 (assistant)"],
        ["answers: 1 turns", "last: user"],
        ["order: user in turn 2"],
        ["order: system in turn 3"],
        ["order: assistant in turn 1"],
        ["empty: turn 1 (user)"],
        [],
        ["answers: 0 turns"],
    ]
    assert misplaced(["system", "user", "assistant", "user"]) is None


def test_a_base_without_template_and_end_is_told(tmp_path: Path) -> None:
    make_plain_base(tmp_path)
    config = read_json(tmp_path / "tokenizer_config.json")
    del config["eos_token"]
    write_json(tmp_path / "tokenizer_config.json", config)
    with pytest.raises(SourceError, match="neither a chat template nor an end-of-text token"):
        ChatTemplate.of(tokenizer(None, tmp_path))


def test_a_template_that_refuses_or_is_broken_is_told(tmp_path: Path) -> None:
    make_chat_base(tmp_path)
    template = tmp_path / "chat_template.jinja"
    template.write_text("{{ raise_exception('no system turns') }}", encoding="utf-8")
    with pytest.raises(DataError, match=r"roles system, user.*no system turns"):
        DialogueEncoder(tokenizer(None, tmp_path)).encode(LONG)
    template.write_text("{% for %}", encoding="utf-8")
    with pytest.raises(SourceError, match="cannot be parsed"):
        ChatTemplate.of(tokenizer(None, tmp_path))


def test_a_template_is_no_program(tmp_path: Path) -> None:
    make_chat_base(tmp_path)
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    (tmp_path / "chat_template.jinja").write_text(escape, encoding="utf-8")
    with pytest.raises(DataError, match="unsafe"):
        DialogueEncoder(tokenizer(None, tmp_path)).encode(LONG)


def test_a_row_without_turns_has_an_output_all_the_same() -> None:
    rows = {"messages": [None, LONG, "the film"]}
    features = encode_rows(PROBLEM.encoding, tokenizer(), rows, ())
    assert features["references"][0] == features["references"][2] == [IGNORE_INDEX]
    width = max(map(len, features["input_ids"]))
    outputs = reduce_answers(np.zeros((3, width, 500), np.float32), features)
    assert not np.isnan(outputs[:, 0]).any()
    assert as_turns("the film") == [{"role": "user", "content": "the film"}]


def test_what_needs_labels_is_refused() -> None:
    behaviour = {"minimum_functionality": [{"name": "x", "label": "y", "texts": ["a"]}]}
    evaluate = EvaluateParams.model_validate({"behaviour": behaviour})
    with pytest.raises(ParamsError, match="no labels"):
        PROBLEM.scoring.behaviour_tests({}, (), evaluate, 0)
    with pytest.raises(ParamsError, match="no classes"):
        PROBLEM.objective.class_weights(np.zeros((1, 1)), (), "balanced")


# --- metrics ---


def test_metrics_are_those_of_the_models_own_loss() -> None:
    """Hugging Face's loss on the assistant's tokens, weighted by their number in each row."""
    rows = {"messages": chat_rows(12)["messages"]}
    features = encode_rows(PROBLEM.encoding, tokenizer(), rows, ())
    model = PROBLEM.objective.load_model(base(), ()).eval()
    losses, reduced = [], []
    with torch.inference_mode():
        for row, positions in enumerate(features["places"]):
            row_features = {name: [values[row]] for name, values in features.items()}
            ids = torch.tensor(row_features["input_ids"])
            labels = torch.full_like(ids, IGNORE_INDEX)
            labels[0, positions] = ids[0, positions]
            result = model(input_ids=ids, labels=labels)
            losses.append(float(result["loss"]) * len(positions))
            reduced.append(PROBLEM.encoding.reduce(result["logits"].numpy(), row_features)[0])
    outputs = np.full((12, max(map(len, reduced)), 2), np.nan, np.float32)
    for row, values in enumerate(reduced):
        outputs[row, : len(values)] = values
    metrics = PROBLEM.scoring.metrics(outputs, PROBLEM.encoding.references(features), ())
    tokens = sum(map(len, features["places"]))
    assert metrics["log_loss"] == pytest.approx(sum(losses) / tokens, rel=1e-4)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["log_loss"]))


def test_dialogues_are_known_by_their_form() -> None:
    guess = PROBLEM.rows.guess_columns
    rows = {"id": [1, 2], "tags": [["a"], ["b"]], "conversations": [turns("a", "b"), None]}
    assert guess(rows) == {"messages": "conversations"}
    with_system = {**rows, "system": ["Be brief.", None]}
    assert guess(with_system) == {"messages": ("system", "conversations")}
    assert guess({"talk": [[{"from": "human", "value": "a"}]]}) == {"messages": "talk"}
    assert guess({"talk": [[{"by": "human", "value": "a"}]]}) is None


# --- the whole way ---

ROWS = 260


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ratchet init` and `ratchet train` on dialogues, some of them bad."""
    root = tmp_path_factory.mktemp("chat")
    bad = [
        turns("hello", ""),
        [{"role": "bot", "content": "x"}, {"role": "assistant", "content": "y"}],
        turns("a question alone"),
    ]
    dialogues = [*chat_rows(ROWS)["messages"], *bad]
    lines = [json.dumps({"messages": messages}) + "\n" for messages in dialogues]
    (root / "dialogues.jsonl").write_text("".join(lines), encoding="utf-8")
    command = ["init", "talk", "--yes", "--data", "dialogues.jsonl", "--model-name", "talk"]
    ratchet(root, *command, "--base-model", str(base()))
    workspace = root / "talk"
    overrides = ["finetune.learning_rate=0.02", "tokenize.max_length=48"]
    overrides += ["verify.max_metric_loss=0.2"]
    save_overrides(workspace / "params.yaml", (*FAST, *overrides))
    assert ratchet_json(workspace, "train")["state"] == "trained"
    return workspace


def test_bad_dialogues_are_set_aside(trained: Path) -> None:
    entries = read_jsonl(trained / "data" / "valid" / "quarantine.jsonl")
    assert [entry["check"] for entry in entries] == ["empty_turn", "unknown_role", "no_answer"]


def test_its_own_checks_hold_with_the_general_ones_off(tmp_path: Path) -> None:
    """They need facts of their own, whether or not a general check needs any."""
    messages = [*chat_rows(60)["messages"], turns("hi", "")]
    count = len(messages)
    rows = {"row": range(count), "messages": messages, "text": [str(i) for i in range(count)]}
    origins = {"_file": ["a.jsonl"] * count, "_line": range(count)}
    raw, valid = tmp_path / "raw", tmp_path / "valid"
    raw.mkdir()
    pq.write_table(pa.table(rows | origins), raw / "rows.parquet")
    Account(count, count).write(raw)
    general = ("blank_text", "length", "control_characters", "encoding_damage", "personal_data")
    validate_rows(
        raw,
        valid,
        tmp_path / "report.json",
        tmp_path / "docs",
        problem="chat",
        labels=(),
        validate=ValidateParams(actions=dict.fromkeys(general, "off")),
        report=silent,
    )
    aside = read_jsonl(valid / "quarantine.jsonl")
    assert [entry["check"] for entry in aside] == ["empty_turn"]


def test_training_lowers_the_perplexity(trained: Path) -> None:
    evaluations = read_json(trained / "reports" / "training.json")["evaluations"]
    assert evaluations[-1]["perplexity"] < evaluations[0]["perplexity"] / 2
    assert read_json(trained / "reports" / "metrics.json")["token_accuracy"] > 0.3


def test_the_report_holds_the_base_models_answers_beside_its_own(trained: Path) -> None:
    evaluation = read_json(trained / "reports" / "evaluation.json")
    before, after = (evaluation["answers"]["metrics"][when] for when in ("before", "after"))
    assert after["chrf"] > before["chrf"]
    assert after["rouge_l"] > before["rouge_l"]
    assert all(answer["before"] != answer["after"] for answer in evaluation["answers"]["prompts"])
    baseline = evaluation["baseline"]
    assert baseline["name"] == "the base model"
    perplexity = evaluation["metrics"]["perplexity"]["value"]
    assert baseline["metrics"]["perplexity"]["value"] > 2 * perplexity
    verified = read_json(trained / "reports" / "verification.json")
    for model in (verified["checkpoint"], *verified["candidates"]):
        assert model["tokens_per_second"] > 0
    fp32, *others = verified["candidates"]
    # six rounds of writing are enough for an interval
    assert fp32["speedup"] == {"value": 1, "low": 1, "high": 1}
    for speedup in [candidate["speedup"] for candidate in others]:
        assert 0 < speedup["low"] <= speedup["value"] <= speedup["high"]
    assert "Answers" in (trained / "reports" / "report.html").read_text(encoding="utf-8")


def test_the_bundle_answers_and_judges(trained: Path) -> None:
    (answered,) = ratchet_json(trained, "predict", "the film was good lovely.")
    assert answered["predicted_answer"]
    assert answered["predicted_perplexity"] is None
    dialogues = trained / "asked.jsonl"
    lines = [json.dumps({"messages": messages}) + "\n" for messages in (LONG, LONG[:4])]
    dialogues.write_text("".join(lines), encoding="utf-8")
    judged, continued = ratchet_json(trained, "predict", "--input", str(dialogues))
    assert judged["predicted_answer"] is None
    assert judged["predicted_perplexity"] > 1
    assert continued["predicted_answer"]
    assert ratchet_json(trained, "promote")["decision"]["outcome"] == "promoted"


def spoken(workspace: Path, typed: str, *options: str) -> list[str]:
    """The lines that `ratchet chat` prints in answer to the typed lines."""
    command = [sys.executable, "-c", "from flows.cli.main import main; main()", "chat"]
    command += ["--bundle", str(workspace / "models" / "bundle"), *options]
    done = subprocess.run(
        command, input=typed, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_talks_remembers_and_forgets(trained: Path) -> None:
    greedy = ("--temperature", "0", "--max-new-tokens", "12")
    first, second = "the film was good lovely.", "the door was bad."
    typed = [first, second, "/reset", "/what", first, "/exit", "never asked"]
    lines = spoken(trained, "\n".join(typed) + "\n", *greedy)
    assert len(lines) == 3
    assert lines[0] == lines[2]
    assert spoken(trained, first + "\n", *greedy) == lines[:1]
    (line,) = spoken(trained, first + "\n", *greedy, "--json")
    assert json.loads(line) == {"user": first, "assistant": lines[0]}
    warm = ("--temperature", "2", "--max-new-tokens", "12", "--seed")
    answer = spoken(trained, first, *warm, "1")
    assert spoken(trained, first, *warm, "1") == answer
    assert spoken(trained, first, *warm, "2") != answer


def test_a_model_that_does_not_talk_and_answers_without_room_are_told(trained: Path) -> None:
    refused = ratchet(trained, "chat", "--alias", "challenger", "--max-new-tokens", "48", code=2)
    assert "Give a number from 1 to 47" in refused.stderr
