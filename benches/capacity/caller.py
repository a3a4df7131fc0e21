"""The process that asks. It imports nothing of the application, and so begins at once."""

from __future__ import annotations

import http.client
import itertools
import json
import random
import threading
import time
from typing import Any

# Seconds before anything is counted.
WARM = 1

# Of each request, the seconds that it took, and its status; 0 for no answer at all.
Answers = list[tuple[float, int]]


def call(port: int, token: str, mix: dict[str, int], seconds: float, ids: int, callers: int, told: Any) -> None:
    """Ask from so many connections, each as fast as it is answered.

    Sends when it begins to count, when it ends, and then all that was answered in between.

    :param ids: orders that there are; customers are a tenth as many.
    """
    choose = random.Random(1)  # noqa: S311 - the same requests at each run
    kinds = list(itertools.chain.from_iterable([kind] * share for kind, share in mix.items()))
    counting, over = threading.Event(), threading.Event()
    answers: list[Answers] = [[] for _ in range(callers)]

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
