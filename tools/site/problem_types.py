"""The pages of the problems, from what the service's own pages tell (``api/problem_pages.py``)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from application import application
from operations import anchor
from pyramid.request import Request

from customer_orders.api.catalogue import PROBLEMS
from customer_orders.api.problem_pages import explained

INDEX = """\
# Problems

Every error of every path is a *problem* (RFC 9457): JSON with a `code` to branch on, a `detail` for people, and a
`type` that leads to the page of the service about it, which says the same as the one here.

| status | code | what it says |
|---|---|---|
"""


def pages() -> Iterator[tuple[PurePosixPath, str]]:
    """Each page, and where it goes."""
    request = Request.blank("/")
    request.registry = application().registry
    rows = (
        f"| {problem.status} | [`{code}`](problems/{code}.md) | {problem.title} |" for code, problem in PROBLEMS.items()
    )
    yield PurePosixPath("problems.md"), INDEX + "\n".join(rows) + "\n"
    for code in PROBLEMS:
        yield PurePosixPath(f"problems/{code}.md"), _page(**explained(request, code))


def _page(problem: Any, code: str, example: str, where: Any) -> str:
    head = [f"HTTP/1.1 {problem.status}", "Content-Type: application/problem+json"]
    if problem.retry_after is not None:
        head.append(f"Retry-After: {problem.retry_after}")
    if where is None:
        places = "Any path may answer so."
    elif not where:
        places = "No operation of the API; a page to sign in."
    else:
        places = "\n".join(_place(service, operation) for service, operation in where)
    return "\n\n".join(
        [
            f"# {problem.title}",
            f"Status {problem.status}, code `{code}`.",
            problem.meaning,
            "## What to do",
            problem.remedy,
            "## What the answer looks like",
            "\n".join(["```http", *head, "", example, "```"]),
            "Branch on `code`: it is stable. The other texts are for people.",
            "## Where",
            places,
            "[All problems](../problems.md)\n",
        ]
    )


def _place(service: Any, operation: Any) -> str:
    page = service.tags[0].replace(" ", "-")
    return f"* [`{operation.method} {service.path}`](../reference/{page}.md#{anchor(operation.operation_id)})"
