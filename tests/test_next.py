"""The page that a sign-in leads on to: only ever one of our own."""

from __future__ import annotations

import re
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import colander
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import PUBLIC_URL
from customer_orders.auth.schemas import OwnPath

REDIRECT = "/api/scripted-oauth2/redirect/"
CALLBACK = "/api/scripted-oauth2/callback/"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}

OWN = [
    "/",
    "/#/orders/orders_list",
    "/?",
    "/problems/",
    "/problems/invalid?x=1&y=%C3%A9#here",
    "/devtools/inbox",
    "/login/?next=/problems/",
    "/?next=https://evil.example/",
    "/a.b/c..d",
    # an own path, though it looks like none
    "/javascript:alert(1)",
    "/@evil.example",
    "/evil.example",
]

# What is known to lead elsewhere somewhere, or to be read in more than one way.
PAYLOADS = [
    "https://evil.example",
    "http:evil.example",
    "https:/evil.example",
    "//evil.example",
    "///evil.example",
    "////evil.example",
    "//evil.example@127.0.0.1:6543",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\\/evil.example",
    "/a/\\evil.example",
    "/%5cevil.example",
    "/%2fevil.example",
    "/%2F%2Fevil.example",
    "%2f%2fevil.example",
    "/.//evil.example",
    "/..//evil.example",
    "/a/..//evil.example",
    "/%2e%2e//evil.example",
    "/./evil.example",
    "/a/..",
    "/a//evil.example",
    "/ /evil.example",
    " //evil.example",
    "//evil.example ",
    "/\t/evil.example",
    "/%09/evil.example",
    "/\n/evil.example",
    "/%0a/evil.example",
    "/\r\nLocation: https://evil.example",
    "/%0d%0aLocation:%20https://evil.example",
    "/?x=%0d%0aSet-Cookie:%20a=b",
    "/#%00",
    "/\x00/evil.example",
    "/%00/evil.example",
    "/\u2028/evil.example",
    "/\uff0fevil.example",
    "/\u2044evil.example",
    "/\u3002evil.example",
    "/\u202eevil.example",
    "javascript:alert(1)",
    "JaVaScRiPt:alert(1)",
    "java\tscript:alert(1)",
    "data:text/html,<script>alert(1)</script>",
    "vbscript:x",
    "evil.example",
    ".evil.example",
    "@evil.example",
    ":80/",
    "?next=//evil.example",
    "#//evil.example",
    "/<script>alert(1)</script>",
    '/"onmouseover="alert(1)',
    "/{{7*7}}",
    "/?x=%",
    "/?x=%2",
    "/?x=%zz",
    "/" + "a" * 512,
]


def begin(client, path):
    """Ask for the redirect; the state that the provider was told."""
    return parse_qs(urlsplit(client.get(path, status=302).headers["Location"]).query)["state"][0]


def link_on(client, state):
    """The link on of the page after signing in."""
    return client.get(f"{CALLBACK}?code=c0de&state={state}", headers=HTML, status=200).html.find("a", id="go")


@pytest.fixture(scope="module")
def app_of_session(make_app, database_kind):
    return make_app(database_kind, **{"auth.default_role": "viewer"})


# -- where it leads -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", OWN)
def test_a_sign_in_leads_on_to_a_page_of_ours(anonymous, path):
    page = anonymous.get(f"/login/?next={quote(path, safe='')}", headers=HTML, status=200)
    button = page.html.select_one("main a.button")["href"]
    assert button.startswith(f"{PUBLIC_URL}{REDIRECT}?next=")
    state = begin(anonymous, button.removeprefix(PUBLIC_URL))
    assert link_on(anonymous, state)["href"] == path


