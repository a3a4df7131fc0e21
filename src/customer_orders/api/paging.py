"""Bounded lists: ``limit``, an opaque ``cursor``, and the ``Link`` header that carries it (RFC 8288)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

import colander

from customer_orders.api.fields import MAX_ID, Field, Integer, node
from customer_orders.settings import section

DEFAULT_LIMIT = 50
MAX_LIMIT = 200


def encode(last_id: int) -> str:
    """The cursor that stands after the item ``last_id``."""
    return base64.urlsafe_b64encode(b"a%d" % last_id).decode().rstrip("=")


def decode(cursor: str) -> int:
    """The id after which a cursor stands. Raises ValueError unless :func:`encode` could have made it."""
    try:
        raw = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
        last_id = int(raw[1:])
    except (binascii.Error, ValueError):
        last_id = 0
    if not 0 < last_id <= MAX_ID or encode(last_id) != cursor:
        raise ValueError("Is not a cursor of this list; take it from the Link header.")
    return last_id


class Cursor(Field):
    """An opaque cursor; its value is the id after which it stands."""

    def parse(self, value: Any) -> int:
        return decode(str(value))

    def swagger(self) -> dict[str, Any]:
        return {"type": "string"}


class PageQuery(colander.MappingSchema):
    """The query of every list."""

    limit = node(
        Integer(1, MAX_LIMIT),
        f"How many items at most; {DEFAULT_LIMIT} unless told.",
        missing=DEFAULT_LIMIT,
    )
    cursor = node(Cursor(), "Where to go on: from the Link header of the page before.", missing=None)


def respond(request: Any, found: Sequence[Any], serialize: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    """A page as a bare array, with ``Link: <...>; rel="next"`` if there is more.

    :param found: one item more than the limit where there is more, as :func:`customer_orders.db.keyset` gives it.
    """
    limit = request.validated["query"]["limit"]
    page = found[:limit]
    if len(found) > limit:
        # whatever else narrows the list narrows its next page too
        query = urlencode({**request.GET, "limit": limit, "cursor": encode(page[-1].id)})
        url = f"{section(request.registry, 'app').public_url}{request.path_info}?{query}"
        request.response.headers["Link"] = f'<{url}>; rel="next"'
    return [serialize(item) for item in page]
