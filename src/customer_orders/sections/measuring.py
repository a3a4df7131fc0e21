"""Settings of what is measured."""

from __future__ import annotations

import colander

from customer_orders.sections.listening import one_address
from customer_orders.settings import Words, node


class Metrics(colander.MappingSchema):
    """Metrics, for Prometheus."""

    listen = node(
        Words(),
        "Address and port at which `customer-orders serve`, `customer-orders worker` and `pserve` each tell their "
        "metrics, such as 0.0.0.0:9464, apart from the API: whoever gets there reads them. Blank: nowhere.",
        missing=(),
        validator=one_address,
    )
