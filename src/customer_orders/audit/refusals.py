"""What was refused, on record: written after the request's own transaction, which was rolled back, and bounded.

An entry is made where a caller whom we know may not do what they ask for, where a sign-in is refused, and where a token
proves nothing. The last two anyone can bring about, as often as they like. So the same refusal makes one entry a
minute, and one caller, or all together whom we do not know, make at most ``MOST`` of a kind in each process; the log
has the rest. A request without any token makes none: nothing was tried.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any

from customer_orders.errors import DomainError
from customer_orders.events import Audited, announce
from customer_orders.origin import KEY, Actor, Origin, origin_of

log = logging.getLogger(__name__)

# Entries of one kind that one caller makes in this time.
MOST = 20
WITHIN = timedelta(minutes=1)

SIGN_IN = ("sign-in-refused", "no-role")
CODES = {401: "unauthenticated", 403: "forbidden"}


class Seen:
    """The refusals of the last minute that have an entry; in memory, so that no flood of them reaches the database."""

    def __init__(self) -> None:
        self._at: dict[tuple[tuple[str, Actor | None], tuple[str | None, ...]], datetime] = {}
        self._lock = Lock()

    def is_new(self, action: str, actor: Actor | None, details: tuple[str | None, ...], now: datetime) -> bool:
        """Whether a refusal gets an entry; if so, the same again does not for a minute."""
        group = (action, actor)
        with self._lock:
            self._at = {key: at for key, at in self._at.items() if at > now - WITHIN}
            many = sum(1 for other, _ in self._at if other == group) >= MOST
            if many or (group, details) in self._at:
                return False
            self._at[group, details] = now
            return True


def tween_factory(handler: Callable[[Any], Any], registry: Any) -> Callable[[Any], Any]:
    """Pyramid's: what is around each request."""

    def tween(request: Any) -> Any:
        response = handler(request)
        if response.status_int in CODES:
            try:
                _keep(request, response.status_int)
            except Exception:
                # the answer goes out all the same
                log.exception("a refusal is missing in the audit trail (request %s)", request.request_id)
        return response

    return tween


def _keep(request: Any, status: int) -> None:
    origin = origin_of(request.dbsession)
    error = getattr(request, "exception", None)
    code = error.code if isinstance(error, DomainError) else CODES[status]
    # the pattern, not the path: there is a path with a secret in it
    route = request.matched_route
    told: dict[str, Any] = {"code": code, "operation": f"{request.method} {route.pattern if route else '(none)'}"}
    details: tuple[str | None, ...] = (code, told["operation"], origin.address)
    if code in SIGN_IN:
        action = "sign_in.refused"
        told["provider"] = request.context.name
    elif origin.actor is not None:
        action = "access.refused"
        if (subject := getattr(request.context, "id", None)) is not None:
            told["id"] = subject
    elif status == 401 and (code != CODES[401] or "Authorization" in request.headers):
        action, details = "token.refused", (code, origin.address)
    else:
        return
    database = request.registry.database
    if request.registry.refusals.is_new(action, origin.actor, details, datetime.now(UTC) + database.clock_offset):
        _write(database, origin, Audited(action, after=told))
    else:
        log.info("refused again, without an entry in the audit trail (request %s): %s", request.request_id, told)


def _write(database: Any, origin: Origin, event: Audited) -> None:
    with database.transaction() as session:
        session.info[KEY] = origin
        announce(session, event)
