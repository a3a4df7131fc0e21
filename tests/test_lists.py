"""Lists: bounded, in pages, and both forms of every path."""

from __future__ import annotations

import re

import pytest
from requests.utils import parse_header_links
from sqlalchemy import event

import factories
from contract import assert_problem
from customer_orders.customers.services import create_customer

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
