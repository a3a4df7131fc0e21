"""What a text takes to send, against the tables of 3GPP TS 23.038."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from customer_orders.segments import BASIC, EXTENSION, Size, size

# TS 23.038, section 6.2.1, column by column; the escape is no character.
TABLE = """
@ Δ SP 0 ¡ P ¿ p
£ _ ! 1 A Q a q
$ Φ " 2 B R b r
¥ Γ # 3 C S c s
è Λ ¤ 4 D T d t
é Ω % 5 E U e u
ù Π & 6 F V f v
ì Ψ ' 7 G W g w
ò Σ ( 8 H X h x
Ç Θ ) 9 I Y i y
LF Ξ * : J Z j z
Ø ESC + ; K Ä k ä
ø Æ , < L Ö l ö
CR æ - = M Ñ m ñ
Å ß . > N Ü n ü
å É / ? O § o à
"""
NAMED = {"SP": " ", "LF": "\n", "CR": "\r"}

gsm = st.text(st.sampled_from(sorted(BASIC | EXTENSION)), min_size=1, max_size=700)
anything = st.text(st.sampled_from("aé€[ሀя\N{GRINNING FACE}"), min_size=1, max_size=400)


def test_the_alphabet_is_that_of_the_standard():
    written = [NAMED.get(word, word) for word in TABLE.split() if word != "ESC"]
    assert len(written) == 127
    assert set(written) == BASIC
    assert set("\f^{}\\[~]|€") == EXTENSION


@pytest.mark.parametrize(
    ("text", "encoding", "segments"),
    [
        ("a", "gsm-7", 1),
        ("a" * 160, "gsm-7", 1),
        ("a" * 161, "gsm-7", 2),
        ("a" * 306, "gsm-7", 2),
        ("a" * 307, "gsm-7", 3),
        # an escaped character counts twice
        ("€" * 80, "gsm-7", 1),
        ("€" * 80 + "a", "gsm-7", 2),
        # 153 is odd, and an escape stays with what it escapes: 76 to a segment
        ("€" * 152, "gsm-7", 2),
        ("€" * 153, "gsm-7", 3),
        ("a" * 152 + "€" + "a" * 151, "gsm-7", 2),
        ("a" * 152 + "€" + "a" * 152, "gsm-7", 3),
        # what the alphabet lacks makes all of it UCS-2
        ("ç", "ucs-2", 1),
        ("`", "ucs-2", 1),
        ("\x1b", "ucs-2", 1),
        ("\N{NO-BREAK SPACE}", "ucs-2", 1),
        ("a" * 69 + "\N{RIGHT SINGLE QUOTATION MARK}", "ucs-2", 1),
        ("a" * 70 + "\N{RIGHT SINGLE QUOTATION MARK}", "ucs-2", 2),
        ("я" * 134, "ucs-2", 2),
        ("я" * 135, "ucs-2", 3),
        # so do surrogates, 33 pairs to a segment
        ("\N{GRINNING FACE}" * 35, "ucs-2", 1),
        ("\N{GRINNING FACE}" * 36, "ucs-2", 2),
        ("\N{GRINNING FACE}" * 66, "ucs-2", 2),
        ("\N{GRINNING FACE}" * 67, "ucs-2", 3),
    ],
)
def test_segments_are_counted_as_networks_do(text, encoding, segments):
    assert size(text) == Size(encoding, segments)


@given(gsm)
def test_the_segments_of_gsm_7_hold_the_text_and_no_fewer_could(text):
    units = len(text) + sum(character in EXTENSION for character in text)
    found = size(text)
    assert found.encoding == "gsm-7"
    assert (found.segments == 1) == (units <= 160)
    # at most one unit is lost at the end of each segment
    assert units <= 160 or -(-units // 153) <= found.segments <= -(-units // 152)


@given(anything)
def test_the_segments_of_ucs_2_hold_the_text_and_no_fewer_could(text):
    units = len((text + "я").encode("utf-16-le")) // 2
    found = size(text + "я")
    assert found.encoding == "ucs-2"
    assert (found.segments == 1) == (units <= 70)
    assert units <= 70 or -(-units // 67) <= found.segments <= -(-units // 66)


@given(anything, anything)
def test_a_longer_text_never_takes_less(one, other):
    assert size(one + other).segments >= max(size(one).segments, size(other).segments)
