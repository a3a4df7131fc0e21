"""Celery in place of the workers: a dispatcher made for this bench, on a Redis of its own. Skipped without either."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from ground import Ground, Meter, process, table
from messages import CONCURRENCY, queue
from provider import free_port, wait_for

WORKER = ("-m", "celery", "--app", "celery_app", "worker", "--pool", "threads", "--loglevel", "WARNING")
WORKER = (*WORKER, "--without-gossip", "--without-mingle", "--without-heartbeat", "--concurrency", str(CONCURRENCY))


def run(ground: Ground) -> None:
    """Tasks that do nothing, then tasks that each deliver one message; the worker beside them."""
    redis = shutil.which("redis-server")
    if redis is None or importlib.util.find_spec("celery") is None:
        print("\nThere is no redis-server, or no Celery (pip install 'celery[redis]'), so nothing is told of it.")
        return
    port, rows = free_port(), []
    os.environ["BROKER"] = f"redis://127.0.0.1:{port}/0"
    environ = {**ground.environ(), "BROKER": os.environ["BROKER"]}
    import celery_app

    words = [redis, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(ground.folder)]
    log = ground.folder / "celery.log"
    with process(words, {}, ground.folder / "redis.log") as broker:
        wait_for(port)
        with process([sys.executable, *WORKER], environ, log, cwd=Path(__file__).parent) as pid:
            celery_app.ready.delay().get(timeout=60)
            groups = {"worker": [pid], "broker": [broker], "db": [ground.postgres.pid]}
            for what, act in (("nothing", _nothing), ("deliver", _deliver)):
                meter, began = Meter(**groups), time.perf_counter()
                act(ground, celery_app)
                took, spent = time.perf_counter() - began, meter.read()
                each = {name: 1000 * seconds / ground.sizes.messages for name, seconds in spent.items()}
                rows.append([what, ground.sizes.messages / took, *(each[name] for name in groups)])
    head = ["task", "a second", "worker ms", "Redis ms", "PostgreSQL ms"]
    table(f"Celery: CPU of a task, one worker process with {CONCURRENCY} threads", head, rows)


def _nothing(ground: Ground, app: Any) -> None:
    for result in [app.nothing.delay() for _ in range(ground.sizes.messages)]:
        result.get(timeout=120)


def _deliver(ground: Ground, app: Any) -> None:
    outbox = ground.registry.outbox
    with ground.registry.database.transaction() as session:
        queue(session, ground.sizes.messages)
    for number in outbox.due(ground.sizes.messages):
        app.deliver.delay(number)
    # each look costs PostgreSQL and this process some of their time
    while _going(ground):
        time.sleep(0.5)


def _going(ground: Ground) -> bool:
    return bool(
        ground.postgres.ask("SELECT 1 FROM notifications WHERE status = 'queued' LIMIT 1")
        or ground.postgres.ask("SELECT 1 FROM notifications WHERE status = 'sending' LIMIT 1")
    )
