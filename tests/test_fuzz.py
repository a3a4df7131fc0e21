"""schemathesis against a real server, as anyone would run it: every check, three seeds, both databases.

A few requests of each kind by itself; all of them, which take minutes, with ``make fuzz``, which sets ``STORMS=full``.
"""

from __future__ import annotations

import os
import subprocess

import pytest
import requests

from serving import BIN, ROOT, serving, unmeasured

FULL = os.environ.get("STORMS") == "full"

SEEDS = (1, 2, 3)
# Requests that are made up for each operation.
EXAMPLES = 200 if FULL else 3
# Seconds that one run may take.
PATIENCE = 1200 if FULL else 300

pytestmark = [pytest.mark.processes, pytest.mark.timeout(PATIENCE + 20)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory, new_database, database_kind):
    """A server on an empty database, which all seeds share."""
    folder = tmp_path_factory.mktemp("fuzz")
    # a token that is good until the last seed
    with serving(folder, new_database(database_kind), JWT_EXPIRATION="86400") as server:
        yield server


@pytest.fixture(scope="module")
def headers(shop):
    """What an admin sends."""
    token = shop.command("token", "create", "--email", "owner@shop.example", "--role", "admin")
    return {"Authorization": f"Bearer {token}"}


def fill(shop, headers, seed):
    """A few things that exist, so that ids of some are found."""
    for number in range(3):
        known = {"reference": f"{seed}-{number}", "metadata": {"key": str(number)}}
        told = {"username": f"Amina {number}", "phone_number": f"071381293{number}", **known}
        customer = requests.post(f"{shop.url}/api/customers/", json=told, headers=headers, timeout=30).json()
        told = {"item": "Tea", "amount": number, "customer": customer["id"], **known}
        assert requests.post(f"{shop.url}/api/orders/", json=told, headers=headers, timeout=30).status_code == 201


@pytest.mark.parametrize("seed", SEEDS)
def test_schemathesis_finds_nothing(shop, headers, tmp_path, seed):
    fill(shop, headers, seed)
    config = ["--config-file", str(ROOT / "tests" / "schemathesis.toml")]
    # the other phases make nearly the same requests for every seed, "coverage" some 1,500
    options = ["--checks", "all", "--seed", str(seed), "--max-examples", str(EXAMPLES), "--no-color"]
    options += [] if FULL else ["--phases", "fuzzing,stateful"]
    # any filter will do: without one it leaves out the document's own path
    options += ["--include-path-regex", "."]
    sent = ["--header", f"Authorization: {headers['Authorization']}"]
    done = subprocess.run(
        [str(BIN / "schemathesis"), *config, "run", *options, *sent, f"{shop.url}/api/api.json"],
        # its hooks are in fuzzing.py
        env={**unmeasured(), "PYTHONPATH": str(ROOT / "tests")},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
    )
    # shown if this fails, or with -rP
    print(done.stdout)
    assert done.returncode == 0
    # it left nothing out
    paths = requests.get(f"{shop.url}/api/api.json", timeout=30).json()["paths"].values()
    operations = sum(method != "parameters" for item in paths for method in item)
    assert f"Tested: {operations}\n" in done.stdout
    assert " ERROR " not in shop.log.read_text()
