"""What ``customer-orders doctor`` asks the provider: before anybody is refused who wants to sign in."""

from __future__ import annotations

import secrets

from customer_orders.interfaces import CheckFailed, IdentityProviderUnavailable
from customer_orders_google.id_token import LEEWAY
from customer_orders_google.provider import CodeRefused, Google

# What is wrong with the client, and not with the code (RFC 6749, section 5.2).
CLIENT = ("invalid_client", "unauthorized_client")
# Where a code would have been sent to that was never given.
NOWHERE = "https://localhost/"
# Seconds: a Date tells whole ones, and an answer takes its time.
DRIFT = 5
SYNCHRONIZE = "Have this machine synchronize its clock (NTP)."


class Checks:
    """The checks of one provider."""

    def __init__(self, google: Google) -> None:
        self.google = google

    def discovery(self) -> str:
        """The provider publishes its endpoints and its keys, and is the one that was meant."""
        discovery = self.google.discovery
        try:
            for name in ("authorization_endpoint", "token_endpoint"):
                discovery.endpoint(name)
            discovery.key("")
        except KeyError:
            # no key is called so, and there are others
            pass
        except IdentityProviderUnavailable as error:
            raise CheckFailed(
                f"Nobody can sign in: {error}.", remedy="Mend google.issuer, or the way there."
            ) from error
        return f"{discovery.issuer} publishes its endpoints and keys."

    def clock(self) -> str:
        """The provider's clock and ours agree: an ID token of tomorrow is refused."""
        try:
            told, ours = self.google.discovery.clock()
        except IdentityProviderUnavailable as error:
            raise CheckFailed(
                f"The provider's clock cannot be read: {error}.", remedy="See google.discovery."
            ) from error
        if told is None:
            return "The provider tells no time (Date)."
        apart = (told - ours).total_seconds()
        said = (
            f"The provider's clock is {abs(apart):.0f} seconds {'ahead of' if apart > 0 else 'behind'} this machine's"
        )
        if abs(apart) > LEEWAY:
            raise CheckFailed(f"{said}; sign-ins are refused from {LEEWAY} on.", remedy=SYNCHRONIZE)
        if abs(apart) > DRIFT:
            raise CheckFailed(f"{said}.", remedy=SYNCHRONIZE, warning=True)
        return f"{said}."

    def client(self) -> str:
        """The provider knows the client by its id and secret: it is asked to redeem a code that it never gave."""
        try:
            self.google.redeem(NOWHERE, secrets.token_urlsafe(16), secrets.token_urlsafe(48))
        except CodeRefused as refused:
            if refused.error in CLIENT:
                raise CheckFailed(
                    f"The provider does not know the client: {refused.error}.",
                    remedy="Mend google.client_id and google.client_secret: the two of one OAuth client.",
                ) from refused
            return "The provider knows the client."
        except IdentityProviderUnavailable as error:
            raise CheckFailed(f"The client cannot be checked: {error}.", remedy="See google.discovery.") from error
        raise CheckFailed("The provider takes any code.", remedy="Name a real one by google.issuer.")
