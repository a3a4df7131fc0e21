"""Requests: how many a second, how long each takes, and the CPU that the application and PostgreSQL spend on it."""

from __future__ import annotations

import multiprocessing
import statistics
from collections import Counter
from typing import Any

from caller import Answers, call
from ground import Ground, Meter, started, table

CALLERS = 8
# Of a hundred requests, how many of each kind.
MIXES = {
    "POST an order": {"post": 100},
    "GET an order": {"get": 100},
    "GET the newest 50": {"list": 100},
    "GET a customer's 10": {"customer": 100},
    "80 % read, 20 % write": {"get": 40, "list": 20, "customer": 20, "post": 20},
}
MIXED = "80 % read, 20 % write"


class Load:
    """A process that asks for some seconds; what it took is known between :meth:`begun` and :meth:`ended`."""

    def __init__(self, ground: Ground, url: str, token: str, mix: str, callers: int = CALLERS) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._heard, told = spawn.Pipe(duplex=False)
        port = int(url.rpartition(":")[2])
        what = (port, token, MIXES[mix], ground.sizes.seconds, ground.sizes.rows[-1], callers, told)
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


def measured(
    ground: Ground, server: Any, token: str, mix: str, callers: int = CALLERS
) -> tuple[Answers, dict[str, float]]:
    """What a load got, and the CPU seconds of the server and of PostgreSQL meanwhile."""
    load = Load(ground, server.url, token, mix, callers)
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
        alone = measured(ground, server, token, MIXED, 1)
        rows.append(_row("the same, one at a time", *alone, ground.sizes.seconds))
    with started(ground.server(SERVER_WORKERS="2")) as server:
        token = server.token("clerk")
        rows.append(
            _row("the same, 8 at a time, 2 processes", *measured(ground, server, token, MIXED), ground.sizes.seconds)
        )
    table("Requests: 8 at a time, CPU milliseconds of each, and how many a core would do", head, rows)
    reads = 0.4 * costs["GET an order"] + 0.2 * costs["GET the newest 50"] + 0.2 * costs["GET a customer's 10"]
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
