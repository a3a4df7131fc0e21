"""The proxy of docker-compose.yml as a real process: its own file, with ports and time-outs by its variables."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import requests

from serving import ROOT, free_port, wait_for

CONFIGURATION = ROOT / "deploy" / "haproxy.cfg"
# Debian has it where the path of people other than root does not lead
HAPROXY = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")

LINE = re.compile(r'(\S+) \S+ "(\w*)" "(\S*)" (-?\d+) \d+ bytes (\d+) ms .* (\S+) retries (\S+) .. request (\S+)')


@dataclass(frozen=True)
class Logged:
    """A request as the proxy logs it.

    :param server: ``<NOSRV>`` where none got it.
    :param retries: ``0`` where the first server that was tried took it in; ``+`` before it: another one did.
    """

    begun: datetime
    ended: datetime
    method: str
    path: str
    status: int
    server: str
    retries: str
    request_id: str

    @property
    def took(self) -> float:
        """Seconds from its first byte to the last of the answer."""
        return (self.ended - self.begun).total_seconds()


class Proxy:
    """HAProxy on a port of loopback.

    :param servers: ``host:port`` of each; one that is left out is where nobody listens.
    """

    def __init__(self, folder: Path, *servers: str, **environ: str) -> None:
        first, second = [*servers, f"127.0.0.1:{free_port()}"][:2]
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self.log = folder / "proxy.log"
        self.environ = {
            "PROXY_LISTEN": f"127.0.0.1:{port}",
            "PROXY_SERVER_1": first,
            "PROXY_SERVER_2": second,
            **environ,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, ready: int) -> None:
        """Start the process and wait until it has looked at its servers, and ``ready`` of two are."""
        assert HAPROXY
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [HAPROXY, "-db", "-f", str(CONFIGURATION)], env=self.environ, stdout=log, stderr=subprocess.DEVNULL
            )
        wait_for(self.answers, f"the proxy answers\n{self.log.read_text()}")
        wait_for(lambda: len(self.down()) == 2 - ready, f"{ready} servers are ready")

    def answers(self) -> bool:
        """Whether the proxy itself answers."""
        assert self.process is not None
        assert self.process.poll() is None, f"the proxy ended:\n{self.log.read_text()}"
        try:
            return requests.get(f"{self.url}/proxyz", timeout=5).ok
        except requests.ConnectionError:
            return False

    def down(self) -> set[str]:
        """The servers that it sends nothing to, by what it last said of each."""
        said = dict(re.findall(r"Server servers/(\S+) is (UP|DOWN)", self.log.read_text()))
        return {name for name, state in said.items() if state == "DOWN"}

    def logged(self) -> list[Logged]:
        """The requests so far."""
        found = []
        for ended, method, path, status, took, server, retries, request_id in LINE.findall(self.log.read_text()):
            at = datetime.fromisoformat(ended)
            begun = at - timedelta(milliseconds=int(took))
            found.append(Logged(begun, at, method, path, int(status), server, retries, request_id))
        return found

    def end(self) -> None:
        """End the process, and wait."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None


@contextmanager
def proxying(folder: Path, *servers: str, ready: int | None = None, **environ: str) -> Iterator[Proxy]:
    """A proxy that runs until the end of the block. ``ready``: of the servers, so many are; all unless told."""
    if not HAPROXY and not os.environ.get("REQUIRE_PROXY"):
        pytest.skip("no haproxy on this machine (Debian: apt-get install haproxy)")
    proxy = Proxy(folder, *servers, **environ)
    proxy.start(len(servers) if ready is None else ready)
    try:
        yield proxy
    finally:
        proxy.end()
