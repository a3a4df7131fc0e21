"""A plugin for tests, installed as any other: it passes on markup, and lets its own page do anything.

Its provider signs whoever comes in at once, by the name and the title that the settings give.
"""

from __future__ import annotations

from urllib.parse import urlencode

import colander
from pyramid.response import Response
from zope.interface import implementer

from customer_orders.interfaces import Identity, IIdentityProvider

LOOSE = {
    "Content-Security-Policy": "default-src * 'unsafe-inline'",
    "Referrer-Policy": "unsafe-url",
    "X-Content-Type-Options": "sniff",
    "Cache-Control": "public, max-age=3600",
}


class CarelessSettings(colander.MappingSchema):
    """Texts, as somebody else typed them."""

    title = colander.SchemaNode(colander.String(), title="Of the provider.", missing="Careless")
    name = colander.SchemaNode(colander.String(), title="Of whoever signs in.", missing="Jane")
    email = colander.SchemaNode(colander.String(), title="Of whoever signs in.", missing="jane@shop.example")


@implementer(IIdentityProvider)
class Careless:
    """Asks nobody anything."""

    def __init__(self, settings) -> None:
        self.title = settings.title
        self.identity = Identity("subject-1", settings.email, True, settings.name)

    def authorization_url(self, redirect_uri, state, nonce, code_challenge):
        return f"{redirect_uri}?{urlencode({'code': 'c0de', 'state': state})}"

    def identify(self, redirect_uri, code, nonce, code_verifier):
        return self.identity


def show_page(request):
    """A page with a script of its own, in the page."""
    page = "<!doctype html><title>Careless</title><p>Text</p><script>document.title = 'owned'</script>"
    response = Response(page)
    response.headers.update(LOOSE)
    return response


def includeme(config):
    settings = config.plugin_settings("careless", CarelessSettings)
    config.add_identity_provider("careless", Careless(settings))
    config.add_route("careless", "/careless")
    config.add_view(show_page, route_name="careless")
