"""How this product speaks HTTP, shared by every resource.

:class:`Service` is the only Cornice service here: its methods name a permission, an operation id, the schemas of
what comes in and goes out, and the problems they may answer with. Validation and the Swagger document both read that.
"""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import colander
import cornice
import orjson
from pyramid.httpexceptions import HTTPNoContent
from pyramid.security import NO_PERMISSION_REQUIRED
from webob.acceptparse import create_accept_header

from customer_orders.api.fields import Body, MetadataFilter, Switch, id_of, node
from customer_orders.api.idempotency import forget, once, tell_kept
from customer_orders.api.pages import PAGE
from customer_orders.errors import DomainError, FieldError, Invalid, NotFound
from customer_orders.events import CustomerAnonymized, CustomerExported
from customer_orders.sections.limiting import CLASSES
from customer_orders.settings import section

__all__ = [
    "NO_PERMISSION_REQUIRED",
    "Operation",
    "Service",
    "class_of_method",
    "created",
    "is_dry_run",
    "operations",
    "path_id",
]


# Of a service whose requests are counted by what their methods do.
BY_METHOD = "by method"
JSON_TYPE = re.compile(r"application/json\s*(;\s*charset\s*=\s*\"?utf-?8\"?\s*)?", re.IGNORECASE)


class NoQuery(colander.MappingSchema):
    """The query of an operation that takes none."""


class DryRunQuery(colander.MappingSchema):
    """The query of an operation that can be rehearsed."""

    dry_run = node(
        Switch(),
        "Whether to do it all and keep nothing, no Idempotency-Key either: the answer is a 200 that tells what would "
        "come of it.",
        missing=colander.drop,
    )


class Operation:
    """One method of one service: what it takes, what it answers; and the validator that Cornice calls.

    :param body: schema of the JSON body; None: no body is read.
    :param query: schema of the query string, of which other parameters are refused unless its ``others`` is true
        (a provider's call-back brings its own); None: the query is not read.
    :param status: status of success; ``returns``: schema of its body, in a list for an array of it.
    :param secret: whether the answer carries one: then nothing keeps it.
    :param tagged: whether it is about an item that has an ETag.
    :param rehearses: schema of the body of the 200 that answers ``dry_run=true``, for which all is done as ever, and
        rolled back; None: there is no such thing.
    :param problems: codes of problems beyond those that follow from the rest.
    """

    def __init__(
        self,
        *,
        method: str,
        operation_id: str,
        permission: str,
        body: type[Body] | None = None,
        query: type[colander.MappingSchema] | None = NoQuery,
        status: int = 200,
        returns: type[colander.MappingSchema] | list[type[colander.MappingSchema]] | None = None,
        produces: tuple[str, ...] = ("application/json",),
        secret: bool = False,
        tagged: bool = False,
        rehearses: type[colander.MappingSchema] | None = None,
        problems: tuple[str, ...] = (),
    ) -> None:
        self.method, self.operation_id = method.upper(), operation_id
        self.permission = permission
        self.body, self.query = body, query
        self.status, self.returns, self.produces = status, returns, produces
        self.secret, self.tagged, self.rehearses = secret, tagged, rehearses
        if rehearses is not None:
            self.query = DryRunQuery
        self.own_problems = problems

    @property
    def public(self) -> bool:
        """Whether anyone may call it."""
        return bool(self.permission == NO_PERMISSION_REQUIRED)

    @property
    def creates(self) -> bool:
        """Whether it makes something: then it tells where that is."""
        return self.method == "POST" and self.status == 201

    @property
    def keyed(self) -> bool:
        """Whether it takes an Idempotency-Key: a POST by somebody we know."""
        return self.method == "POST" and not self.public

    @property
    def changes_tagged(self) -> bool:
        """Whether it changes an item that has an ETag: then it takes an If-Match."""
        return self.tagged and self.method in ("PUT", "PATCH", "DELETE")

    @property
    def problems(self) -> list[str]:
        """Codes of all problems that it may answer with."""
        codes = ["malformed", "invalid", *self.own_problems, "too-large", "too-many-requests", "internal-error"]
        codes += ["unavailable"]
        codes += [] if self.public else ["unauthenticated", "forbidden"]
        codes += ["not-acceptable"] if self.returns else []
        codes += ["unsupported-media-type"] if self.body else []
        codes += ["idempotency-key-in-use", "idempotency-key-reused", "idempotency-answer-gone"] if self.keyed else []
        codes += ["stale", "precondition-required"] if self.changes_tagged else []
        return codes

    def __call__(self, request: Any, **_: Any) -> None:
        """Put what is valid into ``request.validated`` under ``body`` and ``query``. Raises ``Invalid``."""
        if self.returns and not _accepts(request.headers.get("Accept", ""), self.produces):
            raise DomainError(f"The answer is {' or '.join(self.produces)}.", code="not-acceptable")
        if self.secret:
            request.response.headers["Cache-Control"] = "no-store"
        wrong: list[FieldError] = []
        for location, given, schema in (
            ("querystring", _query(request) if self.query else {}, self.query),
            ("body", _json(request, self.body) if self.body else {}, self.body),
        ):
            if schema is not None:
                bound = _bound(request.registry, schema)
                if location == "querystring":
                    given = _folded(bound, given)
                key = "query" if location == "querystring" else location
                request.validated[key] = _deserialize(bound, given, location, wrong)
        if wrong:
            raise Invalid(wrong)
        if is_dry_run(request):
            # nothing that is done from here on can be committed, whoever does it
            request.tm.doom()


