"""What terraform/ promises, read off its files; what it plans is tested by terraform itself (terraform/tests)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

import hcl2
import pytest
from hcl2 import SerializationOptions

from serving import ROOT

FOLDER = ROOT / "terraform"
PLAIN = SerializationOptions(strip_string_quotes=True, with_comments=False, explicit_blocks=False)
# Names of what nobody else may know
CREDENTIAL = re.compile(r"token|password|secret|kubeconfig|private|api_key|access_key|credential|conninfo")
# What the provider marks as sensitive in 3.13.0, of the resources that are used here
SENSITIVE_ATTRIBUTES = {"kubeconfig", "root_password", "root_username", "ca_cert"}


def parsed(name: str) -> dict[str, Any]:
    return hcl2.loads((FOLDER / name).read_text(), serialization_options=PLAIN)


SOURCES = {path.name: parsed(path.name) for path in sorted(FOLDER.glob("*.tf"))}


def blocks(kind: str, *labels: str) -> dict[str, Any]:
    """Every block of a kind by its (last) label: ``blocks("resource", "linode_firewall")``."""
    found: dict[str, Any] = {}
    for source in SOURCES.values():
        for block in source.get(kind, []):
            for label in labels:
                block = block.get(label, {})
            found |= block
    return found


def strings(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)
    elif isinstance(value, str):
        yield value


VARIABLES, OUTPUTS = blocks("variable"), blocks("output")


def test_the_files_are_the_ones_that_one_looks_for():
    expected = ["cluster", "database", "dns", "main", "network", "outputs", "variables", "versions"]
    assert sorted(SOURCES) == [f"{name}.tf" for name in expected]
    assert {"linode_lke_cluster", "linode_database_postgresql_v2", "linode_firewall", "linode_domain_record"} <= set(
        blocks("resource")
    )


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_every_variable_has_a_type_and_a_description(name):
    assert VARIABLES[name].get("type")
    assert len(VARIABLES[name].get("description", "")) > 15
    # a boolean can be nothing else than it is, and a type of machine is Linode's to know
    if VARIABLES[name]["type"] != "bool" and name != "database_type":
        assert VARIABLES[name].get("validation"), f"{name} takes anything"


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_a_variable_with_a_secret_has_no_default_and_is_sensitive(name):
    if CREDENTIAL.search(name):
        assert "default" not in VARIABLES[name]
        assert VARIABLES[name].get("sensitive") is True


def test_the_token_is_in_the_environment_alone():
    assert blocks("provider") == {"linode": {}}
    backend = SOURCES["versions.tf"]["terraform"][0]["backend"][0]["s3"]
    example = parsed("production.s3.tfbackend.example")
    for settings in (backend, example, parsed("production.tfvars.example")):
        assert [key for key in settings if CREDENTIAL.search(key) and not key.startswith("skip_")] == []


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_an_output_with_a_credential_is_sensitive(name):
    assert len(OUTPUTS[name].get("description", "")) > 15
    carried = {word for text in strings(OUTPUTS[name]["value"]) for word in re.findall(r"\w+", text)}
    if carried & SENSITIVE_ATTRIBUTES or CREDENTIAL.search(name):
        assert OUTPUTS[name].get("sensitive") is True


def test_credentials_are_among_the_outputs():
    assert {name for name, output in OUTPUTS.items() if output.get("sensitive")} == {
        "kubeconfig",
        "database_admin_conninfo",
        "database_ca",
    }


def test_providers_are_pinned_and_every_module_is():
    (terraform,) = SOURCES["versions.tf"]["terraform"]
    assert re.fullmatch(r">= 1\.\d+, < 2\.0", terraform["required_version"])
    (providers,) = terraform["required_providers"]
    assert {name: provider["source"] for name, provider in providers.items()} == {"linode": "linode/linode"}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", provider["version"]) for provider in providers.values())
    for name, module in blocks("module").items():
        assert "version" in module or "?ref=" in module["source"], name


def test_the_state_is_locked():
    assert SOURCES["versions.tf"]["terraform"][0]["backend"][0]["s3"]["use_lockfile"] is True


def test_firewalls_drop_what_no_rule_names():
    firewalls = blocks("resource", "linode_firewall")
    assert set(firewalls) == {"nodes", "load_balancer"}
    assert {firewall["inbound_policy"] for firewall in firewalls.values()} == {"DROP"}
    assert not any(firewall.get("disabled") for firewall in firewalls.values())


def test_the_world_is_named_for_80_and_443_alone():
    """In one rule of one firewall, and nowhere else."""
    (rule,) = blocks("resource", "linode_firewall", "load_balancer")["inbound"]
    assert (rule["protocol"], rule["ports"]) == ("TCP", "80,443")
    assert {*rule["ipv4"], *rule["ipv6"]} == {"0.0.0.0/0", "::/0"}
    assert [text for text in strings(SOURCES) if re.search(r"0\.0\.0\.0/|::/0", text)] == ["0.0.0.0/0", "::/0"]


def test_rules_of_nodes_come_from_private_networks():
    shared = {name: value for found in SOURCES["network.tf"]["locals"] for name, value in found.items()}
    assert len(shared["node_rules"]) >= 8
    for rule in shared["node_rules"].values():
        network = ipaddress.ip_network(shared[rule["from"].removeprefix("${local.").removesuffix("}")])
        assert network.is_private
        assert network.prefixlen >= 16


def test_the_database_cannot_be_lost_nor_opened_by_a_slip():
    (database,) = blocks("resource", "linode_database_postgresql_v2").values()
    assert database["allow_list"] == "${local.database_allow_list}"
    assert "private_network" not in database
    (lifecycle,) = database["lifecycle"]
    assert lifecycle["prevent_destroy"] is True
    assert '!endswith(cidr, "/0")' in lifecycle["precondition"][0]["condition"]


def test_the_control_plane_answers_only_those_whom_its_acl_names():
    (cluster,) = blocks("resource", "linode_lke_cluster").values()
    (acl,) = cluster["control_plane"][0]["acl"]
    assert acl["enabled"] is True
    assert "default" not in VARIABLES["control_plane_allowed_ipv4"]


def test_the_example_gives_what_has_no_default_and_nothing_unknown():
    given = set(parsed("production.tfvars.example"))
    required = {name for name, variable in VARIABLES.items() if "default" not in variable}
    assert required == {"environment", "region", "kubernetes_version", "control_plane_allowed_ipv4", "domain"}
    assert given >= required
    assert given - set(VARIABLES) == set()


def test_the_readme_names_every_variable_and_every_output():
    text = (FOLDER / "README.md").read_text()
    assert [name for name in [*VARIABLES, *OUTPUTS] if f"`{name}`" not in text] == []


def test_a_database_that_is_restored_is_made_fit_before_anything_runs():
    steps = (FOLDER / "README.md").read_text().partition("### Restore\n")[2].partition("\n## ")[0]
    assert -1 < steps.find("replicas=0") < steps.find("customer-orders db restored") < steps.find("Scale up again")


def test_state_and_variables_stay_out_of_the_repository():
    ignored = (FOLDER / ".gitignore").read_text().split()
    assert {".terraform/", "*.tfstate*", "*.tfvars", "*.tfbackend", "kubeconfig*"} <= set(ignored)
