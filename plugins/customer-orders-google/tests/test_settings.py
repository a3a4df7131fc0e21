"""The settings of the plugin, as an operator writes them."""

from __future__ import annotations

import secrets

import pytest
from webtest import TestApp

from customer_orders import main
from customer_orders.settings import InvalidSettings

CORE = {
    "app.public_url": "http://127.0.0.1:6543",
    "sqlalchemy.url": "sqlite:///nowhere/orders.sqlite",
    "jwt.private_key": secrets.token_urlsafe(64),
    "plugins": "google",
}
GOOD = {"google.client_id": "an-id", "google.client_secret": secrets.token_hex(8)}


def wrong(**settings):
    with pytest.raises(InvalidSettings) as caught:
        main({}, **CORE, **settings)
    return {error.key: str(error) for error in caught.value.errors}


def test_id_and_secret_are_enough():
    app = main({}, **CORE, **GOOD)
    checks = [f"doctor check google.{name}" for name in ("discovery", "clock", "client")]
    assert app.registry.plugins.by_plugin == {"google": ["identity provider google", *checks]}
    page = TestApp(app).get("/login/", headers={"Accept": "text/html"})
    assert [link.text for link in page.html.select("main a")] == ["Sign in with Google"]
    section = app.registry.sections["google"]
    assert (section.issuer, section.hosted_domains) == ("https://accounts.google.com", ())
    assert (section.connect_timeout, section.read_timeout) == (5, 5)


def test_what_is_required_is_told_with_its_variable():
    told = wrong()
    assert set(told) == {"google.client_id", "google.client_secret"}
    assert "variable GOOGLE_CLIENT_ID or GOOGLE_CLIENT_ID_FILE" in told["google.client_id"]
    assert "from the Google Cloud console" in told["google.client_id"]


def test_the_secret_comes_from_a_file_and_is_not_shown(monkeypatch, tmp_path):
    (tmp_path / "secret").write_text("s3cret\n")
    monkeypatch.setenv("GOOGLE_CLIENT_SECRET_FILE", str(tmp_path / "secret"))
    section = main({}, **CORE, **{"google.client_id": "an-id"}).registry.sections["google"]
    assert section.client_secret == "s3cret"
    assert section["client_secret"].display() == "********"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("issuer", "http://accounts.google.com", "write the provider's issuer, such as https://accounts.google.com"),
        ("issuer", "accounts.google.com", "write the provider's issuer"),
        ("issuer", "https://", "write the provider's issuer"),
        ("issuer", "https://[::1", "write the provider's issuer"),
        ("issuer", "https://a@b.example", "write the provider's issuer"),
        ("issuer", "https://b.example/?tenant=a", "write the provider's issuer"),
        ("issuer", "HTTPS://b.example", "write the provider's issuer"),
        ("issuer", "https://b.example\x01", "write the provider's issuer"),
        ("issuer", "https://b.example:99999", "write the provider's issuer"),
        # it is Google's own but for the slash, and no token would ever be of it
        ("issuer", "https://accounts.google.com/", "write the provider's issuer, such as https://accounts.google.com"),
        ("hosted_domains", ",", "names none: write domains"),
        ("hosted_domains", "@shop.example", "@shop.example: write domains, such as shop.example, without @ or *"),
        ("hosted_domains", "shop.example *", "*: write domains"),
        ("hosted_domains", "shop", "shop: write domains"),
        ("hosted_domains", "jane@shop.example", "write domains"),
        ("connect_timeout", "0", "less than minimum value 1"),
        ("read_timeout", "61", "greater than maximum value 60"),
        ("read_timeout", "soon", "is not a number"),
        ("client", "x", "is not a setting. Did you mean google.client_id?"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_write_instead(key, value, says):
    told = wrong(**GOOD, **{f"google.{key}": value})
    assert list(told) == [f"google.{key}"]
    assert says in told[f"google.{key}"]


@pytest.mark.parametrize(
    "value", ["shop.example", "shop.example, a.shop.example", "xn--bcher-kva.example", "SHOP.example"]
)
def test_domains_are_a_list(value):
    found = main({}, **CORE, **GOOD, **{"google.hosted_domains": value}).registry.sections["google"].hosted_domains
    assert found == tuple(value.lower().replace(",", "").split())


@pytest.mark.parametrize("value", ["https://op.example", "https://op.example:8443/realms/shop", "https://op.example/"])
def test_another_issuer_may_be_named(value):
    assert main({}, **CORE, **GOOD, **{"google.issuer": value}).registry.sections["google"].issuer == value
