"""Plugins: found by entry point, switched on by name, refused where they do not fit."""

from __future__ import annotations

import re
import textwrap

import pytest
from pyramid.exceptions import ConfigurationConflictError, ConfigurationError
from webtest import TestApp

import factories
from conftest import SIGNING_KEY
from customer_orders import main
from customer_orders.auth.services import local_user
from customer_orders.plugins import installed
from customer_orders.settings import InvalidSettings

NOTIFIER = """
    from zope.interface import implementer
    from customer_orders.interfaces import INotifier

    @implementer(INotifier)
    class Notifier:
        def send(self, message):
            raise NotImplementedError

    def includeme(config):
        config.add_notifier("pigeon", Notifier())
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a plugin as pip would, but for this test only: ``install("pigeon", source)``."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(name: str, source: str, maker: str = "") -> None:
        # a name of its own for each test: Python keeps modules
        module = f"{maker or name}_{abs(hash(tmp_path))}"
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source))
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[customer_orders.plugins]\n{name} = {module}:includeme\n")

    return add


def start(**settings: str):
    return main(
        {},
        **{
            "app.public_url": "http://127.0.0.1:6543",
            "sqlalchemy.url": "sqlite:///nowhere/orders.sqlite",
            "jwt.private_key": SIGNING_KEY,
            **settings,
        },
    )


def wrong(**settings: str) -> dict[str, str]:
    with pytest.raises(InvalidSettings) as caught:
        start(**settings)
    return {error.key: error.message for error in caught.value.errors}


def test_an_unknown_plugin_is_refused_with_what_is_installed(install):
    install("pigeon", NOTIFIER)
    says = wrong(plugins="pidgeon")["plugins"]
    assert says.startswith("pidgeon: there is no such plugin. Did you mean pigeon? ")
    assert set(says.rpartition("Installed: ")[2].rstrip(".").split(", ")) == set(installed()) >= {"pigeon", "scripted"}


def test_a_plugin_that_is_only_installed_is_inert(install):
    install("pigeon", "raise RuntimeError('imported, though nobody asked')")
    registry = start().registry
    assert "pigeon" in installed()
    assert registry.plugins.by_plugin == {}
    assert registry.plugins.notifiers == {}


def test_what_an_enabled_plugin_registered_is_known(install):
    install("pigeon", NOTIFIER)
    registry = start(plugins="pigeon, scripted pigeon").registry
    assert registry.plugins.by_plugin == {
        "pigeon": ["notifier pigeon"],
        "scripted": ["notifier scripted", "identity provider scripted"],
    }
    assert set(registry.plugins.notifiers) == {"pigeon", "scripted"}
    assert set(registry.plugins.dispatchers) == {"embedded", "worker"}


def test_two_plugins_that_claim_one_name_are_a_conflict_that_names_both(install):
    install("pigeon", NOTIFIER)
    install("dove", NOTIFIER)
    with pytest.raises(ConfigurationConflictError) as caught:
        start(plugins="pigeon dove")
    said = str(caught.value)
    assert "'notifier', 'pigeon'" in said
    assert "/pigeon_" in said
    assert "/dove_" in said


def test_two_distributions_that_offer_one_name_are_told_apart_only_when_it_is_switched_on(install):
    install("pigeon", NOTIFIER, maker="acme")
    install("pigeon", NOTIFIER, maker="umbrella")
    assert start(plugins="scripted")
    says = wrong(plugins="pigeon")["plugins"]
    assert re.fullmatch(
        r"pigeon: is offered by (acme|umbrella)_\d+ 1\.0 and by (?!\1)\w+_\d+ 1\.0; uninstall one\.", says
    )


SETTINGS = """
    import colander

    class Schema(colander.MappingSchema):
        loft = colander.SchemaNode(colander.String(), title="Where it lives.")
        token = colander.SchemaNode(colander.String(), title="Its ring.", secret=True, missing=None)

    def includeme(config):
        settings = config.plugin_settings("{name}", Schema)
        config.registry.loft = settings.loft
