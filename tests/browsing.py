"""A real browser for tests and pictures: headless Chromium, and what a person does with the dashboard."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from serving import Server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

# Of a module that uses the browser.
needs_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(
        not CHROMIUM and not os.environ.get("REQUIRE_BROWSER"),
        reason="no chromium on this machine (Debian: apt-get install chromium)",
    ),
]

# A deadline for what is waited for, not a measure of it: two cores also run the rest of the suite.
expect.set_options(timeout=30_000)

# No traffic of the browser's own, and no sandbox, which containers and root do not have.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    assert CHROMIUM, "there is no chromium on this machine (Debian: apt-get install chromium)"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The same, for a module of tests."""
    with chromium() as browser:
        yield browser


class Witness:
    """Notes every request and every complaint of a browser context."""

    def __init__(self, context: BrowserContext) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        context.on("console", self._hear)
        context.expose_function("noteViolation", lambda said: self.complaints.append(said))
        context.add_init_script(
            "addEventListener('securitypolicyviolation',"
            " event => noteViolation(`CSP: ${event.violatedDirective} ${event.blockedURI}`))"
        )

    def _hear(self, message: Any) -> None:
        if message.type == "error" and "status of 40" not in message.text:
            self.complaints.append(message.text)


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh browser profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(30_000)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield context
    context.close()


@pytest.fixture
def witness(context: BrowserContext) -> Witness:
    """What the browser asked for and complained about."""
    return Witness(context)


def sign_in(page: Page, server: Server, email: str = "jane@shop.example") -> None:
    """From the dashboard to the tokens page."""
    page.goto(server.url)
    page.get_by_role("link", name="Sign in").click()
    page.get_by_role("link", name="Sign in with any e-mail").click()
    page.get_by_label("E-mail address").fill(email)
    # what a browser lets through is not what a client may send
    page.evaluate("document.forms[0].noValidate = true")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()


def send(page: Page, operation: str, body: dict[str, Any] | None = None, status: int = 201) -> Any:
    """Try an operation out in Swagger UI, as a person would; the answer it shows. No body: what it offers to send."""
    block = page.locator(f"[id$='{operation}']")
    block.locator(".opblock-summary-control").click()
    if body is not None:
        block.locator("textarea.body-param__text").fill(json.dumps(body))
    block.get_by_role("button", name="Execute").click()
    answer = block.locator(".live-responses-table")
    expect(answer.locator("tbody .response-col_status").first).to_contain_text(str(status))
    shown = answer.locator(".highlight-code code").first.inner_text()
    block.locator(".opblock-summary-control").click()
    return json.loads(shown)
