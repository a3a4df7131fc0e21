"""Who is calling and what they may do: roles, permissions, and Pyramid's security policy."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pyramid.authorization import ACLHelper, Allow
from pyramid.interfaces import ISecurityPolicy
from pyramid.request import RequestLocalCache
from sqlalchemy import and_, select
from zope.interface import implementer

from customer_orders import db
from customer_orders.api.fields import id_of
from customer_orders.auth import api_keys
from customer_orders.auth.models import RefreshFamily, User
from customer_orders.auth.tokens import AccessTokens, bearer
from customer_orders.origin import Actor, act_as

log = logging.getLogger(__name__)


class Permission(StrEnum):
    """What an operation needs, as ``resource:action``."""

    ME_READ = "me:read"
    # one's own sessions
    ME_WRITE = "me:write"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_WRITE = "customers:write"
    # to forget a customer, or to read all that is held on one
    CUSTOMERS_MANAGE = "customers:manage"
    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    NOTIFICATIONS_READ = "notifications:read"
    NOTIFICATIONS_WRITE = "notifications:write"
    # to send many again at once, or one to somebody who wants none
    NOTIFICATIONS_MANAGE = "notifications:manage"
    STATS_READ = "stats:read"
    VERSION_READ = "version:read"
    API_KEYS_MANAGE = "api-keys:manage"
    AUDIT_READ = "audit:read"


READING = frozenset(
    {
        Permission.ME_READ,
        Permission.ME_WRITE,
        Permission.CUSTOMERS_READ,
        Permission.ORDERS_READ,
        Permission.NOTIFICATIONS_READ,
        Permission.STATS_READ,
        Permission.VERSION_READ,
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
    """The signed-in user, or the machine with an API key, as policy and views need them.

    :param kind: ``user`` or ``api_key``: whose ``id`` it is.
    :param email: empty for a machine.
    :param role: empty for one who has none, and may do nothing.
    :param session: id of the user's session that the access token is of; None: of none, or a machine.
    """

    id: int
    email: str
    name: str
    role: str
    kind: str = "user"
    session: int | None = None

    @property
    def principal(self) -> str:
        """One name for each: a user's id, or ``api_key:`` and that of the key."""
        return str(self.id) if self.kind == "user" else f"{self.kind}:{self.id}"


@implementer(ISecurityPolicy)
class SecurityPolicy:
    """A good access token names a user; the user's row says whether they still have access, and their role.

    One read by primary keys for each request, the user's and the session's: what an operator or the user takes away is
    gone at once. An API key is a row as well.
    """

    def __init__(self, tokens: AccessTokens) -> None:
        self.tokens = tokens
        self._acl = ACLHelper()
        self._callers = RequestLocalCache(self._load)

    def _load(self, request: Any) -> Caller | None:
        credential = bearer(request)
        if credential.startswith(api_keys.PREFIX):
            return self._machine(request, credential)
        return self._user(request, self.tokens.get_claims(request))

    def _user(self, request: Any, claims: Mapping[str, Any]) -> Caller | None:
        user_id = _id(claims.get("sub"))
        # a token that an operator made at the command line is of no session
        family_id = _id(claims["sid"]) if "sid" in claims else 0
        if user_id is None or family_id is None:
            return None
        # whoever it is, the token proves it: what is refused to them is on record as refused to them
        act_as(request.dbsession, Actor("user", user_id))
        same = and_(RefreshFamily.id == family_id, RefreshFamily.user_id == User.id)
        known = select(User, RefreshFamily).outerjoin(RefreshFamily, same).where(User.id == user_id)
        user, family = request.dbsession.execute(known).one_or_none() or (None, None)
        if user is None or user.disabled or (family_id and (family is None or family.revoked_at is not None)):
            return None
        return Caller(user.id, user.email, user.name, user.effective_role or "", session=family_id or None)

    def _machine(self, request: Any, credential: str) -> Caller | None:
        found = api_keys.find(request.dbsession, credential)
        if found is not None:
            # whoever it is, the key proves it: what is refused to it is on record as refused to it
            act_as(request.dbsession, Actor("api_key", found.id))
        now = db.now(request.dbsession)
        if found is None or not api_keys.is_good(found, now):
            log.info("API key refused (request %s)", request.request_id)
            return None
        if api_keys.is_use_worth_writing(found, now):
            # afterwards, in a transaction of its own: a request that only reads can't write, one that fails rolls back
            request.add_finished_callback(lambda done: api_keys.note_use(done.registry.database, found.id))
        return Caller(found.id, "", found.name, found.role, kind="api_key")

    def identity(self, request: Any) -> Caller | None:
        """Who is calling; None: nobody we know."""
        found: Caller | None = self._callers.get_or_create(request)
        return found

    def authenticated_userid(self, request: Any) -> str | None:
        """The caller's name as a principal."""
        caller = self.identity(request)
        return None if caller is None else caller.principal

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


def _id(claim: Any) -> int | None:
    """The id that a claim holds, a string (RFC 7519, section 4.1.2); None if it holds none."""
    return id_of(claim) if isinstance(claim, str) else None
