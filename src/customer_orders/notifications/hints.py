"""Telling the dispatcher what was committed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from customer_orders import db

log = logging.getLogger(__name__)

# A dispatcher's ``hint``.
Hint = Callable[[Sequence[int]], None]


def hint_after_commit(session: Session, hint: Hint, ids: Sequence[int]) -> None:
    """Hint the dispatcher at these notifications once they are committed. What it raises at that is logged."""

    def tell() -> None:
        try:
            hint(ids)
        except Exception:
            # The rows are committed; the dispatcher's own look for what is due finds them.
            log.exception("the dispatcher could not be told of notification %s", ", ".join(map(str, ids)))

    db.after_commit(session, tell)
