"""Lists: bounded, in pages, and both forms of every path."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from requests.utils import parse_header_links
from sqlalchemy import event, select

import factories
from contract import assert_problem
from customer_orders.customers.models import Customer
from customer_orders.customers.services import create_customer
from customer_orders.orders.models import Order

LISTS = [("/api/customers/", factories.customer), ("/api/orders/", factories.order)]


def pages(client, url, between=lambda: None):
    """The ids on each page, following ``Link`` from ``url``; ``between`` is called after each page."""
    found = []
    while url:
        answer = client.get(url)
        found.append([item["id"] for item in answer.json])
        url = following(answer)
        assert len(found) < 100, "the pages never end"
        between()
    return found


def following(answer, rel="next"):
    """The URL of the page that ``Link`` names so; None if it names none."""
    links = {link["rel"]: link["url"] for link in parse_header_links(answer.headers.get("Link", ""))}
    assert set(links) <= {"next", "prev", "first"}
    for url in links.values():
        assert re.match(r"http://127\.0\.0\.1:6543/api/[a-z]+/\?", url)
    return links.get(rel)


@pytest.mark.parametrize("url", ["/api/customers/", "/api/orders/"])
def test_an_empty_list_is_an_empty_array(client, url):
    answer = client.get(url)
    assert answer.json == []
    assert "Link" not in answer.headers


@pytest.mark.parametrize(("url", "make"), LISTS)
def test_pages_hold_everything_once_newest_first(client, url, make):
    ids = [make(client)["id"] for _ in range(7)][::-1]
    assert pages(client, f"{url}?limit=3") == [ids[:3], ids[3:6], ids[6:]]
    assert pages(client, f"{url}?limit=7") == [ids]
    assert pages(client, f"{url}?limit=1") == [[one] for one in ids]


@pytest.mark.parametrize(("url", "make"), LISTS)
def test_what_is_added_while_paging_moves_nothing(client, url, make):
    ids = [make(client)["id"] for _ in range(6)][::-1]
    seen = pages(client, f"{url}?limit=2", between=lambda: make(client))
    assert seen == [ids[:2], ids[2:4], ids[4:]]


def test_what_is_deleted_while_paging_moves_nothing(client):
    ids = [factories.customer(client)["id"] for _ in range(6)][::-1]
    first = client.get("/api/customers/?limit=2")
    client.delete(f"/api/customers/{ids[1]}")
    client.delete(f"/api/customers/{ids[2]}")
    assert pages(client, following(first)) == [ids[3:5], ids[5:]]


def test_a_list_is_bounded_without_being_asked(client, registry):
    with registry.database.transaction() as session:
        for _ in range(206):
            create_customer(session, {"username": "Jane", "phone_number": "+254713812939"})
    assert len(client.get("/api/customers/").json) == 50
    assert len(client.get("/api/customers/?limit=200").json) == 200
    assert [len(page) for page in pages(client, "/api/customers/")] == [50, 50, 50, 50, 6]
    assert [len(page) for page in pages(client, "/api/customers/?limit=200")] == [200, 6]


def test_a_page_of_orders_costs_the_same_statements_whatever_its_length(client, registry):
    for _ in range(5):
        factories.order(client)
    counts = []
    statements = []
    event.listen(
        registry.database.engine, "before_cursor_execute", record := lambda *given: statements.append(given[2])
    )
    try:
        for limit in (1, 5):
            statements.clear()
            assert len(client.get(f"/api/orders/?limit={limit}").json) == limit
            counts.append(len([statement for statement in statements if statement.startswith("SELECT")]))
    finally:
        event.remove(registry.database.engine, "before_cursor_execute", record)
    assert counts[0] == counts[1] > 0


def test_a_cursor_works_in_both_forms_of_the_path(client):
    ids = [factories.customer(client)["id"] for _ in range(3)][::-1]
    query = following(client.get("/api/customers/?limit=2")).partition("?")[2]
    assert [item["id"] for item in client.get(f"/api/customers?{query}").json] == ids[2:]
    assert following(client.get("/api/customers?limit=2")) == following(client.get("/api/customers/?limit=2"))


def test_absolute_urls_are_the_deployments_whatever_host_is_asked(client):
    elsewhere = {"Host": "elsewhere.example", "X-Forwarded-Host": "elsewhere.example", "X-Forwarded-Proto": "https"}
    body = {"username": "Jane", "phone_number": "0713812939"}
    for _ in range(2):
        made = client.post_json("/api/customers/", body, headers=elsewhere, status=201)
        assert made.headers["Location"] == f"http://127.0.0.1:6543/api/customers/{made.json['id']}"
    assert following(client.get("/api/customers/?limit=1", headers=elsewhere))


def test_strings_of_digits_with_leading_zeros_are_a_limit(client):
    factories.customer(client)
    assert len(client.get("/api/customers/?limit=0200").json) == 1


def test_both_slash_forms_answer_alike(client):
    placed = factories.order(client)
    for path in (
        "/api/customers/",
        "/api/orders/",
        f"/api/customers/{placed['customer']}/",
        f"/api/orders/{placed['id']}/",
        "/api/api.json/",
        "/api/me/",
        "/login/",
    ):
        with_slash, without = client.get(path, status=200), client.get(path[:-1], status=200)
        assert with_slash.body == without.body, path


def test_both_slash_forms_take_what_is_written(client):
    for path in ("/api/customers", "/api/customers/"):
        made = client.post_json(path, {"username": "Jane", "phone_number": "0713812939"}, status=201)
        assert made.headers["Location"] == f"http://127.0.0.1:6543/api/customers/{made.json['id']}"
        url = f"/api/customers/{made.json['id']}"
        assert client.patch_json(f"{url}/", {"username": "Ann"}).json["username"] == "Ann"
        body = {"username": "Eve", "phone_number": "0713812939"}
        assert client.put_json(f"{url}/", body).json["username"] == "Eve"
        client.delete(f"{url}/", status=204)
    for path in ("/api/token/revoke", "/api/token/revoke/"):
        client.post_json(path, {"refresh": "never-issued"}, status=204)


@pytest.mark.parametrize("path", ["/api/customers//", "/api//customers", "/api/customers/1//", "/api//"])
def test_more_slashes_are_another_path(client, path):
    assert_problem(client.get(path, status="*"), 404, "not-found")


# -- from page to page --------------------------------------------------------------------------------------------


def ids(answer):
    return [item["id"] for item in answer.json]


def walk(client, url, rel):
    """The answers from ``url`` on, following ``rel``."""
    answers = [client.get(url, status=200)]
    while url := following(answers[-1], rel):
        answers.append(client.get(url, status=200))
        assert len(answers) < 100, "the pages never end"
    return answers


def backward(client, url):
    """The ids on each page, following ``prev`` from ``url`` to the first page, whose ids come first here."""
    return [ids(answer) for answer in walk(client, url, "prev")][::-1]


def last_of(client, url):
    """The URL of the last page of a list that has several."""
    return [following(answer) for answer in walk(client, url, "next")][-2]


@pytest.mark.parametrize("limit", [1, 2, 3, 6])
@pytest.mark.parametrize(("url", "make"), LISTS)
def test_prev_leads_back_over_the_same_pages_to_the_first(client, url, make, limit):
    made = [make(client)["id"] for _ in range(7)][::-1]
    start = f"{url}?limit={limit}"
    there = pages(client, start)
    assert [one for page in there for one in page] == made
    assert backward(client, last_of(client, start)) == there


def test_only_where_there_is_another_page_links_lead_there(client):
    for _ in range(4):
        factories.customer(client)
    first = client.get("/api/customers/?limit=2")
    assert (following(first, "prev"), following(first, "first")) == (
        None,
        "http://127.0.0.1:6543/api/customers/?limit=2",
    )
    last = client.get(following(first))
    assert following(last) is None
    assert client.get(following(last, "first")).json == first.json
    again = client.get(following(last, "prev"))
    assert again.json == first.json
    assert following(again, "prev") is None
    assert client.get(following(again)).json == last.json
    # with all on one page
    assert "Link" not in client.get("/api/customers/?limit=4").headers


def test_what_came_since_is_on_a_page_before_the_first(client):
    made = [factories.customer(client)["id"] for _ in range(4)][::-1]
    second = following(client.get("/api/customers/?limit=2"))
    added = [factories.customer(client)["id"] for _ in range(3)][::-1]
    assert backward(client, second) == [added[:1], added[1:], made[:2], made[2:]]


@pytest.mark.parametrize("ordering", ["-id", "created_at", "-updated_at,id"])
def test_what_is_added_and_deleted_meanwhile_hides_and_doubles_nothing(client, ordering):
    stays = [factories.customer(client)["id"] for _ in range(12)]
    goes = stays[1::3]
    stays = [one for one in stays if one not in goes]
    ahead = ordering.startswith("-")

    def meanwhile():
        factories.customer(client)
        if goes:
            # from the end that is yet to be seen, and from the one that was
            client.delete(f"/api/customers/{goes.pop(0 if ahead else -1)}", status=204)

    url = f"/api/customers/?limit=2&ordering={ordering}"
    seen = [one for page in pages(client, url, between=meanwhile) for one in page]
    assert len(set(seen)) == len(seen)
    assert [one for one in seen if one in stays] == (stays[::-1] if ahead else stays)
    assert not goes
    goes += seen[3::3]
    stays = [one for one in stays if one not in goes]
    end, seen = last_of(client, url), []
    while end:
        answer = client.get(end)
        seen = ids(answer) + seen
        end = following(answer, "prev")
        meanwhile()
    assert len(set(seen)) == len(seen)
    assert [one for one in seen if one in stays] == (stays[::-1] if ahead else stays)


def test_a_page_begins_where_it_began_though_the_item_there_is_gone(client):
    made = [factories.customer(client)["id"] for _ in range(6)][::-1]
    second = client.get(following(client.get("/api/customers/?limit=2")))
    # what the links of the second page stand next to
    for gone in made[1:4]:
        client.delete(f"/api/customers/{gone}", status=204)
    assert ids(client.get(following(second))) == made[4:]
    assert ids(client.get(following(second, "prev"))) == made[:1]


# -- in which order -----------------------------------------------------------------------------------------------

START = datetime(2026, 1, 31, 8, tzinfo=UTC)

# Minutes after START at which a row was created and changed: many at the same moment, none in the order of the ids.
MINUTES = [(2, 5), (0, 5), (2, 5), (1, 6), (2, 3), (0, 3), (2, 6), (2, 5), (1, 5)]

ORDERINGS = {
    "id": [("id", False)],
    "-id": [("id", True)],
    "created_at": [("created_at", False), ("id", False)],
    "-created_at": [("created_at", True), ("id", True)],
    "updated_at": [("updated_at", False), ("id", False)],
    "-updated_at": [("updated_at", True), ("id", True)],
    "-created_at,id": [("created_at", True), ("id", False)],
    "created_at,-id": [("created_at", False), ("id", True)],
    "-updated_at,created_at": [("updated_at", True), ("created_at", False), ("id", False)],
    "updated_at,-created_at": [("updated_at", False), ("created_at", True), ("id", True)],
    "-updated_at,-created_at,id": [("updated_at", True), ("created_at", True), ("id", False)],
    "id,-created_at": [("id", False)],
}


@pytest.fixture
def filled(client, session):
    """Makes rows of MINUTES for the list at a URL, behind the application's back; tells them."""

    def make(url):
        if url == "/api/customers/":
            model, values = Customer, {"username": "Jane", "phone_number": "+254713812939", "sms_opt_out": False}
        else:
            customer = factories.customer(client)["id"]
            model, values = Order, {"customer_id": customer, "item": "Tea", "amount": 1, "currency": "KES"}
        for created, changed in MINUTES:
            moments = {
                "created_at": START + timedelta(minutes=created),
                "updated_at": START + timedelta(minutes=changed),
            }
            session.add(model(**values, extra={}, **moments))
            session.flush()
        session.commit()
        return list(session.scalars(select(model)))

    return make


