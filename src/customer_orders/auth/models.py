"""Users, how providers know them, and their refresh tokens."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from customer_orders.db import Base, BigInt, primary_key


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


class RefreshToken(Base):
    """A refresh token, by its hash. Good once, until it expires."""

    __tablename__ = "refresh_tokens"

    id: Mapped[int] = primary_key()
    user_id: Mapped[int] = mapped_column(BigInt, ForeignKey("users.id", ondelete="CASCADE"), index=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    spent_at: Mapped[datetime | None]
