"""``customer-orders doctor``: is this deployment well, and if not, what to do about it."""

from __future__ import annotations

import json
import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import click

from customer_orders import doctor
from customer_orders.checks import Checking, Finding, Outcome
from customer_orders.cli.base import config_option
from customer_orders.doctor.deployment import Deployment

COLOURS = {Outcome.OK: "green", Outcome.WARNING: "yellow", Outcome.FAILED: "red", Outcome.SKIPPED: "bright_black"}
# Columns of an outcome, and of a name.
OUTCOME, NAME = 9, 24


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, as docs/doctor.md describes it.")
@click.option("--only", multiple=True, metavar="NAME", help="Run this check, or those of this plugin; may be repeated.")
@click.option("--offline", is_flag=True, help="Ask nobody outside the deployment: no provider, not the public address.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option(
    "--timeout", type=click.FloatRange(0.1, 600), default=30, show_default=True, help="Seconds for each check."
)
def examine(config: str, as_json: bool, only: Sequence[str], offline: bool, strict: bool, timeout: float) -> None:
    """Check a deployment: its settings, secrets, database, public address, and providers.

    It works on one that does not start, changes nothing, and prints no secret. Exits with 1 if something has failed.
    """
    deployment = Deployment(config)
    try:
        chosen = _chosen(doctor.checks(deployment), only)
        findings = []
        for checking in chosen:
            if not as_json and sys.stdout.isatty():
                click.echo(f"{'...':<{OUTCOME}}{checking.name}\r", nl=False)
            findings.append(doctor.examine(deployment, checking, timeout, offline=offline))
            if not as_json:
                _print(findings[-1])
    finally:
        deployment.close()
    counts = Counter(finding.outcome for finding in findings)
    bad = counts[Outcome.FAILED] > 0 or (strict and counts[Outcome.WARNING] > 0)
    if as_json:
        click.echo(json.dumps(_as_json(findings, counts), ensure_ascii=False, indent=2))
    else:
        click.echo(f"\n{', '.join(f'{counts[outcome]} {outcome}' for outcome in Outcome if counts[outcome])}")
    raise SystemExit(1 if bad else 0)


def _chosen(known: Sequence[Checking], only: Sequence[str]) -> list[Checking]:
    """Those that ``--only`` names, by their own name or their plugin's; all if it names none."""
    for name in only:
        if not any(name in (checking.name, checking.name.partition(".")[0]) for checking in known):
            names = ", ".join(checking.name for checking in known)
            raise click.BadParameter(f"there is no check {name!r} here. There are: {names}", param_hint="--only")
    return [one for one in known if not only or one.name in only or one.name.partition(".")[0] in only]


def _print(finding: Finding) -> None:
    outcome = click.style(f"{finding.outcome:<{OUTCOME}}", fg=COLOURS[finding.outcome])
    first, *more = (finding.found or "").splitlines() or [""]
    click.echo(f"{outcome}{finding.name:<{NAME}}{first}".rstrip())
    indent = " " * (OUTCOME + NAME)
    for line in more:
        click.echo(f"{indent}{line.strip()}")
    if finding.remedy:
        click.echo(textwrap.indent(f"-> {finding.remedy}", indent))


def _as_json(findings: Sequence[Finding], counts: Counter[Outcome]) -> dict[str, Any]:
    worst = next((each for each in (Outcome.FAILED, Outcome.WARNING) if counts[each]), Outcome.OK)
    return {
        "outcome": worst,
        "version": version("customer-orders"),
        "checks": [
            {
                "name": finding.name,
                "outcome": finding.outcome,
                "found": finding.found,
                "remedy": finding.remedy,
                "seconds": round(finding.seconds, 3),
            }
            for finding in findings
        ],
    }
