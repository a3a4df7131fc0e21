"""What a message says: a template for each event, and for each language that has one, filled with the facts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from jinja2 import Template

from customer_orders.events import CustomerFacts, OrderFacts
from customer_orders.languages import canonical, fallbacks
from customer_orders.money import amount_text
from customer_orders.notifications.models import Status
from customer_orders.segments import size
from customer_orders.settings import Section
from customer_orders.wording import CustomerWords, OrderWords, compiled

log = logging.getLogger(__name__)

PREFIX = "template."


@dataclass(frozen=True)
class Draft:
    """What a message says; and that it is not sent, and why, if its words are no good. Named as the columns.

    ``language``: that of the words; None where the template names none. ``encoding``, ``segments``: what it takes to
    send them; None where there are none.
    """

    text: str = ""
    language: str | None = None
    encoding: str | None = None
    segments: int | None = None
    status: Status = Status.QUEUED
    reason: str | None = None


class Templates:
    """The templates of a deployment, checked at start (:mod:`customer_orders.sections`).

    :param sources: by event, such as ``order_placed``; and by event and language tag, such as ``order_placed.sw``.
    :param max_segments: those that a message may take.
    """

    def __init__(self, sources: Mapping[str, str], max_segments: int) -> None:
        self._max_segments = max_segments
        self._templates: dict[tuple[str, str | None], Template | None] = {}
        for name, source in sources.items():
            event, _, tag = name.partition(".")
            self._templates[event, canonical(tag) if tag else None] = compiled(source) if source else None

    @classmethod
    def of(cls, settings: Section) -> Templates:
        """Those of the section ``notifications``."""
        names = {setting.node.name: setting.value for setting in settings}
        sources = {name.removeprefix(PREFIX): text for name, text in names.items() if name.startswith(PREFIX)}
        return cls(sources, settings.max_segments)

    def speak_of(self, event: str, language: str | None) -> bool:
        """Whether there is anything to say of an event to somebody of a language: the template is not blank."""
        return self._find(event, language)[0] is not None

    def _find(self, event: str, language: str | None) -> tuple[Template | None, str | None]:
        """The template for a language, and the tag that it is kept under; if none matches, the one of no language."""
        tags = [tag for tag in fallbacks(canonical(language)) if (event, tag) in self._templates] if language else []
        tag = tags[0] if tags else None
        return self._templates[event, tag], tag

    def draft(self, event: str, order: OrderFacts, customer: CustomerFacts) -> Draft:
        """The message of an event. A template that fails costs the message, never what it was to tell of."""
        template, language = self._find(event, customer.language)
        if template is None:
            return Draft(language=language, status=Status.SUPPRESSED, reason="no_template")
        try:
            amount = amount_text(order.amount, order.currency)
            text = template.render(
                order=OrderWords(order.id, order.item, amount, order.currency, order.reference),
                customer=CustomerWords(customer.username, customer.reference),
            )
        except Exception as error:  # noqa: BLE001 - a template can raise anything on data its author did not think of
            log.error("the template %s failed for order %s: %s", _name(event, language), order.id, error)
            return Draft(language=language, status=Status.FAILED, reason=f"template_error: {type(error).__name__}")
        if not text.strip():
            return Draft(language=language, status=Status.SUPPRESSED, reason="empty_text")
        takes = size(text)
        draft = Draft(text, language, takes.encoding, takes.segments)
        if takes.segments > self._max_segments:
            reason = f"too_long: {takes.segments} segments, {self._max_segments} is the most"
            return replace(draft, status=Status.FAILED, reason=reason)
        return draft


def _name(event: str, language: str | None) -> str:
    return event if language is None else f"{event}.{language}"
