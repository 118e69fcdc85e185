"""Generated answers: independent of the batch, and scored with standard metrics."""

from __future__ import annotations

import pytest
import torch
from shared import made_once
from tiny_chat import chat_rows, make_chat_base, make_plain_base

from tasks.encoding.dialogue_encoding import DialogueEncoder
from tasks.encoding.token_files import load_tokenizer
from tasks.params.schema import EvaluateParams, GenerationParams
from tasks.problems import load_problem
from tasks.scoring.answers import answer_metrics, compare_answers, write_answers
from tasks.training.methods.virtual_tokens import attach_tokens, drawn_states, drawn_tokens

PROBLEM = load_problem("chat")
BASES = {"llama": make_chat_base, "gpt2": make_plain_base}
ROOM, TOKENS = 64, 12


@pytest.mark.parametrize("added", [None, drawn_tokens, drawn_states])
@pytest.mark.parametrize("name", BASES)
def test_an_answer_does_not_depend_on_what_it_is_batched_with(name: str, added: object) -> None:
    base = made_once(BASES[name].__name__, BASES[name])
    model = PROBLEM.objective.load_model(base, ()).eval()
    if callable(added):
        torch.manual_seed(0)
        attach_tokens(model, added(model, 4))
    encoder = DialogueEncoder(load_tokenizer(base, ROOM), reserve=TOKENS)
    asked = [encoder.encode(messages[:-1]).input_ids for messages in chat_rows(20)["messages"]]
    assert len({len(ids) for ids in asked}) > 3
    together = write_answers(model, encoder, asked, TOKENS)
    assert together == [write_answers(model, encoder, [ids], TOKENS)[0] for ids in asked]
    assert len(set(together)) > 1


def test_the_metrics_of_the_references_themselves_are_perfect() -> None:
    references = ["it was good lovely.", "die Tür ist zu, oder?", "地理位置很好。"]
    perfect = answer_metrics(references, references)
    assert perfect["chrf"] == pytest.approx(100)
    assert perfect["rouge_l"] == pytest.approx(1)
    none = answer_metrics(["zzz"] * 3, references)
    assert none["chrf"] < 1
    assert none["rouge_l"] == 0
    half = answer_metrics(["it was bad.", "die Tür", "地理"], references)
    assert 0 < half["rouge_l"] < 1
    assert 0 < half["chrf"] < 100


def test_repetition_and_variety_are_counted() -> None:
    said = answer_metrics(["a b c d a b c d", "e f g h"], ["x", "x"])
    # one of the five 4-grams of the first answer repeats an earlier one
    assert said["repetition"] == pytest.approx((1 / 5 + 0) / 2)
    assert said["distinct_1"] == pytest.approx(8 / 12)
    assert said["distinct_2"] == pytest.approx(7 / 10)
    nothing = answer_metrics(["", ""], ["x", "x"])
    assert (nothing["distinct_1"], nothing["repetition"], nothing["rouge_l"]) == (0, 0, 0)


def test_only_answered_rows_are_asked_and_the_prompts_are_ones_own() -> None:
    base = made_once("make_chat_base", make_chat_base)
    model = PROBLEM.objective.load_model(base, ()).eval()
    unanswered = [{"role": "user", "content": "a question alone"}]
    rows = {"messages": [unanswered, *chat_rows(5)["messages"]]}
    generation = GenerationParams(rows=3, max_new_tokens=8, prompts=("good?",))
    evaluate = EvaluateParams(generation=generation)
    models, tokenizer = {"after": model}, load_tokenizer(base, ROOM)
    compared = PROBLEM.scoring.compare_answers(models, tokenizer, rows, evaluate)
    assert compared is not None
    assert (compared["rows"], compared["max_new_tokens"]) == (3, 8)
    references = [example["reference"] for example in compared["examples"]]
    assert references == [row[-1]["content"] for row in rows["messages"][1:4]]
    assert [example["prompt"] for example in compared["prompts"]] == ["good?"]
    none = compare_answers(models, tokenizer, [], GenerationParams(prompts=()))
    assert (none["metrics"], none["examples"], none["prompts"]) == ({}, [], [])
