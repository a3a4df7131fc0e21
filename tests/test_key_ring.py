"""The ring of signing keys: which signs, which verify, and changing them while people work."""

from __future__ import annotations

import secrets
import threading
import time

import jwt
import pytest
import requests
from webtest import TestApp

from conftest import settings_for
from customer_orders import main
from customer_orders.auth import sessions
from customer_orders.auth.services import local_user
from customer_orders.sections.keys import key_ring, new_key
from serving import ROOT, Server, wait_for

KEYS = {kid: secrets.token_urlsafe(64) for kid in ("k1", "k2")}


def ring(*kids):
    return " ".join(f"{kid}:{KEYS[kid]}" for kid in kids)


@pytest.fixture
def with_ring(make_app, database_kind):
    """Makes applications on one database, each with keys of its own."""
    url = make_app(database_kind).registry.database.url.render_as_string(hide_password=False)
    started = []

    def make(*kids, **settings):
        started.append(main({}, **settings_for(url, **{"jwt.private_key": ring(*kids), **settings})))
        return started[-1]

    yield make
    for app in started:
        app.registry.database.engine.dispose()


@pytest.fixture
def user_id(with_ring):
    with with_ring("k1").registry.database.transaction() as session:
        return local_user(session, "jane@shop.example", "clerk").id


def asks(app, token, status):
    TestApp(app).get("/api/me", headers={"Authorization": f"Bearer {token}"}, status=status)


def test_the_first_key_signs_and_all_verify(with_ring, user_id):
    tokens = {kids: with_ring(*kids).registry.access_tokens.create_token(str(user_id)) for kids in (("k1",), ("k2",))}
    assert [jwt.get_unverified_header(token)["kid"] for token in tokens.values()] == ["k1", "k2"]
    for kids in (("k1", "k2"), ("k2", "k1")):
        app = with_ring(*kids)
        for token in tokens.values():
            asks(app, token, 200)
        assert app.registry.access_tokens.kid == kids[0]
    asks(with_ring("k2"), tokens[("k1",)], 401)


def test_a_token_is_verified_by_the_key_that_it_names_alone(with_ring, user_id):
    app = with_ring("k1", "k2")
    tokens = app.registry.access_tokens
    claims = jwt.decode(tokens.create_token(str(user_id)), options={"verify_signature": False})
    forged = jwt.encode(claims, KEYS["k2"], algorithm="HS512", headers={"typ": "at+jwt", "kid": "k1"})
    asks(app, forged, 401)
    asks(app, jwt.encode(claims, KEYS["k2"], algorithm="HS512", headers={"typ": "at+jwt", "kid": "k2"}), 200)


@pytest.mark.parametrize(("spent", "again"), [(("k1", "k2"), ("k2", "k1")), (("k2", "k1"), ("k1", "k2"))])
def test_the_successor_is_the_same_for_another_process_with_the_keys_in_another_order(with_ring, user_id, spent, again):
    first, second = with_ring(*spent), with_ring(*again)
    with first.registry.database.transaction() as session:
        token = sessions.begin(session, user_id, first.registry.sections["auth"]).token
    successors = {
        TestApp(app).post_json("/api/token/refresh", {"refresh": token}, status=200).json["refresh"]
        for app in (first, second)
    }
    assert len(successors) == 1
    # nobody without the key that it was made with can tell it
    without = with_ring(again[0])
    TestApp(without).post_json("/api/token/refresh", {"refresh": token}, status=401)


def test_a_sign_in_goes_on_when_the_keys_change_their_order(with_ring):
    anonymous = TestApp(with_ring("k1", "k2", **{"auth.default_role": "viewer"}))
    redirect = anonymous.get("/api/scripted-oauth2/redirect/", status=302)
    state = dict(part.split("=") for part in redirect.location.partition("?")[2].split("&"))["state"]
    for kids, status in ((("k2",), 400), (("k2", "k1"), 200)):
        other = TestApp(with_ring(*kids, **{"auth.default_role": "viewer"}), cookiejar=anonymous.cookiejar)
        given = {"code": "jane", "state": state}
        other.get("/api/scripted-oauth2/callback/", given, headers={"Accept": "application/json"}, status=status)
        # a refusal takes the cookie back
        anonymous.cookiejar.clear()
        redirect = anonymous.get("/api/scripted-oauth2/redirect/", status=302)
        state = dict(part.split("=") for part in redirect.location.partition("?")[2].split("&"))["state"]


def test_a_ring_is_read_as_it_is_written():
    alone = key_ring(KEYS["k1"])
    assert [key.secret for key in alone] == [KEYS["k1"]]
    assert alone == key_ring(f" {KEYS['k1']}\n")
    assert [key.kid for key in key_ring(f"k1:{KEYS['k1']}\nk2:{KEYS['k2']}\n")] == ["k1", "k2"]
    assert KEYS["k1"] not in repr(alone)
    made = new_key()
    assert key_ring(f"{made.kid}:{made.secret}") == (made,)


