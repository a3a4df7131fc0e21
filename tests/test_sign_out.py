"""Signing out in a real browser: the refresh token ends, the browser forgets, and the page says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import BrowserContext, Page, expect

from browsing import Witness, browser, context, needs_browser, sign_in, witness
from serving import Server, serving

__all__ = ["browser", "context", "witness"]

pytestmark = needs_browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, new_database: Any) -> Iterator[Server]:
    """`development.ini`, served by pserve."""
    with serving(tmp_path_factory.mktemp("serving"), new_database("sqlite")) as server:
        yield server


def is_good(server: Server, refresh: str) -> bool:
    """Whether a refresh token is, which spends it."""
    answer = requests.post(f"{server.url}/api/token/refresh", json={"refresh": refresh}, timeout=30)
    assert answer.status_code in (200, 401)
    return answer.ok


def to_the_dashboard(page: Page) -> None:
    """From the tokens page, until the dashboard knows who it is."""
    page.get_by_role("link", name="Go on to the dashboard").click()
    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")


@pytest.mark.parametrize("place", ["tokens page", "dashboard"])
def test_signing_out_ends_the_refresh_token_and_says_so(
    context: BrowserContext, witness: Witness, server: Server, place: str
) -> None:
    page = context.new_page()
    sign_in(page, server)
    refresh = page.locator("#refresh").input_value()
    if place == "dashboard":
        to_the_dashboard(page)
    # whatever else the origin keeps goes too, by Clear-Site-Data
    page.evaluate("localStorage.setItem('another', 'x')")
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    assert page.url == f"{server.url}/login/?signed_out=true"
    expect(page.get_by_role("link", name="Sign in with any e-mail")).to_be_visible()
    assert page.evaluate("[sessionStorage.length, localStorage.length]") == [0, 0]
    assert not is_good(server, refresh)
    assert witness.complaints == []


def test_going_back_shows_neither_tokens_nor_who_was_here(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    tokens = [page.locator(f"#{name}").input_value() for name in ("access", "refresh")]
    to_the_dashboard(page)
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    for _ in range(3):
        page.go_back()
        expect(page.get_by_role("main").first).to_be_visible()
        shown = page.content()
        assert "jane@shop.example (admin)" not in shown
        assert not [token for token in tokens if token in shown]


def test_without_it_the_refresh_token_stays_good(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    refresh = page.locator("#refresh").input_value()
    to_the_dashboard(page)
    page.close()
    assert is_good(server, refresh)


@pytest.mark.parametrize("place", ["tokens page", "dashboard"])
def test_if_the_service_cannot_be_reached_the_tab_forgets_all_the_same_and_says_what_is_left(
    context: BrowserContext, server: Server, place: str
) -> None:
    page = context.new_page()
    sign_in(page, server)
    refresh = page.locator("#refresh").input_value()
    if place == "dashboard":
        to_the_dashboard(page)
    context.set_offline(True)
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("Signed out in this tab only")
    context.set_offline(False)
    assert page.evaluate("sessionStorage.length") == 0
    if place == "tokens page":
        for name in ("access", "refresh"):
            expect(page.locator(f"#{name}")).to_have_value("")
    else:
        expect(page.locator(".btn.authorize.unlocked")).to_be_visible()
    assert is_good(server, refresh)


def test_a_token_that_its_owner_spent_is_no_reason_not_to_sign_out(context: BrowserContext, server: Server) -> None:
    page = context.new_page()
    sign_in(page, server)
    spent = {"refresh": page.locator("#refresh").input_value()}
    pair = requests.post(f"{server.url}/api/token/refresh", json=spent, timeout=30).json()
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("You are signed out.")
    # nor is what they got for it good any more
    assert not is_good(server, pair["refresh"])
    headers = {"Authorization": f"Bearer {pair['access']}"}
    assert requests.get(f"{server.url}/api/me", headers=headers, timeout=30).status_code == 401


def test_a_sign_in_from_the_dashboard_leads_back_to_where_it_was(
    context: BrowserContext, witness: Witness, server: Server
) -> None:
    page = context.new_page()
    page.goto(f"{server.url}/#/orders/orders_create")
    opened = page.locator("#operations-orders-orders_create")
    expect(opened.locator(".opblock-body")).to_be_visible()
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("link", name="Sign in with any e-mail").click()
    page.get_by_role("button", name="Sign in").click()
    on = page.get_by_role("link", name="Go on to the dashboard")
    expect(on).to_have_attribute("href", "/#/orders/orders_create")
    on.click()
    expect(opened.locator(".opblock-body")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("you@shop.example (admin)")
    assert witness.complaints == []


def test_a_sign_in_may_lead_on_to_another_page(context: BrowserContext, witness: Witness, server: Server) -> None:
    page = context.new_page()
    page.goto(f"{server.url}/login/?next=/devtools/inbox")
    page.get_by_role("link", name="Sign in with any e-mail").click()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Go on to /devtools/inbox").click()
    expect(page.get_by_role("heading", name="No messages yet")).to_be_visible()
    assert witness.complaints == []
