"""Tiny models of architectures that name their parts differently."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from shared import made_once
from tiny import make_tokenizer

WIDTH, LAYERS, VOCABULARY = 32, 2, 200


def _bert(model_type: str, **options: Any) -> Any:
    from transformers import AutoConfig

    return AutoConfig.for_model(
        model_type,
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=66,
        pad_token_id=0,
        **options,
    )


def _distilbert() -> Any:
    from transformers import DistilBertConfig

    return DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=WIDTH,
        n_layers=LAYERS,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=64,
    )


def _gpt2() -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        n_positions=64,
        pad_token_id=0,
    )


ARCHITECTURES: dict[str, Callable[[], Any]] = {
    "bert": lambda: _bert("bert"),
    "roberta": lambda: _bert("roberta"),
    "electra": lambda: _bert("electra", embedding_size=16),
    "mpnet": lambda: _bert("mpnet"),
    "distilbert": _distilbert,
    "gpt2": _gpt2,
    "llama": lambda: _bert("llama", num_key_value_heads=2),
}
# the last linear module of a layer's feed-forward part
FEED_FORWARD = {
    "bert": "output.dense",
    "roberta": "output.dense",
    "electra": "output.dense",
    "mpnet": "output.dense",
    "distilbert": "ffn.lin2",
    "gpt2": "mlp.c_proj",
    "llama": "mlp.down_proj",
}
LEFT_TO_RIGHT = {"gpt2", "llama"}


def body_dir(name: str) -> Path:
    """Directory of a model without a head, and its tokenizer; made once a test run."""

    def make(directory: Path) -> None:
        import torch
        from transformers import AutoModel

        torch.manual_seed(0)
        AutoModel.from_config(ARCHITECTURES[name]()).save_pretrained(directory)
        make_tokenizer(directory)

    return made_once(f"body-{name}", make)
