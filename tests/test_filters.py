"""What lists can be narrowed by, what that costs, and what is shown in full."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlencode

import pytest
from requests.utils import parse_header_links
from sqlalchemy import event, insert, select, text

import factories
from contract import assert_problem
from customer_orders import keyset
from customer_orders.customers.models import Customer
from customer_orders.notifications.models import Notification, Status
from customer_orders.orders.models import Order

START = datetime(2026, 1, 31, 8, tzinfo=UTC)

# What each list can be asked for, as the contract names it.
KNOWN = {"limit", "cursor", "ordering", "count", "created_at__gte", "created_at__lt", "updated_at__gte", "reference"}
KNOWN |= {"phone", "q", "metadata.key"}
KNOWN_OF_ORDERS = KNOWN | {"expand", "status", "customer", "notification_status"}

LISTS = ["/api/customers/", "/api/orders/"]


def found(client, url, **query):
    """The ids that a list holds with a query."""
    return [item["id"] for item in client.get(f"{url}?{urlencode(query)}", status=200).json]


def links(answer):
    """The URLs of the pages that ``Link`` leads to, by ``rel``."""
    return {link["rel"]: link["url"] for link in parse_header_links(answer.headers.get("Link", ""))}


def every(client, url, rel="next"):
    """All answers from ``url`` on, following ``rel``."""
    answers = [client.get(url, status=200)]
    while rel in links(answers[-1]):
        answers.append(client.get(links(answers[-1])[rel], status=200))
        assert len(answers) < 200, "the pages never end"
    return answers


def make(client, url, **fields):
    """A customer or an order, whichever the list at ``url`` holds; its id."""
    kind = factories.customer if "customers" in url else factories.order
    return kind(client, **fields)["id"]


@pytest.fixture
def dated(client, session):
    """Makes three rows of the list at a URL, created a minute apart and changed an hour later; their ids."""

    def make_three(url):
        ids = [make(client, url) for _ in range(3)]
        model = Customer if "customers" in url else Order
        for minutes, an_id in enumerate(ids):
            row = session.get(model, an_id)
            row.created_at = START + timedelta(minutes=minutes)
            row.updated_at = START + timedelta(hours=1, minutes=minutes)
        session.commit()
        return ids

    return make_three


# -- times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", LISTS)
def test_a_list_from_a_moment_on_holds_what_was_created_in_it(client, dated, url):
    oldest, middle, newest = dated(url)
    assert found(client, url, created_at__gte="2026-01-31T08:00:00Z") == [newest, middle, oldest]
    assert found(client, url, created_at__gte="2026-01-31T08:01:00Z") == [newest, middle]
    assert found(client, url, created_at__gte="2026-01-31T08:01:00.000001Z") == [newest]
    assert found(client, url, created_at__gte="2026-01-31T08:02:00.000001Z") == []


@pytest.mark.parametrize("url", LISTS)
def test_a_list_up_to_a_moment_holds_nothing_that_was_created_in_it(client, dated, url):
    oldest, middle, newest = dated(url)
    assert found(client, url, created_at__lt="2026-01-31T08:00:00Z") == []
    assert found(client, url, created_at__lt="2026-01-31T08:01:00Z") == [oldest]
    assert found(client, url, created_at__lt="2026-01-31T08:01:00.000001Z") == [middle, oldest]
    assert found(client, url, created_at__lt="9999-12-31T23:59:59Z") == [newest, middle, oldest]


@pytest.mark.parametrize("url", LISTS)
def test_days_side_by_side_hold_everything_once(client, dated, url):
    oldest, middle, newest = dated(url)
    border = "2026-01-31T08:01:00Z"
    assert found(client, url, created_at__lt=border) == [oldest]
    assert found(client, url, created_at__gte=border) == [newest, middle]
    assert found(client, url, created_at__gte=border, created_at__lt="2026-01-31T08:02:00Z") == [middle]
    assert found(client, url, created_at__gte=border, created_at__lt=border) == []


@pytest.mark.parametrize("url", LISTS)
def test_a_list_of_what_changed_since_holds_what_changed_in_that_moment(client, dated, url):
    oldest, middle, newest = dated(url)
    assert found(client, url, updated_at__gte="2026-01-31T09:01:00Z") == [newest, middle]
    assert found(client, url, updated_at__gte="2026-01-31T09:01:00.000001Z") == [newest]
    body = {"metadata": {"seen": "yes"}}
    changed = client.patch_json(f"{url}{oldest}", body).json["updated_at"]
    assert found(client, url, updated_at__gte=changed) == [oldest]


@pytest.mark.parametrize("url", LISTS)
def test_a_range_of_times_is_told_last_first_unless_another_order_is_asked_for(client, dated, session, url):
    oldest, middle, newest = dated(url)
    model = Customer if "customers" in url else Order
    session.get(model, oldest).updated_at = START + timedelta(hours=2)
    # rows that came in another order than they say they were made
    session.get(model, newest).created_at = START
    session.commit()
    assert found(client, url, updated_at__gte="2026-01-31T08:00:00Z") == [oldest, newest, middle]
    for name, moment in (("created_at__gte", "2026-01-31T08:00:00Z"), ("created_at__lt", "2026-02-01T00:00:00Z")):
        assert found(client, url, **{name: moment}) == [middle, newest, oldest]
        both = {name: moment, "updated_at__gte": "2026-01-31T08:00:00Z"}
        assert found(client, url, **both) == [middle, newest, oldest]
        assert found(client, url, **both, ordering="-id") == [newest, middle, oldest]
        pages = every(client, f"{url}?{urlencode({**both, 'limit': 1})}")
        assert [item["id"] for answer in pages for item in answer.json] == [middle, newest, oldest]
        back = every(client, pages[-1].request.url, "prev")
        assert [item["id"] for answer in back for item in answer.json] == [oldest, newest, middle]


@pytest.mark.parametrize(
    "written",
    [
        "2026-01-31T08:01:00Z",
        "2026-01-31t08:01:00z",
        "2026-01-31T08:01:00.0Z",
        "2026-01-31T08:01:00.000000000Z",
        "2026-01-31T11:01:00%2B03:00",
        "2026-01-31T11:01:00+03:00",
        "2026-01-31t11:01:00.0+03:00",
        "2026-01-30T20:01:00-12:00",
        "2026-01-31T08:01:00-00:00",
        "2026-01-31T13:46:00+05:45",
        "2026-02-01T08:00:00%2B23:59",
    ],
)
def test_a_moment_is_read_however_it_is_written(client, dated, written):
    oldest, middle, newest = dated("/api/customers/")
    told = client.get(f"/api/customers/?created_at__gte={written}", status=200)
    assert [item["id"] for item in told.json] == [newest, middle]
    told = client.get(f"/api/customers/?created_at__lt={written}", status=200)
    assert [item["id"] for item in told.json] == [oldest]


NOT_MOMENTS = [
    "",
    "2026",
    "2026-01-31",
    "2026-01-31T08:00",
    "2026-01-31T08:00Z",
    "2026-01-31T08:00:00",
    "2026-01-31 08:00:00",
    "2026-01-31 08:00:00Z",
    "20260131T080000Z",
    "2026-W05-6T08:00:00Z",
    "2026-031T08:00:00Z",
    "2026-02-30T08:00:00Z",
    "2026-02-29T08:00:00Z",
    "2026-13-01T08:00:00Z",
    "2026-00-01T08:00:00Z",
    "2026-01-00T08:00:00Z",
    "0000-01-01T00:00:00Z",
    "-001-01-01T00:00:00Z",
    "12026-01-31T08:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "0001-01-01T00:00:00+23:59",
    "2026-01-31T24:00:00Z",
    "2026-01-31T23:60:00Z",
    "2026-01-31T23:59:60Z",
    "2026-01-31T08:00:00.Z",
    "2026-01-31T08:00:00,5Z",
    "2026-01-31T08:00:00.0000000000Z",
    "2026-01-31T08:00:00+3:00",
    "2026-01-31T08:00:00+0300",
    "2026-01-31T08:00:00+03",
    "2026-01-31T08:00:00+24:00",
    "2026-01-31T08:00:00++03:00",
    "2026-01-31T08:00:00\u221203:00",
    "2026-01-31T08:00:00 EAT",
    "2026-01-31T08:00:00Z ",
    " 2026-01-31T08:00:00Z",
    "2026-01-31T08:00:00Z\n",
    "2026-01-31T08:00:00Z\0",
    "\u0662\u0660\u0662\u0666-01-31T08:00:00Z",
    "\uff12026-01-31T08:00:00Z",
    "1769846400",
    "now",
    "infinity",
    "-infinity",
    "null",
]


@pytest.mark.parametrize("name", ["created_at__gte", "created_at__lt", "updated_at__gte"])
def test_what_is_no_moment_is_refused(client, subtests, name):
    for url in LISTS:
        for written in NOT_MOMENTS:
            with subtests.test(url=url, written=written):
                answer = client.get(f"{url}?{urlencode({name: written})}", status="*")
                assert_problem(answer, 400, "invalid", name)


@pytest.mark.parametrize("url", LISTS)
def test_the_first_and_the_last_moment_are_moments(client, dated, url):
    ids = dated(url)[::-1]
    assert (
        found(client, url, created_at__gte="0001-01-01T00:00:00Z", created_at__lt="9999-12-31T23:59:59.999999Z") == ids
    )
    assert found(client, url, updated_at__gte="9999-12-31T23:59:59.999999Z") == []


# -- what is the same ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", LISTS)
def test_a_reference_finds_its_one_item(client, url):
    odd = ["A-1", "a-1", "A-10", "A_1", "%", "100% /\\ 'O''Brien' --", "Zoë 🌻", "Zoe\u0308", "null", "A-1 "]
    ids = {reference: make(client, url, reference=reference) for reference in odd}
    make(client, url)
    for reference, an_id in ids.items():
        assert found(client, url, reference=reference) == [an_id], reference
    assert found(client, url, reference="A") == []


def test_orders_are_found_by_their_customer(client):
    one, other = factories.customer(client)["id"], factories.customer(client)["id"]
    placed = [factories.order(client, customer=customer)["id"] for customer in (one, other, one)]
    assert found(client, "/api/orders/", customer=one) == [placed[2], placed[0]]
    assert found(client, "/api/orders/", customer=other) == [placed[1]]
    assert found(client, "/api/orders/", customer=f"000{other}") == [placed[1]]
    for nobody in (other + 1, 2**63 - 1):
        assert found(client, "/api/orders/", customer=nobody) == []


def test_orders_are_found_by_where_they_stand(client, session):
    placed, paid = factories.order(client)["id"], factories.order(client)["id"]
    assert found(client, "/api/orders/", status="placed") == [paid, placed]
    # a status that a later version brings
    session.get(Order, paid).status = "paid"
    session.commit()
    assert found(client, "/api/orders/", status="placed") == [placed]


PHONES = [
    "0713 812 939",
    "+254713812939",
    "713812939",
    "254713812939",
    "00254 713-812-939",
    "(0713) 812.939",
    "tel:+254-713-812-939",
    "\u0660\u0667\u0661\u0663\u0668\u0661\u0662\u0669\u0663\u0669",
]


@pytest.mark.parametrize("url", LISTS)
def test_a_phone_number_is_found_as_people_write_it(client, subtests, url):
    ids = []
    for number in ("0713812939", "+254713812940", "0713812939"):
        customer = factories.customer(client, phone_number=number)["id"]
        ids.append(customer if "customers" in url else factories.order(client, customer=customer)["id"])
    # a + that nobody escaped is a space by the time it is read
    for written in [*map(quote, PHONES), "+254713812939", "0713+812+939", "+254+713+812+939"]:
        with subtests.test(written=written):
            told = client.get(f"{url}?phone={written}", status=200)
            assert [item["id"] for item in told.json] == [ids[2], ids[0]]
    assert found(client, url, phone="0713812941") == []


@pytest.mark.parametrize("number", ["+4512345678", "+447911123456", "+12025550123"])
@pytest.mark.parametrize("url", LISTS)
def test_a_phone_number_of_another_country_is_found_with_a_plus_that_nobody_escaped(client, url, number):
    customer = factories.customer(client, phone_number=number)["id"]
    wanted = customer if "customers" in url else factories.order(client, customer=customer)["id"]
    for written in (number, quote(number), f"{number[:4]}+{number[4:]}", f"+{number}"):
        assert [item["id"] for item in client.get(f"{url}?phone={written}").json] == [wanted], written


def test_a_phone_number_of_the_region_is_found_with_a_space_before_it(client):
    customer = factories.customer(client, phone_number="0713812939")["id"]
    for written in ("+0713812939", "%200713812939", "+713+812+939", "%20%20+254713812939"):
        assert [item["id"] for item in client.get(f"/api/customers/?phone={written}").json] == [customer], written


def test_an_order_is_found_by_what_became_of_its_last_message_alone(client, session):
    sent, twice, queued = (factories.order(client)["id"] for _ in range(3))
    for notification in session.scalars(select(Notification)):
        notification.status = Status.QUEUED if notification.order_id == queued else Status.SENT
    session.commit()
    assert found(client, "/api/orders/", notification_status="sent") == [twice, sent]
    first = session.scalars(select(Notification).where(Notification.order_id == twice)).one()
    told = {"event": "order_placed", "channel": "sms", "recipient": first.recipient, "text": "Once more"}
    moments = {"created_at": first.created_at, "updated_at": first.updated_at}
    session.add(Notification(order_id=twice, status=Status.FAILED, **told, **moments))
    session.commit()
    assert found(client, "/api/orders/", notification_status="sent") == [sent]
    assert found(client, "/api/orders/", notification_status="failed") == [twice]
    assert found(client, "/api/orders/", notification_status="queued") == [queued]
    assert found(client, "/api/orders/", notification_status="cancelled") == []
    (shown,) = client.get("/api/orders/?notification_status=failed").json
    assert shown["notification"]["status"] == "failed"


def test_an_order_without_a_message_has_no_status_of_one(client, session):
    factories.order(client)
    session.execute(Notification.__table__.delete())
    session.commit()
    for status in Status:
        assert found(client, "/api/orders/", notification_status=status) == []


def test_a_message_whose_order_is_gone_finds_nothing(client):
    placed = factories.order(client)["id"]
    client.delete(f"/api/orders/{placed}", status=204)
    assert found(client, "/api/orders/", notification_status="cancelled") == []


def test_a_delivered_message_moves_its_order_from_one_status_to_another(client, deliver):
    placed = factories.order(client)["id"]
    assert found(client, "/api/orders/", notification_status="queued") == [placed]
    deliver()
    assert found(client, "/api/orders/", notification_status="queued") == []
    assert found(client, "/api/orders/", notification_status="sent") == [placed]


# -- what is like it ----------------------------------------------------------------------------------------------

NAMES = [
    "Asha Otieno",
    "100% Arabica",
    "100 Arabica",
    "snake_case",
    "snakeXcase",
    "either/or",
    r"back\slash",
    "O'Brien",
    'the "best"',
    "Zoë 🌻",
    "a//b",
    r"a\%b",
]

PARTS = {
    "asha": ["Asha Otieno"],
    "ASHA": ["Asha Otieno"],
    "sHa oT": ["Asha Otieno"],
    "otieno": ["Asha Otieno"],
    "arabica": ["100% Arabica", "100 Arabica"],
    "%": ["100% Arabica", r"a\%b"],
    "0%": ["100% Arabica"],
    "100%A": [],
    "_": ["snake_case"],
    "SNAKE_CASE": ["snake_case"],
    "/": ["either/or", "a//b"],
    "R/O": ["either/or"],
    "//": ["a//b"],
    "/%": [],
    "/_": [],
    "\\": [r"back\slash", r"a\%b"],
    "K\\S": [r"back\slash"],
    "\\%": [r"a\%b"],
    "\\_": [],
    "\\\\": [],
    "'": ["O'Brien"],
    "''": [],
    '"BEST"': ['the "best"'],
    "🌻": ["Zoë 🌻"],
    "zoë": ["Zoë 🌻"],
    "zoe": [],
    "*": [],
    ".": [],
    "nobody": [],
}


@pytest.mark.parametrize("url", LISTS)
def test_a_part_of_a_name_is_taken_literally_in_capitals_or_not(client, subtests, url):
    field = "username" if "customers" in url else "item"
    ids = {name: make(client, url, **{field: name}) for name in NAMES}
    for part, names in PARTS.items():
        with subtests.test(part=part):
            assert found(client, url, q=part) == [ids[name] for name in names][::-1]


@pytest.mark.parametrize("part", ["piñata", "PIÑATA", "Ñ", "ñ", "straße", "STRASSE", "ЧАЙ", "чай"])
def test_letters_beyond_ascii_are_found_in_capitals_or_not(client, part):
    ids = {item: factories.order(client, item=item)["id"] for item in ("Piñata", "PIÑATA", "Straße", "чай", "Чай")}
    alike = [item for item in ids if part.lower() in item.lower()]
    assert found(client, "/api/orders/", q=part) == [ids[item] for item in alike][::-1]


def test_orders_are_found_by_the_item_and_by_the_name_of_the_customer(client):
    asha, tea = (
        factories.customer(client, username="Asha")["id"],
        factories.customer(client, username="Tea House")["id"],
    )
    by_asha = factories.order(client, customer=asha, item="Rice")["id"]
    by_both = factories.order(client, customer=tea, item="Green tea")["id"]
    by_name = factories.order(client, customer=tea, item="Rice")["id"]
    by_item = factories.order(client, customer=asha, item="Black TEA")["id"]
    assert found(client, "/api/orders/", q="tea") == [by_item, by_name, by_both]
    assert found(client, "/api/orders/", q="ASHA") == [by_item, by_asha]
    assert found(client, "/api/orders/", q="rice") == [by_name, by_asha]


KEYS = [
    "table",
    "Table",
    "a.b",
    "a..b",
    ".",
    "key",
    "metadata.key",
    'the "key"',
    "it's",
    "$",
    "$.table",
    "$[0]",
    "[0]",
    "0",
    "-1",
    "#-1",
    "a b",
    "a+b",
    "a&b=c",
    "a%b",
    "{}",
    "\\",
    "a,b",
    "🌻",
    "Ключ",
    "k" * 40,
    "ключ" * 10,
]


@pytest.mark.parametrize("url", LISTS)
def test_metadata_is_found_by_any_key_that_it_can_have(client, subtests, url):
    ids = {key: make(client, url, metadata={key: f"value of {key}", "shared": "yes"}) for key in KEYS}
    make(client, url, metadata={"another": "value of table"})
    for key, an_id in ids.items():
        with subtests.test(key=key):
            assert found(client, url, **{f"metadata.{key}": f"value of {key}"}) == [an_id]
            assert found(client, url, **{f"metadata.{key}": "another"}) == []
            assert found(client, url, **{f"metadata.{key}": ""}) == []
            both = {f"metadata.{key}": f"value of {key}", "metadata.shared": "yes"}
            assert found(client, url, **both) == [an_id]
    assert found(client, url, **{"metadata.shared": "yes"}) == list(ids.values())[::-1]


@pytest.mark.parametrize("url", LISTS)
def test_a_value_of_metadata_is_compared_as_the_string_that_it_is(client, url):
    values = ["1", "01", "1.0", "true", "null", "", "{}", "[]", '"1"', "a'b", "%", "Zoë 🌻", "x" * 500]
    ids = {value: make(client, url, metadata={"it": value}) for value in values}
    make(client, url)
    for value, an_id in ids.items():
        assert found(client, url, **{"metadata.it": value}) == [an_id], value


@pytest.mark.parametrize("url", LISTS)
def test_several_keys_have_to_be_right_at_once(client, url):
    both = make(client, url, metadata={"a": "1", "b": "2"})
    make(client, url, metadata={"a": "1", "b": "3"})
    make(client, url, metadata={"a": "1"})
    assert found(client, url, **{"metadata.a": "1", "metadata.b": "2"}) == [both]
    assert found(client, url, **{"metadata.a": "1", "metadata.b": "2", "metadata.c": ""}) == []
    full = {f"key {number}": str(number) for number in range(50)}
    crowded = make(client, url, metadata=full)
    assert found(client, url, **{f"metadata.{key}": value for key, value in full.items()}) == [crowded]


BAD_FILTERS = [
    ("reference=", "reference"),
    ("reference=%20", "reference"),
    ("reference=" + "x" * 256, "reference"),
    ("reference=a%00", "reference"),
    ("reference=a&reference=a", "reference"),
    ("phone=Jane", "phone"),
    ("phone=", "phone"),
    ("phone=12", "phone"),
    ("phone=0713812939&phone=0713812939", "phone"),
    ("q=", "q"),
    ("q=%20", "q"),
    ("q=a%00", "q"),
    ("q=%E2%80%AE", "q"),
    ("q=" + "x" * 256, "q"),
    ("q=a&q=b", "q"),
    ("metadata.=x", "metadata.key"),
    ("metadata.%20=x", "metadata.key"),
    ("metadata.a=x%00", "metadata.key"),
    ("metadata.a%00=x", "metadata.key"),
    ("metadata.a=" + "x" * 501, "metadata.key"),
    (f"metadata.{'k' * 41}=x", "metadata.key"),
    ("&".join(f"metadata.{number}=x" for number in range(51)), "metadata.key"),
    ("metadata.a=1&metadata.a=1", "metadata.a"),
    ("metadata=x", "metadata"),
    ("Metadata.a=x", "Metadata.a"),
    ("count=", "count"),
    ("count=1", "count"),
    ("count=True", "count"),
    ("created_at__gte=2026-01-31T08:00:00Z&created_at__gte=2026-01-31T08:00:00Z", "created_at__gte"),
    ("created_at=2026-01-31T08:00:00Z", "created_at"),
    ("created_at__gt=2026-01-31T08:00:00Z", "created_at__gt"),
    ("updated_at__lt=2026-01-31T08:00:00Z", "updated_at__lt"),
    ("reference__in=a", "reference__in"),
    ("id=1", "id"),
    ("username=Jane", "username"),
]

BAD_FILTERS_OF_ORDERS = [
    ("status=", "status"),
    ("status=paid", "status"),
    ("status=PLACED", "status"),
    ("status=placed&status=placed", "status"),
    ("customer=", "customer"),
    ("customer=0", "customer"),
    ("customer=-1", "customer"),
    ("customer=abc", "customer"),
    ("customer=%D9%A1", "customer"),
    (f"customer={2**63}", "customer"),
    ("customer=1&customer=2", "customer"),
    ("notification_status=", "notification_status"),
    ("notification_status=lost", "notification_status"),
    ("notification_status=SENT", "notification_status"),
    ("notification_status=sent&notification_status=failed", "notification_status"),
    ("expand=", "expand"),
    ("expand=other", "expand"),
    ("expand=customer,customer", "expand"),
    ("expand=customer&expand=customer", "expand"),
    ("item=Tea", "item"),
]


@pytest.mark.parametrize("url", LISTS)
def test_a_filter_that_cannot_be_is_named(client, subtests, url):
    for query, name in BAD_FILTERS + (BAD_FILTERS_OF_ORDERS if "orders" in url else []):
        with subtests.test(query=query[:60]):
            problem = assert_problem(client.get(f"{url}?{query}", status="*"), 400, "invalid", name)
            assert {error["location"] for error in problem["errors"]} == {"querystring"}


@pytest.mark.parametrize("url", LISTS)
def test_a_filter_that_there_is_not_is_told_which_there_are(client, url):
    problem = assert_problem(client.get(f"{url}?colour=red", status="*"), 400, "invalid", "colour")
    (wrong,) = problem["errors"]
    head, _, known = wrong["description"].removesuffix(".").partition("Known: ")
    assert head == "Is not known here. "
    assert sorted(known.split(", ")) == sorted(KNOWN_OF_ORDERS if "orders" in url else KNOWN)


def test_customers_have_no_filters_of_orders(client):
    for query in ("status=placed", "customer=1", "notification_status=sent", "expand=customer"):
        name = query.partition("=")[0]
        assert_problem(client.get(f"/api/customers/?{query}", status="*"), 400, "invalid", name)


# -- together -----------------------------------------------------------------------------------------------------


def test_filters_narrow_each_other(client, dated, deliver):
    asha = factories.customer(client, username="Asha", phone_number="0713812939")["id"]
    wanted = factories.order(client, customer=asha, item="Tea", reference="A-1", metadata={"a": "1"})["id"]
    dated("/api/orders/")
    factories.order(client, customer=asha, item="Rice", reference="A-2", metadata={"a": "1"})
    deliver()
    all_of_it = {
        "created_at__gte": "2026-02-01T00:00:00Z",
        "created_at__lt": "9999-01-01T00:00:00Z",
        "updated_at__gte": "2026-02-01T00:00:00Z",
        "reference": "A-1",
        "status": "placed",
        "customer": asha,
        "phone": "0713 812 939",
        "notification_status": "sent",
        "q": "TEA",
        "metadata.a": "1",
    }
    assert found(client, "/api/orders/", **all_of_it) == [wanted]
    other = {
        "created_at__gte": "9999-01-01T00:00:00Z",
        "created_at__lt": "2026-01-01T00:00:00Z",
        "updated_at__gte": "9999-01-01T00:00:00Z",
        "reference": "A-2",
        "customer": asha + 1,
        "phone": "0713 812 938",
        "notification_status": "queued",
        "q": "rice",
        "metadata.a": "2",
    }
    for name, value in other.items():
        assert found(client, "/api/orders/", **{**all_of_it, name: value}) == [], name


@pytest.mark.parametrize(
    "query",
    [
        {"phone": "+254713812939"},
        {"q": "ta%s & co/\\ ñ"},
        {"metadata.a.b&c": "1=1 + 1"},
        {"phone": "0713 812 939", "created_at__gte": "2026-01-31T11:00:00+03:00", "ordering": "-created_at,id"},
        {"reference": "of one only"},
    ],
)
@pytest.mark.parametrize("url", LISTS)
def test_the_links_of_a_page_keep_what_narrows_the_list(client, url, query):
    wanted = []
    for number in range(7):
        phone = "0713812939" if number % 2 == 0 else "0713812940"
        name = "Pasta%s & Co/\\ Ñ" if number % 2 == 0 else "Pastaxs"
        metadata = {"a.b&c": "1=1 + 1" if number % 2 == 0 else "2"}
        reference = {"reference": "of one only"} if number == 0 else {}
        fields = {"metadata": metadata, **reference}
        if "customers" in url:
            made = factories.customer(client, username=name, phone_number=phone, **fields)
        else:
            customer = factories.customer(client, phone_number=phone)["id"]
            made = factories.order(client, customer=customer, item=name, **fields)
        wanted += [made["id"]] if number % 2 == 0 else []
    if "reference" in query:
        wanted = wanted[:1]
    there = every(client, f"{url}?{urlencode({**query, 'limit': 1})}")
    there = [answer for answer in there if answer.json]
    assert [item["id"] for answer in there for item in answer.json] == wanted[::-1]
    for answer in there:
        for link in links(answer).values():
            assert all(urlencode({name: value}) in link for name, value in query.items())
            assert link.count("limit=1") == 1
    back = every(client, there[-1].request.url, "prev")
    assert [item["id"] for answer in back for item in answer.json] == wanted


# -- how many -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", LISTS)
def test_items_are_counted_only_where_it_is_asked_for(client, url):
    for number in range(5):
        make(client, url, reference=f"A-{number}")
    for query in ("", "?count=false", "?count=false&q=a", "?limit=2"):
        assert "X-Total-Count" not in client.get(f"{url}{query}").headers
    for answer in every(client, f"{url}?count=true&limit=2"):
        assert answer.headers["X-Total-Count"] == "5"
    for query, total in (
        ("reference=A-3", 1),
        ("reference=A-9", 0),
        ("created_at__gte=2026-01-01T00:00:00Z", 5),
        ("created_at__gte=9999-01-01T00:00:00Z", 0),
    ):
        assert client.get(f"{url}?count=true&limit=1&{query}").headers["X-Total-Count"] == str(total)


def test_what_is_counted_is_what_the_filters_leave(client, deliver):
    asha = factories.customer(client, phone_number="0713812939")["id"]
    for _ in range(3):
        factories.order(client, customer=asha)
    deliver()
    factories.order(client)
    for query, total in (
        (f"customer={asha}", 3),
        ("phone=0713812939", 3),
        ("notification_status=sent", 3),
        ("notification_status=queued", 1),
        ("status=placed", 4),
        (f"customer={asha}&notification_status=queued", 0),
    ):
        assert client.get(f"/api/orders/?count=true&limit=1&{query}").headers["X-Total-Count"] == str(total), query


@pytest.mark.parametrize("query", ["q=a", "metadata.a=1", "q=a&metadata.a=1"])
@pytest.mark.parametrize("url", LISTS)
def test_what_no_index_helps_with_cannot_be_counted(client, url, query):
    assert_problem(client.get(f"{url}?count=true&{query}", status="*"), 400, "invalid", "count")


# -- in full ------------------------------------------------------------------------------------------------------


@pytest.fixture
def statements(registry):
    """The statements that the application has sent to its database, with their parameters."""
    engine, sent = registry.database.engine, []
    event.listen(engine, "before_cursor_execute", record := lambda *given: sent.append((given[2], given[3])))
    yield sent
    event.remove(engine, "before_cursor_execute", record)


def selects(statements):
    return [statement for statement, _ in statements if statement.startswith("SELECT")]


def test_an_order_shows_its_customer_in_full_where_asked_to(client):
    asha = factories.customer(client, reference="A-1", metadata={"a": "1"}, language="sw", sms_opt_out=True)["id"]
    for customer in (asha, asha, factories.customer(client)["id"]):
        factories.order(client, customer=customer)
    orders, expanded = client.get("/api/orders/").json, client.get("/api/orders/?expand=customer").json
    assert [{**order, "customer": order["customer"]["id"]} for order in expanded] == orders
    for order in expanded:
        assert order["customer"] == client.get(f"/api/customers/{order['customer']['id']}").json
        assert client.get(f"/api/orders/{order['id']}?expand=customer").json == order
    assert expanded[-1]["customer"]["reference"] == "A-1"


def test_customers_in_full_cost_one_statement_whatever_the_length_of_the_page(client, statements):
    for _ in range(5):
        factories.order(client)
    counts = {}
    for limit in (1, 2, 5):
        for query in ("", "&expand=customer"):
            statements.clear()
            assert len(client.get(f"/api/orders/?limit={limit}{query}").json) == limit
            counts[limit, query] = len(selects(statements))
    for limit in (1, 2, 5):
        assert counts[limit, ""] == counts[1, ""] > 0
        assert counts[limit, "&expand=customer"] == counts[1, ""] + 1


def test_the_customers_of_an_empty_page_are_none(client):
    assert client.get("/api/orders/?expand=customer").json == []


def test_pages_lead_to_pages_that_show_as_much(client):
    for _ in range(3):
        factories.order(client)
    for answer in every(client, "/api/orders/?expand=customer&limit=1"):
        assert [item["customer"]["username"] for item in answer.json]


@pytest.mark.parametrize("expand", ["other", "", "Customer", "customer,notification", "customer.orders", "*"])
def test_nothing_else_can_be_shown_in_full(client, expand):
    placed = factories.order(client)["id"]
    for url in ("/api/orders/", f"/api/orders/{placed}"):
        assert_problem(client.get(f"{url}?expand={expand}", status="*"), 400, "invalid", "expand")


# -- searching ----------------------------------------------------------------------------------------------------


@pytest.fixture
def scattered(client, session, monkeypatch):
    """Customers or orders, of whom every search looks at five for one page; tells the ids of those that match."""
    monkeypatch.setattr(keyset, "SCANNED", 5)

    def fill(url, number, matching):
        customer = factories.customer(client)["id"]
        now = {"created_at": START, "updated_at": START}
        rows = []
        for place in range(number):
            name, extra = ("Tea", {"kind": "tea"}) if place in matching else ("Rice", {})
            if "customers" in url:
                rows.append(
                    Customer(username=name, phone_number="+254713812939", sms_opt_out=False, extra=extra, **now)
                )
            else:
                rows.append(Order(customer_id=customer, item=name, amount=1, currency="KES", extra=extra, **now))
            session.add(rows[-1])
            session.flush()
        session.commit()
        return [row.id for place, row in enumerate(rows) if place in matching]

    return fill


@pytest.mark.parametrize("query", ["q=tea", "metadata.kind=tea", "q=TEA&metadata.kind=tea"])
@pytest.mark.parametrize("ordering", ["id", "-id", "-created_at,id"])
@pytest.mark.parametrize("url", LISTS)
def test_a_search_finds_each_match_once_over_pages_that_may_be_short_or_empty(client, scattered, url, query, ordering):
    # far apart, side by side, and more at once than a page holds; the first and the last of the table too
    matching = scattered(url, 38, {0, 1, 17, 18, 19, 20, 21, 22, 23, 37})
    wanted = matching[::-1] if ordering == "-id" else matching
    for limit in (1, 3, 50):
        answers = every(client, f"{url}?{query}&ordering={ordering}&limit={limit}")
        assert [item["id"] for answer in answers for item in answer.json] == wanted
        assert [] in [answer.json for answer in answers[:-1]], "an empty page leads on"
        assert all(len(answer.json) <= limit for answer in answers)
        assert "next" not in links(answers[-1])
        back = every(client, answers[-1].request.url, "prev")
        assert [item["id"] for answer in back for item in answer.json[::-1]] == wanted[::-1]
        # and from any page, whatever it holds, both ways
        for answer in answers[1:-1]:
            assert {"next", "prev", "first"} == set(links(answer))
        for answer in back[:-1]:
            assert "prev" in links(answer)
            assert "next" in links(answer) or answer is back[0]


def test_a_search_looks_at_no_more_rows_than_it_says(client, scattered):
    matching = scattered("/api/orders/", 12, {0, 11})
    first = client.get("/api/orders/?q=tea")
    assert [item["id"] for item in first.json] == [matching[1]]
    second = client.get(links(first)["next"])
    assert second.json == []
    third = client.get(links(second)["next"])
    assert [item["id"] for item in third.json] == [matching[0]]
    assert set(links(third)) == {"prev", "first"}


@pytest.mark.parametrize("number", [0, 1, 4, 5, 6, 9, 10, 11])
def test_a_search_that_finds_nothing_ends_where_the_table_does(client, scattered, number):
    scattered("/api/orders/", number, set())
    answers = every(client, "/api/orders/?q=tea")
    assert [answer.json for answer in answers] == [[]] * max(1, -(-number // 5))
    back = every(client, answers[-1].request.url, "prev")
    assert [answer.json for answer in back] == [[]] * len(answers)


def test_a_filter_decides_which_rows_a_search_looks_at(client, scattered, session):
    matching = scattered("/api/orders/", 40, {0, 20, 39})
    for order_id in matching:
        session.get(Order, order_id).created_at = START - timedelta(days=1)
    session.commit()
    answer = client.get("/api/orders/?q=tea&created_at__lt=2026-01-31T00:00:00Z")
    assert [item["id"] for item in answer.json] == matching[::-1]
    assert "next" not in links(answer)


def test_a_list_without_a_search_is_never_short(client, scattered):
    scattered("/api/orders/", 12, set())
    assert len(client.get("/api/orders/").json) == 12


# -- what it costs ------------------------------------------------------------------------------------------------

CROWD = 20_000


@pytest.fixture(scope="module")
def crowded(make_app, database_kind):
    """An application with CROWD orders of as many customers, and a message about each."""
    app = make_app(database_kind)
    with app.registry.database.transaction() as session:
        numbers = range(1, CROWD + 1)
        moments = [START + timedelta(minutes=number) for number in numbers]
        common = [
            {"id": number, "metadata": {}, "created_at": moment, "updated_at": moment, "reference": f"A-{number}"}
            for number, moment in zip(numbers, moments, strict=True)
        ]
        session.execute(
            insert(Customer.__table__),
            [
                {**row, "username": "Jane", "phone_number": f"+2547{row['id']:08d}", "sms_opt_out": False}
                for row in common
            ],
        )
        placed = {"item": "Tea", "amount": 1, "currency": "KES"}
        session.execute(
            insert(Order.__table__),
            [
                # few of each status that can be asked for: what else there may be comes with later versions
                {**row, **placed, "customer_id": row["id"], "status": "placed" if row["id"] % 500 == 0 else "paid"}
                for row in common
            ],
        )
        told = {"event": "order_placed", "channel": "sms", "text": ""}
        session.execute(
            insert(Notification.__table__),
            [
                {
                    **told,
                    "order_id": row["id"],
                    "customer_id": row["id"],
                    "recipient": f"+2547{row['id']:08d}",
                    "reference": row["reference"],
                    "status": "failed" if row["id"] % 500 == 0 else "sent",
                    "created_at": row["created_at"],
                    "updated_at": row["updated_at"],
                }
                for row in common
            ],
        )
    with app.registry.database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()
    return app


LATE = quote((START + timedelta(minutes=CROWD - 20)).isoformat())
EARLY = quote((START + timedelta(minutes=20)).isoformat())

SELECTIVE = [
    (url, query)
    for url in LISTS
    for query in (
        f"created_at__gte={LATE}",
        f"created_at__lt={EARLY}",
        f"updated_at__gte={LATE}",
        "reference=A-77",
        "phone=0700000077",
        f"ordering=-created_at,-id&created_at__lt={EARLY}",
        f"ordering=-created_at&created_at__gte={LATE}",
        f"ordering=updated_at&updated_at__gte={LATE}",
    )
] + [("/api/orders/", query) for query in ("status=placed", "customer=77", "notification_status=failed")]
SELECTIVE += [
    ("/api/notifications/", query) for query in ("order=77", "customer=77", "phone=0700000077", "reference=A-77")
]

ORDERED = [(url, f"ordering={name}") for url in LISTS for name in ("created_at", "-created_at", "-updated_at", "-id")]


@pytest.fixture
def plans(crowded, client_of):
    """Tells how the database goes about a list, by running its statements again to have them explained.

    :returns: the answer, how the page was found, and how its items were counted.
    """
    engine = crowded.registry.database.engine
    client = client_of(crowded)

    def explain(url):
        sent, table = [], re.search(r"/api/(\w+)/", url)[1]
        event.listen(engine, "before_cursor_execute", record := lambda *given: sent.append((given[2], given[3])))
        try:
            answer = client.get(url, status=200)
        finally:
            event.remove(engine, "before_cursor_execute", record)
        assert answer.json, "nothing was found"
        how = "EXPLAIN" if engine.name == "postgresql" else "EXPLAIN QUERY PLAN"
        told = {"page": [], "count": []}
        with engine.connect() as connection:
            for sql, given in sent:
                if re.search(rf"\bFROM {table}\b", sql):
                    rows = connection.exec_driver_sql(f"{how} {sql}", given)
                    told["count" if "count(*)" in sql else "page"] += [row[-1] for row in rows]
        return answer, "\n".join(told["page"]), "\n".join(told["count"])

    return explain


def assert_indexed(plan, *, walks=False):
    """No table is read as it lies; ``walks``: but perhaps along its ids, which need no index of their own on SQLite."""
    assert not re.search(r"Seq Scan on (orders|customers|notifications)", plan), plan
    assert walks or not re.search(r"^SCAN (?!scanned|.*USING)", plan, re.MULTILINE), plan
    assert re.search("Index (Only )?Scan|USING (COVERING )?INDEX|USING INTEGER PRIMARY KEY|^SCAN", plan), plan


@pytest.mark.parametrize(("url", "query"), SELECTIVE)
def test_each_filter_but_a_search_has_an_index_that_helps(plans, url, query):
    _, plan, counting = plans(f"{url}?{query}&count=true")
    assert_indexed(plan)
    assert_indexed(counting)


@pytest.mark.parametrize(("url", "query"), ORDERED)
def test_no_page_costs_the_whole_table_wherever_it_begins(plans, url, query):
    answer, plan, _ = plans(f"{url}?{query}")
    assert_indexed(plan, walks=query == "ordering=-id")
    assert not re.search(r"\bSort\b|TEMP B-TREE", plan), plan
    answer, plan, _ = plans(links(answer)["next"])
    assert_indexed(plan)
    assert not re.search(r"\bSort\b|TEMP B-TREE", plan), plan
    _, plan, _ = plans(links(answer)["prev"])
    assert_indexed(plan)
    assert not re.search(r"\bSort\b|TEMP B-TREE", plan), plan


def test_a_page_of_a_customers_orders_needs_no_sorting(plans):
    _, plan, _ = plans("/api/orders/?customer=77")
    assert_indexed(plan)
    assert not re.search(r"\bSort\b|TEMP B-TREE", plan), plan


def test_what_became_of_messages_is_found_by_the_index_that_was_made_for_it(plans):
    _, plan, counting = plans("/api/orders/?notification_status=failed&count=true")
    for told in (plan, counting):
        assert "ix_notifications_status_order_id" in told


# SQLite, which keeps no histogram, thinks that a tenth of the messages is found soon enough along their ids
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_what_became_of_few_messages_is_found_by_an_index(plans):
    _, plan, counting = plans("/api/notifications/?status=failed&count=true")
    assert_indexed(plan)
    assert_indexed(counting)
