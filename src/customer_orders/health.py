"""Whether the process lives (``/livez``) and is ready for requests (``/readyz``)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from customer_orders import checks as checking
from customer_orders import migrations
from customer_orders.api import NO_PERMISSION_REQUIRED, Service
from customer_orders.api.problems import respond
from customer_orders.api.requests import DRAINING

# Seconds in which the checks that were registered have to end, all together.
SECONDS = 1
# Those that let a process have requests.
READY = (checking.Outcome.OK, checking.Outcome.WARNING)

# a probe that is told to come back later would have the process restarted
livez = Service("livez", "/livez", limited_as=None)
readyz = Service("readyz", "/readyz", limited_as=None)


@livez.get(permission=NO_PERMISSION_REQUIRED, query=None)
def live(request: Any) -> dict[str, str]:
    """The process answers. Touches nothing else: a database that is away is no reason to restart it."""
    return {"status": "ok"}


@readyz.get(permission=NO_PERMISSION_REQUIRED, query=None)
def ready(request: Any) -> Any:
    """The database answers and has all that this code needs; nothing speaks against it, and the server does not stop.

    A schema that a newer version has migrated is fit, or a rolling deployment would take every old process out at once.
    """
    draining = request.environ.get(DRAINING)
    if draining is not None and draining():
        return respond(request, "unavailable", "About to stop: draining.", checks={"server": "draining"})
    checks = {"database": "ok", "migrations": "ok"}
    try:
        schema = migrations.state(request.dbsession.connection())
    except SQLAlchemyError:
        checks = {"database": "does not answer", "migrations": "unknown"}
    else:
        if schema.behind:
            checks["migrations"] = (
                f"database at {schema.revision or 'nothing'}, code at {migrations.head()}; "
                "run `customer-orders db upgrade`"
            )
    is_ready = set(checks.values()) == {"ok"}
    for finding in checking.run(request.registry.plugins.readiness_checks.values(), SECONDS):
        is_ready = is_ready and finding.outcome in READY
        checks[finding.name] = "ok" if finding.outcome == checking.Outcome.OK else f"{finding.outcome}: {finding.found}"
    if is_ready:
        return {"status": "ok", "checks": checks}
    return respond(request, "unavailable", "Not ready for requests.", checks=checks)


def includeme(config: Any) -> None:
    """Register both."""
    config.scan("customer_orders.health")