class Service(cornice.Service):
    """A Cornice service each of whose methods names its permission and its operation.

    :param tag: the heading under which the Swagger document shows it; none: it does not.
    :param page: whether people look at it with a browser (their problems are pages then).
    :param policy: the Content-Security-Policy of its pages, for one that cannot live by that of all (see ``pages.py``).
    :param limited_as: the class (see sections/limiting.py) in which its requests are counted; BY_METHOD: ``read`` or
        ``write``, whichever the method does; None: they are not.
    """

    renderer = "json"

    def __init__(
        self,
        name: str,
        path: str,
        *,
        tag: str = "",
        page: bool = False,
        policy: str = PAGE,
        limited_as: str | None = BY_METHOD,
        **kw: Any,
    ) -> None:
        self.tags = [tag] if tag else []
        self.page, self.policy = page, policy
        if limited_as not in (BY_METHOD, None, *CLASSES):
            raise TypeError(f"{name}: {limited_as!r} is no class of limits; there are {', '.join(CLASSES)}")
        self.limited_as = limited_as
        super().__init__(name=name, path=path, depth=2, **kw)
        self.add_view("OPTIONS", self._options, permission=NO_PERMISSION_REQUIRED, query=None, status=204)

    def limit_class(self, method: str) -> str | None:
        """The class in which a request with this method is counted; None: it is not."""
        return class_of_method(method) if self.limited_as == BY_METHOD else self.limited_as

    def asks_who(self, method: str) -> bool:
        """Whether this method is only for those whom we know."""
        found = [args["validators"] for defined, _, args in self.definitions if defined == method]
        return any(isinstance(each, Operation) and not each.public for each in chain(*found))

    def _options(self, request: Any) -> Any:
        """Tell what can be done here (RFC 9110, section 9.3.7)."""
        return HTTPNoContent(headers={"Allow": ", ".join(sorted(self.defined_methods))})

    def add_view(self, method: str, view: Any, *, permission: str, operation_id: str = "", **kw: Any) -> None:
        """As Cornice's, with the keywords of :class:`Operation`. No permission is a TypeError at import."""
        if "{" in self.path:
            kw["problems"] = (*kw.get("problems", ()), "not-found")
        own = ("body", "query", "status", "returns", "produces", "secret", "tagged", "rehearses", "problems")
        operation = Operation(
            method=method,
            operation_id=operation_id or f"{self.name}_{method.lower()}",
            permission=permission,
            **{key: kw.pop(key) for key in own if key in kw},
        )
        if operation.keyed:
            kw["decorator"] = functools.partial(once, secret=operation.secret)
        super().add_view(method, view, permission=permission, validators=(operation,), **kw)


def class_of_method(method: str) -> str:
    """The class in which a request is counted whose service names none: ``read`` or ``write``."""
    return "read" if method in ("GET", "HEAD", "OPTIONS") else "write"


def operations(registry: Any) -> list[tuple[Service, Operation]]:
    """Every operation of the application that the document shows, by path."""
    return [
        (service, operation)
        for _, service in sorted(registry.cornice_services.items())
        if getattr(service, "tags", None)
        for method, _, args in service.definitions
        for operation in args["validators"]
        if isinstance(operation, Operation) and method != "OPTIONS"
    ]


def path_id(request: Any) -> int:
    """The ``{id}`` of the path. Raises ``NotFound`` unless it can be one: ASCII digits, 1 to 2^63-1."""
    found = id_of(request.matchdict["id"])
    if found is None:
        raise NotFound("There is no such id.")
    return found


def is_dry_run(request: Any) -> bool:
    """Whether the request is only rehearsed: what it does is rolled back."""
    return bool(request.validated.get("query", {}).get("dry_run"))


def created(request: Any, new_id: int) -> None:
    """Answer 201 with the ``Location`` of the new item of this collection."""
    request.response.status_int = 201
    public_url = section(request.registry, "app").public_url
    request.response.headers["Location"] = f"{public_url}{request.path_info}{new_id}"


