"""Orders."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from customer_orders.tables import Base, BigInt, Versioned, primary_key


class OrderStatus(StrEnum):
    """Where an order stands: the one list."""

    PLACED = "placed"
    CONFIRMED = "confirmed"
    FULFILLED = "fulfilled"
    CANCELLED = "cancelled"


# The one table of where an order can go from where it stands.
TRANSITIONS: dict[str, tuple[OrderStatus, ...]] = {
    OrderStatus.PLACED: (OrderStatus.CONFIRMED, OrderStatus.CANCELLED),
    OrderStatus.CONFIRMED: (OrderStatus.FULFILLED, OrderStatus.CANCELLED),
    OrderStatus.FULFILLED: (),
    OrderStatus.CANCELLED: (),
}


class Order(Versioned, Base):
    """Something a customer ordered. ``amount``: minor units of ``currency`` (ISO 4217)."""

    __tablename__ = "orders"
    __table_args__ = (
        CheckConstraint("amount >= 0", name="amount_not_negative"),
        # a customer's orders, newest first, cost the same as everyone's
        Index(None, "customer_id", "id"),
        # what else lists are filtered and ordered by
        Index(None, "status", "id"),
        Index(None, "created_at", "id"),
        Index(None, "updated_at", "id"),
        Base.__table_args__,
    )

    id: Mapped[int] = primary_key()
    customer_id: Mapped[int] = mapped_column(BigInt, ForeignKey("customers.id", ondelete="RESTRICT"))
    item: Mapped[str] = mapped_column(String(255))
    amount: Mapped[int] = mapped_column(BigInt)
    currency: Mapped[str] = mapped_column(String(3))
    status: Mapped[str] = mapped_column(String(16), default=OrderStatus.PLACED)
    reference: Mapped[str | None] = mapped_column(String(255), index=True, unique=True)
    # the attribute `metadata` is taken by SQLAlchemy
    extra: Mapped[dict[str, Any]] = mapped_column("metadata", JSON, default=dict)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
