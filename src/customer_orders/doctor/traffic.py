"""Checks of how requests come in: limits, and the proxies in front."""

from __future__ import annotations

from urllib.parse import urlsplit

import redis

from customer_orders.addresses import is_loopback
from customer_orders.doctor.deployment import Deployment
from customer_orders.interfaces import CheckFailed

# Seconds to reach Redis, and to get an answer.
TIMEOUT = 5


def check_storage(deployment: Deployment) -> str:
    """Requests are counted where all processes see it."""
    url = deployment.section("limits").storage
    if url == "memory://":
        workers = deployment.section("server").workers
        if workers > 1:
            raise CheckFailed(
                f"limits.storage is memory://, and there are {workers} processes (server.workers): each counts by "
                f"itself, so up to {workers} times as many requests are taken.",
                remedy="Name a Redis by limits.storage, or take it into account in limits.*.",
                warning=True,
            )
        return "Requests are counted in the one process that there is."
    try:
        # decodes nothing: what answers may be no Redis
        with redis.Redis.from_url(url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT) as server:
            server.ping()
    except redis.RedisError as error:
        raise CheckFailed(
            f"limits.storage does not answer: {type(error).__name__}: {error}",
            remedy="Start it, or mend limits.storage (variable LIMITS_STORAGE). Until then no request is limited.",
        ) from error
    return "Redis answers."


def check_proxies(deployment: Deployment) -> str:
    """Proxies in front are named, or people share one limit and the audit trail tells the proxy's address."""
    app, server = deployment.section("app"), deployment.section("server")
    trusted = " ".join(app.trusted_proxies)
    if trusted:
        return f"Believed about where requests come from: {trusted}."
    speaks_tls = urlsplit(app.public_url).scheme == "https"
    hosts = [address.rpartition(":")[0].strip("[]") for address in server.listen]
    if speaks_tls or not all(map(is_loopback, hosts)):
        listens = f"the server listens at {' '.join(server.listen)}"
        why = "app.public_url is https, which a proxy in front has to speak" if speaks_tls else listens
        raise CheckFailed(
            f"No proxy is trusted, and {why}. Behind a proxy all people share one limit, and the audit trail tells the "
            "proxy's address instead of theirs.",
            remedy="Name the proxies' addresses in app.trusted_proxies; if there is none, ignore this.",
            warning=True,
        )
    return "There is none, and the server listens to this machine only."
