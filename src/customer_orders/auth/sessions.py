"""Sessions: what a sign-in begins, kept going by refresh tokens that are good once (RFC 9700, section 4.14).

All tokens of one session are a family, each had for the one before. A spent one that comes again was copied: the
family ends, for whoever has a token of it. But within ``WINDOW`` its holder may only have missed our answer, so they
get the same answer again: the successor is made of the spent token and a key of ours, not drawn by lot.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.auth.models import RefreshFamily, RefreshToken, User
from customer_orders.auth.tokens import hash_of
from customer_orders.errors import NotFound, Unauthenticated
from customer_orders.events import Audited, announce
from customer_orders.origin import Actor, act_as
from customer_orders.sections.keys import SigningKey
from customer_orders.settings import Section

# How long a spent token still gets its successor.
WINDOW = timedelta(seconds=10)
# Sessions that a list shows.
SHOWN = 200


@dataclass(frozen=True)
class Renewed:
    """What a refresh token was traded for: the next one, of this user's session."""

    user: User
    family_id: int
    token: str


def begin(session: Session, user_id: int, settings: Section, client: str | None = None) -> Renewed:
    """A new session of a user, with its first refresh token; only the hash of that is kept.

    :param client: what the user sees of where it was begun: a ``User-Agent``.
    """
    now = db.now(session)
    family = RefreshFamily(
        user_id=user_id,
        client=client and client[:255],
        created_at=now,
        used_at=now,
        expires_at=now + timedelta(seconds=settings.session_seconds),
    )
    session.add(family)
    session.flush()
    token = secrets.token_urlsafe(32)
    _add(session, family, token, settings, now)
    announce(session, Audited("session.begun", family.id, at=now))
    return Renewed(session.get_one(User, user_id), family.id, token)


def renew(session: Session, token: str, settings: Section, ring: Sequence[SigningKey]) -> Renewed | None:
    """Spend a refresh token for its successor, by one atomic update; None if that ended its session instead.

    The caller commits what that changed, and refuses. Raises ``Unauthenticated``, always in the same words, if the
    token is unknown, revoked or expired, or its user has no access any more.
    """
    now = db.now(session)
    spent = _spend(session, token, now)
    found = session.scalar(select(RefreshToken).where(RefreshToken.token_hash == hash_of(token)))
    family = None if found is None or found.family_id is None else session.get(RefreshFamily, found.family_id)
    if family is not None:
        # whoever it is, the token proves it
        act_as(session, Actor("user", family.user_id))
    if found is None or family is None or not _lives(family, now) or not _may_enter(session, family):
        raise refused()
    if spent:
        following = _successor(token, ring[0])
        family.used_at = now
        _add(session, family, following, settings, now)
        announce(session, Audited("session.renewed", family.id, at=now))
        return Renewed(session.get_one(User, family.user_id), family.id, following)
    if found.spent_at is None:
        raise refused()
    if now > found.spent_at + WINDOW:
        _revoke(session, [family.id], now)
        announce(session, Audited("session.token_reused", family.id, at=now))
        return None
    # by whichever key it was spent with: they may just be changing
    candidates = {hash_of(candidate): candidate for candidate in (_successor(token, key) for key in ring)}
    of_it = select(RefreshToken.token_hash).where(RefreshToken.token_hash.in_(candidates))
    kept = session.scalar(of_it.where(RefreshToken.family_id == family.id))
    if kept is None:
        raise refused()
    return Renewed(session.get_one(User, family.user_id), family.id, candidates[kept])


def refused() -> Unauthenticated:
    """What is said of a refresh token that is not good, whatever is wrong with it."""
    return Unauthenticated("The refresh token is unknown, spent, revoked or expired.", code="invalid-refresh-token")


def sign_out(session: Session, token: str) -> None:
    """End the session of a refresh token, spent or not. An unknown one is no error (RFC 7009, section 2.2)."""
    found = session.scalar(select(RefreshToken).where(RefreshToken.token_hash == hash_of(token)))
    if found is not None and found.family_id is not None:
        act_as(session, Actor("user", found.user_id))
        _end(session, [found.family_id])