# -- under load ---------------------------------------------------------------------------------------------------

EXPIRATION = 10
CLIENTS = 4


class Client(threading.Thread):
    """Somebody who works all the time, at whichever server answers, and refreshes before their token expires."""

    def __init__(self, servers, refresh):
        super().__init__(daemon=True)
        self.servers, self.pair = servers, {"refresh": refresh}
        self.over, self.asked, self.unexpected = threading.Event(), 0, []
        self.failed = None

    def run(self):
        try:
            self.refresh()
            while not self.over.is_set():
                if self.claims["exp"] - time.time() < EXPIRATION / 2:
                    self.refresh()
                self.ask("GET", "/api/me", headers={"Authorization": f"Bearer {self.pair['access']}"})
        except (requests.RequestException, KeyError, ValueError) as error:
            self.failed = error

    @property
    def claims(self):
        return jwt.decode(self.pair["access"], options={"verify_signature": False})

    @property
    def kid(self):
        return jwt.get_unverified_header(self.pair["access"])["kid"] if "access" in self.pair else None

    def refresh(self):
        self.pair = self.ask("POST", "/api/token/refresh", json={"refresh": self.pair["refresh"]})

    def ask(self, method, path, **kw):
        """By turns at each server; at the other one while it does not answer."""
        while True:
            self.asked += 1
            server = self.servers[self.asked % len(self.servers)]
            try:
                answer = requests.request(method, f"{server.url}{path}", timeout=30, **kw)
            except requests.ConnectionError:
                if self.over.wait(0.01):
                    return self.pair
                continue
            if answer.status_code != 200:
                self.unexpected.append((answer.status_code, path, answer.text))
            return answer.json()


@pytest.mark.processes
@pytest.mark.parametrize("database_kind", ["postgresql"], indirect=True)
def test_keys_are_changed_under_load_and_nobody_notices(make_app, database_kind, tmp_path):
    registry = make_app(database_kind).registry
    key_file = tmp_path / "jwt.key"
    environ = {
        "SQLALCHEMY_URL": registry.database.url.render_as_string(hide_password=False),
        "APP_PUBLIC_URL": "http://127.0.0.1:6543",
        "JWT_PRIVATE_KEY_FILE": str(key_file),
        "JWT_EXPIRATION": str(EXPIRATION),
        "DEVTOOLS_INBOX": str(tmp_path / "inbox.jsonl"),
    }
    servers = [Server(ROOT / "development.ini", environ, tmp_path / f"server{number}.log") for number in (1, 2)]
    with registry.database.transaction() as session:
        user_id = local_user(session, "jane@shop.example", "clerk").id
        tokens = [sessions.begin(session, user_id, registry.sections["auth"]).token for _ in range(CLIENTS)]
    clients = [Client(servers, token) for token in tokens]

    def give(*kids):
        """One after the other, so that one always answers."""
        key_file.write_text(ring(*kids).replace(" ", "\n"))
        for server in servers:
            if server.process is not None:
                server.end()
            server.start()

    def all_are_signed_by(kid):
        return all(client.kid == kid or client.failed for client in clients)

    try:
        give("k1")
        for client in clients:
            client.start()
        wait_for(lambda: all_are_signed_by("k1"), "everyone has a token of k1")
        old = clients[0].pair["access"]
        give("k1", "k2")
        give("k2", "k1")
        # one access lifetime: what k1 signed has expired, and nobody holds any of it
        wait_for(lambda: all_are_signed_by("k2"), "everyone has a token of k2", 4 * EXPIRATION)
        wait_for(lambda: jwt.decode(old, options={"verify_signature": False})["exp"] < time.time(), "k1's expired")
        give("k2")
        asked = [client.asked for client in clients]
        wait_for(
            lambda: all(client.asked > before + 20 for client, before in zip(clients, asked, strict=True)),
            "everyone goes on",
        )
        claims = {**clients[0].claims}
        headers = {"typ": "at+jwt", "kid": "k1"}
        removed = jwt.encode(claims, KEYS["k1"], algorithm="HS512", headers=headers)
        for server in servers:
            answer = requests.get(f"{server.url}/api/me", headers={"Authorization": f"Bearer {removed}"}, timeout=30)
            assert answer.status_code == 401
    finally:
        for client in clients:
            client.over.set()
        for client in clients:
            if client.ident:
                client.join(30)
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.end()
    assert [client.failed for client in clients] == [None] * CLIENTS
    assert [client.unexpected for client in clients] == [[]] * CLIENTS
    print(f"\n{sum(client.asked for client in clients)} requests while the keys changed, none refused")
