"""What bad input gets: the same problem on every database, and never a 5xx."""

from __future__ import annotations

import json

import pytest

import factories
from contract import assert_problem, signed_in

JSON = "application/json"

# What no field takes: as JSON text, since some of it is nothing that Python would write.
NOWHERE = ["true", "false", "10.5", "[]", "{}", "[1]", '{"a":1}']
NOT_TEXT = [*NOWHERE, "0", "-5", "1e3", "1" * 300]
CONTROLS = [r'"a\u0000b"', r'"\u0000"', r'"a\nb"', r'"a\tb"', r'"\u001b[31m"', r'"\u007f"', r'"\u0085"']
# what makes text read as something else than it is: embeddings and overrides of its direction
DISGUISES = [r'"abc\u202e"', r'"\u202d1"', r'"\u202a"', r'"a\u202b"', r'"\u202c"', '"\u202etxt.exe"']
NOT_A_NAME = [*NOT_TEXT, *CONTROLS, *DISGUISES, '""', '"   "', r'"\u00a0"', '"' + "x" * 256 + '"']
NOT_AN_INTEGER = [
    *NOWHERE,
    "-5",
    "1e3",
    "1E3",
    "1.0",
    "0.1",
    "1" * 20,
    "1" * 300,
    '"-5"',
    '"+5"',
    '"1e3"',
    '"10.5"',
    '"0x10"',
    '"1_000"',
    '"1,000"',
    '" 5"',
    '"5 "',
    r'"5\n"',
    r'"5\u0000"',
    '""',
    '"five"',
    '"' + "1" * 20 + '"',
    '"' + "1" * 5000 + '"',
    # five, in Arabic, Devanagari and full-width digits; five as a superscript
    r'"\u0665"',
    r'"\u096b"',
    r'"\uff15"',
    r'"\u2075"',
    '"NaN"',
    '"Infinity"',
]
NOT_METADATA = [
    "true",
    "10.5",
    "[]",
    '"a"',
    '{"a": 1}',
    '{"a": true}',
    '{"a": {}}',
    '{"a": []}',
    '{"a": ' + "[" * 900 + "]" * 900 + "}",
    '{"": "x"}',
    '{" ": "x"}',
    r'{"a\u0000": "x"}',
    r'{"a\u202e": "x"}',
    r'{"a": "\u202e"}',
    r'{"a": "\u0000"}',
    r'{"a": "x\ny"}',
    json.dumps({"k" * 41: "x"}),
    json.dumps({"a": "x" * 501}),
    json.dumps({f"key-{number}": "x" for number in range(51)}),
]

# resource, field -> what it refuses
REFUSED = {
    ("customers", "username"): [*NOT_A_NAME, "null"],
    ("customers", "phone_number"): [*NOT_A_NAME, "null", '"Jane"', '"+"', '"5"', r'"0713\u0000812939"'],
    ("customers", "reference"): NOT_A_NAME,
    ("customers", "metadata"): NOT_METADATA,
    ("customers", "language"): [*NOT_TEXT, *CONTROLS, '""', '"english"', '"sw_KE"', '"sw-"', r'"sw\n"', r'"\u0130t"'],
    ("customers", "sms_opt_out"): ["0", "1", '"true"', '""', "[]", "{}"],
    ("orders", "item"): [*NOT_A_NAME, "null"],
    ("orders", "amount"): [*NOT_AN_INTEGER, "null", str(10**15), f'"{10**15}"'],
    ("orders", "customer"): [*NOT_AN_INTEGER, "null", "0", '"0"', str(2**63), f'"{2**63}"', str(2**64)],
    ("orders", "currency"): [*NOT_TEXT, *CONTROLS, '""', '"kes"', '"KE"', '"KESX"', '"ABC"', r'"KES\n"', r'"\u212aES"'],
    ("orders", "reference"): NOT_A_NAME,
    ("orders", "metadata"): NOT_METADATA,
}

