"""``GET /api/``: what this is, what it can do, its limits, and where the rest is."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import colander

from customer_orders.api import NO_PERMISSION_REQUIRED, Service
from customer_orders.api.fields import Metadata, Text, node
from customer_orders.api.paging import DEFAULT_LIMIT, MAX_LIMIT
from customer_orders.keyset import SCANNED
from customer_orders.settings import section

# What a client may count on here, for one that talks to several versions.
CAPABILITIES = (
    "audit",
    "conditional-requests",
    "cursor-paging",
    "dry-run",
    "expand",
    "idempotency-keys",
    "metadata",
    "ordering",
    "rate-limits",
    "references",
)

root = Service("root", "/api/", tag="session")


class Root(colander.MappingSchema):
    """What this is."""

    name = node(Text(), "Name of the product.")
    version = node(Text(), "Its version.")
    capabilities = colander.SequenceSchema(colander.SchemaNode(Text()), description="What a client may count on.")
    limits = colander.MappingSchema(unknown="preserve", description="Limits, by name.")
    links = colander.MappingSchema(unknown="preserve", description="Where the rest is, by name.")


@root.get(permission=NO_PERMISSION_REQUIRED, operation_id="root_read", returns=Root)
def read_root(request: Any) -> dict[str, Any]:
    """Read what this is and what it can do."""
    app, api = section(request.registry, "app"), section(request.registry, "api")
    paths = {
        "dashboard": "/",
        "document": "/api/api.json",
        "sign_in": "/login/",
        "problems": "/problems/",
        "live": "/livez",
        "ready": "/readyz",
        "customers": "/api/customers/",
        "orders": "/api/orders/",
        "notifications": "/api/notifications/",
        "stats": "/api/stats",
        "audit": "/api/audit/",
        "version": "/api/version",
    }
    return {
        "name": "Customer Orders",
        "version": version("customer-orders"),
        "capabilities": CAPABILITIES,
        "limits": {
            "body_bytes": api.max_body,
            "page_default": DEFAULT_LIMIT,
            "page_max": MAX_LIMIT,
            "search_rows": SCANNED,
            "idempotency_key_seconds": api.idempotency_seconds,
            "metadata_keys": Metadata.keys,
            "metadata_key_length": Metadata.key_length,
            "metadata_value_length": Metadata.value_length,
        },
        "links": {name: f"{app.public_url}{path}" for name, path in paths.items()},
    }


def includeme(config: Any) -> None:
    """Serve it."""
    config.scan("customer_orders.api.root")
