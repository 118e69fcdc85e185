"""Words of texts, given as a list or found in the text: their character spans and first tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

Spans = list[tuple[int, int]]  # (start, end) characters

BLANK = " "  # joins words that are given as a list
# scripts without spaces: each character is a word of its own
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}"
_LETTER = rf"[\p{{L}}\p{{N}}_&&[^{_SPACELESS}]]"
_REST = rf"[\p{{L}}\p{{M}}\p{{N}}_&&[^{_SPACELESS}]]"
# URLs and hashtags, letters and digits with their joiners (won't, Coca-Cola, U.S, 3.5), or else one
# symbol with its combining marks; Oniguruma's syntax
_WORD = (
    rf"\p{{Alpha}}+://[^\s{_SPACELESS}]+|#{_LETTER}{_REST}*|[{_SPACELESS}]"
    rf"|{_LETTER}{_REST}*(?:[-'’.](?={_LETTER}){_REST}+)*"
    r"|[^\s\p{L}\p{N}\p{C}\p{Z}]\p{M}*"
)


def find_words(text: str) -> Spans:
    """Character spans of a text's words; whitespace and invisible characters belong to none."""
    return [span for _, span in _splitter().pre_tokenize_str(text)]


@cache
def _splitter() -> PreTokenizer:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return Split(Regex(_WORD), "removed", invert=True)


def join_words(words: Sequence[str | None] | None) -> tuple[str, Spans]:
    """(the words joined by BLANK, the character span of each); a None is an empty word."""
    spans, start = [], 0
    present = ["" if word is None else word for word in words or ()]
    for word in present:
        spans.append((start, start + len(word)))
        start += len(word) + len(BLANK)
    return BLANK.join(present), spans


def words_of(rows: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[Spans]]:
    """(texts, spans of their words) of rows with `tokens`, or with `text` alone."""
    if "tokens" in rows:
        joined = list(map(join_words, rows["tokens"]))
        return [text for text, _ in joined], [words for _, words in joined]
    return list(rows["text"]), list(map(find_words, rows["text"]))


def sub_words(encoding: Encoding) -> tuple[list[int], Spans]:
    """(token ids, character span of each) of the whole text, even past the tokenizer's limit.

    Special tokens are left out.
    """
    ids: list[int] = []
    offsets: Spans = []
    for part in (encoding, *encoding.overflowing):
        for token, span, special in zip(
            part.ids, part.offsets, part.special_tokens_mask, strict=True
        ):
            if not special:
                ids.append(token)
                offsets.append(span)
    return ids, offsets


def special_tokens(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """(ids before, ids after) a text's own tokens."""
    encoding = tokenizer.encode("a")
    mask = encoding.special_tokens_mask
    before, after = mask.index(0), mask[::-1].index(0)
    return encoding.ids[:before], encoding.ids[len(mask) - after :]


def unknown_token(tokenizer: Tokenizer) -> int:
    """Id of the unknown token; 0 if there is none, as the tokenizer then covers every text."""
    model = tokenizer.model
    name = getattr(model, "unk_token", None)
    token_id = tokenizer.token_to_id(name) if name else getattr(model, "unk_id", None)
    return int(token_id or 0)


def align(
    ids: Sequence[int], offsets: Spans, words: Spans, unknown: int
) -> tuple[list[int], list[int]]:
    """(token ids, for each word the index of its first token).

    A word without any token gets an `unknown` one, inserted in its place.
    ids, offsets  the text's sub-words in order; one that spans two words is the first of both
    """
    aligned: list[int] = []
    firsts: list[int] = []
    token = 0
    for start, end in words:
        while token < len(ids) and offsets[token][1] <= start:
            aligned.append(ids[token])
            token += 1
        firsts.append(len(aligned))
        if token == len(ids) or offsets[token][0] >= end:
            aligned.append(unknown)
    return [*aligned, *ids[token:]], firsts
