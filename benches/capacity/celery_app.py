"""What a dispatcher on Celery would have: a task that delivers a message by its id. For the bench alone."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from celery import Celery

app = Celery(broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.worker_hijack_root_logger = False


@cache
def _outbox() -> Any:
    from customer_orders import main

    settings = {
        "app.public_url": "http://127.0.0.1",
        "jwt.private_key": Path(os.environ["JWT_PRIVATE_KEY_FILE"]).read_text(),
        "notifications.dispatcher": "worker",
        # a connection for each thread
        "sqlalchemy.pool_size": "20",
    }
    return main({}, **settings).registry.outbox


@app.task(name="ready")
def ready() -> None:
    """Be ready to deliver."""
    _outbox()


@app.task(name="nothing")
def nothing() -> None:
    """What a task costs by itself."""


@app.task(name="deliver", ignore_result=True)
def deliver(notification_id: int) -> None:
    """Claim, send and record one."""
    _outbox().deliver(notification_id)
