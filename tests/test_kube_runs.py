"""What the manifests of kube/ start does start, and what the proxy in front is told it does: as real processes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess

import pytest
import requests
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from kube import annotations, containers, controller, example, ini, needs_kubectl, overlay, told, workloads
from loopback import Answer, authority, provider
from pipeline import script
from proxying import HAPROXY
from serving import BIN, ROOT, Server, free_port, wait_for

# a fixture
__all__ = ["authority"]

pytestmark = needs_kubectl


def configuration(folder, pod, http, https):
    """What the ingress controller makes of our Ingress and its own settings, as far as it is ours."""
    config = controller()["config"]
    said = annotations()
    timeouts = [f"  {key.replace('-', ' ', 1)} {value}" for key, value in config.items() if key.startswith("timeout-")]
    lines = [
        "global",
        "  log stderr format raw local0",
        f"  {config['global-config-snippet'].strip()}",
        "defaults",
        "  mode http",
        "  log global",
        "  option log-health-checks",
        f"  option {config['http-connection-mode']}",
        *timeouts,
        "frontend public",
        f"  bind 127.0.0.1:{http}",
        f"  bind 127.0.0.1:{https} ssl crt {folder}/proxy.pem alpn h2,http/1.1",
        *(f"  {line}" for line in config["frontend-config-snippet"].splitlines()),
        "  default_backend server",
        "backend server",
        f"  balance {said['haproxy.org/load-balance']}",
        f"  option httpchk {said['haproxy.org/check-http']}",
        *(f"  {line}" for line in said["haproxy.org/backend-config-snippet"].splitlines()),
        f"  timeout server {said['haproxy.org/timeout-server']}",
        f"  server pod {pod} check inter {said['haproxy.org/check-interval']} "
        f"maxconn {said['haproxy.org/pod-maxconn']}",
    ]
    (folder / "haproxy.cfg").write_text(
        "\n".join([*lines, ""]).replace("wait-for-body time 10s", "wait-for-body time 1s")
    )
    return folder / "haproxy.cfg"


@pytest.fixture
def proxied(tmp_path, authority):
    """Starts the proxy in front of a pod: its addresses, by HTTP and by HTTPS."""
    if not HAPROXY and not os.environ.get("REQUIRE_PROXY"):
        pytest.skip("no haproxy on this machine (Debian: apt-get install haproxy)")
    started = []

    def start(pod):
        http, https = free_port(), free_port()
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(tmp_path / "proxy.pem")
        file = configuration(tmp_path, pod, http, https)
        with (tmp_path / "proxy.log").open("ab") as log:
            started.append(subprocess.Popen([HAPROXY, "-db", "-f", str(file)], stdout=log, stderr=log))

        def listens():
            assert started[-1].poll() is None, (tmp_path / "proxy.log").read_text()
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", https)) == 0

        wait_for(listens, "the proxy listens")
        return f"http://127.0.0.1:{http}", f"https://127.0.0.1:{https}"

    yield start
    for process in started:
        process.terminate()
        process.wait(30)


@pytest.mark.processes
def test_the_proxy_does_what_its_annotations_say(proxied, authority):
    with provider() as pod:
        pod.answer = lambda asked: Answer({"path": asked.path})
        http, https = proxied(pod.url.removeprefix("http://"))
        trusted = str(authority.file)

        def received():
            return [asked for asked in pod.asked if asked.path != "/readyz"]

        led = requests.get(f"{http}/api/", allow_redirects=False, timeout=30)
        assert (led.status_code, led.headers["Location"]) == (308, f"{http.replace('http:', 'https:')}/api/")
        forged = {"X_Forwarded_For": "198.51.100.1", "X-Forwarded-For": "198.51.100.2", "Forwarded": "for=198.51.100.3"}
        sent = requests.post(
            f"{https}/api/orders/",
            data=b"x" * 65536,
            headers={**forged, "X-Real-IP": "198.51.100.4"},
            verify=trusted,
            timeout=30,
        )
        assert sent.status_code == 200
        (asked,) = received()
        assert len(asked.body) == 65536
        assert not any("198.51.100" in value for value in asked.headers.values())
        names = {name.lower(): value for name, value in asked.headers.items()}
        assert (names["x-forwarded-for"], names["x-forwarded-proto"]) == ("127.0.0.1", "https")
        refused = requests.post(f"{https}/api/orders/", data=b"x" * 65537, verify=trusted, timeout=30)
        assert refused.status_code == 413
        # a body that does not come
        port = int(https.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
            ssl.create_default_context(cafile=trusted).wrap_socket(plain, server_hostname="127.0.0.1") as slow,
        ):
            slow.sendall(b"POST /api/orders/ HTTP/1.1\r\nHost: orders\r\nContent-Length: 100\r\n\r\nx")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        assert len(received()) == 1, "a server heard of what was refused"


def started_by(container):
    """The command line of one of our containers: its arguments, after the image's entry point."""
    return [str(BIN / "customer-orders"), *container["args"]]


