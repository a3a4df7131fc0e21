"""A provider on loopback, in a process of its own, that answers as Africa's Talking does: at once, or after a while."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PHONE = "+254700000001"
# Africa's Talking's; the tests' own notifier takes all of it for the reference.
BODY = json.dumps(
    {
        "SMSMessageData": {
            "Message": "Sent to 1/1",
            "Recipients": [
                {"statusCode": 101, "number": PHONE, "status": "Success", "cost": "KES 0.8000", "messageId": "ATXid_1"}
            ],
        }
    }
).encode()
ANSWER = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)


async def _serve(port: int, latency: float) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if latency:
                    await asyncio.sleep(latency)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port, backlog=256)
    async with server:
        await server.serve_forever()


def _run(port: int, latency: float) -> None:
    asyncio.run(_serve(port, latency))


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Return once somebody listens there, within ten seconds."""
    for _ in range(200):
        with suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), 5):
            return
        time.sleep(0.05)
    raise SystemExit(f"nobody listens on {port}")


@contextmanager
def answering(latency: float) -> Iterator[str]:
    """The address of one that takes ``latency`` seconds, until the end of the block."""
    port = free_port()
    process = multiprocessing.get_context("spawn").Process(target=_run, args=(port, latency), daemon=True)
    process.start()
    try:
        wait_for(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join(10)
