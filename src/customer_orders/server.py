"""``use = egg:customer-orders#waitress`` in ``[server:main]``: waitress, and the dispatcher beside it.

Any WSGI server will do; with another one the dispatcher starts with the first request instead of at once.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import waitress


def run_waitress(app: Any, global_config: dict[str, str], **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, then finish the message in flight.

    ``options``: waitress's own, from the INI; the variable ``SERVER_LISTEN`` overrides ``listen``.
    """
    registry = app.registry
    if os.environ.get("SERVER_LISTEN"):
        options = {key: value for key, value in options.items() if key not in ("host", "port")}
        options["listen"] = os.environ["SERVER_LISTEN"]

    def terminate(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, terminate)
    server = waitress.create_server(app, **options)
    server.print_listen("Serving on http://{}:{}")
    registry.dispatcher.start(registry.outbox)
    try:
        server.run()
    finally:
        # closed first, so that nobody connects to what will not answer
        server.close()
        registry.dispatcher.stop()
