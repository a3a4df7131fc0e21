"""A plugin for tests, installed as any other: it kills its process where a request's ``X-Test-Die`` says."""

from __future__ import annotations

import os
import signal

from pyramid.tweens import EXCVIEW, INGRESS

TRANSACTION = "pyramid_tm.tm_tween_factory"


def _killing(moment, handler):
    def tween(request):
        response = handler(request)
        if request.headers.get("X-Test-Die") == moment:
            os.kill(os.getpid(), signal.SIGKILL)
        return response

    return tween


def before_commit(handler, registry):
    """Within the transaction: the view has returned, and nothing is committed."""
    return _killing("before-commit", handler)


def after_commit(handler, registry):
    """Around the transaction: all is committed, and nothing is answered."""
    return _killing("after-commit", handler)


def includeme(config):
    config.add_tween("fatal.before_commit", under=TRANSACTION, over=EXCVIEW)
    config.add_tween("fatal.after_commit", under=INGRESS, over=TRANSACTION)
