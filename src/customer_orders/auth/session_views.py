"""The sessions of the caller."""

from __future__ import annotations

from typing import Any

from pyramid.httpexceptions import HTTPNoContent

from customer_orders.api import Service
from customer_orders.auth import schemas, sessions
from customer_orders.auth.policy import Caller, Permission
from customer_orders.auth.resources import Collection, Item
from customer_orders.errors import Forbidden

mine = Service("my_sessions", "/api/me/sessions", tag="session", factory=Collection)
one = Service("my_session", "/api/me/sessions/{id}", tag="session", factory=Item)


def _user(request: Any) -> Caller:
    caller: Caller = request.identity
    if caller.kind != "user":
        raise Forbidden("An API key has no sessions.")
    return caller


@mine.get(permission=Permission.ME_READ, operation_id="sessions_list", returns=[schemas.SessionRead])
def list_sessions(request: Any) -> list[dict[str, Any]]:
    """List your sessions, the one used last first."""
    caller = _user(request)
    return [schemas.session(found, caller) for found in sessions.sessions_of(request.dbsession, caller.id)]


@mine.delete(permission=Permission.ME_WRITE, operation_id="sessions_revoke_all", status=204)
def end_all(request: Any) -> Any:
    """End all your sessions, this one too.

    Their tokens are not good any more, at once.
    """
    sessions.end_sessions(request.dbsession, _user(request).id)
    return HTTPNoContent()


@one.delete(permission=Permission.ME_WRITE, operation_id="sessions_revoke", status=204)
def end_one(request: Any) -> Any:
    """End one of your sessions.

    Its tokens are not good any more, at once.
    """
    sessions.end_session(request.dbsession, _user(request).id, request.context.id)
    return HTTPNoContent()
