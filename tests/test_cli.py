"""What an operator does from a shell."""

from __future__ import annotations

import signal
import subprocess
from functools import partial

import pytest
from click.testing import CliRunner
from plaster import loaders
from sqlalchemy import create_engine, text
from webtest import TestApp

import factories
import inis
from conftest import STAGE, settings_for
from customer_orders import main as application
from customer_orders import migrations
from customer_orders.auth import sessions
from customer_orders.auth.models import User
from customer_orders.auth.services import disable, local_user
from customer_orders.cli import main
from customer_orders.sections.keys import key_ring, new_key
from serving import BIN, ROOT, wait_for


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


@pytest.fixture
def write_ini(tmp_path):
    """Writes an INI of the given settings and tells its path."""

    return partial(inis.write_ini, tmp_path / "orders.ini")


@pytest.fixture
def ini(app, write_ini):
    """The INI of a deployment on the database of the application of this test."""
    url = app.registry.database.url.render_as_string(hide_password=False)
    return write_ini(settings_for(url, **{"jwt.private_key": app.registry.sections["jwt"].private_key}))


@pytest.fixture
def run(ini):
    """Runs a command on that deployment: ``run("user list")``."""

    def invoke(command, *, status=0):
        result = CliRunner().invoke(main, [*command.split(), "-c", ini], catch_exceptions=False)
        assert result.exit_code == status, result.output
        return result

    return invoke


def test_db_upgrade_makes_the_folder_and_the_schema(tmp_path, write_ini, new_database, database_kind):
    url = f"sqlite:///{tmp_path}/new/folder/orders.sqlite" if database_kind == "sqlite" else new_database("postgresql")
    ini = write_ini(settings_for(url))
    for _ in range(2):
        result = CliRunner().invoke(main, ["db", "upgrade", "-c", ini], catch_exceptions=False)
        assert (result.exit_code, result.stdout) == (0, "")
        assert "The database is at 0" in result.stderr
    app = application({}, **settings_for(url))
    TestApp(app).get("/readyz", status=200)
    app.registry.database.engine.dispose()


def test_a_database_that_is_not_migrated_is_told_in_a_sentence(write_ini, new_database, database_kind):
    ini = write_ini(settings_for(new_database(database_kind)))
    result = CliRunner().invoke(main, ["user", "list", "-c", ini])
    assert result.exit_code == 1
    assert "The database says: " in result.stderr
    assert "db upgrade" in result.stderr


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path, write_ini):
    (tmp_path / "file").write_text("")
    ini = write_ini(settings_for(f"sqlite:///{tmp_path}/file/orders.sqlite"))
    result = CliRunner().invoke(main, ["db", "upgrade", "-c", ini])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert result.stderr.startswith("Error: The folder of the database cannot be made: ")
    assert f"{tmp_path}/file" in result.stderr


def test_a_database_of_a_newer_version_is_told_in_a_sentence(write_ini, make_app, database_kind):
    registry = make_app(database_kind).registry
    with registry.database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    ini = write_ini(settings_for(registry.database.url.render_as_string(hide_password=False)))
    result = CliRunner().invoke(main, ["db", "upgrade", "-c", ini])
    assert (result.exit_code, type(result.exception)) == (1, SystemExit)
    assert result.stderr.startswith("Error: The database cannot be upgraded: ")
    assert "9999" in result.stderr
    assert "newer version" in result.stderr


def test_token_create_prints_a_token_that_works_and_nothing_else(run, anonymous):
    result = run("token create --email jane@shop.example --role clerk")
    token = result.stdout.removesuffix("\n")
    assert token.count(".") == 2
    assert token.isprintable()
    me = anonymous.get("/api/me", headers={"Authorization": f"Bearer {token}"}).json
    assert (me["email"], me["role"]) == ("jane@shop.example", "clerk")


def test_token_create_finds_its_user_again_and_grants_the_role_anew(run, session):
    for email, role in (("jane@shop.example", "clerk"), ("Jane@shop.example", "viewer")):
        run(f"token create --email {email} --role {role}")
    (user,) = session.query(User).all()
    assert user.granted_role == "viewer"


@pytest.mark.parametrize("options", ["--email jane@shop.example --role root", "--role admin", "--email jane@x.example"])
def test_token_create_asks_for_what_it_needs(run, session, options):
    result = run(f"token create {options}", status=2)
    assert result.stdout == ""
    assert session.query(User).count() == 0


