"""Conditional requests, the versions that they speak of, and references that are one item's only."""

from __future__ import annotations

import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm.exc import StaleDataError
from webtest import TestApp

import factories
from contract import assert_problem, signed_in
from customer_orders.notifications.models import Notification, Status
from customer_orders.orders.models import Order

MAKERS = {"customers": factories.customer, "orders": factories.order}
RESOURCES = sorted(MAKERS)


def etag(answer):
    """The ETag of an answer: a strong one of ours."""
    tag = answer.headers["ETag"]
    assert re.fullmatch(r'"[1-9][0-9]*\.[0-9]+"', tag), tag
    return tag


def parts(tag):
    """The version in a tag, and the number after the dot."""
    return tuple(map(int, tag.strip('"').split(".")))


def body_of(resource, made, method):
    """A body with which a PUT, PATCH or POST changes something of ``made``, or makes another."""
    if method == "PATCH":
        return {"metadata": {"changed": "yes"}}
    required = ("username", "phone_number") if resource == "customers" else ("item", "amount", "customer")
    return {**{name: made[name] for name in required}, "metadata": {"changed": "yes"}}


def write(client, method, url, body=None, **headers):
    """What a request is answered; ``If_Match`` is a header's name here."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is None:
        return client.request(url, method=method, headers=named, status="*")
    named["Content-Type"] = "application/json"
    return client.request(url, method=method, body=json.dumps(body).encode(), headers=named, status="*")


@pytest.fixture(params=RESOURCES)
def item(client, request):
    """A customer or an order: its resource, its URL, and what it was when it was made."""
    made = MAKERS[request.param](client)
    return request.param, f"/api/{request.param}/{made['id']}", made


def at_once(app, client, *acts):
    """What each of the acts returns, each called with a client of its own in a thread of its own, at one moment."""
    together = threading.Barrier(len(acts))

    def begin(act):
        own = TestApp(app)
        own.authorization = client.authorization
        together.wait(60)
        return act(own)

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(begin, acts))


# -- tags ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_new_item_comes_with_the_tag_of_its_first_version(client, resource):
    made = MAKERS[resource](client)
    answer = write(client, "POST", f"/api/{resource}/", body_of(resource, made, "POST"))
    assert answer.status_int == 201
    assert parts(etag(answer))[0] == 1
    assert etag(client.get(answer.headers["Location"])) == etag(answer)


def test_each_change_is_told_by_the_tag_and_counted_by_one(client, item):
    resource, url, made = item
    version, told = parts(etag(client.get(url)))
    for number, method in enumerate(["PUT", "PATCH", "PATCH", "PUT"], 1):
        answer = write(client, method, url, body_of(resource, made, method))
        assert answer.status_int == 200
        assert parts(etag(answer)) == (version + number, told)
        assert etag(client.get(url)) == etag(answer)
        assert client.get(url).json == answer.json


def test_a_read_and_what_is_refused_change_no_version(client, item):
    _, url, made = item
    before = etag(client.get(url))
    MAKERS[item[0]](client, reference="taken")
    assert write(client, "PATCH", url, {"metadata": 1}).status_int == 400
    assert write(client, "PATCH", url, {"reference": "taken"}).status_int == 409
    assert write(client, "PATCH", url, {}, If_Match='"999.0"').status_int == 412
    assert etag(client.get(url)) == before
    assert client.get(url).json == made


def test_head_tells_the_tag(client, item):
    assert etag(client.head(item[1])) == etag(client.get(item[1]))


@pytest.mark.parametrize("resource", RESOURCES)
def test_lists_have_no_tag(client, resource):
    MAKERS[resource](client)
    for method in ("GET", "HEAD"):
        answer = client.request(f"/api/{resource}/", method=method, headers={"If-None-Match": "*"})
        assert answer.status_int == 200
        assert "ETag" not in answer.headers


def test_an_order_with_its_customer_in_full_has_no_tag(client):
    url = f"/api/orders/{factories.order(client)['id']}"
    for given in ("*", etag(client.get(url))):
        answer = client.get(f"{url}?expand=customer", headers={"If-None-Match": given}, status=200)
        assert "ETag" not in answer.headers
        assert answer.json["customer"]["username"]


def test_what_becomes_of_the_message_is_told_after_the_dot(client, deliver):
    placed = factories.order(client)
    url = f"/api/orders/{placed['id']}"
    before = etag(client.get(url))
    deliver()
    after = etag(client.get(url))
    assert parts(after)[0] == parts(before)[0]
    assert parts(after)[1] > parts(before)[1]
    changed = write(client, "PATCH", url, {"item": "Rice"})
    assert parts(etag(changed)) == (parts(after)[0] + 1, parts(after)[1])


def test_another_message_about_an_order_makes_another_tag(client, session, deliver):
    placed = factories.order(client)
    url = f"/api/orders/{placed['id']}"
    deliver()
    before = etag(client.get(url))
    first = session.scalars(select(Notification)).one()
    told = {"event": "order_placed", "channel": "sms", "recipient": first.recipient, "text": "Once more"}
    moments = {"created_at": first.created_at, "updated_at": first.updated_at}
    session.add(Notification(order_id=placed["id"], status=Status.QUEUED, **told, **moments))
    session.commit()
    after = etag(client.get(url))
    assert parts(after)[0] == parts(before)[0]
    assert parts(after)[1] > parts(before)[1]


def test_the_message_about_an_order_is_none_of_its_customers_tag(client, deliver):
    placed = factories.order(client)
    url = f"/api/customers/{placed['customer']}"
    before = etag(client.get(url))
    deliver()
    assert etag(client.get(url)) == before


# -- If-None-Match ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    ["{tag}", "W/{tag}", '"1.99", {tag}', '{tag},"abc"', 'W/"x" , W/{tag} , "y"', "  {tag}  ", "*", " * "],
)
def test_what_is_known_is_not_told_again(client, item, written):
    _, url, _ = item
    tag = etag(client.get(url))
    for method in ("GET", "HEAD"):
        answer = client.request(url, method=method, headers={"If-None-Match": written.format(tag=tag)})
        assert answer.status_int == 304
        assert answer.headers["ETag"] == tag
        assert answer.body == b""
        assert "Content-Type" not in answer.headers
        assert answer.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "written",
    [
        '"abc"',
        '"1.99"',
        '""',
        'W/"1.99", "0.0"',
        # nothing that can be read
        "",
        "{bare}",
        "'{bare}'",
        '"{bare}',
        '{bare}"',
        "w/{tag}",
        "{tag} {tag}",
        "{tag};",
        "W/",
        "W/*",
        "*, {tag}",
        "\xff\xfe",
        '"' * 1001,
        '"a",' * 1000,
    ],
)
def test_what_is_not_known_is_told(client, item, written):
    _, url, made = item
    tag = etag(client.get(url))
    given = written.format(tag=tag, bare=tag.strip('"'))
    answer = client.get(url, headers={"If-None-Match": given}, status=200)
    assert answer.json == made
    assert answer.headers["ETag"] == tag


def test_whoever_polls_is_told_what_is_new(client, deliver):
    url = f"/api/orders/{factories.order(client)['id']}"
    tag = etag(client.get(url))
    assert client.get(url, headers={"If-None-Match": tag}).status_int == 304
    deliver()
    told = client.get(url, headers={"If-None-Match": tag}, status=200)
    assert told.json["notification"]["status"] == "sent"
    tag = etag(told)
    assert client.get(url, headers={"If-None-Match": tag}).status_int == 304
    write(client, "PATCH", url, {"item": "Rice"})
    assert client.get(url, headers={"If-None-Match": tag}, status=200).json["item"] == "Rice"


def test_what_is_known_is_told_to_nobody_who_may_not_read_it(client, anonymous, item):
    tag = etag(client.get(item[1]))
    assert_problem(anonymous.get(item[1], headers={"If-None-Match": tag}, status="*"), 401, "unauthenticated")


def test_what_is_gone_is_not_what_is_known(client, item):
    _, url, _ = item
    tag = etag(client.get(url))
    client.delete(url, status=204)
    for given in (tag, "*"):
        assert_problem(client.get(url, headers={"If-None-Match": given}, status="*"), 404, "not-found")


def test_a_write_is_no_less_done_for_what_is_known(client, item):
    resource, url, made = item
    version, told = parts(etag(client.get(url)))
    # the tag of what there is, and of what will be
    known = ", ".join(f'"{version + more}.{told}"' for more in range(4))
    for method in ("PUT", "PATCH"):
        answer = write(client, method, url, body_of(resource, made, method), If_None_Match=known)
        assert answer.status_int == 200
        assert answer.json["metadata"] == {"changed": "yes"}


# -- If-Match -----------------------------------------------------------------------------------------------------

# To be filled in: the present version, one that is past, and the number after the dot.
MATCHING = [
    '"{version}.{told}"',
    # what became of messages is no change
    '"{version}.0"',
    '"{version}.12345"',
    '"{past}.{told}", "{version}.{told}"',
    '"abc","{version}.{told}"',
    'W/"x" , "{version}.{told}"',
    "*",
    " * ",
]

NOT_MATCHING = [
    '"{past}.{told}"',
    '"{past}.0", "999999.{told}"',
    '"999999.{told}"',
    'W/"{version}.{told}"',
    'W/"{version}.{told}", W/"{past}.{told}"',
    '"abc"',
    '""',
    '"{version}"',
    '"{version}."',
    '".{told}"',
    '"{version}.{told}.0"',
    '"{version}.x"',
    '"0{version}.{told}"',
    '"{version}.0{told}"',
    '"-{version}.{told}"',
    '"+{version}.{told}"',
    '"{told}.{version}.{told}"',
    '"9999999999999999999999.0"',
    # digits of elsewhere, as a header's bytes would have them
    '"\u00b2.\u00b2"',
    '"*"',
]

MALFORMED = [
    "",
    " ",
    "{version}.{told}",
    "'{version}.{told}'",
    '"{version}.{told}',
    '{version}.{told}"',
    'w/"{version}.{told}"',
    '"{version}.{told}" "{past}.{told}"',
    '"{version}.{told}";',
    '*, "{version}.{told}"',
    "**",
    "W/*",
    "W/",
    '"a b"',
    '" {version}.{told}"',
    '"a\tb"',
    "\xff\xfe",
    '"' * 1001,
]


@pytest.fixture
def changed(client, item, deliver):
    """The item after a change and whatever became of its message; ``fill`` puts its versions into a header."""
    resource, url, made = item
    deliver()
    write(client, "PATCH", url, body_of(resource, made, "PATCH"))
    answer = client.get(url)
    version, told = parts(etag(answer))
    assert version == 2

    def fill(written):
        return written.format(version=version, past=version - 1, told=told)

    return resource, url, answer.json, fill


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("written", MATCHING)
def test_who_has_seen_the_present_version_may_change_it(client, changed, method, written):
    resource, url, made, fill = changed
    body = None if method == "DELETE" else body_of(resource, made, method)
    answer = write(client, method, url, body, If_Match=fill(written))
    assert answer.status_int == (204 if method == "DELETE" else 200), answer.text
    if method == "DELETE":
        client.get(url, status=404)
    else:
        assert parts(etag(answer))[0] == 3


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_who_has_not_seen_the_present_version_changes_nothing(client, changed, subtests, method):
    resource, url, made, fill = changed
    for written in NOT_MATCHING:
        with subtests.test(written=written):
            body = None if method == "DELETE" else {**body_of(resource, made, method), "metadata": {"over": "written"}}
            assert_problem(write(client, method, url, body, If_Match=fill(written)), 412, "stale")
            answer = client.get(url)
            assert answer.json == made
            assert parts(etag(answer))[0] == 2


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_what_is_no_list_of_tags_is_refused(client, changed, subtests, method):
    resource, url, made, fill = changed
    for written in MALFORMED:
        with subtests.test(written=written[:40]):
            body = None if method == "DELETE" else body_of(resource, made, method)
            refused = write(client, method, url, body, If_Match=fill(written))
            problem = assert_problem(refused, 400, "invalid", "If-Match")
            assert [error["location"] for error in problem["errors"]] == ["header"]
            assert client.get(url).json == made


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_of_what_there_is_not_no_version_is_stale(client, item, method):
    resource, url, made = item
    client.delete(url, status=204)
    body = None if method == "DELETE" else body_of(resource, made, method)
    for written in ('"1.0"', "*", '"abc"'):
        assert_problem(write(client, method, url, body, If_Match=written), 404, "not-found")


def test_a_message_that_was_delivered_makes_no_version_stale(client, deliver):
    url = f"/api/orders/{factories.order(client)['id']}"
    tag = etag(client.get(url))
    deliver()
    assert etag(client.get(url)) != tag
    assert write(client, "PATCH", url, {"item": "Rice"}, If_Match=tag).json["item"] == "Rice"


def test_the_tag_of_a_write_is_good_for_the_next(client, item):
    resource, url, made = item
    tag = etag(client.get(url))
    for method in ("PUT", "PATCH", "PUT"):
        answer = write(client, method, url, body_of(resource, made, method), If_Match=tag)
        assert answer.status_int == 200
        assert_problem(write(client, method, url, body_of(resource, made, method), If_Match=tag), 412, "stale")
        tag = etag(answer)
    assert write(client, "DELETE", url, If_Match=tag).status_int == 204


def test_reading_and_making_take_no_notice_of_it(client, item):
    resource, url, made = item
    client.get(url, headers={"If-Match": '"999.0"'}, status=200)
    answer = write(client, "POST", f"/api/{resource}/", body_of(resource, made, "POST"), If_Match='"999.0"')
    assert answer.status_int == 201


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_deployment_may_want_every_change_to_say_what_it_changes(make_app, database_kind, resource):
    client = signed_in(make_app(database_kind, **{"api.require_if_match": "true"}))
    # making one needs no tag
    made = MAKERS[resource](client)
    url = f"/api/{resource}/{made['id']}"
    tag = etag(client.get(url))
    for method in ("PUT", "PATCH", "DELETE"):
        body = None if method == "DELETE" else body_of(resource, made, method)
        problem = write(client, method, url, body)
        assert problem.status_int == 428
        assert problem.json["code"] == "precondition-required"
        assert client.get(url).json == made
    client.get(f"/api/{resource}/", status=200)
    answer = write(client, "PATCH", url, body_of(resource, made, "PATCH"), If_Match=tag)
    assert answer.status_int == 200
    assert write(client, "PUT", url, body_of(resource, made, "PUT"), If_Match="*").status_int == 200
    assert write(client, "DELETE", url, If_Match=tag).status_int == 412
    assert write(client, "DELETE", url, If_Match=etag(client.get(url))).status_int == 204


def test_unless_a_deployment_says_so_nobody_has_to(client, item):
    resource, url, made = item
    for method in ("PUT", "PATCH"):
        assert write(client, method, url, body_of(resource, made, method)).status_int == 200
    assert write(client, "DELETE", url).status_int == 204


# -- at the same moment -------------------------------------------------------------------------------------------


def test_the_second_of_two_who_lock_nothing_finds_its_version_gone(client, registry):
    placed = factories.order(client)["id"]
    with registry.database.session() as first, registry.database.session() as second:
        seen = {}
        for session in (first, second):
            seen[session] = session.get(Order, placed)
            # nothing holds the row: what was read stays in the session
            session.commit()
        seen[first].item = "Rice"
        first.commit()
        seen[second].item = "Beans"
        with pytest.raises(StaleDataError):
            second.flush()
        second.rollback()
        first.refresh(seen[first])
        assert (seen[first].item, seen[first].version) == ("Rice", 2)


def test_nobody_deletes_a_version_that_they_have_not_seen(client, registry):
    placed = factories.order(client)["id"]
    with registry.database.session() as first, registry.database.session() as second:
        seen = first.get(Order, placed)
        first.commit()
        second.get(Order, placed).item = "Rice"
        second.commit()
        first.delete(seen)
        with pytest.raises(StaleDataError):
            first.flush()
        first.rollback()
    assert client.get(f"/api/orders/{placed}").json["item"] == "Rice"


@pytest.mark.parametrize("resource", RESOURCES)
def test_of_two_who_change_the_same_version_one_succeeds(app, client, resource):
    for _ in range(5):
        url = f"/api/{resource}/{MAKERS[resource](client)['id']}"
        tag = etag(client.get(url))

        def change(number, url=url, tag=tag):
            return lambda own: write(own, "PATCH", url, {"metadata": {"by": number}}, If_Match=tag)

        answers = at_once(app, client, change("first"), change("second"))
        assert sorted(answer.status_int for answer in answers) == [200, 412]
        (done,) = [answer for answer in answers if answer.status_int == 200]
        (refused,) = [answer for answer in answers if answer.status_int == 412]
        assert refused.json["code"] == "stale"
        after = client.get(url)
        assert (after.json, etag(after)) == (done.json, etag(done))
        assert parts(etag(after))[0] == parts(tag)[0] + 1


def test_of_two_who_change_and_delete_the_same_version_one_succeeds(app, client):
    for _ in range(5):
        url = f"/api/orders/{factories.order(client)['id']}"
        tag = etag(client.get(url))
        changed, deleted = at_once(
            app,
            client,
            lambda own, url=url, tag=tag: write(own, "PATCH", url, {"item": "Rice"}, If_Match=tag),
            lambda own, url=url, tag=tag: write(own, "DELETE", url, If_Match=tag),
        )
        assert (changed.status_int, deleted.status_int) in [(200, 412), (404, 204)]


def test_without_a_tag_both_succeed_and_nothing_is_lost(app, client):
    url = f"/api/orders/{factories.order(client)['id']}"
    answers = at_once(
        app,
        client,
        *(lambda own, key=key: write(own, "PATCH", url, {"metadata": {key: "x"}}) for key in ("a", "b", "c")),
    )
    assert [answer.status_int for answer in answers] == [200] * 3
    assert client.get(url).json["metadata"] == {"a": "x", "b": "x", "c": "x"}
    assert sorted(parts(etag(answer))[0] for answer in answers) == [2, 3, 4]


# -- references ---------------------------------------------------------------------------------------------------


def assert_taken(answer, reference, existing):
    problem = assert_problem(answer, 409, "reference-taken")
    assert problem["existing"] == existing
    assert repr(reference) in problem["detail"]
    assert str(existing) in problem["detail"]


def notifications(registry):
    with registry.database.transaction(writes=False) as session:
        return session.scalar(select(func.count()).select_from(Notification))


@pytest.mark.parametrize("reference", ["A-1", "Zoë 🌻", "o'clock"])
@pytest.mark.parametrize("resource", RESOURCES)
def test_a_reference_is_one_items_only(client, registry, resource, reference):
    first = MAKERS[resource](client, reference=reference)
    other = MAKERS[resource](client, reference="A-2")
    url, told = f"/api/{resource}/", notifications(registry)
    body = {**body_of(resource, first, "POST"), "reference": reference}
    assert_taken(write(client, "POST", url, body), reference, first["id"])
    for method in ("PUT", "PATCH"):
        body = {**body_of(resource, other, method), "reference": reference}
        assert_taken(write(client, method, f"{url}{other['id']}", body), reference, first["id"])
    assert client.get(f"{url}{other['id']}").json == other
    # of an order that was refused, nobody is told
    assert notifications(registry) == told
    assert [found["id"] for found in client.get(url).json] == [other["id"], first["id"]]


def test_a_customer_and_an_order_may_have_the_same_reference(client):
    customer = factories.customer(client, reference="A-1")
    placed = factories.order(client, reference="A-1")
    assert customer["reference"] == placed["reference"] == "A-1"


@pytest.mark.parametrize("resource", RESOURCES)
def test_any_number_of_items_have_none(client, resource):
    made = [MAKERS[resource](client, reference=None), MAKERS[resource](client), MAKERS[resource](client, reference="A")]
    for one in made:
        url = f"/api/{resource}/{one['id']}"
        assert write(client, "PATCH", url, {"reference": None}).json["reference"] is None


@pytest.mark.parametrize("resource", RESOURCES)
def test_references_that_are_not_the_same_are_no_obstacle(client, resource):
    for reference in ("A-1", "a-1", "A-1 ", "A-1\u200f", "Á-1", "A\u0301-1"):
        assert MAKERS[resource](client, reference=reference)["reference"] == reference


@pytest.mark.parametrize("resource", RESOURCES)
def test_an_items_own_reference_can_be_sent_back(client, resource):
    made = MAKERS[resource](client, reference="A-1")
    url = f"/api/{resource}/{made['id']}"
    for method in ("PUT", "PATCH"):
        assert write(client, method, url, client.get(url).json).json["reference"] == "A-1"


@pytest.mark.parametrize("resource", RESOURCES)
def test_a_reference_is_free_again_once_its_item_has_it_no_more(client, resource):
    first, other = MAKERS[resource](client, reference="A-1"), MAKERS[resource](client)
    url = f"/api/{resource}/"
    assert write(client, "PATCH", f"{url}{first['id']}", {"reference": "A-2"}).status_int == 200
    assert write(client, "PATCH", f"{url}{other['id']}", {"reference": "A-1"}).status_int == 200
    client.delete(f"{url}{other['id']}", status=204)
    assert MAKERS[resource](client, reference="A-1")["reference"] == "A-1"


@pytest.mark.parametrize("resource", RESOURCES)
def test_of_two_who_want_the_same_reference_at_once_one_gets_it(app, client, registry, resource):
    body = body_of(resource, MAKERS[resource](client), "POST")
    for number in range(5):
        told, wanted = notifications(registry), {**body, "reference": f"A-{number}"}

        def post(own, wanted=wanted):
            return write(own, "POST", f"/api/{resource}/", wanted)

        answers = at_once(app, client, post, post)
        assert sorted(answer.status_int for answer in answers) == [201, 409]
        (made,) = [answer.json["id"] for answer in answers if answer.status_int == 201]
        (refused,) = [answer for answer in answers if answer.status_int == 409]
        assert_taken(refused, f"A-{number}", made)
        assert [found["id"] for found in client.get(f"/api/{resource}/?reference=A-{number}").json] == [made]
        assert notifications(registry) == told + (resource == "orders")


@pytest.mark.parametrize("resource", RESOURCES)
def test_of_two_who_take_the_same_reference_at_once_one_gets_it(app, client, resource):
    for number in range(5):
        urls = [f"/api/{resource}/{MAKERS[resource](client)['id']}" for _ in range(2)]

        def take(own, url, wanted):
            return write(own, "PATCH", url, {"reference": wanted})

        answers = at_once(
            app, client, *(lambda own, url=url, wanted=f"A-{number}": take(own, url, wanted) for url in urls)
        )
        assert sorted(answer.status_int for answer in answers) == [200, 409]
        references = [client.get(url).json["reference"] for url in urls]
        assert [answer.status_int == 200 for answer in answers] == [one == f"A-{number}" for one in references]
        assert sorted(references, key=str) == [f"A-{number}", None]
