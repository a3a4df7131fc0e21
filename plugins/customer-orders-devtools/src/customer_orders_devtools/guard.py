"""Keeping development tools to this machine: they let anyone in as anyone."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

import colander
import plaster
from pyramid.exceptions import ConfigurationError
from pyramid.httpexceptions import HTTPNotFound
from waitress.adjustments import Adjustments

# What a proxy adds to a request, if it says so at all.
PROXIED = re.compile("HTTP_(FORWARDED|VIA|X_REAL_IP|X_FORWARDED_.*)")

LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]*)?", re.IGNORECASE)


def is_loopback(address: str) -> bool:
    """Whether an IP address is this machine's own."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _is_local(address: str) -> bool:
    try:
        host = urlsplit(f"//{address}").hostname or address
    except ValueError:
        return False
    return host == "localhost" or is_loopback(host)


def local_only(view: Callable[..., Any]) -> Callable[..., Any]:
    """A view decorator: to anyone but this machine, the page does not exist.

    Both must be local: the peer, and the name it asked for; a foreign page that resolves its own name to 127.0.0.1
    asks for that name. And no header may say that a proxy passed the request on. A proxy that passes on neither the
    public name nor any such header (or whose headers the server removes) cannot be told from a browser here; the
    public address of such a deployment tells of it, see :func:`refuse_a_public_address`.
    """

    def guarded(context: Any, request: Any) -> Any:
        local = is_loopback(request.environ.get("REMOTE_ADDR", "")) and LOCAL_HOST.fullmatch(request.host)
        if not local or any(PROXIED.fullmatch(name) for name in request.environ):
            raise HTTPNotFound
        return view(context, request)

    return guarded


def refuse_a_public_address(config: Any) -> None:
    """Refuse to start if ``app.public_url``, by which browsers reach the service, is not on this machine.

    Raises ``ConfigurationError``. If the address itself is wrong, the core refuses to start.
    """
    app = config.registry.sections.get("app")
    if app is not None and not _is_local(urlsplit(app.public_url).netloc):
        raise ConfigurationError(
            f"app.public_url is {app.public_url}, and the devtools plugin lets anyone in. Either set "
            "app.public_url = http://127.0.0.1:6543, or take devtools out of plugins =."
        )


def refuse_reports_elsewhere(node: colander.SchemaNode, value: str) -> None:
    """A validator of where reports are posted: this machine. The value is not repeated, since it holds a secret."""
    try:
        sound = re.fullmatch(rf"http://{LOCAL_HOST.pattern}/[!-~]*", value, re.IGNORECASE) and urlsplit(value).port != 0
    except ValueError:
        sound = False
    if not sound:
        raise colander.Invalid(
            node,
            "is no address of this machine; write http://127.0.0.1:6543/api/notifications/reports/devtools/ and "
            "after it one of notifications.report_secrets",
        )


def refuse_to_listen_elsewhere(settings: Mapping[str, Any]) -> None:
    """Refuse to start if ``[server:main]`` of the INI, or the variable ``SERVER_LISTEN``, listens beyond loopback.

    Raises ``ConfigurationError``. Without an INI, or without that section, there is nothing to check.
    """
    ini = settings.get("__file__")
    if not ini:
        return
    # the INI's own variables, a port given on the command line among them
    variables = {key: value for key, value in settings.items() if isinstance(value, str) and "." not in key}
    loader = plaster.get_loader(ini, protocols=["wsgi"])
    server = loader.get_settings("server:main", defaults=variables)
    if not server:
        return
    # waitress listens everywhere unless told; the variable may override the INI, or another server may ignore it
    listens = server.get("listen", "").split() or [server.get("host", Adjustments.host)]
    for address in [*listens, *os.environ.get("SERVER_LISTEN", "").split()]:
        if not _is_local(address):
            raise ConfigurationError(
                f"{ini}: [server:main] listens on {address}, and the devtools plugin lets anyone in. Either set "
                "listen = 127.0.0.1:6543, or take devtools out of plugins =."
            )