@pytest.mark.parametrize(
    "email", ["", " ", "jane", "@shop.example", "jane@", "jane@shop@example", "j@x\ty", "j\x1b@x", "j" * 251 + "@x.y"]
)
def test_token_create_takes_only_an_address(ini, session, email):
    command = ["token", "create", "-c", ini, "--email", email, "--role", "clerk"]
    result = CliRunner().invoke(main, command, catch_exceptions=False)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"{email!r} is not an e-mail address." in " ".join(result.stderr.split("\n"))
    assert session.query(User).count() == 0


def test_token_create_makes_no_token_that_never_works(run, registry, session):
    with registry.database.transaction() as writing:
        jane = local_user(writing, "jane@shop.example", "viewer").id
        disable(writing, str(jane), disabled=True)
    result = run("token create --email jane@shop.example --role admin", status=1)
    assert result.stdout == ""
    assert f"jane@shop.example (user {jane}) is disabled: no token of theirs works." in result.stderr
    assert session.get(User, jane).granted_role == "viewer"
    # SQLite has one writer at a time
    session.rollback()
    run(f"user disable --undo {jane}")
    run("token create --email jane@shop.example --role admin")


@pytest.mark.parametrize(
    "email", ["\u00c4rger@x.example", "\u00e4rger@x.example", "\u212aate@x.example", "kate@x.example"]
)
def test_a_user_is_found_by_the_address_as_it_is_written_beyond_ascii(run, registry, email):
    for one in ("\u00c4rger@x.example", "\u00e4rger@x.example", "\u212aate@x.example", "Kate@x.example"):
        run(f"token create --email {one} --role viewer")
    run(f"user disable {email}")
    with registry.database.transaction(writes=False) as session:
        (disabled,) = session.query(User).filter_by(disabled=True).all()
    assert disabled.email == (email if email != "kate@x.example" else "Kate@x.example")


def test_users_are_listed_granted_and_disabled(run, anonymous, registry):
    with registry.database.transaction() as session:
        jane = local_user(session, "jane@shop.example", "viewer").id
        guest = local_user(session, "guest@shop.example", "viewer").id
    token = {"Authorization": f"Bearer {registry.access_tokens.create_token(str(jane))}"}
    assert run("user grant JANE@shop.example admin").stdout == f"jane@shop.example (user {jane}) is admin now.\n"
    assert anonymous.get("/api/me", headers=token).json["role"] == "admin"
    assert run(f"user grant {guest} none").stdout == f"guest@shop.example (user {guest}) is without a role now.\n"
    assert run("user disable jane@shop.example").stdout == f"jane@shop.example (user {jane}) is disabled now.\n"
    anonymous.get("/api/me", headers=token, status=401)
    assert [line.split("\t") for line in run("user list").stdout.splitlines()] == [
        [str(jane), "jane@shop.example", "admin", "granted", "disabled", "cli"],
        [str(guest), "guest@shop.example", "none", "by sign-in", "active", "cli"],
    ]
    assert run(f"user disable {jane} --undo").stdout == f"jane@shop.example (user {jane}) is active now.\n"
    anonymous.get("/api/me", headers=token, status=200)


@pytest.mark.parametrize("who", ["nobody@shop.example", "4611686018427387904", "9" * 30, "0", "\u0661"])
def test_a_user_who_is_not_there_is_told_in_a_sentence(run, who):
    result = run(f"user disable {who}", status=1)
    assert result.stderr == f"Error: No user is {who!r}; see `customer-orders user list`.\n"


def test_an_address_of_several_users_is_not_guessed_at(run, registry):
    with registry.database.transaction() as session:
        ids = [local_user(session, f"{number}@shop.example", "viewer").id for number in range(2)]
        session.query(User).update({"email": "jane@shop.example"})
    result = run("user grant jane@shop.example admin", status=1)
    assert f"several users: {ids[0]}, {ids[1]}. Give the id." in result.stderr


def test_plugins_are_listed_with_what_they_registered(run):
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in run("plugins").stdout.splitlines()}
    assert rows["scripted"] == ["scripted 1.0", "notifier scripted, identity provider scripted"]
    assert rows["devtools"][0].startswith("customer-orders-devtools ")
    assert rows["devtools"][1] == "not enabled"


