"""What the simulator does for each number: its answers, its reports, the page and the docs."""

from __future__ import annotations

import json
import queue
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from webtest import TestApp

from customer_orders.interfaces import ChannelDown, Message, OptOut, Receipt, Rejected, Report, Unavailable, Uncertain
from customer_orders_devtools import simulator
from customer_orders_devtools.outcomes import OUTCOMES, outcome_for
from customer_orders_devtools.reporter import Reporter
from customer_orders_devtools.simulator import Simulator
from loopback import Answer, provider

NUMBERS = {outcome.name: outcome.number or "+254700000001" for outcome in OUTCOMES}
DOCS = Path(__file__).parents[3] / "docs" / "simulator.md"

# What one send after the other comes to; those not named are accepted.
ANSWERS = {
    "rejected": [Rejected, Rejected],
    "blocklisted": [Rejected, Rejected],
    "unavailable": [Unavailable] * 12,
    "throttled": [Unavailable, Receipt, Unavailable, Receipt],
    "flaky": [Unavailable, Unavailable, Receipt, Unavailable],
    "channel-down": [ChannelDown, ChannelDown, Receipt],
    "time-out": [Uncertain],
    "reply-lost": [Uncertain],
    "defective": [RuntimeError],
}
# What is reported of it; those not named: delivered, once.
REPORTS = {
    **{name: [] for name in ("rejected", "blocklisted", "unavailable", "time-out", "defective", "unreported")},
    "delivered": ["sent", "delivered"],
    "undelivered": ["failed"],
    "expired": ["expired"],
    "duplicate": ["delivered", "delivered", "delivered"],
    "reordered": ["delivered", "sent"],
    "contradicted": ["expired", "failed", "delivered"],
    "stop": ["delivered", "opt_out"],
}


def message(name):
    return Message(key=f"notification-{name}", channel="sms", to=NUMBERS[name], text="Thank you!")


def answer_of(phone, name):
    """What the simulator answers: a receipt, or what it raises."""
    try:
        return phone.send(message(name))
    except Exception as error:  # noqa: BLE001
        return error


@pytest.fixture
def posts():
    """A server on loopback that takes reports: its ``queue`` has what was posted."""
    with provider() as server:
        server.queue = queue.Queue()

        def answer(asked):
            server.queue.put(asked)
            return Answer(status=204)

        server.answer = answer
        yield server


@pytest.fixture
def reported(posts, inbox):
    """A simulator that reports without waiting, and all that it reported so far: ``phone, told = reported``."""
    phone = Simulator(str(inbox), timeout=0, reporter=Reporter(f"{posts.url}/reports/devtools/secret", pace=0))

    def told():
        # reports keep their order, so behind this one there are none
        phone.reporter.later(0, {"status": "the end"})
        return list(iter(lambda: json.loads(posts.queue.get(timeout=30).body), {"status": "the end"}))

    return phone, told


def test_every_number_is_one_that_a_customer_may_have_and_has_one_outcome(browser):
    form = browser.get("/login/").click("Sign in with any e-mail").follow().form
    tokens = form.submit().follow(headers={"Accept": "application/json"}).json["tokens"]
    browser.authorization = ("Bearer", tokens["access"])
    for name, number in NUMBERS.items():
        body = {"username": name, "phone_number": number}
        assert browser.post_json("/api/customers/", body, status=201).json["phone_number"] == number
        assert outcome_for(number).name == name
    assert len(set(NUMBERS.values())) == len({outcome.name for outcome in OUTCOMES}) == len(OUTCOMES)


def test_every_number_is_of_the_range_that_belongs_to_nobody():
    assert all(re.fullmatch(r"\+447700900\d{3}", outcome.number) for outcome in OUTCOMES if outcome.number)


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_answered(inbox, name):
    phone = Simulator(str(inbox), timeout=0)
    expected = ANSWERS.get(name, [Receipt])
    answers = [answer_of(phone, name) for _ in expected]
    assert [type(answer) for answer in answers] == expected
    for answer in answers:
        if isinstance(answer, Exception):
            assert str(answer).startswith("simulated: ")
            assert message(name).text not in str(answer)
    shown = phone.inbox()[::-1]
    assert [line["outcome"] for line in shown] == [name] * len(expected)
    assert [line["arrived"] for line in shown] == [kind is Receipt or name == "reply-lost" for kind in expected]


def test_refusals_say_what_the_core_has_to_know(inbox):
    phone = Simulator(str(inbox))
    assert not answer_of(phone, "rejected").suppressed
    assert answer_of(phone, "blocklisted").suppressed
    assert answer_of(phone, "throttled").retry_after == 5
    assert answer_of(phone, "unavailable").retry_after is None


def test_each_message_fails_as_often_as_its_number_says_in_any_process(inbox):
    for _ in range(2):
        # a simulator for each send, as if each were another process
        assert isinstance(answer_of(Simulator(str(inbox)), "flaky"), Unavailable)
        with inbox.open("ab") as file:
            file.write(b'{"torn\n')
    other = Message(key="another", channel="sms", to=NUMBERS["flaky"], text="Thank you!")
    with pytest.raises(Unavailable):
        Simulator(str(inbox)).send(other)
    assert isinstance(answer_of(Simulator(str(inbox)), "flaky"), Receipt)


def test_a_time_out_takes_its_time(inbox, monkeypatch):
    waits = []
    monkeypatch.setattr(simulator, "time", SimpleNamespace(sleep=waits.append))
    phone = Simulator(str(inbox), timeout=7)
    assert isinstance(answer_of(phone, "time-out"), Uncertain)
    assert waits == [7]
    answer_of(phone, "reply-lost")
    assert waits == [7]


@pytest.mark.parametrize("name", NUMBERS)
def test_what_is_reported(reported, posts, name):
    phone, told = reported
    expected = ANSWERS.get(name, [Receipt])
    until_accepted = expected.index(Receipt) + 1 if Receipt in expected else len(expected)
    answers = [answer_of(phone, name) for _ in range(until_accepted)]
    assert [report.get("status", "opt_out") for report in told()] == REPORTS.get(name, ["delivered"])
    assert all(asked.path == "/reports/devtools/secret" for asked in posts.asked)
    assert all(asked.headers["Content-Type"] == "application/json" for asked in posts.asked)
    for asked in posts.asked:
        report = json.loads(asked.body)
        if "reference" in report:
            (parsed,) = phone.parse(asked.headers, asked.body)
            assert parsed == Report(**report)
            assert parsed.to == NUMBERS[name]
            assert (parsed.reason is not None) == (parsed.status == "failed")
            if isinstance(answers[-1], Receipt):
                assert parsed.reference == answers[-1].reference


def test_one_who_answers_stop_is_named(reported):
    phone, told = reported
    answer_of(phone, "stop")
    report = told()[-1]
    assert report == {"opt_out": NUMBERS["stop"]}
    assert phone.parse({}, json.dumps(report).encode()) == [OptOut(NUMBERS["stop"])]


def test_an_early_report_comes_before_the_answer(posts, inbox):
    phone = Simulator(str(inbox), reporter=Reporter(f"{posts.url}/reports"))
    receipt = phone.send(message("early"))
    assert json.loads(posts.queue.get_nowait().body)["reference"] == receipt.reference


def test_without_an_address_nothing_is_reported(inbox):
    phone = Simulator(str(inbox), timeout=0)
    assert phone.reporter is None
    assert [type(answer_of(phone, name)) for name in ("accepted", "early")] == [Receipt, Receipt]


GOOD = {"reference": "simulated-1", "status": "delivered", "reason": None, "to": "+254700000001"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"\xff",
        b"[]",
        b"5",
        b"{}",
        b"[" * 4000,
        b'{"reference": ' * 300,
        b"9" * 4000,
        json.dumps({name: GOOD[name] for name in ("reference", "status")}).encode(),
        json.dumps({**GOOD, "more": 1}).encode(),
        json.dumps([GOOD]).encode(),
        json.dumps({**GOOD, "status": "read"}).encode(),
        json.dumps({**GOOD, "status": []}).encode(),
        json.dumps({**GOOD, "reference": 5}).encode(),
        b'{"opt_out": "0700000001"}',
        b'{"opt_out": ["+254700000001"]}',
        b'{"opt_out": null}',
    ],
)
def test_what_is_no_report_is_refused(inbox, body):
    with pytest.raises(ValueError, match=r"."):
        Simulator(str(inbox)).parse({}, body)


@given(
    st.binary(max_size=4096) | st.recursive(st.none() | st.text(), st.lists).map(lambda told: json.dumps(told).encode())
)
@example(b"NaN")
def test_nothing_but_a_value_error_is_raised(body):
    with pytest.raises(ValueError, match=r"."):
        Simulator("nowhere").parse({}, body)


# -- the whole way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("accepted", "sent", None),
        ("rejected", "failed", "simulated: no such number"),
        ("blocklisted", "suppressed", "simulated: the recipient blocks all senders"),
        ("unavailable", "queued", "simulated: the gateway is busy"),
        ("throttled", "queued", "simulated: too many requests"),
        ("channel-down", "queued", "simulated: the account has no credit"),
        ("reply-lost", "unknown", "simulated: the answer is lost"),
        ("defective", "unknown", "notifier_error: RuntimeError"),
    ],
)
def test_an_order_tells_what_the_number_stands_for(app, browser, name, status, reason):
    form = browser.get("/login/").click("Sign in with any e-mail").follow().form
    tokens = form.submit().follow(headers={"Accept": "application/json"}).json["tokens"]
    browser.authorization = ("Bearer", tokens["access"])
    body = {"username": name, "phone_number": NUMBERS[name]}
    customer = browser.post_json("/api/customers/", body, status=201).json["id"]
    order = browser.post_json("/api/orders/", {"item": "Tea", "amount": 1, "customer": customer}, status=201).json
    for due in app.registry.outbox.due(10):
        app.registry.outbox.deliver(due)
    told = browser.get(f"/api/orders/{order['id']}").json["notification"]
    assert (told["status"], told["reason"]) == (status, reason)


# -- the page and the docs ----------------------------------------------------------------------------------------


def test_the_page_shows_what_was_done_and_what_can_be(app, browser: TestApp):
    phone = app.registry.plugins.notifiers["devtools"]
    phone.timeout = 0
    for name in ("accepted", "rejected", "reply-lost"):
        answer_of(phone, name)
    page = browser.get("/devtools/inbox")
    footers = re.findall(r"UTC</time>(.*?)</footer>", page.text, re.DOTALL)
    assert footers == [" · reply-lost", " · rejected · did not arrive", ""]
    cells = [[cell.text for cell in row.find_all("td")] for row in page.html.find("table").find("tbody").find_all("tr")]
    assert cells == [list(row) for row in table()]


def table():
    """The table as people read it."""
    return [(one.number or "any other", one.name, one.does, one.becomes) for one in OUTCOMES]


def test_the_docs_have_the_same_table():
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", DOCS.read_text(), re.MULTILINE)
    assert rows[1:] == table()
