"""Who reaches whom in the cluster, computed from the NetworkPolicies, and how the world gets in."""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

import pytest
import yaml

from kube import (
    KUBE,
    OURS,
    OVERLAYS,
    annotations,
    built,
    controller,
    needs_kubectl,
    of_kind,
    overlay,
    setting,
    told,
    workloads,
)
from serving import ROOT

pytestmark = needs_kubectl


class Endpoint:
    """Somebody who may be reached: a pod of a namespace, or an address outside the cluster."""

    def __init__(self, name, address, namespace=None, labels=()):
        self.name, self.namespace, self.labels = name, namespace, dict(labels)
        self.address = ipaddress.ip_address(address)


# not ours, and how the world knows them
CONTROLLER = {"app.kubernetes.io/name": "kubernetes-ingress", "app.kubernetes.io/instance": "haproxy"}
OTHERS = [
    Endpoint("ingress", "10.2.9.1", "haproxy-controller", CONTROLLER),
    Endpoint("beside the ingress", "10.2.9.2", "haproxy-controller", {"app.kubernetes.io/name": "other"}),
    Endpoint("a foreign ingress", "10.2.9.3", "elsewhere", CONTROLLER),
    Endpoint("monitoring", "10.2.9.4", "monitoring", {"app.kubernetes.io/name": "prometheus"}),
    Endpoint("names", "10.2.9.5", "kube-system", {"k8s-app": "kube-dns"}),
    Endpoint("beside names", "10.2.9.6", "kube-system", {"k8s-app": "metrics-server"}),
    Endpoint("a foreign pod", "10.2.9.7", "elsewhere", {"app.kubernetes.io/component": "server"}),
    Endpoint("operator", "10.2.9.8", "cnpg-system"),
    Endpoint("node", "192.168.130.1"),
    Endpoint("metadata", "169.254.169.254"),
    Endpoint("internet", "203.0.113.7"),
]
PORTS = {22, 53, 80, 443, 4318, 5432, 6443, 6543, 8000, 8089, 8443, 9464}


def selects(selector, labels):
    if not all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for found in selector.get("matchExpressions", []):
        assert found["operator"] == "In"
        if labels.get(found["key"]) not in found["values"]:
            return False
    return True


def is_peer(peer, other):
    if "ipBlock" in peer:
        block = peer["ipBlock"]
        inside = [ipaddress.ip_network(each) for each in (block["cidr"], *block.get("except", []))]
        return other.address in inside[0] and not any(other.address in each for each in inside[1:])
    if other.namespace is None:
        return False
    if "namespaceSelector" in peer:
        there = selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        there = other.namespace == "customer-orders"
    return there and selects(peer.get("podSelector", {}), other.labels)


def lets(policies, direction, pod, other, port):
    """Whether a pod of ours may be reached by (ingress), or reach (egress), somebody at a port."""
    if pod.namespace != "customer-orders":
        return True
    concerned = [
        each["spec"]
        for each in policies
        if direction.title() in each["spec"]["policyTypes"] and selects(each["spec"]["podSelector"], pod.labels)
    ]
    assert concerned, f"{pod.name} is open"
    return any(
        any(is_peer(peer, other) for peer in rule["from" if direction == "ingress" else "to"])
        and port in {each["port"] for each in rule["ports"]}
        for spec in concerned
        for rule in spec.get(direction, [])
    )


def flows(manifests):
    """Every (from, to, port) that the policies let through, of all that may be tried."""
    policies = list(of_kind(manifests, "NetworkPolicy").values())
    pods = [
        Endpoint(name, f"10.2.1.{number}", "customer-orders", template["metadata"]["labels"])
        for number, (name, template) in enumerate(workloads(manifests).items(), 1)
    ]
    pods.append(
        Endpoint("certificates", "10.2.1.100", "customer-orders", {"acme.cert-manager.io/http01-solver": "true"})
    )
    pods.append(Endpoint("anything else", "10.2.1.101", "customer-orders"))
    if of_kind(manifests, "Cluster"):
        pods += [
            Endpoint("postgresql", f"10.2.1.{number}", "customer-orders", {"cnpg.io/cluster": "database"})
            for number in (110, 111)
        ]
    everybody = [*pods, *OTHERS]
    return {
        (one.name, other.name, port)
        for one in everybody
        for other in everybody
        if one is not other and "customer-orders" in (one.namespace, other.namespace)
        for port in PORTS
        if lets(policies, "egress", one, other, port) and lets(policies, "ingress", other, one, port)
    }