def test_settings_are_shown_with_their_origin_and_without_secrets(write_ini, monkeypatch, tmp_path):
    settings = settings_for("postgresql+psycopg://orders:p4ss@127.0.0.1/orders?sslpassword=p4ss")
    (tmp_path / "key").write_text(f"{settings['jwt.private_key'][::-1]}\n")
    monkeypatch.setenv("JWT_PRIVATE_KEY_FILE", str(tmp_path / "key"))
    monkeypatch.setenv("AUTH_ADMINS", "jane@shop.example @shop.example")
    result = CliRunner().invoke(main, ["settings", "-c", write_ini(settings)], catch_exceptions=False)
    shown = dict(line.split(" = ", 1) for line in result.stdout.splitlines())
    assert shown["jwt.private_key"] == "********\t[file named by JWT_PRIVATE_KEY_FILE]"
    assert shown["sqlalchemy.url"].endswith("\t[INI]")
    assert shown["sqlalchemy.url"].startswith("postgresql+psycopg://orders:***@127.0.0.1/orders")
    assert shown["auth.admins"] == "jane@shop.example @shop.example\t[variable AUTH_ADMINS]"
    assert shown["phone.default_region"] == "KE\t[default]"
    assert shown["plugins"] == "scripted\t[INI]"
    for secret in (settings["jwt.private_key"], settings["jwt.private_key"][::-1], "p4ss"):
        assert secret not in result.output


def test_a_bad_ini_is_told_whole_and_in_sentences(write_ini):
    ini = write_ini({"app.public_url": "x", "jwt.private_key": "short", "api.max": "1"})
    result = CliRunner().invoke(main, ["user", "list", "-c", ini])
    assert result.exit_code == 1
    assert result.stdout == ""
    first, *rest = result.stderr.splitlines()
    assert first == f"Error: {ini}: 4 settings are wrong:"
    assert {line.split()[0].rstrip(":") for line in rest} == {
        "app.public_url",
        "jwt.private_key",
        "api.max",
        "sqlalchemy.url",
    }


@pytest.mark.parametrize(
    "contents",
    [
        "",
        "no section",
        "[app:main]\nuse = egg:nothing",
        "[app:main]\nuse = egg:customer-orders\nx = %(nothing)s",
        "\xff",
    ],
)
def test_a_file_that_is_no_ini_of_ours_is_told_in_a_sentence(tmp_path, contents):
    (tmp_path / "orders.ini").write_text(contents, encoding="latin-1")
    result = CliRunner().invoke(main, ["user", "list", "-c", str(tmp_path / "orders.ini")])
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.startswith(f"Error: {tmp_path}/orders.ini: ")


@pytest.mark.parametrize(
    ("line", "where"),
    [
        ("sqlalchemy.url = postgresql://shop:Sesame%7Open77@db.example/shop", "sqlalchemy.url in [app:main]"),
        ("sqlalchemy.url = postgresql://shop:Sesame%(Open77)s@db.example/shop", "sqlalchemy.url in [app:main]"),
        ("jwt.private_key Sesame-Open77", "line 3"),
    ],
)
def test_what_is_written_in_a_file_that_cannot_be_read_is_not_told(tmp_path, line, where):
    ini = tmp_path / "orders.ini"
    ini.write_text(f"[app:main]\nuse = egg:customer-orders\n{line}\n")
    for words in ("settings", "doctor --offline --json --only ini --only settings"):
        result = CliRunner().invoke(main, [*words.split(), "-c", str(ini)])
        assert result.exit_code == 1
        assert where in result.output
        assert "Open77" not in result.output
    # before the first section
    ini.write_text(line)
    result = CliRunner().invoke(main, ["settings", "-c", str(ini)])
    assert "line 1" in result.output
    assert "Open77" not in result.output


def test_the_ini_may_be_named_by_a_variable(ini, monkeypatch):
    assert CliRunner().invoke(main, ["plugins"]).exit_code == 2
    monkeypatch.setenv("CUSTOMER_ORDERS_CONFIG", ini)
    assert CliRunner().invoke(main, ["plugins"]).exit_code == 0


def test_a_worker_wants_a_database_that_is_not_empty(write_ini, new_database, database_kind):
    ini = write_ini(settings_for(new_database(database_kind)))
    result = CliRunner().invoke(main, ["worker", "-c", ini])
    assert result.exit_code == 1
    assert result.stderr == "Error: The database is empty; run `customer-orders db upgrade` first.\n"


def test_a_worker_wants_a_database_that_has_all_it_needs(write_ini, new_database, database_kind):
    url = new_database(database_kind)
    engine = create_engine(url)
    migrations.upgrade(engine, "0007")
    engine.dispose()
    result = CliRunner().invoke(main, ["worker", "-c", write_ini(settings_for(url))])
    assert result.exit_code == 1
    said = (
        f"Error: The database is at 0007, and this version needs {migrations.head()}; run `customer-orders db upgrade`"
    )
    assert result.stderr == f"{said} first.\n"


