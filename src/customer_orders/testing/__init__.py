"""Conformance kits: what every plugin has to do, as tests that its author inherits.

Subclass a kit in a module of tests, override what raises ``NotImplementedError``, and run pytest. The fixtures may
ask for any others, such as ``tmp_path`` or a stub of the provider::

    class TestPigeon(NotifierContract):
        @pytest.fixture
        def notifier(self, loft):
            return Pigeon(loft.url)

        @pytest.fixture
        def failing(self, loft):
            return [(Pigeon(loft.closed_url), Unavailable)]
"""

from __future__ import annotations

import pytest

# so that a failure shows what was compared
pytest.register_assert_rewrite("customer_orders.testing.contracts")

from customer_orders.testing.contracts import (  # noqa: E402
    CheckContract,
    DeliveryReportsContract,
    IdentityProviderContract,
    NotifierContract,
)

__all__ = ["CheckContract", "DeliveryReportsContract", "IdentityProviderContract", "NotifierContract"]
