"""The first thing a merchant's developer does, in a real browser: from the dashboard to the SMS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, expect

import screenshots
from browsing import Witness, browser, context, needs_browser, send, sign_in, witness
from serving import ROOT, Server, serving

__all__ = ["browser", "context", "witness"]

pytestmark = needs_browser

# What these tests look at is the page alone.
on_one_database = pytest.mark.parametrize("database_kind", ["sqlite"], indirect=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, database_kind: str, new_database: Any) -> Iterator[Server]:
    """`development.ini`, served by pserve."""
    with serving(tmp_path_factory.mktemp("serving"), new_database(database_kind)) as server:
        yield server


def test_from_the_dashboard_to_the_sms(context: BrowserContext, witness: Witness, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    for name in ("access", "refresh"):
        token = page.locator(f"#{name}")
        expect(token).to_have_attribute("readonly", "")
        page.locator(f"[data-copy={name}]").click()
        expect(page.get_by_role("status")).to_contain_text("on the clipboard")
        assert page.evaluate("navigator.clipboard.readText()") == token.input_value()
    page.get_by_role("link", name="Go on to the dashboard").click()

    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
    customer = send(page, "customers_create", {"username": "Asha", "phone_number": "0713 812 939"})
    send(page, "orders_create", {"item": "Tea", "amount": 10000, "customer": customer["id"]})

    page.goto(f"{server.url}/devtools/inbox")
    phone = page.get_by_role("region", name="Phone +254713812939")
    expect(phone.get_by_role("article")).to_contain_text("Your order has been created. Thank you for shopping with us!")

    assert {url.partition("//")[2].partition("/")[0] for url in witness.requests if not url.startswith("data:")} == {
        server.url.partition("//")[2]
    }
    assert witness.complaints == []


@on_one_database
def test_tokens_stay_out_of_urls_cookies_and_local_storage(
    context: BrowserContext, witness: Witness, server: Server
) -> None:
    page = context.new_page()
    sign_in(page, server)
    access, refresh = (page.locator(f"#{name}").input_value() for name in ("access", "refresh"))
    page.get_by_role("link", name="Go on to the dashboard").click()
    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
    kept = page.evaluate("({session: {...sessionStorage}, local: {...localStorage}, cookie: document.cookie})")
    held = {"customer_orders.access": access, "customer_orders.refresh": refresh}
    assert kept == {"session": held, "local": {}, "cookie": ""}
    assert context.cookies() == []
    for token in (access, refresh):
        assert not [url for url in witness.requests if token in url]


def test_signing_out_and_an_expired_token_clear_the_tab(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    page.get_by_role("link", name="Go on to the dashboard").click()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    assert page.evaluate("sessionStorage.length") == 0
    page.goto(server.url)
    expect(page.locator(".btn.authorize.unlocked")).to_be_visible()

    page.evaluate("sessionStorage.setItem('customer_orders.access', 'not.a.token')")
    page.reload()
    expect(page.get_by_role("status")).to_have_text("Your sign-in has expired.")
    assert page.evaluate("sessionStorage.length") == 0
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


@on_one_database
def test_what_the_dashboard_offers_to_send_works_as_it_stands(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    page.get_by_role("link", name="Go on to the dashboard").click()
    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
    assert send(page, "customers_create")["phone_number"] == "+254713812939"
    assert send(page, "orders_create")["notification"]["status"] == "queued"


@on_one_database
def test_only_the_tokens_own_refusal_ends_the_sign_in(
    context: BrowserContext, witness: Witness, server: Server
) -> None:
    page = context.new_page()
    page.goto(server.url)
    assert send(page, "orders_list", status=401)["code"] == "unauthenticated"
    expect(page.get_by_role("status")).to_have_text("")

    sign_in(page, server)
    page.get_by_role("link", name="Go on to the dashboard").click()
    assert send(page, "token_refresh_post", {"refresh": "spent"}, status=401)["code"] == "invalid-refresh-token"
    assert send(page, "me_read", status=200)["email"] == "jane@shop.example"

    page.evaluate("window.ui.preauthorizeApiKey('Bearer', 'not.a.token')")
    assert send(page, "orders_list", status=401)["code"] == "unauthenticated"
    expect(page.get_by_role("status")).to_have_text("Your sign-in has expired.")
    assert page.evaluate("sessionStorage.length") == 0
    assert witness.complaints == []


@on_one_database
def test_signing_in_works_from_the_other_name_of_this_machine(
    context: BrowserContext, witness: Witness, server: Server
) -> None:
    page = context.new_page()
    page.goto(server.url.replace("127.0.0.1", "localhost"))
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("link", name="Sign in with any e-mail").click()
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()
    assert witness.complaints == []


@on_one_database
def test_text_that_users_type_is_shown_as_text(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    markup = "<img/src=x/onerror=document.title='owned'>"
    sign_in(page, server, email=f"{markup}@shop.example")
    expect(page.get_by_role("main")).to_contain_text(markup)
    assert page.title() != "owned"


@on_one_database
def test_a_person_gets_a_page_when_a_sign_in_cannot_go_on(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    answer = page.goto(f"{server.url}/api/devtools-oauth2/callback/?code=x&state=y")
    assert answer is not None
    assert answer.status == 400
    expect(page.get_by_role("heading", name="This sign-in cannot go on")).to_be_visible()


@on_one_database
def test_from_a_problem_to_what_it_means_and_where(context: BrowserContext, witness: Witness, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    page.get_by_role("link", name="Go on to the dashboard").click()
    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
    problem = send(page, "customers_create", {"username": "Asha", "phone_number": "5"}, status=400)
    page.goto(problem["type"])
    expect(page.get_by_role("heading", name="Some input is not valid")).to_be_visible()
    page.get_by_role("link", name="All problems").click()
    page.get_by_role("link", name="customer-has-orders").click()
    page.get_by_role("link", name="DELETE /api/customers/{id}").click()
    opened = page.locator("#operations-customers-customers_delete")
    # one answer of the operation leads back to the page
    expect(opened.get_by_role("link", name="customer-has-orders")).to_have_attribute(
        "href", "/problems/customer-has-orders"
    )
    assert witness.complaints == []


@on_one_database
def test_pages_fit_the_width_of_a_phone(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("/", "/login/", "/devtools/inbox", "/problems/", "/problems/invalid"):
        page.goto(server.url + path)
        expect(page.get_by_role("main").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_the_tour_has_its_pictures(browser: Browser, tmp_path: Path) -> None:
    shown = re.findall(r"!\[[^]]{20,}\]\((docs/tour/[a-z-]+\.png)\)", (ROOT / "README.md").read_text())
    page = browser.new_page()
    with serving(tmp_path, f"sqlite:///{tmp_path}/orders.sqlite") as server:
        taken = screenshots.take(page, server, tmp_path)
    page.close()
    assert [f"docs/tour/{picture.name}" for picture in taken] == shown
    for picture in taken:
        # the size of a PNG stands in its header
        size = picture.read_bytes()[16:24]
        assert size == (ROOT / "docs" / "tour" / picture.name).read_bytes()[16:24]
        assert int.from_bytes(size[:4], "big") == screenshots.WIDTH
