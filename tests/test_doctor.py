"""``customer-orders doctor``: each of its checks is seen to fail on a deployment that is really broken, and to pass."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import secrets
import ssl
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import rsa
from plaster import loaders
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from customer_orders import grants, main, migrations
from customer_orders.auth.services import grant, local_user
from customer_orders.cli import main as command
from customer_orders.doctor import ONLINE, data
from customer_orders.interfaces import CheckFailed
from customer_orders.notifications.models import Channel, Notification
from customer_orders.settings import MASK, variable
from inis import write_ini
from loopback import Answer, authority, provider, reset, unused_url
from quotas import GENEROUS
from serving import BIN, NODE, ROOT, OpenIdProvider

__all__ = ["authority"]

WELL = {"UserData": {"balance": "KES 1785.5000"}}
# What SQLite has no counterpart of.
POSTGRESQL_ONLY = {"database_role", "database_encoding", "clock"}
SIGNING_KEY = rsa.generate_private_key(65537, 2048)


class Quiet(WSGIRequestHandler):
    """Logs nothing."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


class Threads(ThreadingMixIn, WSGIServer):
    """A thread for each connection."""

    daemon_threads = True


@contextlib.contextmanager
def listening(app: Any, url: str):
    """Serves an application at an address of loopback."""
    parts = urlsplit(url)
    server = make_server(parts.hostname, parts.port, app, server_class=Threads, handler_class=Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield
    server.shutdown()
    server.server_close()
    thread.join(30)


class Deployment:
    """A deployment in which all is well, until a test breaks it.

    ``settings`` are written into its INI; ``secrets`` into files that only its owner reads; ``environ`` is what
    else the environment holds. ``sms`` is Africa's Talking, ``google`` the identity provider: real servers on loopback.
    """

    def __init__(self, kind: str, folder: Path, sms: Any, google: Any, new_database: Any, monkeypatch: Any) -> None:
        self.kind, self.folder, self.sms, self.google = kind, folder, sms, google
        self.new_database, self.monkeypatch = new_database, monkeypatch
        self.text: str | None = None
        self.mode = 0o600
        self.owner: str | None = None
        self.environ: dict[str, str] = {}
        # whether it serves while it is asked whether it can be reached, and with which settings of its own
        self.serves, self.served = True, {}
        self.secrets = {
            "jwt.private_key": secrets.token_urlsafe(64),
            "africastalking.api_key": secrets.token_hex(32),
            "google.client_secret": secrets.token_hex(16),
            "notifications.report_secrets": secrets.token_urlsafe(32),
        }
        self.settings = {
            "app.public_url": unused_url(),
            "plugins": "devtools google africastalking",
            "notifications.sms": "africastalking",
            "notifications.dispatcher": "worker",
            "auth.admins": "owner@shop.example",
            "africastalking.username": "shop",
            "africastalking.endpoint": sms.url,
            "africastalking.low_balance": "500",
            "google.client_id": "client-1",
            "google.issuer": google.url,
            "devtools.inbox": f"{folder}/inbox.jsonl",
            **GENEROUS,
        }
        sms.answer = lambda asked: Answer(WELL)
        google.pages = {}
        google.answer = self._google

    def _google(self, asked: Any) -> Any:
        """An OpenID provider, as far as it is asked."""
        url, path = self.google.url, urlsplit(asked.path).path
        public = jwt.algorithms.RSAAlgorithm.to_jwk(SIGNING_KEY.public_key(), as_dict=True)
        pages = {
            "/.well-known/openid-configuration": Answer(
                {
                    "issuer": url,
                    "authorization_endpoint": f"{url}/authorize",
                    "token_endpoint": f"{url}/token",
                    "jwks_uri": f"{url}/keys",
                }
            ),
            "/keys": Answer({"keys": [{**public, "kid": "one", "use": "sig", "alg": "RS256"}]}),
            "/token": Answer({"error": "invalid_grant"}, 400),
            **self.google.pages,
        }
        return pages.get(path, Answer(status=404))

    # -- its database -------------------------------------------------------------------------------------------------

    def use_database(self, *, migrated: bool = True) -> None:
        """Make one, and sign in to it as a role that has what it needs and no more."""
        self.owner = self.new_database(self.kind, migrated=migrated)
        url = self.owner
        if self.kind == "postgresql":
            role = f"app_{secrets.token_hex(4)}"
            self.sql(f"CREATE ROLE {role} LOGIN", *(grants.statements(role) if migrated else ()))
            url = make_url(url).set(username=role).render_as_string(hide_password=False)
        self.settings["sqlalchemy.url"] = url

    @property
    def role(self) -> str:
        return str(make_url(self.settings["sqlalchemy.url"]).username)

    def sql(self, *statements: str) -> None:
        """Have the database's owner run SQL."""
        engine = create_engine(self.owner)
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))
        engine.dispose()

    @contextlib.contextmanager
    def application(self, **more: str):
        """The application that it is."""
        app = main({}, **{**self.settings, **self.secrets, **more})
        yield app
        app.registry.database.engine.dispose()

    # -- the doctor ---------------------------------------------------------------------------------------------------

    def write(self) -> str:
        """Write the INI and the secrets; tells the INI's path."""
        ini = self.folder / "orders.ini"
        write_ini(ini, self.settings)
        if self.text is not None:
            ini.write_text(self.text)
        ini.chmod(self.mode)
        for key, value in self.secrets.items():
            file = self.folder / key
            file.touch(0o600)
            file.write_text(value)
            self.monkeypatch.setenv(f"{variable(key)}_FILE", str(file))
        for name, value in self.environ.items():
            self.monkeypatch.setenv(name, value)
        return str(ini)

    def examine(self, *words: str, serve: bool = False) -> tuple[int, str]:
        """Run the doctor; its exit code and what it printed. ``serve``: while the deployment serves."""
        with contextlib.ExitStack() as stack:
            if serve:
                app = stack.enter_context(self.application(**self.served))
                stack.enter_context(listening(app, self.settings["app.public_url"]))
            done = CliRunner().invoke(command, ["doctor", "-c", self.write(), *words], catch_exceptions=False)
        for secret in self.secrets.values():
            assert secret not in done.output
        return done.exit_code, done.stdout

    def check(self, name: str) -> dict[str, Any]:
        """What the doctor says of one check."""
        code, printed = self.examine("--json", "--only", name, serve=self.serves and name in ONLINE)
        (told,) = json.loads(printed)["checks"]
        assert told["name"] == name
        assert code == (1 if told["outcome"] == "failed" else 0)
        return told


