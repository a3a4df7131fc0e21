"""The Swagger 2.0 document, from cornice-swagger made valid and honest, and the dashboard that shows it."""

from __future__ import annotations

import copy
import functools
import re
from importlib.metadata import version
from typing import Any

import colander
from cornice_swagger import CorniceSwagger
from cornice_swagger.converters.schema import ObjectTypeConverter, TypeConverter

from customer_orders.api import NO_PERMISSION_REQUIRED, Operation, Service
from customer_orders.api.catalogue import PROBLEMS
from customer_orders.api.fields import MAX_ID, Body
from customer_orders.api.pages import SWAGGER_UI
from customer_orders.api.problems import CONTENT_TYPE

BASE_PATH = "/api"

DESCRIPTION = """\
Customers, their orders, and what became of the message about each.

**Signing in**: use *Sign in* above, or send `Authorization: Bearer <access token>`.
**Money**: `amount` is an integer in the minor unit of `currency`: 10000 with KES is KES 100.00.
**Times** are RFC 3339 in UTC. **Slashes**: every path answers with and without the one at its end.
**Lists** are bare arrays, newest first unless told; the `Link` header leads to the next page.
**Repeating** a POST with the same `Idempotency-Key` does nothing twice.
**Changing** something with `If-Match` overwrites nothing that you have not seen.
**Limits**: `RateLimit` tells what is left; over them, the answer is a 429 with `Retry-After`.
**Errors** are `application/problem+json` (RFC 9457) with a stable `code`.
"""

PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "A problem (RFC 9457).",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(PROBLEMS)},
        "request_id": {"type": "string"},
        "existing": {"type": "integer", "format": "int64", "description": "Id of what is in the way."},
        "allowed": {"type": "array", "items": {"type": "string"}, "description": "What the present state allows."},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["location", "name", "description"],
                "properties": {
                    "location": {"type": "string", "enum": ["body", "querystring", "header"]},
                    "name": {"type": "string"},
                    "description": {"type": "string"},
                },
            },
        },
    },
}

TAGS = [
    {"name": "customers", "description": "The people who order."},
    {"name": "orders", "description": "What they ordered, and what became of the message about it."},
    {"name": "notifications", "description": "The messages to customers: what became of each, and sending it again."},
    {"name": "session", "description": "Signing in and out, tokens, and this document."},
    {"name": "api keys", "description": "What machines show instead of a token."},
    {"name": "audit", "description": "Who did what, and what was refused."},
]

PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "id": {"type": "integer", "format": "int64", "minimum": 1, "maximum": MAX_ID},
    "provider": {"type": "string", "description": "Name of an identity provider, such as google."},
}


IDEMPOTENCY_KEY: dict[str, Any] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    # HTTP takes spaces off both ends
    "pattern": "^[!-~]([ -~]*[!-~])?$",
    "description": "A key of your own, such as a random UUID. The same request again with the same key does nothing "
    "more, and gets the same answer.",
}
TAG = r'(W/)?"[!#-~\u0080-\u00ff]*"'
IF_MATCH: dict[str, Any] = {
    "type": "string",
    "pattern": rf"^({TAG}(\s*,\s*{TAG})*|\*)$",
    "description": "The ETag of what you read: if somebody changed it since, nothing is done. What became of messages "
    "(the part after the dot) is no change.",
}
IF_NONE_MATCH: dict[str, Any] = {
    "type": "string",
    "description": "The ETag of what you have: if it is still the same, the answer is an empty 304.",
}
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {"type": "string", "description": "Its version, for If-Match and If-None-Match."},
    "Idempotent-Replayed": {"type": "string", "description": "true: this is the answer to an earlier request."},
    "Link": {"type": "string", "description": "The next page and the one before, if there are, and the first."},
    "Location": {"type": "string", "description": "Where the new thing is."},
    "RateLimit": {
        "type": "string",
        "description": 'What is left of each limit, as `"name";r=requests;t=seconds until there are more`.',
    },
    "RateLimit-Policy": {
        "type": "string",
        "description": 'The limits that the request was counted against, as `"name";q=requests;w=seconds`.',
    },
    "Retry-After": {"type": "integer", "description": "Seconds after which to send it again."},
    "X-Total-Count": {"type": "integer", "description": "Items on all pages, with `count=true`."},
}


