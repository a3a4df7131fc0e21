"""What goes in and out of the customer services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import colander

from customer_orders.api.fields import (
    Body,
    Flag,
    Integer,
    Language,
    Metadata,
    MetadataFilter,
    Phone,
    PhoneFilter,
    Text,
    Timestamp,
    Word,
    node,
    partial,
)
from customer_orders.api.paging import UNINDEXED, ListQuery
from customer_orders.customers.models import Customer


class CustomerBody(Body):
    """A customer as a client writes it. In a PUT, an optional field left out keeps its value; null clears it."""

    read_only = ("id", "sms_opt_out_source", "sms_opt_out_at", "anonymized_at", "created_at", "updated_at")
    example = {"username": "Asha", "phone_number": "0713 812 939"}

    username = node(Text(), "Name of the customer.")
    phone_number = node(
        Phone(),
        "Phone number in any way people write it; without a country code, of the deployment's region.",
    )
    reference = node(Text(), "Your own reference for the customer.", missing=colander.drop, nullable=True)
    metadata = node(Metadata(), "Up to 50 strings of your own, by key.", missing=colander.drop, nullable=True)
    language = node(Language(), "Language tag for messages, such as sw.", missing=colander.drop, nullable=True)
    sms_opt_out = node(Flag(), "Whether the customer wants no SMS; obeyed.", missing=colander.drop, nullable=True)


CustomerPatch = partial(CustomerBody)


class CustomerQuery(ListQuery):
    """What the list of customers can be asked for."""

    phone = node(PhoneFilter(), "Phone number in any way people write it.", missing=colander.drop)
    q = node(Text(), f"Part of the name, in capitals or not. {UNINDEXED}", missing=colander.drop)
    metadata = node(
        MetadataFilter(),
        f"Value of a key in metadata; write the key's own name for `key`. {UNINDEXED}",
        name="metadata.key",
        missing=colander.drop,
    )


def _parts(what: str) -> colander.SchemaNode:
    """An array of objects that are shown by another feature."""
    return colander.SequenceSchema(colander.MappingSchema(unknown="preserve"), description=what)


class CustomerRead(colander.MappingSchema):
    """A customer."""

    example = {
        "id": 1,
        "username": "Asha",
        "phone_number": "+254713812939",
        "reference": None,
        "metadata": {},
        "language": None,
        "sms_opt_out": False,
        "sms_opt_out_source": None,
        "sms_opt_out_at": None,
        "anonymized_at": None,
        "created_at": "2026-01-31T08:00:00.000000Z",
        "updated_at": "2026-01-31T08:00:00.000000Z",
    }

    id = node(Integer(1), "Id of the customer.")
    username = node(Text(), "Name of the customer.")
    phone_number = node(Text(maximum=32), "Phone number, E.164; null: they were anonymized.", nullable=True)
    reference = node(Text(), "Your own reference for the customer.", nullable=True)
    metadata = node(Metadata(), "Strings of your own, by key.")
    language = node(Text(maximum=35), "Language tag for messages.", nullable=True)
    sms_opt_out = node(Flag(), "Whether the customer wants no SMS.")
    sms_opt_out_source = node(
        Word("staff", "recipient"),
        "Who asked for none: `staff` through this API, or the `recipient` who sent STOP; null while they get SMS.",
        nullable=True,
    )
    sms_opt_out_at = node(Timestamp(), "When that was; null while they get SMS.", nullable=True)
    anonymized_at = node(Timestamp(), "When who they are was wiped; null: it was not.", nullable=True)
    created_at = node(Timestamp(), "When it was created.")
    updated_at = node(Timestamp(), "When it last changed.")


def customer(found: Customer) -> dict[str, Any]:
    """A customer as JSON."""
    return {
        "id": found.id,
        "username": found.username,
        "phone_number": found.phone_number,
        "reference": found.reference,
        "metadata": found.extra,
        "language": found.language,
        "sms_opt_out": found.sms_opt_out,
        "sms_opt_out_source": found.sms_opt_out_source,
        "sms_opt_out_at": found.sms_opt_out_at,
        "anonymized_at": found.anonymized_at,
        "created_at": found.created_at,
        "updated_at": found.updated_at,
    }


class CustomerExport(colander.MappingSchema):
    """All that is held on a customer. More parts may come."""

    customer = CustomerRead(description="The customer.")
    orders = _parts("Their orders, as `GET /orders/` shows them.")
    notifications = _parts(
        "The messages to them, as `GET /notifications/{id}` shows each, with `delivery_reports`: what was told of it."
    )
    delivery_reports = _parts("What providers told of their number, and matches no message.")
    kept_answers = _parts("Answers that are kept to be repeated with their `Idempotency-Key`, and tell of them.")


def export(found: Customer, parts: Mapping[str, Any]) -> dict[str, Any]:
    """All that is held on a customer, as JSON."""
    return {"customer": customer(found), **parts}
