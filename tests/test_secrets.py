"""Secrets: none in the repository, no placeholder taken for one, and each may come from a file."""

from __future__ import annotations

import re
import secrets
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest
from detect_secrets import SecretsCollection
from detect_secrets.settings import default_settings

from customer_orders import main
from customer_orders.settings import InvalidSettings, is_placeholder, variable
from serving import ROOT

# -- in the repository --------------------------------------------------------------------------------------------

# What looks like a secret and is none: by file, a part of the line, and why.
EXCEPTIONS = {
    **{
        (f"kube/base/{name}.yaml", "secretName: "): "the name of a Secret"
        for name in ("ingress", "server", "worker", "patches/cron-pod", "patches/pod")
    },
    ("tests/test_kube.py", '["secretName"] == '): "the name of a Secret",
    ("docs/deployment.md", "postgresql+psycopg://customer_orders@database/customer_orders"): "there is no password",
    ("tests/test_cli.py", "Sesame%7Open77"): "a password that must not be repeated",
    ("deploy/make-secrets", "postgresql+psycopg://orders_%s:%s@database/orders"): "an address that is made",
    ("docs/configuration.md", "postgresql+psycopg://user:password@host/database"): "how to write the setting",
    **{
        (name, part): why
        # the second is a copy of the first
        for name in ("production.ini", "kube/base/production.ini")
        for part, why in (
            ("postgresql+psycopg://user:password@host/database", "how to write the setting"),
            ("The secret in their address is a password", "a sentence"),
        )
    },
    ("src/customer_orders/auth/policy.py", "api-keys:manage"): "the name of a permission",
    (
        "src/customer_orders/sections/__init__.py",
        "postgresql+psycopg://user:password@host/database",
    ): "how to write the setting",
    (
        "plugins/customer-orders-africastalking/tests/test_settings.py",
        "https://user:pass@api.africastalking.com",
    ): "an address that is refused",
    (
        "plugins/customer-orders-africastalking/tests/test_settings.py",
        "topsecret",
    ): "a key that is refused, and must not be repeated",
    ("plugins/customer-orders-google/tests/test_settings.py", "s3cret"): "a secret that no provider has",
    ("plugins/customer-orders-google/tests/test_sign_in.py", "at_hash("): "the example of OpenID Connect Core, A.4",
    ("tests/test_api_keys.py", '{"secret": "mine"}'): "a field that nobody may set",
    ("tests/test_boot.py", "GOOGLE_CLIENT_SECRET"): "the name of a variable",
    ("tests/test_boot.py", "AFRICASTALKING_API_KEY"): "the name of a variable",
    ("src/customer_orders/sections/limiting.py", "redis://user:password@host:6379/0"): "how to write the setting",
    ("tests/test_limits.py", "redis://user:password@host:6379/0"): "how to write the setting",
    ("tests/test_logs.py", "postgresql+psycopg://jane:s3cret@db/orders"): "a password that has to be masked",
    ("tests/test_settings.py", '"jwt.private_key": "short"'): "a key that is refused",
}


