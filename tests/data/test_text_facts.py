"""Facts about single texts, and personal data in them."""

from __future__ import annotations

import random
import unicodedata

import pyarrow as pa
import pytest

from tasks.data.quality.personal_data import find_personal_data, mask
from tasks.data.quality.text_facts import text_facts


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("me@example.com", ["e-mail"]),
        ("a@b", []),
        ("5 @ 3.com", []),
        ("4111-1111-1111-1111", ["card"]),
        ("4111 1111 1111 1112", []),
        ("order 20240131123456", []),
        ("+1 212 566 8082", ["phone"]),
        ("(212) 566-8082", ["phone"]),
        ("1234567", []),
        ("$1,234,567,890", []),
        ("2024-01-31 12:30:45", []),
        ("me@example.com, +1 212 566 8082 and 5500 0000 0000 0004", ["e-mail", "card", "phone"]),
    ],
)
def test_personal_data_is_told_from_other_numbers(text: str, kinds: list[str]) -> None:
    assert find_personal_data(text) == kinds


def test_a_masked_text_shows_no_personal_data_and_is_short() -> None:
    assert mask("mail me@example.com\x00 or +1 212 566 8082") == "mail [e-mail]\\x00 or [number]"
    assert len(mask("word " * 1000)) == 80
    assert mask("x" * 75 + "someone@example.com").startswith("x")
    assert "@example" not in mask("y " * 38 + "someone@example.com")


def test_a_quick_look_at_plain_texts_tells_what_the_search_does() -> None:
    draw = random.Random(0)
    characters = [*map(chr, range(0x20, 0x80)), *"\t\n\x00\x1b\x9fé\u200b\u3000中"]
    sizes = [95, 96, len(characters)]
    texts = [
        "".join(draw.choices(characters[: draw.choice(sizes)], k=draw.randint(0, 9)))
        for _ in range(5000)
    ]

    def is_control(character: str) -> bool:
        return unicodedata.category(character) == "Cc" and character not in "\t\n\r"

    facts = text_facts(pa.table({"text": pa.array(texts)}), "text", None).to_pydict()
    visible = [sum(unicodedata.category(c)[0] not in "ZC" for c in text) for text in texts]
    assert facts["text.control_characters"] == [sum(map(is_control, text)) for text in texts]
    assert facts["text.visible"] == visible


def test_facts_of_texts() -> None:
    texts = ["ab c", "привет abc", None, "", "\u200b", "🤦🏼‍♂️", "カタカナ と 漢字"]
    rows = pa.table({"text": pa.array(texts)})
    facts = text_facts(rows, "text", "Latin").to_pydict()
    assert facts["text.characters"] == [4, 10, None, 0, 1, 5, 9]
    assert facts["text.visible"][:5] == [3, 9, None, 0, 0]
    assert facts["text.script_share"][:4] == [1.0, pytest.approx(1 / 3), None, None]
    assert facts["text.encoding_damage"][:4] == [0, 0, None, 0]
    japanese = text_facts(rows, "text", "Han, Hiragana, Katakana").to_pydict()
    assert japanese["text.script_share"][-1] == 1.0
