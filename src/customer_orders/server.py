"""``use = egg:customer-orders#waitress`` in ``[server:main]``: waitress, and the dispatcher beside it.

Any WSGI server will do; with another one, or behind filters of PasteDeploy, the dispatcher starts with the first
request instead of at once.
"""

from __future__ import annotations

import logging
import os
import signal
from contextlib import nullcontext
from typing import Any

import waitress
from pyramid.exceptions import ConfigurationError

from customer_orders.metrics.exposing import exposed

log = logging.getLogger(__name__)

# waitress keeps a body of up to 1 GiB on disk before anyone can refuse it. This is more than the application takes,
# so that what is only somewhat too large gets its answer in JSON.
MAX_BODY = 1024 * 1024


def run_waitress(app: Any, global_config: dict[str, str], **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, then finish the message in flight.

    ``options``: waitress's own, from the INI; the variable ``SERVER_LISTEN`` overrides ``listen``. A body of
    ``max_request_body_size`` is answered by waitress itself, before it came: 413, in plain text.
    """
    options.setdefault("max_request_body_size", MAX_BODY)
    # waitress would remove what proxies say; whom to believe about that is app.trusted_proxies' to say, at one place
    options.setdefault("clear_untrusted_proxy_headers", "false")
    if os.environ.get("SERVER_LISTEN"):
        options = {key: value for key, value in options.items() if key not in ("host", "port")}
        options["listen"] = os.environ["SERVER_LISTEN"]

    def terminate(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, terminate)
    server = _server(app, options)
    server.print_listen("Serving on http://{}:{}")
    # a filter hides the application, and what belongs to it
    registry = getattr(app, "registry", None)
    if registry is None:
        log.info("the application is behind a filter; its dispatcher starts with the first request")
    else:
        registry.dispatcher.start(registry.outbox)
    try:
        with exposed(registry) if registry is not None else nullcontext():
            server.run()
    finally:
        # closed first, so that nobody connects to what will not answer
        server.close()
        if registry is not None:
            registry.dispatcher.stop()
            registry.tracing.stop()


def _server(app: Any, options: dict[str, Any]) -> Any:
    """A server that listens. Raises ``ConfigurationError`` if it cannot (pserve exits with 0 for a SystemExit)."""
    mend = "Change the variable SERVER_LISTEN, or listen in [server:main]"
    listen = options.get("listen", "").split()
    if any(not address.rpartition(":")[2].isdigit() for address in listen):
        # waitress would take a port of its own
        raise ConfigurationError(f"listen = {' '.join(listen)}: an address needs a port, as in 127.0.0.1:6543. {mend}.")
    try:
        return waitress.create_server(app, **options)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot listen on {' '.join(listen) or 'that address'}: {error}. {mend}.") from None