def _accepts(header: str, produces: Sequence[str]) -> bool:
    """Whether an ``Accept`` header lets one of these media types through; an empty one, or garbage, lets all.

    Parameters such as ``charset`` are not looked at: there is one form of each type.
    """
    ranges = re.sub(r";(?!\s*q\s*=)[^,;]*", "", header).strip()
    return not ranges or bool(create_accept_header(ranges).acceptable_offers(produces))


def _bound(registry: Any, schema: type[colander.MappingSchema]) -> colander.SchemaNode:
    """The schema with what the deployment decides (the phone region) bound into it, once for each application."""
    schemas: dict[type, colander.SchemaNode] = registry.bound_schemas
    if schema not in schemas:
        schemas[schema] = schema().bind(region=section(registry, "phone").default_region)
    return schemas[schema]


def _query(request: Any) -> Mapping[str, str]:
    try:
        pairs = list(request.GET.items())
    except UnicodeDecodeError:
        raise DomainError("The query string is not UTF-8.", code="malformed") from None
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise Invalid([FieldError(name[:100], "Is given more than once.", "querystring") for name in twice])
    return dict(pairs)


def _folded(schema: colander.SchemaNode, given: Mapping[str, Any]) -> Mapping[str, Any]:
    """The query, with every ``metadata.`` of it in the one node that takes them."""
    prefix = MetadataFilter.prefix
    (name,) = [child.name for child in schema.children if isinstance(child.typ, MetadataFilter)] or [None]
    folded = {key: value for key, value in given.items() if name is None or not key.startswith(prefix)}
    metadata = {key.removeprefix(prefix): value for key, value in given.items() if key not in folded}
    return folded if not metadata else {**folded, name: metadata}


def _json(request: Any, schema: type[Body]) -> Mapping[str, Any]:
    if schema.optional and not request.body:
        return {}
    if not JSON_TYPE.fullmatch(request.headers.get("Content-Type", "")):
        raise DomainError("The body must be application/json in UTF-8.", code="unsupported-media-type")
    try:
        # orjson alone is strict, and it alone does not see what is named twice
        given = orjson.loads(request.body)
        json.loads(request.body, object_pairs_hook=_named_once)
    except RecursionError:
        raise DomainError("The body is nested too deep.", code="malformed") from None
    except ValueError as error:
        raise DomainError(f"The body cannot be read as JSON: {error}.", code="malformed") from None
    if not isinstance(given, dict):
        raise DomainError("The body must be a JSON object.", code="malformed")
    return given


def _named_once(pairs: list[tuple[str, Any]]) -> None:
    """Refuse an object that names something twice: who reads the first and who reads the last would not agree."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{twice[0][:100]!r} is named twice in one object")


def _deserialize(
    schema: colander.SchemaNode, given: Mapping[str, Any], location: str, wrong: list[FieldError]
) -> dict[str, Any]:
    """What is valid of ``given``; what is not is added to ``wrong``."""
    known = [child.name for child in schema.children]
    ignored = getattr(schema, "read_only", ())
    for name in () if getattr(schema, "others", False) else given:
        if name not in known and name not in ignored:
            says = f"Is not known here. Known: {', '.join(known)}." if known else "Is not known here; none is."
            wrong.append(FieldError(name[:100], says, location))
    try:
        valid: dict[str, Any] = schema.deserialize({name: given[name] for name in known if name in given})
    except colander.Invalid as error:
        for name, says in error.asdict().items():
            # an error of the whole is filed under the schema's own, empty, name
            wrong.append(FieldError(name, "Is required." if says == "Required" else says, location))
        return {}
    return valid


def _orjson(_info: Any) -> Any:
    """Pyramid's renderer factory for ``json``: aware datetimes come out as RFC 3339 with Z."""

    def render(value: Any, system: dict[str, Any]) -> bytes:
        system["request"].response.content_type = "application/json"
        return orjson.dumps(value, option=orjson.OPT_UTC_Z)

    return render


def includeme(config: Any) -> None:
    """Problems, requests, pages, the document."""
    config.registry.bound_schemas = {}
    config.add_renderer("json", _orjson)
    config.include("customer_orders.api.requests")
    config.include("customer_orders.api.observing")
    config.include("customer_orders.api.limits")
    config.include("customer_orders.api.cors")
    config.add_listener(CustomerAnonymized, forget)
    config.add_listener(CustomerExported, tell_kept)
    config.include("customer_orders.api.root")
    config.include("customer_orders.api.problems")
    config.include("customer_orders.api.problem_pages")
    config.include("customer_orders.api.pages")
    config.include("customer_orders.api.openapi")
