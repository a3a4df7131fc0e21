"""``make image-check``: the image, really built, does what operators are told of it. See imaging.py for how."""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import requests
from sqlalchemy.engine import make_url

from imaging import Builder, Deployment, Image, debian, lacking
from serving import ROOT, free_port, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.timeout(1800)

SOURCE = "https://forge.example/customer-orders"
BASE = "localhost/debian-with-python:trial"
# Where things of a build are, and what only a build or a laptop needs.
BUILDING = ("gcc", "cc", "make", "git", "pip", "pip3")
PYTHON = "/opt/customer-orders/bin/python"


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The image of this tree."""
    if said := lacking():
        pytest.fail(f"the image cannot be tried here. {said}", pytrace=False)
    folder = Path(tempfile.mkdtemp(prefix="image"))
    builder = Builder(folder)
    try:
        yield builder.make(builder.imported(debian(folder), BASE), "localhost/customer-orders", SOURCE)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def deployment(image: Image, postgresql: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    """What the image's production.ini needs, and an empty PostgreSQL."""
    url = make_url(postgresql("image"))
    (socket,) = Path(str(url.query["host"])).glob(".s.PGSQL.*[0-9]")
    port = free_port()
    environ = {
        "SQLALCHEMY_URL": url.set(query={"host": "/tmp/postgresql"}).render_as_string(hide_password=False),
        "APP_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "SERVER_LISTEN": f"127.0.0.1:{port}",
        "JWT_PRIVATE_KEY": secrets.token_urlsafe(64),
        "GOOGLE_CLIENT_ID": "nobody.apps.googleusercontent.com",
        "GOOGLE_CLIENT_SECRET": secrets.token_urlsafe(24),
        "AFRICASTALKING_USERNAME": "sandbox",
        "AFRICASTALKING_API_KEY": secrets.token_hex(32),
    }
    log = tmp_path_factory.mktemp("image") / "log"
    return Deployment(image, log, environ, {socket: f"/tmp/postgresql/{socket.name}"})


def entry(image: Image, *words: str) -> list[str]:
    """What a container of the image starts with, given these words."""
    return [*image.config["Entrypoint"], *(words or image.config["Cmd"])]


def test_it_says_what_it_is(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\nThe image takes {image.size}.")
    labels = {key.rpartition("image.")[2]: value for key, value in image.config["Labels"].items()}
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    version = re.search(r"(?m)^version = (.+)$", (ROOT / "setup.cfg").read_text())
    assert version is not None
    assert labels["title"] == "Customer Orders"
    assert (labels["version"], labels["source"]) == (version[1], SOURCE)
    assert labels["revision"].removesuffix("-dirty") == git.stdout.strip() != ""
    assert labels["base.name"] == BASE
    assert image.config["StopSignal"] == "SIGTERM"
    assert image.run(*entry(image, "--version")).stdout == f"customer-orders, version {version[1]}\n"


def test_it_runs_as_a_user_who_owns_nothing_and_writes_nowhere(image: Image) -> None:
    asked = "import os; print(os.getuid(), os.getgid(), os.getgroups(), os.getpid())"
    assert image.run(PYTHON, "-c", asked).stdout == "10001 10001 [] 1\n"
    for place in ("/", "/opt/customer-orders", "/etc/customer-orders", "/var/tmp"):
        assert "Read-only file system" in image.run("touch", f"{place}/trial").stderr
    assert image.run("touch", "/tmp/trial").returncode == 0
    # not even where an engine leaves the root writable
    found = ["find", str(image.root), "-xdev", "(", "-type", "f", "-o", "-type", "d", ")"]
    theirs = ["(", "-uid", "10001", "-o", "-gid", "10001", "-o", "-perm", "-0002", "!", "-perm", "-1000", ")"]
    assert subprocess.run([*found, *theirs], capture_output=True, text=True).stdout == ""


def test_what_only_a_build_or_a_laptop_needs_is_not_in_it(image: Image) -> None:
    programs = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "opt/customer-orders/bin")
        if (image.root / folder).is_dir()
        for path in (image.root / folder).iterdir()
    }
    assert "python3" in programs
    assert programs & set(BUILDING) == set()
    for folder in ("build", "pip", "wheels", "root/.cache", "root/.config"):
        assert not (image.root / folder).exists()
    secret = image.root / "etc/pip.conf"
    assert not secret.exists() or secret.read_text() == ""
    (packages,) = (image.root / "opt/customer-orders/lib").glob("*/site-packages")
    assert [path for path in packages.rglob("tests") if path.parts[-2].startswith("customer_orders")] == []
    assert sorted(path.name.partition("-")[0] for path in packages.glob("customer_orders*.dist-info")) == [
        "customer_orders",
        "customer_orders_africastalking",
        "customer_orders_google",
        "customer_orders_http",
    ]
    found = image.run(PYTHON, "-c", "import importlib.util as u; print(u.find_spec('customer_orders_devtools'))")
    assert found.stdout == "None\n"


