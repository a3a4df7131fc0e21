"""That the canary run finds what it looks for: a search that never finds anything proves nothing."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys

from canary import search
from serving import ROOT, unmeasured

TESTS = """
import logging
from conftest import settings_for
from customer_orders import main
from customer_orders.api.fields import Phone
from webtest import TestApp

log = logging.getLogger("planted")


def test_it(tmp_path):
    number = Phone().e164("+254713{digits}", None)
    app = main({{}}, **settings_for(f"sqlite:///{{tmp_path}}/none.sqlite"))
    token = app.registry.access_tokens.create_token("1")
    TestApp(app).get("/livez", headers={{"Authorization": "Bearer co_1_{key}"}})
    secret = app.registry.sections["notifications"].report_secrets[0]
    {act}
"""
# in the log of a server, and in a record that nobody masks
PLANTED = """
    (tmp_path / "server.log").write_text(f"{number}\\n{token}\\nco_1_{key}\\n{secret}")
    log.handle(logging.LogRecord("planted", logging.INFO, "", 1, number, (), None))
"""


def run(tmp_path, act):
    """A run of one test that does something with the values of its own; its status and what it said."""
    given = {"digits": f"{secrets.randbelow(10**6):06d}", "key": secrets.token_urlsafe(32)}
    file = tmp_path / "test_planted.py"
    file.write_text(TESTS.format(act=act.strip().replace("{key}", given["key"]), **given))
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    options = ["-q", "-p", "canary", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--basetemp", str(tmp_path / "run"), str(file)],
        env={**unmeasured(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=100,
    )
    return done.returncode, done.stdout


def test_values_that_were_planted_are_found(tmp_path):
    status, said = run(tmp_path, PLANTED)
    assert status == 1, said
    assert "1 passed" in said
    server = ("phone", "access token", "what was sent as Authorization", "notifications.report_secrets")
    for number, what in enumerate(server, 1):
        assert f"server.log:{number}: {what}\n" in said
    assert re.search(r"canary/process-\d+\.log:\d+: phone\n", said)


def test_what_is_logged_is_masked_and_so_nothing_is_found(tmp_path):
    status, said = run(tmp_path, 'log.warning("to %s with Bearer %s and /api/x co_1_{key} %s", number, token, secret)')
    assert status == 0, said
    assert "values looked for in 1 logs" in said


def test_the_search_tells_where_and_what(tmp_path):
    log = tmp_path / "a.log"
    log.write_text("nothing\nsent to 0713 and +254713812939.\n")
    assert search({"+254713812939": "phone", "+254713812938": "phone"}, [log]) == [f"{log}:2: phone"]
