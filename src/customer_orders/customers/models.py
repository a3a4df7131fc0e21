"""Customers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from customer_orders.tables import Base, Versioned, primary_key


class Customer(Versioned, Base):
    """A person who orders. ``phone_number``: E.164, null once they are anonymized; ``language``: BCP 47.

    ``sms_opt_out_source``: ``staff``, or ``recipient`` who sent STOP; null while they get SMS.
    """

    __tablename__ = "customers"
    __table_args__ = (
        # what lists are filtered and ordered by
        Index(None, "phone_number", "id"),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Base.__table_args__,
    )

    id: Mapped[int] = primary_key()
    username: Mapped[str] = mapped_column(String(255))
    phone_number: Mapped[str | None] = mapped_column(String(32))
    reference: Mapped[str | None] = mapped_column(String(255), index=True, unique=True)
    # the attribute `metadata` is taken by SQLAlchemy
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    language: Mapped[str | None] = mapped_column(String(35))
    sms_opt_out: Mapped[bool] = mapped_column(default=False)
    sms_opt_out_source: Mapped[str | None] = mapped_column(String(16))
    sms_opt_out_at: Mapped[datetime | None]
    anonymized_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