def test_a_worker_with_nothing_to_deliver_says_so(write_ini):
    ini = write_ini(settings_for("sqlite:////nowhere/orders.sqlite", **{"notifications.sms": ""}))
    result = CliRunner().invoke(main, ["worker", "-c", ini])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: notifications.sms is blank")
    assert "delivering" not in result.stderr


@pytest.mark.processes
def test_a_worker_delivers_until_it_is_told_to_stop(app, client, ini, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", STAGE)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore:pkg_resources is deprecated")
    monkeypatch.setenv("NOTIFICATIONS_POLL_INTERVAL", "1")
    before = factories.order(client)["id"]
    worker = subprocess.Popen([str(BIN / "customer-orders"), "worker", "-c", ini], cwd=ROOT, stderr=subprocess.PIPE)
    try:

        def status(order):
            return client.get(f"/api/orders/{order}").json["notification"]["status"]

        wait_for(lambda: status(before) == "sent", "the message of before is sent")
        later = factories.order(client)["id"]
        wait_for(lambda: status(later) == "sent", "the message of later is sent")
        worker.send_signal(signal.SIGTERM)
        _, said = worker.communicate(timeout=30)
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
    assert worker.returncode == 0, said
    assert said.decode() == "The worker is delivering.\n"


# -- keys and sessions --------------------------------------------------------------------------------------------


def test_keys_new_prints_a_key_that_a_ring_takes_and_nothing_else(tmp_path):
    made = [CliRunner().invoke(main, ["keys", "new"], catch_exceptions=False) for _ in range(2)]
    assert [one.exit_code for one in made] == [0, 0]
    first, second = key_ring(" ".join(one.stdout for one in made))
    assert first.secret != second.secret
    assert made[0].stdout == f"{first.kid}:{first.secret}\n"
    # long enough for each algorithm
    assert len(first.secret) >= 64


def test_keys_list_tells_which_signs_and_no_key(write_ini):
    keys = [new_key() for _ in range(2)]
    text = " ".join(f"{key.kid}:{key.secret}" for key in keys)
    ini = write_ini(settings_for("sqlite:///unused.sqlite", **{"jwt.private_key": text}))
    result = CliRunner().invoke(main, ["keys", "list", "-c", ini], catch_exceptions=False)
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows == [[keys[0].kid, "86", "signs and verifies"], [keys[1].kid, "86", "verifies"]]


def test_api_keys_are_made_listed_and_revoked(run, anonymous):
    key = run("api-keys new --name Till --role clerk").stdout.removesuffix("\n")
    expiring = run("api-keys new --name Report --role viewer --days 1").stdout.removesuffix("\n")
    for shown in (key, expiring):
        anonymous.get("/api/me", headers={"Authorization": f"Bearer {shown}"}, status=200)
    key_id = key.split("_")[1]
    rows = [line.split("\t") for line in run("api-keys list").stdout.splitlines()]
    assert [row[1:4] for row in rows] == [["Report", "viewer", "active"], ["Till", "clerk", "active"]]
    assert all(row[4].endswith(" UTC") for row in rows)
    assert run(f"api-keys revoke {key_id}").stdout == f"API key {key_id} (Till) is revoked.\n"
    anonymous.get("/api/me", headers={"Authorization": f"Bearer {key}"}, status=401)
    assert "Till\tclerk\trevoked" in run("api-keys list").stdout
    assert "There is no API key 4611686018427387904." in run("api-keys revoke 4611686018427387904", status=1).stderr
    for odd in ("--name \t --role clerk", "--name Till --role owner", "--role clerk"):
        assert run(f"api-keys new {odd}", status=2).stdout == ""


def test_user_sign_out_ends_all_sessions(run, registry, anonymous):
    with registry.database.transaction() as session:
        user = local_user(session, "jane@shop.example", "clerk").id
        tokens = [sessions.begin(session, user, registry.sections["auth"]).token for _ in range(2)]
    told = run("user sign-out jane@shop.example").stdout
    assert told == f"2 sessions of jane@shop.example (user {user}) were ended.\n"
    for token in tokens:
        anonymous.post_json("/api/token/refresh", {"refresh": token}, status=401)
    assert run(f"user sign-out {user}").stdout.startswith("0 sessions")
