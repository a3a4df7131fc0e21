"""The pictures of the README's tour, taken of the real thing: ``make screenshots``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect

from browsing import chromium, send
from serving import Server, serving

WIDTH = 1000


def take(page: Page, server: Server, folder: Path) -> list[Path]:
    """Walk the tour, and take a picture at each stop; tokens are covered."""
    taken: list[Path] = []

    def picture(name: str, height: int, cover: str = "#nothing") -> None:
        page.set_viewport_size({"width": WIDTH, "height": height})
        taken.append(folder / f"{name}.png")
        page.screenshot(path=taken[-1], mask=[page.locator(cover)], mask_color="#d5dad3")

    page.goto(server.url)
    page.get_by_role("link", name="Sign in").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    picture("sign-in", 300)

    page.get_by_role("link", name="Sign in with any e-mail").click()
    page.get_by_label("E-mail address").fill("jane@shop.example")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="You are signed in")).to_be_visible()
    picture("tokens", 640, cover="main input")

    page.get_by_role("link", name="Go on to the dashboard").click()
    expect(page.get_by_role("status")).to_have_text("jane@shop.example (admin)")
    customer = send(page, "customers_create", {"username": "Asha", "phone_number": "0713 812 939"})
    send(page, "orders_create", {"item": "Tea", "amount": 10000, "customer": customer["id"]})
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    picture("dashboard", 1000)

    page.goto(f"{server.url}/devtools/inbox")
    expect(page.get_by_role("article")).to_have_count(1)
    picture("inbox", 420)
    return taken


def main(folder: Path) -> None:
    """Serve development.ini with a new database, and take the pictures into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        url = f"sqlite:///{place}/orders.sqlite"
        with serving(Path(place), url) as server, chromium() as browser:
            for picture in take(browser.new_page(), server, folder):
                print(f"{picture}: {picture.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
