"""What a deployment logs: real processes, loggers of the INI's own at the lowest level, and all that is told twice."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys

import pytest
import requests
from sqlalchemy import create_engine, select

from canary import search
from conftest import STAGE
from customer_orders.masking import masked
from customer_orders.tables import Base
from serving import BIN, ROOT, serving, wait_for

INI = """
[app:main]
use = egg:customer-orders
plugins = gossip
notifications.sms = gossip
notifications.dispatcher = worker
notifications.poll_interval = 1
notifications.pause_base = 1
notifications.pause_cap = 1
notifications.retry_base = 1
notifications.retry_cap = 1
notifications.template.order_placed = Dear {{ customer.username }} of {{ customer.reference }}
auth.default_role = admin

[server:main]
use = egg:customer-orders#waitress
listen = 127.0.0.1:6543

[loggers]
keys = root, gossip

[handlers]
keys = console, plain

[formatters]
keys = own

[logger_root]
level = DEBUG
handlers = console

[logger_gossip]
level = DEBUG
handlers = plain
qualname = gossip

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = own

[handler_plain]
class = StreamHandler
args = (sys.stdout,)

[formatter_own]
format = %(asctime)s %(name)s %(message)s
"""


@pytest.fixture(params=["pserve", "serve"])
def deployment(tmp_path, new_database, database_kind, request):
    """A server of that INI, started: by pserve, and by what is for production."""
    ini = tmp_path / "gossip.ini"
    ini.write_text(INI)
    more = {
        # this checkout's code, and the plugin
        "PYTHONPATH": os.pathsep.join([STAGE, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "NOTIFICATIONS_REPORT_SECRETS": secrets.token_urlsafe(32),
    }
    with serving(tmp_path, new_database(database_kind), ini, **more) as server:
        if request.param == "serve":
            server.end()
            server.program = [str(BIN / "customer-orders"), "serve", "-c"]
            server.start()
        yield server


@pytest.fixture
def worker(deployment, tmp_path):
    """A worker beside it; it ends with the test at the latest."""
    with (tmp_path / "worker.log").open("wb") as log:
        command = [str(BIN / "customer-orders"), "worker", "-c", str(deployment.ini)]
        process = subprocess.Popen(command, env=deployment.environ, stdout=log, stderr=log)
    yield process
    if process.poll() is None:
        process.kill()
        process.wait(30)


def columns_that_say_why(url):
    engine = create_engine(url)
    with engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            for column in table.c:
                if column.name in ("reason", "error"):
                    yield from (f"{column}: {one}" for one in connection.scalars(select(column)) if one)
    engine.dispose()


@pytest.mark.processes
def test_what_server_and_worker_and_command_line_log_holds_nothing_of_it(deployment, worker, tmp_path):
    digits = f"2547{secrets.randbelow(10**8):08d}"
    values = {
        f"+{digits}": "phone",
        (token := deployment.token("admin")): "access token",
        (key := deployment.command("api-keys", "new", "--name", "till", "--role", "clerk")): "API key",
        (code := f"4/{secrets.token_urlsafe(24)}"): "code",
        (state := secrets.token_urlsafe(32)): "state",
        (refresh := secrets.token_urlsafe(32)): "refresh token",
        (secret := deployment.environ["NOTIFICATIONS_REPORT_SECRETS"]): "report secret",
    }
    national = f"0{digits[3:]}"
    url, reports = deployment.url, f"/api/notifications/reports/gossip/{secret}"
    logged = tmp_path / "logged.txt"

    def call(method, path, *, bearer=token, **more):
        headers = {"Authorization": f"Bearer {bearer}", **more.pop("headers", {})}
        return requests.request(method, f"{url}{path}", headers=headers, timeout=30, allow_redirects=False, **more)

    made = call("POST", "/api/customers/", json={"username": "Amina", "phone_number": national, "reference": state})
    assert made.status_code == 201
    customer = f"/api/customers/{made.json()['id']}"
    orders = [
        call("POST", "/api/orders/", json={"item": f"For {national}", "amount": 1, "customer": made.json()["id"]})
        for _ in range(6)
    ]
    assert {one.status_code for one in orders} == {201}
    document = requests.get(f"{url}/api/api.json", timeout=30).json()
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            if (path, method) == ("/customers/{id}", "delete"):
                continue
            real = f"/api{path}".replace("{provider}", "gossip").replace("{id}", customer.rpartition("/")[2])
            # as it should be called, and as nobody should
            for bearer in (token, key, f"{token}x"):
                query = {"phone": f"+{digits}", "code": code, "state": state}
                body = {"refresh": refresh, "phone_number": f"+{digits}", "username": "Amina", "reason": digits}
                call(method, real, bearer=bearer, params=query, json=body)
    # a sign-in that goes as far as the provider
    browser = requests.Session()
    begun = browser.get(f"{url}/api/gossip-oauth2/redirect/", timeout=30, allow_redirects=False)
    values[(own := begun.headers["Location"].rpartition("=")[2])] = "state of the sign-in"
    query = {"code": code, "state": own}
    assert browser.get(f"{url}/api/gossip-oauth2/callback/", params=query, timeout=30).status_code == 403
    # what a view with a defect says
    said = {"phone": f"+{digits}", "refresh": refresh, "code": code, "key": key, "note": f"{national} {reports}"}
    assert call("POST", "/api/talk/", json=said, params={"code": code, "phone": digits}).status_code == 500
    told = {"reference": "unknown", "status": "failed", "reason": f"+{digits} is off", "to": f"+{digits}"}
    assert call("POST", reports, json=told).status_code == 200
    assert call("POST", reports, json={"bad": digits}).status_code == 400
    assert call("POST", f"{reports}/more", json=told).status_code == 404

    def columns():
        return list(columns_that_say_why(deployment.environ["SQLALCHEMY_URL"]))

    # the worker was refused in every way
    wait_for(lambda: {"notifier_error: RuntimeError"} <= {one.partition(": ")[2] for one in columns()}, "every failure")
    for path in ("/livez", "/readyz", "/metrics", "/api/stats"):
        with logged.open("a") as kept:
            kept.write(call("GET", path).text)
    done = subprocess.run(
        [str(BIN / "customer-orders"), "prune", "-c", str(deployment.ini)],
        env={**deployment.environ, "SQLALCHEMY_URL": f"postgresql+psycopg://u:{secret}@127.0.0.1:1/x"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    with logged.open("a") as kept:
        kept.write("\n".join([*columns(), done.stdout, done.stderr]))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert deployment.end() == 0
    logs = [deployment.log, tmp_path / "worker.log", logged]
    text = "\n".join(log.read_text() for log in logs)
    # it was told, again and again
    assert f"+2547...{digits[-3:]}" in deployment.log.read_text()
    assert f"sending to +2547...{digits[-3:]}" in (tmp_path / "worker.log").read_text()
    assert "the notifier gossip is defective" in (tmp_path / "worker.log").read_text()
    for word in ("unexpected error", "access token refused", "sign-in by gossip refused", "Traceback", "Authorization"):
        assert word in text
    assert search(values, logs) == []


@pytest.mark.processes
def test_the_error_that_ends_a_process_is_masked_too(tmp_path):
    number = f"+2547{secrets.randbelow(10**8):08d}"
    program = f"import customer_orders\nraise ValueError('{number} ' + {number!r})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert f"ValueError: +2547...{number[-3:]} +2547...{number[-3:]}" in done.stderr
    assert number not in done.stderr


NUMBER = "+254713812939"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (f"to {NUMBER}.", "to +2547...939."),
        ("phone=%2B254713812939&x", "phone=+2547...939&x"),
        ("+254 713 812-939", "+2547...939"),
        ("254713812939 or 0713812939", "2547...939 or 0713...939"),
        ("254713812939: refused", "2547...939: refused"),
        ('{"to":254713812939,"by":0713812939}', '{"to":2547...939,"by":0713...939}'),
        ("Authorization: Bearer abc.def", "Authorization: {hidden}"),
        ("{'Authorization': 'Basic YWJj', 'X': 1}", "{'Authorization': '{hidden}', 'X': 1}"),
        ("GET /callback?state=abc&code=4/0Ab&x=1", "GET /callback?state={hidden}&code={hidden}&x=1"),
        ("Cookie: a=b; c=d\nX: 1", "Cookie: {hidden}\nX: 1"),
        ("apiKey: abc", "apiKey: {hidden}"),
        ('{"refresh": "abc", "name": "Jane"}', '{"refresh": "{hidden}", "name": "Jane"}'),
        ("key co_12_abc-DEF_1 of", "key co_12_{hidden} of"),
        ("/api/notifications/reports/x/s3cret/y HTTP", "/api/notifications/reports/x/{secret} HTTP"),
        ("//api/Notifications//reports//x//s3cret HTTP", "//api/Notifications//reports//x//{secret} HTTP"),
        ("/api/notifications/report%73/x/s3cret HTTP", "/api/notifications/report%{hidden} HTTP"),
        ("/api/notification%73/reports/x/s3cret?a=b", "/api/notification%{hidden}?a=b"),
        ("/api/notifications/reports/x%2fs3cret HTTP", "/api/notifications/reports/x%{hidden} HTTP"),
        ("postgresql+psycopg://jane:s3cret@db/orders", "postgresql+psycopg://jane:{hidden}@db/orders"),
        ("postgresql+psycopg://jane:s3/cr?et@db/orders", "postgresql+psycopg://jane:{hidden}@db/orders"),
        ("0713-812-939, 0713 812 939, 0713.812.939", "0713...939, 0713...939, 0713...939"),
    ],
)
def test_what_is_masked(said, told):
    assert masked(said) == told


@pytest.mark.parametrize(
    "said",
    [
        "notification 12345 by africastalking, attempt 1: accepted, so sent",
        "2026-01-31 08:00:00,123 +0300 2026-01-31T08:00:00.000000Z",
        "unexpected error (request 5f1c0e2d9b7a4c3e8f6a1b2c3d4e5f60)",
        "Serving on http://127.0.0.1:6543, ATXid_8823d6e3f6d24d4aa0c3c4f6, exit code 1, 100000000 bytes",
        "GET http://127.0.0.1:6543/mail?to=jane@shop.example, 01-12-2026 08:00, 06-08 and 05 07",
        '{"issuer":"https://localhost:8443","contact":"jane@shop.example"} http://[::1]:6543/mail?to=jane@shop.example',
        "010 2026-01-31 08:00, 012 4194304, 024 000000 bytes, /api/orders/?q=a%20b",
        "test_a_request_whose_client_went_away_is_logged_without_the_secret",
    ],
)
def test_what_is_left_as_it_is(said):
    assert masked(said) == said


def test_every_word_of_a_record_is_masked_and_none_is_lost(caplog):
    import logging

    log = logging.getLogger("anybody's")
    # arguments that do not fit are a defect, and no reason to write them to stderr as they are
    log.warning("%d to %s", NUMBER, NUMBER)
    try:
        raise ValueError(json.dumps({"to": NUMBER}))
    except ValueError:
        log.exception("failed", stack_info=True)
    assert NUMBER not in caplog.text
    assert caplog.text.count("+2547...939") == 3
    assert "Traceback" in caplog.text
    assert "Stack (most recent call last)" in caplog.text
