"""The plugin's settings, as an operator writes them, and what is said of those that are wrong."""

from __future__ import annotations

import pytest

from customer_orders import main
from customer_orders.settings import InvalidSettings

USERNAME = "is required: the user name of your app at Africa's Talking, or sandbox to send to its simulator"
API_KEY = "is required: the API key from the app's page Settings > API Key; set the variable, or mount a file"
VISIBLE = "write ASCII letters, digits and punctuation, without spaces, at most 255 characters"
ADDRESS = (
    "is not the address of a server; write scheme and host, optionally a port, and nothing after it, "
    "such as https://api.africastalking.com"
)


@pytest.fixture
def wrong(settings):
    """The errors that an application with these settings refuses to start with; None removes one."""

    def errors(**more):
        given = {f"africastalking.{key}": value for key, value in more.items()}
        with pytest.raises(InvalidSettings) as told:
            main({}, **{key: value for key, value in {**settings, **given}.items() if value is not None})
        return [str(error) for error in told.value.errors]

    return errors


@pytest.fixture
def section(make_app):
    """The section as an application reads it."""
    return lambda **more: make_app(**{f"africastalking.{key}": value for key, value in more.items()}).registry.sections[
        "africastalking"
    ]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("username", None, USERNAME),
        ("username", "", USERNAME),
        ("username", "my shop", f"holds what no user name has; {VISIBLE}"),
        ("username", "duka\x00", f"holds what no user name has; {VISIBLE}"),
        ("username", "döka", f"holds what no user name has; {VISIBLE}"),
        ("username", "x" * 256, f"holds what no user name has; {VISIBLE}"),
        ("api_key", None, API_KEY),
        ("api_key", " ", API_KEY),
        ("api_key", "key_é", f"holds what no API key has; {VISIBLE}"),
        ("api_key", "key_\r\nX-Evil: 1", f"holds what no API key has; {VISIBLE}"),
        ("api_key", "key_\u200b", f"holds what no API key has; {VISIBLE}"),
        ("api_key", "key_ 1", f"holds what no API key has; {VISIBLE}"),
        (
            "sender_id",
            "Duka\nLetu",
            "holds what no sender id has; write ASCII letters, digits, punctuation and spaces, at most 255 characters",
        ),
        (
            "sender_id",
            "Düka",
            "holds what no sender id has; write ASCII letters, digits, punctuation and spaces, at most 255 characters",
        ),
        ("connect_timeout", "0", "is '0'; write a whole number of seconds from 1 to 10"),
        ("connect_timeout", "11", "is '11'; write a whole number of seconds from 1 to 10"),
        ("connect_timeout", "5.0", "is '5.0'; write a whole number of seconds from 1 to 10"),
        ("connect_timeout", "5s", "is '5s'; write a whole number of seconds from 1 to 10"),
        ("connect_timeout", "\u0665", "is '\u0665'; write a whole number of seconds from 1 to 10"),
        ("read_timeout", "0", "is '0'; write a whole number of seconds from 1 to 30"),
        ("read_timeout", "31", "is '31'; write a whole number of seconds from 1 to 30"),
        ("read_timeout", "1_0", "is '1_0'; write a whole number of seconds from 1 to 30"),
        ("read_timeout", "+5", "is '+5'; write a whole number of seconds from 1 to 30"),
        ("read_timeout", "9" * 5000, f"is '{'9' * 5000}'; write a whole number of seconds from 1 to 30"),
    ],
)
def test_a_setting_that_is_wrong_is_told_with_what_to_write_instead(wrong, key, value, sentence):
    variable = f"AFRICASTALKING_{key.upper()}"
    assert wrong(**{key: value}) == [f"africastalking.{key} (variable {variable} or {variable}_FILE): {sentence}"]


