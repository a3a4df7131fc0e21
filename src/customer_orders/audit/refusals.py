"""What was refused, on record: written after the request's own transaction, which was rolled back, and bounded.

An entry is made of what is refused to somebody whom we know (their token is good, whatever it lacks), and of a sign-in
that is refused. Tokens that prove nothing make none, or whoever sends them fills the database: the log has them
(auth/tokens.py), with the request id. The same refusal makes one entry a minute, and all of a kind make ``MOST``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.audit.models import AuditEntry
from customer_orders.errors import DomainError
from customer_orders.events import Audited, announce
from customer_orders.origin import KEY, Origin, origin_of

log = logging.getLogger(__name__)

# Entries of one kind of refusal in a minute, at the most; beyond that, and for the same again, a line in the log.
MOST = 20
WITHIN = timedelta(minutes=1)

SIGN_IN = ("sign-in-refused", "no-role")


def tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Pyramid's: what is around each request."""

    def tween(request: Any) -> Any:
        response = handler(request)
        if response.status_int in (401, 403):
            try:
                _keep(request, response.status_int)
            except Exception:
                # the answer goes out all the same
                log.exception("a refusal is not in the audit trail (request %s)", request.request_id)
        return response

    return tween


def _keep(request: Any, status: int) -> None:
    origin = origin_of(request.dbsession)
    error = getattr(request, "exception", None)
    code = error.code if isinstance(error, DomainError) else {401: "unauthenticated", 403: "forbidden"}[status]
    signing_in = code in SIGN_IN
    if origin.actor is None and not signing_in:
        return
    pattern = request.matched_route.pattern if request.matched_route else "(no route)"
    # the pattern, not the path: there is a path with a secret in it
    told = {"code": code, "operation": f"{request.method} {pattern}"}
    event = Audited("sign_in.refused" if signing_in else "access.refused", after=told)
    database = request.registry.database
    with database.transaction(writes=False) as session:
        more = _is_worth_an_entry(session, event, origin)
    if not more:
        log.info("refused again, no entry of its own (request %s): %s", request.request_id, told)
        return
    if (found := getattr(request.context, "id", None)) is not None:
        told["id"] = found
    elif signing_in:
        told["provider"] = request.context.name
    with database.transaction() as session:
        session.info[KEY] = origin
        announce(session, event)


def _is_worth_an_entry(session: Session, event: Audited, origin: Origin) -> bool:
    """Whether it is another than those of the last minute, and they are not many."""
    since = db.now(session) - WITHIN
    newest = select(AuditEntry).where(AuditEntry.action == event.action).order_by(AuditEntry.id.desc()).limit(MOST)
    last = [one for one in session.scalars(newest) if one.created_at > since]
    return len(last) < MOST and not any(_is_like(one, event, origin) for one in last)


def _is_like(entry: AuditEntry, event: Audited, origin: Origin) -> bool:
    """Whether an entry tells of the same, but for the id that it was about."""
    who = (origin.actor and origin.actor.kind, origin.actor and origin.actor.id, origin.address)
    same = {**(entry.after or {}), **(event.after or {})} == entry.after
    return same and (entry.actor_kind, entry.actor_id, entry.address) == who
