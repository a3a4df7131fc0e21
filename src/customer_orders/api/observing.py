"""What is around all that is done for a request, its retries too: the span of it, its line in the log, its metrics.

Every line that is logged meanwhile says which request it is of. The route is told by its pattern, never by the path:
there are secrets and ids in paths.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

from pyramid.events import ApplicationCreated, NewRequest

from customer_orders.api.requests import id_of
from customer_orders.logs import about
from customer_orders.origin import KEY
from customer_orders.tracing import Span

access = logging.getLogger("customer_orders.access")
log = logging.getLogger(__name__)

# Where the environ keeps what is handled, over the tries.
HANDLED = "customer_orders.handled"
# RFC 9110, section 9, and RFC 5789; whatever else a client makes up is told as OpenTelemetry does.
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


class Observer(Protocol):
    """Hears of every request, once, however often it was tried."""

    def begun(self) -> None:
        """One is handled from now on."""

    def answered(self, handled: Handled, status: int, seconds: float) -> None:
        """It was, after so long; a body that is made while it is sent, when that was sent."""


def each(observers: Sequence[Observer], tell: Callable[[Observer], None]) -> None:
    """Tell all of them: what one raises is logged, since the request may be committed, and has its answer."""
    for observer in observers:
        try:
            tell(observer)
        except Exception:
            log.exception("a request could not be told of")


class AccessLog:
    """One line for each request."""

    def begun(self) -> None:
        """Nothing to tell yet."""

    def answered(self, handled: Handled, status: int, seconds: float) -> None:
        """Log it."""
        took = round(seconds * 1000, 1)
        by = f" by {handled.principal}" if handled.principal else ""
        access.info(
            "%s %s %s in %s ms%s",
            *(handled.method, handled.route or "(no route)", status, took, by),
            extra={"method": handled.method, "status": status, "duration_ms": took},
        )


class Handled:
    """A request while it is handled.

    ``route`` and ``principal`` are those of the last try: the pattern that matched, and who was found to be calling.
    """

    def __init__(self, environ: dict[str, Any], span: Span, observers: Sequence[Observer]) -> None:
        given = environ["REQUEST_METHOD"]
        self.method = given if given in METHODS else "_OTHER"
        self.request_id = id_of(environ)
        self.span = span
        self._observers = observers
        self.began = time.perf_counter()
        self.route: str | None = None
        self.principal: str | None = None
        self._request: Any = None

    def begin(self, request: Any) -> None:
        """A try begins."""
        self._request = request
        request.add_finished_callback(self._end)

    def _end(self, _: Any) -> None:
        self._look()
        # the two refer to each other
        self._request = None

    def _look(self) -> None:
        if self._request is None:
            return
        known = self._request.__dict__
        route, session = known.get("matched_route"), known.get("dbsession")
        actor = None if session is None else session.info[KEY].actor
        # as given, and that is without the first slash here and there
        self.route = None if route is None else f"/{route.pattern.lstrip('/')}"
        self.principal = None if actor is None else str(actor)

    def fields(self) -> dict[str, Any]:
        """What every line about it says."""
        self._look()
        known = {"request_id": self.request_id, "route": self.route, "principal": self.principal}
        return {**known, **self.span.fields}

    def tell(self, status: int) -> None:
        """Tell those who observe that it was answered."""
        seconds = time.perf_counter() - self.began
        each(self._observers, lambda observer: observer.answered(self, status, seconds))


class Streamed:
    """A body that is made while it is sent: the request is over when it is."""

    def __init__(self, body: Iterable[bytes], handled: Handled, status: int) -> None:
        self._body, self._parts = body, iter(body)
        self._handled, self._status = handled, status
        self._told = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with about(self._handled.fields):
            try:
                return next(self._parts)
            except BaseException:
                self._tell()
                raise

    def close(self) -> None:
        """Called by the server, when all was sent or the client went."""
        with about(self._handled.fields):
            if hasattr(self._body, "close"):
                self._body.close()
            self._tell()

    def _tell(self) -> None:
        if not self._told:
            self._told = True
            self._handled.tell(self._status)


def observed(policy: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """An execution policy of Pyramid's that does as ``policy`` does, and tells of it."""

    def observe(environ: dict[str, Any], router: Any) -> Any:
        observers = router.registry.request_observers
        each(observers, lambda observer: observer.begun())
        with router.registry.tracing.request(environ) as span:
            handled = environ[HANDLED] = Handled(environ, span, observers)
            with about(handled.fields):
                try:
                    response = policy(environ, router)
                except BaseException:
                    span.answered(handled.method, handled.route, 500, handled.request_id)
                    handled.tell(500)
                    raise
                span.answered(handled.method, handled.route, response.status_int, handled.request_id)
                if isinstance(response.app_iter, list | tuple):
                    handled.tell(response.status_int)
                else:
                    response.app_iter = Streamed(response.app_iter, handled, response.status_int)
                return response

    return observe


def _traceparent(request: Any) -> str | None:
    """The request's place in a trace; a subrequest has none of its own."""
    handled: Handled | None = request.environ.get(HANDLED)
    return None if handled is None else handled.span.traceparent


def _on_new_request(event: Any) -> None:
    handled: Handled | None = event.request.environ.get(HANDLED)
    if handled is not None:
        handled.begin(event.request)


def _on_application_created(event: Any) -> None:
    event.app.execution_policy = observed(event.app.execution_policy)


def includeme(config: Any) -> None:
    """Be around whatever policy there is; whoever else wants to hear of requests adds to ``request_observers``."""
    config.registry.request_observers = [AccessLog()]
    config.add_request_method(_traceparent, "traceparent", reify=True)
    config.add_subscriber(_on_new_request, NewRequest)
    config.add_subscriber(_on_application_created, ApplicationCreated)
