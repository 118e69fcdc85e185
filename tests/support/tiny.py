"""A real but tiny base model, tokenizer and rows, made in a second."""

from __future__ import annotations

import random
from pathlib import Path

POSITIVE = "good lovely superb bright".split()
NEGATIVE = "bad awful broken dull".split()
NEUTRAL = "table paper number square".split()
FILLER = (
    "the a this that room film book phone soup train hotel shirt lamp song chair game door river "
    "city garden was is seems looked felt very quite rather really and but with for near after "
    "before old new small large first second our their one two three"
).split()
LABELS = ("negative", "neutral", "positive")


def tiny_rows(count: int, seed: int = 0) -> dict[str, list[str]]:
    """Distinct sentences, each with two words that give its label away: learnable in seconds.

    Columns text, label, domain.
    """
    draw = random.Random(seed)
    rows: dict[str, list[str]] = {"text": [], "label": [], "domain": []}
    seen: set[str] = set()
    while len(rows["text"]) < count:
        label = draw.choice(LABELS)
        words = draw.choices(FILLER, k=draw.randint(4, 14))
        hints = {"negative": NEGATIVE, "neutral": NEUTRAL, "positive": POSITIVE}[label]
        for hint in draw.choices(hints, k=2):
            words.insert(draw.randrange(len(words)), hint)
        text = " ".join(words) + "."
        if text not in seen:
            seen.add(text)
            rows["text"].append(text)
            rows["label"].append(label)
            rows["domain"].append(draw.choice(("films", "hotels")))
    return rows


def make_tokenizer(directory: Path, max_length: int = 64) -> None:
    """A WordPiece tokenizer of the words above and single letters, in Hugging Face's format."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = [*POSITIVE, *NEGATIVE, *NEUTRAL, *FILLER, ".", ","]
    pieces = [*special, *words, *letters, *(f"##{c}" for c in letters)]
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(directory)


def make_base(directory: Path) -> Path:
    """A 2-layer, 32-wide BERT without a head, and its tokenizer."""
    import torch
    from transformers import BertConfig, BertModel

    make_tokenizer(directory)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=200,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.2,
    )
    BertModel(config).save_pretrained(directory)
    return directory
