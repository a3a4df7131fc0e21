"""For a laptop: signs in any e-mail address, and shows every SMS in an inbox. Never for a deployment.

It answers only to this machine (see :mod:`customer_orders_devtools.guard`).
"""

from __future__ import annotations

from typing import Any

import colander
from pyramid.static import static_view

from customer_orders_devtools.guard import (
    local_only,
    refuse_a_public_address,
    refuse_reports_elsewhere,
    refuse_to_listen_elsewhere,
)
from customer_orders_devtools.identity import AnyEmail
from customer_orders_devtools.reporter import Reporter
from customer_orders_devtools.simulator import Simulator


class DevtoolsSettings(colander.MappingSchema):
    """Settings of the development tools."""

    inbox = colander.SchemaNode(
        colander.String(),
        title="File that keeps the messages the simulated phone got, a JSON object a line.",
        how="is required: the file that keeps the simulated messages, such as %(here)s/var/inbox.jsonl",
    )
    timeout = colander.SchemaNode(
        colander.Integer(),
        title="Seconds until a simulated time-out; within a third of notifications.lease.",
        validator=colander.Range(1, 3600),
        missing=5,
    )
    report_url = colander.SchemaNode(
        colander.String(),
        title="Address of this machine to which delivery reports are posted, a secret at its end. Blank: none are.",
        validator=refuse_reports_elsewhere,
        secret=True,
        secrets_in=lambda url: (url.rpartition("/")[2],),
        missing=None,
    )


def includeme(config: Any) -> None:
    """Register the identity provider, the simulator, and their pages."""
    refuse_to_listen_elsewhere(config.get_settings())
    refuse_a_public_address(config)
    settings = config.plugin_settings("devtools", DevtoolsSettings)
    reporter = Reporter(settings.report_url) if settings.report_url else None
    provider, simulator = AnyEmail(), Simulator(settings.inbox, settings.timeout, reporter)
    config.add_identity_provider("devtools", provider)
    config.add_notifier("devtools", simulator)
    config.add_doctor_check("inbox", simulator.check, online=False)
    config.registry.devtools = (provider, simulator)
    config.add_route("devtools_static", "/devtools/static/*subpath")
    config.add_view(
        static_view("customer_orders_devtools:static", use_subpath=True),
        route_name="devtools_static",
        request_method=("GET", "HEAD"),
        decorator=local_only,
    )
    config.add_route("devtools_sign_in", "/devtools/sign-in")
    config.add_route("devtools_inbox", "/devtools/inbox")
    config.scan("customer_orders_devtools.views")
