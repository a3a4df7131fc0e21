"""Whether the process lives (``/livez``) and is ready for requests (``/readyz``)."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from customer_orders import migrations
from customer_orders.api import NO_PERMISSION_REQUIRED, Service
from customer_orders.api.problems import respond
from customer_orders.api.requests import DRAINING

# a probe that is told to come back later would have the process restarted
livez = Service("livez", "/livez", limited_as=None)
readyz = Service("readyz", "/readyz", limited_as=None)


@livez.get(permission=NO_PERMISSION_REQUIRED, query=None)
def live(request: Any) -> dict[str, str]:
    """The process answers. Touches nothing else: a database that is away is no reason to restart it."""
    return {"status": "ok"}


@readyz.get(permission=NO_PERMISSION_REQUIRED, query=None)
def ready(request: Any) -> Any:
    """The database answers and has the schema of this code, and the server is not about to stop."""
    if request.environ.get(DRAINING):
        return respond(request, "unavailable", "About to stop: draining.", checks={"server": "draining"})
    checks = {"database": "ok", "migrations": "ok"}
    try:
        current = migrations.current(request.dbsession.connection())
    except SQLAlchemyError:
        checks = {"database": "does not answer", "migrations": "unknown"}
    else:
        if current != migrations.head():
            checks["migrations"] = (
                f"database at {current or 'nothing'}, code at {migrations.head()}; run `customer-orders db upgrade`"
            )
    if set(checks.values()) == {"ok"}:
        return {"status": "ok", "checks": checks}
    return respond(request, "unavailable", "Not ready for requests.", checks=checks)


def includeme(config: Any) -> None:
    """Register both."""
    config.scan("customer_orders.health")
