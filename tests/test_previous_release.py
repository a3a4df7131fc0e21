"""The release before this one, its real processes, on a database that this one has migrated: half of a deployment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
import requests

import factories
from conftest import settings_for
from customer_orders import main as application
from customer_orders import migrations
from serving import BIN, ROOT, serving, wait_for

pytestmark = pytest.mark.processes


def git(*words: str) -> bytes | None:
    """What git says; None if it does not know, or there is none."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def previous_release() -> str | None:
    """The commit of the last release; before the first one, that which had not got the last migration yet."""
    tag = git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^")
    if tag:
        return tag.decode()
    (newest,) = Path(migrations.__file__).parent.glob(f"versions/{migrations.head()}_*.py")
    added = git("log", "--diff-filter=A", "--format=%H", "--", str(newest))
    if not added:
        # it is not committed yet, or there is no history
        return "HEAD" if added is not None else None
    return f"{added.decode().split()[-1]}^"


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """The folder with the code of the release before."""
    commit = previous_release()
    code = commit and git("archive", commit, "src", "plugins", "development.ini")
    if not code:
        pytest.skip("there is no history here to take the previous release from (an archive, or a shallow clone)")
    folder = tmp_path_factory.mktemp("previous")
    with tarfile.open(fileobj=BytesIO(code)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def server(old, new_database, database_kind, tmp_path_factory):
    """A server of the release before, on the schema of now."""
    path = os.pathsep.join(str(found) for found in [old / "src", *sorted(old.glob("plugins/*/src"))])
    ran = [sys.executable, "-W", "ignore", "-c", "import customer_orders; print(customer_orders.__file__)"]
    shown = subprocess.run(ran, env={**os.environ, "PYTHONPATH": path}, check=True, capture_output=True, text=True)
    assert shown.stdout.startswith(str(old))
    url = new_database(database_kind, migrated=True)
    # no delivery by itself: that is for its worker
    more = {"PYTHONPATH": path, "NOTIFICATIONS_DISPATCHER": "worker", "NOTIFICATIONS_POLL_INTERVAL": "1"}
    with serving(tmp_path_factory.mktemp("server"), url, old / "development.ini", **more) as started:
        yield started


@pytest.fixture
def ask(server):
    """Asks that server: ``ask("GET", "/api/orders/")``; what it answers."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {server.token('admin')}"

        def call(method, path, **more):
            answer = session.request(method, f"{server.url}{path}", timeout=30, **more)
            assert answer.ok, answer.text
            return answer.json()

        yield call


def test_its_processes_go_on_beside_those_of_this_one(server, ask, old, client_of):
    customer = ask("POST", "/api/customers/", json={"username": "Amina", "phone_number": "+254700000001"})
    order = ask("POST", "/api/orders/", json={"item": "Tea", "amount": 1, "customer": customer["id"]})
    assert [one["id"] for one in ask("GET", "/api/orders/")] == [order["id"]]
    path = f"/api/orders/{order['id']}"
    with (old / "worker.log").open("wb") as log:
        command = [str(BIN / "customer-orders"), "worker", "-c", str(server.ini)]
        worker = subprocess.Popen(command, env=server.environ, stdout=log, stderr=log)
    try:
        sent = ("sent", "delivered")
        wait_for(lambda: ask("GET", path)["notification"]["status"] in sent, "its worker sends", 60)
    finally:
        worker.terminate()
        assert worker.wait(60) == 0
    assert ask("PATCH", path, json={"status": "confirmed"})["status"] == "confirmed"
    # what one writes the other reads, and the other way round
    new = application({}, **settings_for(server.environ["SQLALCHEMY_URL"]))
    client = client_of(new)
    assert client.get(path).json["status"] == "confirmed"
    placed = factories.order(client, customer=customer["id"])
    assert ask("GET", f"/api/orders/{placed['id']}")["item"] == "Tea"
    ask("PATCH", f"/api/orders/{placed['id']}", json={"item": "Coffee"})
    assert client.get(f"/api/orders/{placed['id']}").json["item"] == "Coffee"
    new.registry.database.engine.dispose()


def test_it_stays_ready(server, old):
    if "def state(" not in (old / "src/customer_orders/migrations/__init__.py").read_text():
        pytest.skip("that release came before old processes stayed ready on a newer schema")
    assert requests.get(f"{server.url}/readyz", timeout=30).json()["status"] == "ok"