def test_devtools_cannot_be_switched_on(deployment: Deployment) -> None:
    image, environ = deployment.image, deployment.environ | {"PLUGINS": "devtools"}
    done = image.run(*entry(image, "settings"), **environ)
    assert done.returncode == 1
    assert re.search(r"devtools.*\n?.*africastalking, google", done.stderr)


def test_its_bytecode_is_all_there_and_never_looked_at_again(image: Image) -> None:
    (packages,) = (image.root / "opt/customer-orders/lib").glob("*/site-packages")
    compiled = [path.read_bytes()[4] for path in packages.rglob("*.pyc")]
    # hashed, and not checked: PEP 552
    assert len(compiled) > 1000
    assert set(compiled) == {0b01}
    asked = "import os, sys, http.client; print([n for n, m in sys.modules.items() if getattr(m, '__cached__', None)"
    said = image.run(PYTHON, "-c", f"{asked} and not os.path.exists(m.__cached__)])").stdout
    assert said == "[]\n"


def test_bad_settings_are_all_named(image: Image) -> None:
    done = image.run(*entry(image))
    assert done.returncode == 1
    assert re.search(r"/etc/customer-orders/production.ini: \d+ settings are wrong", done.stderr)
    assert "SQLALCHEMY_URL_FILE" in done.stderr


def test_it_migrates_serves_and_delivers(deployment: Deployment) -> None:
    image, url = deployment.image, deployment.environ["APP_PUBLIC_URL"]
    healthy = image.config["Healthcheck"]["Test"]
    assert healthy[0] == "CMD"
    assert deployment.does(*healthy[1:]) == 1
    assert deployment.does(*entry(image, "db", "upgrade")) == 0, deployment.said()
    # containers have an address each, and these share one
    metrics = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    with deployment.running(*entry(image), METRICS_LISTEN=metrics[0]) as server:

        def answers() -> bool:
            assert not server.ended(), deployment.said()
            return deployment.does(*healthy[1:]) == 0

        wait_for(answers, "the health check is content", 60)
        assert requests.get(f"{url}/livez", timeout=30).json() == {"status": "ok"}
        assert requests.get(f"{url}/readyz", timeout=30).json()["status"] == "ok"
        assert requests.get(f"{url}/api/", timeout=30).status_code == 200
        with deployment.running(*entry(image, "worker"), METRICS_LISTEN=metrics[1]) as worker:
            wait_for(lambda: worker.ended() or "The worker is delivering." in deployment.said(), "it delivers", 60)
            assert not worker.ended(), deployment.said()
            for address in metrics:
                assert "customer_orders_info" in requests.get(f"http://{address}/", timeout=30).text
            assert worker.terminate() == 0
        assert server.terminate() == 0, deployment.said()
    assert deployment.does(*healthy[1:]) == 1


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.14"])
def test_each_machine_finds_its_wheels(machine: str, python: str, tmp_path: Path) -> None:
    asked = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--python-version", python]
    of = [word for tag in ("2_17", "2_28", "2_34") for word in ("--platform", f"manylinux_{tag}_{machine}")]
    words = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        *asked,
        *of,
        "-r",
        "requirements.txt",
        "-d",
        str(tmp_path),
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
