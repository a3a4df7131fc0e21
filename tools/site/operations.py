"""The reference of the API: a page for each heading of the Swagger document that a service serves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from application import application
from pyramid.request import Request

METHODS = ("get", "post", "put", "patch", "delete", "head")
PROBLEM_LINK = re.compile(r"\]\(/problems/([a-z-]+)\)")
# Longer lists of words are told by their length: nobody reads all currencies.
WORDS = 20


def document() -> dict[str, Any]:
    """The Swagger document."""
    told: dict[str, Any] = Request.blank("/api/api.json").get_response(application()).json_body
    return told


def pages() -> Iterator[tuple[PurePosixPath, str]]:
    """Each page, and where it goes."""
    told = document()
    for tag in told["tags"]:
        found = [
            _operation(told, path, method, operation)
            for path, methods in told["paths"].items()
            for method, operation in methods.items()
            if method in METHODS and tag["name"] in operation["tags"]
        ]
        head = f"# {tag['name'].capitalize()}\n\n{tag['description']}\n"
        yield PurePosixPath("reference", f"{tag['name'].replace(' ', '-')}.md"), "\n".join([head, *found])


def anchor(operation_id: str) -> str:
    """Where an operation is on its page."""
    return operation_id.replace("_", "-")


def _operation(told: dict[str, Any], path: str, method: str, operation: dict[str, Any]) -> str:
    parts = [f"## {operation['summary']} {{ #{anchor(operation['operationId'])} }}\n"]
    parts.append(f"```http\n{method.upper()} {told['basePath']}{path}\n```\n")
    if operation.get("description"):
        parts.append(f"{operation['description']}\n")
    parts.append("Needs a token or an API key.\n" if operation.get("security") else "Needs no token.\n")
    given = operation.get("parameters", [])
    for where, title in (("path", "In the path"), ("query", "In the query"), ("header", "Headers")):
        rows = [_row(each["name"], each, required=each["required"]) for each in given if each["in"] == where]
        parts += _table(title, rows)
    for each in given:
        if each["in"] == "body":
            parts += _table("Body", _fields(told, each["schema"], "", given=True))
    failures: list[str] = []
    for status, answer in operation["responses"].items():
        if status < "400":
            parts += _success(told, status, answer)
        else:
            failures.append(PROBLEM_LINK.sub(r"](../problems/\1.md)", f"* {status}: {answer['description']}"))
    parts.append("\n".join(["**Problems**\n", *failures, ""]))
    return "\n".join(parts)


def _success(told: dict[str, Any], status: str, answer: dict[str, Any]) -> Iterator[str]:
    schema = answer.get("schema", {})
    many = "items" in schema
    yield f"**Answer {status}** {answer['description']}{' A list of:' if many else ''}\n"
    yield from _table("", _fields(told, schema.get("items", schema), ""))
    names = [f"`{name}`" for name in answer.get("headers", {}) if not name.startswith("RateLimit")]
    if names:
        yield f"Headers: {', '.join(names)}.\n"


def _fields(told: dict[str, Any], schema: dict[str, Any], prefix: str, *, given: bool = False) -> Iterator[str]:
    """A row for each field, those of objects in it below. ``given``: by the caller, who may leave out what they may."""
    if "$ref" in schema:
        schema = told["definitions"][schema["$ref"].rpartition("/")[2]]
    for name, each in schema.get("properties", {}).items():
        yield _row(f"{prefix}{name}", each, required=given and name in schema.get("required", ()))
        inner = each.get("items", each)
        yield from _fields(told, inner, f"{prefix}{name}{'[]' if 'items' in each else ''}.", given=given)


def _row(name: str, each: dict[str, Any], *, required: bool) -> str:
    said = each.get("description", "").replace("|", "\\|").replace("\n", " ")
    return f"| `{name}` | {_type(each)}{', required' if required else ''} | {said} |"


def _table(title: str, rows: Any) -> Iterator[str]:
    found = list(rows)
    if found:
        if title:
            yield f"**{title}**\n"
        yield "\n".join(["| name | type | meaning |", "|---|---|---|", *found]) + "\n"


def _type(each: dict[str, Any]) -> str:
    """The type of a value, in words, with its bounds."""
    words = [word for word in each.get("enum", ()) if word is not None]
    if words:
        said = ", ".join(f"`{word}`" for word in words) if len(words) <= WORDS else f"one of {len(words)} codes"
    elif "items" in each:
        said = f"list of {_type(each['items'])}" if each["items"].get("type") else "list"
    else:
        said = str(each.get("type", "anything") if each.get("format") in (None, "int64") else each["format"])
    low, high = (each.get(f"{which}imum", each.get(f"{which}Length")) for which in ("min", "max"))
    # of ids the bounds are the database's
    if not words and high is not None and high < 2**53:
        said += f", {low or 0} to {high}" + (" characters" if "maxLength" in each else "")
    return said + (", or null" if each.get("x-nullable") else "")
