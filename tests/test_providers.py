"""production.ini as it stands: people sign in at a certified OpenID provider, and messages leave for Africa's Talking.

Both are real servers on loopback; the web process and the worker are real processes.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from browsing import Witness, browser, needs_browser, send, witness
from loopback import Answer, Provider, authority, provider
from serving import BIN, NODE, ROOT, OpenIdProvider, Server, wait_for

__all__ = ["authority", "browser", "witness"]

# Whoever signs in is asked the same whatever the database.
on_one_database = pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)

pytestmark = [
    *needs_browser,
    pytest.mark.skipif(
        not NODE and not os.environ.get("REQUIRE_OPENID_PROVIDER"),
        reason="neither this machine nor PyPI has Node, or npm has no oidc-provider (`make test` tries both)",
    ),
]


class Shop:
    """A deployment of production.ini, with its two providers."""

    def __init__(self, server: Server, openid: OpenIdProvider, gateway: Provider, log: Path) -> None:
        self.server, self.openid, self.gateway, self.log = server, openid, gateway, log

    @property
    def messages(self) -> list[dict[str, str]]:
        """The forms that Africa's Talking got."""
        return [asked.form for asked in self.gateway.asked]


def accepted(gateway: Provider) -> Callable[..., Any]:
    """Africa's Talking's answer to a message that it takes."""

    def answer(asked: Any) -> Any:
        recipient = {
            "statusCode": 101,
            "number": asked.form["to"],
            "status": "Success",
            "cost": "KES 0.8000",
            "messageId": f"ATXid_{len(gateway.asked)}",
        }
        told = {"SMSMessageData": {"Message": "Sent to 1/1 Total Cost: KES 0.8000", "Recipients": [recipient]}}
        return Answer(told, status=201)

    return answer


@pytest.fixture(scope="module")
def shop(
    tmp_path_factory: pytest.TempPathFactory, database_kind: str, new_database: Any, authority: Any
) -> Iterator[Shop]:
    """The web process, the worker, and both providers."""
    folder = tmp_path_factory.mktemp("shop")
    log = folder / "worker.log"
    with provider() as gateway, ExitStack() as ending:
        gateway.answer = accepted(gateway)
        server = Server(ROOT / "production.ini", {}, folder / "server.log")
        openid = OpenIdProvider(folder, authority, server.url)
        server.environ |= {
            "SQLALCHEMY_URL": new_database(database_kind),
            "JWT_PRIVATE_KEY": secrets.token_urlsafe(64),
            "AUTH_ADMINS": "jane@shop.example",
            "GOOGLE_CLIENT_ID": openid.client_id,
            "GOOGLE_CLIENT_SECRET": openid.client_secret,
            "GOOGLE_HOSTED_DOMAINS": "shop.example else.example",
            "GOOGLE_ISSUER": openid.url,
            "REQUESTS_CA_BUNDLE": str(authority.file),
            "AFRICASTALKING_USERNAME": "shop",
            "AFRICASTALKING_API_KEY": secrets.token_hex(16),
            "AFRICASTALKING_SENDER_ID": "SHOP",
            "AFRICASTALKING_ENDPOINT": gateway.url,
        }
        server.command("db", "upgrade")
        ending.callback(server.end)
        server.start()
        ending.callback(openid.end)
        openid.start()
        with log.open("ab") as output:
            command = [str(BIN / "customer-orders"), "worker", "-c", str(server.ini)]
            worker = subprocess.Popen(command, env=server.environ, stdout=output, stderr=output)
        ending.callback(worker.wait, 30)
        ending.callback(worker.terminate)
        yield Shop(server, openid, gateway, log)


@pytest.fixture
def context(browser: Any) -> Iterator[BrowserContext]:
    """A fresh browser profile, that takes the tests' own certificates."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, ignore_https_errors=True)
    context.set_default_timeout(30_000)
    yield context
    context.close()


def sign_in(page: Page, shop: Shop, email: str = "jane@shop.example", press: str = "Continue") -> None:
    """From the dashboard to the provider, and back."""
    page.goto(shop.server.url)
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("link", name="Sign in with Google").click()
    expect(page.get_by_role("heading", name="Choose an account")).to_be_visible()
    page.get_by_label("E-mail").fill(email)
    page.get_by_role("button", name=press).click()


def test_from_the_dashboard_to_the_sms(context: BrowserContext, witness: Witness, shop: Shop) -> None:
    page = context.new_page()
    sign_in(page, shop)
    expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()
    page.get_by_role("link", name="Go on to the dashboard").click()
    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
    customer = send(page, "customers_create", {"username": "Asha", "phone_number": "0713 812 939"})
    send(page, "orders_create", {"item": "Tea", "amount": 10000, "customer": customer["id"]})

    wait_for(lambda: shop.messages, f"the worker sends\n{shop.log.read_text()}")
    assert shop.messages == [
        {
            "username": "shop",
            "to": "+254713812939",
            "message": "Your order has been created. Thank you for shopping with us!",
            "bulkSMSMode": "1",
            "from": "SHOP",
        }
    ]

    def told() -> Any:
        (order,) = send(page, "orders_list", status=200)
        return order["notification"]["status"] == "sent" and order["notification"]

    notification = wait_for(told, "the order says that its message was sent")
    assert notification["cost"] == {"amount": "0.8000", "currency": "KES"}
    assert notification["notifier"] == "africastalking"
    assert {url.partition("//")[2].partition("/")[0] for url in witness.requests if not url.startswith("data:")} == {
        url.partition("//")[2] for url in (shop.server.url, shop.openid.url)
    }
    assert witness.complaints == []


@on_one_database
def test_keys_that_the_provider_changes_lock_nobody_out(context: BrowserContext, shop: Shop) -> None:
    for _ in range(2):
        page = context.new_page()
        sign_in(page, shop)
        expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()
        # with a new key, and no memory of anybody
        shop.openid.end()
        shop.openid.start()
        context.clear_cookies()


@on_one_database
@pytest.mark.parametrize(
    ("email", "press", "heading", "says"),
    [
        ("jane@shop.example", "Cancel", "The sign-in was refused", "did not confirm who you are"),
        ("eve@evil.example", "Continue", "The sign-in was refused", "did not confirm who you are"),
        ("joe@else.example", "Continue", "Your account has no role here", "joe@else.example has no role here"),
    ],
)
def test_who_is_not_let_in_gets_a_page_that_says_what_to_do(
    context: BrowserContext, shop: Shop, email: str, press: str, heading: str, says: str
) -> None:
    page = context.new_page()
    sign_in(page, shop, email, press)
    expect(page.get_by_role("heading", name=heading)).to_be_visible()
    expect(page.get_by_role("main")).to_contain_text(says)
    expect(page.get_by_role("link", name="Sign in")).to_be_visible()


def test_no_secret_is_in_the_logs(shop: Shop) -> None:
    said = shop.log.read_text() + shop.server.log.read_text()
    for name in ("GOOGLE_CLIENT_SECRET", "AFRICASTALKING_API_KEY", "JWT_PRIVATE_KEY"):
        assert shop.server.environ[name] not in said
    assert "713812939" not in said
