"""Tiny dialogues, and causal models with a byte-level tokenizer, with and without a template."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tiny import FILLER, NEGATIVE, NEUTRAL, POSITIVE, tiny_rows

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ANSWERS = {"positive": "good lovely", "negative": "bad awful", "neutral": "square number"}

Turns = list[dict[str, str]]


def turns(*texts: str, system: str = "") -> Turns:
    """Turns of the user and the assistant, the user first."""
    spoken = [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(texts)
    ]
    return [{"role": "system", "content": system}, *spoken] if system else spoken


def chat_rows(count: int) -> dict[str, list[Any]]:
    """Dialogues of one or two exchanges, some with a system turn.

    The answers state the sentiment of the question.
    """
    rows, draw = tiny_rows(2 * count), random.Random(0)
    pairs = [
        (text, f"it was {ANSWERS[label]}.")
        for text, label in zip(rows["text"], rows["label"], strict=True)
    ]
    messages = []
    for row in range(count):
        texts = [*pairs[2 * row], *(pairs[2 * row + 1] if row % 3 == 0 else ())]
        messages.append(turns(*texts, system="be quite small." if draw.random() < 0.3 else ""))
    joined = ["\n".join(turn["content"] for turn in dialogue) for dialogue in messages]
    return {"messages": messages, "text": joined}


def make_chat_tokenizer(directory: Path, template: str | None) -> int:
    """Byte-level BPE, like GPT-2's, trained on the words of the tiny rows; returns its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", *(["<|im_start|>", "<|im_end|>"] if template else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    roles = "system user assistant it be System User Assistant"
    words = " ".join([*FILLER, *POSITIVE, *NEGATIVE, *NEUTRAL, roles])
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([words, " " + words], trainer)
    end = "<|im_end|>" if template else "<|endoftext|>"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end)
    fast.chat_template = template
    fast.save_pretrained(directory)
    return int(tokenizer.get_vocab_size())


def make_chat_base(directory: Path) -> Path:
    """A 2-layer, 32-wide Llama with tied embeddings and no biases.

    Its tokenizer has a chat template, but no padding token.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = make_chat_tokenizer(directory, CHATML)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def make_plain_base(directory: Path) -> Path:
    """A 2-layer GPT-2 whose tokenizer has no chat template."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size = make_chat_tokenizer(directory, None)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=128,
        bos_token_id=0,
        eos_token_id=0,
    )
    GPT2LMHeadModel(config).save_pretrained(directory)
    return directory
