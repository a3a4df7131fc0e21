"""Each answer of Africa's Talking, and what the core is told of it."""

from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from decimal import Decimal

import pytest
import requests
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from customer_orders.interfaces import ChannelDown, Cost, Message, NotSent, Receipt, Rejected, Unavailable, Uncertain
from customer_orders_africastalking import answers as module
from customer_orders_africastalking.answers import Answers, Seen

MESSAGE = Message(key="notification-1", channel="sms", to="+254700000001", text="Your order has been created.")

TABLE = [
    (401, "RiskHold", ChannelDown),
    (402, "InvalidSenderId", ChannelDown),
    (403, "InvalidPhoneNumber", Rejected),
    (404, "UnsupportedNumberType", Rejected),
    (405, "InsufficientBalance", ChannelDown),
    (406, "UserInBlacklist", Rejected),
    (407, "CouldNotRoute", Unavailable),
    (409, "DoNotDisturbRejection", Rejected),
    (500, "InternalServerError", Unavailable),
    (501, "GatewayError", Unavailable),
    (502, "RejectedByGateway", Rejected),
]
SUPPRESSED = (406, 409)


def answer(body, status=201, **headers):
    """An answer of requests' own, as it comes from the gateway."""
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    response.raw = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
    return response


# -- taken --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [100, 101, 102, "100", "101", "102"])
def test_a_message_that_was_taken_gives_a_receipt(recipients, recipient, send, code):
    recipients(recipient(statusCode=code, messageId="ATXid_1"))
    assert send() == Receipt("ATXid_1", Cost(Decimal("0.8"), "KES"))


@pytest.mark.parametrize(
    "code", [True, None, 101.0, "101 ", "+101", "1e2", "\u0661\u0660\u0661", "", [101], {}, 10, 1010, -101]
)
def test_a_code_that_is_none_is_uncertain(recipients, recipient, send, code):
    recipients(recipient(statusCode=code))
    outcome = send()
    assert type(outcome) is Uncertain
    assert outcome.reason == "an answer without a status code"


@pytest.mark.parametrize(
    "reference",
    [None, "", " ", "None", "none", "NONE", 5, True, ["ATXid_1"], "x" * 256, "ATXid\n1", "ATX\x00", "\ud800", "\u2028"],
)
def test_a_message_that_was_taken_without_a_usable_id_is_uncertain(recipients, recipient, send, reference):
    recipients(recipient(messageId=reference))
    outcome = send()
    assert type(outcome) is Uncertain
    assert outcome.reason.startswith("accepted with")


def test_the_longest_id_is_kept(recipients, recipient, send):
    recipients(recipient(messageId="x" * 255))
    assert send().reference == "x" * 255


@pytest.mark.parametrize(
    ("told", "cost"),
    [
        ("KES 0.8000", Cost(Decimal("0.8000"), "KES")),
        ("USD 0.02", Cost(Decimal("0.02"), "USD")),
        ("UGX 35", Cost(Decimal(35), "UGX")),
        ("KES 0", Cost(Decimal(0), "KES")),
        ("KES 0.80005", Cost(Decimal("0.8000"), "KES")),
        ("KES 0." + "3" * 5000, Cost(Decimal("0.3333"), "KES")),
        ("KES 9999999999.9999", Cost(Decimal("9999999999.9999"), "KES")),
        ("KES 9999999999.99999", None),
        ("KES 10000000000", None),
        ("KES " + "9" * 5000, None),
        ("KES -0.8", None),
        ("KES 0.8\n", None),
        ("KES 0,8", None),
        ("KES .8", None),
        ("KES 1e3", None),
        ("KES NaN", None),
        ("KES \u0661", None),
        ("kes 0.8", None),
        ("KES  0.8", None),
        ("KSH. 0.8", None),
        ("0.8000", None),
        ("0", None),
        ("", None),
        (None, None),
        (0.8, None),
        (["KES 0.8"], None),
    ],
)
def test_a_price_is_read_or_left_out(recipients, recipient, send, told, cost):
    recipients(recipient(cost=told))
    receipt = send()
    assert type(receipt) is Receipt
    assert receipt.cost == cost


