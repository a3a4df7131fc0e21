"""Lists: what they can be asked for, an opaque ``cursor``, and the ``Link`` header that carries it (RFC 8288)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import datetime
from itertools import permutations
from typing import Any
from urllib.parse import urlencode

import colander
import orjson

from customer_orders.api.fields import MAX_ID, Field, Integer, MetadataFilter, Switch, Text, Timestamp, node
from customer_orders.keyset import Ordering, Page, Position, Wanted
from customer_orders.settings import section

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

# What lists can be ordered by: each has an index, and no two rows are alike in all of them.
ORDERABLE: dict[str, Callable[[Any], bool]] = {
    "id": lambda value: type(value) is int and 0 < value <= MAX_ID,
    "created_at": lambda value: isinstance(value, datetime),
    "updated_at": lambda value: isinstance(value, datetime),
}

UNINDEXED = (
    "No index helps with it: each page looks at 10,000 items at most, so it may hold fewer than `limit`, or none, "
    "and have a next one all the same. Narrow the list by other filters too."
)


class OrderBy(Field):
    """Names of columns with commas between them, each descending after a ``-``."""

    def parse(self, value: Any) -> Ordering:
        given = [(name.removeprefix("-"), name.startswith("-")) for name in str(value).split(",")]
        names = [name for name, _ in given]
        if not set(names) <= set(ORDERABLE) or len(set(names)) < len(names):
            known = ", ".join(ORDERABLE)
            raise ValueError(f"Must name each of {known} at most once, with commas between and - before what descends.")
        if "id" in names:
            # nothing is left to decide after it
            return Ordering(tuple(given[: names.index("id") + 1]))
        return Ordering((*given, ("id", given[-1][1])))

    def swagger(self) -> dict[str, Any]:
        several = (names for count in range(1, len(ORDERABLE) + 1) for names in permutations(ORDERABLE, count))
        lists = "|".join(",".join(f"-?{name}" for name in names) for names in several)
        return {"type": "string", "pattern": f"^({lists})$", "x-example": "-created_at,id"}


def encode(ordering: Ordering, position: Position) -> str:
    """The cursor of a position in a list of this ordering."""
    raw = orjson.dumps([ordering.columns, position.before, position.values], option=orjson.OPT_UTC_Z)
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def decode(cursor: str, ordering: Ordering) -> Position:
    """The position of a cursor. Raises ValueError unless :func:`encode` could have made it for this ordering.

    Whoever makes one up gets a page of the list that begins elsewhere, and nothing else.
    """
    try:
        _, before, values = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        names = [name for name, _ in ordering.columns]
        values = [
            Timestamp().parse(value) if name != "id" else value for name, value in zip(names, values, strict=True)
        ]
        position = Position(tuple(values), before is True)
        sound = all(ORDERABLE[name](value) for name, value in zip(names, values, strict=True))
    except (binascii.Error, ValueError, TypeError):
        sound = False
    if not sound or encode(ordering, position) != cursor:
        raise ValueError("Is not a cursor of this list in this order; take it from the Link header.")
    return position


class Cursor(Field):
    """An opaque cursor; what it means depends on the ordering (:meth:`ListQuery.validator`)."""

    def parse(self, value: Any) -> str:
        return str(value)

    def swagger(self) -> dict[str, Any]:
        return {"type": "string"}


class PageQuery(colander.MappingSchema):
    """The query of every list. ``searches``: filters that no index helps with."""

    searches: tuple[str, ...] = ()

    limit = node(
        Integer(1, MAX_LIMIT),
        f"How many items at most; {DEFAULT_LIMIT} unless told.",
        missing=DEFAULT_LIMIT,
    )
    cursor = node(Cursor(), "Where to go on: from the Link header of another page.", missing=colander.drop)

    def validator(self, schema: colander.SchemaNode, values: dict[str, Any]) -> None:
        """What no field can tell by itself. Puts the position in the cursor's place, and the ordering that counts."""
        wrong = colander.Invalid(schema)
        values.setdefault("ordering", _newest_first(values))
        if "cursor" in values:
            try:
                values["cursor"] = decode(values["cursor"], values["ordering"])
            except ValueError as error:
                wrong["cursor"] = str(error)
        searching = [name for name in self.searches if name in values]
        if values.get("count") and searching:
            wrong["count"] = f"Cannot be had with {' and '.join(searching)}, which no index helps with."
        if wrong.children:
            raise wrong


class ListQuery(PageQuery):
    """The query of the lists of what clients write and of messages; its filters are added by each resource."""

    searches: tuple[str, ...] = ("q", MetadataFilter.prefix + "key")

    ordering = node(
        OrderBy(),
        f"What to order by: {', '.join(ORDERABLE)}, several with commas between, descending after a -. "
        "Newest first unless told, or last changed first with updated_at__gte.",
        missing=colander.drop,
    )
    count = node(
        Switch(),
        "Whether to count what the filters leave on all pages, in X-Total-Count. It costs more the more there is, "
        "and cannot be had with a filter that no index helps with.",
        missing=colander.drop,
    )
    created_at__gte = node(Timestamp(), "Created then or later.", missing=colander.drop)
    created_at__lt = node(Timestamp(), "Created before.", missing=colander.drop)
    updated_at__gte = node(Timestamp(), "Changed then or later.", missing=colander.drop)
    reference = node(Text(), "Your own reference, exactly.", missing=colander.drop)


def _newest_first(query: dict[str, Any]) -> Ordering:
    """The ordering unless told: along the column that a range is given of, so that one index gives both."""
    for column in ("created_at", "updated_at"):
        if any(name.startswith(f"{column}__") for name in query):
            return Ordering(((column, True), ("id", True)))
    return Ordering()


def wanted(request: Any) -> Wanted:
    """What the list is asked for, as a service takes it."""
    query = dict(request.validated["query"])
    query.pop("expand", None)
    return Wanted(
        limit=query.pop("limit"),
        position=query.pop("cursor", None),
        ordering=query.pop("ordering"),
        count=query.pop("count", False),
        filters=query,
    )


def link(request: Any, found: Page) -> None:
    """Lead from a page to those beside it and to the first, and tell how many items there are, if it was counted."""
    ordering = request.validated["query"]["ordering"]
    links = [
        f'<{_url(request, ordering, position)}>; rel="{name}"'
        for name, position in (("next", found.following), ("prev", found.preceding))
        if position is not None
    ]
    if links or "cursor" in request.GET:
        links.append(f'<{_url(request, ordering, None)}>; rel="first"')
        request.response.headers["Link"] = ", ".join(links)
    if found.total is not None:
        request.response.headers["X-Total-Count"] = str(found.total)


def _url(request: Any, ordering: Ordering, position: Position | None) -> str:
    """This list from another position; whatever else narrows it narrows its other pages too."""
    query = {name: value for name, value in request.GET.items() if name != "cursor"}
    query["limit"] = str(request.validated["query"]["limit"])
    if position is not None:
        query["cursor"] = encode(ordering, position)
    return f"{section(request.registry, 'app').public_url}{request.path_info}?{urlencode(query)}"
