"""A certificate authority that the tests trust."""

from loopback import authority, tls

__all__ = ["authority", "tls"]
