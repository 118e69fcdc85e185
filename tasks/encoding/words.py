"""Words of texts: where they lie, given as a list or found in the text, and which sub-word token stands for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

Spans = list[tuple[int, int]]  # (start, end) characters

BLANK = " "  # between words that are given as a list
_SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}"  # scripts without blanks: each character is a word of its own
_LETTER = rf"[\p{{L}}\p{{N}}_&&[^{_SPACELESS}]]"
_REST = rf"[\p{{L}}\p{{M}}\p{{N}}_&&[^{_SPACELESS}]]"
# addresses and hashtags, letters and digits with what joins them (won't, Coca-Cola, U.S, 3.5), or else one sign with its marks;
# Oniguruma's syntax
_WORD = rf"\p{{Alpha}}+://[^\s{_SPACELESS}]+|#{_LETTER}{_REST}*|[{_SPACELESS}]|{_LETTER}{_REST}*(?:[-'’.](?={_LETTER}){_REST}+)*|[^\s\p{{L}}\p{{N}}\p{{C}}\p{{Z}}]\p{{M}}*"


def find_words(text: str) -> Spans:
    """Where the words of a text lie; blanks and what cannot be seen belong to none."""
    return [span for _, span in _splitter().pre_tokenize_str(text)]


@cache
def _splitter() -> PreTokenizer:
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return Split(Regex(_WORD), "removed", invert=True)


def join_words(words: Sequence[str | None] | None) -> tuple[str, Spans]:
    """(the text, where the words lie in it) of words that are given; the text is them with a blank between each two."""
    spans, start = [], 0
    given = ["" if word is None else word for word in words or ()]
    for word in given:
        spans.append((start, start + len(word)))
        start += len(word) + len(BLANK)
    return BLANK.join(given), spans


def words_of(rows: Mapping[str, Sequence[Any]]) -> tuple[list[str], list[Spans]]:
    """(texts, where their words lie) of rows with `tokens`, or with `text` alone."""
    if "tokens" in rows:
        joined = list(map(join_words, rows["tokens"]))
        return [text for text, _ in joined], [words for _, words in joined]
    return list(rows["text"]), list(map(find_words, rows["text"]))


def sub_words(encoding: Encoding) -> tuple[list[int], Spans]:
    """(token ids, their characters) of a whole text without special tokens, though the tokenizer may have cut it."""
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
    """(those before, those after) a text's own tokens."""
    encoding = tokenizer.encode("a")
    mask = encoding.special_tokens_mask
    before, after = mask.index(0), mask[::-1].index(0)
    return encoding.ids[:before], encoding.ids[len(mask) - after :]


def unknown_token(tokenizer: Tokenizer) -> int:
    """The id that stands for what the tokenizer has no sub-word for; 0 where it has none, for then it has one for everything."""
    model = tokenizer.model
    name = getattr(model, "unk_token", None)
    found = tokenizer.token_to_id(name) if name else getattr(model, "unk_id", None)
    return int(found or 0)


def align(
    ids: Sequence[int], offsets: Spans, words: Spans, unknown: int
) -> tuple[list[int], list[int]]:
    """(token ids, for each word the place of its first): every word has one, `unknown` where the tokenizer saw nothing of it.

    ids, offsets  of the text's sub-words in order; a token that reaches over a border is the first of both words
    """
    found: list[int] = []
    places: list[int] = []
    token = 0
    for start, end in words:
        while token < len(ids) and offsets[token][1] <= start:
            found.append(ids[token])
            token += 1
        places.append(len(found))
        if token == len(ids) or offsets[token][0] >= end:
            found.append(unknown)
    return [*found, *ids[token:]], places
