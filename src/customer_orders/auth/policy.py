"""Who is calling and what they may do: roles, permissions, and Pyramid's security policy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pyramid.authorization import ACLHelper, Allow
from pyramid.interfaces import ISecurityPolicy
from pyramid.request import RequestLocalCache
from zope.interface import implementer

from customer_orders.api.fields import MAX_ID
from customer_orders.auth.models import User
from customer_orders.auth.tokens import AccessTokens
from customer_orders.origin import Actor, act_as


class Permission(StrEnum):
    """What an operation needs, as ``resource:action``."""

    ME_READ = "me:read"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_WRITE = "customers:write"
    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    NOTIFICATIONS_READ = "notifications:read"
    NOTIFICATIONS_WRITE = "notifications:write"
    # to send many again at once, or one to somebody who wants none
    NOTIFICATIONS_MANAGE = "notifications:manage"
    STATS_READ = "stats:read"
    AUDIT_READ = "audit:read"


READING = frozenset(
    {
        Permission.ME_READ,
        Permission.CUSTOMERS_READ,
        Permission.ORDERS_READ,
        Permission.NOTIFICATIONS_READ,
        Permission.STATS_READ,
    }
)
WRITING = frozenset({Permission.CUSTOMERS_WRITE, Permission.ORDERS_WRITE, Permission.NOTIFICATIONS_WRITE})

# The one table of who may do what.
ROLES: dict[str, frozenset[Permission]] = {
    "viewer": READING,
    "clerk": READING | WRITING,
    "admin": frozenset(Permission),
}

ACL = [(Allow, f"role:{role}", [str(item) for item in permissions]) for role, permissions in ROLES.items()]


@dataclass(frozen=True)
class Caller:
    """The signed-in user, as policy and views need them. ``role``: empty for one who has none, and may do nothing."""

    id: int
    email: str
    name: str
    role: str


@implementer(ISecurityPolicy)
class SecurityPolicy:
    """A good access token names a user; the user's row says whether they still have access, and their role.

    One read by primary key for each request: what an operator takes away is gone at once.
    """

    def __init__(self, tokens: AccessTokens) -> None:
        self.tokens = tokens
        self._acl = ACLHelper()
        self._callers = RequestLocalCache(self._load)

    def _load(self, request: Any) -> Caller | None:
        subject = self.tokens.get_claims(request).get("sub", "")
        if not re.fullmatch("[1-9][0-9]{0,18}", subject) or int(subject) > MAX_ID:
            return None
        # whoever it is, the token proves it: what is refused to them is on record as refused to them
        act_as(request.dbsession, Actor("user", int(subject)))
        user = request.dbsession.get(User, int(subject))
        if user is None or user.disabled:
            return None
        return Caller(user.id, user.email, user.name, user.effective_role or "")

    def identity(self, request: Any) -> Caller | None:
        """Who is calling; None: nobody we know."""
        found: Caller | None = self._callers.get_or_create(request)
        return found

    def authenticated_userid(self, request: Any) -> str | None:
        """The caller's id, as a string."""
        caller = self.identity(request)
        return None if caller is None else str(caller.id)

    def permits(self, request: Any, context: Any, permission: str) -> Any:
        """Whether the context's ``__acl__`` lets the caller's role do it."""
        caller = self.identity(request)
        return self._acl.permits(context, [f"role:{caller.role}"] if caller else [], permission)

    def remember(self, request: Any, userid: str, **kw: Any) -> list[tuple[str, str]]:
        """Nothing: tokens travel in bodies."""
        return []

    def forget(self, request: Any, **kw: Any) -> list[tuple[str, str]]:
        """Nothing: tokens travel in bodies."""
        return []
