"""What is logged and traced of a request, in this process: once, whatever happens to it, and in one line."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import threading
from datetime import UTC, datetime

import pytest
from webtest import TestApp

import factories
from conftest import settings_for
from customer_orders import main
from customer_orders.logs import JsonFormatter, about
from customer_orders.notifications.models import Notification
from customer_orders.sections import tracing as tracing_section
from customer_orders.settings import InvalidSettings
from loopback import provider
from serving import ROOT
from test_traces import spans_of

NUMBER = "+254713812939"
ACCESS = "customer_orders.access"


@pytest.fixture
def logged(caplog):
    """All that is logged, as JSON has it: ``logged(logger)``."""
    caplog.set_level(logging.INFO)
    formatter = JsonFormatter()

    def told(logger):
        return [json.loads(formatter.format(record)) for record in caplog.records if record.name == logger]

    return told


# -- access lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
@pytest.mark.parametrize(("times", "status"), [(2, 201), (3, 503)])
def test_a_request_that_is_tried_again_is_told_once(client, failing, logged, times, status):
    attempts = failing("commit", times=times)
    client.extra_environ["HTTP_X_REQUEST_ID"] = "till-7"
    client.post_json("/api/customers/", {"username": "Amina", "phone_number": NUMBER}, status=status)
    assert attempts() == 3
    (line,) = logged(ACCESS)
    told = (line["status"], line["route"], line["request_id"])
    assert told == (status, "/api/customers/", "till-7")
    assert re.fullmatch("user:[0-9]+", line["principal"])


def test_an_api_key_is_told_by_its_id(client, anonymous, logged):
    made = client.post_json("/api/api-keys/", {"name": "Till", "role": "viewer"}).json
    anonymous.get("/api/orders/", headers={"Authorization": f"Bearer {made['key']}"})
    assert [line["principal"] for line in logged(ACCESS)][1:] == [f"api_key:{made['id']}"]


def break_off(app):
    """A request whose body cannot be read, before any view could answer."""

    class Broken:
        def read(self, *_):
            raise OSError(f"{NUMBER} went")

    environ = {"wsgi.input": Broken(), "CONTENT_LENGTH": "10"}
    with pytest.raises(OSError, match="went"):
        TestApp(app, lint=False).request("/api/customers/", method="POST", environ=environ)


def test_an_error_that_no_view_answers_is_told_and_goes_on(app, logged):
    break_off(app)
    (line,) = logged(ACCESS)
    assert (line["method"], line["status"]) == ("POST", 500)
    assert "route" not in line


def test_a_body_that_is_sent_while_it_is_read_is_told_when_it_is_over(app, logged):
    environ = TestApp(app).get("/static/session.js").request.environ
    (whole,) = logged(ACCESS)
    assert (whole["status"], whole["route"]) == (200, "/static/*subpath")
    # a client that goes before the end
    body = app({**environ, "REQUEST_METHOD": "GET"}, lambda *_: None)
    assert len(logged(ACCESS)) == 1
    body.close()
    assert len(logged(ACCESS)) == 2
    body.close()
    assert len(logged(ACCESS)) == 2


def test_of_one_request_nothing_is_said_of_the_next(app, logged):
    log = logging.getLogger("anybody's")
    TestApp(app).get("/livez")
    log.warning("between")
    with about(lambda: {"request_id": "outer"}):
        thread = threading.Thread(target=log.warning, args=["of another thread"])
        thread.start()
        thread.join()
        with pytest.raises(ValueError, match="x"), about(lambda: {"request_id": "inner"}):
            raise ValueError("x")
        log.warning("within")
    assert [line.get("request_id") for line in logged("anybody's")] == [None, None, "outer"]


# -- lines --------------------------------------------------------------------------------------------------------


def line(message, *args, exc_info=None, **extra):
    """A line of JSON, and what it holds."""
    record = logging.getLogger("shop").makeRecord("shop", logging.INFO, "", 1, message, args, exc_info, extra=extra)
    text = JsonFormatter(None, None, "%").format(record)
    assert "\n" not in text
    return json.loads(text)


def test_a_line_is_one_object_with_a_time_that_all_understand():
    told = line("sent %s", 3)
    assert list(told) == ["timestamp", "level", "logger", "message"]
    assert datetime.fromisoformat(told["timestamp"]).tzinfo == UTC
    assert (told["level"], told["logger"], told["message"]) == ("INFO", "shop", "sent 3")


@pytest.mark.parametrize("separator", ["\n", "\r\n", "\x0b", "\x1b[2J", "\x85", "\u2028", "\u2029", "\x00"])
def test_nothing_in_a_message_makes_a_second_line(separator):
    said = f'Amina{separator}{{"level": "ERROR", "message": "paid"}}'
    told = line("customer %s", said, note=said)
    assert told["level"] == "INFO"
    assert len(told["message"].splitlines()) == 1
    assert told["message"].startswith("customer Amina\\")
    # and so it is where an INI has lines for people
    plain = logging.Formatter("%(levelname)s %(message)s").format(logging.getLogRecordFactory()(
        "shop", logging.INFO, "", 1, "customer %s", (said,), None
    ))  # fmt: skip
    assert len(plain.splitlines()) == 1


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ({"phone": NUMBER}, {"phone": "+2547...939"}),
        ({"phone": 254713812939}, {"phone": "2547...939"}),
        ({"token": "abc"}, {"token": "{hidden}"}),
        ({"authorization": "Bearer abc.def"}, {"authorization": "{hidden}"}),
        ({"headers": {"Cookie": "a=b", "X": "1"}}, {"headers": "{'Cookie': '{hidden}', 'X': '1'}"}),
        ({"to": [NUMBER]}, {"to": "['+2547...939']"}),
        ({"count": 3, "ratio": 0.5, "good": True, "none": None}, {"count": 3, "ratio": 0.5, "good": True}),
        ({"big": 2**70, "half": "\udcff"}, {"big": str(2**70), "half": "\\udcff"}),
        # what is ours stays ours
        ({"level": "ERROR", "logger": "root"}, {"level": "INFO", "logger": "shop"}),
    ],
)
def test_what_comes_as_an_extra_is_masked(extra, told):
    found = line("it")
    assert {**found, **told} == {**line("it", **extra), "timestamp": found["timestamp"]}


def test_errors_are_masked_whoever_made_the_record():
    try:
        raise ValueError(json.dumps({"refresh": "abc", "to": NUMBER}))
    except ValueError as error:
        known = (type(error), error, error.__traceback__)
    # one that does not mask itself, as some libraries make
    record = logging.LogRecord("shop", logging.ERROR, "", 1, {"message": NUMBER}, (), known)
    text = JsonFormatter().format(record)
    told = json.loads(text)
    assert told["exception"].endswith('ValueError: {"refresh": "{hidden}", "to": "+2547...939"}')
    assert NUMBER not in text
    assert line({"message": NUMBER})["message"] == "{'message': '+2547...939'}"


LAST_WORDS = """
import logging, sys, threading, warnings
import customer_orders
from customer_orders.logs import JsonFormatter
handler = logging.StreamHandler()
handler.setFormatter(JsonFormatter())
logging.root.addHandler(handler)
def fail(): raise ValueError(sys.argv[1])
warnings.warn(f"careful with {sys.argv[1]}")
thread = threading.Thread(target=fail)
thread.start()
thread.join()
fail()
"""


@pytest.mark.processes
def test_what_python_itself_says_and_what_ends_a_thread_or_a_process_is_a_line_too():
    command = [sys.executable, "-c", LAST_WORDS, NUMBER]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    warned, *ended = map(json.loads, done.stderr.splitlines())
    assert "careful with +2547...939" in warned["message"]
    assert [one["level"] for one in ended] == ["CRITICAL", "CRITICAL"]
    assert all(one["exception"].endswith("ValueError: +2547...939") for one in ended)


# -- traces -------------------------------------------------------------------------------------------------------


@pytest.fixture
def traced(make_app, database_kind):
    """Makes an application that is traced, and has what it sent: ``traced(**settings)``, ``traced.spans()``."""
    with provider() as receiver:
        made = []

        def make(**settings):
            endpoint = {"tracing.endpoint": f"{receiver.url}/"}
            made.append(make_app(database_kind, **endpoint, **settings))
            return made[-1]

        def spans():
            for app in made:
                app.registry.tracing.stop()
            return list(spans_of(receiver.asked))

        make.spans = spans
        yield make
        spans()


def deliver(app):
    for due in app.registry.outbox.due(10):
        app.registry.outbox.deliver(due)


def test_what_is_sent_again_is_of_the_request_that_wanted_it(traced, client_of):
    app = traced()
    client, notifier = client_of(app), app.registry.plugins.notifiers["scripted"]
    notifier.script += [ValueError(f"defective at {NUMBER}")]
    placed = factories.order(client)["notification"]["id"]
    deliver(app)
    client.extra_environ["HTTP_X_REQUEST_ID"] = "again-1"
    resent = client.post(f"/api/notifications/{placed}/resend").json
    assert resent["request_id"] == "again-1"
    deliver(app)
    spans = traced.spans()
    first, second = (span for span in spans if span.name == "send sms")
    (order,) = (span for span in spans if span.name == "POST /api/orders/")
    (again,) = (span for span in spans if span.name == "POST /api/notifications/{id}/resend")
    assert (first.trace, first.parent, first.failed) == (order.trace, order.id, True)
    assert (first.attributes["error.type"], first.attributes["customer_orders.outcome"]) == ("error", "error")
    assert (second.trace, second.parent, second.attributes["customer_orders.attempt"]) == (again.trace, again.id, 2)
    assert order.trace != again.trace
    assert [span.says for span in spans if span.says] == []


def test_a_statement_that_fails_says_how_and_not_with_what(traced, client_of):
    app = traced()
    client = client_of(app)
    factories.customer(client, reference="A-1")
    client.post_json("/api/customers/", {"username": "B", "phone_number": NUMBER, "reference": "A-1"}, status=409)
    failed = [span for span in traced.spans() if span.failed]
    assert {span.name for span in failed} == {"INSERT"}
    assert all(span.attributes["error.type"] in ("IntegrityError", "UniqueViolation") for span in failed)
    assert all(NUMBER not in str(span.attributes) for span in failed)


def test_an_error_is_told_by_its_kind_and_not_by_what_it_says(traced):
    break_off(traced())
    (span,) = traced.spans()
    assert (span.name, span.failed, span.says) == ("POST", True, "")
    assert (span.attributes["error.type"], NUMBER in str(span.attributes)) == ("OSError", False)


@pytest.mark.parametrize(("flag", "sent"), [("00", False), ("01", True)])
def test_the_caller_decides_whether_a_trace_is_kept(traced, client_of, flag, sent):
    app = traced(**{"tracing.sample_ratio": "0" if sent else "1", "tracing.service_name": "shop"})
    client = client_of(app)
    client.extra_environ["HTTP_TRACEPARENT"] = f"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flag}"
    factories.order(client)
    deliver(app)
    with app.registry.database.session() as session:
        assert session.query(Notification).one().traceparent.endswith(f"-{flag}")
    spans = traced.spans()
    assert {span.service for span in spans} == ({"shop"} if sent else set())
    assert ("send sms" in {span.name for span in spans}) is sent


@pytest.mark.parametrize("given", ["", "00-0-0-00", "x" * 1000, "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_traceparent_that_is_none_begins_a_new_trace(traced, client_of, given):
    client = client_of(traced())
    client.extra_environ["HTTP_TRACEPARENT"] = given
    client.get("/api/orders/")
    (span,) = [span for span in traced.spans() if span.kind == "server"]
    assert (span.parent, len(span.trace)) == ("", 32)
    assert span.trace != "0" * 32


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (
            {"endpoint": "collector:4318"},
            "(variable TRACING_ENDPOINT or TRACING_ENDPOINT_FILE): write an",
        ),
        ({"endpoint": "http://jane@collector:4318"}, "secrets belong into tracing.headers"),
        ({"headers": "Bearer abc"}, "tracing.headers (variable TRACING_HEADERS or TRACING_HEADERS_FILE): write name="),
        ({"headers": "x-key=changeme"}, "looks like a placeholder"),
        ({"headers": "x-key=a%0Ab"}, "write name=value"),
        ({"sample_ratio": "2"}, "is '2'; write a number from 0 to 1"),
        ({"sample_ratio": "nan"}, "is 'nan'; write a number from 0 to 1"),
        ({"endpont": "http://127.0.0.1:4318"}, "Did you mean tracing.endpoint?"),
    ],
)
def test_settings_that_are_wrong_say_what_to_do(settings, says):
    with pytest.raises(InvalidSettings) as caught:
        main({}, **settings_for("sqlite:///unused.sqlite", **{f"tracing.{key}": one for key, one in settings.items()}))
    assert says in str(caught.value)
    # what may be a secret is not repeated
    assert not {"jane", "abc"} & set(re.findall("[a-z]+", str(caught.value)))


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100", ["nothing that this process does is traced"]),
        ("OTEL_SDK_DISABLED", "true", []),
    ],
)
def test_where_there_can_be_no_spans_all_else_is_done(traced, client_of, monkeypatch, logged, variable, value, said):
    monkeypatch.setenv(variable, value)
    app = traced()
    client = client_of(app)
    for traceparent in ({}, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}):
        client.get("/livez", headers=traceparent, status=200)
    placed = factories.order(client)["notification"]["id"]
    deliver(app)
    assert client.get(f"/api/notifications/{placed}").json["status"] == "sent"
    assert traced.spans() == []
    assert [line["message"] for line in logged("customer_orders.tracing.otlp")] == said


@pytest.mark.parametrize("missing", ["opentelemetry.exporter.none", "nothing.of.it"])
def test_what_is_configured_and_not_installed_is_told(monkeypatch, missing):
    monkeypatch.setattr(tracing_section, "EXTRA", missing)
    given = settings_for("sqlite:///unused.sqlite")
    assert main({}, **given)
    with pytest.raises(InvalidSettings, match=r"tracing.endpoint .*pip install 'customer-orders\[tracing\]'"):
        main({}, **given, **{"tracing.endpoint": "http://127.0.0.1:4318"})