@pytest.mark.parametrize("ordering", ORDERINGS)
@pytest.mark.parametrize("url", ["/api/customers/", "/api/orders/"])
def test_a_list_comes_in_the_order_that_is_asked_for(client, filled, url, ordering):
    rows = filled(url)
    for name, descends in reversed(ORDERINGS[ordering]):
        rows.sort(key=attrgetter(name), reverse=descends)
    wanted = [row.id for row in rows]
    start = f"{url}?ordering={ordering}"
    assert ids(client.get(start)) == wanted
    for limit in (1, 2, 4):
        there = pages(client, f"{start}&limit={limit}")
        assert there == [wanted[begin : begin + limit] for begin in range(0, len(wanted), limit)]
        assert backward(client, last_of(client, f"{start}&limit={limit}")) == there


def test_newest_first_is_the_order_unless_told(client, filled):
    filled("/api/orders/")
    assert client.get("/api/orders/").json == client.get("/api/orders/?ordering=-id").json


@pytest.mark.parametrize(
    "ordering",
    [
        "",
        "-",
        ",",
        "name",
        "amount",
        "metadata",
        "version",
        "ID",
        "--id",
        "id-",
        "%2Bid",
        "+id",
        "%20id",
        "id%20",
        "id,",
        ",id",
        "id,,created_at",
        "id%3Bcreated_at",
        "id%00",
        "id%0A",
        "id,id",
        "id,-id",
        "created_at,-created_at",
        "-created_at,updated_at,created_at,id",
        "created_at,id,name",
        "id,name",
        pytest.param("id,id,id," * 1000, id="id, 3000 times"),
        "id%20desc",
        "(select%201)",
        "%F0%9F%8C%BB",
    ],
)
def test_an_ordering_that_there_is_not_is_refused(client, ordering):
    for url in ("/api/customers/", "/api/orders/"):
        problem = assert_problem(client.get(f"{url}?ordering={ordering}", status="*"), 400, "invalid", "ordering")
        for known in ("id", "created_at", "updated_at"):
            assert known in problem["errors"][0]["description"]


