"""Pages of a table by keyset: each costs the same, wherever it begins (no OFFSET), and rows that come move nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

# Rows that a search without an index looks at for one page.
SCANNED = 10_000

# What a row has to meet for a value of the filter; and how a value narrows a statement where no index helps.
Filter = Callable[[Any], ColumnElement[bool]]
Search = Callable[[Any], Callable[[Select[Any]], Select[Any]]]


@dataclass(frozen=True)
class Position:
    """Next to an item: after it, or before it. ``values``: the item's, in the columns of the ordering."""

    values: tuple[Any, ...]
    before: bool = False


@dataclass(frozen=True)
class Ordering:
    """Names of columns, each with whether it descends. The last is ``id``, so that no two rows stand alike."""

    columns: tuple[tuple[str, bool], ...] = (("id", True),)

    def position(self, item: Any, *, before: bool = False) -> Position:
        """The position next to an item, or to a row of the same columns."""
        return Position(tuple(getattr(item, name) for name, _ in self.columns), before)


@dataclass(frozen=True)
class Wanted:
    """What a list is asked for.

    :param filters: values by the name of the filter.
    :param count: whether to count what the filters leave, on all pages.
    """

    limit: int
    position: Position | None = None
    ordering: Ordering = Ordering()
    count: bool = False
    filters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """Items in order, where the pages beside it begin (None: there is none), and how many there are in all."""

    items: Sequence[Any]
    following: Position | None
    preceding: Position | None
    total: int | None


def page(
    session: Session, model: Any, wanted: Wanted, filters: Mapping[str, Filter], searches: Mapping[str, Search]
) -> Page:
    """A page of ``model``, narrowed by those of the ``filters`` and ``searches`` that are wanted.

    With a search, which no index helps with, at most ``SCANNED`` rows are looked at: the page may hold fewer items
    than the limit, or none, and have a following one all the same.
    """
    criteria = [filters[name](value) for name, value in wanted.filters.items() if name in filters]
    narrowing = [searches[name](value) for name, value in wanted.filters.items() if name in searches]
    position = wanted.position
    backward = position is not None and position.before
    columns = [(getattr(model, name), descends != backward) for name, descends in wanted.ordering.columns]
    order = [column.desc() if descends else column.asc() for column, descends in columns]
    rows = select(model).where(*criteria)
    if position is not None:
        rows = rows.where(_beyond(columns, position.values))
    start = end = None
    found = rows
    if narrowing:
        bare = rows.with_only_columns(*[column for column, _ in columns]).order_by(*order)
        scanned = bare.limit(SCANNED).subquery()
        found = select(model).join(scanned, scanned.c.id == model.id)
        for narrow in narrowing:
            found = narrow(found)
        start = session.execute(bare.limit(1)).first()
        # the last that was looked at, if there is one beyond it
        last = session.execute(bare.offset(SCANNED - 1).limit(2)).all()
        end = last[0] if len(last) == 2 else None
    items = list(session.scalars(found.order_by(*order).limit(wanted.limit + 1)))
    more = len(items) > wanted.limit
    del items[wanted.limit :]
    beyond = wanted.ordering.position
    # where to go on in the direction of this page, and back
    on = beyond(items[-1], before=backward) if more else None if end is None else beyond(end, before=backward)
    nearest = items[0] if items else start
    back = beyond(nearest, before=not backward) if nearest is not None and position is not None else None
    if backward:
        items.reverse()
        on, back = back, on
    total = None
    if wanted.count:
        total = session.scalar(select(func.count()).select_from(model).where(*criteria))
    return Page(items, on, back, total)


def common_filters(model: Any) -> dict[str, Filter]:
    """The filters that every list has, by name: each an index of ``model`` helps with."""
    return {
        "created_at__gte": lambda value: model.created_at >= value,
        "created_at__lt": lambda value: model.created_at < value,
        "updated_at__gte": lambda value: model.updated_at >= value,
        "reference": lambda value: model.reference == value,
    }


def _beyond(columns: Sequence[tuple[Any, bool]], values: Sequence[Any]) -> ColumnElement[bool]:
    """Whether a row comes after the one with these values: it differs in some column, and is alike in those before."""
    ways = []
    for number, (column, descends) in enumerate(columns):
        alike = [same == value for (same, _), value in zip(columns[:number], values, strict=False)]
        ways.append(and_(*alike, column < values[number] if descends else column > values[number]))
    first, descends = columns[0]
    # follows from the rest, and is what an index can begin with
    return and_(first <= values[0] if descends else first >= values[0], or_(*ways))
