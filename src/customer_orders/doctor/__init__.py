"""``customer-orders doctor``: everything about a deployment that can be checked, however broken it is.

Each check stands for itself: it goes on with what can still be read, and where it cannot it is skipped, while the check
that meets the cause tells it. Of the core's own each is a function of a :class:`Deployment`; plugins add theirs by
``config.add_doctor_check``. What each of them looks at is in docs/doctor.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial

from customer_orders.checks import Checking, Finding, Outcome, run
from customer_orders.doctor import data, ini, public, secrets, traffic
from customer_orders.doctor.deployment import Deployment
from customer_orders.settings import MASK

# In this order, which is that of mending: what others need comes first.
CORE: dict[str, Callable[[Deployment], str | None]] = {
    "ini": ini.check_file,
    "settings": ini.check_settings,
    "unknown_settings": ini.check_unknown,
    "secrets": secrets.check_places,
    "signing_key": secrets.check_signing_key,
    "report_secrets": secrets.check_report_secrets,
    "database": data.check_database,
    "migrations": data.check_migrations,
    "database_role": data.check_role,
    "database_encoding": data.check_encoding,
    "clock": data.check_clock,
    "access": data.check_access,
    "outbox": data.check_outbox,
    "limits_storage": traffic.check_storage,
    "proxies": traffic.check_proxies,
    "public_url": public.check_address,
    "reachable": public.check_reachable,
    "ready": public.check_ready,
    "report_url": public.check_report_url,
}
# These ask the deployment's public address, and so a name server and whatever stands in front.
ONLINE = ("reachable", "ready", "report_url")


def checks(deployment: Deployment) -> list[Checking]:
    """All checks of a deployment, the plugins' at the end; of those whose settings are wrong, none can be known."""
    own = [Checking(name, partial(check, deployment), online=name in ONLINE) for name, check in CORE.items()]
    return [*own, *deployment.plugin_checks]


def examine(deployment: Deployment, checking: Checking, seconds: float, *, offline: bool) -> Finding:
    """Run a check, for so many ``seconds`` at most.

    :param offline: not if it asks somebody outside.
    """
    if offline and checking.online:
        return Finding(checking.name, Outcome.SKIPPED, "It would ask somebody outside, and --offline says not to.")
    return _without(next(run([checking], seconds)), deployment.secrets())


def _without(finding: Finding, known: Collection[str]) -> Finding:
    """Without any of the deployment's secrets, whoever said them."""

    def shown(text: str | None) -> str | None:
        for secret in known if text else ():
            text = text and text.replace(secret, MASK)
        return text

    return replace(finding, found=shown(finding.found), remedy=shown(finding.remedy))