def sessions_of(session: Session, user_id: int) -> Sequence[RefreshFamily]:
    """The sessions of a user that go on, the one used last first; 200 at most."""
    now = db.now(session)
    alive = select(RefreshFamily).where(
        RefreshFamily.user_id == user_id,
        RefreshFamily.revoked_at.is_(None),
        RefreshFamily.expires_at > now,
        # what went unused for too long has ended too
        select(RefreshToken.id)
        .where(
            RefreshToken.family_id == RefreshFamily.id,
            RefreshToken.spent_at.is_(None),
            RefreshToken.expires_at > now,
        )
        .exists(),
    )
    ordered = alive.order_by(RefreshFamily.used_at.desc(), RefreshFamily.id.desc())
    return session.scalars(ordered.limit(SHOWN)).all()


def end_session(session: Session, user_id: int, family_id: int) -> None:
    """End one session of a user. Raises ``NotFound`` unless it is theirs, and goes on."""
    if family_id not in {found.id for found in sessions_of(session, user_id)}:
        raise NotFound(f"You have no session {family_id}.")
    _end(session, [family_id])


def end_sessions(session: Session, user_id: int) -> int:
    """End all sessions of a user; tells how many."""
    mine = session.scalars(select(RefreshFamily.id).where(RefreshFamily.user_id == user_id)).all()
    return _end(session, mine)


def end_all_sessions(session: Session) -> int:
    """End everybody's sessions; tells how many."""
    alive = select(RefreshFamily.id).where(
        RefreshFamily.revoked_at.is_(None), RefreshFamily.expires_at > db.now(session)
    )
    # no more at a time than a statement may have parameters
    return sum(_end(session, ids) for ids in list(session.scalars(alive).partitions(1000)))


def _successor(token: str, key: SigningKey) -> str:
    """The token that follows on this one: nobody who lacks the key can tell it."""
    digest = hmac.digest(key.secret.encode(), b"customer-orders refresh:" + token.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _add(session: Session, family: RefreshFamily, token: str, settings: Section, now: datetime) -> None:
    session.add(
        RefreshToken(
            user_id=family.user_id,
            family_id=family.id,
            token_hash=hash_of(token),
            created_at=now,
            expires_at=min(now + timedelta(seconds=settings.refresh_seconds), family.expires_at),
        )
    )
    session.flush()


def _spend(session: Session, token: str, now: datetime) -> bool:
    """Whether the token was good, and nobody else spent it: of many at once, one is told so."""
    spent = (
        update(RefreshToken)
        .where(
            RefreshToken.token_hash == hash_of(token),
            RefreshToken.spent_at.is_(None),
            RefreshToken.expires_at > now,
        )
        .values(spent_at=now)
        .returning(RefreshToken.id)
        .execution_options(synchronize_session=False)
    )
    return session.execute(spent).scalar_one_or_none() is not None


def _lives(family: RefreshFamily, now: datetime) -> bool:
    return family.revoked_at is None and family.expires_at > now


def _may_enter(session: Session, family: RefreshFamily) -> bool:
    user = session.get(User, family.user_id)
    return user is not None and not user.disabled and user.effective_role is not None


def _revoke(session: Session, ids: Sequence[int], now: datetime) -> Sequence[int]:
    """End those of these families that go on; tells which."""
    ended = (
        update(RefreshFamily)
        .where(RefreshFamily.id.in_(ids), RefreshFamily.revoked_at.is_(None))
        .values(revoked_at=now)
        .returning(RefreshFamily.id)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(ended).all()


def _end(session: Session, ids: Sequence[int]) -> int:
    """End families, and tell of it; how many."""
    now = db.now(session)
    ended = _revoke(session, ids, now)
    if ended:
        announce(session, Audited("session.revoked", ended, at=now))
    return len(ended)