# Of every answer, as long as its class has a limit.
LIMITED = ("RateLimit", "RateLimit-Policy")


class FieldConverter(TypeConverter):
    """Our own field types know their Swagger."""

    def __call__(self, node: colander.SchemaNode) -> dict[str, Any]:
        converted: dict[str, Any] = dict(node.typ.swagger())
        if node.description:
            converted["description"] = node.description
        if getattr(node, "nullable", False):
            converted["x-nullable"] = True
            if "enum" in converted:
                # JSON Schema refuses null where an enumeration does not name it
                converted["enum"] = [*converted["enum"], None]
        if node.missing not in (colander.required, colander.drop, None):
            converted["default"] = node.missing
        return converted


class ObjectConverter(ObjectTypeConverter):
    """Objects: unknown fields are said to be refused where they are."""

    def __call__(self, node: colander.SchemaNode) -> dict[str, Any]:
        converted: dict[str, Any] = super().__call__(node)
        converted.pop("title", None)
        if hasattr(node, "example"):
            converted["example"] = node.example
        if isinstance(node, Body):
            converted["additionalProperties"] = False
            for name in node.read_only:
                converted["properties"][name] = {"readOnly": True, "description": "Is ignored: send it as you read it."}
        if getattr(node, "nullable", False):
            converted["x-nullable"] = True
        return converted


class Document(CorniceSwagger):
    """Our services, their operations read from :class:`customer_orders.api.Operation`."""

    custom_type_converters = {colander.Mapping: ObjectConverter}
    default_type_converter = FieldConverter

    def _extract_operation_from_view(self, view: Any, args: dict[str, Any]) -> dict[str, Any]:
        operation = next(item for item in args["validators"] if isinstance(item, Operation))
        lines = (view.__doc__ or "").strip().partition("\n\n")
        described: dict[str, Any] = {
            "operationId": operation.operation_id,
            "summary": " ".join(lines[0].split()).rstrip("."),
            "produces": [*operation.produces, CONTENT_TYPE],
            "security": [] if operation.public else [{"Bearer": []}],
            "responses": self._responses(operation),
        }
        if lines[2]:
            described["description"] = " ".join(lines[2].split())
        if operation.body:
            described["consumes"] = ["application/json"]
        schema = colander.MappingSchema()
        if operation.body:
            missing = colander.drop if operation.body.optional else colander.required
            schema.add(operation.body(name="body", missing=missing))
        if operation.query:
            schema.add(operation.query(name="querystring"))
        parameters = [_tidy(parameter) for parameter in self.parameters.from_schema(schema)]
        parameters += [
            {"name": name, "in": "header", "required": False, **header}
            for name, header, taken in (
                ("Idempotency-Key", IDEMPOTENCY_KEY, operation.keyed),
                ("If-Match", IF_MATCH, operation.changes_tagged),
                ("If-None-Match", IF_NONE_MATCH, operation.tagged and operation.method == "GET"),
            )
            if taken
        ]
        if parameters:
            described["parameters"] = parameters
        return described

    def _responses(self, operation: Operation) -> dict[str, Any]:
        success: dict[str, Any] = {"description": _PHRASES.get(operation.status, "Done.")}
        headers = []
        if isinstance(operation.returns, list):
            success["schema"] = {"type": "array", "items": self._definition(operation.returns[0])}
            headers += ["Link", "X-Total-Count"]
        elif operation.returns:
            success["schema"] = self._definition(operation.returns)
        headers += ["Location"] if operation.creates else []
        headers += ["Idempotent-Replayed"] if operation.keyed else []
        headers += ["ETag"] if operation.tagged and operation.returns else []
        success["headers"] = {name: HEADERS[name] for name in (*headers, *LIMITED)}
        responses = {str(operation.status): success}
        if operation.rehearses:
            responses["200"] = {
                "description": "With `dry_run=true`: what would have come of it.",
                "schema": self._definition(operation.rehearses),
                "headers": {name: HEADERS[name] for name in LIMITED},
            }
        if operation.tagged and operation.method == "GET":
            responses["304"] = {"description": "It is as If-None-Match knows it."}
            responses["304"]["headers"] = {name: HEADERS[name] for name in ("ETag", *LIMITED)}
        codes: dict[int, list[str]] = {}
        for code in operation.problems:
            codes.setdefault(PROBLEMS[code].status, []).append(code)
        for status, names in sorted(codes.items()):
            waits = ["Retry-After"] if any(PROBLEMS[name].retry_after for name in names) else []
            responses[str(status)] = {
                "description": "; ".join(f"{PROBLEMS[name].title} ([{name}](/problems/{name}))" for name in names),
                "schema": {"$ref": "#/definitions/Problem"},
                "headers": {name: HEADERS[name] for name in (*waits, *LIMITED)},
            }
        return responses

    def _definition(self, schema: type[colander.MappingSchema]) -> dict[str, Any]:
        name = schema.__name__
        self.definitions.definition_registry[name] = _unpatterned(self.definitions.type_converter(schema()))
        return {"$ref": f"#/definitions/{name}"}


