"""One template for each event, filled with the facts of that event."""

from __future__ import annotations

from collections.abc import Mapping

from customer_orders.events import CustomerFacts, OrderFacts
from customer_orders.money import amount_text
from customer_orders.wording import CustomerWords, OrderWords, compiled


class Templates:
    """The templates of a deployment, checked at start (:mod:`customer_orders.sections`)."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._templates = {event: compiled(source) for event, source in sources.items()}

    def render(self, event: str, order: OrderFacts, customer: CustomerFacts) -> str:
        """The text for an event. Raises whatever a template can raise on data that its author did not think of."""
        amount = amount_text(order.amount, order.currency)
        return self._templates[event].render(
            order=OrderWords(order.id, order.item, amount, order.currency, order.reference),
            customer=CustomerWords(customer.username, customer.reference),
        )
