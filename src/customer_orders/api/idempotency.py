"""``Idempotency-Key``: a POST that is repeated with the same key creates once, and gets the same answer again.

The answer is kept in the transaction of what it tells of: either both are there or neither. Only an answer of success
is kept; whatever failed may be tried again with the same key.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import orjson
from pyramid.response import Response
from sqlalchemy import JSON, ColumnElement, String, Text, UniqueConstraint, and_, delete, func, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from customer_orders import db
from customer_orders.errors import Conflict, DomainError, FieldError, Invalid
from customer_orders.events import CustomerAnonymized, CustomerExported
from customer_orders.settings import section
from customer_orders.tables import Base, primary_key

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"
# Headers of an answer that are kept with it.
KEPT = ("Location", "ETag")
# Keys that one sweep deletes at most, so that it keeps no writer waiting.
SWEPT = 1000
# The fingerprint of a request whose answer was wiped: its name and number could be guessed from it.
WIPED = ""

View = Callable[[Any, Any], Any]


class IdempotencyKey(Base):
    """A key, what was asked with it, and the answer. ``body`` is null for an answer that holds a secret, or was wiped.

    ``principal``: who asked; ``operation``: method and route pattern; ``fingerprint``: SHA-256 of path, query and body,
    empty where a wiped one could be guessed from it.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("principal", "operation", "key"), Base.__table_args__)

    id: Mapped[int] = primary_key()
    principal: Mapped[str] = mapped_column(String(64))
    operation: Mapped[str] = mapped_column(String(255))
    key: Mapped[str] = mapped_column(String(255))
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int]
    headers: Mapped[dict[str, str]] = mapped_column(JSON)
    body: Mapped[str | None] = mapped_column(Text)
    expires_at: Mapped[datetime] = mapped_column(index=True)


def once(view: View, *, secret: bool) -> View:
    """A view that does its work once for each key. ``secret``: its answer carries one, and is not kept."""

    def answer(context: Any, request: Any) -> Any:
        key, principal = request.headers.get(HEADER), request.authenticated_userid
        # who has no name shares no key with others who have none
        if key is None or principal is None:
            return view(context, request)
        if not re.fullmatch("[ -~]{1,255}", key):
            raise Invalid([FieldError(HEADER, "Must be 1 to 255 printable ASCII characters.", "header")])
        session = request.dbsession
        scope = {
            "principal": principal,
            "operation": f"{request.method} {request.matched_route.pattern}",
            "key": key,
        }
        fingerprint, now = _fingerprint(request), db.now(session)
        live = select(IdempotencyKey).filter_by(**scope).where(IdempotencyKey.expires_at > now)
        kept = session.scalar(live)
        if kept is None:
            _hold(session, scope)
            # whoever held it may have ended in between
            kept = session.scalar(live)
        if kept is not None:
            return _again(kept, fingerprint)
        response = view(context, request)
        session.execute(delete(IdempotencyKey).filter_by(**scope))
        session.add(
            IdempotencyKey(
                **scope,
                fingerprint=fingerprint,
                status=response.status_int,
                headers={name: response.headers[name] for name in KEPT if name in response.headers},
                body=None if secret else response.text,
                expires_at=now + timedelta(seconds=section(request.registry, "api").idempotency_seconds),
            )
        )
        session.flush()
        return response

    return answer


def _hold(session: Session, scope: dict[str, str]) -> None:
    """Keep others with the same key out until this transaction ends. Raises ``Conflict`` if one is at it.

    On SQLite, where one writes at a time, they have waited by now, and find the answer.
    """
    if session.get_bind().dialect.name == "postgresql":
        digest = hashlib.sha256("\0".join(scope.values()).encode()).digest()
        number = int.from_bytes(digest[:8], "big", signed=True)
        if not session.scalar(select(func.pg_try_advisory_xact_lock(number))):
            raise Conflict(f"A request with this {HEADER} is under way.", code="idempotency-key-in-use")


def _fingerprint(request: Any) -> str:
    """What was asked, however its JSON was written."""
    try:
        body = orjson.dumps(orjson.loads(request.body), option=orjson.OPT_SORT_KEYS)
    except (ValueError, TypeError):
        # no JSON, or nested deeper than it is written
        body = request.body
    return hashlib.sha256(f"{request.path_info}?{request.query_string}\0".encode() + body).hexdigest()


def _again(kept: IdempotencyKey, fingerprint: str) -> Response:
    if kept.fingerprint not in (fingerprint, WIPED):
        raise DomainError(f"This {HEADER} was used with another body before.", code="idempotency-key-reused")
    if kept.body is None:
        said = f"The request with this {HEADER} was carried out; its answer is not kept."
        raise Conflict(said, code="idempotency-answer-gone")
    response = Response(kept.body, status=kept.status, content_type="application/json", charset="UTF-8")
    response.headers.update({**kept.headers, REPLAYED: "true"})
    return response


def sweep(session: Session) -> int:
    """Delete keys that were kept long enough, some at a time; tells how many."""
    old = select(IdempotencyKey.id).where(IdempotencyKey.expires_at <= db.now(session)).limit(SWEPT)
    # what another sweeps just now is its own
    old = old.order_by(IdempotencyKey.id).with_for_update(skip_locked=True)
    gone = session.scalars(delete(IdempotencyKey).where(IdempotencyKey.id.in_(old)).returning(IdempotencyKey.id))
    return len(gone.all())


def forget(session: Session, event: CustomerAnonymized) -> None:
    """Wipe the answers that tell of a customer. The keys stay: a repeat is told that it was done, and does nothing."""
    session.execute(
        update(IdempotencyKey)
        .where(_tells_of(event.customer_id, event.phone_number))
        .values(body=None, fingerprint=WIPED)
        .execution_options(synchronize_session=False)
    )


def tell_kept(session: Session, event: CustomerExported) -> None:
    """Add the answers that tell of a customer to what is held on them."""
    found = session.scalars(select(IdempotencyKey).where(_tells_of(event.customer_id, event.phone_number)))
    event.collected["kept_answers"] = [
        {"operation": one.operation, "expires_at": one.expires_at, "answer": orjson.loads(one.body or "null")}
        for one in found
    ]


def _tells_of(customer_id: int, phone_number: str | None) -> ColumnElement[bool]:
    """Answers that name a customer: by the field ``customer``, as the customer themselves, or by their number.

    No index helps with that, but answers are kept for a day.
    """
    body = IdempotencyKey.body
    named = [body.contains(f'"customer":{customer_id}{end}') for end in ",}"]
    # the id comes first in every answer
    themselves = and_(IdempotencyKey.operation.contains("/customers/"), body.startswith(f'{{"id":{customer_id},'))
    return or_(*named, themselves, *([body.contains(phone_number, autoescape=True)] if phone_number else []))
