"""Settings of tokens, and of who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import colander

from customer_orders.sections.keys import SigningKey, key_ring
from customer_orders.sections.secret import PLACEHOLDER
from customer_orders.settings import Number, Words, node

# Bytes of key that make a brute force as hard as the hash: RFC 7518, section 3.2.
KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
MAKE_A_KEY = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(64))'"


def _key_ring(node: colander.SchemaNode, value: str) -> None:
    try:
        ring = key_ring(value)
    except ValueError as error:
        raise colander.Invalid(node, str(error)) from None
    for number, key in enumerate(ring, 1):
        if len(set(key.secret)) < 12 or PLACEHOLDER.search(key.secret):
            said = "looks like a placeholder, not a random key"
            raise colander.Invalid(node, f"{_which(ring, number)}{said}. {MAKE_A_KEY}")


def _which(ring: Sequence[SigningKey], number: int) -> str:
    """Which of the keys is meant, unless there is only one; it is not repeated."""
    return f"number {number} " if len(ring) > 1 else ""


def _grantees(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    odd = [word for word in value if not re.fullmatch(r"[^@\s]*@[^@\s]+", word)]
    if odd:
        raise colander.Invalid(node, f"{' '.join(odd)}: write e-mail addresses, or @domain for a whole domain")


class Jwt(colander.MappingSchema):
    """Access tokens."""

    private_key = node(
        colander.String(),
        "The key that signs access tokens: random, at least as long as the algorithm's hash. Or several, each as "
        "kid:key, with white space between: the first signs, all verify.",
        validator=_key_ring,
        secret=True,
        how=f"is required: the key that signs access tokens. {MAKE_A_KEY}",
    )
    algorithm = node(
        colander.String(),
        "HS256, HS384 or HS512.",
        missing="HS512",
        validator=colander.OneOf(list(KEY_BYTES)),
    )
    expiration = node(Number(10, 86400), "Seconds for which an access token is good.", missing=900)

    def check(self, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """Each key is at least as long as the algorithm's hash. ``values``: those that are valid by themselves."""
        if {"private_key", "algorithm"} <= values.keys():
            needed = KEY_BYTES[values["algorithm"]]
            ring = key_ring(values["private_key"])
            for number, key in enumerate(ring, 1):
                if len(key.secret.encode()) < needed:
                    said = f"is shorter than the {needed} bytes of {values['algorithm']}"
                    yield "private_key", f"{_which(ring, number)}{said}. {MAKE_A_KEY}"


class Auth(colander.MappingSchema):
    """Who may do what."""

    admins = node(Words(), "E-mail addresses, or @domains, whose owners are admins.", missing=(), validator=_grantees)
    clerks = node(Words(), "E-mail addresses, or @domains, whose owners are clerks.", missing=(), validator=_grantees)
    default_role = node(
        colander.String(),
        "Role of whoever signs in and is named nowhere: viewer, clerk, admin, or none to refuse them.",
        missing="none",
        validator=colander.OneOf(["none", "viewer", "clerk", "admin"]),
    )
    sign_in_seconds = node(Number(30, 3600), "Seconds a person has to finish signing in.", missing=600)
    refresh_seconds = node(
        Number(60, 31536000),
        "Seconds for which a session goes on unused: those of an unspent refresh token.",
        missing=30 * 86400,
    )
    session_seconds = node(
        Number(60, 10 * 31536000), "Seconds after which a session ends, however much it is used.", missing=90 * 86400
    )
