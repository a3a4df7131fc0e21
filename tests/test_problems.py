"""Every 4xx and 5xx of every path is a problem; every answer carries a request id."""

from __future__ import annotations

import io
import json
import logging
import re
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

import factories
from contract import MEMBERS, assert_problem, signed_in
from customer_orders.api.catalogue import PROBLEMS
from customer_orders.events import OrderPlaced

JANE = {"username": "Jane", "phone_number": "0713812939"}
LIMIT = 65536


@pytest.mark.parametrize(
    "path",
    ["/api/nothing", "/api/nothing/", "/nothing", "/api/customers/1/orders", "/index.php", "/.env", "/static/nothing"],
)
def test_an_unknown_path_is_not_found(client, anonymous, path):
    for caller in (client, anonymous):
        for method in ("GET", "POST", "PUT", "DELETE"):
            assert_problem(caller.request(path, method=method, status="*"), 404, "not-found")
        assert caller.head(path, status=404).body == b""


@pytest.mark.parametrize(
    ("path", "method", "allowed"),
    [
        ("/api/customers/", "DELETE", {"GET", "HEAD", "POST"}),
        ("/api/customers", "PATCH", {"GET", "HEAD", "POST"}),
        ("/api/customers/1", "POST", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("/api/orders/", "PUT", {"GET", "HEAD", "POST"}),
        ("/api/orders/1", "POST", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("/api/orders/1", "TRACE", {"GET", "HEAD", "PUT", "PATCH", "DELETE"}),
        ("/api/token/refresh", "GET", {"POST"}),
        ("/api/token/revoke/", "DELETE", {"POST"}),
        ("/api/me", "POST", {"GET", "HEAD"}),
        ("/api/api.json", "POST", {"GET", "HEAD"}),
        ("/login/", "POST", {"GET", "HEAD"}),
        ("/", "POST", {"GET", "HEAD"}),
    ],
)
def test_another_method_is_told_which_are_possible(client, anonymous, path, method, allowed):
    for caller in (client, anonymous):
        refused = caller.request(path, method=method, status="*")
        assert_problem(refused, 405, "method-not-allowed")
        assert set(refused.headers["Allow"].split(", ")) == {*allowed, "OPTIONS"}


def test_who_is_not_signed_in_is_told_how(anonymous):
    refused = anonymous.get("/api/customers/", status="*")
    assert_problem(refused, 401, "unauthenticated")
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")


def test_who_lacks_the_permission_is_refused(client, token_for):
    made = factories.customer(client)
    client.authorization = ("Bearer", token_for("viewer"))
    assert_problem(client.delete(f"/api/customers/{made['id']}", status="*"), 403, "forbidden")


def test_a_body_of_the_largest_size_is_taken(client):
    body = json.dumps(JANE).encode().ljust(LIMIT)
    made = client.post("/api/customers/", body, content_type="application/json", status=201)
    assert made.json["username"] == "Jane"


@pytest.mark.parametrize("size", [LIMIT + 1, 10 * LIMIT])
def test_an_announced_body_that_is_too_large_is_refused(client, anonymous, size):
    body = json.dumps(JANE).encode().ljust(size)
    for caller in (client, anonymous):
        for path in ("/api/customers/", "/api/token/refresh", "/nothing"):
            refused = caller.post(path, body, content_type="application/json", status="*")
            problem = assert_problem(refused, 413, "too-large")
            assert str(LIMIT) in problem["detail"]
    assert client.get("/api/customers/").json == []


class Endless(io.RawIOBase):
    """A chunked body that never ends, as a server hands it over; counts what is taken of it."""

    taken = 0

    def read(self, size=-1):
        assert size >= 0, "the whole of an endless body was asked for"
        self.taken += size
        return b" " * size


def chunked(client, stream):
    """POST a body whose length was not announced."""
    environ = {"wsgi.input": stream, "wsgi.input_terminated": True, "CONTENT_TYPE": "application/json"}
    request = client.RequestClass.blank("/api/customers/", method="POST", environ=environ)
    request.environ.pop("CONTENT_LENGTH", None)
    request.headers["Authorization"] = f"Bearer {client.authorization[1]}"
    return client.do_request(request, status="*", expect_errors=True)


def test_a_chunked_body_is_taken(client):
    made = chunked(client, io.BytesIO(json.dumps(JANE).encode().ljust(LIMIT)))
    assert made.status_int == 201
    assert client.get("/api/customers/").json == [made.json]


def test_a_chunked_body_that_is_too_large_is_refused_without_reading_it_all(client):
    assert_problem(chunked(client, io.BytesIO(b" " * (LIMIT + 1))), 413, "too-large")
    endless = Endless()
    assert_problem(chunked(client, endless), 413, "too-large")
    assert endless.taken <= LIMIT + 1


def test_the_type_of_each_problem_leads_to_its_explanation(anonymous):
    for code, problem in PROBLEMS.items():
        page = anonymous.get(f"/problems/{code}", status=200)
        assert page.content_type == "text/html"
        told = " ".join(page.html.get_text().split())
        for sentence in (problem.title, problem.meaning, problem.remedy):
            assert " ".join(sentence.replace("`", "").split()) in told
        status, _, example = page.html.find("pre").get_text().partition("{")
        assert f"HTTP status {problem.status}" in status
        assert ("Retry-After" in status) == (problem.retry_after is not None)
        shown = json.loads("{" + example)
        assert shown["type"] == f"http://127.0.0.1:6543/problems/{code}"
        assert set(shown) >= MEMBERS
    assert_problem(anonymous.get("/problems/nothing", status="*"), 404, "not-found")


def test_every_problem_is_listed(anonymous):
    links = [link["href"] for link in anonymous.get("/problems/").html.find("table").find_all("a")]
    assert links == [f"/problems/{code}" for code in PROBLEMS]


def test_a_page_leads_to_the_operations_of_which_the_document_tells_the_problem(anonymous):
    document = anonymous.get("/api/api.json").json
    told = {
        f"/#/{operation['tags'][0]}/{operation['operationId']}": operation["responses"]
        for item in document["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    }
    for code, problem in PROBLEMS.items():
        page = anonymous.get(f"/problems/{code}").html
        linked = {link["href"] for link in page.find_all("a") if link["href"].startswith("/#/")}
        answering = {
            url
            for url, responses in told.items()
            if f"](/problems/{code})" in responses.get(str(problem.status), {"description": ""})["description"]
        }
        assert linked == (set() if "Any path may answer so" in page.get_text() else answering), code
    # of one that a single operation may answer with, and of one that nobody's path escapes
    assert [link for link in told if link.endswith("customers_delete")] == [
        link["href"]
        for link in anonymous.get("/problems/customer-has-orders").html.find_all("a")
        if link["href"].startswith("/#/")
    ]
    assert "Any path may answer so" in anonymous.get("/problems/internal-error").text


def test_a_browser_gets_a_problem_of_a_page_as_a_page(anonymous):
    refused = anonymous.get("/problems/nothing", headers={"Accept": "text/html,*/*;q=0.8"}, status=404)
    assert refused.content_type == "text/html"
    assert refused.headers["X-Request-Id"] in refused.html.get_text()
    assert_problem(anonymous.get("/api/me", headers={"Accept": "text/html"}, status="*"), 401, "unauthenticated")


def test_a_body_that_is_not_json_is_refused(client):
    assert_problem(client.post("/api/customers/", JANE, status="*"), 415, "unsupported-media-type")


def test_a_defect_is_logged_under_its_request_id_and_not_told(client, registry, caplog):
    customer = factories.customer(client)["id"]
    body = {"item": "Tea", "amount": 1, "customer": customer}

    def defect(session, event):
        raise RuntimeError("the inside story")

    listeners = registry.database.listeners[OrderPlaced]
    listeners.append(defect)
    try:
        with caplog.at_level(logging.ERROR):
            failed = client.post_json("/api/orders/", body, headers={"X-Request-Id": "case-7"}, status="*")
    finally:
        listeners.remove(defect)
    assert_problem(failed, 500, "internal-error")
    assert failed.json["request_id"] == "case-7"
    for leak in ("inside story", "RuntimeError", "Traceback", ".py"):
        assert leak not in failed.text
    (record,) = [record for record in caplog.records if "case-7" in record.getMessage()]
    assert "the inside story" in str(record.exc_info[1])
    assert client.get("/api/orders/").json == [], "what failed was rolled back"
    client.post_json("/api/orders/", body, status=201)


def test_a_database_that_is_away_is_a_503(make_app, database_kind):
    app = make_app(database_kind)
    client = signed_in(app)
    factories.customer(client)
    database = app.registry.database
    database.engine.dispose()
    if database_kind == "sqlite":
        file = Path(database.url.database)
        file.rename(file.with_suffix(".aside"))
        file.mkdir()
    else:
        admin = create_engine(database.url.set(database="postgres"), isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(text(f'DROP DATABASE "{database.url.database}" WITH (FORCE)'))
        admin.dispose()
    secret = Path(database.url.database).name
    for answer in (
        client.get("/api/customers/", status="*"),
        client.get("/api/customers/1", status="*"),
        client.post_json("/api/customers/", JANE, status="*"),
    ):
        assert_problem(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert secret not in answer.text
    assert client.get("/api/api.json").status_int == 200


def test_a_request_that_gets_no_connection_is_a_503(make_app, database_kind):
    app = make_app(
        database_kind,
        **{"sqlalchemy.pool_size": "1", "sqlalchemy.max_overflow": "0", "sqlalchemy.pool_timeout": "1"},
    )
    client = signed_in(app)
    with app.registry.database.engine.connect():
        assert_problem(client.get("/api/customers/", status="*"), 503, "unavailable")
    assert client.get("/api/customers/").json == []


SANE = ["case-7", "550e8400-e29b-41d4-a716-446655440000", "a", "0" * 64, "A.b_C-9"]
INSANE = [
    "254713812939",
    "0713812939",
    "0713-812-939",
    "order-254713812939",
    "713812939-1",
    "co_12_abc",
    "",
    " ",
    "a b",
    "x" * 65,
    "a\tb",
    "é",
    "<script>",
    "a;b",
    '"',
    "a\x7f",
    "😀".encode().decode("latin-1"),
]


@pytest.mark.parametrize("path", ["/api/customers/", "/api/nothing", "/livez", "/", "/static/style.css"])
def test_every_answer_carries_a_request_id(client, path):
    answers = [client.get(path, status="*") for _ in range(2)]
    # reading a file's answer closes the file
    assert all(answer.body for answer in answers)
    first, second = (answer.headers["X-Request-Id"] for answer in answers)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second


def test_a_sane_request_id_is_kept_and_another_replaced(client):
    for given in SANE:
        for path in ("/api/customers/", "/api/nothing", "/api/%ff"):
            answer = client.get(path, headers={"X-Request-Id": given}, status="*")
            assert answer.headers["X-Request-Id"] == given
    for given in INSANE:
        answer = client.get("/api/customers/", headers={"X-Request-Id": given})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["X-Request-Id"])


# SQLite has one writer at a time: it knows no serialization failure.
on_postgresql = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)


@on_postgresql
@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.parametrize("when", ["statement", "commit"])
def test_a_serialization_failure_is_tried_again_and_is_no_error(client, failing, caplog, when, state):
    tried = failing(when, 2, state)
    with caplog.at_level(logging.ERROR):
        made = client.post_json("/api/customers/", JANE, headers={"X-Request-Id": "case-7"}, status=201)
    assert tried() == 3
    assert caplog.records == []
    assert made.headers["X-Request-Id"] == "case-7"
    assert client.get("/api/customers/").json == [made.json]


@on_postgresql
def test_a_new_request_id_is_kept_over_every_try(client, failing, caplog):
    tried = failing("commit", 1000)
    with caplog.at_level(logging.ERROR):
        failed = client.post_json("/api/customers/", JANE, status="*")
    assert_problem(failed, 503, "unavailable")
    assert tried() == 3
    assert [record for record in caplog.records if failed.json["request_id"] in record.getMessage()]
    assert client.get("/api/customers/").json == []


@on_postgresql
def test_another_failure_at_commit_is_not_tried_again(client, failing):
    tried = failing("commit", 1000, "P0001")
    assert_problem(client.post_json("/api/customers/", JANE, status="*"), 500, "internal-error")
    assert tried() == 1
