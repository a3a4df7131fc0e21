"""What the sign-in says in logs, at any level: no secret, no code, no token."""

from __future__ import annotations

import logging

import pytest


@pytest.fixture
def everything(caplog):
    """Every record of every logger, as text, tracebacks included."""
    caplog.set_level(logging.DEBUG)
    return lambda: caplog.text + "".join(str(record.args) for record in caplog.records)


def secrets_of(browser, told, **more):
    (asked,) = browser.op.asked("/token")[-1:]
    return {
        "client secret": browser.op.client_secret,
        "code": asked.form["code"],
        "code verifier": asked.form["code_verifier"],
        "credentials": asked.headers["Authorization"].partition(" ")[2],
        "provider's access token": browser.op.access_token,
        "state": told["state"],
        "nonce": told["nonce"],
        **more,
    }


def test_a_sign_in_leaves_no_secret_in_the_log(browser, everything):
    signed = []
    browser.op.sign = lambda op: signed.append(op.token()) or signed[-1]
    told = browser.begin()
    tokens = browser.come_back(told["state"]).json["tokens"]
    browser.post_json("/api/token/refresh", {"refresh": tokens["refresh"]}, status=200)
    browser.get("/api/me", headers={"Authorization": f"Bearer {tokens['access']}x"}, status=401)
    said = everything()
    # the test sees what is logged at this level
    assert '"POST /token HTTP/1.1" 200' in said
    for what, secret in secrets_of(browser, told, id_token=signed[0], **tokens).items():
        assert secret not in said, what
    assert signed[0].rpartition(".")[2] not in said


@pytest.mark.parametrize("sign", [lambda op: op.token(op.claims(nonce="other")), lambda op: "not.a.token"])
def test_a_refusal_leaves_no_secret_in_the_log(browser, everything, sign):
    browser.op.sign = sign
    told = browser.begin()
    assert browser.come_back(told["state"]).status_int == 403
    said = everything()
    assert "sign-in by google refused" in said
    for what, secret in secrets_of(browser, told, id_token=sign(browser.op)).items():
        assert secret not in said, what


def test_a_code_that_is_not_taken_is_not_logged_though_the_provider_quotes_it(browser, everything):
    browser.op.codes = set()
    told = browser.begin()
    assert browser.come_back(told["state"]).status_int == 403
    said = everything()
    assert "the provider does not take the code: invalid_grant" in said
    for what, secret in secrets_of(browser, told).items():
        assert secret not in said, what