"""


def test_two_plugins_that_claim_one_section_are_a_conflict(install):
    for name in ("pigeon", "dove"):
        install(name, SETTINGS.replace("{name}", "coop"))
    with pytest.raises(ConfigurationConflictError, match="'settings', 'coop'"):
        start(plugins="pigeon dove", **{"coop.loft": "roof"})


def test_a_plugin_cannot_take_a_section_of_the_core(install):
    install("pigeon", SETTINGS.replace("{name}", "phone").replace("loft", "default_region"))
    with pytest.raises(ConfigurationConflictError, match="'settings', 'phone'"):
        start(plugins="pigeon", **{"phone.default_region": "KE"})


@pytest.mark.parametrize(
    ("directive", "interface", "name"),
    [
        ("add_dispatcher", "IDispatcher", "embedded"),
        ("add_dispatcher", "IDispatcher", "worker"),
        # under this name the command line keeps the users it makes
        ("add_identity_provider", "IIdentityProvider", "cli"),
    ],
)
def test_a_plugin_cannot_take_a_name_of_the_core(install, directive, interface, name):
    install(
        "pigeon",
        f"""
        from zope.interface import implementer
        from customer_orders.interfaces import {interface}

        @implementer({interface})
        class Offered:
            title = "Pigeon"
            def start(self, outbox): pass
            def hint(self, ids): pass
            def stop(self): pass
            def authorization_url(self, redirect_uri, state, nonce, code_challenge): pass
            def identify(self, redirect_uri, code, nonce, code_verifier): pass

        def includeme(config):
            config.{directive}("{name}", Offered())
        """,
    )
    with pytest.raises(ConfigurationError, match=f"the plugin 'pigeon' claims .* '{name}', which is the core's own"):
        start(plugins="pigeon")


@pytest.mark.parametrize(
    ("directive", "interface", "body"),
    [
        ("add_notifier", "INotifier", "pass"),
        ("add_notifier", "INotifier", "def send(self): pass"),
        ("add_identity_provider", "IIdentityProvider", "def identify(self, redirect_uri, code): pass"),
        ("add_identity_provider", "IIdentityProvider", "title = 'Pigeon'"),
        ("add_dispatcher", "IDispatcher", "def start(self, outbox): pass"),
    ],
)
def test_an_object_that_does_not_meet_its_interface_is_refused(install, directive, interface, body):
    install(
        "pigeon",
        f"""
        from zope.interface import implementer
        from customer_orders.interfaces import {interface}

        @implementer({interface})
        class Offered:
            {body}

        def includeme(config):
            config.{directive}("pigeon", Offered())
        """,
    )
    with pytest.raises(ConfigurationError, match=f"'pigeon' does not meet {interface}"):
        start(plugins="pigeon")


def test_a_notifier_that_says_it_has_reports_has_them(install):
    reading = NOTIFIER.replace("import INotifier", "import IDeliveryReports, INotifier")
    reading = reading.replace("@implementer(INotifier)", "@implementer(INotifier, IDeliveryReports)")
    install("pigeon", reading)
    with pytest.raises(ConfigurationError, match="notifier 'pigeon' does not meet IDeliveryReports"):
        start(plugins="pigeon")
    method = "def parse(self, headers, body):\n            return []\n\n        def send("
    install("dove", reading.replace("def send(", method).replace('"pigeon"', '"dove"'))
    assert start(plugins="dove").registry.plugins.by_plugin == {"dove": ["notifier dove"]}


def test_an_object_that_does_not_say_what_it_is_is_refused(install):
    install("pigeon", "def includeme(config):\n    config.add_notifier('pigeon', object())")
    with pytest.raises(ConfigurationError, match="does not meet INotifier"):
        start(plugins="pigeon")


@pytest.mark.parametrize("source", ["import no_such_module_anywhere", "name_of_another = 'function'"])
def test_a_plugin_that_cannot_be_loaded_is_named(install, source):
    install("pigeon", source)
    with pytest.raises(ConfigurationError, match="pigeon: cannot be loaded: "):
        start(plugins="pigeon")


@pytest.mark.parametrize(
    ("key", "value", "registered"),
    [
        ("notifications.sms", "dove", "pigeon, scripted"),
        ("notifications.dispatcher", "dove", "embedded, worker"),
    ],
)
def test_a_setting_that_names_what_nobody_registered_is_refused(install, key, value, registered):
    install("pigeon", NOTIFIER)
    told = wrong(plugins="pigeon scripted", **{key: value})
    assert list(told) == [key]
    assert f"nothing is called 'dove'. Registered: {registered}." in told[key]


def test_a_name_nobody_registered_is_told_with_what_else_is_wrong_in_its_section():
    told = wrong(plugins="scripted", **{"notifications.dispatcher": "dove", "notifications.lease": "soon"})
    assert set(told) == {"notifications.dispatcher", "notifications.lease"}


def test_wrong_settings_of_plugins_and_core_are_told_together(install):
    install("pigeon", SETTINGS.replace("{name}", "pigeon"))
    install("dove", SETTINGS.replace("{name}", "dove"))
    told = wrong(
        plugins="pigeon dove hawk",
        **{"dove.loft": "roof", "dove.lofts": "x", "api.max_body": "x", "notifications.sms": "pigeon"},
    )
    # what pigeon registers cannot be known, so nothing is said of notifications.sms
    assert set(told) == {"plugins", "pigeon.loft", "dove.lofts", "api.max_body"}
    assert told["pigeon.loft"] == "is required"


def test_what_plugins_object_to_is_told_with_all_else_that_is_wrong(install):
    install(
        "pigeon",
        """
        from pyramid.exceptions import ConfigurationError

        def includeme(config):
            raise ConfigurationError("it rains")
        """,
    )
    install("dove", "import no_such_module_anywhere")
    install("hawk", SETTINGS.replace("{name}", "hawk"))
    with pytest.raises(InvalidSettings) as caught:
        start(plugins="pigeon dove hawk", **{"api.max_body": "x"})
    assert [(error.key, error.message) for error in caught.value.errors if error.key != "api.max_body"] == [
        ("plugins", "pigeon: it rains"),
        ("plugins", "dove: cannot be loaded: No module named 'no_such_module_anywhere'"),
        ("hawk.loft", "is required"),
    ]
    assert len(caught.value.errors) == 4


def test_a_plugin_reads_its_section_from_ini_and_environment(install, monkeypatch, tmp_path):
    install("pigeon", SETTINGS.replace("{name}", "pigeon"))
    (tmp_path / "token").write_text("r1ng\n")
    monkeypatch.setenv("PIGEON_TOKEN_FILE", str(tmp_path / "token"))
    registry = start(plugins="pigeon", **{"pigeon.loft": "roof"}).registry
    assert registry.loft == "roof"
    assert registry.sections["pigeon"].token == "r1ng"
    assert registry.sections["pigeon"]["token"].display() == "********"


def test_two_applications_in_one_process_share_nothing(make_app, database_kind):
    kenya = make_app(database_kind)
    uganda = make_app(
        database_kind,
        **{
            "app.public_url": "https://orders.example.ug",
            "jwt.private_key": SIGNING_KEY[::-1],
            "jwt.algorithm": "HS256",
            "phone.default_region": "UG",
            "orders.currency": "UGX",
            "api.max_body": "1024",
            "plugins": "",
            "notifications.sms": "",
            "auth.default_role": "viewer",
        },
    )
    clients = []
    for app in (kenya, uganda):
        with app.registry.database.transaction() as session:
            user_id = local_user(session, "jane@shop.example", "admin").id
        client = TestApp(app)
        client.authorization = ("Bearer", app.registry.access_tokens.create_token(str(user_id)))
        clients.append(client)
    here, there = clients

    for _ in range(2):
        one, other = (factories.customer(client, phone_number="0712345678") for client in clients)
        assert (one["phone_number"], other["phone_number"]) == ("+254712345678", "+256712345678")
        one, other = (factories.order(client) for client in clients)
        assert (one["currency"], other["currency"]) == ("KES", "UGX")
        assert (one["notification"]["status"], other["notification"]["status"]) == ("queued", "suppressed")
    found = [client.get("/api/nothing", status=404).json["type"] for client in clients]
    assert found == [f"{url}/problems/not-found" for url in ("http://127.0.0.1:6543", "https://orders.example.ug")]
    large = {"username": "Jane", "phone_number": "0712345678", "metadata": {"k": "x" * 1500}}
    assert here.post_json("/api/customers/", large, status="*").status_int != 413
    there.post_json("/api/customers/", large, status=413)
    here.get("/api/scripted-oauth2/redirect/", status=302)
    there.get("/api/scripted-oauth2/redirect/", status=404)
    here.authorization, there.authorization = there.authorization, here.authorization
    here.get("/api/me", status=401)
    there.get("/api/me", status=401)
    notifier = kenya.registry.plugins.notifiers["scripted"]
    assert kenya.registry.outbox.due(10) != uganda.registry.outbox.due(10) == []
    assert notifier.sent == []
