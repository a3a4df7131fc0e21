"""What goes in and out of the audit services."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import colander

from customer_orders.api.fields import MAX_ID, Field, Integer, Text, Timestamp, node
from customer_orders.api.paging import PageQuery
from customer_orders.audit.models import AuditEntry


class One(Field):
    """One thing or somebody: a kind, and after a colon its id, where it has one: ``order:17``, ``operator``."""

    written = re.compile("[a-z_]{1,64}(:[1-9][0-9]{0,18})?")

    def parse(self, value: Any) -> tuple[str, int | None]:
        kind, _, number = str(value).partition(":")
        if not self.written.fullmatch(str(value)) or int(number or 0) > MAX_ID:
            raise ValueError("Must be a kind, and after a colon the id, such as order:17; the kind alone has no id.")
        return kind, int(number) if number else None

    def swagger(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[a-z_]{1,64}(:[1-9][0-9]{0,17})?$", "x-example": "order:17"}


class Names(Field):
    """Names of fields. Outgoing only."""

    def swagger(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string"}}


class Values(Field):
    """Values by the name of their field. Outgoing only."""

    def swagger(self) -> dict[str, Any]:
        return {"type": "object"}


class EntryQuery(PageQuery):
    """What the audit trail can be asked for."""

    created_at__gte = node(Timestamp(), "Of then or later.", missing=colander.drop)
    created_at__lt = node(Timestamp(), "Of before.", missing=colander.drop)
    action = node(Text(maximum=64), "What was done, such as order.deleted.", missing=colander.drop)
    actor = node(
        One(),
        "Who did it: user:3 or api_key:3, operator, system (also as a provider calls back), or anonymous.",
        missing=colander.drop,
    )
    subject = node(One(), "What it was done to, such as order:17; the kind alone has no id.", missing=colander.drop)


class ActorRead(colander.MappingSchema):
    """Who did it."""

    kind = node(Text(maximum=16), "user, api_key, operator (at the command line), or system (worker and providers).")
    id = node(Integer(1), "Which of them, where that is a question.", nullable=True)
    name = node(Text(minimum=0), "What they are called by now; null: nothing, or no longer.", nullable=True)


class SubjectRead(colander.MappingSchema):
    """What it was done to."""

    kind = node(Text(maximum=64), "What it is, such as order: what the action begins with.")
    id = node(Integer(1), "Which one; null: none in particular.", nullable=True)


class EventRead(colander.MappingSchema):
    """Something that happened to a customer or an order."""

    example: dict[str, Any] = {
        "id": 12,
        "created_at": "2026-01-31T08:00:00.000000Z",
        "action": "order.changed",
        "actor": {"kind": "user", "id": 3, "name": "Jane"},
        "subject": {"kind": "order", "id": 17},
        "fields": ["item", "amount"],
        "before": {"amount": 10000},
        "after": {"amount": 12000},
        "request_id": "5f1c0a64e3b94f0d8d6a7b0c9e2f1a34",
    }

    id = node(Integer(1), "Id of the entry.")
    created_at = node(Timestamp(), "When.")
    action = node(Text(maximum=64), "What was done.")
    actor = ActorRead(description="Who did it; null: somebody whom we do not know.", nullable=True)
    subject = SubjectRead(description="What it was done to.")
    fields = node(Names(), "Every field that changed.")
    before = node(Values(), "Those values before that tell of no person; null: there was nothing.", nullable=True)
    after = node(Values(), "The same after; null: there is nothing.", nullable=True)
    request_id = node(Text(maximum=64), "X-Request-Id of the request that did it.", nullable=True)


class EntryRead(EventRead):
    """An entry of the audit trail."""

    example: dict[str, Any] = {**EventRead.example, "address": "203.0.113.7"}

    address = node(Text(maximum=45), "Address that the request came from.", nullable=True)


def event(found: AuditEntry, names: Mapping[int, str]) -> dict[str, Any]:
    """An entry as JSON, without the address, which is a colleague's. ``names``: of users, by id."""
    name = names.get(found.actor_id or 0) if found.actor_kind == "user" else found.actor_name
    actor = {"kind": found.actor_kind, "id": found.actor_id, "name": name}
    return {
        "id": found.id,
        "created_at": found.created_at,
        "action": found.action,
        "actor": actor if found.actor_kind else None,
        "subject": {"kind": found.subject_kind, "id": found.subject_id},
        "fields": found.fields,
        "before": found.before,
        "after": found.after,
        "request_id": found.request_id,
    }


def events(found: Sequence[AuditEntry], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Entries as JSON for those who may read what they are about."""
    return [event(one, names) for one in found]


def entries(found: Sequence[AuditEntry], names: Mapping[int, str]) -> list[dict[str, Any]]:
    """Entries as JSON for those who may read all."""
    return [{**event(one, names), "address": one.address} for one in found]
