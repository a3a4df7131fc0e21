"""Users found or made at sign-in, and their roles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, selectinload

from customer_orders import db
from customer_orders.auth import sessions
from customer_orders.auth.models import ExternalIdentity, User
from customer_orders.errors import Conflict, NotFound
from customer_orders.events import Audited, announce, snapshot
from customer_orders.interfaces import Identity
from customer_orders.origin import Actor, act_as
from customer_orders.settings import Section


def role_of(identity: Identity, settings: Section) -> str | None:
    """The role that the settings give to an identity; None: none.

    An e-mail address counts only if the provider says it is verified; an ``@domain`` only against the domain that
    the provider vouches for, never against the e-mail's own.
    """
    grants = {_folded(f"@{identity.domain}")} if identity.domain else set()
    # an address without a local part would read as a domain
    if identity.email_verified is True and not identity.email.startswith("@"):
        grants.add(_folded(identity.email))
    for role, grantees in (("admin", settings.admins), ("clerk", settings.clerks)):
        if grants & {_folded(grantee) for grantee in grantees}:
            return role
    return None if settings.default_role == "none" else str(settings.default_role)


def _folded(address: str) -> str:
    # ASCII only: lower() makes a k of the Kelvin sign, and so one person of two.
    return address.lower() if address.isascii() else address


def _user_of(session: Session, provider: str, subject: str) -> tuple[User, dict[str, Any] | None]:
    """The user whom ``provider`` knows as ``subject``, and as they were; made if new: e-mail and name are to be set.

    Two first sign-ins at the same moment make one user: the second finds what the first has just committed.
    """
    known = select(ExternalIdentity).where(ExternalIdentity.provider == provider, ExternalIdentity.subject == subject)
    found = session.scalar(known)
    if found is None:
        now = db.now(session)
        user = User(email="", name="", created_at=now, updated_at=now)
        found = ExternalIdentity(provider=provider, subject=subject, user=user, created_at=now)
        try:
            with session.begin_nested():
                session.add(found)
            return user, None
        except IntegrityError:
            found = session.scalars(known).one()
    return found.user, snapshot(found.user)


def _tell(session: Session, user: User, before: dict[str, Any] | None) -> None:
    action = "user.created" if before is None else "user.changed"
    announce(session, Audited(action, user.id, before, snapshot(user), at=user.updated_at))


def sign_in(session: Session, provider: str, identity: Identity, settings: Section) -> User:
    """The user known to ``provider`` as ``identity.subject``, made if new; name and role as of now."""
    user, before = _user_of(session, provider, identity.subject)
    act_as(session, Actor("user", user.id))
    user.email = identity.email[:320]
    user.name = identity.name[:255]
    user.role = role_of(identity, settings)
    user.updated_at = db.now(session)
    session.flush()
    _tell(session, user, before)
    if not user.disabled and user.effective_role is not None:
        announce(session, Audited("user.signed_in", user.id, at=user.updated_at))
    return user


def local_user(session: Session, email: str, role: str) -> User:
    """The user whom the command line knows by ``email`` (provider ``cli``), made if need be, with ``role`` granted.

    Apart from anyone who signs in with that address: an address alone never proves an identity.
    """
    user, before = _user_of(session, "cli", _folded(email))
    user.email = user.name = email
    user.granted_role = role
    user.updated_at = db.now(session)
    session.flush()
    _tell(session, user, before)
    return user


def find_user(session: Session, who: str) -> User:
    """The user with this id or e-mail address.

    Raises ``NotFound``, or ``Conflict`` if the address is several users'.
    """
    by_id = re.fullmatch("[0-9]{1,18}", who) is not None
    # databases differ in what lower() makes of letters beyond ASCII, so that the last word is Python's
    address = or_(User.email == who, func.lower(User.email) == who.lower())
    candidates = session.scalars(select(User).where(User.id == int(who) if by_id else address).order_by(User.id))
    found = [user for user in candidates if by_id or _folded(user.email) == _folded(who)]
    if not found:
        raise NotFound(f"No user is {who!r}; see `customer-orders user list`.")
    if len(found) > 1:
        ids = ", ".join(str(user.id) for user in found)
        raise Conflict(f"{who!r} is the address of several users: {ids}. Give the id.")
    return found[0]


def list_users(session: Session) -> Sequence[User]:
    """Every user, oldest first."""
    return session.scalars(select(User).options(selectinload(User.identities)).order_by(User.id)).all()


def grant(session: Session, who: str, role: str | None) -> User:
    """Give a user a role that wins over the settings'; None takes it back. Raises as :func:`find_user`."""
    user = find_user(session, who)
    before, now = snapshot(user), db.now(session)
    user.granted_role, user.updated_at = role, now
    announce(session, Audited("user.granted", user.id, before, snapshot(user), at=now))
    return user


def disable(session: Session, who: str, *, disabled: bool) -> User:
    """Shut a user out, for which all their sessions end, or let them in again. Raises as :func:`find_user`."""
    user = find_user(session, who)
    before, now = snapshot(user), db.now(session)
    user.disabled, user.updated_at = disabled, now
    announce(session, Audited("user.disabled" if disabled else "user.enabled", user.id, before, snapshot(user), at=now))
    if disabled:
        sessions.end_sessions(session, user.id)
    return user
