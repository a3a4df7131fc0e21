"""The dashboard, the alerts and the page of metrics speak of what is measured, by names that there are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from decimal import Decimal

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

import factories
from customer_orders.events import ChannelPaused, announce
from customer_orders.interfaces import Cost, Receipt, Rejected
from customer_orders.metrics.exposing import Scrape
from customer_orders.metrics.measures import REASONS
from customer_orders.notifications.models import Status
from scraping import Scraped
from serving import ROOT
from test_docs import slug

MONITORING = ROOT / "deploy" / "monitoring"
RULES = [rule for group in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in RULES if "alert" in rule]
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
# Labels that Prometheus itself gives, and its own metrics.
OF_PROMETHEUS = {"job", "instance"}
PROMETHEUS = {"up"}

PROMTOOL = shutil.which("promtool")


def expressions():
    """Every expression, with where it is."""
    for rule in RULES:
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in PANELS:
        for target in panel["targets"]:
            yield panel["title"], target["expr"].replace("$__rate_interval", "1m")


def named(expression):
    """The metrics that an expression reads, each with the labels that it is chosen by; and the labels it sums by."""
    metrics, grouped = [], set()

    def note(node):
        if isinstance(node, promql_parser.VectorSelector):
            metrics.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            grouped.update(node.modifier.labels)

    promql_parser.walk(promql_parser.parse(expression), note)
    return metrics, grouped


@pytest.fixture(scope="module")
def told(make_app, client_of):
    """A scrape of an application in which everything happened once."""
    app = make_app("sqlite")
    client, registry = client_of(app), app.registry
    script = registry.plugins.notifiers["scripted"].script
    script.extend([Receipt("1", Cost(Decimal("0.8"), "KES")), Rejected("no such number")])
    for _ in range(2):
        factories.order(client)
    for due in registry.outbox.due(10):
        registry.outbox.deliver(due)
    (secret,) = registry.sections["notifications"].report_secrets
    told = [{"reference": "1", "status": "delivered"}]
    client.post_json(f"/api/notifications/reports/scripted/{secret}", told, status=200)
    with registry.database.transaction() as session:
        announce(session, ChannelPaused("scripted"))
    return scraped(registry)


def scraped(registry):
    everything = CollectorRegistry()
    everything.register(Scrape(registry))
    return Scraped(generate_latest(everything).decode())


@pytest.mark.parametrize(("place", "expression"), [pytest.param(*one, id=one[0]) for one in expressions()])
def test_every_expression_names_metrics_and_labels_that_there_are(told, place, expression):
    recorded = {rule["record"] for rule in RULES if "record" in rule}
    metrics, grouped = named(expression)
    assert metrics
    known = set(OF_PROMETHEUS)
    for name, labels in metrics:
        if name in PROMETHEUS | recorded:
            assert labels <= OF_PROMETHEUS
            continue
        assert any(found == name for found, _ in told.samples), f"there is no {name}"
        assert labels <= told.labels(name) | OF_PROMETHEUS
        known |= told.labels(name)
    assert grouped <= known


def test_every_word_that_an_expression_chooses_by_is_one_that_is_told():
    words = {"status": {str(status) for status in Status}, "reason": REASONS}
    for _, expression in expressions():
        for metric, label, value in re.findall(r'(\w+)\{[^}]*?\b(status|reason)!?=~?"([^"]+)"', expression):
            if metric.startswith("notifications"):
                assert set(value.split("|")) <= words[label], expression


def test_the_objective_is_the_bound_of_a_bucket(told):
    bounds = {dict(labels)["le"] for name, labels in told.samples if name == "notification_handover_seconds_bucket"}
    used = {bound for _, expression in expressions() for bound in re.findall(r'le="([^"]+)"', expression)}
    assert used == {"60.0"}
    assert used <= bounds


@pytest.mark.parametrize("alert", ALERTS, ids=[alert["alert"] for alert in ALERTS])
def test_every_alert_says_how_bad_it_is_what_it_means_and_what_to_do(alert):
    assert alert["labels"]["severity"] in ("page", "ticket")
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    page, _, anchor = notes["runbook_url"].partition("#")
    book = (ROOT / page).read_text()
    assert anchor == slug(alert["alert"])
    section = re.search(rf"(?ms)^## {alert['alert']}$(.+?)(?=^## |\Z)", book)
    assert section, f"{page} has nothing on {alert['alert']}"
    for part in ("**Means**", "**Look at**", "**Do**"):
        assert part in section[1]


def test_the_runbooks_tell_of_no_alert_that_there_is_not():
    headings = re.findall(r"(?m)^## (.+)$", (ROOT / "docs" / "runbooks.md").read_text())
    assert headings == [alert["alert"] for alert in ALERTS]


def test_the_page_of_metrics_lists_what_is_told_and_nothing_else(told):
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    listed = {name.strip("`"): (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _, _ in rows}
    assert all(meaning for _, _, _, meaning, _ in rows)
    assert len(listed) == len(rows) >= 20
    kinds = {"info": "gauge"}
    found = {}
    for family in told.families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if name.endswith("_created"):
            continue
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = (kinds.get(family.type, family.type), labels)
    assert found == listed


def test_the_page_of_metrics_lists_every_reason():
    page = (ROOT / "docs" / "metrics.md").read_text()
    listed = re.search(r"(?m)^Reasons: (.+?)\.$", page, re.DOTALL)
    assert listed
    assert set(re.findall(r"`(\w+)`", listed[1])) == REASONS | {"none", "other"}


def test_the_dashboard_shows_each_metric_that_an_alert_reads():
    shown = {
        name
        for panel in PANELS
        for target in panel["targets"]
        for name, _ in named(target["expr"].replace("$__rate_interval", "1m"))[0]
    }
    read = {name for alert in ALERTS for name, _ in named(alert["expr"])[0]}
    assert read - shown - PROMETHEUS <= {
        "customer_orders:handover_late:ratio_rate30m",
        "notification_handover_seconds_count",
    }


def test_the_panels_of_the_dashboard_do_not_lie_on_each_other():
    taken = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


needs_promtool = pytest.mark.skipif(
    PROMTOOL is None and not os.environ.get("REQUIRE_PROMTOOL"),
    reason="promtool is not installed: on Debian, apt-get install prometheus",
)


@needs_promtool
def test_prometheus_takes_the_rules():
    done = subprocess.run(
        ["promtool", "check", "rules", str(MONITORING / "alerts.yml")], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("file", sorted(MONITORING.glob("*.test.yml")), ids=lambda file: file.name)
def test_each_alert_fires_when_it_should_and_not_before(file):
    done = subprocess.run(
        ["promtool", "test", "rules", file.name], cwd=MONITORING, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_has_a_test_of_its_own():
    tested = "".join(file.read_text() for file in MONITORING.glob("*.test.yml"))
    assert {alert["alert"] for alert in ALERTS} <= set(re.findall(r'alertname="(\w+)"', tested))