# The product's flows. Whoever needs another writes it here and into a NetworkPolicy.
FLOWS = {
    # requests by the proxy, and nobody else
    ("ingress", "server", 6543),
    # Prometheus, and nobody else
    ("monitoring", "server", 9464),
    ("monitoring", "worker", 9464),
    # sign-ins at Google (443), SMS at Africa's Talking, the doctor at both and at our own address
    ("server", "internet", 443),
    ("worker", "internet", 443),
    ("doctor", "internet", 443),
    ("doctor", "ingress", 8443),
    *((name, "names", 53) for name in (*OURS, "certificates", "anything else")),
}
CERTIFICATES = {("ingress", "certificates", 8089)}
EXPECTED = {
    "production": FLOWS | CERTIFICATES | {(name, "internet", 5432) for name in OURS},
    "dev": FLOWS | {(name, "postgresql", 5432) for name in OURS} | {("postgresql", "names", 53)},
    "cloudnativepg": FLOWS
    | CERTIFICATES
    | {(name, "postgresql", 5432) for name in OURS}
    | {(name, "postgresql", port) for name in ("postgresql", "operator") for port in (5432, 8000)}
    | {("postgresql", "names", 53)}
    # object storage, and Kubernetes itself, wherever it is: so also what listens at these ports and takes them in
    | {("postgresql", other.name, port) for other in OTHERS for port in (443, 6443) if other.name != "metadata"},
}


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_network_lets_through_what_the_product_needs_and_no_more(name):
    assert flows(overlay(name)) == EXPECTED[name]


def test_who_wants_traces_opens_the_way_to_their_collector_alone(tmp_path):
    (tmp_path / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "resources": [os.path.relpath(KUBE / "overlays" / "production", tmp_path.resolve())],
                "components": [
                    os.path.relpath(KUBE / "components" / each.name, tmp_path.resolve())
                    for each in sorted((KUBE / "components").iterdir())
                ],
                "namespace": "customer-orders",
            }
        )
    )
    manifests = built(str(tmp_path))
    assert flows(manifests) - EXPECTED["production"] == {(name, "monitoring", 4318) for name in ("server", "worker")}
    monitor = of_kind(manifests, "PodMonitor")["customer-orders"]["spec"]
    seen = {
        name
        for name, template in workloads(manifests).items()
        if selects(monitor["selector"], template["metadata"]["labels"])
    }
    assert seen == {"server", "worker"}


def test_the_way_in_is_the_address_that_the_service_tells():
    manifests = overlay("production")
    host = urlsplit(told(manifests)["APP_PUBLIC_URL"]).hostname
    spec = of_kind(manifests, "Ingress")["server"]["spec"]
    assert [rule["host"] for rule in spec["rules"]] == spec["tls"][0]["hosts"] == [host]
    assert spec["ingressClassName"] == "haproxy"
    # of the ingress controller's pods, and of no node's or caller's
    trusted = ipaddress.ip_network(told(manifests)["APP_TRUSTED_PROXIES"])
    assert all((other.address in trusted) == (other.namespace is not None) for other in OTHERS)
    assert controller()["service"]["type"] == "LoadBalancer"
    # what comes from the NodeBalancer can be told by its address, and both speak the protocol
    assert controller()["service"]["externalTrafficPolicy"] == "Local"
    assert controller()["kind"] == "DaemonSet"
    annotations = controller()["service"]["annotations"]
    assert annotations["service.beta.kubernetes.io/linode-loadbalancer-default-proxy-protocol"] == "v2"
    balancers = re.search(r'nodebalancers += "(.+)"', (ROOT / "terraform" / "network.tf").read_text())[1]
    assert controller()["config"]["proxy-protocol"] == balancers


def test_the_proxy_takes_in_whole_what_a_server_takes():
    largest = int(re.search(r"req\.body_size gt (\d+)", annotations()["haproxy.org/backend-config-snippet"])[1])
    assert largest == int(setting(overlay("production"), "api.max_body"))
    bufsize = int(re.search(r"tune\.bufsize (\d+)", controller()["config"]["global-config-snippet"])[1])
    assert bufsize > largest + int(setting(overlay("production"), "server.header_bytes")) + 1024


def test_the_proxy_hears_that_a_server_is_about_to_stop():
    seconds = int(annotations()["haproxy.org/check-interval"].removesuffix("s"))
    # three in a row, and what the last of them may take
    assert int(setting(overlay("production"), "server.unready_seconds")) > 3 * seconds + seconds
