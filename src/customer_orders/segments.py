"""How many SMS a text takes, and in which encoding: 3GPP TS 23.038 (characters) and TS 23.040, 9.2.3.24.1 (segments).

An SMS carries 140 octets: 160 septets of the GSM 7 bit default alphabet, or 70 code units of UTF-16 if a single
character is not in that. Of a longer text each segment spends 6 octets to say which it is, which leaves 153 or 67.
"""

from __future__ import annotations

from dataclasses import dataclass

# TS 23.038, section 6.2.1, but for the escape to the extension table, which is no character.
BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# TS 23.038, section 6.2.1.1: each is written as an escape and a septet.
EXTENSION = frozenset("\f^{}\\[~]|€")

GSM_7, UCS_2 = "gsm-7", "ucs-2"


@dataclass(frozen=True)
class Size:
    """What a text takes. ``encoding``: ``gsm-7`` or ``ucs-2``."""

    encoding: str
    segments: int


def size(text: str) -> Size:
    """What a text takes to send.

    Providers fill one segment after the other; a character of two units (escaped, or outside the Basic Multilingual
    Plane) is never split between two of them.
    """
    if BASIC.union(EXTENSION).issuperset(text):
        units = [2 if character in EXTENSION else 1 for character in text]
        return Size(GSM_7, _segments(units, single=160, several=153))
    units = [2 if character > "\uffff" else 1 for character in text]
    return Size(UCS_2, _segments(units, single=70, several=67))


def _segments(units: list[int], *, single: int, several: int) -> int:
    if sum(units) <= single:
        return 1
    segments, free = 1, several
    for unit in units:
        if unit > free:
            segments, free = segments + 1, several
        free -= unit
    return segments