# Bodies that are no JSON object, whichever fields they would have had.
UNREADABLE = {
    "empty": b"",
    "blank": b"   ",
    "not JSON": b"username=Jane",
    "cut off": b'{"username": "Jane"',
    "trailing comma": b'{"username": "Jane",}',
    "single quotes": b"{'username': 'Jane'}",
    "two values": b'{"username": "Jane"} {}',
    "a comment": b'{"username": "Jane"} // hello',
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a string": b'"Jane"',
    "an array": b'[{"username": "Jane"}]',
    "nested 30,000 deep": b"[" * 30_000 + b"]" * 30_000,
    "objects nested 10,000 deep": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "opened 65,000 times": b"[" * 65_000,
    "metadata nested 30,000 deep": b'{"metadata": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "NaN": b'{"amount": NaN}',
    "Infinity": b'{"amount": Infinity}',
    "-Infinity": b'{"amount": -Infinity}',
    # JSON, but beyond what a double holds: no parser need take it (RFC 8259, section 6)
    "1e400": b'{"amount": 1e400}',
    "5,000 digits": b'{"amount": %s}' % (b"1" * 5000),
    "a name twice": b'{"username": "Jane", "username": "Ann"}',
    "a name twice, alike": b'{"amount": 1, "amount": 1}',
    "a name twice, once escaped": rb'{"item": "a", "\u0069tem": "b"}',
    "a name twice, deep inside": b'{"metadata": {"a": {"b": "1", "b": "2"}}}',
    "a name twice, in an array": b'{"metadata": [{"a": "1", "a": "2"}]}',
    "a plus sign": b'{"amount": +1}',
    "leading zeros": b'{"amount": 007}',
    "hexadecimal": b'{"amount": 0x10}',
    "a lone surrogate, escaped": rb'{"username": "\ud800"}',
    "a low surrogate, escaped": rb'{"username": "\udc00"}',
    "surrogates the wrong way round": rb'{"username": "\udc00\ud800"}',
    "a surrogate in a key": rb'{"\ud800": "x"}',
    "a lone surrogate, raw": b'{"username": "\xed\xa0\x80"}',
    "not UTF-8": b'{"username": "Zo\xeb"}',
    "overlong UTF-8": b'{"username": "\xc0\x80"}',
    "beyond Unicode": b'{"username": "\xf5\x80\x80\x80"}',
    "a raw NUL": b'{"username": "a\x00b"}',
    "a raw newline": b'{"username": "a\nb"}',
    "a byte order mark": b'\xef\xbb\xbf{"username": "Jane"}',
    "UTF-16": '{"username": "Jane"}'.encode("utf-16"),
    "an unfinished escape": rb'{"username": "\u12"}',
    "nothing but NUL": b"\x00" * 100,
}

NOT_IDS = [
    "0",
    "-1",
    "+1",
    "01",
    "1.0",
    "1e3",
    "0x1",
    "1_0",
    "abc",
    str(2**31),
    str(2**66),
    "%201",
    "1%20",
    "1%0A",
    "1%00",
    "%00",
    "1;2",
    "1,2",
    "null",
    "%D9%A1",
    "%EF%BC%91",
    "%C2%B9",
    str(2**63 - 1),
    str(2**63),
    str(2**64 + 1),
    "1" * 20,
    "1" * 5000,
    "..%2F1",
    "%2e%2e",
    "%F0%9F%8C%BB",
]

BAD_QUERIES = [
    ("limit=0", "limit"),
    ("limit=201", "limit"),
    ("limit=-1", "limit"),
    ("limit=abc", "limit"),
    ("limit=", "limit"),
    ("limit", "limit"),
    ("limit=1.0", "limit"),
    ("limit=1e1", "limit"),
    ("limit=+1", "limit"),
    ("limit=1%00", "limit"),
    ("limit=1%0A", "limit"),
    ("limit=%D9%A1", "limit"),
    ("limit=" + "1" * 20, "limit"),
    ("limit=" + "1" * 5000, "limit"),
    ("limit=1&limit=1", "limit"),
    ("limit=1&limit=2", "limit"),
    ("cursor=", "cursor"),
    ("cursor=5", "cursor"),
    ("cursor=abc", "cursor"),
    ("cursor=YTE=", "cursor"),
    ("cursor=YTA", "cursor"),
    ("cursor=YS0x", "cursor"),
    ("cursor=YTAx", "cursor"),
    ("cursor=YTE&cursor=YTE", "cursor"),
    ("cursor=%00", "cursor"),
    ("cursor=%F0%9F%8C%BB", "cursor"),
    ("cursor=" + "YTE" * 2000, "cursor"),
    # one beyond the largest id
    ("cursor=YTkyMjMzNzIwMzY4NTQ3NzU4MDg", "cursor"),
    ("colour=red", "colour"),
    ("Limit=1", "Limit"),
    ("limit%00=1", "limit\x00"),
    ("=1", ""),
    ("_=1", "_"),
]