_PHRASES = {
    200: "As asked.",
    201: "Created.",
    204: "Done; there is nothing to say.",
    302: "To the identity provider.",
}


def _tidy(parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter's nullability and its title have no place in Swagger 2.0.

    Nor has an example of a filter: Swagger UI would fill it in, and list next to nothing.
    """
    return {key: value for key, value in parameter.items() if key not in ("title", "x-nullable", "x-example")}


def _unpatterned(schema: Any) -> Any:
    """A schema of an answer: patterns are for what comes in. What goes out may be older than a rule."""
    if isinstance(schema, dict):
        return {key: _unpatterned(value) for key, value in schema.items() if key != "pattern"}
    return schema


def document(registry: Any) -> dict[str, Any]:
    """The document of one application (its own services, not the process's)."""
    services = [service for service in registry.cornice_services.values() if getattr(service, "tags", None)]
    swagger: dict[str, Any] = {
        "consumes": ["application/json"],
        "tags": TAGS,
        "definitions": {"Problem": PROBLEM},
        "securityDefinitions": {
            "Bearer": {
                "type": "apiKey",
                "in": "header",
                "name": "Authorization",
                "description": "`Bearer <access token>`; the dashboard adds the word Bearer by itself.",
            }
        },
    }
    generated = Document(services).generate(
        title="Customer Orders",
        version=version("customer-orders"),
        base_path=BASE_PATH,
        info={"description": DESCRIPTION},
        # cornice-swagger adds to what it is given
        swagger=copy.deepcopy(swagger),
    )
    providers = sorted(registry.plugins.identity_providers)
    generated["paths"] = {
        path.removeprefix(BASE_PATH): _with_path_parameters(path, item, providers)
        for path, item in sorted(generated["paths"].items())
    }
    return generated


def _with_path_parameters(path: str, item: dict[str, Any], providers: list[str]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", path)
    if names:
        item["parameters"] = [{"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]} for name in names]
    if "provider" in names and providers:
        item["parameters"][names.index("provider")]["enum"] = providers
    return item


swagger = Service("document", "/api/api.json", tag="session")
dashboard = Service(
    "dashboard", "/", page=True, policy=SWAGGER_UI, renderer="customer_orders:templates/dashboard.jinja2"
)


class DocumentRead(colander.MappingSchema):
    """A Swagger 2.0 document."""


@swagger.get(permission=NO_PERMISSION_REQUIRED, operation_id="document_read", returns=DocumentRead)
def read_document(request: Any) -> dict[str, Any]:
    """Read this document."""
    told: dict[str, Any] = request.registry.swagger()
    return told


@dashboard.get(permission=NO_PERMISSION_REQUIRED, query=None)
def show_dashboard(request: Any) -> dict[str, Any]:
    """Swagger UI, with Sign in and Authorize."""
    return {}


def includeme(config: Any) -> None:
    """Serve the document, made at its first use, when every service is known."""
    registry = config.registry
    registry.swagger = functools.cache(functools.partial(document, registry))
    config.scan("customer_orders.api.openapi")
