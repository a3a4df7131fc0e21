"""Sessions: refresh tokens that are good once, their families, and ending them."""

from __future__ import annotations

import hashlib
import threading
from datetime import timedelta

import pytest
from webtest import TestApp

from customer_orders.auth import sessions
from customer_orders.auth.models import RefreshFamily, RefreshToken
from customer_orders.auth.services import disable, grant, local_user

THREADS = 20


@pytest.fixture
def user_id(registry):
    """The id of an admin."""
    with registry.database.transaction() as session:
        return local_user(session, "jane@shop.example", "admin").id


@pytest.fixture
def begin(registry, user_id):
    """Begins a session, as a sign-in does; tells its refresh token."""

    def make(client=None, user_id=user_id):
        with registry.database.transaction() as session:
            return sessions.begin(session, user_id, registry.sections["auth"], client).token

    return make


@pytest.fixture
def refresh_token(begin):
    return begin()


def spend(client, token, **kw):
    return client.post_json("/api/token/refresh", {"refresh": token}, **kw)


def me(client, access, status=200):
    return client.get("/api/me", headers={"Authorization": f"Bearer {access}"}, status=status)


# -- refresh tokens -----------------------------------------------------------------------------------------------


def test_a_refresh_token_is_spent_for_a_new_pair(anonymous, user_id, refresh_token):
    answer = spend(anonymous, refresh_token, status=200)
    assert set(answer.json) == {"access", "refresh"}
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json["refresh"] != refresh_token
    assert me(anonymous, answer.json["access"]).json["id"] == user_id
    spend(anonymous, answer.json["refresh"], status=200)


def test_only_hashes_of_refresh_tokens_are_kept(anonymous, session, refresh_token):
    following = spend(anonymous, refresh_token, status=200).json["refresh"]
    kept = {found.token_hash for found in session.query(RefreshToken)}
    assert kept == {hashlib.sha256(token.encode()).hexdigest() for token in (refresh_token, following)}
    assert len(refresh_token) == len(following) == 43


def test_of_many_that_spend_one_refresh_token_at_once_all_get_one_successor(app, refresh_token, session):
    together = threading.Barrier(THREADS)
    answers = []

    def run():
        together.wait(30)
        answers.append(spend(TestApp(app), refresh_token, status="*"))

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_int for answer in answers] == [200] * THREADS
    assert len({answer.json["refresh"] for answer in answers}) == 1
    assert session.query(RefreshToken).count() == 2
    assert session.query(RefreshFamily).count() == 1


def test_who_missed_the_answer_gets_the_same_successor_for_ten_seconds(anonymous, registry, refresh_token):
    first = spend(anonymous, refresh_token, status=200).json
    registry.database.clock_offset = timedelta(seconds=9)
    again = spend(anonymous, refresh_token, status=200).json
    assert again["refresh"] == first["refresh"]
    assert me(anonymous, again["access"])
    spend(anonymous, again["refresh"], status=200)


def test_a_token_that_comes_again_later_ends_its_family_and_no_other(anonymous, registry, refresh_token, begin):
    other = begin()
    following = spend(anonymous, refresh_token, status=200).json
    registry.database.clock_offset = timedelta(seconds=11)
    refused = spend(anonymous, refresh_token, status=401)
    assert refused.json["code"] == "invalid-refresh-token"
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    # for the thief and for the one that was robbed, with every token they have
    spend(anonymous, following["refresh"], status=401)
    me(anonymous, following["access"], status=401)
    spend(anonymous, other, status=200)


def test_a_family_that_ended_has_no_window(anonymous, refresh_token):
    spend(anonymous, refresh_token, status=200)
    anonymous.post_json("/api/token/revoke", {"refresh": refresh_token}, status=204)
    spend(anonymous, refresh_token, status=401)