# -- refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(("code", "name", "expected"), TABLE)
def test_a_refusal_is_told_by_its_code(recipients, recipient, send, code, name, expected, as_text):
    # with an id, as Africa's Talking sends it
    recipients(recipient(statusCode=str(code) if as_text else code, status="other words", messageId="None", cost="0"))
    outcome = send()
    assert type(outcome) is expected
    assert outcome.reason == f"{code} {name}"
    assert getattr(outcome, "suppressed", False) is (code in SUPPRESSED)


@pytest.mark.parametrize(("code", "name", "expected"), TABLE)
def test_a_refusal_without_recipients_is_told_by_its_name(recipients, send, code, name, expected):
    recipients(message=name)
    outcome = send()
    assert type(outcome) is expected
    assert outcome.reason == f"{code} {name}"
    assert getattr(outcome, "suppressed", False) is (code in SUPPRESSED)


def test_the_table_is_the_whole_table():
    assert {code: name for code, (name, _) in module.REFUSALS.items()} == {code: name for code, name, _ in TABLE}


@pytest.mark.parametrize("reason", ["Invalid Sender Id", "INVALIDSENDERID.", " invalid-sender-id\n"])
def test_the_name_of_a_refusal_may_be_written_in_other_ways(recipients, send, reason):
    recipients(message=reason)
    assert type(send()) is ChannelDown


@pytest.mark.parametrize("reason", ["Sent to 0/1 Total Cost: 0", "Sent", "Success", "", "InvalidSenderIdOrNot", "0403"])
def test_no_recipients_for_no_known_reason_is_uncertain(recipients, send, reason):
    recipients(message=reason)
    outcome = send()
    assert type(outcome) is Uncertain
    assert outcome.reason == f"no recipient: {reason}".rstrip(": ")


@pytest.mark.parametrize(("code", "expected"), [(400, Rejected), (408, Rejected), (499, Rejected), (103, Uncertain)])
def test_an_unknown_code_is_told_by_its_range_and_logged_once(recipients, recipient, send, caplog, code, expected):
    recipients(recipient(statusCode=code, status="NewTrouble"))
    for _ in range(3):
        outcome = send()
        assert type(outcome) is expected
        assert outcome.reason == f"{code} NewTrouble"
    assert [record.getMessage() for record in caplog.records if record.name.startswith("customer_orders_af")] == [
        f"Africa's Talking answers with a status code that is not documented: {code}"
    ]


@pytest.mark.parametrize("code", [200, 399, 503, 599, 999])
def test_other_unknown_codes_are_uncertain(recipients, recipient, send, code):
    recipients(recipient(statusCode=code, status=None))
    outcome = send()
    assert type(outcome) is Uncertain
    assert outcome.reason == str(code)


def test_each_unknown_code_is_logged(recipients, recipient, send, caplog):
    for code in (480, 481, 480):
        recipients(recipient(statusCode=code))
        send()
    assert [record.args for record in caplog.records if record.name.startswith("customer_orders_af")] == [
        (480,),
        (481,),
    ]


def test_a_message_that_cannot_be_routed_is_tried_once_more(recipients, recipient, send, message, make_notifier):
    recipients(recipient(statusCode=407))
    first, second, third = send(), send(), send()
    assert [type(first), type(second), type(third)] == [Unavailable, Rejected, Rejected]
    assert first.reason == second.reason == third.reason == "407 CouldNotRoute"
    assert type(send(given=replace(message, key="notification-2"))) is Unavailable
    # another process has a memory of its own
    assert type(send(by=make_notifier())) is Unavailable


def test_what_is_remembered_is_bounded():
    seen = Seen(3)
    assert [seen.before(word) for word in "abcabc"] == [False] * 3 + [True] * 3
    # a is the oldest, until it is seen again
    assert seen.before("a")
    assert not seen.before("d")
    assert [seen.before(word) for word in "acd"] == [True, True, True]
    assert not seen.before("b")
    assert len(seen._words) == 3


