"""A streaming replica on this machine: how far it is behind under load, and what reading from it breaks."""

from __future__ import annotations

import http.client
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from ground import Ground, Meter, started, table
from traffic import MIXED, Load

from serving import wait_for


@contextmanager
def replica(ground: Ground) -> Iterator[tuple[str, int]]:
    """The address and the process of a copy that follows, until the end of the block."""
    postgres, folder = ground.postgres, ground.folder / "replica"
    folder.mkdir(mode=0o700)
    postgres.own(folder)
    words = ("-h", postgres.socket, "-U", "postgres", "-D", str(folder), "-R", "-X", "stream", "-c", "fast")
    postgres.run("pg_basebackup", *words)
    options = f'-h "" -k {postgres.socket} -p 5433'
    postgres.run("pg_ctl", "-w", "-D", str(folder), "-o", options, "-l", str(folder / "log"), "start")
    url = f"postgresql://postgres:@/postgres?host={postgres.socket}&port=5433"
    try:
        wait_for(lambda: postgres.ask("SELECT count(*) FROM pg_stat_replication") == 1, "it follows", 60)
        yield url, int((folder / "postmaster.pid").read_text().split()[0])
    finally:
        postgres.run("pg_ctl", "-w", "-D", str(folder), "-m", "immediate", "stop")


def run(ground: Ground) -> None:
    """Place orders by requests, and look for each in the replica as soon as it is answered."""
    rows: list[list[Any]] = []
    with (
        replica(ground) as (url, pid),
        started(ground.server()) as server,
        psycopg.connect(url, autocommit=True) as copy,
    ):
        token = server.token("clerk")
        rows.append(["nobody else", *_probed(server.url, token, copy, ground.sizes.seconds)])
        load = Load(ground, server.url, token, MIXED)
        load.begun()
        meter = Meter(primary=[ground.postgres.pid], replica=[pid])
        rows.append([f"the mix ({MIXED})", *_probed(server.url, token, copy, ground.sizes.seconds)])
        spent = meter.read()
        load.ended()
        load.answers()
    head = ["beside it", "orders placed", "not there at first", "there after, p50 ms", "p99 ms"]
    table("Replica: whether an order is there for who reads from it right after its POST", head, rows)
    share = spent["replica"] / spent["primary"] if spent["primary"] else 0.0
    print(f"\nTo follow took {share:.0%} of the CPU that the primary spent, and the replica answered next to nothing.")


def _probed(url: str, token: str, copy: psycopg.Connection[Any], seconds: float) -> list[Any]:
    connection = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=60)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"item": "Chai, 500 g", "amount": 125000, "customer": 1})
    missed, late = 0, []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.request("POST", "/api/orders/", body, headers)
        placed = json.loads(connection.getresponse().read())["id"]
        answered = time.perf_counter()
        looks = 0
        while copy.execute("SELECT 1 FROM orders WHERE id = %s", (placed,)).fetchone() is None:
            looks += 1
            if time.perf_counter() - answered > 30:
                raise SystemExit("the replica does not follow")
        late.append((time.perf_counter() - answered) * 1000)
        missed += looks > 0
    connection.close()
    late.sort()
    p99 = statistics.quantiles(late, n=100)[98] if len(late) > 1 else late[0]
    return [len(late), f"{missed / len(late):.0%}", statistics.median(late), p99]