@pytest.fixture(scope="module", autouse=True)
def _installed_once():
    """Lets plaster read the metadata of all that is installed once, and not three times for each command."""
    look, found = loaders._iter_ep_in_dists, {}

    def once(scheme, groups):
        key = (scheme, *groups)
        if key not in found:
            found[key] = list(look(scheme, groups))
        return found[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders, "_iter_ep_in_dists", once)
        yield


@pytest.fixture(scope="module")
def certificate(authority):
    """The server's side of TLS on loopback."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def providers(authority, certificate):
    """Africa's Talking and Google, for all tests here."""
    with pytest.MonkeyPatch.context() as patch, provider() as sms, provider(certificate) as google:
        patch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
        yield sms, google


@pytest.fixture
def deploy(tmp_path, providers, new_database, monkeypatch):
    """Makes a deployment in which all is well, on a database of a kind."""

    def make(kind: str) -> Deployment:
        made = Deployment(kind, tmp_path, *providers, new_database, monkeypatch)
        made.use_database()
        return made

    return make


# -- what breaks each check ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One way to break a deployment: what the check says then, and on which databases it is tried."""

    check: str
    outcome: str
    said: str
    breaks: Callable[[Deployment], object]
    kinds: tuple[str, ...]


CASES: list[Case] = []
BOTH, POSTGRESQL = ("sqlite", "postgresql"), ("postgresql",)