class Cluster:
    """What runs our containers: their command lines and variables, their secrets in a folder."""

    def __init__(self, manifests, folder, given):
        self.manifests, self.folder = manifests, folder
        self.ini = folder / "production.ini"
        self.ini.write_text(ini(manifests))
        for name, values in given.items():
            (folder / name).mkdir()
            for key, value in values.items():
                (folder / name / key).write_text(value)

    def environ(self, workload):
        template = workloads(self.manifests)[workload]
        (volume,) = (each for each in template["spec"]["volumes"] if each["name"] == "secrets")
        mounted = self.folder / f"mounted-{workload}"
        if not mounted.exists():
            mounted.mkdir()
            for source in volume.get("projected", {}).get("sources") or [volume]:
                secret = source["secret"]
                there = self.folder / (secret.get("name") or secret["secretName"])
                keys = [each["key"] for each in secret["items"]] if "items" in secret else os.listdir(there)
                for key in keys:
                    shutil.copy(there / key, mounted / key)
        (mount,) = (each for each in containers(template)[0]["volumeMounts"] if each["name"] == "secrets")
        return {
            "CUSTOMER_ORDERS_CONFIG": str(self.ini),
            **{key: value.replace(mount["mountPath"], str(mounted)) for key, value in told(self.manifests).items()},
        }

    def run(self, workload, number):
        """Run one of a pod's containers to its end: its status, and what it printed."""
        environ = {**os.environ, **self.environ(workload), "PYTHONWARNINGS": "ignore:pkg_resources is deprecated"}
        command = started_by(containers(workloads(self.manifests)[workload])[number])
        done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=100)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def cluster(tmp_path, new_database):
    """PostgreSQL with the two roles, and the secrets as the examples name them."""
    url = make_url(new_database("postgresql"))
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    roles = ("customer_orders", "customer_orders_owner")
    with engine.connect() as connection:
        for role in roles:
            connection.execute(text(f"CREATE ROLE {role} LOGIN"))
        connection.execute(text(f'ALTER DATABASE "{url.database}" OWNER TO customer_orders_owner'))
    values = {
        "JWT_PRIVATE_KEY": secrets.token_urlsafe(64),
        "GOOGLE_CLIENT_SECRET": secrets.token_urlsafe(12),
        "AFRICASTALKING_API_KEY": secrets.token_urlsafe(12),
        "NOTIFICATIONS_REPORT_SECRETS": secrets.token_urlsafe(32),
    }
    addresses = [url.set(username=role).render_as_string(hide_password=False) for role in roles]
    given = {
        "customer-orders": {
            **dict.fromkeys(example("secrets.example.env"), ""),
            **values,
            "SQLALCHEMY_URL": addresses[0],
        },
        "customer-orders-owner": {"SQLALCHEMY_URL": addresses[1]},
    }
    manifests = [dict(found) for found in overlay("production")]
    for found in manifests:
        if found["kind"] == "ConfigMap":
            # what a deployment writes itself
            found["data"] = {
                **found["data"],
                "AUTH_ADMINS": "owner@shop.example",
                "GOOGLE_CLIENT_ID": "orders.apps.example",
                "AFRICASTALKING_USERNAME": "sandbox",
            }
    try:
        yield Cluster(manifests, tmp_path, given)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f'ALTER DATABASE "{url.database}" OWNER TO postgres'))
            for role in roles:
                connection.execute(text(f"REASSIGN OWNED BY {role} TO postgres"))
                connection.execute(text(f"DROP OWNED BY {role}"))
                connection.execute(text(f"DROP ROLE {role}"))
        engine.dispose()


@pytest.mark.processes
def test_what_the_manifests_start_starts(cluster, tmp_path, proxied, authority):
    """The ConfigMaps' INI and variables, by the containers' own command lines, in their order."""
    status, said = cluster.run("server", 0)
    assert (status, "db upgrade" in said) == (3, True), said
    for number in (0, 1):
        status, said = cluster.run("migrate", number)
        assert status == 0, said
    status, said = cluster.run("server", 0)
    assert status == 0, said

    metrics = free_port()
    # they share a machine here
    environ = {**cluster.environ("server"), "METRICS_LISTEN": f"127.0.0.1:{metrics}", "SERVER_UNREADY_SECONDS": "0"}
    server = Server(cluster.ini, environ, tmp_path / "server.log", production=True)
    assert containers(workloads(cluster.manifests)["server"])[1]["args"] == ["serve"]
    server.start(60)
    try:
        ready = requests.get(f"{server.url}/readyz", timeout=30)
        assert ready.status_code == 200, ready.text
        # as deploy.py looks from outside, by the proxy, and as the proxy does
        _, https = proxied(server.url.removeprefix("http://"))
        assert requests.get(f"{https}/readyz", verify=str(authority.file), timeout=30).ok
        log = tmp_path / "proxy.log"
        wait_for(lambda: "Health check for server server/pod" in log.read_text(), "the proxy asks whether it is ready")
        assert re.search(r"server/pod succeeded, reason: Layer7 check passed, code: 200", log.read_text())
        version = re.search(r"(?m)^version = (.+)$", (ROOT / "setup.cfg").read_text())[1]
        deploy = script("deploy")
        deploy.ANSWERING = 20.0
        deploy.smoke(server.url, version)
        assert requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=30).ok
    finally:
        assert server.end() == 0

    environ = {**os.environ, **cluster.environ("worker"), "METRICS_LISTEN": f"127.0.0.1:{metrics}"}
    environ["PYTHONWARNINGS"] = "ignore:pkg_resources is deprecated"
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            started_by(containers(workloads(cluster.manifests)["worker"])[1]), env=environ, stdout=out, stderr=out
        )

    def answers():
        assert worker.poll() is None, log.read_text()
        try:
            return requests.get(f"http://127.0.0.1:{metrics}/metrics", timeout=30).ok
        except requests.ConnectionError:
            return False

    try:
        wait_for(answers, "the worker's probe gets an answer", 60)
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, log.read_text()
    status, said = cluster.run("prune", 0)
    assert status == 0, said
