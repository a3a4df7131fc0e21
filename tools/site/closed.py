"""Whether a built site loads anything from elsewhere: who reads it is nobody's business, and it works offline."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

ABSOLUTE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
IN_STYLE = re.compile(r"""(?:url\(|@import)\s*["']?((?:https?:)?//[^"')\s]+)""")
# What a browser fetches by itself; a link that a reader follows is none.
LOADS = {
    "script": "src",
    "link": "href",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "object": "data",
}
MERELY_SAID = {"canonical", "next", "prev", "alternate"}


class _Loads(HTMLParser):
    """Collects the addresses that a page loads."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        if tag in LOADS and told.get("rel") not in MERELY_SAID:
            self.found.append(told.get(LOADS[tag]) or "")


def foreign(site: Path) -> Iterator[str]:
    """A line for each thing that is loaded from elsewhere."""
    for file in sorted([*site.rglob("*.html"), *site.rglob("*.css")]):
        if file.suffix == ".html":
            parser = _Loads()
            parser.feed(file.read_text())
            found = [address for address in parser.found if ABSOLUTE.match(address)]
        else:
            found = IN_STYLE.findall(file.read_text())
        yield from (f"{file.relative_to(site)} loads {address}" for address in found)
