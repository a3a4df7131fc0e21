"""The Swagger document: valid, complete, and true."""

from __future__ import annotations

import re
import warnings

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV2SpecValidator
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

import factories
from contract import signed_in
from customer_orders.api.fields import Phone, Text
from customer_orders.auth import api_keys, sessions
from customer_orders.interfaces import Rejected

with warnings.catch_warnings():
    # swagger-spec-validator imports what jsonschema has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from swagger_spec_validator.validator20 import validate_spec


def a_body_has_a_documented_type(ctx, response, case):
    """As schemathesis's own check; but Swagger 2.0 cannot say of a 204 that it has no body, so no type."""
    if response.status_code in (204, 304):
        assert response.content == b""
        return None
    return content_type_conformance(ctx, response, case)


CHECKS = [
    not_a_server_error,
    status_code_conformance,
    a_body_has_a_documented_type,
    response_schema_conformance,
]

# path in the document, method -> operationId, whether it needs a token, status of success
OPERATIONS = {
    ("/customers/", "get"): ("customers_list", True, "200"),
    ("/customers/", "post"): ("customers_create", True, "201"),
    ("/customers/{id}", "get"): ("customers_read", True, "200"),
    ("/customers/{id}", "put"): ("customers_update", True, "200"),
    ("/customers/{id}", "patch"): ("customers_partial_update", True, "200"),
    ("/customers/{id}", "delete"): ("customers_delete", True, "204"),
    ("/customers/{id}/anonymize", "post"): ("customers_anonymize", True, "200"),
    ("/customers/{id}/export", "get"): ("customers_export", True, "200"),
    ("/orders/", "get"): ("orders_list", True, "200"),
    ("/orders/", "post"): ("orders_create", True, "201"),
    ("/orders/{id}", "get"): ("orders_read", True, "200"),
    ("/orders/{id}", "put"): ("orders_update", True, "200"),
    ("/orders/{id}", "patch"): ("orders_partial_update", True, "200"),
    ("/orders/{id}", "delete"): ("orders_delete", True, "204"),
    ("/notifications/", "get"): ("notifications_list", True, "200"),
    ("/notifications/resend", "post"): ("notifications_resend_all", True, "200"),
    ("/notifications/{id}", "get"): ("notifications_read", True, "200"),
    ("/notifications/{id}/resend", "post"): ("notifications_resend", True, "200"),
    ("/", "get"): ("root_read", False, "200"),
    ("/stats", "get"): ("stats_read", True, "200"),
    ("/version", "get"): ("version_read", True, "200"),
    ("/audit/", "get"): ("audit_list", True, "200"),
    ("/customers/{id}/events", "get"): ("customers_events", True, "200"),
    ("/orders/{id}/events", "get"): ("orders_events", True, "200"),
    ("/me", "get"): ("me_read", True, "200"),
    ("/me/sessions", "get"): ("sessions_list", True, "200"),
    ("/me/sessions", "delete"): ("sessions_revoke_all", True, "204"),
    ("/me/sessions/{id}", "delete"): ("sessions_revoke", True, "204"),
    ("/api-keys/", "get"): ("api_keys_list", True, "200"),
    ("/api-keys/", "post"): ("api_keys_create", True, "201"),
    ("/api-keys/{id}", "get"): ("api_keys_read", True, "200"),
    ("/api-keys/{id}", "delete"): ("api_keys_revoke", True, "204"),
    ("/token/refresh", "post"): ("token_refresh_post", False, "200"),
    ("/token/revoke", "post"): ("token_revoke_post", False, "204"),
    ("/{provider}-oauth2/redirect/", "get"): ("sign_in_redirect", False, "302"),
    ("/{provider}-oauth2/callback/", "get"): ("sign_in_callback", False, "200"),
    ("/api.json", "get"): ("document_read", False, "200"),
}

# Services that are pages, or for those who run the service, or for providers alone: not part of the API.
NOT_DOCUMENTED = {"dashboard", "login", "problems", "problem", "livez", "readyz", "delivery_reports"}


@pytest.fixture
def document(anonymous):
    """The document as anyone reads it."""
    return anonymous.get("/api/api.json", status=200).json


