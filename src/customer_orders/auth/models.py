"""Users, how providers know them, and their refresh tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from customer_orders.tables import Base, BigInt, primary_key


class User(Base):
    """A member of staff.

    ``role``: as computed at the last sign-in; ``granted_role``: set by an operator, and wins.
    """

    __tablename__ = "users"

    id: Mapped[int] = primary_key()
    email: Mapped[str] = mapped_column(String(320), index=True)
    name: Mapped[str] = mapped_column(String(255))
    role: Mapped[str | None] = mapped_column(String(16))
    granted_role: Mapped[str | None] = mapped_column(String(16))
    disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]

    identities: Mapped[list[ExternalIdentity]] = relationship(back_populates="user")

    @property
    def effective_role(self) -> str | None:
        """The role that counts; None: no access."""
        return self.granted_role or self.role


class ExternalIdentity(Base):
    """How one provider knows a user: by its own subject, never by an e-mail address."""

    __tablename__ = "external_identities"
    __table_args__ = (UniqueConstraint("provider", "subject"), Base.__table_args__)

    id: Mapped[int] = primary_key()
    user_id: Mapped[int] = mapped_column(BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    provider: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime]

    user: Mapped[User] = relationship(back_populates="identities")


class RefreshFamily(Base):
    """A session: all refresh tokens that came of one sign-in, each of the one before (RFC 9700, section 4.14.2).

    ``used_at``: when it was begun, or its last token was had. ``client``: the ``User-Agent`` of the sign-in.
    """

    __tablename__ = "refresh_families"

    id: Mapped[int] = primary_key()
    user_id: Mapped[int] = mapped_column(BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    client: Mapped[str | None] = mapped_column(String(255))
    created_at: Mapped[datetime]
    used_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class RefreshToken(Base):
    """A refresh token, by its hash. Good once, until it expires or its family is revoked.

    ``family_id`` is null for tokens of a version without families: they are not good any more.
    """

    __tablename__ = "refresh_tokens"

    id: Mapped[int] = primary_key()
    user_id: Mapped[int] = mapped_column(BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    family_id: Mapped[int | None] = mapped_column(
        BigInt, ForeignKey("refresh_families.id", ondelete="CASCADE"), index=True
    )
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    spent_at: Mapped[datetime | None]


class ApiKey(Base):
    """A machine's key, by the hash of its secret. ``created_by``: the user who made it; null: an operator."""

    __tablename__ = "api_keys"

    id: Mapped[int] = primary_key()
    name: Mapped[str] = mapped_column(String(255))
    role: Mapped[str] = mapped_column(String(16))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_by: Mapped[int | None] = mapped_column(BigInt, ForeignKey("users.id", ondelete="SET NULL"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
