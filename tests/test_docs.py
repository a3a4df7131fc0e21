"""What the documentation says of the code is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving import ROOT

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *ROOT.glob("plugins/*/README.md"),
        ROOT / "terraform" / "README.md",
    ]
)
TESTS = [*(ROOT / "tests").glob("*.py"), *ROOT.glob("plugins/*/tests/*.py")]


def slug(heading: str) -> str:
    """The anchor that a heading gets on the pages of a repository."""
    return re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        anchors = {slug(found) for found in re.findall(r"(?m)^#+ (.+)$", target.read_text())} if anchor else {""}
        if not target.exists() or anchor not in anchors:
            broken.append(link)
    assert broken == []


def test_every_test_that_the_threat_model_names_exists() -> None:
    text = (ROOT / "docs" / "threat-model.md").read_text()
    files = set(re.findall(r"`((?:tests|plugins)/[\w/-]+\.py)`", text))
    assert len(files) > 15
    assert [name for name in sorted(files) if not (ROOT / name).is_file()] == []
    named = set(re.findall(r"`(test_\w+)`", text))
    assert len(named) > 25
    defined = {name for path in TESTS for name in re.findall(r"def (test_\w+)\(", path.read_text())}
    assert named - defined == set()


def test_the_readme_leads_to_what_is_said_of_security() -> None:
    text = (ROOT / "README.md").read_text()
    assert "](SECURITY.md)" in text
    assert "](docs/threat-model.md)" in text
