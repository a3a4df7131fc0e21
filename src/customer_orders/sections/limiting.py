"""Settings of how many requests are taken."""

from __future__ import annotations

from typing import Any

import colander
import limits
import redis

from customer_orders.sections.secret import masked_url, passwords_in
from customer_orders.settings import node

STORAGES = ("redis://", "rediss://")
HOW_TO_WRITE = "Write a number and a time, such as 600/minute, 10/second or 5000 per 2 hours; several with ; between"
STORAGE = "write memory://, redis://user:password@host:6379/0, or rediss:// for the same with TLS"

# Every class of requests, and what is taken of each unless the deployment says otherwise.
CLASSES = {
    "read": ("that read", "1200/minute"),
    "write": ("that write", "600/minute"),
    "sign_in": ("to sign in", "60/minute"),
    "token": ("for tokens", "120/minute"),
    "reports": ("with delivery reports of providers", "6000/minute"),
}


def _storage(node: colander.SchemaNode, value: str) -> None:
    if value == "memory://":
        return
    # what is wrong is not repeated: it may hold a password
    if not value.startswith(STORAGES):
        raise colander.Invalid(node, STORAGE)
    try:
        # builds a connection and opens none
        redis.ConnectionPool.from_url(value).make_connection()
    except (ValueError, TypeError):
        raise colander.Invalid(node, f"is no address of a Redis; {STORAGE}") from None


def _rate(node: colander.SchemaNode, value: str) -> None:
    try:
        rates = limits.parse_many(value) if value else []
    except ValueError:
        raise colander.Invalid(node, f"is {value!r}. {HOW_TO_WRITE}") from None
    if any(rate.amount < 1 for rate in rates):
        raise colander.Invalid(node, f"is {value!r}, and would let nobody in. {HOW_TO_WRITE}; blank for no limit")


def _class(name: str, what: str, rate: str) -> colander.SchemaNode:
    return node(
        colander.String(allow_empty=True),
        f"Requests {what} that are taken of one address, and of one caller, such as 600/minute. Blank: no limit.",
        name=name,
        missing=rate,
        validator=_rate,
    )


class Limits(colander.MappingSchema):
    """How many requests are taken."""

    storage = node(
        colander.String(),
        "Where requests are counted: memory:// (each process counts for itself, so N processes take up to N times as "
        "many), or a Redis, in which all count together: redis://user:password@host:6379/0, rediss:// with TLS.",
        missing="memory://",
        validator=_storage,
        mask=masked_url,
        secrets_in=passwords_in,
    )

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        for name, (what, rate) in CLASSES.items():
            self.add(_class(name, what, rate))
