"""The words of a message: Jinja2, sandboxed, with nothing undefined passing silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from customer_orders.events import CustomerFacts, OrderFacts
from customer_orders.money import amount_text


@dataclass(frozen=True)
class OrderWords:
    """What a template may say of an order; names as in ``sections.TEMPLATE_NAMES``."""

    id: int
    item: str
    amount_text: str
    currency: str
    reference: str | None


@dataclass(frozen=True)
class CustomerWords:
    """What a template may say of a customer; names as in ``sections.TEMPLATE_NAMES``."""

    username: str
    reference: str | None


class Templates:
    """One template for each event. Their names were checked at start (``sections.py``)."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        # No autoescape: a text message is not HTML. And nobody is told «None».
        environment = SandboxedEnvironment(
            undefined=StrictUndefined, autoescape=False, finalize=lambda value: "" if value is None else value
        )
        self._templates = {event: environment.from_string(source) for event, source in sources.items()}

    def render(self, event: str, order: OrderFacts, customer: CustomerFacts) -> str:
        """The text for an event. Raises whatever a template can raise on data that its author did not think of."""
        return self._templates[event].render(
            order=OrderWords(
                order.id,
                order.item,
                amount_text(order.amount, order.currency),
                order.currency,
                order.reference,
            ),
            customer=CustomerWords(customer.username, customer.reference),
        )
