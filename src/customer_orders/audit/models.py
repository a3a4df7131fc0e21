"""The entries of the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from customer_orders.tables import Base, BigInt, primary_key


class AuditEntry(Base):
    """One line of the audit trail.

    ``actor_kind``: null for somebody whom we do not know. Neither actor nor subject is a foreign key: an entry outlives
    both. ``fields``: names of all fields that changed; ``before`` and ``after``: the values of those that are not
    personal. ``address``: the client's.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        # what happened to one thing, what one actor did, what was done, and when: each newest first
        Index(None, "subject_kind", "subject_id", "id"),
        Index(None, "actor_kind", "actor_id", "id"),
        Index(None, "action", "id"),
        Index(None, "created_at", "id"),
        # on PostgreSQL the application may do no more (see grants.py); on SQLite triggers see to it
        {**Base.__table_args__, "info": {"append_only": True}},
    )

    id: Mapped[int] = primary_key()
    created_at: Mapped[datetime]
    action: Mapped[str] = mapped_column(String(64))
    actor_kind: Mapped[str | None] = mapped_column(String(16))
    actor_id: Mapped[int | None] = mapped_column(BigInt)
    actor_name: Mapped[str | None] = mapped_column(String(255))
    subject_kind: Mapped[str] = mapped_column(String(64))
    subject_id: Mapped[int | None] = mapped_column(BigInt)
    fields: Mapped[list[str]] = mapped_column(JSON)
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    request_id: Mapped[str | None] = mapped_column(String(64))
    address: Mapped[str | None] = mapped_column(String(45))
