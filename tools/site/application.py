"""The application that the documentation is read off: real settings, schemas and operations, and nobody is served."""

from __future__ import annotations

import configparser
import secrets
from pathlib import Path
from typing import Any

from customer_orders import main

ROOT = Path(__file__).parent.parent.parent
ENTRY_POINTS = "options.entry_points"
GROUP = "customer_orders.plugins"

# What has no default. A plugin's own: an application starts with it or not at all.
REQUIRED = {
    "sqlalchemy.url": "sqlite:///never-opened.sqlite",
    "notifications.dispatcher": "worker",
    "africastalking.username": "sandbox",
    "devtools.inbox": "never-opened.jsonl",
    "google.client_id": "orders",
}
SECRETS = ("jwt.private_key", "africastalking.api_key", "google.client_secret")


def plugins() -> dict[str, Path]:
    """The plugins of this repository, by name, and the folder of each."""
    found = {}
    for manifest in sorted(ROOT.glob("plugins/*/setup.cfg")):
        read = configparser.ConfigParser()
        read.read(manifest)
        for line in read.get(ENTRY_POINTS, GROUP, fallback="").split("\n"):
            if line.strip():
                found[line.partition("=")[0].strip()] = manifest.parent
    return found


def application(*names: str, url: str = "https://orders.example.com") -> Any:
    """The application with these plugins, at this address; nothing is opened.

    Raises :class:`customer_orders.settings.InvalidSettings` for a plugin that requires a setting which REQUIRED lacks.
    """
    given = {**REQUIRED, "app.public_url": url, **{key: secrets.token_urlsafe(64) for key in SECRETS}}
    sections = ("app", "sqlalchemy", "jwt", "notifications", *names)
    return main({}, plugins=" ".join(names), **{key: given[key] for key in given if key.partition(".")[0] in sections})
