"""Chat: what is learnt of a dialogue, what is kept of a long one, and a model that answers."""

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
from tasks.core.files import read_json, write_json
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
SAID = (
    "the film was good.",
    "it was good lovely.",
    "the door was bad.",
    "it was bad awful.",
    "a table.",
    "square number.",
)
LONG = turns(*SAID, system="small.")


def base() -> Path:
    return made_once("make_chat_base", make_chat_base)


def plain_base() -> Path:
    return made_once("make_plain_base", make_plain_base)


def tokenizer(length: int | None = None, directory: Path | None = None) -> Tokenizer:
    return load_tokenizer(directory or base(), length)


def learned_text(dialogue: Any, directory: Path | None = None) -> str:
    ids = [dialogue.input_ids[place] for place in dialogue.learned]
    return str(tokenizer(None, directory).decode(ids, skip_special_tokens=False))


def whole_text(dialogue: Any) -> str:
    return str(tokenizer().decode(dialogue.input_ids, skip_special_tokens=False))


# --- what is learnt ---


def test_tokens_are_those_of_the_models_own_template() -> None:
    theirs: Any = AutoTokenizer.from_pretrained(base())
    encoder = DialogueEncoder(tokenizer())
    for messages in chat_rows(20)["messages"]:
        assert (
            encoder.encode(messages).input_ids == theirs.apply_chat_template(messages)["input_ids"]
        )
        asked = messages[:-1]
        assert (
            encoder.encode(asked).input_ids
            == theirs.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        )


def test_the_assistants_turns_and_their_ends_alone_are_learnt() -> None:
    found = DialogueEncoder(tokenizer()).encode(LONG)
    assert (
        learned_text(found)
        == "it was good lovely.<|im_end|>it was bad awful.<|im_end|>square number.<|im_end|>"
    )
    assert not found.cut


def test_without_a_template_roles_are_written_out_and_the_texts_end_is_learnt() -> None:
    reader = tokenizer(None, plain_base())
    found = DialogueEncoder(reader).encode(LONG[:3])
    assert reader.decode(found.input_ids, skip_special_tokens=False) == (
        "System: small.\nUser: the film was good.\nAssistant: it was good lovely.<|endoftext|>\n"
    )
    assert learned_text(found, plain_base()) == " it was good lovely.<|endoftext|>"
    assert DialogueEncoder(reader).ends == {reader.token_to_id("<|endoftext|>")}


def test_what_the_model_is_asked_is_the_beginning_of_what_it_learnt() -> None:
    for reader in (tokenizer(), tokenizer(None, plain_base())):
        encoder = DialogueEncoder(reader)
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
    found = DialogueEncoder(tokenizer(None, tmp_path)).encode(LONG[1:])
    assert learned_text(found) == "square number.<|im_end|>"


def test_the_reference_of_a_token_stands_where_it_is_predicted() -> None:
    features = encode_rows(PROBLEM.encoding, tokenizer(), {"messages": [LONG]}, ())
    wanted, ids = np.asarray(next_tokens(features)[0]), features["input_ids"][0]
    there = np.flatnonzero(wanted != IGNORE_INDEX)
    assert (there + 1).tolist() == features["places"][0]
    assert wanted[there].tolist() == [ids[place + 1] for place in there]


# --- packing ---


@pytest.mark.parametrize("make", [make_chat_base, make_plain_base])
def test_packing_changes_neither_loss_nor_gradients(make: Any) -> None:
    directory = made_once(make.__name__, make)
    messages = [*chat_rows(9)["messages"], turns("a", "b"), turns(*SAID * 2), turns("the", "of")]
    features = encode_rows(PROBLEM.encoding, tokenizer(64, directory), {"messages": messages}, ())
    packed, wanted = PROBLEM.encoding.training_batch(features, 0)
    assert len(packed["input_ids"]) < len(messages)
    assert (wanted != IGNORE_INDEX).sum() == sum(map(len, features["places"]))
    plain = PROBLEM.encoding.collate(features, 0)
    results = []
    for batch, references in (
        (packed, wanted),
        (plain, pad_rows(next_tokens(features), IGNORE_INDEX)),
    ):
        model = PROBLEM.objective.load_model(directory, ()).eval()
        outputs = model(**{name: torch.from_numpy(values) for name, values in batch.items()})[
            "logits"
        ]
        loss = PROBLEM.objective.losses["default"](
            outputs, torch.from_numpy(references), label_smoothing=0.0, class_weights=None
        )
        loss.backward()
        results.append((float(loss.detach()), model.get_input_embeddings().weight.grad))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)