WRONG_TYPES = [
    None,
    "",
    "text/plain",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json; charset=utf-16",
    "application/json; charset=latin-1",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/vnd.api+json",
    "application/vnd+json",
    "application/jsonx",
    "application/json, text/plain",
    "*/*",
    "\xff\xfe",
]


@pytest.fixture
def known(client):
    """An order, its customer, and the bodies that would be taken for either."""
    placed = factories.order(client)
    return {
        "customers": (placed["customer"], {"username": '"Jane"', "phone_number": '"0713812939"'}),
        "orders": (placed["id"], {"item": '"Tea"', "amount": "1", "customer": str(placed["customer"])}),
    }


@pytest.fixture
def stored(client):
    """Tells all that is stored; for a look before and after."""
    return lambda: [client.get(url).json for url in ("/api/customers/", "/api/orders/")]


def writing(resource, an_id):
    """Every operation that takes a body of this resource."""
    return [("POST", f"/api/{resource}/"), ("PUT", f"/api/{resource}/{an_id}"), ("PATCH", f"/api/{resource}/{an_id}")]


def send(client, method, url, body, content_type=JSON):
    headers = {} if content_type is None else {"Content-Type": content_type}
    return client.request(url, method=method, body=body, headers=headers, status="*")


def as_json(fields):
    """A body of fields whose values are JSON text."""
    return "{{{}}}".format(", ".join(f'"{name}": {value}' for name, value in fields.items())).encode()


@pytest.mark.parametrize(("resource", "field"), REFUSED)
def test_a_wrong_field_is_named(client, known, stored, subtests, resource, field):
    before = stored()
    an_id, fields = known[resource]
    for written in REFUSED[resource, field]:
        body = as_json({**fields, field: written})
        for method, url in writing(resource, an_id):
            with subtests.test(method=method, written=written[:60]):
                problem = assert_problem(send(client, method, url, body), 400, "invalid", field)
                assert [error["location"] for error in problem["errors"]] == ["body"]
                assert all(error["description"] for error in problem["errors"])
    assert stored() == before


def test_every_wrong_field_is_named_at_once(client, known):
    body = b'{"item": "", "amount": -1, "customer": null, "currency": "kes", "metadata": 1, "extra": 1, "more": 2}'
    answer = send(client, "POST", "/api/orders/", body)
    wrong = ("item", "amount", "customer", "currency", "metadata", "extra", "more")
    assert_problem(answer, 400, "invalid", *wrong)


@pytest.mark.parametrize("resource", ["customers", "orders"])
def test_an_unknown_field_is_named(client, known, stored, subtests, resource):
    before = stored()
    an_id, fields = known[resource]
    for name in ("extra", "Username", "username ", "", "is_admin", "__proto__", "a.b", "a\x00b", "\n", "x" * 101, "🌻"):
        body = {**{field: json.loads(value) for field, value in fields.items()}, name: "x"}
        for method, url in writing(resource, an_id):
            with subtests.test(method=method, name=name):
                answer = send(client, method, url, json.dumps(body).encode())
                problem = assert_problem(answer, 400, "invalid", name[:100])
                assert f"Known: {next(iter(fields))}, " in problem["errors"][0]["description"]
    assert stored() == before


def test_a_body_that_is_no_json_object_is_refused(client, known, stored, subtests):
    before = stored()
    targets = [*writing("customers", known["customers"][0]), *writing("orders", known["orders"][0])]
    targets += [("POST", "/api/token/refresh"), ("POST", "/api/token/revoke")]
    for name, body in UNREADABLE.items():
        for method, url in targets:
            with subtests.test(body=name, method=method, url=url):
                assert_problem(send(client, method, url, body), 400, "malformed")
    assert stored() == before


def test_deep_nesting_is_refused_however_much_a_deployment_takes_in(make_app, database_kind):
    app = make_app(database_kind, **{"api.max_body": "1000000"})
    client = signed_in(app)
    for body in (b"[" * 100_000 + b"]" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"[" * 900_000):
        assert_problem(send(client, "POST", "/api/customers/", body), 400, "malformed")
    assert client.get("/api/customers/").json == []


def test_a_string_of_a_megabyte_is_refused_unread(client, known, stored, subtests):
    before = stored()
    for resource, field in REFUSED:
        an_id, fields = known[resource]
        body = as_json({**fields, field: '"' + "x" * 1_000_000 + '"'})
        for method, url in writing(resource, an_id):
            with subtests.test(method=method, resource=resource, field=field):
                assert_problem(send(client, method, url, body), 413, "too-large")
    assert stored() == before


