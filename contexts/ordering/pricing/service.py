"""Pricing: what things cost."""

from __future__ import annotations

from retail.ordering.v1.catalogue_pb2 import ItemCatalogued

from backbone.declare import Decider, Service, on
from contexts.ordering.pricing import decisions, state

decider = Decider(
    state.Listing,
    state.evolve,
    on(ItemCatalogued, decisions.list_price),
)

pricing = Service("pricing", decider)
