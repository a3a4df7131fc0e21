"""What people type is text: on every page that shows any of it, in a real browser, and nothing can undo it."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import requests
from playwright.sync_api import BrowserContext, Page, expect
from pyramid_jinja2 import IJinja2Environment

from browsing import Witness, browser, context, needs_browser, send, sign_in, witness
from conftest import STAGE, settings_for
from customer_orders import main
from serving import ROOT, Server, serving, wait_for

__all__ = ["browser", "context", "witness"]

# Ways out of text, of an attribute, of a script, of a template, of Markdown; each would tell by `owned`.
MARKUP = (
    "\"><script>owned=1</script><img src=x onerror=owned=1>'><svg onload=owned=1>{{7*7}}${7*7}"
    '<a href="javascript:owned=1">x</a>[y](javascript:owned=1)</textarea><!--&lt;b&gt;'
)
# The same without what no e-mail address may have here.
ADDRESS = "\"><script>owned=1</script><img/src=x/onerror=owned=1>'><svg/onload=owned=1>{{7*7}}<!--@shop.example"
LINK = "javascript:owned=1"

# What would be there if any of it had been taken for markup.
MADE = "img[src='x'], svg[onload], [onerror], [onload], a[href^='javascript:'], script:not([src])"


@pytest.fixture(scope="module")
def report_secret() -> str:
    """The secret in the address to which delivery reports go."""
    return secrets.token_urlsafe(32)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, new_database: Any, report_secret: str) -> Iterator[Server]:
    """`development.ini`, served by pserve, with a plugin that passes on markup; messages repeat what was typed."""
    environ = {
        "PYTHONPATH": os.pathsep.join(filter(None, (STAGE, os.environ.get("PYTHONPATH")))),
        "PLUGINS": "devtools careless",
        "CARELESS_TITLE": MARKUP,
        "CARELESS_NAME": MARKUP,
        "CARELESS_EMAIL": ADDRESS,
        "NOTIFICATIONS_TEMPLATE_ORDER_PLACED": "{{ customer.username }}|{{ customer.reference }}|{{ order.item }}",
        "NOTIFICATIONS_MAX_SEGMENTS": "50",
        "NOTIFICATIONS_REPORT_SECRETS": report_secret,
    }
    with serving(tmp_path_factory.mktemp("serving"), new_database("sqlite"), **environ) as server:
        yield server


def is_text(page: Page, *texts: str, times: int = 1) -> None:
    """The page shows the texts as they were typed, and made nothing of them."""
    for text in texts:
        expect(page.get_by_text(text).first).to_be_attached()
        assert page.locator("body").inner_text().count(text) >= times, page.url
    assert page.locator(MADE).count() == 0, page.url
    assert page.evaluate("window.owned") is None, page.url


def answered(page: Page, operation: str, *texts: str) -> None:
    """The same of the answer to an operation that was tried out in Swagger UI."""
    # shown again as it was
    page.locator(f"[id$='{operation}'] .opblock-summary-control").click()
    expect(page.locator(f"[id$='{operation}'] .live-responses-table")).to_be_visible()
    is_text(page, *texts)


def as_json(text: str) -> str:
    """A text as JSON shows it."""
    return json.dumps(text)[1:-1]


@pytest.mark.browser
class TestInABrowser:
    """Each page that shows what somebody typed."""

    pytestmark = needs_browser

    def test_the_title_of_a_provider_and_the_name_and_address_that_it_tells(
        self, context: BrowserContext, witness: Witness, server: Server
    ) -> None:
        page = context.new_page()
        page.goto(f"{server.url}/login/")
        is_text(page, f"Sign in with {MARKUP}")
        page.get_by_role("link", name="javascript:owned").click()
        expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()
        is_text(page, MARKUP, ADDRESS)
        page.get_by_role("link", name="Go on to the dashboard").click()
        expect(page.get_by_role("status")).to_have_text(f"{ADDRESS} (admin)")
        is_text(page, ADDRESS)
        told = send(page, "me_read", status=200)
        assert (told["name"], told["email"]) == (MARKUP, ADDRESS)
        answered(page, "me_read", as_json(MARKUP), as_json(ADDRESS))
        assert witness.complaints == []

    def test_whoever_is_shut_out_is_named_as_text(
        self, context: BrowserContext, witness: Witness, server: Server
    ) -> None:
        page = context.new_page()
        sign_in(page, server, email=f"shut-{ADDRESS}")
        is_text(page, f"shut-{ADDRESS}")
        server.command("user", "disable", f"shut-{ADDRESS}")
        page.goto(f"{server.url}/api/devtools-oauth2/redirect/")
        page.get_by_label("E-mail address").fill(f"shut-{ADDRESS}")
        page.evaluate("document.forms[0].noValidate = true")
        page.get_by_role("button", name="Sign in").click()
        is_text(page, f"shut-{ADDRESS} is shut out here. Ask an administrator.")
        assert witness.complaints == []

    def test_customers_orders_and_their_errors_in_the_dashboard(
        self, context: BrowserContext, witness: Witness, server: Server
    ) -> None:
        page = context.new_page()
        sign_in(page, server)
        page.get_by_role("link", name="Go on to the dashboard").click()
        expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
        typed = {
            "username": MARKUP,
            "phone_number": "0713 812 939",
            "reference": LINK + secrets.token_hex(4),
            "metadata": {"<img src=x onerror=owned=1>": MARKUP},
        }
        customer = send(page, "customers_create", typed)
        assert customer["username"] == MARKUP
        order = {"item": MARKUP, "amount": 1, "customer": customer["id"], "metadata": {"{{7*7}}": MARKUP}}
        assert send(page, "orders_create", order)["item"] == MARKUP
        page.goto("about:blank")
        page.goto(server.url)
        # names of fields that nobody knows come back in the errors
        wrong = send(page, "customers_create", {**typed, "reference": "another", MARKUP: MARKUP}, status=400)
        assert MARKUP[:100] in [error["name"] for error in wrong["errors"]]
        answered(page, "customers_create", as_json(MARKUP[:100]))
        send(page, "orders_list", status=200)
        answered(page, "orders_list", as_json(MARKUP))
        assert witness.complaints == []

    def test_messages_in_the_inbox_and_the_reason_why_one_failed(
        self, context: BrowserContext, witness: Witness, server: Server, report_secret: str
    ) -> None:
        headers = {"Authorization": f"Bearer {server.token('admin')}"}
        typed = {"username": MARKUP, "phone_number": "0713 812 940", "reference": MARKUP[:100]}
        customer = requests.post(f"{server.url}/api/customers/", json=typed, headers=headers, timeout=30).json()["id"]
        placed = {"item": MARKUP, "amount": 1, "customer": customer}
        number = requests.post(f"{server.url}/api/orders/", json=placed, headers=headers, timeout=30).json()["id"]

        page = context.new_page()
        page.goto(f"{server.url}/devtools/inbox")
        phone = page.get_by_role("region", name="Phone +254713812940")
        # it is put in place by the page's script, which may not make markup of it either
        expect(phone.get_by_role("article")).to_have_count(1)
        is_text(page, f"{MARKUP}|{MARKUP[:100]}|{MARKUP}")

        def message() -> Any:
            order = requests.get(f"{server.url}/api/orders/{number}", headers=headers, timeout=30).json()
            return order["notification"]

        wait_for(lambda: message()["status"] == "sent", "the message is sent")
        kept = [json.loads(line) for line in Path(server.environ["DEVTOOLS_INBOX"]).read_text().splitlines()]
        (reference,) = [one["reference"] for one in kept if one["to"] == "+254713812940"]
        report = {"reference": reference, "status": "failed", "reason": MARKUP, "to": "+254713812940"}
        reports = f"{server.url}/api/notifications/reports/devtools/{report_secret}"
        assert requests.post(reports, json=report, timeout=30).ok
        assert message()["status"] == "failed"

        sign_in(page, server)
        page.get_by_role("link", name="Go on to the dashboard").click()
        expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
        told = send(page, "orders_list", status=200)
        assert MARKUP in [one["notification"]["reason"] for one in told]
        answered(page, "orders_list", as_json(MARKUP))
        assert witness.complaints == []

    @pytest.mark.parametrize(
        "path",
        [
            "/{}",
            "/problems/{}",
            "/static/{}",
            "/devtools/static/{}",
            "/login/?next={}",
            "/login/?signed_out={}",
            "/login/?{}=x",
            "/?{}",
            "/#/{}/{}",
            "/#/customers/customers_list?{}",
            "/api/{}-oauth2/redirect/",
            "/api/devtools-oauth2/redirect/?next={}",
            "/api/devtools-oauth2/callback/?error={}&error_description={}&state={}",
            "/api/customers/?{}=x",
            "/devtools/sign-in?state={}",
            "/devtools/inbox?{}",
        ],
    )
    def test_addresses_that_somebody_else_wrote(
        self, context: BrowserContext, witness: Witness, server: Server, path: str
    ) -> None:
        page = context.new_page()
        page.goto(server.url + path.replace("{}", quote(MARKUP, safe="")))
        page.wait_for_load_state("networkidle")
        is_text(page)
        assert [said for said in witness.complaints if "status of" not in said] == []

    def test_a_script_in_the_page_does_not_run_though_a_plugin_means_it_to(
        self, context: BrowserContext, witness: Witness, server: Server
    ) -> None:
        page = context.new_page()
        page.goto(f"{server.url}/careless")
        expect(page.get_by_text("Text")).to_be_visible()
        expect(page).to_have_title("Careless")
        assert any("CSP: script-src" in said for said in witness.complaints)

    def test_the_form_of_the_development_provider_keeps_what_it_was_given(
        self, context: BrowserContext, witness: Witness, server: Server
    ) -> None:
        page = context.new_page()
        given = {
            "redirect_uri": f"{server.url}/api/devtools-oauth2/callback/",
            "state": MARKUP,
            "nonce": MARKUP,
            "code_challenge": MARKUP,
        }
        page.goto(f"{server.url}/devtools/sign-in?{urlencode(given)}")
        for name in ("state", "nonce", "code_challenge"):
            expect(page.locator(f"[name={name}]")).to_have_value(MARKUP)
        page.get_by_label("E-mail address").fill(MARKUP)
        page.evaluate("document.forms[0].noValidate = true")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_have_text("That is not an e-mail address.")
        is_text(page)
        assert witness.complaints == []


# -- what the code may not do -------------------------------------------------------------------------------------

TRACKED = [ROOT / "src" / "customer_orders", *(ROOT / "plugins").glob("*/src/*")]
TEMPLATES = sorted(path for folder in TRACKED for path in folder.rglob("*.jinja2"))
SCRIPTS = sorted(path for folder in TRACKED for path in folder.rglob("*.js"))
MODULES = sorted(path for folder in TRACKED for path in folder.rglob("*.py"))

UNSAFE = {
    "templates": [
        (r"\|\s*safe\b|\bMarkup\b", "marks a text as markup"),
        (r"autoescape", "changes what is escaped"),
        (r"<script(?![^>]*\bsrc=)", "has a script in the page"),
        (r"<style|\sstyle\s*=", "has a style in the page"),
        (r"\son[a-z]+\s*=", "has a script in an attribute"),
        (r"\s[a-z-]+\s*=\s*\{\{", "has a value in an attribute without quotes"),
        (r"(src|href|action)\s*=\s*[\"']?\s*(https?:)?//", "loads or leads elsewhere"),
    ],
    "scripts": [
        (r"\b(inner|outer)HTML\b|insertAdjacentHTML|setHTML|createContextualFragment", "makes markup of text"),
        (r"\bDOMParser\b|document\s*\.\s*write|\.srcdoc\b", "makes markup of text"),
        (r"\beval\s*\(|\bFunction\s*\(|set(Timeout|Interval)\s*\(\s*[\"'`]", "runs a text"),
        (r"setAttribute\s*\(\s*[\"'`]on|\.on[a-z]+\s*=", "sets a handler by its attribute"),
        (r"\blocalStorage\b|document\s*\.\s*cookie", "keeps what outlives the tab"),
    ],
    "modules": [
        (r"\bMarkup\s*\(|import Markup|\bfrom_string\(", "marks a text as markup, or takes a text for a template"),
    ],
}

# Why a file may do what others may not.
EXCEPTIONS = {
    "src/customer_orders/wording.py": "the texts of SMS, which are no markup, in a sandbox",
}


def found(kind: str, paths: list[Path]) -> list[str]:
    """Every file that does one of these things, with what it does."""
    names = [(str(path.relative_to(ROOT)), path.read_text()) for path in paths]
    return [
        f"{name} {says}"
        for name, text in names
        if name not in EXCEPTIONS
        for pattern, says in UNSAFE[kind]
        if re.search(pattern, text)
    ]


def test_no_template_and_no_script_shows_text_as_markup() -> None:
    assert len(TEMPLATES) >= 9
    assert len(SCRIPTS) >= 4
    assert found("templates", TEMPLATES) == []
    assert found("scripts", SCRIPTS) == []
    assert found("modules", MODULES) == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("templates", "<p>{{ name|safe }}</p>"),
        ("templates", "<p>{{ name | safe }}</p>"),
        ("templates", "{% autoescape false %}{{ name }}{% endautoescape %}"),
        ("templates", "<script>go()</script>"),
        ("templates", '<script type="module">go()</script>'),
        ("templates", "<p style='color: red'>"),
        ("templates", "<a onclick='go()'>"),
        ("templates", "<a href={{ next }}>"),
        ("templates", '<script src="https://cdn.example/x.js">'),
        ("scripts", "node.innerHTML = text"),
        ("scripts", "new DOMParser().parseFromString(text, 'text/html')"),
        ("scripts", "document.write(text)"),
        ("scripts", "setTimeout('go()', 1)"),
        ("scripts", "new Function(text)"),
        ("scripts", "node.onclick = go"),
        ("scripts", "localStorage.token = token"),
        ("modules", "return Markup(name)"),
    ],
)
def test_that_would_be_found(kind: str, text: str) -> None:
    assert any(re.search(pattern, text) for pattern, _ in UNSAFE[kind])


@pytest.mark.parametrize("told", [{}, {"jinja2.autoescape": "false"}])
def test_every_template_escapes_whatever_the_ini_says(told: dict[str, str]) -> None:
    registry = main({}, **settings_for("sqlite:////nowhere/at/all", **told)).registry
    environment = registry.getUtility(IJinja2Environment, name=".jinja2")
    assert environment.autoescape is True
    assert environment.from_string("{{ name }}").render(name="<b>'\"") == "&lt;b&gt;&#39;&#34;"
