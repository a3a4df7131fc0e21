"""Limits that no test reaches by accident: all requests of a run come from one address."""

from __future__ import annotations

from customer_orders.sections.limiting import CLASSES

# Counted all the same, so that every test runs with what counts.
GENEROUS = {f"limits.{name}": "1000000/minute" for name in CLASSES}
