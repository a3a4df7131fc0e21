"""The key ring: the keys that sign access tokens, as ``jwt.private_key`` holds them."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,31}):(\S+)")


@dataclass(frozen=True)
class SigningKey:
    """A key, and the ``kid`` by which a token says that it was signed with it (RFC 7515, section 4.1.4)."""

    kid: str
    secret: str = field(repr=False)


def key_ring(text: str) -> tuple[SigningKey, ...]:
    """The keys of ``jwt.private_key``: the first signs, all verify.

    White space parts them. Each is ``kid:key``, or a key alone, whose ``kid`` then is made of its hash and tells
    nothing of it. Raises ValueError if two have one ``kid``.
    """
    ring = tuple(_signing_key(word) for word in text.split())
    kids = [key.kid for key in ring]
    for kid in kids:
        if kids.count(kid) > 1:
            raise ValueError(f"has two keys with the kid {kid}; name one of them otherwise, as in k2:...")
    return ring


def _signing_key(word: str) -> SigningKey:
    named = NAMED.fullmatch(word)
    if named:
        return SigningKey(named[1], named[2])
    return SigningKey(hashlib.sha256(b"kid:" + word.encode()).hexdigest()[:16], word)


def new_key() -> SigningKey:
    """A random key, long enough for each algorithm, whose ``kid`` tells the day it was made."""
    return SigningKey(f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}", secrets.token_urlsafe(64))