def test_no_token_sees_another_dialogue() -> None:
    ids = [[1, 2, 3, 4, 5, 6], [7, 8], [9, 10, 11]]
    rows = plan_rows(list(map(len, ids)))
    assert rows == [[0], [2, 1]]
    mask = pack_inputs(ids, rows, 0)["attention_mask"][1, 0] == 0
    of = [2, 2, 2, 1, 1, None]
    wanted = [[of[one] == of[other] and other <= one for other in range(6)] for one in range(6)]
    assert mask.tolist() == wanted
    assert pack_inputs(ids, rows, 0)["position_ids"].tolist() == [
        [0, 1, 2, 3, 4, 5],
        [0, 1, 2, 0, 1, 0],
    ]


# --- long dialogues ---


@pytest.mark.parametrize("room", [60, 50, 40, 30, 20, 12, 5])
def test_whole_oldest_exchanges_leave_first_and_the_system_turn_stays(room: int) -> None:
    whole, found = (
        DialogueEncoder(tokenizer()).encode(LONG),
        DialogueEncoder(tokenizer(room)).encode(LONG),
    )
    assert len(found.input_ids) <= room
    assert found.cut == (len(found.input_ids) < len(whole.input_ids))
    candidates = [LONG, [LONG[0], *LONG[3:]], [LONG[0], *LONG[5:]]]
    fitting = [
        one for one in candidates if len(DialogueEncoder(tokenizer()).encode(one).input_ids) <= room
    ]
    if fitting:
        assert found.input_ids == DialogueEncoder(tokenizer()).encode(fitting[0]).input_ids
    assert found.learned
    assert learned_text(found) in learned_text(whole)


