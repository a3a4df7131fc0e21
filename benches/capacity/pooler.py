"""PgBouncer between the application and PostgreSQL: what of ours goes through it. Skipped where there is none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from ground import Ground, process, started, table
from provider import free_port, wait_for
from traffic import MIXED, failed, measured

from customer_orders.migrations.locks import LOCK

INI = """\
[databases]
postgres = host={socket} user=postgres
; connections of its own, on which nobody has prepared anything
fresh = host={socket} user=postgres dbname=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {size}
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
logfile = {folder}/pgbouncer.log
"""
# Fewer than requests at a time, so that they share them; as many as connections, where none is shared.
CONNECTIONS = {"transaction": 4, "session": 40}


@contextmanager
def pooler(ground: Ground, program: str, mode: str) -> Iterator[int]:
    """The port of a PgBouncer, until the end of the block."""
    folder = ground.folder / f"pgbouncer-{mode}"
    folder.mkdir(exist_ok=True)
    port = free_port()
    ini = folder / "pgbouncer.ini"
    ini.write_text(
        INI.format(socket=ground.postgres.socket, port=port, mode=mode, size=CONNECTIONS[mode], folder=folder)
    )
    ground.postgres.own(folder)
    # it does not run as root, and PostgreSQL's socket is its own user's
    with process([program, str(ini)], {}, folder / "said.log", user=ground.postgres.user):
        wait_for(port)
        yield port


def run(ground: Ground) -> None:
    """The mix through each way of pooling, and what else the application asks of a connection."""
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        print("\nThere is no pgbouncer here, so nothing is told of it.")
        return
    rows: list[list[Any]] = []
    for mode in CONNECTIONS:
        with pooler(ground, program, mode) as port:
            url = f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
            with started(ground.server(SQLALCHEMY_URL=url)) as server:
                answers, _ = measured(ground, server, server.token("clerk"), MIXED)
            rows.append([mode, len(answers), failed(answers) or "none", *_of_sessions(port)])
    of_sessions = ["LISTEN hears NOTIFY", "a session's lock keeps others out", "another's prepared statement is run"]
    head = ["pool_mode", "requests", "failed", *of_sessions]
    table("PgBouncer: what goes through it", head, rows)


def _of_sessions(port: int) -> list[str]:
    """Whether LISTEN, locks of a session, and names of statements do what they shall."""
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        one.execute("LISTEN bench")
        # whoever has a connection for themselves is still on the one that listens; this takes another in between
        with other.transaction():
            other.execute("SELECT 1")
            one.execute("SELECT 1")
        other.execute("NOTIFY bench")
        heard = any(True for _ in one.notifies(timeout=1, stop_after=1))
        one.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        row = other.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,)).fetchone()
        kept_out = row is not None and not row[0]
        one.execute("SELECT pg_advisory_unlock_all()")
    return [
        "yes" if one else "no" for one in (heard, kept_out, _mixed_up(f"postgresql://postgres@127.0.0.1:{port}/fresh"))
    ]


def _mixed_up(url: str) -> bool:
    """Whether a connection may run a statement that another has prepared under the same name.

    Names are counted by connection. Here are two of PostgreSQL's, and on each another statement has the first name.
    """
    with psycopg.connect(url, autocommit=True) as one, psycopg.connect(url, autocommit=True) as other:
        with one.transaction():
            one.execute("SELECT 1 + %s::integer", (0,), prepare=True)
            other.execute("SELECT 2 + %s::integer", (0,), prepare=True)
        got = set()
        with psycopg.connect(url, autocommit=True) as third:
            for _ in range(2):
                got.add(other.execute("SELECT 2 + %s::integer", (0,)).fetchone())
                # now this one has what was free first
                with third.transaction():
                    third.execute("SELECT 0")
                    got.add(other.execute("SELECT 2 + %s::integer", (0,)).fetchone())
        return got != {(2,)}