def test_the_table_has_its_size():
    """Each value in every method that takes it; whoever shortens the table has to say so here."""
    fields = 3 * sum(len(values) for values in REFUSED.values())
    bodies = 8 * len(UNREADABLE) + 6 * len(WRONG_TYPES)
    assert fields + bodies + 10 * len(NOT_IDS) + 3 * len(BAD_QUERIES) >= 1_500


@pytest.mark.parametrize("resource", ["customers", "orders"])
def test_a_body_of_another_type_is_refused(client, known, stored, subtests, resource):
    before = stored()
    an_id, fields = known[resource]
    for content_type in WRONG_TYPES:
        for method, url in writing(resource, an_id):
            with subtests.test(method=method, content_type=content_type):
                answer = send(client, method, url, as_json(fields), content_type)
                assert_problem(answer, 415, "unsupported-media-type")
    assert stored() == before


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_in_utf_8_is_taken_however_it_is_announced(client, content_type):
    body = '{"username": "Zoë", "phone_number": "0713812939"}'.encode()
    assert send(client, "POST", "/api/customers/", body, content_type).json["username"] == "Zoë"


@pytest.mark.parametrize("resource", ["customers", "orders"])
def test_what_is_no_id_is_not_found(client, known, stored, subtests, resource):
    before = stored()
    body = as_json(known[resource][1])
    for given in NOT_IDS:
        for method in ("GET", "PUT", "PATCH", "DELETE"):
            with subtests.test(method=method, given=given[:60]):
                assert_problem(send(client, method, f"/api/{resource}/{given}", body), 404, "not-found")
        assert_problem(client.get(f"/api/{resource}/{given}/", status="*"), 404, "not-found")
    assert stored() == before


def test_a_path_that_is_not_utf_8_is_refused(client, subtests):
    for path in ("/{}", "/api/{}", "/api/customers/{}", "/api/orders/1{}/", "/api/{}-oauth2/redirect/", "/static/{}"):
        for raw in ("%ff", "%ED%A0%80", "%C0%80", "%80"):
            for method in ("GET", "POST", "DELETE"):
                with subtests.test(method=method, path=path, raw=raw):
                    assert_problem(send(client, method, path.format(raw), b"{}"), 400, "malformed")


@pytest.mark.parametrize("url", ["/api/customers/", "/api/orders/", "/api/orders"])
def test_a_wrong_query_is_named(client, subtests, url):
    for query, name in BAD_QUERIES:
        with subtests.test(query=query[:60]):
            problem = assert_problem(client.get(f"{url}?{query}", status="*"), 400, "invalid", name)
            assert problem["errors"][0]["location"] == "querystring"


def test_a_query_that_is_not_utf_8_is_refused(client, known, subtests):
    for url in ("/api/customers/", f"/api/orders/{known['orders'][0]}", "/api/api.json", "/api/me"):
        for query in ("x=%ff", "%ff=x", "limit=%ff", "cursor=%ED%A0%80", "x=%C0%80"):
            with subtests.test(url=url, query=query):
                assert_problem(client.get(f"{url}?{query}", status="*"), 400, "malformed")


def test_an_unknown_query_parameter_is_refused_by_every_operation(client, known, stored):
    before = stored()
    for resource in ("customers", "orders"):
        an_id, fields = known[resource]
        for method, url in writing(resource, an_id):
            answer = send(client, method, f"{url}?dry_run=1", as_json(fields))
            assert_problem(answer, 400, "invalid", "dry_run")
        for method in ("GET", "DELETE"):
            url = f"/api/{resource}/{an_id}?dry_run=1"
            assert_problem(client.request(url, method=method, status="*"), 400, "invalid", "dry_run")
    assert stored() == before


@pytest.mark.parametrize("name", ["Accept", "Accept-Language", "If-None-Match", "If-Modified-Since", "Range", "Cookie"])
def test_strange_headers_do_no_harm(client, subtests, name):
    made = factories.customer(client)
    for value in ("\xff\xfe", "\x01", ";;;,,,===", '"', "*/*;q=x", "W/", "a" * 10_000):
        for url in ("/api/customers/", f"/api/customers/{made['id']}", "/", "/login/", "/api/no-such-path"):
            with subtests.test(value=value[:60], url=url):
                answer = client.get(url, headers={name: value}, status="*")
                assert answer.status_int == (404 if "no-such" in url else 200)
