"""Posting reports: when, where to, and again."""

from __future__ import annotations

import json
import queue
import threading
from types import SimpleNamespace

import pytest
from pyramid.exceptions import ConfigurationError

from customer_orders_devtools import reporter
from customer_orders_devtools.reporter import Reporter
from loopback import Answer, hang, provider, reset, unused_url

PATH = "/api/notifications/reports/devtools/not-to-be-told"


@pytest.fixture
def server():
    """Takes reports; ``taken`` has what was posted; ``answers`` how to answer the first of them."""
    with provider() as server:
        server.taken, server.answers = queue.Queue(), []

        def answer(asked):
            server.taken.put(json.loads(asked.body))
            return server.answers.pop(0) if server.answers else Answer(status=204)

        server.answer = answer
        yield server


def test_what_is_due_first_is_posted_first(server):
    later = Reporter(server.url + PATH)
    later.later(3600, {"number": 1})
    for number in (2, 3, 4):
        later.later(0, {"number": number})
    assert [server.taken.get(timeout=30)["number"] for _ in range(3)] == [2, 3, 4]
    assert server.taken.empty()


def test_a_report_waits_for_its_time(server, monkeypatch):
    now, waits = [0.0], queue.Queue()
    monkeypatch.setattr(reporter, "time", SimpleNamespace(monotonic=lambda: now[0]))
    later = Reporter(server.url + PATH, pace=2)
    wait = later._changed.wait
    monkeypatch.setattr(later._changed, "wait", lambda seconds: waits.put(seconds) or wait(seconds))
    later.later(100, {"number": 1})
    assert waits.get(timeout=30) == 200
    now[0] = 200.0
    # wakes the thread, which looks at the clock again
    later.later(0, {"number": 2})
    assert [server.taken.get(timeout=30)["number"] for _ in range(2)] == [1, 2]


@pytest.mark.parametrize("answer", [Answer(status=500), Answer(status=404), Answer(status=302), reset, b"nonsense"])
def test_what_is_not_taken_is_posted_again_but_not_for_ever(server, caplog, answer):
    if isinstance(answer, bytes):
        answer = nonsense
    later = Reporter(server.url + PATH, pace=0)
    server.answers = [answer] * 4
    later.later(0, {"number": 1})
    assert [server.taken.get(timeout=30) for _ in range(4)] == [{"number": 1}] * 4
    later.later(0, {"number": 2})
    assert server.taken.get(timeout=30) == {"number": 2}
    assert len(caplog.records) == 4
    assert "simulated report" in caplog.text
    assert "not-to-be-told" not in caplog.text


def nonsense(handler):
    """An answer that is no HTTP."""
    handler.wfile.write(b"nonsense\r\n\r\n")
    handler.close_connection = True


def test_a_server_that_is_away_is_told_in_the_log_without_its_address(caplog):
    assert not Reporter(unused_url() + PATH).post({"number": 1})
    assert [record.getMessage() for record in caplog.records] == [
        "a simulated report was not taken: ConnectionRefusedError"
    ]


def test_a_server_that_hangs_holds_nobody_for_ever(server, monkeypatch):
    monkeypatch.setattr(reporter, "TIMEOUT", 0.05)
    server.answers = [hang]
    assert not Reporter(server.url + PATH).post({"number": 1})


def reporters():
    return [thread for thread in threading.enumerate() if thread.name == "devtools-reports"]


def test_no_thread_runs_before_there_is_something_to_report(make_app, server):
    before = len(reporters())
    app = make_app(**{"devtools.report_url": server.url + PATH})
    assert len(reporters()) == before
    phone = app.registry.plugins.notifiers["devtools"]
    for number in range(2):
        phone.reporter.later(0, {"number": number})
        assert server.taken.get(timeout=30) == {"number": number}
    (mine,) = reporters()[before:]
    assert mine.daemon


@pytest.mark.parametrize("host", ["127.0.0.1:6543", "localhost:6543", "[::1]:6543", "LOCALHOST", "127.0.0.1"])
def test_reports_go_to_this_machine(make_app, host):
    app = make_app(**{"devtools.report_url": f"http://{host}{PATH}"})
    assert app.registry.plugins.notifiers["devtools"].reporter
    assert "not-to-be-told" not in app.registry.sections["devtools"]["report_url"].display()


@pytest.mark.parametrize(
    "url",
    [
        f"http://orders.example.com{PATH}",
        f"http://192.168.1.7:6543{PATH}",
        f"http://0.0.0.0:6543{PATH}",
        f"http://localhost.evil.example{PATH}",
        f"http://127.0.0.1@evil.example{PATH}",
        f"http://evil.example#localhost{PATH}",
        f"http://127.0.0.1:99999{PATH}",
        f"http://127.0.0.1:0{PATH}",
        f"https://127.0.0.1:6543{PATH}",
        f"127.0.0.1:6543{PATH}",
        "http://127.0.0.1:6543",
        f"http://127.0.0.1:6543{PATH} HTTP/1.1",
        f"http://127.0.0.1:6543{PATH}\r\nX: y",
        f"http://127.0.0.1:6543{PATH}é",
        f"http://[::1{PATH}",
    ],
)
def test_reports_go_nowhere_else(make_app, url):
    with pytest.raises(ConfigurationError) as refused:
        make_app(**{"devtools.report_url": url})
    told = str(refused.value)
    assert "devtools.report_url (variable DEVTOOLS_REPORT_URL or DEVTOOLS_REPORT_URL_FILE): is no address of" in told
    assert "http://127.0.0.1:6543/api/notifications/reports/devtools/" in told
    assert "not-to-be-told" not in told


def test_blank_nothing_is_reported(make_app):
    assert make_app(**{"devtools.report_url": " "}).registry.plugins.notifiers["devtools"].reporter is None


@pytest.mark.parametrize(("written", "timeout"), [("", 5), ("20", 20)])
def test_how_long_a_time_out_takes(make_app, written, timeout):
    assert make_app(**{"devtools.timeout": written}).registry.plugins.notifiers["devtools"].timeout == timeout


@pytest.mark.parametrize("written", ["0", "-1", "x", "3601"])
def test_a_time_out_that_is_none_is_refused(make_app, written):
    with pytest.raises(ConfigurationError, match=r"devtools\.timeout"):
        make_app(**{"devtools.timeout": written})