def broken(check: str, said: str, *, outcome: str = "failed", kinds: tuple[str, ...] = ("sqlite",)) -> Any:
    """Enters a way to break a deployment into the table."""

    def enter(breaks: Callable[[Deployment], object]) -> Callable[[Deployment], object]:
        CASES.append(Case(check, outcome, said, breaks, kinds))
        return breaks

    return enter


def setting(check: str, said: str, *, outcome: str = "failed", **changed: str) -> None:
    """Enters settings that break a deployment; double underscores are dots."""
    told = {key.replace("__", "."): value for key, value in changed.items()}
    broken(check, said, outcome=outcome)(lambda shop: shop.settings.update(told))


@broken("ini", "cannot be read")
def no_ini(shop):
    shop.text = "no section"


@broken("settings", "2 settings are wrong:")
def wrong_settings(shop):
    shop.settings |= {"app.public_url": "x", "api.max": "1"}


setting("settings", "there is no such plugin. Did you mean google?", plugins="gogle")


@broken("settings", "does not start: it raised RuntimeError, and stderr tells where.")
def plugin_that_raises(shop):
    def includeme(config):
        raise RuntimeError("hunter2")

    shop.monkeypatch.setattr(importlib.import_module("checked"), "includeme", includeme)
    shop.settings["plugins"] += " checked"


setting("settings", "notifications.lease", notifications__lease="5")
setting("unknown_settings", "colours.tea is in the INI, and nothing reads it.", outcome="warning", colours__tea="red")
setting(
    "unknown_settings",
    "google.client_id is in the INI, and the plugin is not switched on",
    outcome="warning",
    plugins="africastalking",
)


@broken("unknown_settings", "Did you mean AFRICASTALKING_API_KEY?", outcome="warning")
def misspelt_variable(shop):
    shop.environ["AFRICASTALKING_APIKEY"] = "x"


@broken("secrets", "The INI holds secrets: jwt.private_key.\nEverybody", outcome="warning")
def secret_in_the_ini(shop):
    shop.settings["jwt.private_key"] = shop.secrets.pop("jwt.private_key")
    shop.mode = 0o644


@broken("secrets", "/jwt.private_key.", outcome="warning")
def secret_that_everybody_reads(shop):
    shop.write()
    (shop.folder / "jwt.private_key").chmod(0o644)


@broken("signing_key", "k1 repeats itself")
def weak_key(shop):
    shop.secrets["jwt.private_key"] += f"\nk1:{'abcdefghijklmnopqrstuvwxyz' * 3}"


@broken("report_secrets", "repeats itself")
def weak_report_secret(shop):
    shop.secrets["notifications.report_secrets"] = "abcdefgh" * 4


@broken("database", "is not there")
def no_file(shop):
    shop.settings["sqlalchemy.url"] = f"sqlite:///{shop.folder}/nothing.sqlite"


@broken("database", "cannot be reached", kinds=POSTGRESQL)
def no_server(shop):
    shop.settings["sqlalchemy.url"] = f"postgresql+psycopg://{urlsplit(unused_url()).netloc}/orders"


@broken("database", "cannot be reached: file is not a database")
def no_database(shop):
    (shop.folder / "letter.sqlite").write_text("Dear customer, " * 100)
    shop.settings["sqlalchemy.url"] = f"sqlite:///{shop.folder}/letter.sqlite"


@broken("database", " answers in ", outcome="warning", kinds=BOTH)
def slow(shop):
    shop.monkeypatch.setattr(data, "SLOW", 0)


@broken("migrations", "is at nothing", kinds=BOTH)
def not_migrated(shop):
    if shop.kind == "sqlite":
        (shop.folder / "empty.sqlite").touch()
        shop.settings["sqlalchemy.url"] = f"sqlite:///{shop.folder}/empty.sqlite"
    else:
        shop.use_database(migrated=False)


@broken("migrations", "is at 0006", kinds=BOTH)
def schema_behind(shop):
    engine = create_engine(shop.owner)
    migrations.downgrade(engine, "0006")
    engine.dispose()


@broken("migrations", "is at 9999, of a newer version", outcome="warning", kinds=BOTH)
def schema_ahead(shop):
    shop.sql("UPDATE alembic_version SET version_num = '9999'")


