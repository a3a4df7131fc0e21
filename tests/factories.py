"""Things that tests need, made through the API as a client would make them."""

from __future__ import annotations

from itertools import count
from typing import Any

numbers = count(1)


def customer(client: Any, **fields: Any) -> dict[str, Any]:
    """A customer, created over HTTP."""
    number = next(numbers)
    body = {"username": f"Customer {number}", "phone_number": f"+2547{number:08d}", **fields}
    return client.post_json("/api/customers/", body, status=201).json


def order(client: Any, **fields: Any) -> dict[str, Any]:
    """An order, placed over HTTP, with a customer of its own unless told."""
    if "customer" not in fields:
        fields["customer"] = customer(client)["id"]
    return client.post_json("/api/orders/", {"item": "Tea", "amount": 10000, **fields}, status=201).json
