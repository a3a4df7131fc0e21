"""What kube/ promises of what runs: read off the manifests as kustomize builds them."""

from __future__ import annotations

import re

import colander
import pytest

from kube import (
    KUBE,
    OURS,
    OVERLAYS,
    built,
    containers,
    example,
    ini,
    needs_kubectl,
    of_kind,
    overlay,
    setting,
    settings,
    told,
    workloads,
)
from pipeline import script
from serving import ROOT

IMAGE = "registry.example/acme/customer-orders@sha256:" + "ab" * 32

pytestmark = needs_kubectl


def test_the_overlays_are_the_ones_that_the_guide_names():
    assert OVERLAYS == ["cloudnativepg", "dev", "production"]
    page = (ROOT / "docs" / "deployment.md").read_text()
    assert [name for name in OVERLAYS if f"kube/overlays/{name}" not in page] == []


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_runs(name):
    assert set(OURS) <= set(workloads(overlay(name))) <= {*OURS, "postgresql"}
    assert {each["metadata"]["namespace"] for each in overlay(name)} == {"customer-orders"}
    labels = of_kind(built("cluster"), "Namespace")["customer-orders"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_deployment_has_pods_of_its_own(name):
    """Two whose selectors both find a pod would fight about it."""
    labels = {each: template["metadata"]["labels"] for each, template in workloads(overlay(name)).items()}
    for kind, path in (("Deployment", ("matchLabels",)), ("Service", ())):
        for each, manifest in of_kind(overlay(name), kind).items():
            selector = manifest["spec"]["selector"]
            for key in path:
                selector = selector[key]
            wanted = "postgresql" if each == "database" else each
            assert [pod for pod, of in labels.items() if selector.items() <= of.items()] == [wanted]


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_pod_has_nothing_that_it_does_not_need(name):
    for workload, template in workloads(overlay(name)).items():
        spec = template["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        context = spec["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] != 0
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        for volume in spec["volumes"]:
            (kind,) = set(volume) - {"name"}
            assert kind in {"emptyDir", "secret", "projected", "configMap"}
            if kind == "emptyDir":
                assert volume["emptyDir"]["sizeLimit"]
            if kind in {"secret", "projected"} and volume["name"] != "database-ca":
                assert volume[kind]["defaultMode"] == 0o400
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert container["resources"]["limits"]["memory"]
            writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
            if workload in OURS:
                assert context["runAsUser"] == 10001
                assert spec["serviceAccountName"] == "customer-orders"
                assert writable == {"/tmp"}
                assert "command" not in container


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_ini_is_the_one_that_is_shipped_and_every_container_has_it(name):
    manifests = overlay(name)
    assert ini(manifests) == (ROOT / "production.ini").read_text(), "cp production.ini kube/base/"
    for workload in OURS:
        template = workloads(manifests)[workload]
        (volume,) = (each for each in template["spec"]["volumes"] if each["name"] == "ini")
        assert volume["configMap"]["name"] in of_kind(manifests, "ConfigMap")
        for container in containers(template):
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == "ini")
            # where the image looks
            assert mount["mountPath"] == "/etc/customer-orders"
            assert f"{mount['mountPath']}/production.ini" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_told_to_stop_has_the_time_to(name):
    manifests = overlay(name)
    unready, drain = (int(setting(manifests, f"server.{key}_seconds")) for key in ("unready", "drain"))
    server, worker = (workloads(manifests)[each]["spec"] for each in ("server", "worker"))
    # a command before it would take its time of the same
    assert not any("lifecycle" in container for container in (*server["containers"], *worker["containers"]))
    assert server["terminationGracePeriodSeconds"] >= unready + drain + 10
    assert worker["terminationGracePeriodSeconds"] > 20 + 10


