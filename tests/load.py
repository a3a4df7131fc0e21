"""Callers for tests: threads that read and write through whatever is in front, and keep what became of each request."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import requests

CUSTOMERS = "/api/customers/"


@dataclass(frozen=True)
class Asked:
    """What became of a request.

    :param status: of the answer, or the name of the exception that came instead.
    :param name: of the customer that it was to add; None: it read.
    :param ended: by :func:`time.monotonic`, as ``begun``.
    """

    status: int | str
    name: str | None
    begun: float
    ended: float


class Load:
    """Callers, half of them on connections that are kept, the others with a new one for each request.

    Each reads, then adds a customer. Two of four have some of it take ``slow`` seconds (see stage/unhurried.py). What
    was answered with 503 is asked again with the same Idempotency-Key, as a careful client does.
    """

    def __init__(self, url: str, headers: dict[str, str], callers: int, slow: float = 0) -> None:
        self.url, self.headers, self.slow = url, headers, slow
        self.asked: list[Asked] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(number,)) for number in range(callers)]

    def _call(self, number: int) -> None:
        with requests.Session() as kept:
            turn = 0
            caller = kept if number % 2 else requests
            # the machine is not theirs alone
            while not self._stopping.wait(0.05):
                turn += 1
                take = str(self.slow if number % 4 < 2 and turn % 2 else 0)
                self._ask(caller, "GET", None, {"X-Take": take})
                name = secrets.token_hex(8)
                told = {"X-Take": take, "Idempotency-Key": name}
                while self._ask(caller, "POST", name, told) == 503:
                    self._stopping.wait(0.05)

    def _ask(self, caller: object, method: str, name: str | None, headers: dict[str, str]) -> int | str:
        body = None if name is None else {"username": name, "phone_number": "0713 812 939"}
        begun = time.monotonic()
        try:
            status: int | str = caller.request(  # type: ignore[attr-defined]
                method,
                f"{self.url}{CUSTOMERS}?limit=1" if name is None else f"{self.url}{CUSTOMERS}",
                json=body,
                headers={**self.headers, **headers},
                timeout=60,
            ).status_code
        except requests.RequestException as error:
            status = repr(error)
        self.asked.append(Asked(status, name, begun, time.monotonic()))
        return status

    def added(self) -> list[str]:
        """The customers that are there, by what was answered."""
        return sorted(asked.name for asked in self.asked if asked.status == 201 and asked.name)

    def statuses(self) -> Counter[int | str]:
        """How often each was answered."""
        return Counter(asked.status for asked in self.asked)

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, once all has been answered."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(90)


@contextmanager
def calling(url: str, headers: dict[str, str], *, callers: int, slow: float = 0) -> Iterator[Load]:
    """Callers until the end of the block."""
    load = Load(url, headers, callers, slow)
    load.start()
    try:
        yield load
    finally:
        load.stop()
