"""What a message says: in which language, how long, and when nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

import factories
from customer_orders import languages, main
from customer_orders.events import CustomerFacts, OrderFacts
from customer_orders.notifications.models import Notification
from customer_orders.notifications.templates import Templates
from customer_orders.orders.models import OrderStatus
from customer_orders.sections import Notifications
from customer_orders.segments import size
from customer_orders.settings import InvalidSettings
from test_settings import GOOD, wrong

PLACED = "notifications.template.order_placed"
ORDER = OrderFacts(7, "Tea", 10000, "KES", None)


def somebody(language=None, **facts):
    named = {"id": 1, "username": "Asha", "phone_number": "+254713812939", "reference": None, "sms_opt_out": False}
    return CustomerFacts(**{**named, "language": language, **facts})


def told(app, order):
    """The last message about an order, as its row is."""
    with app.registry.database.session(writes=False) as session:
        found = select(Notification).where(Notification.order_id == order["id"]).order_by(Notification.id.desc())
        return session.scalars(found.limit(1)).one_or_none()


# -- languages ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("language", "text", "of"),
    [
        (None, "Thank you", None),
        ("sw", "Asante", "sw"),
        ("SW", "Asante", "sw"),
        # what says less serves, what says more does not
        ("sw-TZ", "Asante", "sw"),
        ("sw-ke", "Asante sana", "sw-KE"),
        ("sw-KE-x-nairobi", "Asante sana", "sw-KE"),
        ("zh-Hant-TW", "\u8b1d\u8b1d", "zh-Hant"),
        ("zh", "Thank you", None),
        ("en", "Thank you", None),
        ("swc", "Thank you", None),
    ],
)
def test_a_customer_is_told_in_the_nearest_language_that_there_is(language, text, of):
    sources = {
        "order_placed": "Thank you",
        "order_placed.sw": "Asante",
        "order_placed.SW-ke": "Asante sana",
        "order_placed.zh-hant": "\u8b1d\u8b1d",
        "order_confirmed": "Confirmed",
    }
    templates = Templates(sources, max_segments=6)
    draft = templates.draft("order_placed", ORDER, somebody(language))
    assert (draft.text, draft.language) == (text, of)
    # each event has its own languages
    draft = templates.draft("order_confirmed", ORDER, somebody(language))
    assert (draft.text, draft.language) == ("Confirmed", None)


@pytest.mark.parametrize(
    ("tag", "looked_up"),
    [
        ("sw", ["sw"]),
        ("sw-KE", ["sw-KE", "sw"]),
        # the example of RFC 4647, section 3.4
        (
            "zh-Hant-CN-x-private1-private2",
            ["zh-Hant-CN-x-private1-private2", "zh-Hant-CN-x-private1", "zh-Hant-CN", "zh-Hant", "zh"],
        ),
    ],
)
def test_tags_are_looked_up_as_in_rfc_4647(tag, looked_up):
    assert list(languages.fallbacks(tag)) == looked_up


@pytest.mark.parametrize("tag", ["sw", "sw-KE", "mn-Cyrl-MN", "en-CA-x-ca", "sgn-BE-FR", "az-Latn-x-latn", "sl-nedis"])
def test_tags_are_spelt_as_in_rfc_5646(tag):
    for spelling in (tag, tag.lower(), tag.upper()):
        assert languages.canonical(spelling) == tag


@given(st.from_regex(languages.TAG, fullmatch=True))
def test_every_tag_ends_at_its_language(tag):
    looked_up = list(languages.fallbacks(languages.canonical(tag)))
    assert looked_up[0].lower() == tag.lower()
    assert looked_up[-1] == tag.split("-")[0].lower()
    assert all(languages.is_tag(one) for one in looked_up if len(tag) <= languages.LONGEST)


def test_the_language_of_the_words_goes_with_the_message(make_app, database_kind, client_of):
    app = make_app(database_kind, **{f"{PLACED}.sw": "Asante, {{ customer.username }}!"})
    client = client_of(app)
    spoken = {}
    for language in ("sw-KE", "en"):
        customer = factories.customer(client, username="Asha", language=language)["id"]
        order = factories.order(client, customer=customer)
        spoken[language] = told(app, order).language
        assert told(app, order).customer_id == customer
    assert spoken == {"sw-KE": "sw", "en": None}
    for due in app.registry.outbox.due(10):
        app.registry.outbox.deliver(due)
    sent = [(message.language, message.text) for message in app.registry.plugins.notifiers["scripted"].sent]
    assert sent == [("sw", "Asante, Asha!"), (None, "Your order has been created. Thank you for shopping with us!")]


@pytest.mark.parametrize("tag", ["sw_KE", "s", "swahili", "sw-", "-", "", "sw.KE", "sw-KE-" + "x" * 40])
def test_a_template_for_what_is_no_language_refuses_to_start(tag):
    said = wrong(**{f"{PLACED}.{tag}": "Asante"})
    assert list(said) == [f"{PLACED}.{tag}"]
    assert "no language tag (BCP 47); write one such as sw or sw-KE" in said[f"{PLACED}.{tag}"]


def test_a_template_for_a_language_may_name_what_the_others_may():
    said = wrong(**{f"{PLACED}.sw": "{{ oda.id }}", f"{PLACED}.sw-KE": "{{ order.id }}"})
    assert list(said) == [f"{PLACED}.sw"]
    assert "names oda," in said[f"{PLACED}.sw"]


def test_a_variable_gives_a_language_its_template(monkeypatch):
    monkeypatch.setenv("NOTIFICATIONS_TEMPLATE_ORDER_PLACED_SW_KE", "Asante sana")
    settings = main({}, **GOOD).registry.sections["notifications"]
    assert Templates.of(settings).draft("order_placed", ORDER, somebody("sw-KE")).text == "Asante sana"


# -- nothing to say -----------------------------------------------------------------------------------------------


def test_each_event_has_a_template_of_its_own_that_fits_into_one_segment():
    events = {f"order_{status}" for status in OrderStatus}
    nodes = {node.name: node.missing for node in Notifications().children if node.name.startswith("template.")}
    assert {name.removeprefix("template.") for name in nodes} == events
    drafts = [Templates({event: nodes[f"template.{event}"]}, 6).draft(event, ORDER, somebody()) for event in events]
    assert {(draft.encoding, draft.segments) for draft in drafts} == {("gsm-7", 1)}


def test_a_blank_template_means_no_sms_and_a_new_order_says_so(make_app, database_kind, client_of):
    app = make_app(database_kind, **{PLACED: "", f"{PLACED}.sw": "Asante"})
    client = client_of(app)
    order = factories.order(client)
    shown = order["notification"]
    assert (shown["status"], shown["reason"], shown["next_attempt_at"]) == ("suppressed", "no_template", None)
    assert (told(app, order).text, told(app, order).encoding, told(app, order).segments) == ("", None, None)
    assert app.registry.outbox.due(10) == []
    # the languages that have words of their own use them
    swahili = factories.customer(client, language="sw")["id"]
    assert factories.order(client, customer=swahili)["notification"]["status"] == "queued"


def test_with_a_blank_template_for_a_step_an_order_goes_on_telling_of_its_last_message(
    make_app, database_kind, client_of
):
    blank = {"notifications.template.order_confirmed": "", "notifications.template.order_cancelled.sw": ""}
    app = make_app(database_kind, **blank)
    client = client_of(app)
    swahili = factories.customer(client, language="sw")["id"]
    order = factories.order(client, customer=swahili)
    first = told(app, order)
    url = f"/api/orders/{order['id']}"
    assert client.patch_json(url, {"status": "confirmed"}).json["notification"] == order["notification"]
    assert told(app, order).id == first.id
    # what was queued is cancelled even if nothing is said of it
    shown = client.patch_json(url, {"status": "cancelled"}).json["notification"]
    assert (shown["status"], shown["reason"]) == ("cancelled", "order_cancelled")
    assert told(app, order).id == first.id


# -- how long -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["Asante!", "\u8b1d\u8b1d", "a" * 161, "\N{GRINNING FACE}" * 40])
def test_encoding_and_segments_are_computed_before_it_is_sent(make_app, database_kind, client_of, text):
    app = make_app(database_kind, **{PLACED: text})
    client = client_of(app)
    order = factories.order(client)
    opted_out = factories.order(client, customer=factories.customer(client, sms_opt_out=True)["id"])
    for one in (told(app, order), told(app, opted_out)):
        assert (one.encoding, one.segments) == (size(text).encoding, size(text).segments)


def test_a_message_that_would_take_too_many_segments_has_failed(make_app, database_kind, client_of):
    app = make_app(database_kind, **{PLACED: "{{ order.item }}", "notifications.max_segments": "1"})
    client = client_of(app)
    assert factories.order(client, item="a" * 160)["notification"]["status"] == "queued"
    for item, segments in (("a" * 161, 2), ("\u8b1d" * 71, 2), ("a" * 152 + "\N{GRINNING FACE}", 3)):
        order = factories.order(client, item=item)
        shown = order["notification"]
        assert (shown["status"], shown["attempts"]) == ("failed", 0)
        assert shown["reason"] == f"too_long: {segments} segments, 1 is the most"
        assert (told(app, order).text, told(app, order).segments) == (item, segments)
    assert len(app.registry.outbox.due(10)) == 1


LONG = "a" * (153 * 6 + 1)


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        (PLACED, LONG, "takes 7 segments in gsm-7, and notifications.max_segments is 6"),
        (f"{PLACED}.sw", LONG, "takes 7 segments in gsm-7"),
        ("notifications.template.order_cancelled.zh-Hant", "\u8b1d" * 403, "takes 7 segments in ucs-2"),
        # fixed is what names nothing, not what has no braces
        (PLACED, "{{ 'a' * 919 }}", "takes 7 segments in gsm-7"),
        (PLACED, "{% set a = 'b' * 919 %}{{ a }}", "takes 7 segments in gsm-7"),
    ],
)
def test_a_fixed_text_that_is_too_long_refuses_to_start(key, text, says):
    said = wrong(**{key: text})
    assert list(said) == [key]
    assert says in said[key]
    assert said[key].endswith("Shorten the text, or raise that")


def test_max_segments_is_the_deployments_to_choose():
    assert main({}, **GOOD, **{PLACED: LONG, "notifications.max_segments": "7"})
    assert main({}, **GOOD, **{PLACED: LONG[:-1]})
    # what depends on the order is judged with the order
    assert main({}, **GOOD, **{PLACED: LONG + "{{ order.id }}"})
    with pytest.raises(InvalidSettings, match="1 setting is wrong"):
        main({}, **GOOD, **{PLACED: LONG, "notifications.max_segments": "none"})
