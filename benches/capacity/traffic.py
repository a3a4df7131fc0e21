"""Requests: how many a second, how long each takes, and the CPU that the application and PostgreSQL spend on it."""

from __future__ import annotations

import http.client
import itertools
import json
import multiprocessing
import random
import statistics
import threading
import time
from collections import Counter
from typing import Any

from ground import Ground, Meter, started, table

CALLERS = 8
# Seconds before anything is counted.
WARM = 1
# Of a hundred requests, how many of each kind.
MIXES = {
    "POST an order": {"post": 100},
    "GET an order": {"get": 100},
    "GET the newest 50": {"list": 100},
    "GET a customer's 50": {"customer": 100},
    "80 % read, 20 % write": {"get": 40, "list": 20, "customer": 20, "post": 20},
}
MIXED = "80 % read, 20 % write"

Answers = list[tuple[float, int]]


def call(port: int, token: str, mix: dict[str, int], seconds: float, ids: int, told: Any) -> None:
    """Ask from ``CALLERS`` connections; sends when it began to count, then all that was answered since.

    :param ids: orders that there are; customers are a tenth as many.
    """
    choose = random.Random(1)  # noqa: S311 - the same requests at each run
    kinds = list(itertools.chain.from_iterable([kind] * share for kind, share in mix.items()))
    counting, over = threading.Event(), threading.Event()
    answers: list[Answers] = [[] for _ in range(CALLERS)]

    def run(mine: Answers) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        while not over.is_set():
            kind, body, method = choose.choice(kinds), None, "GET"
            someone = choose.randint(1, max(1, ids // 10))
            if kind == "post":
                method, path = "POST", "/api/orders/"
                body = json.dumps({"item": "Chai, 500 g", "amount": 125000, "customer": someone})
            elif kind == "get":
                path = f"/api/orders/{choose.randint(1, ids)}"
            else:
                path = f"/api/orders/?limit=50{f'&customer={someone}' if kind == 'customer' else ''}"
            began = time.perf_counter()
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                status = answer.status
            except (OSError, http.client.HTTPException):
                connection.close()
                status = 0
            if counting.is_set():
                mine.append((time.perf_counter() - began, status))

    crowd = [threading.Thread(target=run, args=(mine,)) for mine in answers]
    for thread in crowd:
        thread.start()
    time.sleep(min(WARM, seconds))
    counting.set()
    told.send(None)
    time.sleep(seconds)
    over.set()
    told.send(None)
    for thread in crowd:
        thread.join()
    told.send([one for mine in answers for one in mine])


class Load:
    """A process that asks for some seconds; what it took is known between :meth:`begun` and :meth:`ended`."""

    def __init__(self, ground: Ground, url: str, token: str, mix: str) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._heard, told = spawn.Pipe(duplex=False)
        port = int(url.rpartition(":")[2])
        what = (port, token, MIXES[mix], ground.sizes.seconds, ground.sizes.rows[-1], told)
        self._process = spawn.Process(target=call, args=what, daemon=True)
        self._process.start()
        # from here on the end of the pipe is its alone
        told.close()

    def begun(self) -> None:
        """Wait until it counts."""
        self._heard.recv()

    def ended(self) -> None:
        """Wait until it counts no more."""
        self._heard.recv()

    def answers(self) -> Answers:
        """What it got, with the seconds that it took, and the status; 0 for no answer at all."""
        answers: Answers = self._heard.recv()
        self._process.join(60)
        return answers


def measured(ground: Ground, server: Any, token: str, mix: str) -> tuple[Answers, dict[str, float]]:
    """What a load got, and the CPU seconds of the server and of PostgreSQL meanwhile."""
    load = Load(ground, server.url, token, mix)
    load.begun()
    meter = Meter(app=[server.process.pid], db=[ground.postgres.pid])
    load.ended()
    spent = meter.read()
    return load.answers(), spent


def failed(answers: Answers) -> str:
    """Those that were not answered as they should be, in words."""
    bad = Counter(status for _, status in answers if not 200 <= status < 300)
    return ", ".join(f"{count} x {status or 'no answer'}" for status, count in bad.items())


def run(ground: Ground) -> None:
    """Every kind of request by one process, and the mix by two."""
    head = [
        "request",
        "a second",
        "p50 ms",
        "p99 ms",
        "app ms",
        "PostgreSQL ms",
        "of app's core /s",
        "of PostgreSQL's /s",
    ]
    rows, costs = [], {}
    with started(ground.server()) as server:
        token = server.token("clerk")
        for mix in MIXES:
            rows.append(_row(mix, *measured(ground, server, token, mix), ground.sizes.seconds))
            costs[mix] = rows[-1][5]
    with started(ground.server(SERVER_WORKERS="2")) as server:
        token = server.token("clerk")
        rows.append(_row("the same, 2 processes", *measured(ground, server, token, MIXED), ground.sizes.seconds))
    table("Requests: CPU milliseconds of each, and how many a core would do", head, rows)
    reads = 0.4 * costs["GET an order"] + 0.2 * costs["GET the newest 50"] + 0.2 * costs["GET a customer's 50"]
    share = reads / (reads + 0.2 * costs["POST an order"])
    print(f"\nOf the CPU that PostgreSQL spends on the mix, {share:.0%} is for what reads.")


def _row(mix: str, answers: Answers, spent: dict[str, float], seconds: float) -> list[Any]:
    if bad := failed(answers):
        raise SystemExit(f"{mix}: {bad}")
    took = sorted(seconds * 1000 for seconds, _ in answers)
    done = len(took)
    app, db = (1000 * spent[name] / done for name in ("app", "db"))
    p99 = statistics.quantiles(took, n=100)[98] if done > 1 else took[0]
    rates = [1000 / each if each else 0.0 for each in (app, db)]
    return [mix, done / seconds, statistics.median(took), p99, app, db, *rates]
