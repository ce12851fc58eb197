"""The bounded context ordering: what we sell, at which price, to whom."""

from __future__ import annotations

from backbone.declare import Context
from contexts.ordering.catalogue.service import catalogue
from contexts.ordering.orders.service import orders
from contexts.ordering.pricing.service import pricing

ordering = Context(
    "ordering",
    catalogue,
    pricing,
    orders,
)
