"""``GET /api/version``: which code runs here, for those who work with it.

Anyone reads the version at ``/api/``. Which plugins there are, and in which versions, tells where to look for known
weaknesses: that is for those whom we know.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, version
from typing import Any

import colander

from customer_orders.api import Service
from customer_orders.api.fields import Text, node
from customer_orders.auth.policy import Permission
from customer_orders.auth.resources import Collection
from customer_orders.plugins import distribution, installed
from customer_orders.settings import section

service = Service("version", "/api/version", tag="session", factory=Collection)


class Plugin(colander.MappingSchema):
    """A plugin that is switched on, and the distribution that brings it."""

    name = node(Text(), "Its name, as in the setting `plugins`.")
    distribution = node(Text(), "The distribution that brings it.")
    version = node(Text(), "The distribution's version.")


class Version(colander.MappingSchema):
    """Which code runs here."""

    example: dict[str, Any] = {
        "version": "1.0.0",
        "commit": "4f1c2d9",
        "plugins": [{"name": "google", "distribution": "customer-orders-google", "version": "1.0.0"}],
    }

    version = node(Text(), "Version of the product.")
    commit = node(Text(), "The commit that it was built from; null if the deployment does not tell.", nullable=True)
    plugins = colander.SequenceSchema(Plugin(), description="What is switched on.")


@service.get(permission=Permission.VERSION_READ, operation_id="version_read", returns=Version)
def read_version(request: Any) -> dict[str, Any]:
    """Read which code runs here: version, commit, plugins."""
    found = installed()
    return {
        "version": version("customer-orders"),
        "commit": section(request.registry, "app").commit,
        "plugins": [_plugin(name, found[name][0]) for name in sorted(request.registry.plugins.by_plugin)],
    }


def _plugin(name: str, point: EntryPoint) -> dict[str, str]:
    brings, _, number = distribution(point).rpartition(" ")
    return {"name": name, "distribution": brings, "version": number}


def includeme(config: Any) -> None:
    """Serve it."""
    config.scan("customer_orders.version")
