"""Settings of messages to customers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import colander

from customer_orders import languages, segments, wording
from customer_orders.quiet import QuietHours
from customer_orders.sections.secret import PLACEHOLDER
from customer_orders.settings import Number, Words, node

MAKE_A_WORD = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"


def _report_secrets(node: colander.SchemaNode, value: tuple[str, ...]) -> None:
    if len(value) > 2:
        raise colander.Invalid(node, "holds more than two; two are good at once, while you change it")
    for number, word in enumerate(value, 1):
        # not repeated: it may be a good one but for a slip
        which = f"number {number} " if len(value) > 1 else ""
        if not re.fullmatch("[A-Za-z0-9_-]+", word):
            raise colander.Invalid(node, f"{which}holds what an address cannot; write letters, digits, - and _ only")
        # 128 bits: a letter of base64 has six, of hexadecimal four
        least = 32 if re.fullmatch("[0-9A-Fa-f]+", word) else 22
        if not least <= len(word) <= 255:
            raise colander.Invalid(node, f"{which}is not {least} to 255 characters long. {MAKE_A_WORD}")
        if len(set(word)) < 8 or PLACEHOLDER.search(word):
            raise colander.Invalid(node, f"{which}looks like a placeholder, not a random secret. {MAKE_A_WORD}")


def _check_template(node: colander.SchemaNode, value: str) -> None:
    try:
        wording.check(value)
    except ValueError as error:
        raise colander.Invalid(node, str(error)) from None


class Quiet(colander.SchemaType):
    """Quiet hours, as :class:`~customer_orders.quiet.QuietHours`."""

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        try:
            return QuietHours.parse(cstruct)
        except ValueError as error:
            message = f"is {cstruct!r}: {error}. Write two times of day and a zone, such as 21:00-08:00 Africa/Nairobi"
            raise colander.Invalid(node, message) from None


def _language(node: colander.SchemaNode, word: str) -> None:
    if not languages.is_tag(word):
        raise colander.Invalid(node, f"{word!r} is no language tag (BCP 47); write one such as sw or sw-KE")


def _template(event: str, when: str, text: str) -> colander.SchemaNode:
    """The setting of the template for an event; with ``.`` and a language tag after its key, that of a language."""
    return node(
        colander.String(allow_empty=True),
        f"Text of the SMS {when} (Jinja2): {', '.join(wording.NAMES)}. Blank: no SMS is sent for it. "
        f"template.{event}.sw, with any language tag, is for customers of that language.",
        name=f"template.{event}",
        missing=text,
        validator=_check_template,
        variant=_language,
    )


class Notifications(colander.MappingSchema):
    """Messages to customers."""

    sms = node(
        colander.String(),
        "The notifier that sends SMS: the name of a plugin. Blank: no SMS is sent, and each order says so.",
        missing=None,
        refers_to="notifiers",
    )
    dispatcher = node(
        colander.String(),
        "What delivers: embedded (threads in each web process), worker (processes of their own), or a plugin's.",
        missing="embedded",
        refers_to="dispatchers",
    )
    template_order_placed = _template(
        "order_placed", "for a new order", "Your order has been created. Thank you for shopping with us!"
    )
    template_order_confirmed = _template(
        "order_confirmed", "when an order is confirmed", "Your order no. {{ order.id }} has been confirmed."
    )
    template_order_fulfilled = _template(
        "order_fulfilled",
        "when an order is fulfilled",
        "Your order no. {{ order.id }} has been fulfilled. Thank you for shopping with us!",
    )
    template_order_cancelled = _template(
        "order_cancelled", "when an order is cancelled", "Your order no. {{ order.id }} has been cancelled."
    )
    max_segments = node(
        Number(1, 255),
        "Segments of 153 characters (67, if some are not in GSM's alphabet) that a message may take; one that would "
        "take more has failed.",
        missing=6,
    )
    quiet_hours = node(
        Quiet(),
        "Hours of each day in which no SMS is sent, such as 21:00-08:00 Africa/Nairobi; what is queued in them is "
        "sent afterwards. Blank: there are none.",
        missing=None,
    )
    poll_interval = node(Number(1, 3600), "Seconds between two looks for messages that are due.", missing=2)
    lease = node(Number(5, 3600), "Seconds after which an unfinished attempt counts as abandoned.", missing=60)
    max_attempts = node(Number(1, 100), "Attempts after which a message has failed.", missing=10)
    retry_base = node(Number(1, 3600), "Seconds of the first wait between attempts, doubled each time.", missing=5)
    retry_cap = node(Number(1, 86400), "Longest wait between two attempts, in seconds.", missing=3600)
    deadline = node(
        Number(60, 2592000), "Seconds after which a message that could not be sent has failed.", missing=72 * 3600
    )
    unknown_after = node(
        Number(60, 2592000),
        "Seconds that a message which may or may not have been sent waits for its delivery report.",
        missing=86400,
    )
    retry_unknown = node(
        colander.String(),
        "What happens then: never (it stays unknown), or once (it is sent again, perhaps for the second time).",
        missing="never",
        validator=colander.OneOf(["never", "once"]),
    )
    pause_base = node(
        Number(1, 3600),
        "Seconds of the first pause of a notifier whose provider is down, doubled each time.",
        missing=5,
    )
    pause_cap = node(Number(1, 86400), "Longest such pause, in seconds.", missing=300)
    concurrency = node(Number(1, 1000), "Messages that one process sends at a time.", missing=4)
    unrecorded = node(
        Number(0, 10000),
        "Messages that were sent and whose results may still wait to be written down while a process goes on sending. "
        "If it is killed, so many may go out twice, besides those that it was sending. More than the default is of use "
        "only where a provider answers faster than the database. Blank: one less than are sent at a time.",
        missing=None,
    )
    report_secrets = node(
        Words(),
        "The secret in the address to which a provider sends delivery reports, "
        "app.public_url and /api/notifications/reports/{notifier}/{secret}; two while you change it, both are good. "
        f"Blank: no report is taken, and no message expires for want of one. {MAKE_A_WORD}.",
        missing=(),
        validator=_report_secrets,
        secret=True,
    )
    report_deadline = node(
        Number(60, 30 * 86400),
        "Seconds after which a message counts as expired if no report says what became of it.",
        missing=72 * 3600,
    )

    def check(self, values: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """A text that is always the same is not too long. ``values``: those that are valid by themselves."""
        # one that is wrong itself is told already
        most = values.get("max_segments", 255)
        for name, source in values.items():
            text = wording.fixed(source) if name.startswith("template.") else None
            if text is not None and (takes := segments.size(text)).segments > most:
                said = f"takes {takes.segments} segments in {takes.encoding}, and notifications.max_segments is {most}"
                yield name, f"{said}. Shorten the text, or raise that"