@pytest.mark.parametrize(
    "endpoint",
    [
        "api.africastalking.com",
        "ftp://api.africastalking.com",
        "https://",
        "https:///",
        "https://api.africastalking.com/",
        "https://api.africastalking.com/version1",
        "https://api.africastalking.com?a=b",
        "https://api.africastalking.com#a",
        "https://user:pass@api.africastalking.com",
        "https://@api.africastalking.com",
        "https://api.africastalking.com:",
        "https://api.africastalking.com:0",
        "https://api.africastalking.com:65536",
        "https://api..africastalking.com",
        "https://api.africastalking.com.",
        "https://äpi.example",
        "https://api.example\\@evil.example",
        "https://api.ex\nample",
        "https://[::1",
        "https://[nonsense]",
        "https://::1",
        "https://a b",
    ],
)
def test_an_endpoint_is_scheme_and_host_and_nothing_else(wrong, endpoint):
    (told,) = wrong(endpoint=endpoint)
    assert told == (
        "africastalking.endpoint (variable AFRICASTALKING_ENDPOINT or AFRICASTALKING_ENDPOINT_FILE): " + ADDRESS
    )


@pytest.mark.parametrize(
    "host",
    [
        "api.africastalking.com",
        "192.0.2.1:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "[::2]",
    ],
)
def test_the_key_is_not_sent_unencrypted_to_another_machine(wrong, host):
    (told,) = wrong(endpoint=f"http://{host}")
    assert told.endswith(f": would send the API key unencrypted; write https://{host}, or leave it blank")


@pytest.mark.parametrize(
    "endpoint",
    [
        "https://sms.shop.example",
        "https://sms.shop.example:8443",
        "https://192.0.2.1",
        "https://[2001:db8::1]:8443",
        "https://sms_proxy",
        "http://127.0.0.1:8080",
        "http://127.1.2.3",
        "http://[::1]:8080",
        "http://localhost:8080",
        "http://LOCALHOST",
    ],
)
def test_an_endpoint_may_be(section, endpoint):
    assert section(endpoint=endpoint).endpoint == endpoint


def test_what_is_not_set_has_a_default(section):
    found = section(endpoint="", sender_id="")
    assert (found.endpoint, found.sender_id, found.connect_timeout, found.read_timeout) == (None, None, 2, 14)


def test_what_is_set_counts(section):
    found = section(sender_id="Duka La Mtaa", connect_timeout="1", read_timeout="0017")
    assert (found.sender_id, found.connect_timeout, found.read_timeout) == ("Duka La Mtaa", 1, 17)


def test_what_is_set_reaches_the_requests(make_app, server, message):
    more = {"sender_id": "Duka", "connect_timeout": "2", "read_timeout": "29"}
    app = make_app(**{f"africastalking.{key}": value for key, value in more.items()}, **{"notifications.lease": "105"})
    notifier = app.registry.plugins.notifiers["africastalking"]
    assert notifier._gateway._sessions.session.get_adapter(server.url).timeout == (2, 29)
    notifier.send(message)
    assert server.asked[0].form["from"] == "Duka"


def test_a_variable_and_a_file_count(section, monkeypatch, tmp_path):
    (tmp_path / "key").write_text("of-a-file\n")
    monkeypatch.setenv("AFRICASTALKING_API_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("AFRICASTALKING_USERNAME", "sandbox")
    found = section()
    assert (found.api_key, found.username) == ("of-a-file", "sandbox")
    assert found["api_key"].display() == "********"


def test_every_wrong_setting_is_told_at_once(wrong):
    told = wrong(username="", api_key="é", endpoint="x", read_timeout="x", sender="Duka")
    assert len(told) == 5
    assert "africastalking.sender: is not a setting. Did you mean africastalking.sender_id?" in told


@pytest.mark.parametrize("more", [{"api_key": "topsecret\u00e9"}, {"endpoint": "https://user:topsecret@shop.example"}])
def test_a_secret_is_not_repeated(wrong, more):
    assert "topsecret" not in " ".join(wrong(**more))


def test_starting_asks_nobody(make_app, server):
    make_app()
    assert server.connections == []
