"""Finds and masks possible personal data: e-mail addresses, phone and payment card numbers.

The patterns are also valid RE2, so that a database can pick the few texts worth a closer look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# bounded by the limits of mail addresses: unbounded, a megabyte of letters would take hours
EMAIL = r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}"
# candidate phone or card numbers: 7 digits or more
NUMBER = r"[+(]?[0-9](?:[ ().-]{0,2}[0-9]){6,}"
PHONE_REGIONS = ("US", "GB")  # for numbers in national format; with a + any country's is found
_CARD_DIGITS = (13, 19)
_PHONE_DIGITS = (7, 15)
_DATE = re.compile(r"(?:19|20)\d\d[ .-]\d{1,2}[ .-]\d{1,2}|\d{1,2}[ .-]\d{1,2}[ .-](?:19|20)\d\d")
_EMAIL = re.compile(EMAIL)
_NUMBER = re.compile(NUMBER)


def find_personal_data(text: str) -> list[str]:
    """The categories found, of 'e-mail', 'card' and 'phone', in that order."""
    categories = {"e-mail"} if _EMAIL.search(text) else set()
    categories |= {name for candidate in _candidates(text) if (name := _category(candidate))}
    return [name for name in ("e-mail", "card", "phone") if name in categories]


def _candidates(text: str) -> Iterator[str]:
    for match in _NUMBER.finditer(text):
        # digits that continue, or are inside a word, an amount or an address, are no such number
        before = text[max(0, match.start() - 1) : match.start()]
        after = text[match.end() : match.end() + 1]
        if not (
            _DATE.match(match[0])
            or before.isalnum()
            or before in tuple("$£€/=_#&.,;")
            or after.isalnum()
            or after in tuple("/=_%:")
        ):
            yield match[0]


def _category(candidate: str) -> str | None:
    digits = re.sub(r"[^0-9]", "", candidate)
    card_length = _CARD_DIGITS[0] <= len(digits) <= _CARD_DIGITS[1]
    if card_length and digits[0] in "23456" and _is_luhn(digits):
        return "card"
    if _PHONE_DIGITS[0] <= len(digits) <= _PHONE_DIGITS[1] and _is_phone(candidate):
        return "phone"
    return None


def _is_luhn(digits: str) -> bool:
    from stdnum import luhn

    return bool(luhn.is_valid(digits))


def _is_phone(candidate: str) -> bool:
    import phonenumbers

    for region in (None,) if candidate.startswith("+") else PHONE_REGIONS:
        try:
            if phonenumbers.is_valid_number(phonenumbers.parse(candidate, region)):
                return True
        except phonenumbers.NumberParseException:
            continue
    return False


def mask(text: str, limit: int = 80) -> str:
    """Make a text safe to show: mask personal data, escape control characters, cut to `limit`."""
    # mask more than the limit: an address or number cut in two would not be recognized
    shown = _NUMBER.sub("[number]", _EMAIL.sub("[e-mail]", text[: 4 * limit]))
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
    return shown if len(shown) <= limit and len(text) <= 4 * limit else shown[: limit - 1] + "…"
