"""A plugin for tests, installed as any other: requests take as long as their header ``X-Take`` says."""

from __future__ import annotations

import threading


def tween_factory(handler, registry):
    """Half of the seconds before the request is worked on, half before it is answered."""
    pause = threading.Event()

    def tween(request):
        seconds = float(request.headers.get("X-Take", 0))
        pause.wait(seconds / 2)
        response = handler(request)
        pause.wait(seconds / 2)
        return response

    return tween


def includeme(config):
    config.add_tween("unhurried.tween_factory")