def operations(document):
    """Every operation: (path, method) -> operation."""
    return {
        (path, method): operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning:swagger_spec_validator")
def test_two_validators_accept_the_document(document):
    OpenAPIV2SpecValidator(document).validate()
    validate_spec(document)


def test_every_heading_is_described_and_leads_somewhere(document):
    used = {tag for operation in operations(document).values() for tag in operation["tags"]}
    assert used == {tag["name"] for tag in document["tags"] if tag["description"]}


def test_it_is_swagger_2_under_api(document, anonymous):
    assert document["swagger"] == "2.0"
    assert document["basePath"] == "/api"
    assert document["securityDefinitions"]["Bearer"]["in"] == "header"
    assert document["securityDefinitions"]["Bearer"]["name"] == "Authorization"
    assert anonymous.get("/api/api.json").headers["Content-Type"] == "application/json"


def test_every_operation_of_the_contract_is_there_and_no_other(document):
    told = {
        where: (operation["operationId"], bool(operation["security"]), next(iter(operation["responses"])))
        for where, operation in operations(document).items()
    }
    assert told == OPERATIONS


def test_security_is_said_of_each_operation_and_true(document, anonymous):
    for (path, method), operation in operations(document).items():
        assert operation["security"] in ([], [{"Bearer": []}])
        url = "/api" + path.replace("{id}", "1").replace("{provider}", "scripted")
        answer = anonymous.request(url, method=method.upper(), status="*")
        assert (answer.status_int == 401) == bool(operation["security"]), (path, method)
        assert ("401" in operation["responses"]) >= bool(operation["security"])


def test_every_service_is_documented_or_known_not_to_be(document, registry):
    documented = {path for path, _ in operations(document)}
    for service in registry.cornice_services.values():
        inside = service.path.removeprefix("/api") in documented and service.path.startswith("/api/")
        assert inside != (service.name in NOT_DOCUMENTED), service.name


def test_every_operation_has_a_summary_and_problems_in_one_form(document):
    for where, operation in operations(document).items():
        assert operation["summary"], where
        assert "application/problem+json" in operation["produces"]
        problems = {status: answer for status, answer in operation["responses"].items() if status >= "400"}
        assert {"400", "413", "500", "503"} <= set(problems), where
        assert ("404" in problems) == ("{" in where[0]), where
        assert ("415" in problems) == (operation.get("consumes") == ["application/json"]), where
        for answer in problems.values():
            assert answer["schema"] == {"$ref": "#/definitions/Problem"}


def test_it_says_what_a_client_must_know(document):
    create = operations(document)["/orders/", "post"]
    (body,) = (parameter for parameter in create["parameters"] if parameter["in"] == "body")
    schema = body["schema"]
    if "$ref" in schema:
        schema = document["definitions"][schema["$ref"].rpartition("/")[2]]
    assert sorted(schema["required"]) == ["amount", "customer", "item"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["amount"]["maximum"] == 10**15 - 1
    assert "minor unit" in schema["properties"]["amount"]["description"]
    assert "10000 with KES is KES 100.00" in document["info"]["description"]
    assert "409" in operations(document)["/customers/{id}", "delete"]["responses"]


@pytest.mark.parametrize("minimum", [0, 1])
def test_its_patterns_say_which_characters_text_may_hold(minimum):
    """Of every character of Unicode's first plane, where all are that are refused."""
    text = Text(minimum)
    pattern = re.compile(text.swagger()["pattern"])

    def accepted(given):
        try:
            return text.parse(given) == given
        except ValueError:
            return False

    # lone surrogates, which JSON in UTF-8 cannot hold, are refused without a pattern
    plane = [chr(point) for point in range(0x10000) if not 0xD800 <= point < 0xE000]
    told = {character for character in plane if pattern.fullmatch(character)}
    assert told == {character for character in plane if accepted(character)}
    assert pattern.fullmatch("Tea\u3000for two")


@pytest.mark.parametrize(
    "written",
    ["0713 812 939", " (0)713-812-939", "tel:+254713812939", "\u200etel:+254713812939", "\uff0b254 713812939"],
)
def test_its_pattern_of_phone_numbers_lets_through_what_is_accepted(written):
    assert Phone().e164(written, "KE") == "+254713812939"
    assert re.fullmatch(Phone().swagger()["pattern"], written)


def test_it_names_what_a_body_may_hold_and_no_more(document):
    create = operations(document)["/customers/", "post"]
    (body,) = (parameter["schema"] for parameter in create["parameters"] if parameter["in"] == "body")
    shown = document["definitions"]["CustomerRead"]["properties"]
    assert set(body["properties"]) == set(shown)
    assert {name for name, field in body["properties"].items() if field.get("readOnly")} == {
        "id",
        "sms_opt_out_source",
        "sms_opt_out_at",
        "anonymized_at",
        "created_at",
        "updated_at",
    }
    # what is there may be older than a rule of what comes in
    assert "pattern" in body["properties"]["username"]
    assert "pattern" not in shown["username"]


def test_null_is_in_an_enumeration_of_what_may_be_null(document):
    create = operations(document)["/orders/", "post"]
    (body,) = (parameter["schema"] for parameter in create["parameters"] if parameter["in"] == "body")
    assert None in body["properties"]["currency"]["enum"]
    assert None not in document["definitions"]["OrderRead"]["properties"]["currency"]["enum"]


def test_it_names_the_identity_providers(document, registry):
    for what in ("redirect", "callback"):
        (parameter,) = document["paths"][f"/{{provider}}-oauth2/{what}/"]["parameters"]
        assert parameter["enum"] == sorted(registry.plugins.identity_providers)


def test_two_applications_tell_the_same_document(make_app, document):
    """In whatever order their schemas were used: what is optional in a PATCH stays required in a PUT."""
    app = make_app("sqlite")
    client = signed_in(app)
    made = factories.customer(client)
    client.patch_json(f"/api/customers/{made['id']}", {"username": "Ann"})
    assert client.get("/api/api.json").json == document
    client.put_json(f"/api/customers/{made['id']}", {"username": "Ann"}, status=400)


# What a random request cannot hit: these need a state or a refresh token that was issued.
NEVER_BY_CHANCE = {"sign_in_callback", "token_refresh_post"}
# What takes nothing that could be wrong.
NEVER_WRONG = {"sign_in_callback", "sign_in_redirect", "document_read", "root_read"}

# What is wrong is mostly refused before there is any talk with a database.
RUNS = [
    (kind, path, method, mode)
    for kind, modes in {"sqlite": [GenerationMode.POSITIVE], "postgresql": list(GenerationMode)}.items()
    for (path, method), (operation_id, _, _) in OPERATIONS.items()
    for mode in modes
    if mode is GenerationMode.POSITIVE or operation_id not in NEVER_WRONG
]


@pytest.mark.parametrize(("database_kind", "path", "method", "mode"), RUNS, indirect=["database_kind"])
def test_no_request_gets_an_answer_that_is_not_documented(app, client, deliver, notifier, path, method, mode):
    """Requests that schemathesis makes up from the document, valid and not; every other one at what exists."""
    operation_id, _, success = OPERATIONS[path, method]
    placed = factories.order(client)
    lonely = factories.customer(client)
    if "resend" in path:
        notifier.script.append(Rejected("InvalidPhoneNumber"))
    deliver()
    existing = {"customers": lonely["id"], "orders": placed["id"], "notifications": placed["notification"]["id"]}
    with app.registry.database.transaction() as session:
        user_id = client.get("/api/me").json["id"]
        existing["me"] = sessions.begin(session, user_id, app.registry.sections["auth"]).family_id
        existing["api-keys"] = api_keys.create(session, "Till", "viewer")[0].id
    headers = {"Authorization": f"Bearer {client.authorization[1]}"}
    operation = schemathesis.openapi.from_wsgi("/api/api.json", app)[path][method]
    seen = []

    @settings(
        max_examples=20,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case):
        aimed = len(seen) % 2 == 0
        if aimed and "{id}" in path:
            case.path_parameters["id"] = existing[path.split("/")[1]]
        if aimed and "{provider}" in path:
            case.path_parameters["provider"] = "scripted"
        if aimed and mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            right = {"customer": placed["customer"], "phone_number": "0713 812 939"}
            case.body.update({name: right[name] for name in right if name in case.body})
        seen.append(str(case.call_and_validate(headers=headers, checks=CHECKS).status_code))

    run()
    if mode is GenerationMode.POSITIVE and operation_id not in NEVER_BY_CHANCE:
        assert success in seen


def test_what_the_dashboard_offers_to_send_works(client, document):
    related = {}
    for path, shown in (("/customers/", "CustomerRead"), ("/orders/", "OrderRead")):
        (body,) = [one for one in document["paths"][path]["post"]["parameters"] if one["in"] == "body"]
        created = client.post_json(f"/api{path}", {**body["schema"]["example"], **related}, status=201).json
        assert document["definitions"][shown]["example"].keys() == created.keys()
        related = {"customer": created["id"]}
