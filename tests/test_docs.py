"""What the documentation says of the code is there."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from customer_orders.api import operations
from customer_orders.api.catalogue import PROBLEMS
from customer_orders.plugins import GROUP
from customer_orders.sections import CORE
from customer_orders.settings import variable
from loopback import Answer, provider
from serving import BIN, ROOT, Server, serving, unmeasured, wait_for
from snippets import Shell, failures, fences, fits

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


SHOWN_AS = "127.0.0.1:6543"
TUTORIAL = ROOT / "docs" / "tutorial.md"
WITH_COMMANDS = [page for page in PAGES if page != TUTORIAL and any(fence.language == "bash" for fence in fences(page))]
GRANTED = "export API=http://127.0.0.1:6543/api TOKEN={token}\n"
STOCK = """
ask() { curl -sSf -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" "$@"; }
ask $API/customers/ -d '{"username": "Asha", "phone_number": "+447700900001"}'
ask $API/orders/ -d '{"item": "Tea", "amount": 10000, "customer": 1}'
until ask $API/orders/1 | grep -q '"status":"failed"'; do sleep 0.2; done
"""


@contextmanager
def a_clone(folder: Path) -> Iterator[tuple[Path, Server]]:
    """A folder that is to a reader what a clone is in which `make serve` runs, and the server."""
    (folder / "var").mkdir(parents=True)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(BIN)
    shutil.copy(ROOT / "development.ini", folder)
    url = f"sqlite:///{folder}/var/customer-orders.sqlite"
    secret = secrets.token_urlsafe(32)
    environ = {
        "NOTIFICATIONS_REPORT_SECRETS": secret,
        "DEVTOOLS_REPORT_URL": f"{{url}}/api/notifications/reports/devtools/{secret}",
    }
    with serving(folder / "var", url, folder / "development.ini", **environ) as server:
        yield folder, server


def readers_environ() -> dict[str, str]:
    """The environment of somebody who follows a page: no setting of the service is in it yet."""
    return {"PYTHONWARNINGS": "ignore:pkg_resources is deprecated", **unmeasured()}


def follow(page: Path, folder: Path, server: Server, granted: str) -> list[str]:
    """Do what a page says, in a shell that has what it takes for granted; what went otherwise than it shows."""
    address = server.url.removeprefix("http://")
    with closing(Shell(folder, readers_environ())) as shell:
        printed, status = shell.run(granted.replace(SHOWN_AS, address))
        assert status == 0, printed
        return list(failures(page, shell, address, SHOWN_AS))


@pytest.mark.processes
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    with a_clone(tmp_path / "clone") as (folder, server):
        wrong = follow(TUTORIAL, folder, server, "")
    assert wrong == [], "\n\n".join(wrong)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server, str]]:
    """What pages take for granted that do not begin at the beginning; all of them share it, in their order."""
    with a_clone(tmp_path_factory.mktemp("shop") / "clone") as (folder, server):
        granted = GRANTED.format(token=server.token("admin"))
        with closing(Shell(folder, readers_environ())) as shell:
            printed, status = shell.run(
                f"set -e; {granted}{STOCK}".replace(SHOWN_AS, server.url.removeprefix("http://"))
            )
        assert status == 0, printed
        yield folder, server, granted


@pytest.mark.processes
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=[str(page.relative_to(ROOT)) for page in WITH_COMMANDS])
def test_what_a_page_says_to_do_does_what_it_says(page: Path, shop: tuple[Path, Server, str]) -> None:
    wrong = follow(page, *shop)
    assert wrong == [], "\n\n".join(wrong)


def test_commands_are_run_or_a_page_says_why_not() -> None:
    untold = []
    for page in (ROOT / "docs").rglob("*.md"):
        for fence in fences(page):
            if fence.language in ("sh", "shell", "console") and not fence.why:
                untold.append(f"{page.name}:{fence.line}: write bash, so that it is run, or before it why it is not")
        for number, line in enumerate(page.read_text().splitlines(), 1):
            if re.match(r" {4,}curl ", line):
                untold.append(f"{page.name}:{number}: write a fence of bash, so that it is run")
    assert untold == []


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("a", "a\n", True),
        ("a", "b", False),
        ("a", "a\nb", False),
        ("a\n...", "a\nb\nc", True),
        ("a\n...\nd", "a\nb\nc", False),
        ('"id": ...,', '"id": 17,', True),
        ('"id": ...,', '"id": 17', False),
        ("x...", "x\ny", False),
        (".", "a", False),
        ("HTTP/1.1 200 OK\n\n[]", "HTTP/1.1 200 OK\r\n\r\n[]", True),
    ],
)
def test_what_may_be_shown_for_what_was_printed(shown: str, printed: str, expected: bool) -> None:
    assert fits(shown, printed) is expected


@pytest.fixture(scope="module")
def pigeon(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The package that docs/plugins.md is about, made of the page and installed: its folder, and how to import it."""
    source, installed = tmp_path_factory.mktemp("pigeon"), tmp_path_factory.mktemp("installed")
    for fence in fences(ROOT / "docs" / "plugins.md"):
        if fence.title:
            file = source / fence.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(fence.text)
    how = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    run_module("pip", "install", *how, "--target", str(installed), str(source))
    path = os.pathsep.join([str(installed), *filter(None, [os.environ.get("PYTHONPATH")])])
    return source, {"PYTHONPATH": path}


def run_module(*words: str, folder: Path = ROOT, **environ: str) -> None:
    """Run a Python module; fails with what it printed if that fails."""
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=folder, env={**unmeasured(), **environ}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_of_the_page_passes_its_own_tests(pigeon: tuple[Path, dict[str, str]]) -> None:
    folder, environ = pigeon
    run_module("pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore:pkg_resources", folder=folder, **environ)


@pytest.mark.processes
def test_the_plugin_of_the_page_sends_and_hears_what_became_of_it(
    pigeon: tuple[Path, dict[str, str]], tmp_path: Path, new_database: Any
) -> None:
    ini = next(fence.text for fence in fences(ROOT / "docs" / "plugins.md") if fence.language == "ini")
    given = dict(line.split(" = ") for line in ini.splitlines())
    key, secret = secrets.token_urlsafe(16), secrets.token_urlsafe(32)
    with provider() as post:
        taken = {"id": "pigeon-1", "price": "0.5", "currency": "KES"}
        post.answer = lambda asked: Answer(taken, 201) if asked.method == "POST" else Answer({})
        given |= {"pigeon.url": post.url, "pigeon.api_key": key, "notifications.report_secrets": secret}
        environ = {variable(name): value for name, value in given.items()} | pigeon[1]
        with serving(tmp_path, new_database("sqlite", migrated=True), **environ) as server, requests.Session() as staff:
            staff.headers["Authorization"] = f"Bearer {server.token('clerk')}"
            staff.post(f"{server.url}/api/customers/", json={"username": "Asha", "phone_number": "+254713812939"})
            placed = staff.post(f"{server.url}/api/orders/", json={"item": "Tea", "amount": 1, "customer": 1})

            def became() -> Any:
                return staff.get(placed.headers["Location"]).json()["notification"]

            wait_for(lambda: became()["status"] == "sent", "the message is sent")
            assert became()["cost"] == {"amount": "0.5000", "currency": "KES"}
            report = {"id": "pigeon-1", "status": "delivered"}
            assert requests.post(f"{server.url}/api/notifications/reports/pigeon/{secret}", json=report, timeout=30).ok
            assert became()["status"] == "delivered"
            assert "Pigeon Post knows the account." in server.command("doctor", "--only", "pigeon")
    asked, account = post.asked
    assert (account.method, account.path) == ("GET", "/account")
    assert json.loads(asked.body)["to"] == "+254713812939"
    assert (asked.headers["Authorization"], asked.headers["Idempotency-Key"]) == (f"Bearer {key}", "notification-1")


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the site, and with them: what is committed of what is made is up to date."""
    folder = tmp_path_factory.mktemp("staged") / "pages"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(ROOT / "tools" / "site"), "--check", "--into", str(folder)],
        env=readers_environ(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def in_navigation(entry: Any) -> Iterator[str]:
    """The pages of an entry of the navigation, and of those below it."""
    if isinstance(entry, str):
        yield entry
    else:
        for below in entry if isinstance(entry, list) else entry.values():
            yield from in_navigation(below)


def test_every_page_has_one_place_in_the_navigation_of_the_site(staged: Path) -> None:
    listed = list(in_navigation(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    assert len(listed) == len(set(listed))
    assert [page for page in listed if not (staged / page).is_file()] == []
    own = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert own - set(listed) == set(), "add a line to nav in zensical.toml"
    made = {str(page.relative_to(staged)) for page in (staged / "reference").glob("*.md")}
    assert made - set(listed) == set(), "add a line to nav in zensical.toml"


def test_the_site_has_the_style_that_it_names(staged: Path) -> None:
    styles = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["extra_css"]
    assert [style for style in styles if not (staged / style).is_file()] == []


def test_every_problem_has_its_page(staged: Path) -> None:
    assert {page.stem for page in (staged / "problems").iterdir()} == set(PROBLEMS)
    listed = (staged / "problems.md").read_text()
    for code, problem in PROBLEMS.items():
        told = (staged / "problems" / f"{code}.md").read_text()
        assert f"(problems/{code}.md)" in listed
        for said in (problem.title, problem.meaning, problem.remedy, f'"code": "{code}"'):
            assert said in told


def test_every_operation_is_in_the_reference(staged: Path, make_app: Callable[..., Any]) -> None:
    registry = make_app("sqlite").registry
    told = "\n".join(page.read_text() for page in (staged / "reference").iterdir())
    for service, operation in operations(registry):
        assert f"\n{operation.method} {service.path}\n" in told


def test_every_setting_is_in_the_configuration(make_app: Callable[..., Any]) -> None:
    registry = make_app("sqlite").registry
    told = (ROOT / "docs" / "configuration.md").read_text()
    headings = re.findall(r"(?m)^### `(.+)`$", told)
    assert len(headings) == len(set(headings))
    for section in CORE:
        for setting in registry.sections[section]:
            assert setting.key in headings
            assert f"`{variable(setting.key)}_FILE`" in told
    # a plugin of this repository has its section, too
    plugins = [path.parent.name for path in ROOT.glob("plugins/*/setup.cfg") if GROUP in path.read_text()]
    assert len(plugins) >= 3
    for name in plugins:
        assert f"/{name}/README.md)" in told
