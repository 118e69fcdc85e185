"""Make a small untrained encoder and its tokenizer, for masked language modeling from scratch."""

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
POSITIONS = 512  # longest input, in tokens


class Shape(Section):
    """The size of the encoder.

    vocabulary  maximum number of sub-words; a small corpus has fewer
    width       hidden size; the feed-forward layers are four times as wide
    """

    vocabulary: Positive = 8000
    layers: Positive = 4
    width: Positive = 256

    @property
    def heads(self) -> int:
        """Attention heads per layer, each about HEAD_WIDTH wide."""
        most = max(1, self.width // HEAD_WIDTH)
        return next(heads for heads in range(most, 0, -1) if self.width % heads == 0)


def make_scratch_model(texts: Iterable[str], directory: Path, shape: Shape, seed: int) -> None:
    """Write a base model directory: a WordPiece tokenizer trained on the texts, and a random BERT.

    Case is folded; each Chinese character is a word of its own. The same texts, shape and seed give
    the same files.
    """
    import torch
    from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

    tokenizer = train_tokenizer(texts, shape.vocabulary)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(), pad_token_id=tokenizer.token_to_id("[PAD]"),
        hidden_size=shape.width, intermediate_size=4 * shape.width,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
        max_position_embeddings=POSITIONS,
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
    """Train a BERT-style WordPiece tokenizer."""
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
    # handle_chinese_chars puts spaces around Chinese characters, so that the pre-tokenizer makes
    # each a word; accents stay because they matter in most languages
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