def tracked():
    """Every file that git keeps."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git repository: which files would be in one cannot be told")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def looks_like_secrets(files):
    """Where something looks like a secret, as (file, line)."""
    found = SecretsCollection()
    with default_settings():
        for path in files:
            found.scan_file(str(path))
    return {
        (Path(name), Path(name).read_text(errors="replace").splitlines()[secret.line_number - 1])
        for name, secret in found
    }


def test_no_secret_is_in_the_repository():
    used, odd = set(), []
    for path, line in looks_like_secrets(tracked()):
        name = str(path.relative_to(ROOT))
        matching = {exception for exception in EXCEPTIONS if exception[0] == name and exception[1] in line}
        used |= matching
        # the table of exceptions itself
        itself = path == Path(__file__) and any(part in line for _, part in EXCEPTIONS)
        if not matching and not itself:
            odd.append(f"{name}: {line.strip()}")
    assert odd == []
    assert used == set(EXCEPTIONS)


@pytest.mark.parametrize(
    "line",
    [
        "-----BEGIN {}PRIVATE KEY-----".format("RSA "),
        "google.client_secret = {random}",
        'password = "{random}"',
        "https://user:{random}@host.example/",
    ],
)
def test_one_that_was_would_be_found(tmp_path, line):
    planted = tmp_path / "planted.ini"
    planted.write_text(line.replace("{random}", secrets.token_hex(32)))
    assert looks_like_secrets([planted])


def test_files_that_hold_secrets_are_left_out_by_git():
    for name in ("var/jwt.key", "var/report.key", "var/customer-orders.sqlite", ".env", "server.pem", "jwt.key"):
        done = subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, check=False)
        if done.returncode == 128:
            pytest.skip("this is no git repository: what it would leave out cannot be told")
        assert done.returncode == 0, name


# -- in the settings ----------------------------------------------------------------------------------------------


def database_url(password):
    return f"postgresql+psycopg://orders:{quote(password, safe='')}@database.internal/orders"


# Every setting that is a secret or has one in it, and how one is written.
SECRETS = {
    "jwt.private_key": str,
    "notifications.report_secrets": str,
    "sqlalchemy.url": database_url,
    "limits.storage": lambda secret: f"redis://:{quote(secret, safe='')}@127.0.0.1:6379/0",
    "google.client_secret": str,
    "africastalking.api_key": str,
    "tracing.headers": lambda secret: f"x-api-key={quote(secret, safe='')}",
    "devtools.report_url": lambda secret: f"http://127.0.0.1:6543/api/notifications/reports/devtools/{secret}",
}


def whole(**settings):
    """The settings of a deployment with every plugin of this repository."""
    return {
        "app.public_url": "http://127.0.0.1:6543",
        "sqlalchemy.url": "sqlite:////nowhere/at/all",
        "jwt.private_key": secrets.token_urlsafe(64),
        "plugins": "google africastalking devtools",
        "notifications.sms": "africastalking",
        "google.client_id": "orders",
        "google.client_secret": secrets.token_urlsafe(24),
        "africastalking.username": "sandbox",
        "africastalking.api_key": secrets.token_urlsafe(24),
        "devtools.inbox": "/nowhere/at/all",
        **settings,
    }


def told(settings):
    """What is wrong with a deployment, by key; and all of it as an operator reads it."""
    with pytest.raises(InvalidSettings) as caught:
        main({}, **settings)
    return {error.key: error.message for error in caught.value.errors}, str(caught.value)


def test_every_secret_setting_is_looked_at_here():
    sections = main({}, **whole()).registry.sections
    settings = [setting for section in sections.values() for setting in section]
    secret = {one.key for one in settings if getattr(one.node, "secret", False) or hasattr(one.node, "secrets_in")}
    assert secret == set(SECRETS)
    # and whatever is called one is one
    called = {one.key for one in settings if re.search("(key|secrets?|password|_token)$", one.key)}
    assert called <= secret


PLACEHOLDERS = [
    "change-me",
    "CHANGEME",
    "changeit",
    "placeholder",
    "example-key",
    "replace-this",
    "REPLACE_WITH_REAL_KEY",
    "your-api-key",
    "YOUR_SECRET_HERE",
    "your_password",
    "insert-key-here",
    "<api key>",
    "<your client secret>",
    "${API_KEY}",
    "{{jwt_key}}",
    "[secret]",
    "(the client secret)",
    "secret",
    "my-secret",
    "password",
    "password123",
    "api-key",
    "test",
    "test-key",
    "dummy",
    "default",
    "todo",
    "none",
    "undefined",
    "foobar",
    "xxxxxxxxxxxxxxxxxxxx",
    "********",
    "0000000000",
    "1234",
]


@pytest.mark.parametrize("key", SECRETS)
@pytest.mark.parametrize("placeholder", PLACEHOLDERS)
def test_a_placeholder_refuses_to_start_and_the_error_says_where(key, placeholder):
    wrong, text = told(whole(**{key: SECRETS[key](placeholder)}))
    assert list(wrong) == [key], text
    assert f"{key} (variable {variable(key)} or {variable(key)}_FILE): " in text


@pytest.mark.parametrize("key", ["google.client_secret", "africastalking.api_key", "sqlalchemy.url"])
def test_the_error_says_what_it_is_and_does_not_repeat_it(key):
    nearly = f"changeme{secrets.token_hex(8)}"
    wrong, text = told(whole(**{key: SECRETS[key](nearly)}))
    assert wrong == {key: "looks like a placeholder, not a secret; put in the real one"}
    assert nearly not in text


def test_a_password_in_the_query_of_an_address_is_looked_at_too():
    wrong, _ = told(whole(**{"sqlalchemy.url": "postgresql+psycopg://orders@host/orders?password=change-me"}))
    assert "placeholder" in wrong["sqlalchemy.url"]


def test_an_address_as_the_documentation_writes_it_is_no_database():
    wrong, _ = told(whole(**{"sqlalchemy.url": "postgresql+psycopg://user:password@host/database"}))
    assert "placeholder" in wrong["sqlalchemy.url"]


@pytest.mark.parametrize("url", ["postgresql+psycopg://orders@host/orders", "sqlite:////example/test/password"])
def test_an_address_without_a_password_has_none_to_look_at(url):
    assert main({}, **whole(**{"sqlalchemy.url": url}))


@pytest.mark.parametrize("make", [lambda: secrets.token_urlsafe(32), lambda: secrets.token_hex(16)])
def test_no_random_secret_is_taken_for_a_placeholder(make):
    assert not [made for made in (make() for _ in range(20_000)) if is_placeholder(made)]


@pytest.mark.parametrize("key", SECRETS)
def test_every_secret_may_come_from_a_file(key, tmp_path, monkeypatch):
    value = SECRETS[key](secrets.token_urlsafe(64))
    (tmp_path / "secret").write_text(f"{value}\n")
    monkeypatch.setenv(f"{variable(key)}_FILE", str(tmp_path / "secret"))
    settings = {name: given for name, given in whole().items() if name != key}
    sections = main({}, **settings).registry.sections
    section, _, name = key.partition(".")
    setting = sections[section][name]
    assert setting.origin == f"file named by {variable(key)}_FILE"
    assert setting.value in (value, (value,))
    assert "***" in setting.display()
    assert value not in setting.display()


@pytest.mark.parametrize("key", SECRETS)
def test_a_placeholder_in_a_file_is_none_the_better(key, tmp_path, monkeypatch):
    (tmp_path / "secret").write_text(SECRETS[key]("change-me"))
    monkeypatch.setenv(f"{variable(key)}_FILE", str(tmp_path / "secret"))
    wrong, text = told({name: given for name, given in whole().items() if name != key})
    assert list(wrong) == [key], text
