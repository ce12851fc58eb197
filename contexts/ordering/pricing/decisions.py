"""What pricing says to what it hears."""

from __future__ import annotations

from collections.abc import Iterator

from retail.ordering.v1.catalogue_pb2 import ItemCatalogued
from retail.ordering.v1.price_pb2 import PriceListed

from backbone.money import minor_units
from contexts.ordering.pricing.state import Event, Listing


def list_price(listing: Listing, item: ItemCatalogued) -> Iterator[Event]:
    """List the catalogue's price, if it is another than the one that is listed."""
    if Listing(minor_units(item.list_price), item.list_price.currency_code) != listing:
        yield PriceListed(sku=item.sku, unit_price=item.list_price)