def test_an_unused_session_ends(anonymous, registry, refresh_token):
    registry.database.clock_offset = timedelta(days=30, seconds=-30)
    kept = spend(anonymous, refresh_token, status=200).json["refresh"]
    registry.database.clock_offset = timedelta(days=60)
    assert spend(anonymous, kept, status=401).json["code"] == "invalid-refresh-token"


def test_a_session_ends_however_much_it_is_used(anonymous, registry, refresh_token):
    for days in (29, 58, 87):
        registry.database.clock_offset = timedelta(days=days)
        refresh_token = spend(anonymous, refresh_token, status=200).json["refresh"]
    registry.database.clock_offset = timedelta(days=90, seconds=1)
    spend(anonymous, refresh_token, status=401)


def test_both_lifetimes_are_settings(make_app, database_kind):
    app = make_app(database_kind, **{"auth.refresh_seconds": "100", "auth.session_seconds": "150"})
    anonymous, database = TestApp(app), app.registry.database
    with database.transaction() as session:
        user_id = local_user(session, "jane@shop.example", "viewer").id
        unused = sessions.begin(session, user_id, app.registry.sections["auth"]).token
        used = sessions.begin(session, user_id, app.registry.sections["auth"]).token
    try:
        database.clock_offset = timedelta(seconds=90)
        used = spend(anonymous, used, status=200).json["refresh"]
        database.clock_offset = timedelta(seconds=101)
        spend(anonymous, unused, status=401)
        database.clock_offset = timedelta(seconds=149)
        used = spend(anonymous, used, status=200).json["refresh"]
        database.clock_offset = timedelta(seconds=151)
        spend(anonymous, used, status=401)
    finally:
        database.clock_offset = timedelta()


def test_neither_token_passes_for_the_other(anonymous, registry, user_id, refresh_token):
    access = registry.access_tokens.create_token(str(user_id))
    assert spend(anonymous, access, status=401).json["code"] == "invalid-refresh-token"
    me(anonymous, refresh_token, status=401)
    spend(anonymous, refresh_token, status=200)


def test_a_token_of_a_version_without_families_is_not_good(anonymous, registry, refresh_token):
    with registry.database.transaction() as session:
        session.query(RefreshToken).update({"family_id": None})
    spend(anonymous, refresh_token, status=401)
    anonymous.post_json("/api/token/revoke", {"refresh": refresh_token}, status=204)


# -- ending sessions ----------------------------------------------------------------------------------------------


def test_signing_out_ends_the_whole_session_at_once(anonymous, refresh_token, begin):
    other = begin()
    pair = spend(anonymous, refresh_token, status=200).json
    me(anonymous, pair["access"])
    answer = anonymous.post_json("/api/token/revoke", {"refresh": refresh_token}, status=204)
    assert answer.body == b""
    spend(anonymous, pair["refresh"], status=401)
    me(anonymous, pair["access"], status=401)
    spend(anonymous, other, status=200)


@pytest.mark.parametrize("token", ["unknown", "x" * 512])
def test_revoking_what_is_no_token_any_more_is_no_error(anonymous, token):
    anonymous.post_json("/api/token/revoke", {"refresh": token}, status=204)


@pytest.mark.parametrize(
    "take_away",
    [
        lambda session, user_id: disable(session, str(user_id), disabled=True),
        lambda session, user_id: grant(session, str(user_id), None),
    ],
    ids=["disabled", "without a role"],
)
def test_a_user_without_access_cannot_refresh(anonymous, registry, user_id, refresh_token, take_away):
    with registry.database.transaction() as session:
        take_away(session, user_id)
    assert spend(anonymous, refresh_token, status=401).json["code"] == "invalid-refresh-token"


def test_the_sessions_of_who_was_shut_out_stay_over(anonymous, registry, user_id, refresh_token):
    pair = spend(anonymous, refresh_token, status=200).json
    for disabled in (True, False):
        with registry.database.transaction() as session:
            disable(session, str(user_id), disabled=disabled)
    spend(anonymous, pair["refresh"], status=401)
    me(anonymous, pair["access"], status=401)