# -- shapes -------------------------------------------------------------------------------------------------------


def test_the_one_recipient_may_be_written_in_another_way(recipients, recipient, send):
    for number in ("+2547XXXXX001", "0700000001", "", None, 5):
        recipients(recipient(number=number, messageId="ATXid_1"))
        assert send().reference == "ATXid_1"
    recipients(recipient(number="+2547XXXXX001", statusCode=403))
    assert type(send()) is Rejected


def test_of_several_recipients_ours_counts(recipients, recipient, send):
    other = recipient(number="+254799999999", statusCode=403)
    recipients(other, "odd", recipient(messageId="ATXid_1"), other)
    assert send().reference == "ATXid_1"


def test_several_recipients_without_just_one_of_ours_are_uncertain(recipients, recipient, send):
    other = recipient(number="+2547XXXXX001")
    for several in ([other, other], [recipient(), recipient(statusCode=403)], [5, None]):
        recipients(*several)
        assert type(send()) is Uncertain


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", "text/html", "", "\xff;;"])
def test_json_counts_whatever_its_type_says(answers, recipient, send, content_type):
    told = {"SMSMessageData": {"Message": "é", "Recipients": [recipient(messageId="ATXid_1")]}}
    answers(json.dumps(told, ensure_ascii=False).encode(), Content_Type=content_type)
    assert send().reference == "ATXid_1"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Sent",
        b"<html>",
        b'{"SMSMessageData"',
        b"\xff\xfe\xfa",
        b"[" * 50_000,
        b'{"a":' * 10_000,
        b"1" * 5000,
        b"NaN",
        b"null",
        b"{}",
        b"[]",
        b'"text"',
        {"SMSMessageData": None},
        {"SMSMessageData": []},
        {"SMSMessageData": {}},
        {"SMSMessageData": {"Message": "InvalidSenderId"}},
        {"SMSMessageData": {"Message": "InvalidSenderId", "Recipients": None}},
        {"SMSMessageData": {"Message": "InvalidSenderId", "Recipients": "text"}},
        {"SMSMessageData": {"Message": "InvalidSenderId", "Recipients": {}}},
        {"SMSMessageData": {"Message": None, "Recipients": []}},
        {"SMSMessageData": {"Message": 5, "Recipients": []}},
        {"SMSMessageData": {"Recipients": []}},
        {"SMSMessageData": {"Recipients": [None]}},
        {"SMSMessageData": {"Recipients": [[]]}},
        {"SMSMessageData": {"Recipients": ["text"]}},
        {"SMSMessageData": {"Recipients": [[], []]}},
        [{"SMSMessageData": {"Recipients": []}}],
        {"smsmessagedata": {"Message": "InvalidSenderId", "Recipients": []}},
    ],
    ids=lambda body: repr(body)[:60],
)
def test_an_answer_of_no_known_form_is_uncertain(body, status):
    with pytest.raises(Uncertain, match=f"^HTTP {status} with an answer of no known form$"):
        Answers("key").read(answer(body, status), MESSAGE)


@pytest.mark.parametrize(
    ("body", "type_"),
    [(b"{}", "application/json"), (b"[]", "application/json"), (b"Success", "text/plain"), (b"null", "text/plain")],
)
def test_an_answer_of_no_known_form_is_not_asked_for_again(answers, send, body, type_):
    answers(body, Content_Type=type_)
    assert type(send()) is Uncertain


def test_a_recipient_without_anything_is_uncertain(recipients, send):
    recipients({})
    assert type(send()) is Uncertain


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        [*range(99, 104), *range(400, 411), *range(499, 504), "101", "403", "None", "KES 0.8", MESSAGE.to]
    )
)
ANY = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10)
RECIPIENT = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("statusCode", "number", "status", "cost", "messageId"), ANY)
)
SMS = st.fixed_dictionaries(
    {"SMSMessageData": st.fixed_dictionaries({}, optional={"Message": ANY, "Recipients": st.lists(RECIPIENT | ANY)})}
)


