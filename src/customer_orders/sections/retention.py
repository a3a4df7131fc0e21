"""Settings of how long things are kept that need not be kept for ever."""

from __future__ import annotations

import re
from typing import Any

import colander

from customer_orders.settings import node

LONGEST = 36500


class Days(colander.SchemaType):
    """A whole number of days; blank: for ever."""

    allow_empty = True

    def deserialize(self, node: colander.SchemaNode, cstruct: Any) -> Any:
        if cstruct is colander.null:
            return cstruct
        if not cstruct:
            return None
        if not re.fullmatch("[0-9]{1,5}", cstruct) or not 1 <= int(cstruct) <= LONGEST:
            said = f"is {cstruct!r}; write a whole number from 1 to {LONGEST}, or leave it blank to keep all for ever"
            raise colander.Invalid(node, said)
        return int(cstruct)


class Retention(colander.MappingSchema):
    """What `customer-orders prune` does away with, and after how many days. Blank: kept for ever."""

    notifications_text = node(
        Days(),
        "Days after its last change for which a message that is over keeps its number and its words. What became of "
        "it, and what it cost, stays.",
        missing=365,
    )
    attempts = node(Days(), "Days for which the attempts at a message that is over are kept.", missing=365)
    delivery_reports = node(
        Days(),
        "Days for which a provider's reports are kept; what they told stays with the message.",
        missing=90,
    )
    refresh_tokens = node(Days(), "Days for which refresh tokens and sessions are kept after they expired.", missing=30)
