"""``use = egg:customer-orders#waitress`` in ``[server:main]``: waitress, and the dispatcher beside it.

Any WSGI server will do; with another one the dispatcher starts with the first request instead of at once.
"""

from __future__ import annotations

import signal
from typing import Any

import waitress


def run_waitress(app: Any, global_config: dict[str, str], **options: Any) -> None:
    """Serve until SIGTERM or SIGINT, then finish the message in flight. ``options``: waitress's own."""
    registry = app.registry

    def terminate(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, terminate)
    registry.dispatcher.start(registry.outbox)
    try:
        waitress.serve(app, **options)
    finally:
        registry.dispatcher.stop()