@pytest.mark.parametrize("name", OVERLAYS)
def test_probes_ask_what_there_is(name):
    manifests = overlay(name)
    ports = {"http": setting(manifests, "server.listen"), "metrics": setting(manifests, "metrics.listen")}
    asked = {}
    for workload in ("server", "worker"):
        (container,) = workloads(manifests)[workload]["spec"]["containers"]
        for port in container["ports"]:
            assert ports[port["name"]] == f"0.0.0.0:{port['containerPort']}"
        for kind in ("startup", "liveness", "readiness"):
            probe = container[f"{kind}Probe"]["httpGet"]
            assert probe["port"] in {port["name"] for port in container["ports"]}
            asked[workload, kind] = (probe["port"], probe["path"])
        assert container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"] >= 60
        # slower than what /readyz, and a scrape, take at the most while the database is away
        assert container["readinessProbe"]["timeoutSeconds"] >= 3
    assert asked == {
        ("server", "startup"): ("http", "/livez"),
        ("server", "liveness"): ("http", "/livez"),
        ("server", "readiness"): ("http", "/readyz"),
        **{("worker", kind): ("metrics", "/metrics") for kind in ("startup", "liveness", "readiness")},
    }


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_database_is_migrated_before_anything_serves(name):
    manifests = overlay(name)
    for workload in ("server", "worker"):
        assert [each["args"] for each in workloads(manifests)[workload]["spec"]["initContainers"]] == [["db", "check"]]
    assert [each["args"][:2] for each in containers(workloads(manifests)["migrate"])] == [
        ["db", "upgrade"],
        ["db", "grants"],
    ]
    # at once with the rest, by hand, it gets its pods' time
    assert of_kind(manifests, "Job")["migrate"]["spec"]["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_setting_that_has_to_be_said_is(name):
    known = settings()
    data = told(overlay(name))
    said = {key.removesuffix("_FILE") if key not in known else key for key in data}
    assert said <= set(known), "no setting has this variable"
    required = {key for key, node in known.items() if node.missing is colander.required}
    assert required - said == set()
    # what a deployment has to write behind them, and what is said for it; the rest is in files
    blank = {key for key, value in data.items() if not value}
    assert blank <= {"AUTH_ADMINS", "GOOGLE_CLIENT_ID", "AFRICASTALKING_USERNAME"}


@pytest.mark.parametrize("name", OVERLAYS)
def test_secrets_are_files_that_are_mounted_and_nothing_else(name):
    manifests = overlay(name)
    assert of_kind(manifests, "Secret") == {}
    secret = {key for key, node in settings().items() if getattr(node, "secret", False) or hasattr(node, "mask")}
    assert {"JWT_PRIVATE_KEY", "SQLALCHEMY_URL", "GOOGLE_CLIENT_SECRET", "AFRICASTALKING_API_KEY"} <= secret
    assert secret & set(told(manifests)) == set()
    files = {key.removesuffix("_FILE"): value for key, value in told(manifests).items() if key.endswith("_FILE")}
    assert set(files) == set(example("secrets.example.env"))
    assert set(example("secrets-owner.example.env")) == {"SQLALCHEMY_URL"}
    for value in (*example("secrets.example.env").values(), *example("secrets-owner.example.env").values()):
        assert value == ""
    for workload in OURS:
        template = workloads(manifests)[workload]
        (volume,) = (each for each in template["spec"]["volumes"] if each["name"] == "secrets")
        for container in containers(template):
            assert container["envFrom"] == [{"configMapRef": {"name": container["envFrom"][0]["configMapRef"]["name"]}}]
            assert "env" not in container
            (mount,) = (each for each in container["volumeMounts"] if each["name"] == "secrets")
            assert all(path == f"{mount['mountPath']}/{key}" for key, path in files.items())
        if workload == "migrate":
            sources = {each["secret"]["name"]: each["secret"]["items"] for each in volume["projected"]["sources"]}
            keys = {of: {item["key"] for item in items} for of, items in sources.items()}
            assert keys == {
                "customer-orders": set(files) - {"SQLALCHEMY_URL"},
                "customer-orders-owner": {"SQLALCHEMY_URL"},
            }
            assert all(item["key"] == item["path"] for items in sources.values() for item in items)
        else:
            assert volume["secret"]["secretName"] == "customer-orders"
    assert {"*.env", "!*.example.env", "!settings.env"} <= set((KUBE / ".gitignore").read_text().split())


@pytest.mark.parametrize("name", OVERLAYS)
def test_every_image_says_which_it_is(name):
    version = re.search(r"(?m)^version = (.+)$", (ROOT / "setup.cfg").read_text())[1]
    for workload, template in workloads(overlay(name)).items():
        for container in containers(template):
            if workload in OURS:
                assert container["image"] == f"customer-orders:{version}"
            else:
                assert re.fullmatch(r"[a-z]+:\d+\.\d+", container["image"])
    for cluster in of_kind(overlay(name), "Cluster").values():
        assert re.fullmatch(r"ghcr\.io/cloudnative-pg/postgresql:\d+\.\d+-minimal-\w+", cluster["spec"]["imageName"])


@pytest.mark.parametrize("name", OVERLAYS)
def test_a_deployment_finds_what_it_looks_for_and_puts_the_digest_in(name):
    deploy = script("deploy")
    manifests = deploy.rendered(KUBE / "overlays" / name, IMAGE)
    assert deploy.JOB in of_kind(manifests, "Job")
    assert set(deploy.DEPLOYMENTS) <= set(of_kind(manifests, "Deployment"))
    assert {found["metadata"]["namespace"] for found in manifests} == {deploy.NAMESPACE}
    for workload in OURS:
        assert {container["image"] for container in containers(workloads(manifests)[workload])} == {IMAGE}


@pytest.mark.parametrize("name", OVERLAYS)
def test_changed_settings_make_new_pods_and_the_old_ones_are_kept(name):
    """The ConfigMap's name changes with what is in it."""
    used = {
        container["envFrom"][0]["configMapRef"]["name"]
        for workload in OURS
        for container in containers(workloads(overlay(name))[workload])
    }
    assert len(used) == 1
    assert used <= set(of_kind(overlay(name), "ConfigMap"))
    others = {
        each
        for other in OVERLAYS
        for each in of_kind(overlay(other), "ConfigMap")
        if told(overlay(other)) != told(overlay(name))
    }
    assert others & used == set()


def test_who_deploys_may_write_what_there_is_and_no_secret():
    (role,) = of_kind(built("cluster"), "Role").values()
    may = {
        (group, plural): set(rule["verbs"])
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for plural in rule["resources"]
    }
    assert ("", "secrets") not in may
    assert not {resource for resource in may if "*" in resource}
    for name in ("production", "cloudnativepg"):
        for found in overlay(name):
            group, _, _ = found["apiVersion"].rpartition("/")
            kind = found["kind"].lower()
            plural = f"{kind[:-1]}ies" if kind.endswith("cy") else f"{kind}es" if kind.endswith("ss") else f"{kind}s"
            assert {"get", "create", "patch"} <= may[group, plural], f"{group}/{plural}"
    # deploy.py runs it anew
    assert "delete" in may["batch", "jobs"]


def test_processes_leave_each_other_connections():
    manifests = overlay("production")
    autoscaler = of_kind(manifests, "HorizontalPodAutoscaler")["server"]["spec"]
    assert "replicas" not in of_kind(manifests, "Deployment")["server"]["spec"], "each deployment would set it back"
    each = int(setting(manifests, "sqlalchemy.pool_size")) + int(setting(manifests, "sqlalchemy.max_overflow"))
    assert each >= int(setting(manifests, "server.threads"))
    servers = (autoscaler["maxReplicas"] + 1) * int(setting(manifests, "server.workers"))
    workers = of_kind(manifests, "Deployment")["worker"]["spec"]["replicas"] + 1
    # three at once are asked for by nobody but those who look, and those who migrate
    assert autoscaler["minReplicas"] >= 2
    assert servers * each <= 100 - 3
    assert (servers - int(setting(manifests, "server.workers"))) * each + (workers - 1) * each <= 100 - 3


def test_a_node_can_go_while_it_serves():
    manifests = overlay("production")
    for name in ("server", "worker"):
        budget = of_kind(manifests, "PodDisruptionBudget")[name]["spec"]
        labels = workloads(manifests)[name]["metadata"]["labels"]
        assert budget["maxUnavailable"] == 1
        assert budget["selector"]["matchLabels"].items() <= labels.items()
        (spread,) = workloads(manifests)[name]["spec"]["topologySpreadConstraints"]
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        assert spread["labelSelector"]["matchLabels"].items() <= labels.items()
        assert of_kind(manifests, "Deployment")[name]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
