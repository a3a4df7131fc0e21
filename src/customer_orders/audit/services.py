"""Writing the audit trail in the transaction of what it tells of, and reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, insert, select, text
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.audit.fields import Shown, shown
from customer_orders.audit.models import AuditEntry
from customer_orders.auth.models import User
from customer_orders.events import Audited
from customer_orders.keyset import Filter, Page, Wanted, common_filters, page
from customer_orders.origin import origin_of


def record(session: Session, event: Audited) -> None:
    """Write an entry, or one for each subject; it is committed, or rolled back, with what it tells of."""
    subject = event.action.partition(".")[0]
    fields = _changed(subject, event.before or {}, event.after or {})
    if not fields and event.before is not None and event.after is not None:
        return
    origin = origin_of(session)
    actor = origin.actor
    row = {
        "created_at": event.at or db.now(session),
        "action": event.action,
        "actor_kind": actor and actor.kind,
        "actor_id": actor and actor.id,
        "actor_name": actor and actor.name,
        "subject_kind": subject,
        "fields": fields,
        "before": _values(subject, fields, event.before),
        "after": _values(subject, fields, event.after),
        "request_id": origin.request_id,
        "address": origin.address,
    }
    subjects = [event.subject_id] if event.subject_id is None or isinstance(event.subject_id, int) else event.subject_id
    # One statement, and no objects in the session: nobody here reads what it writes. ORM-enabled, since pyramid_tm
    # rolls back what it takes for a session that only read.
    session.execute(insert(AuditEntry), [{**row, "subject_id": one} for one in subjects])


def _changed(subject: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**before, **after} if shown(subject, name) is not Shown.NEVER]
    return [name for name in names if _held(before, name) != _held(after, name)]


def _held(values: Mapping[str, Any], name: str) -> Any:
    """A value; an object without keys is as good as none."""
    return None if values.get(name) == {} else values.get(name)


def _values(subject: str, fields: Sequence[str], values: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if values is None:
        return None
    told = {name: values.get(name) for name in fields if shown(subject, name) is Shown.VALUE}
    return {name: _plain(value) for name, value in told.items()}


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    return value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else value


def about(kind: str, subject_id: int | None) -> ColumnElement[bool]:
    """Whether an entry is about this one; None: about none in particular."""
    return and_(AuditEntry.subject_kind == kind, AuditEntry.subject_id == subject_id)


def about_any(kind: str, ids: Sequence[int]) -> ColumnElement[bool]:
    """Whether an entry is about one of these. Not a subquery of them: beside an *or* no index would help with that."""
    return and_(AuditEntry.subject_kind == kind, AuditEntry.subject_id.in_(ids))


def _by(kind: str, actor_id: int | None) -> ColumnElement[bool]:
    known = None if kind == ANONYMOUS else kind
    return and_(AuditEntry.actor_kind == known, AuditEntry.actor_id == actor_id)


# How a filter names the actor whom we do not know.
ANONYMOUS = "anonymous"
COMMON = common_filters(AuditEntry)
FILTERS: dict[str, Filter] = {
    "created_at__gte": COMMON["created_at__gte"],
    "created_at__lt": COMMON["created_at__lt"],
    "action": lambda value: AuditEntry.action == value,
    "actor": lambda value: _by(*value),
    "subject": lambda value: about(*value),
}


def list_entries(session: Session, wanted: Wanted) -> Page:
    """A page of the audit trail."""
    return page(session, AuditEntry, wanted, FILTERS, {})


def list_events(session: Session, wanted: Wanted, which: ColumnElement[bool]) -> Page:
    """A page of the entries for which this is so, such as those :func:`about` one thing."""
    return page(session, AuditEntry, replace(wanted, filters={"which": which}), {"which": lambda given: given}, {})


def names_of(session: Session, entries: Sequence[AuditEntry]) -> dict[int, str]:
    """What the users who acted are called now, by id, in one query."""
    ids = {one.actor_id for one in entries if one.actor_kind == "user"}
    if not ids:
        return {}
    return dict(session.execute(select(User.id, User.name).where(User.id.in_(ids))).all())


@contextmanager
def erasable(session: Session) -> Iterator[None]:
    """Let this transaction delete entries, for the block: for whoever ends their retention, as the table's owner.

    On PostgreSQL privileges decide, and nothing is lifted. On SQLite the triggers go, and come back as they were.
    """
    if session.get_bind().dialect.name != "sqlite":
        yield
        return
    triggers = session.execute(
        text("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit_entries'")
    ).all()
    for name, _ in triggers:
        session.execute(text(f'DROP TRIGGER "{name}"'))
    yield
    session.flush()
    for _, definition in triggers:
        session.execute(text(definition))


def delete_entries(session: Session, before: datetime, limit: int) -> int:
    """Delete the oldest entries from ``before``, ``limit`` at most; tells how many. For the table's owner only."""
    old = select(AuditEntry.id).where(AuditEntry.created_at < before).order_by(AuditEntry.created_at).limit(limit)
    with erasable(session):
        return len(session.scalars(delete(AuditEntry).where(AuditEntry.id.in_(old)).returning(AuditEntry.id)).all())
