"""The page behind each problem's ``type``: what it means and what to do, from the table in ``problems.py``."""

from __future__ import annotations

from typing import Any

from customer_orders.api import NO_PERMISSION_REQUIRED, Service
from customer_orders.api.problems import PROBLEMS
from customer_orders.errors import NotFound

problem = Service("problem", "/problems/{code}", page=True, renderer="customer_orders:templates/problem.jinja2")


@problem.get(permission=NO_PERMISSION_REQUIRED, query=None)
def explain_problem(request: Any) -> dict[str, Any]:
    """Explain one kind of problem."""
    code = request.matchdict["code"]
    if code not in PROBLEMS:
        raise NotFound("There is no such problem.")
    return {"problem": PROBLEMS[code], "code": code, "detail": "", "request_id": ""}


def includeme(config: Any) -> None:
    """Serve the pages."""
    config.scan("customer_orders.api.problem_pages")
