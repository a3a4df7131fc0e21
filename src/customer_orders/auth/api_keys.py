"""API keys: what machines show instead of an access token. ``co_<id>_<secret>``, shown once, kept as a hash."""

from __future__ import annotations

import hmac
import logging
import re
import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import or_, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from customer_orders import db
from customer_orders.api.fields import id_of
from customer_orders.auth.models import ApiKey
from customer_orders.auth.tokens import hash_of
from customer_orders.db import Database
from customer_orders.errors import FieldError, Invalid, NotFound
from customer_orders.events import Audited, announce, snapshot

log = logging.getLogger(__name__)

PREFIX = "co_"
# 256 random bits in base64url
SHAPE = re.compile("co_([0-9]+)_([A-Za-z0-9_-]{43})")
# How exact the time of the last use is: a write for every request would cost more than it tells.
EXACT = timedelta(minutes=1)
# Keys that a list shows.
SHOWN = 1000


def create(
    session: Session, name: str, role: str, *, expires_at: datetime | None = None, created_by: int | None = None
) -> tuple[ApiKey, str]:
    """A new key, and what to show for it: the only time that it can be told.

    :param created_by: id of the user who makes it; None: an operator. Raises ``Invalid`` if it would be expired.
    """
    now = db.now(session)
    if expires_at is not None and expires_at <= now:
        raise Invalid([FieldError("expires_at", "Must lie in the future.")])
    secret = secrets.token_urlsafe(32)
    made = ApiKey(
        name=name,
        role=role,
        secret_hash=hash_of(secret),
        created_by=created_by,
        created_at=now,
        updated_at=now,
        expires_at=expires_at,
    )
    session.add(made)
    session.flush()
    announce(session, Audited("api_key.created", made.id, None, snapshot(made), at=now))
    return made, f"{PREFIX}{made.id}_{secret}"


def find(session: Session, credential: str) -> ApiKey | None:
    """The key that a caller shows, by its secret, good or not any more."""
    shaped = SHAPE.fullmatch(credential)
    key_id = None if shaped is None else id_of(shaped[1])
    if shaped is None or key_id is None:
        return None
    found = session.get(ApiKey, key_id)
    if found is None or not hmac.compare_digest(found.secret_hash, hash_of(shaped[2])):
        return None
    return found


def is_good(key: ApiKey, now: datetime) -> bool:
    """Whether a key still lets its holder in."""
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)


def list_keys(session: Session) -> Sequence[ApiKey]:
    """All keys, newest first, revoked and expired ones too; 1,000 at most."""
    return session.scalars(select(ApiKey).order_by(ApiKey.id.desc()).limit(SHOWN)).all()


def read(session: Session, key_id: int) -> ApiKey:
    """One key. Raises ``NotFound``."""
    found = session.get(ApiKey, key_id)
    if found is None:
        raise NotFound(f"There is no API key {key_id}.")
    return found


def revoke(session: Session, key_id: int) -> ApiKey:
    """End a key, at once and for good; one that ended is none the worse. Raises ``NotFound``."""
    found = read(session, key_id)
    if found.revoked_at is None:
        now = db.now(session)
        found.revoked_at = found.updated_at = now
        announce(session, Audited("api_key.revoked", found.id, at=now))
    return found


def is_use_worth_writing(key: ApiKey, now: datetime) -> bool:
    """Whether the last use that was written is so long ago that another should be."""
    return key.last_used_at is None or key.last_used_at <= now - EXACT


def note_use(database: Database, key_id: int) -> None:
    """Write down that a key is used. If that fails, nothing else does."""
    try:
        with database.transaction() as session:
            now = db.now(session)
            old = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at <= now - EXACT)
            session.execute(update(ApiKey).where(ApiKey.id == key_id, old).values(last_used_at=now))
    except SQLAlchemyError as error:
        log.warning("the last use of API key %s could not be written down: %s", key_id, error)
