"""What causal models write to the same dialogues, before and after training, and how near that is to what people wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

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
REPEATED = 4  # words in a row


def compare_answers(
    models: Mapping[str, PreTrainedModel],
    tokenizer: Tokenizer,
    dialogues: Sequence[Sequence[Turn]],
    wanted: GenerationParams,
) -> dict[str, Any]:
    """What each model writes to the last answered turn of some dialogues and to the prompts, with its metrics; plain JSON values."""
    asked, references = _questions(dialogues, wanted.rows)
    prompts = [[{"role": USER, "content": prompt}] for prompt in wanted.prompts]
    tokens = answer_tokens(wanted.max_new_tokens, DialogueEncoder(tokenizer).longest)
    encoder = DialogueEncoder(tokenizer, reserve=tokens)
    ids = [encoder.encode(turns).input_ids for turns in [*asked, *prompts]]
    written = {name: write_answers(model, encoder, ids, tokens) for name, model in models.items()}
    examples = [
        {
            "prompt": turns[-1]["content"],
            **{name: answers[place] for name, answers in written.items()},
            "reference": reference,
        }
        for place, (turns, reference) in enumerate(
            zip([*asked, *prompts], [*references, *[None] * len(prompts)], strict=True)
        )
    ]
    return {
        "rows": len(asked),
        "max_new_tokens": tokens,
        "metrics": {
            name: answer_metrics(answers[: len(asked)], references)
            for name, answers in written.items()
        }
        if asked
        else {},
        "prompts": [
            {name: said for name, said in one.items() if name != "reference"}
            for one in examples[len(asked) :]
        ],
        "examples": examples[: len(asked)],
    }


def _questions(
    dialogues: Sequence[Sequence[Turn]], count: int
) -> tuple[list[list[Turn]], list[str]]:
    """(dialogues up to their last answer, that answer) of the first `count` that have one."""
    asked: list[list[Turn]] = []
    answers: list[str] = []
    for turns in dialogues:
        last = max(
            (place for place, turn in enumerate(turns) if turn["role"] == ASSISTANT), default=0
        )
        if last and len(asked) < count:
            asked.append(list(turns[:last]))
            answers.append(turns[last]["content"])
    return asked, answers


def write_answers(
    model: PreTrainedModel, encoder: DialogueEncoder, prompts: Sequence[Sequence[int]], tokens: int
) -> list[str]:
    """The answer to each prompt, given as token ids; of each token the likeliest, at most so many."""
    import torch
    from transformers import GenerationConfig

    ends = sorted(encoder.ends)
    setting = GenerationConfig(
        do_sample=False, max_new_tokens=tokens, eos_token_id=ends, pad_token_id=ends[0]
    )
    answers = [""] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    for start in range(0, len(order), BATCH_ROWS):
        rows = order[start : start + BATCH_ROWS]
        longest = max(len(prompts[row]) for row in rows)
        ids, mask = np.full((len(rows), longest), ends[0]), np.zeros((len(rows), longest), np.int64)
        for place, row in enumerate(rows):  # padded in front: what is written goes on from the end
            ids[place, longest - len(prompts[row]) :] = prompts[row]
            mask[place, longest - len(prompts[row]) :] = 1
        inputs = {
            name: torch.from_numpy(values).to(model.device)
            for name, values in (("input_ids", ids), ("attention_mask", mask))
        }
        with torch.inference_mode():
            written = model.generate(**inputs, generation_config=setting)[:, longest:].tolist()
        for row, said in zip(rows, written, strict=True):
            length = next((place for place, token in enumerate(said) if token in ends), len(said))
            answers[row] = encoder.tokenizer.decode(said[:length], skip_special_tokens=True).strip()
    return answers


def answer_metrics(answers: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """How near answers are to references and how varied they are.

    chrf        character n-gram F-score, 0 to 100 (Popović 2015, by sacrebleu)
    rouge_l     F-score of the longest common subsequence of words, 0 to 1, the mean over answers (Lin 2004, by rouge_score)
    distinct_1  different words as a share of all words, over all answers together; distinct_2 of pairs of words (Li et al. 2016)
    repetition  runs of four words that an answer has said before, as a share of its runs, the mean over answers (Welleck et al. 2020)
    """
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics.chrf import CHRF

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    rouge = [
        scorer.score(reference, answer)["rougeL"].fmeasure
        for answer, reference in zip(answers, references, strict=True)
    ]
    words = [_words(answer) for answer in answers]
    runs = [_runs(one, REPEATED) for one in words]
    return {
        "chrf": float(CHRF().corpus_score(list(answers), [list(references)]).score),
        "rouge_l": float(np.mean(rouge)),
        "distinct_1": _distinct([run for one in words for run in _runs(one, 1)]),
        "distinct_2": _distinct([run for one in words for run in _runs(one, 2)]),
        "repetition": float(np.mean([1 - _distinct(one) if one else 0.0 for one in runs])),
    }


class _Words:
    """rouge_score's own tokenizer knows Latin letters only."""

    def tokenize(self, text: str) -> list[str]:
        return _words(text)


def _words(text: str) -> list[str]:
    return [text[start:end].lower() for start, end in find_words(text)]


def _runs(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]


def _distinct(runs: Sequence[tuple[str, ...]]) -> float:
    return len(set(runs)) / len(runs) if runs else 0.0
