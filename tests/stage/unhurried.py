"""A plugin for tests, installed as any other: requests take as long as their header ``X-Take`` says."""

from __future__ import annotations

import logging
import threading

log = logging.getLogger(__name__)


def tween_factory(handler, registry):
    """Half of the seconds before the request is worked on, half before it is answered."""
    pause = threading.Event()

    def tween(request):
        seconds = float(request.headers.get("X-Take", 0))
        if seconds:
            log.info("takes %s seconds", seconds)
        pause.wait(seconds / 2)
        response = handler(request)
        pause.wait(seconds / 2)
        return response

    return tween


def includeme(config):
    config.add_tween("unhurried.tween_factory")
