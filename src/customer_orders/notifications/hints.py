"""Telling the dispatcher what was committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy.orm import Session

from customer_orders import db

# A dispatcher's ``hint``.
Hint = Callable[[Sequence[int]], None]


def hint_after_commit(session: Session, hint: Hint, ids: Sequence[int]) -> None:
    """Hint the dispatcher at these notifications once they are committed. What it raises at that is logged."""

    # if it is not, its own look for what is due finds them
    failure = f"the dispatcher could not be told of notification {', '.join(map(str, ids))}"
    db.after_commit(session, lambda: hint(ids), failure)