# how long it takes is the machine's business
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def outcome_of(response):
    """A receipt as the core takes it, or one of the four exceptions; anything else comes out of here."""
    try:
        receipt = Answers("key").read(response, MESSAGE)
    except (Rejected, Unavailable, ChannelDown, Uncertain) as told:
        return told
    assert receipt.reference.isprintable()
    assert 1 <= len(receipt.reference) <= 255
    if receipt.cost is not None:
        assert 0 <= receipt.cost.amount < 10**10
    return receipt


@unhurried
@given(ANY | SMS, st.integers(100, 999))
@example({"SMSMessageData": {"Recipients": [{"statusCode": 101, "messageId": "ATXid_1", "cost": "KES 0.8"}]}}, 201)
@example({"SMSMessageData": {"Recipients": [{"statusCode": 10**4000}]}}, 201)
@example({"SMSMessageData": {"Recipients": [{"statusCode": "444", "status": "1 2" * 10_000}]}}, 201)
def test_any_json_ends_in_a_receipt_or_in_the_words_of_the_contract(body, status):
    outcome = outcome_of(answer(body, status))
    if isinstance(outcome, NotSent):
        assert outcome.reason.isprintable()
        assert len(outcome.reason) < 200


@unhurried
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_uncertain(body):
    assert type(outcome_of(answer(body))) is Uncertain


@unhurried
@given(st.text(), st.sampled_from([301, 302, 307, 401, 429, 503]))
@example("9" * 5000, 429)
@example("http://[", 302)
@example("Mon, 01 Jan 99999 00:00:00 GMT", 503)
@example("Mon, 32 Foo 2026 99:99:99 +9999", 503)
def test_any_header_ends_in_the_words_of_the_contract(header, status):
    told = outcome_of(answer(b"", status, **{"Retry-After": header, "Location": header}))
    if isinstance(told, Unavailable) and told.retry_after is not None:
        assert 0 <= told.retry_after <= 21600


# -- what reasons may hold ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("no +254700000001 here", "no *** here"),
        ("no 254700000001 here", "no *** here"),
        ("0700 000 001", "***"),
        ("(0700)-000-001.", "(***."),
        ("version 127.0.0.1", "version 127.0.0.1"),
        ("+254\u00a0700\u00a0000\u00a0001", "+***"),
        ("\u0660\u0667\u0660\u0660\u0660\u0660", "***"),
        ("1234 is four", "1234 is four"),
        ("12345 is five", "*** is five"),
        ("key TOPSECRET-KEY, twice: topsecret-key", "key ***, twice: ***"),
        ("«Your order has been created.»", "«***»"),
        ("two\nlines\x00\x1b[31m\u202e", "two lines  [31m"),
        ("long " * 100, ("long " * 100)[:99]),
        (5, ""),
        (None, ""),
        (["+254700000001"], ""),
    ],
)
def test_reasons_hold_no_key_no_number_and_no_words_of_the_message(status, reason):
    body = {"SMSMessageData": {"Recipients": [{"statusCode": 444, "status": status}]}}
    with pytest.raises(Rejected) as told:
        Answers("TopSecret-Key").read(answer(body), MESSAGE)
    assert told.value.reason == f"444 {reason}".rstrip()


def test_a_message_without_words_hides_nothing():
    body = {"SMSMessageData": {"Message": "Try later", "Recipients": []}}
    with pytest.raises(Uncertain, match=r"^no recipient: Try later$"):
        Answers("key").read(answer(body), replace(MESSAGE, text=""))


def test_codes_are_logged_without_what_the_provider_says(recipients, recipient, send, caplog, message):
    caplog.set_level(logging.DEBUG)
    recipients(recipient(statusCode=444, status=f"{message.to} {message.text}"))
    send()
    assert message.to not in caplog.text
    assert message.text not in caplog.text