@pytest.mark.parametrize("query", ["", "?next=", "?utm_source=mail"])
def test_without_one_it_leads_to_the_dashboard(anonymous, query):
    page = anonymous.get(f"/login/{query}", headers=HTML, status=200)
    assert page.html.select_one("main a.button")["href"] == f"{PUBLIC_URL}{REDIRECT}"
    link = link_on(anonymous, begin(anonymous, f"{REDIRECT}{query}"))
    assert (link["href"], link.text) == ("/", "Go on to the dashboard")


@pytest.mark.parametrize(
    ("path", "text"), [("/#/orders/orders_list", "the dashboard"), ("/problems/?x=1", "/problems/")]
)
def test_the_link_says_where_it_leads(anonymous, path, text):
    assert link_on(anonymous, begin(anonymous, f"{REDIRECT}?next={quote(path)}")).text == f"Go on to {text}"


def test_a_program_is_led_nowhere(anonymous):
    state = begin(anonymous, f"{REDIRECT}?next=/problems/")
    answer = anonymous.get(f"{CALLBACK}?code=c0de&state={state}", status=200)
    assert set(answer.json) == {"tokens"}
    assert "Location" not in answer.headers


def test_what_the_provider_sends_back_does_not_change_it(anonymous):
    state = begin(anonymous, f"{REDIRECT}?next=/problems/")
    page = anonymous.get(f"{CALLBACK}?code=c0de&state={state}&next=//evil.example", headers=HTML, status=200)
    assert page.html.find("a", id="go")["href"] == "/problems/"


# -- where it does not --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/login/", REDIRECT])
@pytest.mark.parametrize("payload", PAYLOADS)
def test_anything_else_is_refused_before_anybody_signs_in(anonymous, path, payload):
    answer = anonymous.get(f"{path}?next={quote(payload, safe='')}", status=400)
    assert answer.json["code"] == "invalid"
    assert [(wrong["location"], wrong["name"]) for wrong in answer.json["errors"]] == [("querystring", "next")]
    assert "Set-Cookie" not in answer.headers


def test_a_person_is_told_what_is_wrong(anonymous):
    page = anonymous.get("/login/?next=//evil.example", headers=HTML, status=400)
    assert page.html.select_one("main li").text.startswith("next: Must be a path of this service, such as /problems/")
    assert "evil" not in page.text


def test_two_of_them_are_refused(anonymous):
    assert anonymous.get(f"{REDIRECT}?next=/&next=//evil.example", status=400).json["code"] == "invalid"


# -- whatever is tried --------------------------------------------------------------------------------------------

# Characters that parsers of addresses treat in a way of their own, among all others.
ODD = st.sampled_from(
    [*"/\\.:@%#?&;=<>\"' \t\n\r\0", "//", "..", "%2f", "%5c", "%09", "http:", "evil.example", "\u3002"]
)
TRIED = st.lists(ODD | st.characters(), max_size=12).map("".join).map(lambda tail: f"/{tail}") | st.text(max_size=20)
TAKEN = st.from_regex(OwnPath.PATTERN, fullmatch=True).filter(lambda path: len(path) <= 512)


def taken(path):
    """The path as it is taken, or None."""
    try:
        return OwnPath().deserialize(colander.SchemaNode(OwnPath()), path)
    except colander.Invalid:
        return None


@given(TRIED | TAKEN)
def test_what_is_taken_stays_on_our_origin_however_it_is_read(path):
    if not taken(path):
        return
    assert taken(path) == path
    assert path.isascii()
    assert path.isprintable()
    assert not re.search(r"[\\ <>\"]", path)
    before = re.split("[?#]", path)[0]
    assert before.startswith("/")
    assert not set(before.split("/")[1:-1]) & {"", ".", ".."}
    assert "%" not in before
    for base in (PUBLIC_URL, "https://orders.example.com/login/?x"):
        there = urlsplit(urljoin(base, path))
        assert f"{there.scheme}://{there.netloc}" == "://".join(urlsplit(base)[:2])


@pytest.mark.parametrize("path", OWN)
def test_what_is_ours_is_taken(path):
    assert taken(path) == path
