"""Who is calling, what they may do, and signing in."""

from __future__ import annotations

from typing import Any

from customer_orders.auth.policy import SecurityPolicy
from customer_orders.auth.tokens import AccessTokens
from customer_orders.settings import section


def includeme(config: Any) -> None:
    """Set the security policy and register the services."""
    registry = config.registry
    registry.access_tokens = AccessTokens(section(registry, "jwt"), section(registry, "app").public_url)
    config.set_security_policy(SecurityPolicy(registry.access_tokens))
    # the call-back is a GET that makes users and tokens
    config.add_writing_route("oauth2_callback")
    for views in ("views", "session_views", "api_key_views"):
        config.scan(f"customer_orders.auth.{views}")
