"""The page behind each problem's ``type``, made from the table that answers are made from (``catalogue.py``)."""

from __future__ import annotations

from typing import Any

import orjson

from customer_orders.api import NO_PERMISSION_REQUIRED, Operation, Service, operations
from customer_orders.api.catalogue import ANYWHERE, PROBLEMS
from customer_orders.api.problems import body
from customer_orders.errors import NotFound

EXAMPLE_REQUEST_ID = "5f1c0a64e3b94f0d8d6a7b0c9e2f1a34"

problems = Service("problems", "/problems/", page=True, renderer="customer_orders:templates/problems.jinja2")
explanation = Service("problem", "/problems/{code}", page=True, renderer="customer_orders:templates/problem.jinja2")


@problems.get(permission=NO_PERMISSION_REQUIRED, query=None)
def list_problems(request: Any) -> dict[str, Any]:
    """List every kind of problem."""
    return {"problems": PROBLEMS}


@explanation.get(permission=NO_PERMISSION_REQUIRED, query=None)
def explain_problem(request: Any) -> dict[str, Any]:
    """Explain one kind of problem."""
    code = request.matchdict["code"]
    if code not in PROBLEMS:
        raise NotFound("There is no such problem.")
    return explained(request, code)


def explained(request: Any, code: str) -> dict[str, Any]:
    """All that a page tells of one kind of problem: the service's own page, and the documentation's."""
    problem = PROBLEMS[code]
    example = {**body(request, code, "What exactly, in a sentence.", EXAMPLE_REQUEST_ID), **problem.example}
    return {
        "problem": problem,
        "code": code,
        "example": orjson.dumps(example, option=orjson.OPT_INDENT_2).decode(),
        "where": _where(request, code),
    }


def _where(request: Any, code: str) -> list[tuple[Service, Operation]] | None:
    """The operations that may answer so; None: every path may."""
    if code in ANYWHERE:
        return None
    return [found for found in operations(request.registry) if code in found[1].problems]


def includeme(config: Any) -> None:
    """Serve the pages."""
    config.scan("customer_orders.api.problem_pages")
