"""Money: integers in a currency's minor unit, with an ISO 4217 code."""

from __future__ import annotations

from decimal import Decimal

from iso4217 import Currency

# The largest amount that every JSON parser still reads exactly (RFC 8259, section 6).
MAX_AMOUNT = 10**15 - 1

CURRENCIES = frozenset(currency.code for currency in Currency)

_MINOR_DIGITS = {currency.code: currency.exponent or 0 for currency in Currency}


def amount_text(amount: int, currency: str) -> str:
    """Money for people: 10000 minor units of KES are ``KES 100.00``, of UGX (no minor unit) ``UGX 10,000``."""
    digits = _MINOR_DIGITS[currency]
    return f"{currency} {Decimal(amount).scaleb(-digits):,.{digits}f}"