def test_a_long_answer_loses_its_end_and_a_long_question_its_beginning() -> None:
    question, answer = (
        turns("the film.", "good lovely " * 40),
        turns("the film was bad " * 40, "it was bad."),
    )
    found = DialogueEncoder(tokenizer(32)).encode(question)
    assert whole_text(found).startswith("<|im_start|>user\nthe film.<|im_end|>")
    assert "<|im_end|>" not in learned_text(found)
    found = DialogueEncoder(tokenizer(32)).encode(answer)
    assert learned_text(found) == "it was bad.<|im_end|>"
    assert len(found.input_ids) <= 32
    asked = DialogueEncoder(tokenizer(32), reserve=8).encode(answer[:1])
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
    kind = pa.list_(pa.struct({"role": pa.string(), "content": pa.string()}))
    facts = dialogue_facts(pa.table({"messages": pa.array(rows, kind)})).to_pylist()
    said = [
        [f"{name.partition('.')[2]}: {value}" for name, value in row.items() if value]
        for row in facts
    ]
    assert said == [
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
    (tmp_path / "chat_template.jinja").write_text(
        "{{ raise_exception('no system turns') }}", encoding="utf-8"
    )
    with pytest.raises(DataError, match=r"roles system, user.*no system turns"):
        DialogueEncoder(tokenizer(None, tmp_path)).encode(LONG)
    (tmp_path / "chat_template.jinja").write_text("{% for %}", encoding="utf-8")
    with pytest.raises(SourceError, match="cannot be parsed"):
        ChatTemplate.of(tokenizer(None, tmp_path))


def test_a_template_is_no_program(tmp_path: Path) -> None:
    make_chat_base(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ messages.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8"
    )
    with pytest.raises(DataError, match="unsafe"):
        DialogueEncoder(tokenizer(None, tmp_path)).encode(LONG)


def test_a_row_without_turns_has_an_output_all_the_same() -> None:
    features = encode_rows(
        PROBLEM.encoding, tokenizer(), {"messages": [None, LONG, "the film"]}, ()
    )
    assert features["references"][0] == features["references"][2] == [IGNORE_INDEX]
    outputs = reduce_answers(
        np.zeros((3, max(map(len, features["input_ids"])), 500), np.float32), features
    )
    assert not np.isnan(outputs[:, 0]).any()
    assert as_turns("the film") == [{"role": "user", "content": "the film"}]


def test_what_needs_labels_is_refused() -> None:
    behaviour = {"minimum_functionality": [{"name": "x", "label": "y", "texts": ["a"]}]}
    with pytest.raises(ParamsError, match="no labels"):
        PROBLEM.scoring.behaviour_tests(
            {}, (), EvaluateParams.model_validate({"behaviour": behaviour}), 0
        )
    with pytest.raises(ParamsError, match="no classes"):
        PROBLEM.objective.class_weights(np.zeros((1, 1)), (), "balanced")


# --- metrics ---


def test_metrics_are_those_of_the_models_own_loss() -> None:
    """Hugging Face's loss with labels at the assistant's tokens, weighed by how many there are."""
    features = encode_rows(
        PROBLEM.encoding, tokenizer(), {"messages": chat_rows(12)["messages"]}, ()
    )
    model = PROBLEM.objective.load_model(base(), ()).eval()
    losses, kept = [], []
    with torch.inference_mode():
        for row, places in enumerate(features["places"]):
            one = {name: [values[row]] for name, values in features.items()}
            ids = torch.tensor(one["input_ids"])
            labels = torch.full_like(ids, IGNORE_INDEX)
            labels[0, places] = ids[0, places]
            outputs = model(input_ids=ids, labels=labels)
            losses.append(float(outputs["loss"]) * len(places))
            kept.append(PROBLEM.encoding.reduce(outputs["logits"].numpy(), one)[0])
    outputs = np.full((12, max(map(len, kept)), 2), np.nan, np.float32)
    for row, places in enumerate(kept):
        outputs[row, : len(places)] = places
    found = PROBLEM.scoring.metrics(outputs, PROBLEM.encoding.references(features), ())
    assert found["log_loss"] == pytest.approx(
        sum(losses) / sum(map(len, features["places"])), rel=1e-4
    )
    assert found["perplexity"] == pytest.approx(math.exp(found["log_loss"]))


def test_dialogues_are_known_by_their_form() -> None:
    rows: dict[str, list[Any]] = {
        "id": [1, 2],
        "tags": [["a"], ["b"]],
        "conversations": [turns("a", "b"), None],
    }
    assert PROBLEM.rows.guess_columns(rows) == {"messages": "conversations"}
    assert PROBLEM.rows.guess_columns({**rows, "system": ["Be brief.", None]}) == {
        "messages": ("system", "conversations")
    }
    assert PROBLEM.rows.guess_columns({"talk": [[{"from": "human", "value": "a"}]]}) == {
        "messages": "talk"
    }
    assert PROBLEM.rows.guess_columns({"talk": [[{"by": "human", "value": "a"}]]}) is None


# --- the whole way ---

ROWS = 260


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ratchet init` and `ratchet train` on dialogues of which some are bad."""
    root = tmp_path_factory.mktemp("chat")
    bad = [
        turns("hello", ""),
        [{"role": "bot", "content": "x"}, {"role": "assistant", "content": "y"}],
        turns("a question alone"),
    ]
    lines = [
        json.dumps({"messages": messages}) for messages in [*chat_rows(ROWS)["messages"], *bad]
    ]
    (root / "dialogues.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ratchet(
        root,
        "init",
        "talk",
        "--yes",
        "--data",
        "dialogues.jsonl",
        "--base-model",
        str(base()),
        "--model-name",
        "talk",
    )
    space = root / "talk"
    save_overrides(
        space / "params.yaml",
        (
            *FAST,
            "finetune.learning_rate=0.02",
            "tokenize.max_length=48",
            "verify.max_metric_loss=0.2",
        ),
    )
    assert ratchet_json(space, "train")["state"] == "trained"
    return space


def test_bad_dialogues_are_set_aside(trained: Path) -> None:
    entries = [
        json.loads(line)
        for line in (trained / "data" / "valid" / "quarantine.jsonl")
        .read_text(encoding="utf-8")
        .splitlines()
    ]
    assert [entry["check"] for entry in entries] == ["empty_turn", "unknown_role", "no_answer"]


def test_its_own_checks_hold_with_the_general_ones_off(tmp_path: Path) -> None:
    """They need facts of their own, whether or not a general check needs any."""
    messages = [*chat_rows(60)["messages"], turns("hi", "")]
    count = len(messages)
    rows = {"row": range(count), "messages": messages, "text": [str(i) for i in range(count)]}
    (tmp_path / "raw").mkdir()
    pq.write_table(
        pa.table(rows | {"_file": ["a.jsonl"] * count, "_line": range(count)}),
        tmp_path / "raw/rows.parquet",
    )
    Account(count, count).write(tmp_path / "raw")
    general = ("blank_text", "length", "control_characters", "encoding_damage", "personal_data")
    validate_rows(
        tmp_path / "raw", tmp_path / "valid", tmp_path / "report.json", tmp_path / "docs",
        problem="chat", labels=(), report=silent,
        validate=ValidateParams(actions=dict.fromkeys(general, "off")),
    )  # fmt: skip
    aside = (tmp_path / "valid/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(entry)["check"] for entry in aside] == ["empty_turn"]


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
    assert (
        baseline["metrics"]["perplexity"]["value"]
        > 2 * evaluation["metrics"]["perplexity"]["value"]
    )
    verified = read_json(trained / "reports" / "verification.json")
    assert all(
        found["tokens_per_second"] > 0
        for found in [verified["checkpoint"], *verified["candidates"]]
    )
    fp32, *others = verified["candidates"]
    assert fp32["speedup"] == {"value": 1, "low": 1, "high": 1}  # of six rounds of writing
    assert all(
        0 < found["speedup"]["low"] <= found["speedup"]["value"] <= found["speedup"]["high"]
        for found in others
    )
    assert "Answers" in (trained / "reports" / "report.html").read_text(encoding="utf-8")


def test_the_bundle_answers_and_judges(trained: Path) -> None:
    (answered,) = ratchet_json(trained, "predict", "the film was good lovely.")
    assert answered["predicted_answer"]
    assert answered["predicted_perplexity"] is None
    dialogues = trained / "asked.jsonl"
    dialogues.write_text(
        "".join(json.dumps({"messages": some}) + "\n" for some in (LONG, LONG[:4])),
        encoding="utf-8",
    )
    judged, continued = ratchet_json(trained, "predict", "--input", str(dialogues))
    assert judged["predicted_answer"] is None
    assert judged["predicted_perplexity"] > 1
    assert continued["predicted_answer"]
    assert ratchet_json(trained, "promote")["decision"]["outcome"] == "promoted"


def spoken(space: Path, said: str, *options: str) -> list[str]:
    """Lines that the bundle of a workspace says to lines."""
    command = (
        "-c",
        "from flows.cli.main import main; main()",
        "chat",
        "--bundle",
        str(space / "models" / "bundle"),
        *options,
    )
    done = subprocess.run(
        [sys.executable, *command],
        input=said,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_it_talks_remembers_and_forgets(trained: Path) -> None:
    greedy = ("--temperature", "0", "--max-new-tokens", "12")
    first, second, again, unknown = (
        "the film was good lovely.",
        "the door was bad.",
        "/reset",
        "/what",
    )
    lines = spoken(
        trained,
        "\n".join([first, second, again, unknown, first, "/exit", "never asked"]) + "\n",
        *greedy,
    )
    assert len(lines) == 3
    assert lines[0] == lines[2]
    assert spoken(trained, first + "\n", *greedy) == lines[:1]
    (line,) = spoken(trained, first + "\n", *greedy, "--json")
    assert json.loads(line) == {"user": first, "assistant": lines[0]}
    warm = ("--temperature", "2", "--max-new-tokens", "12", "--seed")
    assert (
        spoken(trained, first, *warm, "1")
        == spoken(trained, first, *warm, "1")
        != spoken(trained, first, *warm, "2")
    )


def test_a_model_that_does_not_talk_and_answers_without_room_are_told(trained: Path) -> None:
    told = ratchet(trained, "chat", "--alias", "challenger", "--max-new-tokens", "48", code=2)
    assert "Give a number from 1 to 47" in told.stderr
