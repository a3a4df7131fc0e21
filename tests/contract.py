"""What the contract says of every answer, as assertions that several tests share."""

from __future__ import annotations

import re
from typing import Any

from webtest import TestApp

from customer_orders.auth.services import local_user

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
MEMBERS = {"type", "title", "status", "detail", "code", "request_id"}


def assert_problem(response: Any, status: int, code: str, *names: str) -> dict[str, Any]:
    """The problem that ``response`` is; it has this status and code, and its ``errors`` name exactly ``names``."""
    assert response.status_int == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json
    assert set(problem) - {"errors", "existing", "allowed"} == MEMBERS
    assert problem["status"] == status
    assert problem["code"] == code, problem
    assert problem["type"] == f"http://127.0.0.1:6543/problems/{code}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"] == response.headers["X-Request-Id"]
    assert sorted({error["name"] for error in problem.get("errors", ())}) == sorted(names), problem
    return problem


def signed_in(app: Any, role: str = "clerk") -> TestApp:
    """A client of an application other than the tests' shared one, signed in with ``role``."""
    with app.registry.database.transaction() as session:
        user_id = local_user(session, f"{role}@shop.example", role).id
    client = TestApp(app)
    client.authorization = ("Bearer", app.registry.access_tokens.create_token(str(user_id)))
    return client
