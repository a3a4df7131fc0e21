"""Settings of tokens, and of who may do what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import colander

from customer_orders.sections.secret import PLACEHOLDER
from customer_orders.settings import Number, Words, node

# Bytes of key that make a brute force as hard as the hash: RFC 7518, section 3.2.
KEY_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
MAKE_A_KEY = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(64))'"


def _signing_key(node: colander.SchemaNode, value: str) -> None:
    if len(set(value)) < 12 or PLACEHOLDER.search(value):
        raise colander.Invalid(node, f"looks like a placeholder, not a random key. {MAKE_A_KEY}")


def _grantees(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    odd = [word for word in value if not re.fullmatch(r"[^@\s]*@[^@\s]+", word)]
    if odd:
        raise colander.Invalid(node, f"{' '.join(odd)}: write e-mail addresses, or @domain for a whole domain")


class Jwt(colander.MappingSchema):
    """Access tokens."""

    private_key = node(
        colander.String(),
        "The key that signs access tokens: random, at least as long as the algorithm's hash.",
        validator=_signing_key,
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
        """The key is at least as long as the algorithm's hash. ``values``: those that are valid by themselves."""
        if {"private_key", "algorithm"} <= values.keys():
            needed = KEY_BYTES[values["algorithm"]]
            if len(values["private_key"].encode()) < needed:
                yield "private_key", f"is shorter than the {needed} bytes of {values['algorithm']}. {MAKE_A_KEY}"


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
        Number(60, 31536000), "Seconds for which an unused refresh token is good.", missing=30 * 86400
    )
