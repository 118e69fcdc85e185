"""A small encoder with a tokenizer of its own, where no base model is at hand: untrained, to be trained as a masked language model."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.files import atomic_path
from tasks.params.section import Positive, Section

if TYPE_CHECKING:
    from tokenizers import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
HEAD_WIDTH = 64
POSITIONS = 512  # the longest text that it can read, in tokens


class Shape(Section):
    """How large the encoder is.

    vocabulary  sub-words at most; few texts have fewer
    width       of a token's vector; the inner layers are four times as wide
    """

    vocabulary: Positive = 8000
    layers: Positive = 4
    width: Positive = 256

    @property
    def heads(self) -> int:
        """Attention heads of a layer, each about HEAD_WIDTH wide."""
        return next(
            heads
            for heads in range(max(1, self.width // HEAD_WIDTH), 0, -1)
            if self.width % heads == 0
        )


def make_scratch_model(texts: Iterable[str], directory: Path, shape: Shape, seed: int) -> None:
    """Write a base model's directory: a WordPiece tokenizer trained on the texts, and a BERT with random weights.

    Case is folded; each Chinese character is a word of its own. The same texts, shape and seed make the same files.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    tokenizer = train_tokenizer(texts, shape.vocabulary)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=shape.width, num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        intermediate_size=4 * shape.width, max_position_embeddings=POSITIONS, pad_token_id=tokenizer.token_to_id("[PAD]"),
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]), atomic_path(directory) as new:
        torch.manual_seed(seed)
        BertForMaskedLM(config).save_pretrained(new, safe_serialization=True)
        names = {
            name: f"[{name.removesuffix('_token').upper()}]"
            for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
        }
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, model_max_length=POSITIONS, **names
        ).save_pretrained(new)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A WordPiece tokenizer in BERT's manner."""
    from tokenizers import (
        Tokenizer,
        decoders,
        models,
        normalizers,
        pre_tokenizers,
        processors,
        trainers,
    )

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    # puts blanks around Chinese characters, so that the pre-tokenizer takes each for a word; accents matter in most languages
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=True, strip_accents=False, lowercase=True
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary, special_tokens=list(SPECIAL), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer
