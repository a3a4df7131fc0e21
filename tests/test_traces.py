"""Traces and logs of a deployment: real processes, a real receiver of OTLP, every line and every span they send."""

from __future__ import annotations

import gzip
import json
import os
import re
import secrets
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from canary import needle
from conftest import STAGE
from inis import JSON, write_ini
from loopback import hang, provider
from serving import BIN, ROOT, Server, unmeasured, wait_for

pytestmark = pytest.mark.processes

SETTINGS = {
    "plugins": "scripted gossip",
    "notifications.sms": "scripted",
    "notifications.dispatcher": "worker",
    "notifications.poll_interval": "1",
    "notifications.template.order_placed": "Dear {{ customer.username }}: {{ order.item }}",
    "server.workers": "2",
}

# W3C Trace Context, section 3.2, of a caller who traces
TRACE, PARENT = secrets.token_hex(16), secrets.token_hex(8)
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


def headers_of(request):
    return {name.lower(): value for name, value in request.headers.items()}


def spans_of(asked):
    """The spans that a receiver was sent, as plain data."""
    for request in asked:
        assert headers_of(request)["content-type"] == "application/x-protobuf"
        told = ExportTraceServiceRequest.FromString(gzip.decompress(request.body))
        for resource in told.resource_spans:
            of = {one.key: one.value.string_value for one in resource.resource.attributes}
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                yield SimpleNamespace(
                    name=span.name,
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    links=[one.span_id.hex() for one in span.links],
                    attributes={one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
                    failed=span.status.code == Status.StatusCode.STATUS_CODE_ERROR,
                    says=span.status.message + "".join(event.name for event in span.events),
                    service=of["service.name"],
                    took=span.end_time_unix_nano - span.start_time_unix_nano,
                )


def lines_of(log):
    """The lines of a log; each is a JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


class Deployment:
    """A server and a worker, started, with all that they were asked, logged and sent."""

    def __init__(self, folder, url, endpoint):
        self.ini, self.secret = folder / "shop.ini", secrets.token_urlsafe(32)
        write_ini(self.ini, SETTINGS, logs=JSON)
        (folder / "jwt.key").write_text(secrets.token_urlsafe(64))
        environ = {
            "SQLALCHEMY_URL": url,
            "JWT_PRIVATE_KEY_FILE": str(folder / "jwt.key"),
            "PYTHONPATH": os.pathsep.join([STAGE, *filter(None, [os.environ.get("PYTHONPATH")])]),
            "NOTIFICATIONS_REPORT_SECRETS": self.secret,
            "TRACING_ENDPOINT": endpoint,
            "TRACING_HEADERS": f"x-secret={self.secret[:20]}%2C",
        }
        self.server = Server(self.ini, environ, folder / "server.log", production=True)
        self.log, self.worker_log = self.server.log, folder / "worker.log"
        self.worker = None
        # how often each was asked for, as access lines have it
        self.asked = []

    def start(self):
        self.server.start()
        with self.worker_log.open("wb") as log:
            command = [str(BIN / "customer-orders"), "worker", "-c", str(self.ini)]
            self.worker = subprocess.Popen(command, env=self.server.environ, stdout=log, stderr=log)
        self.token = self.server.token("admin")

    def end(self):
        self.worker.send_signal(signal.SIGTERM)
        assert self.server.end() == 0
        assert self.worker.wait(60) == 0

    def call(self, method, path, status, **more):
        name = f"request-{len(self.asked)}"
        headers = {"Authorization": f"Bearer {self.token}", "X-Request-Id": name, **more.pop("headers", {})}
        url = f"{self.server.url}{path}"
        answer = requests.request(method, url, headers=headers, timeout=60, allow_redirects=False, **more)
        assert answer.status_code == status, answer.text
        self.asked.append(answer.headers["X-Request-Id"])
        return answer


@pytest.fixture(scope="module")
def life(tmp_path_factory, new_database, database_kind):
    """The whole life of a deployment: all that it was sent, logged and told, once it has ended."""
    folder = tmp_path_factory.mktemp("life")
    digits, word = f"2547{secrets.randbelow(10**8):08d}", f"Zawadi{secrets.token_hex(4)}"
    with provider() as receiver:
        shop = Deployment(folder, new_database(database_kind, migrated=True), receiver.url)
        shop.start()
        try:
            body = {"username": word, "phone_number": f"+{digits}"}
            customer = shop.call("POST", "/api/customers/", 201, json=body).json()["id"]
            order = {"item": f"For {word} at +{digits}", "amount": 1, "customer": customer}
            traced = {"traceparent": TRACEPARENT, "tracestate": f"shop={word}", "baggage": f"phone={digits}"}
            message = shop.call("POST", "/api/orders/", 201, json=order, headers=traced).json()["notification"]["id"]
            shop.placed = shop.asked[-1]
            url = f"/api/notifications/{message}"
            sent = wait_for(
                lambda: (told := shop.call("GET", url, 200).json())["status"] == "sent" and told, "it is sent", 60
            )
            told = [{"reference": sent["reference"], "status": "delivered", "to": f"+{digits}"}]
            reports = f"/api/notifications/reports/scripted/{shop.secret}"
            shop.call("POST", reports, 200, json=told)
            shop.reported = shop.asked[-1]
            assert shop.call("GET", url, 200).json()["request_id"] == shop.placed
            # what goes wrong
            shop.call("GET", f"/api/customers/{digits}", 404)
            shop.call("GET", f"/nowhere/{word}", 404, headers={"Authorization": ""})
            shop.call("POST", "/api/customers/", 400, data=b"{", headers={"Content-Type": "application/json"})
            shop.call("DELETE", "/livez", 405)
            shop.call("GET", f"/api/orders/?phone=%2B{digits}&code={shop.secret}", 400)
            shop.call("GET", "/api/orders/", 401, headers={"Authorization": f"Bearer {shop.token}x"})
            shop.call("POST", "/api/talk/", 500, json={"phone": f"+{digits}", "said": f"two\nlines {word}"})
            shop.failed = shop.asked[-1]
            # a body that is sent while it is read
            shop.call("GET", "/static/session.js", 200)
            # ids that are none
            shop.call("GET", "/livez", 200, headers={"X-Request-Id": digits})
            shop.call("BREW", "/livez", 405)
        finally:
            shop.end()
        shop.message, shop.customer = message, customer
        shop.bodies = [gzip.decompress(one.body) for one in receiver.asked]
        shop.receiver, shop.spans = receiver, list(spans_of(receiver.asked))
    shop.values = {
        "number": needle(f"+{digits}"),
        "token": needle(shop.token),
        "secret": needle(shop.secret),
        "word": word,
    }
    shop.lines = lines_of(shop.log)
    shop.worker_lines = lines_of(shop.worker_log)
    return shop


# -- traces -------------------------------------------------------------------------------------------------------


def test_one_order_is_one_trace_from_the_caller_to_the_delivery(life):
    ours = [span for span in life.spans if span.trace == TRACE]
    (placed,) = [span for span in ours if span.kind == "server"]
    assert (placed.name, placed.parent) == ("POST /api/orders/", PARENT)
    assert placed.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/orders/",
        "http.response.status_code": 201,
        "url.scheme": "http",
        "customer_orders.request_id": life.placed,
    }
    (sent,) = [span for span in ours if span.name == "send sms"]
    assert (sent.kind, sent.parent, sent.failed) == ("client", placed.id, False)
    assert sent.attributes == {
        "customer_orders.notification": life.message,
        "customer_orders.attempt": 1,
        "customer_orders.channel": "sms",
        "customer_orders.notifier": "scripted",
        "customer_orders.outcome": "accepted",
    }
    (heard,) = [span for span in ours if span.name == "report sms"]
    (told,) = [span for span in life.spans if span.attributes.get("customer_orders.request_id") == life.reported]
    assert told.name == "POST /api/notifications/reports/{notifier}/{secret}"
    assert (heard.kind, heard.parent, heard.links, told.trace == TRACE) == ("consumer", placed.id, [told.id], False)
    assert heard.attributes == {
        "customer_orders.notification": life.message,
        "customer_orders.notifier": "scripted",
        "customer_orders.status": "delivered",
    }
    assert {span.service for span in life.spans} == {"customer-orders"}


def test_statements_are_told_without_what_they_were_given(life, database_kind):
    (placed,) = [span for span in life.spans if span.name == "POST /api/orders/"]
    statements = [span for span in life.spans if span.parent == placed.id and "db.query.text" in span.attributes]
    (inserted,) = [one for one in statements if "INSERT INTO orders" in one.attributes["db.query.text"]]
    assert (inserted.name, inserted.kind, inserted.trace) == ("INSERT", "client", TRACE)
    assert inserted.attributes["db.system.name"] == database_kind
    assert inserted.took > 0
    # the worker's own looks are of no trace
    assert [span for span in life.spans if not span.parent and span.kind != "server"] == []


def test_every_request_has_one_span_and_what_failed_says_so(life):
    told = [span.attributes.get("customer_orders.request_id") for span in life.spans if span.kind == "server"]
    assert [told.count(name) for name in life.asked] == [1] * len(life.asked)
    failed = [span for span in life.spans if span.failed]
    assert [(one.name, one.attributes["error.type"]) for one in failed] == [("POST /api/talk/", "500")]
    assert {span.name for span in life.spans if span.kind == "server"} >= {"GET", "_OTHER /livez", "DELETE /livez"}


def test_no_span_holds_anything_personal_or_secret(life):
    assert len(life.spans) > 20
    assert all(span.says == "" for span in life.spans)
    for body in life.bodies:
        found = [what for what, value in life.values.items() if value.encode() in body]
        assert found == []
    # the receiver alone is told its own
    assert {headers_of(one)["x-secret"] for one in life.receiver.asked} == {f"{life.secret[:20]},"}
    assert {one.path for one in life.receiver.asked} == {"/v1/traces"}


# -- logs ---------------------------------------------------------------------------------------------------------

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def access(lines):
    return [line for line in lines if line["logger"] == "customer_orders.access"]


def test_every_line_says_when_where_and_what(life):
    # both came up and went down, and told it
    said = " ".join(line["message"] for line in life.lines)
    assert "Started worker-1" in said
    assert "Shutting down" in said
    assert "The worker is delivering." in [line["message"] for line in life.worker_lines]
    for line in life.lines + life.worker_lines:
        assert list(line)[:4] == ["timestamp", "level", "logger", "message"]
        assert TIMESTAMP.fullmatch(line["timestamp"])
        assert "\n" not in line["message"]
        assert not {"about", "args", "msg", "taskName"} & line.keys()


def test_each_request_has_one_access_line(life):
    told = {}
    for line in access(life.lines):
        told.setdefault(line["request_id"], []).append(line)
    assert [len(told[name]) for name in life.asked] == [1] * len(life.asked)
    # that of the last but one was a number, which is no id
    *names, numbered, _ = life.asked
    assert {name.partition("-")[0] for name in names} == {"request"}
    assert re.fullmatch("[0-9a-f]{32}", numbered)
    assert [line["route"] for line in told[numbered]] == ["/livez"]
    placed = dict(told[life.placed][0])
    assert placed.pop("duration_ms") > 0
    assert TIMESTAMP.fullmatch(placed.pop("timestamp"))
    assert re.fullmatch("[0-9a-f]{16}", placed.pop("span_id"))
    assert re.fullmatch(r"POST /api/orders/ 201 in [0-9.]+ ms by user:1", placed.pop("message"))
    assert placed == {
        "level": "INFO",
        "logger": "customer_orders.access",
        "method": "POST",
        "route": "/api/orders/",
        "status": 201,
        "principal": "user:1",
        "request_id": life.placed,
        "trace_id": TRACE,
    }
    every = [(line["method"], line.get("route"), line["status"], line.get("principal")) for line in access(life.lines)]
    assert {
        ("GET", "/api/customers/{id}", 404, "user:1"),
        ("GET", None, 404, None),
        ("POST", "/api/customers/", 400, "user:1"),
        ("DELETE", "/livez", 405, None),
        ("GET", "/api/orders/", 401, None),
        ("POST", "/api/talk/", 500, None),
        ("POST", "/api/notifications/reports/{notifier}/{secret}", 200, "system"),
        ("GET", "/static/*subpath", 200, None),
        ("_OTHER", "/livez", 405, None),
    } <= set(every)


def test_what_is_logged_meanwhile_says_of_which_request_it_is(life):
    (error,) = [line for line in life.lines if line["level"] == "ERROR"]
    assert (error["request_id"], error["route"]) == (life.failed, "/api/talk/")
    assert error["exception"].startswith("Traceback")
    assert "RuntimeError" in error["exception"]
    assert "principal" not in error
    # nor does a thread go on with it
    assert [line for line in life.lines if line["logger"] == "_granian" and "request_id" in line] == []


def test_a_message_is_followed_by_the_id_of_its_request(life):
    (sent,) = [line for line in life.worker_lines if "accepted, so sent" in line["message"]]
    assert (sent["request_id"], sent["trace_id"]) == (life.placed, TRACE)
    assert (sent["notification"], sent["attempt"]) == (life.message, 1)
    (reported,) = [line for line in life.lines if "reported delivered" in line["message"]]
    assert (reported["notification"], reported["request_id"]) == (life.message, life.reported)


def test_no_line_holds_anything_personal_or_secret(life):
    # a word that somebody chose may be in what a defect says, a number or a secret never
    for what in ("number", "token", "secret"):
        assert life.values[what] not in life.log.read_text() + life.worker_log.read_text(), what


# -- switched off, or nobody there --------------------------------------------------------------------------------

OFF = """
import sys, threading
from webtest import TestApp
from customer_orders import main
app = main({}, **{"app.public_url": "http://127.0.0.1", "sqlalchemy.url": "sqlite:///unused.sqlite",
    "jwt.private_key": sys.argv[1], "plugins": "scripted", "notifications.dispatcher": "worker"})
TestApp(app).get("/livez", headers={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
# redis has metrics of its own, and imports what it finds for those
parts = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "google.protobuf", "customer_orders.tracing.otlp")
print([name for name in sys.modules if name in parts])
print([one.name for one in threading.enumerate() if "Otel" in one.name])
"""


def test_switched_off_nothing_of_it_is_imported_or_runs(tmp_path):
    environ = {**unmeasured(), "PYTHONPATH": os.pathsep.join([STAGE, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", OFF, secrets.token_urlsafe(64)],
        env={**environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stdout == "[]\n[]\n", done.stderr


@pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)
def test_a_receiver_that_says_nothing_keeps_nobody_waiting(tmp_path, new_database, database_kind):
    with provider() as receiver:
        receiver.answer = lambda asked: hang
        shop = Deployment(tmp_path, new_database(database_kind, migrated=True), receiver.url)
        shop.start()
        body = {"username": "Amina", "phone_number": "0713 812 939"}
        customer = shop.call("POST", "/api/customers/", 201, json=body).json()["id"]
        order = shop.call("POST", "/api/orders/", 201, json={"item": "Tea", "amount": 1, "customer": customer}).json()
        url = f"/api/orders/{order['id']}"
        wait_for(lambda: shop.call("GET", url, 200).json()["notification"]["status"] == "sent", "it is sent", 60)
        wait_for(lambda: receiver.asked, "the receiver was asked", 60)
        shop.end()
        # and that it was not heard is in the log, as every line is
        assert any("Failed to export" in line["message"] for line in lines_of(shop.log))
    assert str(ROOT) not in shop.worker_log.read_text()
