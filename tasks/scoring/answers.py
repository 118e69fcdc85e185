"""Answers of causal models to the same dialogues, compared with each other and with people's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from tasks.encoding.dialogue_encoding import DialogueEncoder
from tasks.encoding.dialogues import ASSISTANT, USER, Turn
from tasks.encoding.words import find_words
from tasks.inference.generation import answer_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from tasks.params.schema import GenerationParams

BATCH_ROWS = 16
REPEATED = 4  # words in a run that counts as a repetition


def compare_answers(
    models: Mapping[str, PreTrainedModel],
    tokenizer: Tokenizer,
    dialogues: Sequence[Sequence[Turn]],
    params: GenerationParams,
) -> dict[str, Any]:
    """Every model's answers to the questions and the prompts, with metrics; plain JSON values.

    The questions are the last answered turns of the first dialogues, their answers the references.
    """
    questions, references = _questions(dialogues, params.rows)
    prompts = [[{"role": USER, "content": prompt}] for prompt in params.prompts]
    tokens = answer_tokens(params.max_new_tokens, DialogueEncoder(tokenizer).longest)
    encoder = DialogueEncoder(tokenizer, reserve=tokens)
    inputs = [*questions, *prompts]
    ids = [encoder.encode(turns).input_ids for turns in inputs]
    written = {name: write_answers(model, encoder, ids, tokens) for name, model in models.items()}
    entries = [
        {
            "prompt": turns[-1]["content"],
            **{name: answers[row] for name, answers in written.items()},
        }
        for row, turns in enumerate(inputs)
    ]
    count = len(questions)
    return {
        "rows": count,
        "max_new_tokens": tokens,
        "metrics": {
            name: answer_metrics(answers[:count], references)
            for name, answers in written.items()
            if questions
        },
        "prompts": entries[count:],
        "examples": [
            {**entry, "reference": reference}
            for entry, reference in zip(entries[:count], references, strict=True)
        ],
    }


def _questions(
    dialogues: Sequence[Sequence[Turn]], count: int
) -> tuple[list[list[Turn]], list[str]]:
    """(dialogues up to their last answer, those answers) of the first `count` that have one."""
    questions: list[list[Turn]] = []
    answers: list[str] = []
    for turns in dialogues:
        last = max((i for i, turn in enumerate(turns) if turn["role"] == ASSISTANT), default=0)
        if last and len(questions) < count:
            questions.append(list(turns[:last]))
            answers.append(turns[last]["content"])
    return questions, answers


def write_answers(
    model: PreTrainedModel, encoder: DialogueEncoder, prompts: Sequence[Sequence[int]], tokens: int
) -> list[str]:
    """Greedy answers to prompts given as token ids, each of at most `tokens` tokens."""
    import torch
    from transformers import GenerationConfig

    ends = sorted(encoder.ends)
    config = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=ends, pad_token_id=ends[0]
    )
    generate = cast("Callable[..., torch.Tensor]", model.generate)
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        longest = max(len(prompts[row]) for row in rows)
        ids, mask = np.full((len(rows), longest), ends[0]), np.zeros((len(rows), longest), np.int64)
        for i, row in enumerate(rows):  # padded on the left: generation continues from the end
            ids[i, longest - len(prompts[row]) :] = prompts[row]
            mask[i, longest - len(prompts[row]) :] = 1
        inputs = {
            name: torch.from_numpy(values).to(model.device)
            for name, values in (("input_ids", ids), ("attention_mask", mask))
        }
        with torch.inference_mode():
            generated = generate(**inputs, generation_config=config)[:, longest:].tolist()
        for row, answer in zip(rows, generated, strict=True):
            length = next((i for i, token in enumerate(answer) if token in ends), len(answer))
            text = encoder.tokenizer.decode(answer[:length], skip_special_tokens=True)
            answers[row] = text.strip()
    return answers


def answer_metrics(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """How close the answers are to the references, and how varied they are.

    chrf        character n-gram F-score, 0 to 100 (Popović 2015, by sacrebleu)
    rouge_l     F-score of the longest common subsequence of words, 0 to 1, mean over answers
                (Lin 2004, by rouge_score)
    distinct_1  distinct words as a share of all words, over all answers together; distinct_2 the
                same of word bigrams (Li et al. 2016)
    repetition  share of an answer's runs of four words that repeat an earlier one, mean over
                answers (Welleck et al. 2020)
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    rouge = [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    words = [_words(answer) for answer in answers]
    runs = [_runs(answer, REPEATED) for answer in words]
    return {
        "chrf": float(CHRF().corpus_score(list(answers), [list(references)]).score),
        "rouge_l": float(np.mean(rouge)),
        "distinct_1": _distinct([run for answer in words for run in _runs(answer, 1)]),
        "distinct_2": _distinct([run for answer in words for run in _runs(answer, 2)]),
        "repetition": float(np.mean([1 - _distinct(r) if r else 0.0 for r in runs])),
    }


class _Words:
    """Tokenizer for rouge_score, whose own knows Latin letters only."""

    def tokenize(self, text: str) -> list[str]:
        return _words(text)


def _words(text: str) -> list[str]:
    return [text[start:end].lower() for start, end in find_words(text)]


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _distinct(runs: Sequence[tuple[str, ...]]) -> float:
    return len(set(runs)) / len(runs) if runs else 0.0