@broken("database_role", "lacks INSERT ON orders.", kinds=POSTGRESQL)
def role_too_narrow(shop):
    shop.sql(f"REVOKE INSERT ON orders FROM {shop.role}")


@broken("database_role", "lacks USAGE ON SEQUENCE orders_id_seq.", kinds=POSTGRESQL)
def role_without_ids(shop):
    shop.sql(f"REVOKE USAGE ON SEQUENCE orders_id_seq FROM {shop.role}")


@broken("database_role", "lacks SELECT ON alembic_version.", kinds=POSTGRESQL)
@broken("migrations", "refuses to tell: permission denied for table alembic_version", kinds=POSTGRESQL)
def role_that_cannot_read_the_version(shop):
    shop.sql(f"REVOKE ALL ON alembic_version FROM {shop.role}")


@broken("database_role", "it may DELETE ON audit_entries", outcome="warning", kinds=POSTGRESQL)
def role_too_wide(shop):
    shop.sql(f"GRANT DELETE ON audit_entries TO {shop.role}")


@broken("database_role", "it may UPDATE ON audit_entries, DELETE ON", outcome="warning", kinds=POSTGRESQL)
def role_of_the_owner(shop):
    shop.settings["sqlalchemy.url"] = shop.owner


def encoded(shop, encoding):
    """Moves a deployment to a database of another encoding."""
    name = f"encoded_{secrets.token_hex(6)}"
    engine = create_engine(shop.owner, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        made = f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
        connection.execute(text(made))
    engine.dispose()
    shop.settings["sqlalchemy.url"] = make_url(shop.owner).set(database=name).render_as_string(hide_password=False)


broken("database_encoding", "keeps SQL_ASCII", kinds=POSTGRESQL)(lambda shop: encoded(shop, "SQL_ASCII"))
broken("database_encoding", "keeps LATIN1", kinds=POSTGRESQL)(lambda shop: encoded(shop, "LATIN1"))


def skew(seconds):
    """Gives a database another time: what asks for it by its name gets that."""
    return lambda shop: shop.sql(
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
        f"$$ SELECT pg_catalog.clock_timestamp() + interval '{seconds} seconds' $$",
        f'ALTER DATABASE "{make_url(shop.owner).database}" SET search_path = public, pg_catalog',
    )


broken("clock", "seconds ahead of", outcome="warning", kinds=POSTGRESQL)(skew(20))
broken("clock", "seconds behind", kinds=POSTGRESQL)(skew(-3600))

setting("access", "Nobody can sign in", outcome="warning", plugins="africastalking")
setting("access", "Nobody is an admin.", outcome="warning", auth__admins="")


def message(shop, **changed):
    """Puts a message into the outbox."""
    now = datetime.now(UTC)
    told = {"event": "order_placed", "channel": "sms", "recipient": "+254713812939", "text": "Thank you!"}
    moments = {"created_at": now, "updated_at": now}
    with shop.application() as app, app.registry.database.transaction() as session:
        session.add(Notification(**told, **moments, **changed))


@broken("outbox", "1 messages have been due for more than 60 seconds: nobody delivers.", kinds=BOTH)
def nobody_delivers(shop):
    message(shop, status="queued", next_attempt_at=datetime.now(UTC) - timedelta(minutes=5))


@broken("outbox", "1 messages have been due")
def abandoned(shop):
    message(shop, status="sending", lease_expires_at=datetime.now(UTC) - timedelta(minutes=5))


@broken("outbox", "africastalking does not work: bad key. 0 messages wait")
def paused(shop):
    now = datetime.now(UTC)
    with shop.application() as app, app.registry.database.transaction() as session:
        paused_until = now + timedelta(minutes=5)
        session.add(
            Channel(
                notifier="africastalking",
                failures=1,
                pauses=1,
                paused_until=paused_until,
                reason="bad key",
                updated_at=now,
            )
        )


setting("limits_storage", "up to 3 times as many", outcome="warning", server__workers="3")


@broken("limits_storage", "does not answer")
def no_redis(shop):
    shop.settings["limits.storage"] = f"redis://{urlsplit(unused_url()).netloc}/0"


setting("proxies", "listens at 0.0.0.0:6543", outcome="warning", server__listen="0.0.0.0:6543")
setting("proxies", "which a proxy in front has to speak", outcome="warning", app__public_url="https://localhost:6543")


@broken("public_url", "travel in the clear")
def in_the_clear(shop):
    shop.settings |= {"app.public_url": "http://orders.example.com", "plugins": "google africastalking"}


def instead(shop, answer, certificate=None):
    """Has something else answer at the public address, until the test ends."""
    other = shop.stack.enter_context(provider(certificate))
    other.answer = lambda asked: answer(other.url) if callable(answer) and not isinstance(answer, Answer) else answer
    shop.settings["app.public_url"] = other.url
    shop.serves = False


def root(**changed):
    return lambda url: Answer(
        {"name": "Customer Orders", "version": "0.1", "links": {"document": f"{url}/api/api.json"}, **changed}
    )


@broken("reachable", "does not answer from here: ConnectionRefusedError")
def not_serving(shop):
    shop.serves = False


@broken("reachable", "No address is known of")
def no_such_host(shop):
    shop.settings |= {"app.public_url": f"https://{'a' * 64}.example", "plugins": "google africastalking"}
    shop.serves = False


@broken("reachable", "The certificate of https://127.0.0.1")
def unknown_certificate(shop):
    instead(shop, Answer({}), shop.certificate)


broken("reachable", "is something else than Customer Orders")(lambda shop: instead(shop, Answer({"name": "Shop"})))
broken("reachable", "answers with 502, and with nothing of ours")(lambda shop: instead(shop, Answer(b"<html>", 502)))
broken("reachable", "runs version 0.1", outcome="warning")(lambda shop: instead(shop, root()))
broken("reachable", "leads to another deployment, which calls itself https://elsewhere.example/")(
    lambda shop: instead(shop, root(links={"document": "https://elsewhere.example/api/api.json"}))
)


@broken("ready", "/readyz answers with 503.\nmigrations: ")
def not_ready(shop):
    (shop.folder / "empty.sqlite").touch()
    shop.served = {"sqlalchemy.url": f"sqlite:///{shop.folder}/empty.sqlite"}


@broken("ready", "does not answer from here")
def nothing_serves(shop):
    shop.serves = False


@broken("ready", "checked.queue: warning: The queue is long.", outcome="warning")
def ready_all_the_same(shop):
    def warn():
        raise CheckFailed("The queue is long.", warning=True)

    script = importlib.import_module("checked").SCRIPT
    script.does["queue"] = warn
    shop.stack.callback(script.does.clear)
    shop.served = {"plugins": "devtools google africastalking checked"}


@broken("report_url", "answers with 404, as if the secret were wrong")
def other_report_secret(shop):
    shop.served = {"notifications.report_secrets": secrets.token_urlsafe(32)}


@broken("report_url", "Not tried, since somebody else would get to know the secret. http://127.0.0.1")
def report_url_of_somebody_else(shop):
    # it would pass for one that takes the secret
    instead(shop, Answer({"name": "Shop"}, 405))


def page(path, answer):
    return lambda shop: shop.google.pages.update({path: answer})


DISCOVERY = "/.well-known/openid-configuration"
broken("google.discovery", "answers with status 404")(page(DISCOVERY, Answer({}, 404)))
broken("google.discovery", "is of another issuer")(page(DISCOVERY, Answer({"issuer": "https://other.example"})))
broken("google.discovery", "holds no key")(page("/keys", Answer({"keys": []})))
broken("google.discovery", "does not answer")(page(DISCOVERY, reset))


def dated(**apart):
    """Answers like a machine with another time."""

    def answer(handler):
        date = format_datetime(datetime.now(UTC) + timedelta(**apart), usegmt=True)
        handler.wfile.write(f"HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 2\r\n\r\n{{}}".encode())

    return answer


broken("google.clock", "behind this machine's; sign-ins are refused")(page(DISCOVERY, dated(hours=-1)))
broken("google.clock", "ahead of this machine's.", outcome="warning")(page(DISCOVERY, dated(seconds=20)))
broken("google.clock", "cannot be read")(page(DISCOVERY, reset))
broken("google.client", "does not know the client: invalid_client")(
    page("/token", Answer({"error": "invalid_client"}, 401))
)
broken("google.client", "takes any code")(page("/token", Answer({"access_token": "x", "token_type": "Bearer"})))
broken("google.client", "cannot be checked")(page("/token", Answer({}, 503)))


def account(answer):
    return lambda shop: setattr(shop.sms, "answer", lambda asked: answer)


broken("africastalking.account", "does not know the account: it answers with 401")(account(Answer(b"invalid", 401)))
broken("africastalking.account", "KES 0.00: nothing is sent")(account(Answer({"UserData": {"balance": "KES 0.0000"}})))
broken("africastalking.account", "below africastalking.low_balance = 500.", outcome="warning")(
    account(Answer({"UserData": {"balance": "KES 499.99"}}))
)
broken("africastalking.account", "with nothing that tells of an account")(account(Answer(b"<html>")))
broken("africastalking.account", "does not answer")(account(reset))


@broken("devtools.inbox", "cannot be written")
def no_inbox(shop):
    shop.settings["devtools.inbox"] = str(shop.folder)


@pytest.mark.parametrize(
    ("kind", "case"),
    [
        pytest.param(kind, case, id=f"{kind}-{case.check}-{number}")
        for number, case in enumerate(CASES)
        for kind in case.kinds
    ],
)
def test_a_broken_deployment_is_told_by_the_check_for_it(deploy, certificate, kind, case):
    shop = deploy(kind)
    with contextlib.ExitStack() as shop.stack:
        shop.certificate = certificate
        case.breaks(shop)
        told = shop.check(case.check)
    assert (told["outcome"], case.said in told["found"]) == (case.outcome, True), told
    # what is wrong is told with what to do about it
    assert told["remedy"]


# -- and when all is well -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def well(tmp_path_factory, providers, new_database, database_kind):
    """What the doctor says of a deployment in which all is well."""
    with pytest.MonkeyPatch.context() as patch:
        shop = Deployment(database_kind, tmp_path_factory.mktemp("well"), *providers, new_database, patch)
        shop.use_database()
        code, printed = shop.examine("--json", "--strict", serve=True)
    return code, json.loads(printed)


def test_every_check_passes_on_a_deployment_in_which_all_is_well(well, database_kind):
    code, told = well
    outcomes = {check["name"]: check["outcome"] for check in told["checks"]}
    skipped = POSTGRESQL_ONLY if database_kind == "sqlite" else set()
    assert outcomes == {name: "skipped" if name in skipped else "ok" for name in outcomes}, told
    assert (code, told["outcome"]) == (0, "ok")
    assert [check["remedy"] for check in told["checks"]] == [None] * len(outcomes)


def test_every_check_was_seen_to_fail(well):
    assert {check["name"] for check in well[1]["checks"]} == {case.check for case in CASES}


def test_every_check_is_in_the_table_of_the_documentation(well):
    rows = re.findall(r"(?m)^\| `([a-z_.]+)` \|", (ROOT / "docs" / "doctor.md").read_text())
    assert rows == [check["name"] for check in well[1]["checks"]]


def test_the_key_that_signs_is_told_by_its_kid(deploy):
    shop = deploy("sqlite")
    shop.secrets["jwt.private_key"] = f"k1:{secrets.token_urlsafe(64)} k2:{secrets.token_urlsafe(64)}"
    assert shop.check("signing_key")["found"] == "k1 signs with HS512; 1 more verify."


def test_a_proxy_may_keep_readyz_from_the_public(deploy):
    shop = deploy("sqlite")
    with contextlib.ExitStack() as shop.stack:
        instead(shop, Answer(b"", 404))
        told = shop.check("ready")
    assert (told["outcome"], told["remedy"]) == ("skipped", None)


def test_nobody_else_gets_to_know_the_secret_of_reports(deploy):
    shop = deploy("sqlite")
    with provider() as other:
        other.answer = lambda asked: Answer({"name": "Shop"}, 405)
        shop.settings["app.public_url"] = other.url
        shop.serves = False
        shop.check("report_url")
        assert [asked.path for asked in other.asked] == ["/api/"]


def test_the_address_of_reports_is_told_without_its_secret(deploy):
    shop = deploy("sqlite")
    told = shop.check("report_url")["found"]
    path = "/api/notifications/reports/africastalking/{secret}"
    assert told == f"{shop.settings['app.public_url']}{path} leads here."


def test_an_admin_who_was_granted_it_is_one(deploy):
    shop = deploy("sqlite")
    shop.settings["auth.admins"] = ""
    with shop.application() as app, app.registry.database.transaction() as session:
        grant(session, str(local_user(session, "jane@shop.example", "viewer").id), "admin")
    assert shop.check("access")["outcome"] == "ok"


@pytest.mark.processes
@pytest.mark.skipif(
    not NODE and not os.environ.get("REQUIRE_OPENID_PROVIDER"),
    reason="neither this machine nor PyPI has Node, or npm has no oidc-provider (`make test` tries both)",
)
def test_a_certified_provider_knows_a_client_by_its_secret_alone(deploy, authority):
    shop = deploy("sqlite")
    openid = OpenIdProvider(shop.folder, authority, shop.settings["app.public_url"])
    openid.start()
    try:
        shop.settings |= {"google.issuer": openid.url, "google.client_id": openid.client_id}
        wrong = shop.check("google.client")
        shop.secrets["google.client_secret"] = openid.client_secret
        right = {name: shop.check(f"google.{name}")["outcome"] for name in ("client", "clock", "discovery")}
    finally:
        openid.end()
    assert (wrong["outcome"], "invalid_client" in wrong["found"]) == ("failed", True)
    assert right == {"client": "ok", "clock": "ok", "discovery": "ok"}


# -- how it tells -------------------------------------------------------------------------------------------------


def test_what_else_is_wrong_is_told_too_however_broken_it_is(deploy):
    shop = deploy("sqlite")
    shop.settings |= {
        "api.max_body": "none",
        "server.workers": "2",
        "plugins": "devtools google africastalking nothing",
    }
    shop.settings["sqlalchemy.url"] = f"sqlite:///{shop.folder}/nothing.sqlite"
    code, printed = shop.examine("--json")
    told = {check["name"]: check for check in json.loads(printed)["checks"]}
    assert code == 1
    assert {name for name, check in told.items() if check["outcome"] == "failed"} == {
        "settings",
        "database",
        "reachable",
        "ready",
        "report_url",
    }
    for said in ("api.max_body (variable API_MAX_BODY", "nothing: there is no such plugin"):
        assert said in told["settings"]["found"]
    assert told["limits_storage"]["outcome"] == "warning"
    assert told["google.client"]["outcome"] == "ok"
    assert told["migrations"]["found"] == "It needs what has failed before: database."


@pytest.mark.processes
def test_as_a_process_the_database_is_looked_at_although_the_application_does_not_start(deploy, monkeypatch):
    shop = deploy("postgresql")
    shop.settings |= {"sqlalchemy.url": shop.owner, "api.max": "1"}
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:pkg_resources is deprecated")
    words = ["doctor", "-c", shop.write(), "--json", "--only", "settings", "--only", "database_role"]
    done = subprocess.run([str(BIN / "customer-orders"), *words], capture_output=True, text=True, timeout=100)
    settings, role = json.loads(done.stdout)["checks"]
    assert (done.returncode, settings["outcome"], role["outcome"]) == (1, "failed", "warning")
    assert "could change the audit trail" in role["found"]


@pytest.mark.processes
def test_as_a_process_on_a_deployment_without_settings(tmp_path):
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JWT_")}
    words = ["doctor", "-c", str(ROOT / "production.ini"), "--offline"]
    done = subprocess.run(
        [str(BIN / "customer-orders"), *words],
        env={**environ, "PYTHONWARNINGS": "ignore:pkg_resources is deprecated"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"(?m)^ok +ini +", done.stdout)
    assert re.search(r"(?m)^failed +settings +7 settings are wrong:$", done.stdout)
    assert re.search(r"(?m)^ +-> Mend them", done.stdout)
    # no colours where nobody sees them
    assert "\x1b" not in done.stdout


def test_offline_nobody_outside_is_asked(deploy):
    shop = deploy("sqlite")
    before = len(shop.sms.asked), len(shop.google.asked)
    code, printed = shop.examine("--json", "--offline")
    assert code == 0
    outcomes = {check["name"]: check["outcome"] for check in json.loads(printed)["checks"]}
    skipped = {
        "reachable",
        "ready",
        "report_url",
        "google.discovery",
        "google.clock",
        "google.client",
        "africastalking.account",
    }
    assert {name for name, outcome in outcomes.items() if outcome == "skipped"} == skipped | POSTGRESQL_ONLY
    assert (len(shop.sms.asked), len(shop.google.asked)) == before


def test_warnings_count_if_it_is_strict(deploy):
    shop = deploy("sqlite")
    shop.settings["server.workers"] = "3"
    assert shop.examine("--only", "limits_storage")[0] == 0
    assert shop.examine("--only", "limits_storage", "--strict")[0] == 1


def test_a_check_is_chosen_by_its_name_or_its_plugin(deploy):
    shop = deploy("sqlite")
    _, printed = shop.examine("--json", "--only", "google", "--only", "ini")
    assert [check["name"] for check in json.loads(printed)["checks"]] == [
        "ini",
        "google.client",
        "google.clock",
        "google.discovery",
    ]
    done = CliRunner().invoke(command, ["doctor", "-c", shop.write(), "--only", "nothing"])
    assert done.exit_code == 2
    assert "there is no check 'nothing' here. There are: ini, settings," in done.stderr


@pytest.fixture
def script():
    """What the checks of the plugin `checked` do."""
    script = importlib.import_module("checked").SCRIPT
    yield script
    script.does.clear()


def test_a_check_of_a_plugin_may_hang_raise_or_tell_secrets(deploy, script):
    shop = deploy("sqlite")
    shop.settings["plugins"] = "checked"
    shop.settings["notifications.sms"] = ""
    goes_on = threading.Event()
    key = shop.secrets["jwt.private_key"]

    def tell():
        raise CheckFailed(f"The key is {key}.", remedy=f"Do not tell {key}.")

    script.does = {"account": lambda: goes_on.wait(60), "folder": tell}
    code, printed = shop.examine("--json", "--only", "checked", "--timeout", "0.2")
    goes_on.set()
    account, folder = json.loads(printed)["checks"]
    assert code == 1
    assert account["found"] == "The check did not end within 0.2 seconds."
    assert folder["found"] == f"The key is {MASK}." or "{hidden}" in folder["found"]
    script.does = {"account": lambda: 1 / 0}
    code, printed = shop.examine("--json", "--only", "checked.account")
    assert (code, json.loads(printed)["checks"][0]["found"]) == (
        1,
        "The check itself is broken: it raised ZeroDivisionError.",
    )


def test_short_secrets_are_hidden_too_and_a_password_of_the_database(deploy, script):
    shop = deploy("sqlite")
    shop.settings |= {"plugins": "checked", "notifications.sms": ""}
    password = f"Pw{secrets.token_hex(6)}"
    shop.settings["sqlalchemy.url"] = f"postgresql+psycopg://orders:{password}@127.0.0.1:1/orders"
    script.does = {"folder": lambda: f"It is {password}."}
    _, printed = shop.examine("--only", "checked.folder", "--only", "database")
    assert password not in printed
    assert f"It is {MASK}." in printed


def test_plugins_are_listed_with_their_checks(deploy):
    shop = deploy("sqlite")
    done = CliRunner().invoke(command, ["plugins", "-c", shop.write()], catch_exceptions=False)
    assert "notifier africastalking, doctor check africastalking.account\n" in done.stdout