@pytest.mark.parametrize(
    "body", [{}, {"refresh": None}, {"refresh": 1}, {"refresh": ""}, {"refresh": "x" * 513}, {"refresh": "\u00e9"}]
)
@pytest.mark.parametrize("path", ["/api/token/refresh", "/api/token/revoke"])
def test_a_body_without_a_sound_refresh_token_is_invalid(anonymous, path, body):
    answer = anonymous.post_json(path, body, status=400)
    assert [error["name"] for error in answer.json["errors"]] == ["refresh"]


# -- one's own sessions -------------------------------------------------------------------------------------------


@pytest.fixture
def signed_in(app, anonymous, begin):
    """Signs a client in: ``signed_in(begin("Firefox"))``."""

    def make(token):
        client = TestApp(app)
        client.authorization = ("Bearer", spend(anonymous, token, status=200).json["access"])
        return client

    return make


def shown(client):
    return [(one["client"], one["current"]) for one in client.get("/api/me/sessions").json]


def test_a_user_sees_their_sessions_the_one_used_last_first(registry, begin, signed_in):
    phone, laptop = begin("Phone"), begin("Laptop")
    begin("Old one")
    registry.database.clock_offset = timedelta(days=29)
    here, _ = signed_in(phone), registry
    registry.database.clock_offset = timedelta(days=29, seconds=1)
    signed_in(laptop)
    assert shown(here) == [("Laptop", False), ("Phone", True), ("Old one", False)]
    registry.database.clock_offset = timedelta(days=31)
    assert shown(here) == [("Laptop", False), ("Phone", True)]


def test_nobody_sees_or_ends_the_sessions_of_another(registry, begin, signed_in):
    with registry.database.transaction() as session:
        other = local_user(session, "omar@shop.example", "viewer").id
    mine, theirs = signed_in(begin("Mine")), signed_in(begin("Theirs", other))
    (session_id,) = [one["id"] for one in theirs.get("/api/me/sessions").json]
    assert shown(mine) == [("Mine", True)]
    assert mine.delete(f"/api/me/sessions/{session_id}", status=404).json["code"] == "not-found"
    mine.delete("/api/me/sessions", status=204)
    assert shown(theirs) == [("Theirs", True)]


def test_one_session_is_ended_at_once(begin, signed_in):
    here, there = signed_in(begin("Here")), signed_in(begin("There"))
    (other,) = [one["id"] for one in here.get("/api/me/sessions").json if not one["current"]]
    here.delete(f"/api/me/sessions/{other}", status=204)
    there.get("/api/me", status=401)
    assert shown(here) == [("Here", True)]
    here.delete(f"/api/me/sessions/{other}", status=404)


def test_all_sessions_are_ended_at_once(anonymous, begin, signed_in):
    kept = begin("Unused")
    here, there = signed_in(begin("Here")), signed_in(begin("There"))
    here.delete("/api/me/sessions", status=204)
    for client in (here, there):
        client.get("/api/me", status=401)
    spend(anonymous, kept, status=401)


def test_a_session_says_what_signed_in(anonymous, registry):
    (provider,) = registry.plugins.identity_providers

    def sign_in(status):
        redirect = anonymous.get(f"/api/{provider}-oauth2/redirect/", status=302)
        state = dict(part.split("=") for part in redirect.location.partition("?")[2].split("&"))["state"]
        given = {"code": "jane", "state": state}
        headers = {"Accept": "application/json", "User-Agent": "Till/1.0 \x85(shop)"}
        return anonymous.get(f"/api/{provider}-oauth2/callback/", given, headers=headers, status=status).json

    sign_in(403)
    with registry.database.transaction() as session:
        grant(session, "jane@shop.example", "viewer")
    anonymous.authorization = ("Bearer", sign_in(200)["tokens"]["access"])
    assert shown(anonymous) == [("Till/1.0 (shop)", True)]
