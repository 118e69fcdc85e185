"""Generation with a key-value cache: the exported graph generates what the checkpoint does."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from samples import SAMPLES
from shared import made_once
from tiny_chat import chat_rows, make_chat_base, make_plain_base
from transformers import GenerationConfig

from tasks.core.arrays import Features
from tasks.core.ragged import stack_rows
from tasks.encoding.dialogue_encoding import DialogueEncoder
from tasks.encoding.encoder import OUTPUT_NAME, encode_rows
from tasks.encoding.token_files import load_tokenizer
from tasks.inference.generation import CachedDecoder, ChatModel, Sampling, choose_token
from tasks.inference.session import OnnxModel
from tasks.problems import load_problem
from tasks.shipping.graphs.block_weights import quantize_weights
from tasks.shipping.graphs.decoder import trace_causal

PROBLEM = load_problem("chat")
BASES: dict[str, Callable[[Path], Path]] = {"llama": make_chat_base, "gpt2": make_plain_base}
LENGTH = 64


def base(name: str) -> Path:
    return made_once(BASES[name].__name__, BASES[name])


def features_of(name: str, dialogues: int) -> Features:
    rows = {"messages": chat_rows(dialogues)["messages"]}
    return encode_rows(PROBLEM.encoding, load_tokenizer(base(name), LENGTH), rows, ())


def graph_file(name: str) -> Path:
    def make(directory: Path) -> None:
        model = PROBLEM.objective.load_model(base(name), ()).eval()
        example = PROBLEM.encoding.collate(features_of(name, 2), 0)
        onnx.save(trace_causal(model, example, OUTPUT_NAME, 17), directory / "model.onnx")

    return made_once(f"traced-{name}", make) / "model.onnx"


def traced(name: str) -> OnnxModel:
    return OnnxModel(graph_file(name), OUTPUT_NAME, 1)


def speaker(name: str, sampling: Sampling) -> ChatModel:
    return ChatModel(load_tokenizer(base(name), LENGTH), traced(name), sampling)


@pytest.mark.parametrize("name", BASES)
def test_greedy_tokens_are_those_of_the_checkpoint(name: str) -> None:
    """Hugging Face's own `generate`, with its own cache."""
    model = PROBLEM.objective.load_model(base(name), ()).eval()
    ours = speaker(name, Sampling(20))
    for messages in chat_rows(12)["messages"]:
        ids = ours.encoder.encode(messages[:-1]).input_ids
        config = GenerationConfig(
            max_new_tokens=20, do_sample=False, eos_token_id=sorted(ours.ends), pad_token_id=0
        )
        mask = torch.ones(1, len(ids), dtype=torch.int64)
        output = model.generate(torch.tensor([ids]), generation_config=config, attention_mask=mask)
        expected = output[0, len(ids) :].tolist()
        assert list(ours.tokens(ids)) == [token for token in expected if token not in ours.ends]


@pytest.mark.parametrize("name", BASES)
def test_reading_on_is_reading_the_whole(name: str) -> None:
    model, draw = traced(name), np.random.default_rng(0)
    reader = CachedDecoder(model)
    ids: list[int] = []
    for more in (1, 7, 1, 1, 20, 3):
        ids = [*ids, *draw.integers(5, 200, more).tolist()]
        mask = np.ones((1, len(ids)), np.int64)
        whole = model.run({"input_ids": np.asarray([ids]), "attention_mask": mask})
        np.testing.assert_allclose(reader.read(ids), whole[0, -1], atol=1e-4)
    other = [*ids[:9], 17, 18]
    for _ in range(2):  # a dialogue with the same beginning, then the same dialogue again
        np.testing.assert_allclose(reader.read(other), CachedDecoder(model).read(other), atol=1e-4)
    assert next(iter(reader.cache.values())).shape[2] == len(other)


def test_an_answer_in_pieces_is_the_answer() -> None:
    ours = speaker("llama", Sampling(20))
    for messages in chat_rows(6)["messages"]:
        pieces = list(ours.answer(messages[:-1]))
        tokens = list(ours.tokens(ours.encoder.encode(messages[:-1]).input_ids))
        text = ours.tokenizer.decode(tokens)
        # the bytes of an incomplete last character are not shown
        assert text.lstrip().startswith("".join(pieces))


def test_sampling_keeps_to_the_likeliest_and_to_its_seed() -> None:
    probabilities = [0.05, 0.5, 0.3, 0.15]
    logits = np.log(np.asarray(probabilities, np.float32))
    draw = np.random.default_rng(0)

    def tokens(count: int, sampling: Sampling) -> list[int]:
        return [choose_token(logits, sampling, draw) for _ in range(count)]

    assert tokens(1, Sampling(1)) == [1]
    assert set(tokens(300, Sampling(1, 1.0, 0.79))) == {1, 2}
    shares = np.bincount(tokens(4000, Sampling(1, 1.0)), minlength=4) / 4000
    np.testing.assert_allclose(shares, probabilities, atol=0.03)
    assert set(tokens(20, Sampling(1, 1.0, 0.0))) == {1}
    question = SAMPLES["chat"].rows["messages"][0][:1]
    ids = DialogueEncoder(load_tokenizer(base("llama"), LENGTH)).encode(question).input_ids
    first, again, other = (
        list(speaker("llama", Sampling(12, 1.5, 1.0, seed)).tokens(ids)) for seed in (1, 1, 2)
    )
    assert first == again != other


@pytest.mark.parametrize("name", BASES)
@pytest.mark.parametrize(("bits", "allowed"), [(8, 0.02), (4, 0.2)])
def test_quantized_weights_say_nearly_the_same_whatever_they_are_batched_with(
    name: str, bits: int, allowed: float, tmp_path: Path
) -> None:
    exact = traced(name)
    quantize_weights(onnx.load(graph_file(name)), tmp_path / "model.onnx", bits=bits)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
    assert operators["MatMulNBits"] >= 4 * 2 + 1  # products of two layers, and the output layer
    model = OnnxModel(tmp_path / "model.onnx", OUTPUT_NAME, 1)
    features = features_of(name, 12)
    outputs = model.outputs(features, PROBLEM.encoding, 0)
    _, moved = PROBLEM.scoring.agreement(outputs, exact.outputs(features, PROBLEM.encoding, 0))
    assert moved < allowed
    alone = []
    for row in range(12):
        single = {key: values[row : row + 1] for key, values in features.items()}
        alone.append(model.outputs(single, PROBLEM.encoding, 0)[0])
    assert PROBLEM.scoring.agreement(stack_rows(alone), outputs)[1] < 1e-4


def test_quantizing_weights_leaves_logging_alone(tmp_path: Path) -> None:
    before = logging.getLogger().level, list(logging.getLogger().handlers)
    quantize_weights(onnx.load(graph_file("llama")), tmp_path / "model.onnx", bits=4)
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before