# -- cursors ------------------------------------------------------------------------------------------------------


def test_a_cursor_of_one_ordering_is_refused_with_another(client, filled):
    filled("/api/customers/")
    for ordering in ORDERINGS:
        answer = client.get(f"/api/customers/?limit=4&ordering={ordering}")
        cursors = [following(answer), following(client.get(following(answer)), "prev")]
        for cursor in (url.partition("cursor=")[2] for url in cursors):
            for other in [*ORDERINGS, None]:
                query = f"cursor={cursor}" + ("" if other is None else f"&ordering={other}")
                told = client.get(f"/api/customers/?{query}", status="*")
                if ORDERINGS[other or "-id"] == ORDERINGS[ordering]:
                    assert told.status_int == 200
                else:
                    assert_problem(told, 400, "invalid", "cursor")


def opaque(raw):
    """A cursor as the application writes it: of JSON, or of bytes as they are."""
    if not isinstance(raw, bytes):
        raw = json.dumps(raw, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


BY_ID, BY_CREATION = [["id", True]], [["created_at", True], ["id", True]]
MOMENT = "2026-01-31T08:00:00Z"
SOUND = opaque([BY_ID, False, [5]])

# Cursors that nobody was given: for the list by id, newest first.
FORGED = {
    "null": None,
    "true": True,
    "an integer": 5,
    "a string": "5",
    "an empty string": "",
    "an array": [],
    "an object": {},
    "an object of three": {"a": 1, "b": 2, "c": 3},
    "the values alone": [5],
    "no values": [BY_ID, False],
    "one part more": [BY_ID, False, [5], 1],
    "nothing to stand next to": [BY_ID, False, []],
    "two values": [BY_ID, False, [5, 5]],
    "a value without its array": [BY_ID, False, 5],
    "a string for the values": [BY_ID, False, "5"],
    "null for the values": [BY_ID, False, None],
    "an object for the values": [BY_ID, False, {"id": 5}],
    "a string for an id": [BY_ID, False, ["5"]],
    "null for an id": [BY_ID, False, [None]],
    "true for an id": [BY_ID, False, [True]],
    "false for an id": [BY_ID, False, [False]],
    "a float for an id": [BY_ID, False, [5.0]],
    "half an id": [BY_ID, False, [5.5]],
    "an array for an id": [BY_ID, False, [[5]]],
    "an object for an id": [BY_ID, False, [{"id": 5}]],
    "zero": [BY_ID, False, [0]],
    "a negative id": [BY_ID, False, [-5]],
    "one beyond the largest id": [BY_ID, False, [2**63]],
    "one beyond 64 bits": [BY_ID, False, [2**64]],
    "an id of 400 digits": [BY_ID, False, [10**400]],
    "an exponent": opaque(b'[[["id",true]],false,[5e0]]'),
    "an endless float": opaque(b'[[["id",true]],false,[1e999]]'),
    "NaN": opaque(b'[[["id",true]],false,[NaN]]'),
    "a time for an id": [BY_ID, False, [MOMENT]],
    "0 for false": [BY_ID, 0, [5]],
    "1 for true": [BY_ID, 1, [5]],
    "null for false": [BY_ID, None, [5]],
    "a string for false": [BY_ID, "false", [5]],
    "another column": [[["amount", True]], False, [5]],
    "a column that there is not": [[["id; DROP TABLE orders", True]], False, [5]],
    "the other direction": [[["id", False]], False, [5]],
    "1 for a direction": [[["id", 1]], False, [5]],
    "no columns": [[], False, [5]],
    "null for the columns": [None, False, [5]],
    "columns of another ordering": [BY_CREATION, False, [MOMENT, 5]],
    "white space": opaque(b'[[["id", true]], false, [5]]'),
    "white space around it": opaque(b' [[["id",true]],false,[5]] '),
    "a line at its end": opaque(b'[[["id",true]],false,[5]]\n'),
    "an escape that need not be": opaque(rb'[[["\u0069d",true]],false,[5]]'),
    "leading zeros": opaque(b'[[["id",true]],false,[05]]'),
    "a plus sign": opaque(b'[[["id",true]],false,[+5]]'),
    "NUL": opaque(b"\0"),
    "NUL after it": opaque(b'[[["id",true]],false,[5]]\0'),
    "NUL in a string": [BY_ID, False, ["\0"]],
    "no UTF-8": opaque(b'[[["id",true]],false,["\xff"]]'),
    "a lone surrogate": opaque(rb'[[["id",true]],false,["\ud800"]]'),
    "a byte order mark": opaque(b'\xef\xbb\xbf[[["id",true]],false,[5]]'),
    "two of them": opaque(b'[[["id",true]],false,[5]][[["id",true]],false,[5]]'),
    "cut off": SOUND[:-3],
    "nested 1,000 deep": opaque(b"[" * 1_000 + b"]" * 1_000),
    "nested 5,000 deep": opaque(b"[" * 5_000 + b"]" * 5_000),
    "padding": SOUND + "=",
    "more padding": SOUND + "====",
    "padding that is right": opaque(b"[[]]") + "==",
    # bits beyond the last byte, which decoders ignore
    "other base64 of the same": SOUND[:-1] + chr(ord(SOUND[-1]) + 1),
    "the other alphabet": base64.b64encode(b'[[["id",true]],false,["\xfb\xff"]]').decode(),
    "a character that is none of base64": SOUND[:4] + "*" + SOUND[4:],
    "a line within": SOUND[:4] + "\n" + SOUND[4:],
    "a space before": " " + SOUND,
    "characters beyond ASCII": SOUND + "é",
    "digits of elsewhere": SOUND.replace("5", "\uff15") + "\uff15",
}

# For the list by creation, newest first.
FORGED_MOMENTS = {
    "a time without a zone": "2026-01-31T08:00:00",
    "a time with an offset": "2026-01-31T08:00:00+00:00",
    "another offset": "2026-01-31T11:00:00+03:00",
    "lower case": "2026-01-31t08:00:00z",
    "a space for the T": "2026-01-31 08:00:00Z",
    "a fraction of nothing": "2026-01-31T08:00:00.000000Z",
    "a short fraction": "2026-01-31T08:00:00.5Z",
    "nanoseconds": "2026-01-31T08:00:00.000000001Z",
    "a day that there is not": "2026-02-30T08:00:00Z",
    "the year 0": "0000-01-01T00:00:00Z",
    "five digits of a year": "10000-01-01T00:00:00Z",
    "beyond the last moment": "9999-12-31T23:59:59-23:59",
    "before the first moment": "0001-01-01T00:00:00+23:59",
    "24 o'clock": "2026-01-31T24:00:00Z",
    "a leap second": "2016-12-31T23:59:60Z",
    "a date": "2026-01-31",
    "infinity": "infinity",
    "now": "now",
    "an empty string": "",
    "NUL": "2026-01-31T08:00:00Z\0",
    "digits of elsewhere": "\u0662026-01-31T08:00:00Z",
    "an integer": 1769846400,
    "a float": 1769846400.5,
    "null": None,
    "true": True,
    "an array": [MOMENT],
}


@pytest.mark.parametrize("url", ["/api/customers/", "/api/orders/"])
def test_a_cursor_that_nobody_was_given_is_refused(client, filled, subtests, url):
    filled(url)
    assert len(FORGED) + len(FORGED_MOMENTS) > 90
    made_up = [(name, "-id", one) for name, one in FORGED.items()]
    made_up += [(name, "-created_at", [BY_CREATION, False, [one, 5]]) for name, one in FORGED_MOMENTS.items()]
    made_up += [("values in another order", "-created_at", [BY_CREATION, False, [5, MOMENT]])]
    made_up += [("a value less", "-created_at", [BY_CREATION, False, [MOMENT]])]
    for name, ordering, one in made_up:
        with subtests.test(name=name, ordering=ordering):
            # a string that is not JSON's is the cursor itself
            written = one if isinstance(one, str) and one not in ("", "5") else opaque(one)
            query = urlencode({"cursor": written, "ordering": ordering})
            assert_problem(client.get(f"{url}?{query}", status="*"), 400, "invalid", "cursor")


@pytest.mark.parametrize(
    ("ordering", "columns", "values"),
    [
        ("-id", BY_ID, [1]),
        ("-id", BY_ID, [2**63 - 1]),
        ("-created_at", BY_CREATION, ["0001-01-01T00:00:00Z", 1]),
        ("-created_at", BY_CREATION, ["9999-12-31T23:59:59.999999Z", 2**63 - 1]),
        ("-created_at", BY_CREATION, ["2026-01-31T08:01:00Z", 7]),
        ("-created_at", BY_CREATION, ["2026-01-31T08:00:30.000001Z", 7]),
    ],
)
@pytest.mark.parametrize("url", ["/api/customers/", "/api/orders/"])
def test_a_cursor_that_could_have_been_given_is_a_place_in_the_list(client, filled, url, ordering, columns, values):
    rows = filled(url)
    moments = [datetime.fromisoformat(one) if isinstance(one, str) else one for one in values]
    for before in (False, True):
        query = urlencode({"cursor": opaque([columns, before, values]), "ordering": ordering})
        there = [
            row.id
            for row in sorted(rows, key=attrgetter(*(name for name, _ in columns)), reverse=True)
            for place in [[getattr(row, name) for name, _ in columns]]
            if (place > moments if before else place < moments)
        ]
        assert ids(client.get(f"{url}?{query}", status=200)) == there


def test_only_a_cursor_as_the_application_writes_it_is_taken(client, filled):
    filled("/api/orders/")
    odd = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 5),
        st.integers(2**63 - 2, 2**64 + 1),
        st.floats(),
        st.text(max_size=5),
        st.just(MOMENT),
        st.just([]),
        st.just([1]),
        st.just({"id": 1}),
    )
    cursor = st.tuples(
        st.one_of(st.just(BY_ID), st.just([["id", False]]), odd),
        st.one_of(st.booleans(), odd),
        st.one_of(st.lists(st.integers(1, 5), min_size=1, max_size=1), st.lists(odd, max_size=2), odd),
    )

    @settings(max_examples=150, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(parts=cursor)
    def run(parts):
        columns, before, values = parts
        sound = (
            columns == BY_ID
            and isinstance(before, bool)
            and isinstance(values, list)
            and [type(value) for value in values] == [int]
            and 0 < values[0] < 2**63
        )
        told = client.get(f"/api/orders/?cursor={opaque(list(parts))}", status="*")
        if sound:
            assert told.status_int == 200
        else:
            assert_problem(told, 400, "invalid", "cursor")

    run()
