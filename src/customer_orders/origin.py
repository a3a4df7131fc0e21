"""Who is behind a change, and where it came from: kept with the session that makes it, for the audit trail."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sqlalchemy.orm import Session

# The key in ``Session.info``.
KEY = "origin"


@dataclass(frozen=True)
class Actor:
    """Who acts.

    :param kind: ``user``, ``api_key``, ``operator`` (at the command line) or ``system`` (the worker, and providers that
        call back).
    :param id: which of them; None where the kind says it all.
    :param name: what else tells them apart, such as the notifier whose provider calls back. Never a person's name:
        what is written can never be changed, so whoever reads the trail looks names up by the id.
    """

    kind: str
    id: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        """As logs have it: ``user:7``, ``system``."""
        return self.kind if self.id is None else f"{self.kind}:{self.id}"


OPERATOR = Actor("operator")
SYSTEM = Actor("system")


@dataclass(frozen=True)
class Origin:
    """What a session's changes come from.

    :param actor: None: nobody whom we know.
    :param request_id: None where there is no request; ``address`` likewise: the client's, as text.
    :param traceparent: the request's place in a trace (W3C Trace Context); None where nobody traces.
    """

    actor: Actor | None = None
    request_id: str | None = None
    address: str | None = None
    traceparent: str | None = None


def origin_of(session: Session) -> Origin:
    """What the changes of this session come from."""
    found: Origin = session.info[KEY]
    return found


def act_as(session: Session, actor: Actor) -> None:
    """From here on the changes of this session are this actor's, who has proved who they are."""
    session.info[KEY] = replace(origin_of(session), actor=actor)
